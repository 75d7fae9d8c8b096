//! MQTT 3.1, 3.1.1 and 5.0: bytes to packets and back.
//!
//! One packet model for all three versions, the version an argument. [`decode`] borrows from its input and copies no
//! topic and no payload; [`Packet::encode`] appends to a buffer. Nothing here reads a socket, keeps state, or knows
//! which side it is on: what depends on direction, on the session or on configuration is the broker's to check.
//!
//! Invariants:
//! - No input panics, and whatever decodes, encodes to something that decodes to the same packet.
//! - Memory taken by a decoded packet is at most 16 times its bytes, so the maximum packet size bounds it. (The worst
//!   case is an UNSUBSCRIBE of empty topic filters: 16 bytes for 2, and a growing list may have twice that reserved.)
//! - Section numbers and statement ids are those of MQTT 5.0, unless 3.1.1 is named.

mod error;
mod header;
mod packet;
mod packet_id;
mod primitive;
mod property;
mod qos;
mod reason;
mod version;

#[cfg(test)]
mod tests;

pub use self::{
    error::DecodeError,
    header::PacketType,
    packet::{
        Packet, ReasonProperties,
        ack::Ack,
        auth::Auth,
        connack::{Connack, ConnackProperties},
        connect::{Connect, ConnectProperties, Will},
        disconnect::{Disconnect, DisconnectProperties},
        publish::{Publish, PublishProperties},
        suback::Suback,
        subscribe::{RetainHandling, Subscribe, SubscribeFilter, SubscribeOptions},
        unsubscribe::Unsubscribe,
    },
    packet_id::PacketId,
    property::UserProperties,
    qos::{QoS, UnknownQos},
    reason::{ReasonCode, UnknownReasonCode, v3_return_code},
    version::Version,
};

use self::{header::FixedHeader, packet::connect, primitive::Reader};
use crate::topic::TopicName;

/// Bytes of the largest packet there can be: five of fixed header and the largest remaining length.
pub const PACKET_BYTES_MAX: usize = 5 + primitive::VARINT_MAX as usize;

/// Reads the packet at the start of `input`: `Ok(None)` if it is not all there yet, else the packet and how many bytes
/// it took. CONNECT is read whatever `version` says, and names its own.
///
/// `packet_bytes_max` counts the whole packet, fixed header included, and is checked as soon as the fixed header is
/// there, so no more than that ever has to be buffered [MQTT-3.2.2-15].
pub fn decode(
    input: &[u8],
    version: Version,
    packet_bytes_max: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    decode_next(input, version, packet_bytes_max, None)
}

/// The same for one of many packets. Clients publish to the same topic again and again: a topic that equals `before`, which
/// is valid, is not looked into, and is given as that.
pub fn decode_next<'a>(
    input: &'a [u8],
    version: Version,
    packet_bytes_max: u32,
    before: Option<&'a TopicName>,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(header) = FixedHeader::read(input, version)? else { return Ok(None) };
    if u32::try_from(header.packet_bytes).map_or(true, |bytes| bytes > packet_bytes_max) {
        return Err(DecodeError::PacketTooLarge);
    }
    let Some(body) = input.get(header.header_bytes..header.packet_bytes) else { return Ok(None) };
    let packet = Packet::read(header, body, version, before)?;
    Ok(Some((packet, header.packet_bytes)))
}

/// The version a CONNECT names, read from its first bytes alone. This tells how to answer a CONNECT that does not
/// decode; `None` if `input` is no CONNECT, or names no version that is known.
pub fn connect_version(input: &[u8]) -> Option<Version> {
    let header = FixedHeader::read(input, Version::V5).ok()??;
    if header.packet_type != PacketType::Connect {
        return None;
    }
    connect::read_version(&mut Reader::new(input.get(header.header_bytes..)?)).ok()
}
