//! A client's last message: when it is published, when it is not, and when it has to wait.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::{BOTH, Stopwatch};
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{Connecting, Publishing, connect, disconnect, publish},
    },
};

fn will() -> Publishing {
    publish("will/dev", "gone").qos1(0)
}

fn dev() -> Connecting {
    connect("dev").will(will())
}

/// A client that hears all wills.
async fn watcher(broker: &Broker, version: Version) -> Peer {
    let mut watcher = broker.client(version, connect("watcher")).await;
    watcher.subscribed("will/#", QoS::AtLeastOnce).await;
    watcher
}

/// [MQTT-3.1.2-8], [MQTT-3.14.4-3], [MQTT3-3.1.2-8], [MQTT3-3.14.4-3]
#[tokio::test]
async fn a_will_is_published_at_a_loss_and_not_at_disconnect() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = watcher(&broker, version).await;
        for connecting in [dev(), dev().persistent()] {
            broker.client(version, connecting.clone()).await.hang_up().await;
            watcher.take(will()).await;
            let id = "dev";
            broker.client(version, connect(id)).await.leave().await;
            broker.client(version, connecting).await.leave().await;
            watcher.expect_nothing_for_one_ping().await;
            broker.client(version, connect(id)).await.leave().await;
        }
        watcher.expect_nothing_for_one_ping().await;
        watcher.leave().await;
    }
}

/// By the broker's own doing as well: a protocol error, the keep alive, another connection.
#[tokio::test]
async fn a_will_is_published_whatever_ended_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = watcher(&broker, version).await;
        let mut bad = broker.client(version, dev()).await;
        bad.send_bytes(&[0x00, 0x00]).await;
        watcher.take(will()).await;
        let watch = Stopwatch::start();
        let mut quiet = broker.client(version, dev().keep_alive(1)).await;
        watcher.take(will()).await;
        assert!(watch.elapsed().as_millis() >= 1_500, "{:?}", watch.elapsed());
        quiet.expect_ended().await;
        let mut old = broker.client(version, dev()).await;
        let new = broker.client(version, connect("dev")).await;
        watcher.take(will()).await;
        old.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
        new.leave().await;
        watcher.expect_nothing_for_one_ping().await;
        watcher.leave().await;
    }
}

/// Section 3.14.2.1: DISCONNECT with 0x04, or with an error.
#[tokio::test]
async fn a_will_is_published_at_disconnect_with_0x04() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5).await;
    for reason in [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError] {
        let mut dev = broker.client(Version::V5, dev()).await;
        dev.send(disconnect().because(reason)).await;
        dev.expect_closed().await;
        watcher.take(will()).await;
    }
    // The session of a sleeper goes on without it.
    let dev = broker.client(Version::V5, dev().persistent()).await;
    dev.leave_with_expiry(ReasonCode::DisconnectWithWill, 60).await;
    watcher.take(will()).await;
    broker.returning(Version::V5, connect("dev").persistent()).await.leave().await;
    watcher.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.1.3-9]: a delayed will waits, and goes when its client returns in time.
#[tokio::test]
async fn a_delayed_will_waits_and_is_cancelled_by_a_return() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5).await;
    let watch = Stopwatch::start();
    let delayed = |id: &str, seconds| {
        connect(id).persistent().will(publish("will/dev", id).qos1(0)).will_delay(seconds)
    };
    broker.client(Version::V5, delayed("late", 1)).await.hang_up().await;
    watcher.take(publish("will/dev", "late").qos1(0)).await;
    assert!(watch.elapsed().as_millis() >= 1_000);

    broker.client(Version::V5, delayed("returns", 3)).await.hang_up().await;
    let back = broker.returning(Version::V5, connect("returns").persistent()).await;
    // Whoever is lost later, with a later will, shows that the time of the first is over.
    broker.client(Version::V5, delayed("clock", 4)).await.hang_up().await;
    watcher.take(publish("will/dev", "clock").qos1(0)).await;
    back.leave().await;
    watcher.expect_nothing_for_one_ping().await;
}

/// Section 3.1.3.2.2: the end of the session is the end of the delay.
#[tokio::test]
async fn a_delay_ends_with_the_session() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5).await;
    // By expiry, at once and later.
    let mut watch = Stopwatch::start();
    broker.client(Version::V5, dev().will_delay(3_600)).await.hang_up().await;
    watcher.take(will()).await;
    broker.client(Version::V5, dev().session_expiry(1).will_delay(3_600)).await.hang_up().await;
    watcher.take(will()).await;
    assert!(watch.elapsed().as_millis() >= 1_000);
    // By a clean start.
    watch = Stopwatch::start();
    broker.client(Version::V5, dev().session_expiry(3_600).will_delay(3_600)).await.hang_up().await;
    let clean = broker.client(Version::V5, connect("dev")).await;
    watcher.take(will()).await;
    assert!(watch.elapsed().as_secs() < 3_600);
    clean.leave().await;
    watcher.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.1.2-15], [MQTT3-3.1.2-17]: a retained will is there for who comes later.
#[tokio::test]
async fn a_retained_will_is_retained() {
    let broker = Broker::start();
    for version in BOTH {
        let mut early = watcher(&broker, version).await;
        let dev = broker.client(version, connect("dev").will(will().retained())).await;
        dev.hang_up().await;
        early.take(will()).await;
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("will/dev", QoS::AtMostOnce).await;
        late.expect_publish(publish("will/dev", "gone").retained()).await;
        late.send(publish("will/dev", "").retained()).await;
        late.expect_publish(publish("will/dev", "")).await;
        early.take(publish("will/dev", "")).await;
        late.leave().await;
        early.leave().await;
    }
}

