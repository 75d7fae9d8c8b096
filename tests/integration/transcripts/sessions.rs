//! What a session keeps while its client is away, and what the client finds when it comes back.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{
        Connecting, Spec, connack, connect, disconnect, puback, pubcomp, publish, pubrec, pubrel,
    },
};

fn dev() -> Connecting {
    connect("dev").persistent()
}

/// [MQTT-3.2.2-2], [MQTT-3.2.2-3], [MQTT-3.1.2-4], [MQTT3-3.2.2-1], [MQTT3-3.2.2-2], [MQTT3-3.2.2-3], [MQTT3-3.1.2-6]
#[tokio::test]
async fn a_session_is_present_until_a_clean_start() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "dev", "t", QoS::AtLeastOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos1(1)).await;
        let mut back = broker.returning(version, dev()).await;
        let id = back.expect_message(publish("t", "1").qos1(0)).await;
        back.leave().await;
        let mut back = broker.returning(version, dev()).await;
        back.expect_publish(publish("t", "1").qos1(id).dup()).await;
        back.leave().await;
        // A clean start ends it, subscriptions and queue and all.
        let mut clean = broker.client(version, connect("dev")).await;
        clean.expect_nothing_for_one_ping().await;
        other.published(publish("t", "2").qos1(2)).await;
        clean.expect_nothing_for_one_ping().await;
        clean.leave().await;
        // And a session that began clean with expiry 0 is not kept.
        let mut back = broker.client(version, dev()).await;
        other.published(publish("t", "3").qos1(3)).await;
        back.expect_nothing_for_one_ping().await;
        back.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// v5 keeps a session that began clean, if its expiry says so.
#[tokio::test]
async fn a_clean_start_with_an_expiry_begins_a_session_that_stays() {
    let broker = Broker::start();
    let mut clean = broker.client(Version::V5, connect("dev").session_expiry(60)).await;
    clean.subscribed("t", QoS::AtLeastOnce).await;
    clean.leave().await;
    broker.returning(Version::V5, dev()).await.leave().await;
}

/// Everything queued comes back in the order it was published, each with its own quality of service.
#[tokio::test]
async fn the_queue_of_a_sleeper_keeps_its_order() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "dev", "t/#", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        for n in 1..=30_u16 {
            let message = publish("t/1", n.to_string());
            other.published(if n % 3 == 0 { message.qos2(n) } else { message.qos1(n) }).await;
        }
        // QoS 0 is not queued for sleepers.
        other.published(publish("t/0", "gone")).await;
        let mut back = broker.returning(version, dev()).await;
        let mut ids = Vec::new();
        for n in 1..=30_u16 {
            let message = publish("t/1", n.to_string());
            let message = if n % 3 == 0 { message.qos2(n) } else { message.qos1(n) };
            let qos = message.qos;
            ids.push((qos, back.expect_message(message).await));
        }
        for (qos, id) in ids {
            back.acknowledge(qos, id).await;
        }
        back.expect_nothing_for_one_ping().await;
        back.leave().await;
        let mut back = broker.returning(version, dev()).await;
        back.expect_nothing_for_one_ping().await;
        back.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1], [MQTT3-4.4.0-1], [MQTT3-3.3.1-1]: what was not acknowledged is sent again, with DUP,
/// its first packet id, in order, and before what came later.
#[tokio::test]
async fn unacknowledged_messages_are_sent_again_with_dup_and_their_ids() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut first = broker.client(version, dev()).await;
        first.subscribed("t", QoS::ExactlyOnce).await;
        other.send(publish("t", "1").qos1(1)).await;
        let one = first.expect_message(publish("t", "1").qos1(0)).await;
        other.expect(puback(1)).await;
        other.published(publish("t", "2").qos2(2)).await;
        let two = first.expect_message(publish("t", "2").qos2(0)).await;
        other.send(publish("t", "3").qos1(3)).await;
        let three = first.expect_message(publish("t", "3").qos1(0)).await;
        first.send(puback(three)).await;
        other.expect(puback(3)).await;
        first.hang_up().await;
        broker.until_logged(&mut other, &["\"disconnected\"", "\"dev\"", "connection lost"]).await;
        other.published(publish("t", "4").qos1(4)).await;

        let mut second = broker.returning(version, dev()).await;
        second.expect_publish(publish("t", "1").qos1(one).dup()).await;
        second.expect_publish(publish("t", "2").qos2(two).dup()).await;
        let four = second.expect_message(publish("t", "4").qos1(0)).await;
        second.send(puback(one)).await;
        second.send(puback(four)).await;
        second.acknowledge(QoS::ExactlyOnce, two).await;
        second.expect_nothing_for_one_ping().await;
        second.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// [MQTT-3.1.4-3], [MQTT3-3.1.4-2]: the connection that was there first is told (v5) and closed, and the session goes on.
