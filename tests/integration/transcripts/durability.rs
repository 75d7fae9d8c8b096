//! The contract: what was acknowledged is there after `kill -9` at that very moment.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{
            Connecting, connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe, unsuback,
            unsubscribe,
        },
    },
};

fn dev() -> Connecting {
    connect("dev").persistent()
}

fn commander() -> Connecting {
    connect("commander").persistent()
}

/// Two QoS 2 messages, of which the first or both may count as sent before.
async fn take_both(peer: &mut Peer, payloads: [&str; 2]) {
    let mut ids = Vec::new();
    for payload in payloads {
        let message = peer.receive_publish().await;
        assert_eq!((message.payload.as_slice(), message.qos), (payload.as_bytes(), QoS::ExactlyOnce));
        ids.push(message.packet_id);
    }
    for id in ids {
        peer.acknowledge(QoS::ExactlyOnce, id).await;
    }
}

/// SUBACK: the subscription, with its options and identifier.
#[tokio::test]
async fn a_subscription_is_there_after_suback() {
    for version in BOTH {
        let mut broker = Broker::start();
        let mut first = broker.client(version, dev()).await;
        let asked = subscribe(1, "a/+", QoS::AtLeastOnce).and("b", QoS::ExactlyOnce);
        first.send(if version.is_v5() { asked.subscription_id(5) } else { asked }).await;
        first.expect(suback(1, [ReasonCode::GrantedQos1, ReasonCode::GrantedQos2])).await;
        broker.kill9();
        broker.restart();
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("a/1", "1").qos2(1)).await;
        other.published(publish("b", "2").qos2(2)).await;
        let mut back = broker.returning(version, dev()).await;
        let ids: &[u32] = if version.is_v5() { &[5] } else { &[] };
        back.take(publish("a/1", "1").qos1(0).ids(ids)).await;
        back.take(publish("b", "2").qos2(0).ids(ids)).await;
        back.expect_nothing_for_one_ping().await;
    }
}

/// UNSUBACK: gone stays gone.
#[tokio::test]
async fn an_unsubscribed_filter_stays_unsubscribed() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::AtLeastOnce).await;
        let mut first = broker.returning(version, dev()).await;
        first.send(unsubscribe(1, "t")).await;
        first.expect(unsuback(1, version.is_v5().then_some(ReasonCode::Success))).await;
        broker.kill9();
        broker.restart();
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos1(1)).await;
        let mut back = broker.returning(version, dev()).await;
        back.expect_nothing_for_one_ping().await;
    }
}

/// PUBACK: the message, for a sleeper, for one that is connected and silent, and for one that is lost in that moment.
#[tokio::test]
async fn a_qos_1_message_is_there_after_puback() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "sleeper", "t", QoS::AtLeastOnce).await;
        let mut silent = broker.client(version, connect("silent").persistent()).await;
        silent.subscribed("u", QoS::AtLeastOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.send(publish("t", "1").qos1(1)).await;
        other.send(publish("u", "2").qos1(2)).await;
        other.expect(puback(1)).await;
        other.expect(puback(2)).await;
        broker.kill9();
        let id = silent.expect_message(publish("u", "2").qos1(0)).await;
        broker.restart();
        let mut back = broker.returning(version, connect("sleeper").persistent()).await;
        let first = back.receive_publish().await;
        // The broker cannot know whether it was sent: it counts as sent.
        assert_eq!((first.payload.as_slice(), first.qos), (&b"1"[..], QoS::AtLeastOnce));
        back.acknowledge(QoS::AtLeastOnce, first.packet_id).await;
        back.expect_nothing_for_one_ping().await;
        let mut silent = broker.returning(version, connect("silent").persistent()).await;
        silent.take(publish("u", "2").qos1(id).dup()).await;
        silent.expect_nothing_for_one_ping().await;
    }
}

/// PUBREC: message and packet id are there. PUBREL after the restart is answered; a PUBLISH that comes again is the same.
#[tokio::test]
async fn an_inbound_qos_2_message_is_there_once_after_pubrec() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut publisher = broker.client(version, commander()).await;
        for id in [3, 4] {
            publisher.send(publish("t", id.to_string()).qos2(id)).await;
            publisher.expect(pubrec(id)).await;
        }
        broker.kill9();
        broker.restart();
        let mut publisher = broker.returning(version, commander()).await;
        publisher.send(pubrel(3)).await;
        publisher.expect(pubcomp(3)).await;
        publisher.send(publish("t", "4").qos2(4).dup()).await;
        publisher.expect(pubrec(4)).await;
        publisher.send(pubrel(4)).await;
        publisher.expect(pubcomp(4)).await;
        let mut back = broker.returning(version, dev()).await;
        take_both(&mut back, ["3", "4"]).await;
        back.expect_nothing_for_one_ping().await;
    }
}