/// A will keeps its properties, and its expiry begins when it is published.
#[tokio::test]
async fn a_will_keeps_its_properties() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5).await;
    let mut full = will().expiring(1);
    full.payload_is_utf8 = Some(true);
    full.content_type = Some("text/plain".to_owned());
    full.response_topic = Some("answers".to_owned());
    full.correlation_data = Some(vec![0, 1, 255]);
    full.user = vec![("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
    let dev = broker.client(Version::V5, connect("dev").persistent().will(full.clone()).will_delay(2)).await;
    dev.hang_up().await;
    watcher.take(full).await;
}

/// A session that was connected when the broker died was lost then: its will is published after the restart.
#[tokio::test]
async fn a_will_survives_the_broker_with_its_client_connected() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "watcher", "will/#", QoS::AtLeastOnce).await;
        let _dev = broker.client(version, dev().persistent()).await;
        broker.kill9();
        broker.restart();
        let mut watcher = broker.returning(version, connect("watcher").persistent()).await;
        watcher.take(will()).await;
        watcher.expect_nothing_for_one_ping().await;
        // Published once: not again at the next start.
        watcher.leave().await;
        broker.a_second_and_a_half_passes().await;
        broker.kill9();
        broker.restart();
        let mut watcher = broker.returning(version, connect("watcher").persistent()).await;
        broker.a_second_and_a_half_passes().await;
        watcher.expect_nothing_for_one_ping().await;
    }
}

/// The client is lost first, then the broker: the delay goes on across the restart.
#[tokio::test]
async fn a_delay_spans_a_crash() {
    let mut broker = Broker::start();
    broker.sleeper(Version::V5, "watcher", "will/#", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    let dev = broker.client(Version::V5, dev().persistent().will_delay(3)).await;
    let watch = Stopwatch::start();
    dev.hang_up().await;
    broker.until_logged(&mut other, &["\"disconnected\"", "\"dev\""]).await;
    broker.kill9();
    broker.restart();
    let mut watcher = broker.returning(Version::V5, connect("watcher").persistent()).await;
    watcher.take(will()).await;
    assert!(watch.elapsed().as_millis() >= 3_000, "{:?}", watch.elapsed());
}

/// A return cancels the waiting will for good, also when the broker dies right after the CONNACK.
#[tokio::test]
async fn a_cancelled_will_stays_cancelled_after_a_crash() {
    let mut broker = Broker::start();
    broker.sleeper(Version::V5, "watcher", "will/#", QoS::AtLeastOnce).await;
    broker.client(Version::V5, dev().persistent().will_delay(3_600)).await.hang_up().await;
    let _back = broker.returning(Version::V5, connect("dev").persistent()).await;
    broker.kill9();
    broker.restart();
    let mut watcher = broker.returning(Version::V5, connect("watcher").persistent()).await;
    broker.client(Version::V5, connect("dev")).await.leave().await;
    watcher.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.14.4-3]: who said goodbye leaves no will behind, and a broker that dies a while later has not forgotten it.
#[tokio::test]
async fn a_goodbye_is_remembered_after_a_crash() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "watcher", "will/#", QoS::AtLeastOnce).await;
        // Kept for long: such a session's coming and going alone is not worth a write.
        let long = dev().session_expiry(7 * 86_400).persistent();
        broker.client(version, long).await.leave().await;
        broker.a_second_and_a_half_passes().await;
        broker.kill9();
        broker.restart();
        let mut watcher = broker.returning(version, connect("watcher").persistent()).await;
        broker.a_second_and_a_half_passes().await;
        watcher.expect_nothing_for_one_ping().await;
    }
}

/// A takeover is a loss: the will goes out, but for one with a delay, which the new connection cancels.
#[tokio::test]
async fn a_takeover_publishes_a_will_without_delay() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = watcher(&broker, version).await;
        let mut first = broker.client(version, dev().persistent()).await;
        let mut second = broker.returning(version, dev().persistent().will_delay(1)).await;
        first.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
        watcher.take(will()).await;
        let third = broker.returning(version, connect("dev").persistent()).await;
        second.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
        if version.is_v5() {
            broker.a_second_and_a_half_passes().await;
        } else {
            watcher.take(will()).await;
        }
        watcher.expect_nothing_for_one_ping().await;
        third.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        watcher.leave().await;
    }
}

/// The end of the broker is no goodbye of its clients: wills are published, once, and wait for who sleeps.
#[tokio::test]
async fn wills_are_published_once_at_sigterm() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "watcher", "will/#", QoS::AtLeastOnce).await;
        let _dev = broker.client(version, dev().persistent()).await;
        let _other =
            broker.client(version, connect("other").will(publish("will/other", "gone").qos1(0))).await;
        assert_eq!(broker.terminate().code(), Some(0));
        broker.restart();
        let mut watcher = broker.returning(version, connect("watcher").persistent()).await;
        let mut topics = Vec::new();
        for _ in 0..2 {
            let will = watcher.receive_publish().await;
            watcher.acknowledge(QoS::AtLeastOnce, will.packet_id).await;
            topics.push(will.topic);
        }
        topics.sort();
        assert_eq!(topics, ["will/dev", "will/other"]);
        broker.client(version, connect("dev")).await.leave().await;
        watcher.expect_nothing_for_one_ping().await;
    }
}