#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut first = broker.client(version, dev()).await;
        first.subscribed("t", QoS::AtLeastOnce).await;
        other.send(publish("t", "1").qos1(1)).await;
        let id = first.expect_message(publish("t", "1").qos1(0)).await;
        other.expect(puback(1)).await;
        let mut second = broker.returning(version, dev()).await;
        first.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
        second.expect_publish(publish("t", "1").qos1(id).dup()).await;
        second.send(puback(id)).await;
        second.expect_nothing_for_one_ping().await;
        // With a clean start the session ends as well.
        let mut third = broker.client(version, connect("dev")).await;
        second.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
        other.published(publish("t", "2").qos1(2)).await;
        third.expect_nothing_for_one_ping().await;
        third.leave().await;
        other.leave().await;
    }
    let why = "another connection with this client identifier";
    broker.expect_logged(2 * BOTH.len(), &["\"disconnected\"", "\"dev\"", why]).await;
}

/// [MQTT-3.2.2-16]: and no two clients get the same.
#[tokio::test]
async fn nameless_clients_get_names_of_their_own() {
    let broker = Broker::start();
    let mut names = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = broker.peer(Version::V5).await;
        peer.send(connect("").session_expiry(60)).await;
        let name = peer
            .receive_with(|packet| match packet {
                Packet::Connack(connack) => connack.properties.assigned_client_id.map(str::to_owned),
                other => panic!("{other:?}"),
            })
            .await;
        names.push(name.expect("a name"));
        peers.push(peer);
    }
    for mut peer in peers {
        peer.expect_nothing_for_one_ping().await;
        peer.leave().await;
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3);
    // By its name it finds its session again, and is not named anew.
    let mut back = broker.peer(Version::V5).await;
    back.send(connect(&names[0]).persistent()).await;
    back.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert!(connack.session_present && connack.properties.assigned_client_id.is_none());
    })
    .await;
}

/// [MQTT-3.1.2-21]: v5 is told of the keep alive imposed on it, and held to it.
#[tokio::test]
async fn a_keep_alive_can_be_imposed_on_v5() {
    let broker = Broker::start_configured("[limits]\nkeep_alive_max = \"1s\"\n");
    for asked in [0, 60] {
        let mut dev = broker.peer(Version::V5).await;
        dev.send(connect("dev").keep_alive(asked)).await;
        dev.receive_with(|packet| {
            let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
            assert_eq!(connack.properties.server_keep_alive, Some(1));
        })
        .await;
        dev.expect_ended().await;
    }
    broker.expect_logged(2, &["\"disconnected\"", "keep alive timed out"]).await;
    let mut modest = broker.peer(Version::V5).await;
    modest.send(connect("modest").keep_alive(1)).await;
    modest
        .receive_with(|packet| {
            let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
            assert_eq!(connack.properties.server_keep_alive, None);
        })
        .await;
}

/// Sessions survive SIGTERM, which v5 clients are told of.
#[tokio::test]
async fn sessions_and_queues_survive_sigterm() {
    for version in BOTH {
        let mut broker = Broker::start();
        let mut other = broker.client(version, connect("other")).await;
        let mut first = broker.client(version, dev()).await;
        first.subscribed("t", QoS::AtLeastOnce).await;
        other.send(publish("t", "1").qos1(1)).await;
        let id = first.expect_message(publish("t", "1").qos1(0)).await;
        other.expect(puback(1)).await;
        assert_eq!(broker.terminate().code(), Some(0));
        first.expect_shown_out(version, ReasonCode::ServerShuttingDown).await;
        other.expect_shown_out(version, ReasonCode::ServerShuttingDown).await;
        broker.restart();
        let mut back = broker.returning(version, dev()).await;
        back.expect_publish(publish("t", "1").qos1(id).dup()).await;
    }
}

/// A client that asks for more sessions than there may be is refused; the others stay.
#[tokio::test]
async fn sessions_beyond_the_limit_are_refused() {
    let broker = Broker::start_configured("[sessions]\nmax = 2\n");
    for version in BOTH {
        broker.client(version, connect("one").persistent()).await.leave().await;
        let two = broker.client(version, connect("two")).await;
        let mut three = broker.peer(version).await;
        three.send(connect("three")).await;
        let reason = if version.is_v5() { ReasonCode::QuotaExceeded } else { ReasonCode::ServerUnavailable };
        three.expect(connack(reason)).await;
        three.expect_closed().await;
        two.leave().await;
        let mut three = broker.client(version, connect("three")).await;
        three.send(disconnect()).await;
        three.expect_closed().await;
        broker.client(version, connect("one")).await.leave().await;
    }
    broker.expect_logged(BOTH.len(), &["\"refused\"", "maximum number of sessions"]).await;
}