/// Also with nobody subscribed: the id is held, or a message that comes again would reach who subscribed meanwhile.
#[tokio::test]
async fn an_inbound_qos_2_id_is_held_with_no_subscriber() {
    for version in BOTH {
        let mut broker = Broker::start();
        let mut publisher = broker.client(version, commander()).await;
        publisher.send(publish("t", "1").qos2(3)).await;
        let received = publisher.receive().await;
        let none = pubrec(3).because(ReasonCode::NoMatchingSubscribers);
        assert_eq!(received, if version.is_v5() { none } else { pubrec(3) });
        broker.kill9();
        broker.restart();
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("t", QoS::AtMostOnce).await;
        let mut publisher = broker.returning(version, commander()).await;
        publisher.send(publish("t", "1").qos2(3).dup()).await;
        publisher.expect(pubrec(3)).await;
        reader.expect_nothing_for_one_ping().await;
        publisher.send(pubrel(3)).await;
        publisher.expect(pubcomp(3)).await;
    }
}

/// PUBCOMP: the id is free. What comes with it after the crash is a new message.
#[tokio::test]
async fn an_inbound_id_is_free_after_pubcomp() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut publisher = broker.client(version, commander()).await;
        publisher.published(publish("t", "1").qos2(3)).await;
        broker.kill9();
        broker.restart();
        let mut publisher = broker.returning(version, commander()).await;
        publisher.published(publish("t", "2").qos2(3)).await;
        let mut back = broker.returning(version, dev()).await;
        take_both(&mut back, ["1", "2"]).await;
        back.expect_nothing_for_one_ping().await;
    }
}

/// PUBREL: the PUBREC it answers is there. The broker sends PUBREL again, and never again the message.
#[tokio::test]
async fn an_outbound_qos_2_message_is_not_sent_again_after_pubrel() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        other.published(publish("t", "2").qos2(2)).await;
        let mut first = broker.returning(version, dev()).await;
        let one = first.expect_message(publish("t", "1").qos2(0)).await;
        let two = first.expect_message(publish("t", "2").qos2(0)).await;
        first.send(pubrec(one)).await;
        first.expect(pubrel(one)).await;
        broker.kill9();
        broker.restart();
        let mut back = broker.returning(version, dev()).await;
        back.expect(pubrel(one)).await;
        back.expect_publish(publish("t", "2").qos2(two).dup()).await;
        back.send(pubcomp(one)).await;
        back.acknowledge(QoS::ExactlyOnce, two).await;
        back.expect_nothing_for_one_ping().await;
    }
}

/// PUBREC was sent, and whether the broker got it is unknown: either PUBREL comes, or the message again with its id and
/// DUP, by which the receiver knows it.
#[tokio::test]
async fn a_pubrec_lost_with_the_broker_ends_in_pubrel() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        let mut first = broker.returning(version, dev()).await;
        let id = first.expect_message(publish("t", "1").qos2(0)).await;
        first.send(pubrec(id)).await;
        broker.kill9();
        broker.restart();
        let mut back = broker.returning(version, dev()).await;
        let received = back.receive().await;
        if received == publish("t", "1").qos2(id).dup().into() {
            back.send(pubrec(id)).await;
            back.expect(pubrel(id)).await;
        } else {
            assert_eq!(received, pubrel(id));
        }
        back.send(pubcomp(id)).await;
        back.expect_nothing_for_one_ping().await;
    }
}

/// PUBACK for a retained message: it is retained; for an empty one: it is not.
#[tokio::test]
async fn retained_messages_are_set_and_cleared_for_good() {
    for version in BOTH {
        let mut broker = Broker::start();
        let mut other = broker.client(version, connect("other")).await;
        for (topic, payload) in [("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("c", "")] {
            other.published(publish(topic, payload).qos1(1).retained()).await;
        }
        other.published(publish("d", "5").qos2(2).retained()).await;
        broker.kill9();
        broker.restart();
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("b", "").qos1(1).retained()).await;
        broker.kill9();
        broker.restart();
        let mut late = broker.client(version, connect("late")).await;
        let mut asked = subscribe(1, "b", QoS::AtMostOnce);
        for topic in ["c", "a", "d"] {
            asked = asked.and(topic, QoS::AtMostOnce);
        }
        late.send(asked).await;
        late.expect(suback(1, [ReasonCode::Success; 4])).await;
        late.expect_publish(publish("a", "2").retained()).await;
        late.expect_publish(publish("d", "5").retained()).await;
        late.expect_nothing_for_one_ping().await;
    }
}

