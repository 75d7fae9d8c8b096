//! The fixed header (section 2.1): packet type, flags, remaining length.

use std::fmt;

use super::{error::DecodeError, primitive, version::Version};

/// The type of a packet (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the packet of that name")]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    fn from_first_byte(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type, with the flags the standard lists for it (PUBLISH: none set).
    pub(super) fn first_byte(self) -> u8 {
        let flags = match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// The name in the standard: `PUBLISH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fixed header whose type and flags are allowed in the connection's version.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedHeader {
    pub(super) packet_type: PacketType,
    /// Low four bits of the first byte.
    pub(super) flags: u8,
    /// Bytes of the fixed header itself, 2..=5.
    pub(super) header_bytes: usize,
    /// Bytes of the whole packet.
    pub(super) packet_bytes: usize,
}

impl FixedHeader {
    /// `None` if the input ends within the header. The first byte is judged as soon as it is there.
    pub(super) fn read(input: &[u8], version: Version) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        let packet_type = PacketType::from_first_byte(first).ok_or(DecodeError::PacketTypeReserved)?;
        if packet_type == PacketType::Auth && !version.is_v5() {
            return Err(DecodeError::AuthBeforeV5);
        }
        let flags = first & 0x0F;
        // [MQTT-2.1.3-1], [MQTT3-2.2.2-1], [MQTT3-2.2.2-2]
        if !flags_allowed(packet_type, flags, version) {
            return Err(DecodeError::HeaderFlagsReserved);
        }
        let Some((remaining, length_bytes)) = primitive::varint(rest)? else { return Ok(None) };
        let header_bytes = 1 + length_bytes;
        let packet_bytes = header_bytes + usize::try_from(remaining).unwrap_or(usize::MAX - header_bytes);
        Ok(Some(Self { packet_type, flags, header_bytes, packet_bytes }))
    }
}

fn flags_allowed(packet_type: PacketType, flags: u8, version: Version) -> bool {
    match packet_type {
        // Judged by PUBLISH itself.
        PacketType::Publish => true,
        // 3.1 gives these three packets QoS 1 and, when they are sent again, DUP; later versions fixed the bits
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT3-3.6.1-1], [MQTT3-3.8.1-1], [MQTT3-3.10.1-1].
        PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => {
            flags == 0b0010 || (flags == 0b1010 && version == Version::V31)
        }
        // For DISCONNECT [MQTT-3.14.1-1], [MQTT3-3.14.1-1].
        _ => flags == 0,
    }
}
