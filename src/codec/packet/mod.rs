//! One packet type per file: its fields, how it is read, how it is written.
//!
//! Invariant: a packet is written by one walk over its fields ([`Body::write_body`]), whether into a buffer or into a
//! counter. So the encoded length is the length of what is encoded, by construction.

pub(super) mod ack;
pub(super) mod auth;
pub(super) mod connack;
pub(super) mod connect;
pub(super) mod disconnect;
pub(super) mod forward;
pub(super) mod publish;
pub(super) mod suback;
pub(super) mod subscribe;
pub(super) mod unsubscribe;

use self::{
    ack::Ack, auth::Auth, connack::Connack, connect::Connect, disconnect::Disconnect, publish::Publish,
    suback::Suback, subscribe::Subscribe, unsubscribe::Unsubscribe,
};
use super::{
    PACKET_BYTES_MAX,
    error::DecodeError,
    header::{FixedHeader, PacketType},
    primitive::{Count, Reader, Sink, VARINT_MAX, varint_len},
    property::{Property, PropertyReader, PropertySource, Repeatable, UserProperties, visit_user},
    reason::ReasonCode,
    version::Version,
};
use crate::topic::TopicName;

/// Every packet type, borrowing from the bytes it was decoded from. Packets of 3.1 and 3.1.1 leave the fields that
/// only 5.0 has at their defaults.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the packet of that name")]
pub enum Packet<'a> {
    Connect(Box<Connect<'a>>),
    Connack(Box<Connack<'a>>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Suback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Reads the body of a packet, all of it: `body` is what the fixed header announced. For `before` see
    /// [`decode_next`](super::decode_next).
    pub(super) fn read(
        header: FixedHeader,
        body: &'a [u8],
        version: Version,
        before: Option<&'a TopicName>,
    ) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let packet = match header.packet_type {
            PacketType::Connect => Self::Connect(Box::new(Connect::read(&mut r)?)),
            PacketType::Connack => Self::Connack(Box::new(Connack::read(&mut r, version)?)),
            PacketType::Publish => Self::Publish(Publish::read(header.flags, &mut r, version, before)?),
            PacketType::Puback => Self::Puback(Ack::read(&mut r, version, ack::PUBLISH_REASONS)?),
            PacketType::Pubrec => Self::Pubrec(Ack::read(&mut r, version, ack::PUBLISH_REASONS)?),
            PacketType::Pubrel => Self::Pubrel(Ack::read(&mut r, version, ack::RELEASE_REASONS)?),
            PacketType::Pubcomp => Self::Pubcomp(Ack::read(&mut r, version, ack::RELEASE_REASONS)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::read(&mut r, version)?),
            PacketType::Suback => Self::Suback(Suback::read_suback(&mut r, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::read(&mut r, version)?),
            PacketType::Unsuback => Self::Unsuback(Suback::read_unsuback(&mut r, version)?),
            PacketType::Pingreq => Self::Pingreq,
            PacketType::Pingresp => Self::Pingresp,
            PacketType::Disconnect => Self::Disconnect(Disconnect::read(&mut r, version)?),
            PacketType::Auth => Self::Auth(Auth::read(&mut r)?),
        };
        r.finish()?;
        Ok(packet)
    }
}

impl Packet<'_> {
    /// Appends the packet as `version` has it; CONNECT goes by its own version instead. What the version does not know
    /// is left out: properties and reason codes in v3, and all of AUTH, of which nothing is written.
    ///
    /// A packet over [`PACKET_BYTES_MAX`] has no encoding, and nothing is written either: who forwards compares
    /// [`Packet::encoded_len`] with the receiver's maximum first. Strings over 65,535 bytes, which cannot come out
    /// of [`decode`](super::decode), are asserted against, and cut in a release build.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let first_byte = self.packet_type().first_byte();
        match self {
            Self::Connect(p) => frame(first_byte, &**p, version, out),
            Self::Connack(p) => frame(first_byte, &**p, version, out),
            Self::Publish(p) => p.encode(version, out),
            Self::Puback(p) | Self::Pubrec(p) | Self::Pubrel(p) | Self::Pubcomp(p) => {
                frame(first_byte, p, version, out);
            }
            Self::Subscribe(p) => frame(first_byte, p, version, out),
            Self::Suback(p) => frame(first_byte, p, version, out),
            Self::Unsubscribe(p) => frame(first_byte, p, version, out),
            Self::Unsuback(p) => frame(first_byte, &suback::AsUnsuback(p), version, out),
            Self::Pingreq | Self::Pingresp => frame(first_byte, &NoBody, version, out),
            Self::Disconnect(p) => frame(first_byte, p, version, out),
            Self::Auth(p) if version.is_v5() => frame(first_byte, p, version, out),
            Self::Auth(_) => {}
        }
    }

    /// Bytes that [`Packet::encode`] appends; over [`PACKET_BYTES_MAX`] for a packet that cannot be encoded.
    pub fn encoded_len(&self, version: Version) -> usize {
        match self {
            Self::Connect(p) => framed_len(&**p, version),
            Self::Connack(p) => framed_len(&**p, version),
            Self::Publish(p) => p.encoded_len(version),
            Self::Puback(p) | Self::Pubrec(p) | Self::Pubrel(p) | Self::Pubcomp(p) => framed_len(p, version),
            Self::Subscribe(p) => framed_len(p, version),
            Self::Suback(p) => framed_len(p, version),
            Self::Unsubscribe(p) => framed_len(p, version),
            Self::Unsuback(p) => framed_len(&suback::AsUnsuback(p), version),
            Self::Pingreq | Self::Pingresp => framed_len(&NoBody, version),
            Self::Disconnect(p) => framed_len(p, version),
            Self::Auth(p) if version.is_v5() => framed_len(p, version),
            Self::Auth(_) => 0,
        }
    }

    /// Which packet this is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

