//! Properties of 5.0 (section 2.2.2): one enum for all of them, with a strict reader and a writer.
//!
//! The reader refuses unknown identifiers, bad values, duplicates and lengths that overrun; which property belongs to
//! which packet is said once, in the packet's own `match`.

use std::num::NonZeroU16;

use super::{
    error::DecodeError,
    primitive::{Count, Reader, Sink},
    qos::QoS,
};

/// User properties in the sender's order; names may repeat (section 3.3.2.3.7).
pub type UserProperties<'a> = Vec<(&'a str, &'a str)>;

/// One property with a valid value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Property<'a> {
    PayloadIsUtf8(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelay(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    PacketBytesMax(u32),
    WildcardAvailable(bool),
    SubscriptionIdsAvailable(bool),
    SharedAvailable(bool),
}

const SUBSCRIPTION_ID: u32 = 0x0B;
const USER: u32 = 0x26;

/// Which properties may be there more than once. User properties always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatable {
    User,
    /// Only in PUBLISH (section 3.3.2.3.8).
    UserAndSubscriptionId,
}

/// The properties of one packet, read one after the other.
#[derive(Debug)]
pub(super) struct PropertyReader<'a> {
    reader: Reader<'a>,
    repeatable: Repeatable,
    /// A bit for each identifier seen; all are below 64.
    seen: u64,
}

impl<'a> PropertyReader<'a> {
    /// Takes the property length and that many bytes off `packet`.
    pub(super) fn new(packet: &mut Reader<'a>, repeatable: Repeatable) -> Result<Self, DecodeError> {
        let len = usize::try_from(packet.varint()?).unwrap_or(usize::MAX);
        let section = packet.take(len).map_err(|_| DecodeError::PropertyLengthOverrun)?;
        Ok(Self { reader: Reader::new(section), repeatable, seen: 0 })
    }

    /// The next property; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.read().map(Some).map_err(|error| match error {
            DecodeError::FieldOverrun => DecodeError::PropertyValueOverrun,
            other => other,
        })
    }

    fn read(&mut self) -> Result<Property<'a>, DecodeError> {
        let id = self.reader.varint()?;
        let property = Property::read(id, &mut self.reader)?;
        let bit = 1_u64.checked_shl(id).unwrap_or(0);
        let may_repeat =
            id == USER || (id == SUBSCRIPTION_ID && self.repeatable == Repeatable::UserAndSubscriptionId);
        if self.seen & bit != 0 && !may_repeat {
            return Err(DecodeError::PropertyDuplicate);
        }
        self.seen |= bit;
        Ok(property)
    }
}

