//! Packets byte by byte, for what the codec would not write.

use dormouse::codec::{ReasonCode, Version};

use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{Spec, connect},
    },
};

/// 3.1 beside the others, where the flags of a fixed header differ.
pub(super) const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// What is no well-formed UTF-8: a stray byte, half a character, a surrogate, an overlong slash; and U+0000, which is
/// well-formed and not allowed.
pub(super) const NO_STRINGS: [&[u8]; 5] = [b"\xff", b"t/\xc3", b"\xed\xa0\x80", b"t\xc0\xaf", b"t\0"];

/// A packet with this first byte.
pub(super) fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte, u8::try_from(body.len()).unwrap()];
    assert!(body.len() < 128, "the length is one byte");
    bytes.extend_from_slice(body);
    bytes
}

/// A string, or what stands in the place of one, with its length.
pub(super) fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

/// The property length 0 in v5, nothing in v3.
pub(super) fn no_properties(version: Version) -> &'static [u8] {
    if version.is_v5() { &[0] } else { &[] }
}

/// The flags of a fixed header other than `right`.
pub(super) fn flags_but(right: u8) -> impl Iterator<Item = u8> {
    (0..16).filter(move |&flags| flags != right)
}

/// `dev` with its session of before, of which 3.1 has no word in CONNACK.
pub(super) async fn returning(broker: &Broker, version: Version) -> Peer {
    let mut dev = broker.peer(version).await;
    dev.send(connect("dev").persistent()).await;
    let session_present = version != Version::V31;
    dev.expect(Spec::Connack { session_present, reason: ReasonCode::Success }).await;
    dev
}

/// A client that was served until it sent `bytes` is shown out: v5 is told `reason`.
pub(super) async fn shown_out(broker: &Broker, version: Version, bytes: &[u8], reason: ReasonCode) {
    let mut bad = broker.client(version, connect("bad")).await;
    bad.expect_nothing_for_one_ping().await;
    bad.send_bytes(bytes).await;
    bad.expect_shown_out(version, reason).await;
}
