//! Section 1.5: strings, pairs of them, and variable byte integers.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::raw;
use crate::{
    harness::Broker,
    peer::packets::{Publishing, Spec, connack, connect, publish, suback, unsuback},
    transcripts::scene::BOTH,
};

/// A lonely surrogate, an overlong form, a continuation byte that continues nothing, a sequence cut short, a code point
/// beyond U+10FFFF, and a character of the Latin alphabets of old.
const ILL_FORMED: [&[u8]; 6] =
    [b"a\xed\xa0\x80", b"\xc0\xaf", b"\x80", b"a\xe2\x82", b"\xf4\x90\x80\x80", b"caf\xe9"];
const NUL: [&[u8]; 2] = [b"a\0b", b"\0"];

/// A packet, or bytes that should have been one, with a string of one's choice in it.
type With = fn(Version, &[u8]) -> Vec<u8>;

/// Everything a connected client says that has strings in it.
const STRINGS: [(&str, With); 3] = [
    ("topic name", |v, s| raw::publish(v, 0x30, s, &[])),
    ("filter", |v, s| {
        let options = &[vec![0, 1], raw::properties(v, &[]), raw::string(s), vec![0]];
        raw::packet(0x82, &options.concat())
    }),
    ("filter to end", |v, s| {
        raw::packet(0xa2, &[vec![0, 1], raw::properties(v, &[]), raw::string(s)].concat())
    }),
];

/// The same in properties, which only v5 has.
const PROPERTIES: [(&str, With); 6] = [
    ("content type", |v, s| raw::publish(v, 0x30, "t", &property(0x03, s))),
    ("response topic", |v, s| raw::publish(v, 0x30, "t", &property(0x08, s))),
    ("user property's name", |v, s| raw::publish(v, 0x30, "t", &pair(s, b"value"))),
    ("user property's value", |v, s| raw::publish(v, 0x30, "t", &pair(b"name", s))),
    ("user property of SUBSCRIBE", |v, s| {
        let options = &[vec![0, 1], raw::properties(v, &pair(b"name", s)), raw::string("t"), vec![0]];
        raw::packet(0x82, &options.concat())
    }),
    ("reason string", |v, s| {
        raw::packet(0x40, &[vec![0, 1, 0x80], raw::properties(v, &property(0x1f, s))].concat())
    }),
];

/// The strings of a CONNECT.
const CONNECTS: [(&str, With); 3] = [
    ("client id", |v, s| raw::connect(v, 2, &[raw::string(s)])),
    ("will topic", |v, s| {
        let will = [raw::string("dev"), raw::properties(v, &[]), raw::string(s), raw::string("gone")];
        raw::connect(v, 0b0000_0110, &will)
    }),
    ("user name", |v, s| raw::connect(v, 0b1000_0010, &[raw::string("dev"), raw::string(s)])),
];

fn property(id: u8, s: &[u8]) -> Vec<u8> {
    [vec![id], raw::string(s)].concat()
}

fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0x26], raw::string(name), raw::string(value)].concat()
}

/// Sends bytes as a client of its own. With `good` it is still served afterwards, else it is shown out.
async fn sent(broker: &Broker, version: Version, what: &str, bytes: &[u8], good: bool) {
    let mut dev = broker.client(version, connect("dev")).await;
    dev.send_bytes(bytes).await;
    if !good {
        eprintln!("{version:?}: {what}: {bytes:x?}");
        dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
        return;
    }
    // SUBACK and UNSUBACK come when they can be relied on, which may be after the PINGRESP.
    let mut awaited = vec![Spec::Pingresp];
    match bytes.first() {
        Some(0xc0) => awaited.push(Spec::Pingresp),
        Some(0x82) => awaited.push(suback(1, [ReasonCode::Success])),
        Some(0xa2) => awaited.push(unsuback(1, version.is_v5().then_some(ReasonCode::NoSubscriptionExisted))),
        _ => {}
    }
    dev.send(Spec::Pingreq).await;
    while !awaited.is_empty() {
        let received = dev.receive().await;
        let at = awaited.iter().position(|packet| *packet == received);
        awaited.swap_remove(at.unwrap_or_else(|| panic!("{what}: {received:?}")));
    }
    dev.leave().await;
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT3-1.5.3-1], [MQTT3-1.5.3-2], and for pairs of strings [MQTT-1.5.7-1].
#[tokio::test]
async fn strings_are_well_formed_and_without_nul() {
    let broker = Broker::start();
    for version in BOTH {
        let more = if version.is_v5() { &PROPERTIES[..] } else { &[] };
        for (what, with) in STRINGS.iter().chain(more) {
            sent(&broker, version, what, &with(version, "größe/\u{d7ff}/\u{10ffff}".as_bytes()), true).await;
            for bad in ILL_FORMED.into_iter().chain(NUL) {
                sent(&broker, version, what, &with(version, bad), false).await;
            }
        }
    }
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12], [MQTT3-1.5.3-1], [MQTT3-1.5.3-2],
/// [MQTT3-3.1.3-4], [MQTT3-3.1.3-10], [MQTT3-3.1.3-11]
#[tokio::test]
async fn the_strings_of_a_connect_are_well_formed_and_without_nul() {
    let broker = Broker::start();
    for version in BOTH {
        for (what, with) in CONNECTS {
            let mut good = broker.peer(version).await;
            good.send_bytes(&with(version, "größe/\u{d7ff}/\u{10ffff}".as_bytes())).await;
            good.expect(connack(ReasonCode::Success)).await;
            good.leave().await;
            for bad in ILL_FORMED.into_iter().chain(NUL) {
                eprintln!("{version:?}: {what}: {bad:x?}");
                let mut peer = broker.peer(version).await;
                peer.send_bytes(&with(version, bad)).await;
                if version.is_v5() {
                    peer.expect(connack(ReasonCode::MalformedPacket)).await;
                }
                peer.expect_closed().await;
            }
        }
    }
}

