//! Chapter 2: flags of the fixed header, packet identifiers, the length of properties.

use std::collections::HashSet;

use dormouse::codec::{QoS, ReasonCode, Version};

use super::raw;
use crate::{
    harness::Broker,
    peer::packets::{
        Spec, connack, connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe, unsuback,
        unsubscribe,
    },
    transcripts::scene::BOTH,
};

/// What a connected client sends, with the flags it has to have, and whether v3 has it. A PUBLISH uses all of its flags.
const FLAGS: [(&str, u8, &[u8]); 9] = [
    ("PUBACK", 0x40, &[0, 9]),
    ("PUBREC", 0x50, &[0, 9]),
    ("PUBREL", 0x62, &[0, 9]),
    ("PUBCOMP", 0x70, &[0, 9]),
    ("SUBSCRIBE", 0x82, &[0, 9, 0, 1, b't', 0]),
    ("UNSUBSCRIBE", 0xa2, &[0, 9, 0, 1, b't']),
    ("PINGREQ", 0xc0, &[]),
    ("DISCONNECT", 0xe0, &[]),
    ("AUTH", 0xf0, &[]),
];

/// The same for v5, where two have properties.
fn body(version: Version, first: u8, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    if version.is_v5() && matches!(first, 0x82 | 0xa2) {
        body.insert(2, 0);
    }
    body
}

/// [MQTT-2.1.3-1], [MQTT3-2.2.2-1], [MQTT3-2.2.2-2]: other flags than the standard's are malformed, and close the
/// connection; with these they are what they should be.
#[tokio::test]
async fn reserved_flags_are_checked() {
    let broker = Broker::start();
    for version in BOTH {
        for (what, first, rest) in FLAGS {
            let bytes = raw::packet(first, &body(version, first, rest));
            for flags in (0..16).filter(|flags| *flags != first & 0x0f) {
                let mut dev = broker.client(version, connect("dev")).await;
                let mut wrong = bytes.clone();
                wrong[0] = first & 0xf0 | flags;
                dev.send_bytes(&wrong).await;
                eprintln!("{version:?}: {what} with the flags {flags:04b}");
                dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
            }
            if what == "AUTH" {
                // Without a method it is out of place whatever its flags (section 4.12).
                continue;
            }
            let mut dev = broker.client(version, connect("dev")).await;
            dev.send_bytes(&bytes).await;
            if what == "DISCONNECT" {
                dev.expect_closed().await;
                continue;
            }
            dev.send(Spec::Pingreq).await;
            // Its answer, if it has one, may come first.
            while dev.receive().await != Spec::Pingresp {}
        }
        for flags in 1..16 {
            let mut stranger = broker.peer(version).await;
            let mut connect = raw::connect(version, 2, &[raw::string("dev")]);
            connect[0] |= flags;
            stranger.send_bytes(&connect).await;
            stranger.expect_closed().await;
        }
    }
}

/// [MQTT-2.2.1-3], [MQTT3-2.3.1-1]: a packet identifier of zero closes the connection, any other is answered.
#[tokio::test]
async fn packet_identifiers_are_not_zero() {
    let broker = Broker::start();
    let cases: [(&str, u8, &[u8], usize); 4] = [
        ("PUBLISH with QoS 1", 0x32, &[0, 1, b't', 0, 0], 3),
        ("PUBLISH with QoS 2", 0x34, &[0, 1, b't', 0, 0], 3),
        ("SUBSCRIBE", 0x82, &[0, 0, 0, 1, b't', 0], 0),
        ("UNSUBSCRIBE", 0xa2, &[0, 0, 0, 1, b't'], 0),
    ];
    for version in BOTH {
        for (what, first, rest, at) in cases {
            for id in [0, 1, u16::MAX] {
                eprintln!("{version:?}: {what} with {id}");
                let mut rest = rest.to_vec();
                rest[at..at + 2].copy_from_slice(&id.to_be_bytes());
                if version.is_v5() {
                    rest.insert(at + 2, 0);
                }
                let mut dev = broker.client(version, connect("dev")).await;
                dev.send_bytes(&raw::packet(first, &rest)).await;
                if id == 0 {
                    dev.expect_shown_out(version, ReasonCode::ProtocolError).await;
                    continue;
                }
                let answered = match dev.receive().await {
                    Spec::Ack(_, id, _) | Spec::Suback(id, _) | Spec::Unsuback(id, _) => id,
                    other => panic!("{other:?}"),
                };
                assert_eq!(answered, id);
                dev.leave().await;
            }
        }
    }
}

