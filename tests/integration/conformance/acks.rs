//! PUBACK, PUBREC, PUBREL and PUBCOMP: sections 3.4 to 3.7 of both versions.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::raw::{ALL, flags_but, packet, returning, shown_out};
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{AckKind, Spec, connack_present, connect, puback, pubcomp, publish, pubrec, pubrel},
    },
    transcripts::scene::BOTH,
};

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]: success, or 0x10 where nobody is subscribed, or 0x92
/// where there is no such packet id; v3 has no reasons. Byte for byte, since v5 may leave a success out.
#[tokio::test]
async fn the_brokers_acknowledgements_have_the_reasons_of_their_packet() {
    let broker = Broker::start();
    for version in ALL {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("heard", QoS::AtMostOnce).await;
        let mut dev = broker.client(version, connect("dev").problem_information(false)).await;
        let with = |first: u8, reason: u8| match (version, reason) {
            (Version::V5, 1..) => vec![first, 3, 0, 7, reason],
            _ => vec![first, 2, 0, 7],
        };
        for (topic, reason) in [("heard", 0x00), ("unheard", 0x10)] {
            dev.send(publish(topic, "1").qos1(7)).await;
            dev.expect_bytes(&with(PUBACK, reason)).await;
            dev.send(publish(topic, "2").qos2(7)).await;
            dev.expect_bytes(&with(PUBREC, reason)).await;
            dev.send(pubrel(7)).await;
            dev.expect_bytes(&with(PUBCOMP, 0x00)).await;
        }
        dev.send(pubrel(7)).await;
        dev.expect_bytes(&with(PUBCOMP, 0x92)).await;
        dev.send(pubrec(7)).await;
        dev.expect_bytes(&with(PUBREL, 0x92)).await;
        for _ in 0..2 {
            reader.receive_publish().await;
        }
        reader.expect_nothing_for_one_ping().await;
        reader.leave().await;
        dev.leave().await;
    }
}

/// A client in the middle of its exchanges: it owes an acknowledgement for a QoS 1 and a QoS 2 message (their packet ids
/// are returned), and a PUBREL for its own with the packet id 7.
async fn busy(broker: &Broker, version: Version, other: &mut Peer) -> (Peer, u16, u16) {
    let mut dev = broker.client(version, connect("dev")).await;
    dev.subscribed("t", QoS::ExactlyOnce).await;
    other.published(publish("t", "1").qos1(1)).await;
    let one = dev.expect_message(publish("t", "1").qos1(0)).await;
    other.published(publish("t", "2").qos2(2)).await;
    let two = dev.expect_message(publish("t", "2").qos2(0)).await;
    dev.send(publish("u", "3").qos2(7)).await;
    assert!(matches!(dev.receive().await, Spec::Ack(AckKind::Pubrec, 7, _)));
    (dev, one, two)
}

/// [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]: a client's acknowledgement with a reason of another
/// packet is a protocol error, with no reason code at all malformed, and with each of its own it is taken.
#[tokio::test]
async fn a_clients_acknowledgement_has_a_reason_of_its_packet() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    for (first, own, foreign) in [
        (PUBACK, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99][..], &[0x01, 0x92, 0x81, 0x8f][..]),
        (PUBREC, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99], &[0x01, 0x92, 0x82, 0x95]),
        (PUBREL, &[0x00, 0x92], &[0x10, 0x80, 0x97]),
        (PUBCOMP, &[0x00, 0x92], &[0x10, 0x80, 0x97]),
    ] {
        for &reason in foreign {
            let bytes = [first, 3, 0, 7, reason];
            shown_out(&broker, Version::V5, &bytes, ReasonCode::ProtocolError).await;
        }
        let bytes = [first, 3, 0, 7, 0x03];
        shown_out(&broker, Version::V5, &bytes, ReasonCode::MalformedPacket).await;
        for &reason in own {
            let (mut dev, one, two) = busy(&broker, Version::V5, &mut other).await;
            let id = match first {
                PUBACK => one,
                PUBREL => 7,
                _ => two,
            };
            if first == PUBCOMP {
                dev.send(pubrec(two)).await;
                dev.expect(pubrel(two)).await;
            }
            let [high, low] = id.to_be_bytes();
            dev.send_bytes(&[first, 4, high, low, reason, 0]).await;
            match first {
                PUBREC if reason < 0x80 => dev.expect(pubrel(two)).await,
                PUBREL => dev.expect(pubcomp(7)).await,
                _ => {}
            }
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
        }
    }
}

