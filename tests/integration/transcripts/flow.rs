//! How much may be under way at once, and topic aliases, which live as long as a connection.

use std::num::NonZeroU16;

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe},
};

/// [MQTT-3.3.4-9]: no more than the client's receive maximum, QoS 1 and 2 together; a QoS 2 message counts
/// until its PUBCOMP.
#[tokio::test]
async fn the_clients_receive_maximum_is_kept() {
    let broker = Broker::start();
    for persistent in [false, true] {
        let asked = connect("dev").receive_maximum(2);
        let mut dev = broker.client(Version::V5, if persistent { asked.persistent() } else { asked }).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        for n in 2..=5 {
            other.published(publish("t", n.to_string()).qos1(n)).await;
        }
        let one = dev.expect_message(publish("t", "1").qos2(0)).await;
        let two = dev.expect_message(publish("t", "2").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.send(puback(two)).await;
        let three = dev.expect_message(publish("t", "3").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.send(pubrec(one)).await;
        dev.expect(pubrel(one)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.send(pubcomp(one)).await;
        let four = dev.expect_message(publish("t", "4").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        // QoS 0 is not counted.
        other.published(publish("t", "0")).await;
        dev.expect_publish(publish("t", "0")).await;
        dev.send(puback(four)).await;
        dev.send(puback(three)).await;
        dev.take(publish("t", "5").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// 512 by default; the next one follows the first acknowledgement.
#[tokio::test]
async fn the_window_of_v3_is_512() {
    let broker = Broker::start();
    for persistent in [false, true] {
        let asked = connect("dev");
        let mut dev = broker.client(Version::V311, if persistent { asked.persistent() } else { asked }).await;
        dev.subscribed("t", QoS::AtLeastOnce).await;
        let mut other = broker.client(Version::V311, connect("other")).await;
        for n in 1..=700 {
            other.send(publish("t", n.to_string()).qos1(n)).await;
        }
        for n in 1..=700 {
            other.expect(puback(n)).await;
        }
        let mut sent = Vec::new();
        for n in 1..=512_u16 {
            sent.push(dev.expect_message(publish("t", n.to_string()).qos1(0)).await);
        }
        dev.expect_nothing_for_one_ping().await;
        for n in 513..=700_u16 {
            dev.send(puback(sent.remove(0))).await;
            sent.push(dev.expect_message(publish("t", n.to_string()).qos1(0)).await);
        }
        dev.leave().await;
        if persistent {
            // What was not acknowledged comes again, the same window.
            let mut dev = broker.returning(Version::V311, connect("dev").persistent()).await;
            for (n, id) in (189..=700_u16).zip(sent) {
                dev.expect_publish(publish("t", n.to_string()).qos1(id).dup()).await;
                dev.send(puback(id)).await;
            }
            dev.expect_nothing_for_one_ping().await;
        }
        other.leave().await;
    }
}

/// [MQTT-3.3.4-7]: the broker's own is told in CONNACK, and enforced.
#[tokio::test]
async fn the_brokers_receive_maximum_is_enforced() {
    let broker = Broker::start_configured("[limits]\nreceive_maximum = 5\n");
    let mut reader = broker.client(Version::V5, connect("reader")).await;
    reader.subscribed("t", QoS::AtMostOnce).await;
    let mut dev = broker.peer(Version::V5).await;
    dev.send(connect("dev")).await;
    dev.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.properties.receive_maximum, NonZeroU16::new(5));
    })
    .await;
    for id in 1..=5 {
        dev.send(publish("t", id.to_string()).qos2(id)).await;
        dev.expect(pubrec(id)).await;
    }
    // A place is free again after PUBCOMP, and not after PUBREC.
    dev.send(pubrel(1)).await;
    dev.expect(pubcomp(1)).await;
    dev.send(publish("t", "6").qos2(6)).await;
    dev.expect(pubrec(6)).await;
    dev.send(publish("t", "7").qos1(7)).await;
    dev.expect_shown_out(Version::V5, ReasonCode::ReceiveMaximumExceeded).await;
    for n in 1..=6 {
        reader.expect_publish(publish("t", n.to_string())).await;
    }
    reader.expect_nothing_for_one_ping().await;
    broker.expect_logged(1, &["\"disconnected\"", "\"dev\"", "receive maximum"]).await;
}

/// [MQTT-3.3.2-7], [MQTT-3.3.2-9], [MQTT-3.3.2-12]: a client's aliases are resolved, may be set anew, and end with the
/// connection; above the maximum there are none.
#[tokio::test]
async fn a_clients_topic_aliases_are_resolved() {
    let broker = Broker::start();
    let mut reader = broker.client(Version::V311, connect("reader")).await;
    reader.subscribed("#", QoS::AtLeastOnce).await;
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.published(publish("a/b", "1").alias(1)).await;
    dev.published(publish("c/d", "2").qos1(1).alias(16)).await;
    dev.published(publish("", "3").alias(1)).await;
    dev.published(publish("", "4").qos2(2).alias(16)).await;
    dev.published(publish("e", "5").alias(1)).await;
    dev.published(publish("", "6").alias(1)).await;
    reader.take(publish("a/b", "1")).await;
    reader.take(publish("c/d", "2").qos1(0)).await;
    reader.take(publish("a/b", "3")).await;
    reader.take(publish("c/d", "4").qos1(0)).await;
    reader.take(publish("e", "5")).await;
    reader.take(publish("e", "6")).await;
    // [MQTT-3.3.2-7]: the next connection's alias 1 is nothing yet; and 17 is one too many, set or not.
    dev.leave().await;
    let (unset, above) = (ReasonCode::ProtocolError, ReasonCode::TopicAliasInvalid);
    for (topic, alias, reason) in [("", 1, unset), ("", 16, unset), ("f", 17, above), ("", 17, above)] {
        let mut dev = broker.client(Version::V5, connect("dev")).await;
        dev.send(publish(topic, "7").qos1(1).alias(alias)).await;
        dev.expect_shown_out(Version::V5, reason).await;
    }
    reader.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.1.2-26], [MQTT-3.3.2-11]: the broker uses as many aliases as the client takes, and names the topic the first
/// time.
#[tokio::test]
async fn the_broker_uses_topic_aliases_where_it_may() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let asked = || connect("dev").persistent().topic_alias_maximum(1);
    let mut dev = broker.client(Version::V5, asked()).await;
    dev.subscribed("#", QoS::AtLeastOnce).await;
    other.published(publish("a", "1")).await;
    other.published(publish("a", "2")).await;
    other.published(publish("b", "3")).await;
    dev.expect_publish(publish("a", "1").alias(1)).await;
    dev.expect_publish(publish("", "2").alias(1)).await;
    dev.expect_publish(publish("b", "3")).await;
    other.send(publish("a", "4").qos1(4)).await;
    dev.take(publish("", "4").qos1(0).alias(1)).await;
    other.expect(puback(4)).await;
    dev.leave().await;
    other.published(publish("b", "5").qos1(5)).await;
    // A new connection knows none.
    let mut dev = broker.returning(Version::V5, asked()).await;
    dev.take(publish("b", "5").qos1(0).alias(1)).await;
    other.published(publish("b", "6")).await;
    other.published(publish("a", "7")).await;
    dev.expect_publish(publish("", "6").alias(1)).await;
    dev.expect_publish(publish("a", "7")).await;
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: what is too large for a client is left out, and what follows is not held up.
#[tokio::test]
async fn what_is_too_large_for_a_client_is_left_out() {
    let mut broker = Broker::start();
    for persistent in [false, true] {
        let asked = connect("dev").packet_bytes_max(100).receive_maximum(1);
        let mut dev = broker.client(Version::V5, if persistent { asked.persistent() } else { asked }).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        let large = [b'x'; 200];
        other.published(publish("t", large)).await;
        other.published(publish("t", large).qos1(1)).await;
        other.published(publish("t", large).qos2(2)).await;
        other.published(publish("t", "small").qos1(3)).await;
        dev.take(publish("t", "small").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
    // Six of them: the log has the first, and each at which their number has doubled.
    let lines =
        broker.logged(&["\"dev\"", "\"topic\":\"t\"", "larger than the client's maximum packet size"]);
    assert_eq!(lines, 3, "{}", broker.log());
    assert_eq!(broker.terminate().code(), Some(0));
    assert_eq!(broker.logged(&["messages dropped since the start", "\"too_large\":6"]), 1);
}

/// [MQTT-3.1.2-25]: for this subscriber alone. The others get it, retained ones too, and it does not come back to a session
/// whose next connection would take it.
#[tokio::test]
async fn what_is_too_large_for_one_is_not_for_the_others() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.subscribed("t", QoS::AtLeastOnce).await;
    let mut dev = broker.client(Version::V5, connect("dev").persistent().packet_bytes_max(100)).await;
    dev.subscribed("t", QoS::AtLeastOnce).await;
    let large = [b'x'; 200];
    other.send(publish("t", large).qos1(1).retained()).await;
    let id = other.expect_message(publish("t", large).qos1(0)).await;
    other.send(puback(id)).await;
    other.expect(puback(1)).await;
    dev.subscribed("t", QoS::AtMostOnce).await;
    dev.expect_nothing_for_one_ping().await;
    dev.leave().await;
    let mut dev = broker.returning(Version::V5, connect("dev").persistent()).await;
    dev.expect_nothing_for_one_ping().await;
    dev.send(subscribe(1, "t", QoS::AtMostOnce)).await;
    dev.expect(suback(1, [ReasonCode::Success])).await;
    dev.expect_publish(publish("t", large).retained()).await;
}

/// Small windows on the broker's side too: `inflight_max` binds whatever the client takes.
#[tokio::test]
async fn a_window_of_one_delivers_everything_in_order() {
    let broker = Broker::start_configured("[sessions]\ninflight_max = 1\n");
    for version in BOTH {
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        for n in 1..=6 {
            let message = publish("t", n.to_string());
            other.published(if n % 2 == 0 { message.qos2(n) } else { message.qos1(n) }).await;
        }
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        for n in 1..=6 {
            let message = publish("t", n.to_string());
            dev.take(if n % 2 == 0 { message.qos2(n) } else { message.qos1(n) }).await;
        }
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// Section 4.4: a PUBREC or PUBACK with an error ends its message, and frees its place.
#[tokio::test]
async fn a_message_the_client_refuses_is_done_with() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let mut dev = broker.client(Version::V5, connect("dev").persistent().receive_maximum(1)).await;
    dev.subscribed("t", QoS::ExactlyOnce).await;
    other.published(publish("t", "1").qos2(1)).await;
    let one = dev.expect_message(publish("t", "1").qos2(0)).await;
    dev.send(pubrec(one).because(ReasonCode::QuotaExceeded)).await;
    dev.expect_nothing_for_one_ping().await;
    other.published(publish("t", "2").qos2(2)).await;
    dev.take(publish("t", "2").qos2(0)).await;
    other.send(publish("t", "3").qos1(3)).await;
    let three = dev.expect_message(publish("t", "3").qos1(0)).await;
    dev.send(puback(three).because(ReasonCode::UnspecifiedError)).await;
    other.expect(puback(3)).await;
    dev.leave().await;
    let mut back = broker.returning(Version::V5, connect("dev").persistent()).await;
    back.expect_nothing_for_one_ping().await;
}