/// What a reader with this filter hears of `a` with and without U+FEFF.
async fn heard(broker: &Broker, version: Version, filter: &str) -> Vec<String> {
    let mut reader = broker.client(version, connect("reader")).await;
    reader.subscribed(filter, QoS::AtMostOnce).await;
    for topic in ["a", "\u{feff}a", "a\u{feff}"] {
        reader.send(publish(topic, "")).await;
    }
    reader.send(Spec::Pingreq).await;
    let mut topics = Vec::new();
    loop {
        match reader.receive().await {
            Spec::Publish(publish) => topics.push(publish.topic),
            Spec::Pingresp => break,
            other => panic!("{other:?}"),
        }
    }
    reader.leave().await;
    topics
}

/// [MQTT-1.5.4-3], [MQTT3-1.5.3-3]: U+FEFF is a character like others, in topics, filters, client ids and properties.
#[tokio::test]
async fn a_byte_order_mark_stays() {
    let broker = Broker::start();
    for version in BOTH {
        assert_eq!(heard(&broker, version, "a").await, ["a"]);
        assert_eq!(heard(&broker, version, "\u{feff}a").await, ["\u{feff}a"]);
        assert_eq!(heard(&broker, version, "+").await, ["a", "\u{feff}a", "a\u{feff}"]);

        let marked = broker.client(version, connect("\u{feff}dev").persistent()).await;
        marked.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        broker.returning(version, connect("\u{feff}dev").persistent()).await.leave().await;
        broker.client(version, connect("\u{feff}dev")).await.leave().await;
    }
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.subscribed("t", QoS::AtMostOnce).await;
    let marked = "\u{feff}mark\u{feff}".to_owned();
    let message = Publishing {
        content_type: Some(marked.clone()),
        response_topic: Some(marked.clone()),
        user: vec![(marked.clone(), marked.clone())],
        ..publish("t", "\u{feff}payload")
    };
    dev.send(message.clone()).await;
    dev.expect_publish(message).await;
}

/// [MQTT-1.5.5-1]: lengths with needless bytes are malformed, the same numbers without them are not.
#[tokio::test]
async fn variable_byte_integers_are_as_short_as_they_can_be() {
    let broker = Broker::start();
    // The remaining length, the length of properties, and a subscription identifier.
    let cases: [(&str, &[u8], &[u8]); 5] = [
        ("PINGREQ", &[0xc0, 0], &[0xc0, 0x80, 0]),
        ("PUBLISH", &[0x30, 4, 0, 1, b't', 0], &[0x30, 0x84, 0, 0, 1, b't', 0]),
        ("PUBLISH", &[0x30, 4, 0, 1, b't', 0], &[0x30, 0x84, 0x80, 0x80, 0, 0, 1, b't', 0]),
        ("its properties", &[0x30, 6, 0, 1, b't', 2, 1, 1], &[0x30, 7, 0, 1, b't', 0x82, 0, 1, 1]),
        (
            "identifier",
            &[0x82, 9, 0, 1, 2, 0x0b, 1, 0, 1, b't', 0],
            &[0x82, 10, 0, 1, 3, 0x0b, 0x81, 0, 0, 1, b't', 0],
        ),
    ];
    for (what, good, bad) in cases {
        sent(&broker, Version::V5, what, good, true).await;
        sent(&broker, Version::V5, what, bad, false).await;
    }
}

/// The broker keeps to it [MQTT-1.5.5-1]: at each length where a byte more is needed, it is there, and not before.
#[tokio::test]
async fn the_lengths_the_broker_sends_are_as_short_as_they_can_be() {
    let broker = Broker::start();
    let boundaries: [(usize, &[u8]); 4] =
        [(127, &[0x7f]), (128, &[0x80, 1]), (16_383, &[0xff, 0x7f]), (16_384, &[0x80, 0x80, 1])];
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.subscribed("t", QoS::AtMostOnce).await;
    for (remaining, length) in boundaries {
        let body = [raw::string("t"), vec![0], vec![b'x'; remaining - 4]].concat();
        dev.send_bytes(&raw::packet(0x30, &body)).await;
        dev.expect_bytes(&[&[0x30], length, &body].concat()).await;
    }
}