/// Connections that take one session over from each other all at once: each is greeted before it is shown out
/// [MQTT-3.14.0-1], or just closed, and the last one stays.
#[tokio::test]
async fn a_crowd_with_one_name_leaves_one() {
    const CROWD: usize = 16;
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    for version in BOTH {
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(broker.peer(version).await);
        }
        for peer in &mut crowd {
            peer.send(dev()).await;
        }
        // All have been greeted or closed before the first is asked: nobody comes any more.
        let mut greeted = Vec::new();
        for mut peer in crowd {
            match peer.try_next().await {
                None => {}
                Some(Spec::Connack { reason: ReasonCode::Success, .. }) => greeted.push(peer),
                Some(other) => panic!("before any CONNACK: {other:?}"),
            }
        }
        let mut staying = 0;
        for peer in &mut greeted {
            // Those that were taken over hear so, if they have not yet; the one that stays is asked.
            match peer.ask(Spec::Pingreq).await {
                Some(Spec::Pingresp) => staying += 1,
                Some(Spec::Disconnect(ReasonCode::SessionTakenOver)) if version.is_v5() => {}
                None if !version.is_v5() => {}
                answer => panic!("{answer:?}"),
            }
        }
        assert_eq!(staying, 1);
        other.expect_nothing_for_one_ping().await;
        drop(greeted);
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// A session belongs to a client, not to a version of the protocol.
#[tokio::test]
async fn a_session_outlives_a_change_of_version() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    for (before, after) in [(Version::V311, Version::V5), (Version::V5, Version::V311)] {
        broker.sleeper(before, "dev", "t", QoS::ExactlyOnce).await;
        other.published(publish("t", "1").qos2(1)).await;
        other.published(publish("t", "2").qos1(2)).await;
        let mut first = broker.returning(before, dev()).await;
        let one = first.expect_message(publish("t", "1").qos2(0)).await;
        let two = first.expect_message(publish("t", "2").qos1(0)).await;
        first.send(pubrec(one)).await;
        first.expect(pubrel(one)).await;
        first.leave().await;
        let mut second = broker.returning(after, dev()).await;
        second.expect(pubrel(one)).await;
        second.expect_publish(publish("t", "2").qos1(two).dup()).await;
        second.send(pubcomp(one)).await;
        second.send(puback(two)).await;
        second.expect_nothing_for_one_ping().await;
        second.leave().await;
        broker.client(after, connect("dev")).await.leave().await;
    }
}

/// What is published while a backlog is being sent joins its tail, also when the backlog has to be read from disk.
#[tokio::test]
async fn live_messages_join_the_tail_of_the_backlog() {
    const EACH: u16 = 400;
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::AtLeastOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.send_all((1..=EACH).map(|n| publish("t", n.to_string()).qos1(n).into())).await;
        for n in 1..=EACH {
            other.expect(puback(n)).await;
        }
        broker.kill9();
        broker.restart();
        let mut other = broker.client(version, connect("other")).await;
        let mut back = broker.returning(version, dev()).await;
        let later = EACH + 1..=2 * EACH;
        other.send_all(later.clone().map(|n| publish("t", n.to_string()).qos1(n).into())).await;
        for n in 1..=2 * EACH {
            let received = back.receive_publish().await;
            assert_eq!(received.payload, n.to_string().as_bytes());
            back.send(puback(received.packet_id)).await;
        }
        for n in later {
            other.expect(puback(n)).await;
        }
        back.expect_nothing_for_one_ping().await;
    }
}

/// A full queue gives up its oldest, and says so; QoS 0 is queued where that is asked for.
#[tokio::test]
async fn a_full_queue_gives_up_its_oldest() {
    let broker = Broker::start_configured("[sessions]\nqueue_messages_max = 3\nqueue_qos0 = true\n");
    for version in BOTH {
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos1(1)).await;
        other.published(publish("t", "2").qos2(2)).await;
        other.published(publish("t", "3").qos1(3)).await;
        other.published(publish("t", "4")).await;
        other.published(publish("t", "5").qos2(5)).await;
        let mut back = broker.returning(version, dev()).await;
        back.take(publish("t", "3").qos1(0)).await;
        back.take(publish("t", "4")).await;
        back.take(publish("t", "5").qos2(0)).await;
        back.expect_nothing_for_one_ping().await;
        back.leave().await;
        other.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
    assert!(broker.logged(&["\"WARN\"", "\"dev\"", "its queue is full"]) >= 1);
}