impl<'a> Property<'a> {
    fn read(id: u32, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match id {
            0x01 => Self::PayloadIsUtf8(boolean(r)?),
            0x02 => Self::MessageExpiry(r.u32()?),
            // [MQTT-3.3.2-19]
            0x03 => Self::ContentType(r.string()?),
            0x08 => Self::ResponseTopic(response_topic(r)?),
            0x09 => Self::CorrelationData(r.binary()?),
            SUBSCRIPTION_ID => Self::SubscriptionId(subscription_id(r)?),
            0x11 => Self::SessionExpiry(r.u32()?),
            0x12 => Self::AssignedClientId(r.string()?),
            0x13 => Self::ServerKeepAlive(r.u16()?),
            0x15 => Self::AuthenticationMethod(r.string()?),
            0x16 => Self::AuthenticationData(r.binary()?),
            0x17 => Self::RequestProblemInformation(boolean(r)?),
            0x18 => Self::WillDelay(r.u32()?),
            0x19 => Self::RequestResponseInformation(boolean(r)?),
            0x1A => Self::ResponseInformation(r.string()?),
            0x1C => Self::ServerReference(r.string()?),
            0x1F => Self::ReasonString(r.string()?),
            0x21 => Self::ReceiveMaximum(non_zero(r, DecodeError::ReceiveMaximumZero)?),
            0x22 => Self::TopicAliasMaximum(r.u16()?),
            // [MQTT-3.3.2-8]
            0x23 => Self::TopicAlias(non_zero(r, DecodeError::TopicAliasZero)?),
            0x24 => Self::MaximumQos(maximum_qos(r)?),
            0x25 => Self::RetainAvailable(boolean(r)?),
            USER => Self::User(r.string()?, r.string()?),
            0x27 => Self::PacketBytesMax(packet_bytes_max(r)?),
            0x28 => Self::WildcardAvailable(boolean(r)?),
            0x29 => Self::SubscriptionIdsAvailable(boolean(r)?),
            0x2A => Self::SharedAvailable(boolean(r)?),
            _ => return Err(DecodeError::PropertyUnknown),
        })
    }

    /// Every identifier fits one byte.
    fn id(self) -> u8 {
        match self {
            Self::PayloadIsUtf8(_) => 0x01,
            Self::MessageExpiry(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionId(_) => 0x0B,
            Self::SessionExpiry(_) => 0x11,
            Self::AssignedClientId(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelay(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1A,
            Self::ServerReference(_) => 0x1C,
            Self::ReasonString(_) => 0x1F,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQos(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::User(..) => 0x26,
            Self::PacketBytesMax(_) => 0x27,
            Self::WildcardAvailable(_) => 0x28,
            Self::SubscriptionIdsAvailable(_) => 0x29,
            Self::SharedAvailable(_) => 0x2A,
        }
    }

    fn write(self, out: &mut impl Sink) {
        out.u8(self.id());
        match self {
            Self::PayloadIsUtf8(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardAvailable(value)
            | Self::SubscriptionIdsAvailable(value)
            | Self::SharedAvailable(value) => out.u8(u8::from(value)),
            Self::MaximumQos(qos) => out.u8(qos.into()),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => out.u16(value),
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => out.u16(value.get()),
            Self::MessageExpiry(value)
            | Self::SessionExpiry(value)
            | Self::WillDelay(value)
            | Self::PacketBytesMax(value) => out.u32(value),
            Self::SubscriptionId(value) => out.varint(value),
            Self::CorrelationData(data) | Self::AuthenticationData(data) => out.binary(data),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientId(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => out.string(text),
            Self::User(name, value) => {
                out.string(name);
                out.string(value);
            }
        }
    }
}

/// What has properties to write.
pub(super) trait PropertySource {
    /// Whether none is set. `false` is allowed for one that cannot tell at once.
    fn is_empty(&self) -> bool {
        false
    }

    /// Calls `visit` for each property that is set, in the order it is written.
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>));
}

/// Bytes of all properties, without the property length in front of them.
pub(super) fn properties_len(source: &impl PropertySource) -> usize {
    let mut count = Count::default();
    source.visit(&mut |property| property.write(&mut count));
    count.0
}

/// Writes the property length and the properties.
pub(super) fn write_properties(source: &impl PropertySource, out: &mut impl Sink) {
    // Those of most messages.
    if source.is_empty() {
        return out.u8(0);
    }
    out.varint(u32::try_from(properties_len(source)).unwrap_or(u32::MAX));
    source.visit(&mut |property| property.write(out));
}

/// Visits `values` as user properties.
pub(super) fn visit_user<'s>(values: &[(&'s str, &'s str)], visit: &mut impl FnMut(Property<'s>)) {
    for &(name, value) in values {
        visit(Property::User(name, value));
    }
}

fn boolean(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyNotBoolean),
    }
}

fn non_zero(r: &mut Reader<'_>, if_zero: DecodeError) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(r.u16()?).ok_or(if_zero)
}

/// "Exactly once" is said by leaving the property out (section 3.2.2.3.4).
fn maximum_qos(r: &mut Reader<'_>) -> Result<QoS, DecodeError> {
    match r.u8()? {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        _ => Err(DecodeError::MaximumQosInvalid),
    }
}

fn packet_bytes_max(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match r.u32()? {
        0 => Err(DecodeError::MaximumPacketSizeZero),
        value => Ok(value),
    }
}

fn subscription_id(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match r.varint()? {
        0 => Err(DecodeError::SubscriptionIdZero),
        value => Ok(value),
    }
}

fn response_topic<'a>(r: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    // [MQTT-3.3.2-13]
    let topic = r.string()?;
    // [MQTT-3.3.2-14], [MQTT-4.7.3-1]
    if topic.is_empty() || has_wildcard(topic) {
        return Err(DecodeError::ResponseTopicInvalid);
    }
    Ok(topic)
}

/// Whether a topic name has what only a topic filter may have.
pub(super) fn has_wildcard(topic: &str) -> bool {
    memchr::memchr2(b'+', b'#', topic.as_bytes()).is_some()
}
