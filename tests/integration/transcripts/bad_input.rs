//! Input that breaks the protocol: its sender is shown out with a reason, told of in the log once, and nobody else
//! notices.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{connack, connect, puback, pubcomp, publish, pubrec, pubrel},
};

const MAX: &str = "[limits]\npacket_bytes_max = \"2KiB\"\n";

/// Sends `bytes` as a connected client; it is shown out with `reason`, and `logged` stands in the log once.
async fn shown_out(bytes: impl Fn(Version) -> Vec<u8>, reason: ReasonCode, logged: &str) {
    let broker = Broker::start_configured(MAX);
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        other.subscribed("#", QoS::AtMostOnce).await;
        let id = format!("bad-{version:?}");
        let mut bad = broker.client(version, connect(&id)).await;
        bad.send_bytes(&bytes(version)).await;
        bad.expect_shown_out(version, reason).await;
        broker.expect_logged(1, &["\"disconnected\"", &id, logged]).await;
        assert_eq!(broker.logged(&[&id]), 2, "a line for its coming, one for its going");
        other.expect_nothing_for_one_ping().await;
        other.leave().await;
    }
}

/// A PUBLISH with the topic `t`, no properties and this first byte and rest.
fn raw_publish(version: Version, first: u8, topic: &[u8], payload: usize) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(topic.len()).unwrap()];
    body.extend_from_slice(topic);
    body.extend_from_slice(&[0, 1]);
    body.extend(version.is_v5().then_some(0));
    body.resize(body.len() + payload, b'x');
    let length = u16::try_from(body.len()).unwrap();
    let mut bytes = vec![first];
    if length < 128 {
        bytes.push(length.to_le_bytes()[0]);
    } else {
        bytes.extend_from_slice(&[(length % 128).to_le_bytes()[0] | 0x80, (length / 128).to_le_bytes()[0]]);
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// [MQTT-3.3.1-4], [MQTT3-3.3.1-4]
#[tokio::test]
async fn qos_3_is_malformed() {
    shown_out(|v| raw_publish(v, 0x36, b"t", 1), ReasonCode::MalformedPacket, "PUBLISH with QoS 3").await;
}

/// [MQTT-3.3.2-2], [MQTT3-3.3.2-2]
#[tokio::test]
async fn a_wildcard_in_a_topic_name_is_refused() {
    for topic in [&b"a/+/b"[..], b"#"] {
        shown_out(
            |v| raw_publish(v, 0x32, topic, 1),
            ReasonCode::TopicNameInvalid,
            "topic name has a wildcard",
        )
        .await;
    }
}

/// The header alone decides: the body need not come. [MQTT-3.2.2-15] tells v5 clients the maximum.
#[tokio::test]
async fn a_packet_over_the_maximum_is_refused_by_its_header() {
    let why = "packet is larger than the maximum packet size";
    shown_out(|v| raw_publish(v, 0x32, b"t", 2_048), ReasonCode::PacketTooLarge, why).await;
    shown_out(|_| vec![0x32, 0xff, 0xff, 0xff, 0x7f], ReasonCode::PacketTooLarge, why).await;
}

/// [MQTT-3.1.0-2], [MQTT3-3.1.0-2]
#[tokio::test]
async fn a_second_connect_is_a_protocol_error() {
    let again = |version| {
        let mut bytes = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T'];
        bytes.extend_from_slice(if version == Version::V5 { &[5, 2, 0, 0, 0] } else { &[4, 2, 0, 0] });
        bytes.extend_from_slice(&[0, 1, b'x']);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        bytes
    };
    shown_out(again, ReasonCode::ProtocolError, "a second CONNECT").await;
}

#[tokio::test]
async fn strange_packets_are_refused() {
    // A CONNACK; a PUBACK with id 0; a PINGREQ with flags; packet type 0.
    let connack = |v: Version| if v.is_v5() { vec![0x20, 3, 0, 0, 0] } else { vec![0x20, 2, 0, 0] };
    shown_out(connack, ReasonCode::ProtocolError, "a packet that only a server sends").await;
    shown_out(|_| vec![0x40, 2, 0, 0], ReasonCode::ProtocolError, "packet identifier is zero").await;
    shown_out(|_| vec![0xc1, 0], ReasonCode::MalformedPacket, "reserved flags in the fixed header").await;
    shown_out(|_| vec![0x00, 0], ReasonCode::MalformedPacket, "packet type 0 is reserved").await;
}

/// [MQTT-4.3.3-8]: a QoS 2 message is answered by PUBREC.
#[tokio::test]
async fn a_puback_for_a_qos_2_message_is_a_protocol_error() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut bad = broker.client(version, connect("bad")).await;
        bad.subscribed("t", QoS::ExactlyOnce).await;
        other.published(publish("t", "1").qos2(1)).await;
        let id = bad.expect_message(publish("t", "1").qos2(0)).await;
        bad.send(puback(id)).await;
        bad.expect_shown_out(version, ReasonCode::ProtocolError).await;
        other.expect_nothing_for_one_ping().await;
        other.leave().await;
    }
    broker.expect_logged(BOTH.len(), &["\"disconnected\"", "\"bad\"", "wrong kind"]).await;
}