/// [MQTT-2.2.1-4], [MQTT3-2.3.1-4]: what is in flight at one time has identifiers of its own, whatever becomes free
/// meanwhile, and a retained one that was sent again keeps its own.
#[tokio::test]
async fn the_broker_uses_identifiers_that_are_free() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        let mut held = HashSet::new();
        for n in 1..=60_u16 {
            let message = publish("t", n.to_string());
            other.send(if n % 2 == 0 { message.qos2(n) } else { message.qos1(n) }).await;
            let received = dev.receive_publish().await;
            assert_ne!(received.packet_id, 0);
            assert!(held.insert(received.packet_id), "{} is in use", received.packet_id);
            // Every third is done with at once, so that there are gaps.
            if n % 3 == 0 {
                dev.acknowledge(received.qos, received.packet_id).await;
                held.remove(&received.packet_id);
            }
            if n % 2 == 0 {
                other.expect(pubrec(n)).await;
                other.send(pubrel(n)).await;
                other.expect(pubcomp(n)).await;
            } else {
                other.expect(puback(n)).await;
            }
        }
        dev.leave().await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        let mut again = HashSet::new();
        for _ in 0..held.len() {
            let received = dev.receive_publish().await;
            assert!(received.dup && again.insert(received.packet_id));
        }
        assert_eq!(again, held);
        let mut new = Vec::new();
        for n in 61..=80_u16 {
            other.published(publish("t", n.to_string()).qos1(n)).await;
            new.push(dev.receive_publish().await.packet_id);
        }
        assert!(new.iter().all(|id| *id != 0 && held.insert(*id)), "{new:?} among {held:?}");
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// [MQTT-2.2.1-2], [MQTT3-2.3.1-5]: with QoS 0 the payload follows where the identifier would be, in both directions.
#[tokio::test]
async fn a_publish_with_qos_0_has_no_identifier() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        // What looks like an identifier is the payload's beginning.
        let body = [raw::string("t"), raw::properties(version, &[]), vec![0, 7, b'x']].concat();
        dev.send_bytes(&raw::packet(0x30, &body)).await;
        dev.expect_bytes(&raw::packet(0x30, &body)).await;
        // Granted QoS 0, a message of QoS 1 loses its identifier on the way.
        dev.subscribed("t", QoS::AtMostOnce).await;
        let with_id = [raw::string("t"), vec![0, 7], raw::properties(version, &[]), vec![b'x']].concat();
        dev.send_bytes(&raw::packet(0x32, &with_id)).await;
        dev.expect_bytes(
            &[
                raw::packet(0x30, &[raw::string("t"), raw::properties(version, &[]), vec![b'x']].concat()),
                vec![0x40, 2, 0, 7],
            ]
            .concat(),
        )
        .await;
        dev.leave().await;
    }
}

/// [MQTT-2.2.1-5], [MQTT3-2.3.1-6]: the answers to several messages under way, asked for out of order, have the
/// identifiers of their messages.
#[tokio::test]
async fn acknowledgements_carry_the_identifier_of_their_publish() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        for id in [3, 65_535, 256, 1] {
            dev.send(publish("t", id.to_string()).qos2(id)).await;
        }
        let mut delivered = Vec::new();
        let mut received = Vec::new();
        while delivered.len() < 4 || received.len() < 4 {
            match dev.receive().await {
                Spec::Publish(publish) => delivered.push(publish.packet_id),
                packet => received.push(packet),
            }
        }
        assert_eq!(received, [3, 65_535, 256, 1].map(pubrec));
        for id in [1, 3, 256, 65_535] {
            dev.send(pubrel(id)).await;
            dev.expect(pubcomp(id)).await;
        }
        // In the other direction: PUBREL is the broker's to send.
        for id in delivered.into_iter().rev() {
            dev.send(pubrec(id)).await;
            dev.expect(pubrel(id)).await;
            dev.send(pubcomp(id)).await;
        }
        let mut other = broker.client(version, connect("other")).await;
        for id in [9, 65_534, 8] {
            other.send(publish("nobody", "").qos1(id)).await;
        }
        let none = if version.is_v5() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        for id in [9, 65_534, 8] {
            other.expect(puback(id).because(none)).await;
        }
        dev.expect_nothing_for_one_ping().await;
        other.leave().await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// [MQTT-2.2.1-6], [MQTT3-2.3.1-7]
#[tokio::test]
async fn suback_and_unsuback_carry_the_identifier_of_what_they_answer() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        let ids = [700, 1, 65_535];
        dev.send_all(ids.map(|id| subscribe(id, &id.to_string(), QoS::AtMostOnce).into())).await;
        for id in ids {
            dev.expect(suback(id, [ReasonCode::Success])).await;
        }
        dev.send_all(ids.map(|id| unsubscribe(id - 1 + u16::from(id == 1) * 5, &id.to_string()))).await;
        for id in [699, 5, 65_534] {
            dev.expect(unsuback(id, version.is_v5().then_some(ReasonCode::Success))).await;
        }
        dev.leave().await;
    }
}

/// [MQTT-2.2.2-1]: no properties are one byte of zero, from the broker and to it; without it a packet is malformed.
#[tokio::test]
async fn no_properties_are_a_length_of_zero() {
    let broker = Broker::start();
    let version = Version::V5;
    let mut dev = broker.client(version, connect("dev")).await;
    dev.send_bytes(&[0x82, 7, 0, 1, 0, 0, 1, b't', 1]).await;
    dev.expect_bytes(&[0x90, 4, 0, 1, 0, 1]).await;
    dev.send_bytes(&[0x30, 4, 0, 1, b't', 0]).await;
    dev.expect_bytes(&[0x30, 4, 0, 1, b't', 0]).await;
    dev.send_bytes(&[0xa2, 6, 0, 1, 0, 0, 1, b't']).await;
    dev.expect_bytes(&[0xb0, 4, 0, 1, 0, 0]).await;
    dev.leave().await;
    for without in [
        &[0x82, 6, 0, 1, 0, 1, b't', 1][..],
        &[0x30, 3, 0, 1, b't'],
        &[0x32, 5, 0, 1, b't', 0, 1],
        &[0xa2, 5, 0, 1, 0, 1, b't'],
    ] {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send_bytes(without).await;
        dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
    }
    let mut stranger = broker.peer(version).await;
    stranger.send_bytes(&[0x10, 10, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0]).await;
    stranger.expect(connack(ReasonCode::MalformedPacket)).await;
    stranger.expect_closed().await;
}
