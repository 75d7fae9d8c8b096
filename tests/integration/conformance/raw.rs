//! Packets byte by byte, for what the codec would not write.

use dormouse::codec::{ReasonCode, Version};

use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{Spec, connect as connect_as},
    },
};

/// 3.1 beside the others, where the flags of a fixed header differ.
pub(super) const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// What is no well-formed UTF-8: a stray byte, half a character, a surrogate, an overlong slash; and U+0000, which is
/// well-formed and not allowed.
pub(super) const NO_STRINGS: [&[u8]; 5] = [b"\xff", b"t/\xc3", b"\xed\xa0\x80", b"t\xc0\xaf", b"t\0"];

/// A packet: its first byte and what follows the remaining length.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left % 128).unwrap();
        left /= 128;
        bytes.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A string, or what stands in the place of one, with its length.
pub(super) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

/// The property length 0 in v5, nothing in v3.
pub(super) fn no_properties(version: Version) -> &'static [u8] {
    if version.is_v5() { &[0] } else { &[] }
}

/// Properties behind their length in v5, nothing in the others.
pub(super) fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    if !version.is_v5() {
        return Vec::new();
    }
    let mut bytes = vec![u8::try_from(properties.len()).unwrap()];
    bytes.extend_from_slice(properties);
    bytes
}

/// A CONNECT: protocol name and level, flags, no keep alive, no properties, and the payload.
pub(super) fn connect(version: Version, flags: u8, payload: &[Vec<u8>]) -> Vec<u8> {
    connect_with(version, flags, &[], payload)
}

/// The same with v5 properties.
pub(super) fn connect_with(version: Version, flags: u8, asked: &[u8], payload: &[Vec<u8>]) -> Vec<u8> {
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let head = [string(name), vec![level, flags, 0, 0], properties(version, asked), payload.concat()];
    packet(0x10, &head.concat())
}

/// A PUBLISH with this first byte, the packet id 1 if its QoS asks for one, and these v5 properties.
pub(super) fn publish(version: Version, first: u8, topic: impl AsRef<[u8]>, with: &[u8]) -> Vec<u8> {
    let id: &[u8] = if first & 0b0110 == 0 { &[] } else { &[0, 1] };
    packet(first, &[&string(topic), id, &properties(version, with), b"payload"].concat())
}

/// The flags of a fixed header other than `right`.
pub(super) fn flags_but(right: u8) -> impl Iterator<Item = u8> {
    (0..16).filter(move |&flags| flags != right)
}

/// `dev` with its session of before, of which 3.1 has no word in CONNACK.
pub(super) async fn returning(broker: &Broker, version: Version) -> Peer {
    let mut dev = broker.peer(version).await;
    dev.send(connect_as("dev").persistent()).await;
    let session_present = version != Version::V31;
    dev.expect(Spec::Connack { session_present, reason: ReasonCode::Success }).await;
    dev
}

/// A client that was served until it sent `bytes` is shown out: v5 is told `reason`.
pub(super) async fn shown_out(broker: &Broker, version: Version, bytes: &[u8], reason: ReasonCode) {
    let mut bad = broker.client(version, connect_as("bad")).await;
    bad.expect_nothing_for_one_ping().await;
    bad.send_bytes(bytes).await;
    bad.expect_shown_out(version, reason).await;
}