impl<'a> From<Connect<'a>> for Packet<'a> {
    fn from(packet: Connect<'a>) -> Self {
        Self::Connect(Box::new(packet))
    }
}

impl<'a> From<Connack<'a>> for Packet<'a> {
    fn from(packet: Connack<'a>) -> Self {
        Self::Connack(Box::new(packet))
    }
}

impl<'a> From<Publish<'a>> for Packet<'a> {
    fn from(packet: Publish<'a>) -> Self {
        Self::Publish(packet)
    }
}

impl<'a> From<Subscribe<'a>> for Packet<'a> {
    fn from(packet: Subscribe<'a>) -> Self {
        Self::Subscribe(packet)
    }
}

impl<'a> From<Unsubscribe<'a>> for Packet<'a> {
    fn from(packet: Unsubscribe<'a>) -> Self {
        Self::Unsubscribe(packet)
    }
}

impl<'a> From<Disconnect<'a>> for Packet<'a> {
    fn from(packet: Disconnect<'a>) -> Self {
        Self::Disconnect(packet)
    }
}

impl<'a> From<Auth<'a>> for Packet<'a> {
    fn from(packet: Auth<'a>) -> Self {
        Self::Auth(packet)
    }
}

/// The properties of most answers: why, in words, and what else the sender likes to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReasonProperties<'a> {
    /// For people who read logs, not for programs (section 3.4.2.2.2).
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
}

impl<'a> ReasonProperties<'a> {
    /// No property is set.
    pub fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user.is_empty()
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        let mut properties = PropertyReader::new(r, Repeatable::User)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::ReasonString(text) => this.reason_string = Some(text),
                Property::User(name, value) => this.user.push((name, value)),
                _ => return Err(DecodeError::PropertyMisplaced),
            }
        }
        Ok(this)
    }
}

impl PropertySource for ReasonProperties<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(text) = self.reason_string {
            visit(Property::ReasonString(text));
        }
        visit_user(&self.user, visit);
    }
}

/// What follows the fixed header.
trait Body {
    fn write_body(&self, version: Version, out: &mut impl Sink);
}

/// PINGREQ and PINGRESP.
struct NoBody;

impl Body for NoBody {
    fn write_body(&self, _version: Version, _out: &mut impl Sink) {}
}

fn body_len(body: &impl Body, version: Version) -> usize {
    let mut count = Count::default();
    body.write_body(version, &mut count);
    count.0
}

fn framed_len(body: &impl Body, version: Version) -> usize {
    let body_bytes = body_len(body, version);
    1 + varint_len(body_bytes) + body_bytes
}

/// Appends fixed header and body: one reservation, then appends only.
fn frame(first_byte: u8, body: &impl Body, version: Version, out: &mut Vec<u8>) {
    let is_written = frame_within(first_byte, body, version, PACKET_BYTES_MAX, out);
    debug_assert!(is_written, "no encoding for a packet of that size");
}

/// The same for a packet of `bytes_max` bytes at most; a larger one is not written, and `false`.
fn frame_within(
    first_byte: u8,
    body: &impl Body,
    version: Version,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> bool {
    let body_bytes = body_len(body, version);
    let bytes = 1 + varint_len(body_bytes) + body_bytes;
    let Some(remaining) =
        u32::try_from(body_bytes).ok().filter(|&len| len <= VARINT_MAX && bytes <= bytes_max)
    else {
        return false;
    };
    out.reserve(bytes);
    out.u8(first_byte);
    out.varint(remaining);
    body.write_body(version, out);
    true
}

/// Reads a reason code that must be one of `allowed`.
fn read_reason(r: &mut Reader<'_>, allowed: &[ReasonCode]) -> Result<ReasonCode, DecodeError> {
    let reason = ReasonCode::try_from(r.u8()?).map_err(|_| DecodeError::ReasonCodeUnknown)?;
    if allowed.contains(&reason) { Ok(reason) } else { Err(DecodeError::ReasonCodeMisplaced) }
}