/// CONNACK with session present 0: the former session is durably gone, whatever the new one is.
#[tokio::test]
async fn a_clean_start_ends_the_former_session_for_good() {
    for version in BOTH {
        for clean in [connect("dev"), connect("dev").session_expiry(3_600)] {
            let mut broker = Broker::start();
            broker.sleeper(version, "dev", "t", QoS::AtLeastOnce).await;
            let mut other = broker.client(version, connect("other")).await;
            other.published(publish("t", "1").qos1(1)).await;
            let kept = version == Version::V5 && clean != connect("dev");
            let _clean = broker.client(version, clean).await;
            broker.kill9();
            broker.restart();
            let mut other = broker.client(version, connect("other")).await;
            other.published(publish("t", "2").qos1(2)).await;
            let mut back = if kept {
                broker.returning(version, dev()).await
            } else {
                broker.client(version, dev()).await
            };
            back.expect_nothing_for_one_ping().await;
        }
    }
}

/// CONNACK with session present 1 does not lie; and with 0 for a new persistent session, that one is there afterwards.
#[tokio::test]
async fn a_new_session_is_there_after_connack() {
    for version in BOTH {
        let mut broker = Broker::start();
        let _first = broker.client(version, dev()).await;
        broker.kill9();
        broker.restart();
        let _second = broker.returning(version, dev()).await;
        broker.kill9();
        broker.restart();
        broker.returning(version, dev()).await.leave().await;
    }
}

/// What the client has acknowledged is not sent again: for good after the next commit, which comes within a second.
#[tokio::test]
async fn an_acknowledged_message_does_not_come_back() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos1(1)).await;
        other.published(publish("t", "2").qos2(2)).await;
        let mut first = broker.returning(version, dev()).await;
        first.take(publish("t", "1").qos1(0)).await;
        first.take(publish("t", "2").qos2(0)).await;
        first.expect_nothing_for_one_ping().await;
        broker.a_second_and_a_half_passes().await;
        broker.kill9();
        broker.restart();
        let mut back = broker.returning(version, dev()).await;
        back.expect_nothing_for_one_ping().await;
        // And numbers go on: no id of before is given to a new message while the old one may be remembered.
        let mut other = broker.client(version, connect("other")).await;
        other.send(publish("t", "3").qos2(3)).await;
        other.expect(pubrec(3)).await;
        back.take(publish("t", "3").qos2(0)).await;
    }
}

/// A receive maximum that was larger before the crash: the window of then is resent, in order, within the limit of now.
#[tokio::test]
async fn a_window_is_resent_after_a_crash_within_the_new_receive_maximum() {
    let mut broker = Broker::start();
    broker.sleeper(Version::V5, "dev", "t", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    for n in 1..=5 {
        other.published(publish("t", n.to_string()).qos1(n)).await;
    }
    let mut first = broker.returning(Version::V5, dev()).await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(first.expect_message(publish("t", n.to_string()).qos1(0)).await);
    }
    broker.kill9();
    broker.restart();
    let mut back = broker.returning(Version::V5, dev().receive_maximum(2)).await;
    for (n, id) in (1..=5).zip(ids) {
        back.expect_publish(publish("t", n.to_string()).qos1(id).dup()).await;
        back.send(puback(id)).await;
    }
    back.expect_nothing_for_one_ping().await;
}

/// A payload of nearly the maximum packet size is split in the journal, and whole again afterwards.
#[tokio::test]
async fn large_messages_are_there_whole() {
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", &large).qos1(1).retained()).await;
        other.published(publish("t", &large).qos2(2)).await;
        broker.kill9();
        broker.restart();
        let mut back = broker.returning(version, dev()).await;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let message = back.receive_publish().await;
            assert!(message.payload == large && message.qos == qos, "not what was published");
            back.acknowledge(qos, message.packet_id).await;
        }
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("t", QoS::AtMostOnce).await;
        assert!(late.receive_publish().await.payload == large, "not what was retained");
    }
}
