//! UNSUBSCRIBE and UNSUBACK: sections 3.10 and 3.11 of both versions.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::raw::{ALL, NO_STRINGS, flags_but, no_properties, packet, returning, shown_out, string};
use crate::{
    harness::Broker,
    peer::packets::{
        Publishing, Spec, connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe, unsuback,
    },
    transcripts::scene::BOTH,
};

const UNSUBSCRIBE: u8 = 0xa2;

/// The body of an UNSUBSCRIBE with the packet id 7 and these filters.
fn body(version: Version, filters: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0, 7];
    body.extend_from_slice(no_properties(version));
    for filter in filters {
        body.extend_from_slice(&string(filter));
    }
    body
}

fn unsubscribe(id: u16, filters: &[&str]) -> Spec {
    Spec::Unsubscribe(id, filters.iter().map(|&filter| filter.to_owned()).collect())
}

/// What v5 is told; v3 is told nothing but the packet id.
fn told(version: Version, id: u16, reasons: &[ReasonCode]) -> Spec {
    unsuback(id, reasons.iter().copied().filter(|_| version.is_v5()))
}

/// [MQTT-3.10.1-1], [MQTT3-3.10.1-1]: UNSUBSCRIBE has the flags 0010; any other closes the connection and ends no
/// subscription. 3.1 has DUP there, on one that is sent again.
#[tokio::test]
async fn unsubscribe_with_other_flags_is_malformed() {
    let broker = Broker::start();
    for version in ALL {
        broker.sleeper(version, "dev", "t", QoS::AtLeastOnce).await;
        let mut dev = returning(&broker, version).await;
        for flags in flags_but(0b0010).filter(|&flags| version != Version::V31 || flags != 0b1010) {
            dev.send_bytes(&packet(0xa0 | flags, &body(version, &[b"t"]))).await;
            dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
            dev = returning(&broker, version).await;
        }
        let flags = if version == Version::V31 { 0b1010 } else { 0b0010 };
        for reason in [ReasonCode::Success, ReasonCode::NoSubscriptionExisted] {
            dev.send_bytes(&packet(0xa0 | flags, &body(version, &[b"t"]))).await;
            dev.expect(told(version, 7, &[reason])).await;
        }
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// [MQTT-3.10.3-1], [MQTT3-3.10.3-1]: a topic filter is UTF-8; what is none is malformed, also behind one that is.
#[tokio::test]
async fn a_topic_filter_to_end_is_utf_8() {
    let broker = Broker::start();
    for version in BOTH {
        for filter in NO_STRINGS {
            let bytes = packet(UNSUBSCRIBE, &body(version, &[b"t", filter]));
            shown_out(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("grüße/日本/🐭/+", QoS::AtMostOnce).await;
        dev.unsubscribed(version, "grüße/日本/🐭/+").await;
        dev.leave().await;
    }
}

/// [MQTT-3.10.3-2], [MQTT3-3.10.3-2]
#[tokio::test]
async fn unsubscribe_has_a_filter() {
    let broker = Broker::start();
    for version in ALL {
        shown_out(&broker, version, &packet(UNSUBSCRIBE, &body(version, &[])), ReasonCode::ProtocolError)
            .await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t", QoS::AtMostOnce).await;
        dev.send_bytes(&packet(UNSUBSCRIBE, &body(version, &[b"t"]))).await;
        dev.expect(told(version, 7, &[ReasonCode::Success])).await;
        dev.leave().await;
    }
}

/// [MQTT-3.10.4-1], [MQTT3-3.10.4-1]: filters are compared character by character, wildcards too: neither what a filter
/// matches ends, nor what differs in case or by a slash.
#[tokio::test]
async fn a_subscription_ends_by_its_very_filter() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send(
            subscribe(1, "a/+", QoS::AtMostOnce)
                .and("a/b", QoS::AtLeastOnce)
                .and("$share/g/s", QoS::AtMostOnce),
        )
        .await;
        let granted = [ReasonCode::Success, ReasonCode::GrantedQos1, ReasonCode::Success];
        dev.expect(suback(1, granted)).await;
        for filter in ["#", "a/#", "+/b", "A/b", "a/b/", "/a/b", "a", "s", "$share/h/s"] {
            dev.send(unsubscribe(2, &[filter])).await;
            dev.expect(told(version, 2, &[ReasonCode::NoSubscriptionExisted])).await;
        }
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("a/b", "1").qos1(1)).await;
        dev.take(publish("a/b", "1").qos1(0)).await;
        dev.unsubscribed(version, "a/b").await;
        other.published(publish("a/b", "2").qos1(1)).await;
        dev.take(publish("a/b", "2")).await;
        dev.unsubscribed(version, "a/+").await;
        other.published(publish("a/b", "3").qos1(1)).await;
        other.published(publish("s", "4")).await;
        dev.expect_publish(publish("s", "4")).await;
        dev.unsubscribed(version, "$share/g/s").await;
        other.published(publish("s", "5")).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// Odd ones with QoS 1, even ones with QoS 2.
fn numbered(n: u16) -> Publishing {
    let message = publish("t", n.to_string());
    if n.is_multiple_of(2) { message.qos2(n) } else { message.qos1(n) }
}

/// [MQTT-3.10.4-2], [MQTT-3.10.4-3], [MQTT3-3.10.4-2], [MQTT3-3.10.4-3]: nothing new comes, and what was begun is brought
/// to its end, on this connection and the next.
#[tokio::test]
async fn what_was_begun_is_finished_after_unsubscribe() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        let mut ids = Vec::new();
        for n in 1..=4_u16 {
            other.published(numbered(n)).await;
            ids.push(dev.expect_message(numbered(n)).await);
        }
        let [one, two, three, four] = ids[..] else { panic!("{ids:?}") };
        dev.send(pubrec(four)).await;
        dev.expect(pubrel(four)).await;
        dev.unsubscribed(version, "t").await;
        other.published(publish("t", "too late").qos2(5)).await;
        dev.send(puback(one)).await;
        dev.acknowledge(QoS::ExactlyOnce, two).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        dev.expect_publish(publish("t", "3").qos1(three).dup()).await;
        dev.expect(pubrel(four)).await;
        dev.send(puback(three)).await;
        dev.send(pubcomp(four)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT3-3.10.4-4], [MQTT3-3.10.4-5]: every UNSUBSCRIBE gets an UNSUBACK with its packet
/// id, whether a subscription ended or not.
#[tokio::test]
async fn unsubscribe_is_answered_with_its_packet_id() {
    let broker = Broker::start();
    for version in ALL {
        let mut dev = broker.client(version, connect("dev")).await;
        for id in [1, 0x0100, 65_535] {
            dev.subscribed("t", QoS::AtMostOnce).await;
            for reason in [ReasonCode::Success, ReasonCode::NoSubscriptionExisted] {
                dev.send(unsubscribe(id, &["t"])).await;
                dev.expect(told(version, id, &[reason])).await;
            }
        }
        dev.leave().await;
    }
}

/// [MQTT-3.10.4-6], [MQTT-3.11.3-1], [MQTT-3.11.3-2], [MQTT3-3.10.4-6]: several filters in one packet do what several packets
/// would, with one answer, which in v5 has a reason for each, in their order.
#[tokio::test]
async fn several_filters_end_several_subscriptions() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev").problem_information(false)).await;
        dev.send(subscribe(1, "a", QoS::AtMostOnce).and("b", QoS::AtMostOnce).and("c", QoS::AtMostOnce))
            .await;
        dev.expect(suback(1, [ReasonCode::Success; 3])).await;
        let filters: [&[u8]; 6] = [b"b", b"x", b"a/#/b", b"a", b"b", b""];
        dev.send_bytes(&packet(UNSUBSCRIBE, &body(version, &filters))).await;
        let mut expected = vec![0, 7];
        if version.is_v5() {
            expected.extend_from_slice(&[0, 0x00, 0x11, 0x8f, 0x00, 0x11, 0x8f]);
        }
        dev.expect_bytes(&packet(0xb0, &expected)).await;
        for topic in ["a", "b", "c"] {
            other.published(publish(topic, "1")).await;
        }
        dev.expect_publish(publish("c", "1")).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}