/// Acknowledgements that cross a reconnect are for ids that nobody waits for any more.
#[tokio::test]
async fn acknowledgements_of_unknown_ids_are_survived() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        let not_found =
            |v5: bool| if v5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        dev.send(puback(7)).await;
        dev.send(pubcomp(8)).await;
        dev.send(pubrec(9)).await;
        dev.expect(pubrel(9).because(not_found(version.is_v5()))).await;
        dev.send(pubrel(10)).await;
        dev.expect(pubcomp(10).because(not_found(version.is_v5()))).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
    }
}

/// A packet id in use again: with QoS 1 it is another message, with QoS 2 the same one until PUBREL [MQTT-4.3.3-10].
#[tokio::test]
async fn a_reused_packet_id_is_two_messages_with_qos_1_and_one_with_qos_2() {
    let broker = Broker::start();
    for version in BOTH {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("t", QoS::AtMostOnce).await;
        let mut publisher = broker.client(version, connect("publisher")).await;
        publisher.send_all([publish("t", "1").qos1(5).into(), publish("t", "2").qos1(5).into()]).await;
        publisher.expect(puback(5)).await;
        publisher.expect(puback(5)).await;
        reader.expect_publish(publish("t", "1")).await;
        reader.expect_publish(publish("t", "2")).await;

        publisher.send_all([publish("t", "3").qos2(5).into(), publish("t", "3").qos2(5).dup().into()]).await;
        publisher.expect(pubrec(5)).await;
        publisher.expect(pubrec(5)).await;
        publisher.send(pubrel(5)).await;
        publisher.expect(pubcomp(5)).await;
        publisher.published(publish("t", "4").qos2(5)).await;
        reader.expect_publish(publish("t", "3")).await;
        reader.expect_publish(publish("t", "4")).await;
        reader.expect_nothing_for_one_ping().await;
        reader.leave().await;
        publisher.leave().await;
    }
}

/// Half a packet after CONNECT is not an answer to anything, and the keep alive ends it.
#[tokio::test]
async fn half_a_packet_and_silence_ends_at_the_keep_alive() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let id = format!("half-{version:?}");
        let mut half = broker.client(version, connect(&id).keep_alive(1)).await;
        half.send_bytes(&[0x30, 100, 0, 1]).await;
        half.expect_ended().await;
        other.expect_nothing_for_one_ping().await;
        broker.expect_logged(1, &["\"disconnected\"", &id, "keep alive timed out"]).await;
        other.leave().await;
    }
}

/// What comes in place of a CONNECT: v5 is told where its version can be made out, the others are just closed.
#[tokio::test]
async fn what_is_no_connect_is_refused_and_told_in_the_log_once() {
    let broker = Broker::start_configured(MAX);
    let mut other = broker.client(Version::V5, connect("other")).await;
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "reserved flags in the fixed header"),
        (&[0xc0, 0], "the first packet is not CONNECT"),
        (&[0x10, 0xff, 0xff, 0xff, 0xff], "variable byte integer is longer than four bytes"),
        (&[0x10, 0x80, 0x80, 0x01], "packet is larger than the maximum packet size"),
        (&[0x10, 9, 0, 4, b'M', b'Q', b'T', b'T', 4, 3, 0], "reserved connect flag is set"),
    ];
    for (bytes, why) in cases {
        let mut stranger = broker.peer(Version::V311).await;
        stranger.send_bytes(bytes).await;
        stranger.expect_closed().await;
        broker.expect_logged(1, &["\"refused\"", why]).await;
    }
    // A version to come, and a v5 client that may have no reserved flag either.
    let mut future = broker.peer(Version::V311).await;
    future.send_bytes(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 0, 0, 0]).await;
    future.expect(connack(ReasonCode::UnsupportedProtocolVersion)).await;
    future.expect_closed().await;
    let mut v5 = broker.peer(Version::V5).await;
    v5.send_bytes(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 0, 0, 0, 0]).await;
    v5.expect(connack(ReasonCode::MalformedPacket)).await;
    v5.expect_closed().await;
    other.expect_nothing_for_one_ping().await;
}

/// [MQTT3-3.1.3-8]
#[tokio::test]
async fn an_empty_client_id_needs_a_clean_session_in_3_1_1() {
    let broker = Broker::start();
    let mut nobody = broker.peer(Version::V311).await;
    nobody.send(connect("").persistent()).await;
    nobody.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;
    nobody.expect_closed().await;
    broker.client(Version::V311, connect("")).await.leave().await;
    broker.expect_logged(1, &["\"refused\"", "empty client identifier"]).await;
}