/// Section 3.4.2 of 3.1.1 and its like: an acknowledgement is a packet id and no more; with a reason it is no packet of
/// that version.
#[tokio::test]
async fn an_acknowledgement_of_v3_has_no_reason() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V311, connect("other")).await;
    for version in [Version::V31, Version::V311] {
        for first in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            shown_out(&broker, version, &[first, 3, 0, 7, 0], ReasonCode::MalformedPacket).await;
        }
        let (mut dev, one, two) = busy(&broker, version, &mut other).await;
        dev.send(puback(one)).await;
        dev.acknowledge(QoS::ExactlyOnce, two).await;
        dev.send(pubrel(7)).await;
        dev.expect(pubcomp(7)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
    }
}

/// [MQTT-3.6.1-1], [MQTT3-3.6.1-1]: PUBREL has the flags 0010; any other closes the connection and releases nothing. 3.1
/// has DUP there, on one that is sent again.
#[tokio::test]
async fn pubrel_with_other_flags_is_malformed() {
    let broker = Broker::start();
    for version in ALL {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("t", QoS::AtMostOnce).await;
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.send(publish("t", "1").qos2(7)).await;
        dev.expect(pubrec(7)).await;
        reader.expect_publish(publish("t", "1")).await;
        for flags in flags_but(0b0010).filter(|&flags| version != Version::V31 || flags != 0b1010) {
            dev.send_bytes(&packet(0x60 | flags, &[0, 7])).await;
            dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
            dev = returning(&broker, version).await;
        }
        // The packet id is still held: it is the same message.
        dev.send(publish("t", "1").qos2(7).dup()).await;
        dev.expect(pubrec(7)).await;
        let flags = if version == Version::V31 { 0b1010 } else { 0b0010 };
        dev.send_bytes(&packet(0x60 | flags, &[0, 7])).await;
        dev.expect(pubcomp(7)).await;
        dev.published(publish("t", "2").qos2(7)).await;
        reader.expect_publish(publish("t", "2")).await;
        reader.expect_nothing_for_one_ping().await;
        reader.leave().await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// The other three have no flags (section 2.1.3), in any version.
#[tokio::test]
async fn acknowledgements_with_flags_are_malformed() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let (mut dev, one, two) = busy(&broker, version, &mut other).await;
        for first in [PUBACK, PUBREC, PUBCOMP] {
            for flags in [0b0010, 0b1000] {
                shown_out(&broker, version, &packet(first | flags, &[0, 1]), ReasonCode::MalformedPacket)
                    .await;
            }
        }
        dev.send(puback(one)).await;
        dev.send(pubrec(two)).await;
        dev.expect(pubrel(two)).await;
        dev.send(pubcomp(two)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// There are clients whose first packet is the PUBREC for a message of the connection before: see docs/interop.md. It ends
/// in PUBREL and PUBCOMP, whether the message was sent again meanwhile or not.
#[tokio::test]
async fn a_pubrec_from_the_connection_before_is_taken() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        let id = dev.expect_message(publish("t", "1").qos2(0)).await;
        dev.leave().await;
        let mut dev = broker.peer(version).await;
        dev.send_all([connect("dev").persistent().into(), pubrec(id)]).await;
        dev.expect(connack_present()).await;
        let mut next = dev.receive().await;
        if next == publish("t", "1").qos2(id).dup().into() {
            next = dev.receive().await;
        }
        assert_eq!(next, pubrel(id));
        dev.send(pubcomp(id)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}
