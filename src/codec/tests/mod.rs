//! Tests of the codec as a whole.
//!
//! [`table`] is bytes <-> packet <-> error by hand, [`matrix`] goes through whole tables of the standard, the rest is
//! left to chance.

use super::DecodeError;
use crate::codec;

mod accepted;
mod generate;
mod matrix;
mod refused;
mod repeated;
mod round_trip;

use self::codec::{Packet, Version, decode};

/// Puts a fixed header in front of a body.
fn frame(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first_byte];
    let mut rest = body.len();
    while rest > 0x7F {
        out.push(u8::try_from(rest & 0x7F).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("seven bits"));
    out.extend_from_slice(body);
    out
}

/// Puts a property length in front of properties shorter than 128 bytes.
fn section(properties: &[u8]) -> Vec<u8> {
    let mut out =
        vec![u8::try_from(properties.len()).ok().filter(|&len| len < 0x80).expect("a short section")];
    out.extend_from_slice(properties);
    out
}

fn decode_all(bytes: &[u8], version: Version) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    decode(bytes, version, u32::MAX)
}

/// Encodes, with the length checked against the promise.
fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    assert_eq!(packet.encoded_len(version), out.len(), "encoded_len of {packet:?}");
    out
}
