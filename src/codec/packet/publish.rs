//! PUBLISH (section 3.3): an application message, in either direction.

use std::num::NonZeroU16;

use super::forward::Forwarded;
use crate::codec::{
    error::DecodeError,
    header::{FixedHeader, PacketType},
    packet_id::PacketId,
    primitive::{Reader, text},
    property::{Property, PropertyReader, Repeatable, UserProperties, has_wildcard, visit_user},
    qos::QoS,
    version::Version,
};
use crate::topic::TopicName;

/// An application message on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    /// This may be a repetition of an earlier attempt. Never with `QoS` 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// To a server: keep as the topic's retained message. To a client: it was one.
    pub retain: bool,
    /// Without wildcards. Empty only in v5 with a topic alias.
    pub topic: &'a str,
    /// `Some` exactly when qos > 0.
    pub packet_id: Option<PacketId>,
    /// v5 only.
    pub properties: PublishProperties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

/// Properties of PUBLISH (section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// Payload format indicator: `Some(true)` declares UTF-8. Not checked here.
    pub payload_is_utf8: Option<bool>,
    /// Seconds the message is of use; `None` is for ever.
    pub message_expiry: Option<u32>,
    /// Stands for the topic on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Where an answer is expected. Not empty, without wildcards.
    pub response_topic: Option<&'a str>,
    /// Which request an answer belongs to.
    pub correlation_data: Option<&'a [u8]>,
    /// What the payload is.
    pub content_type: Option<&'a str>,
    /// Identifiers of the subscriptions that matched, 1..=268,435,455 each. A client must not send any
    /// [MQTT-3.3.4-6]: the codec does not know directions, so this is for the broker to check.
    pub subscription_ids: Vec<u32>,
    /// User properties.
    pub user: UserProperties<'a>,
}

pub(super) const RETAIN: u8 = 0b0001;
pub(super) const QOS_SHIFT: u8 = 1;
pub(super) const DUP: u8 = 0b1000;

impl<'a> Publish<'a> {
    pub(super) fn read(
        flags: u8,
        r: &mut Reader<'a>,
        version: Version,
        before: Option<&'a TopicName>,
    ) -> Result<Self, DecodeError> {
        let Flags { dup, qos, retain } = Flags::read(flags)?;
        // [MQTT-3.3.2-1], [MQTT3-3.3.2-1]
        let bytes = r.binary()?;
        let topic = match before.map(TopicName::as_str).filter(|before| before.as_bytes() == bytes) {
            Some(before) => before,
            None => checked(bytes)?,
        };
        // [MQTT-2.2.1-2]
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
        let properties =
            if version.is_v5() { PublishProperties::read(r)? } else { PublishProperties::default() };
        // [MQTT-4.7.3-1], section 3.3.2.1
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(DecodeError::TopicEmpty);
        }
        Ok(Self { dup, qos, retain, topic, packet_id, properties, payload: r.take_rest() })
    }

    /// Reads one to the topic `before`, which is valid, and without properties, at the start of `input`: the message, and how
    /// many bytes it took. `None` for all others, whole or not, right or wrong: [`decode`](crate::codec::decode) knows those.
    #[inline]
    pub fn decode_plain(
        input: &'a [u8],
        version: Version,
        packet_bytes_max: u32,
        before: &'a TopicName,
    ) -> Option<(Self, usize)> {
        let FixedHeader { packet_type, flags, header_bytes, packet_bytes } =
            FixedHeader::read(input, version).ok()??;
        if packet_type != PacketType::Publish || packet_bytes > usize::try_from(packet_bytes_max).ok()? {
            return None;
        }
        let mut r = Reader::new(input.get(header_bytes..packet_bytes)?);
        let Flags { dup, qos, retain } = Flags::read(flags).ok()?;
        let topic = before.as_str();
        if r.binary().ok()? != topic.as_bytes() {
            return None;
        }
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id().ok()?) };
        if version.is_v5() && r.u8().ok()? != 0 {
            return None;
        }
        let properties = PublishProperties::default();
        Some((Self { dup, qos, retain, topic, packet_id, properties, payload: r.take_rest() }, packet_bytes))
    }
}

/// What the first byte says.
struct Flags {
    dup: bool,
    qos: QoS,
    retain: bool,
}

impl Flags {
    fn read(flags: u8) -> Result<Self, DecodeError> {
        let dup = flags & DUP != 0;
        let retain = flags & RETAIN != 0;
        // [MQTT-3.3.1-4], [MQTT3-3.3.1-4]
        let qos = QoS::try_from(flags >> QOS_SHIFT & 0b11).map_err(|_| DecodeError::PublishQos3)?;
        // [MQTT-3.3.1-2], [MQTT3-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupWithQos0);
        }
        Ok(Self { dup, qos, retain })
    }
}

/// A topic that has not been looked into.
fn checked(bytes: &[u8]) -> Result<&str, DecodeError> {
    let topic = text(bytes)?;
    // [MQTT-3.3.2-2], [MQTT3-3.3.2-2]
    if has_wildcard(topic) { Err(DecodeError::TopicWildcard) } else { Ok(topic) }
}

impl Publish<'_> {
    /// Appends the packet as [`Packet::encode`](crate::codec::Packet::encode) does, with no allocation besides one
    /// reservation in `out`. With `QoS` > 0 the packet id must be set: it is asserted, and a release build writes
    /// the id 0, which every receiver refuses.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.as_it_is().encode(version, out);
    }

    /// Bytes that [`Publish::encode`] appends. The packet id counts with `QoS` > 0 even if it is not set yet.
    pub fn encoded_len(&self, version: Version) -> usize {
        self.as_it_is().encoded_len(version)
    }

    /// Passed on with nothing changed.
    fn as_it_is(&self) -> Forwarded<'_> {
        Forwarded {
            publish: self,
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic,
            packet_id: self.packet_id,
            topic_alias: self.properties.topic_alias,
            subscription_ids: &self.properties.subscription_ids,
        }
    }

    /// Puts another packet id into a PUBLISH with `QoS` > 0 that was encoded: the same message for another receiver.
    pub fn set_packet_id(encoded: &mut [u8], id: PacketId) {
        let header_bytes = 1 + encoded.iter().skip(1).take_while(|&&byte| byte & 0x80 != 0).count() + 1;
        let Some(body) = encoded.get_mut(header_bytes..) else { return };
        let Some((topic_len, rest)) = body.split_first_chunk_mut() else { return };
        let place = rest.get_mut(usize::from(u16::from_be_bytes(*topic_len))..);
        if let Some(place) = place.and_then(|at| at.first_chunk_mut()) {
            *place = id.get().to_be_bytes();
        }
    }
}

impl<'a> PublishProperties<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        let mut properties = PropertyReader::new(r, Repeatable::UserAndSubscriptionId)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::PayloadIsUtf8(value) => this.payload_is_utf8 = Some(value),
                Property::MessageExpiry(value) => this.message_expiry = Some(value),
                Property::TopicAlias(value) => this.topic_alias = Some(value),
                Property::ResponseTopic(value) => this.response_topic = Some(value),
                Property::CorrelationData(value) => this.correlation_data = Some(value),
                Property::ContentType(value) => this.content_type = Some(value),
                Property::SubscriptionId(value) => this.subscription_ids.push(value),
                Property::User(name, value) => this.user.push((name, value)),
                _ => return Err(DecodeError::PropertyMisplaced),
            }
        }
        Ok(this)
    }

    /// Whether there is nothing of what `visit_message` visits.
    pub(super) fn has_no_message_properties(&self) -> bool {
        self.payload_is_utf8.is_none()
            && self.message_expiry.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user.is_empty()
    }

    /// Visits what belongs to the message itself: all but topic alias and subscription identifiers.
    pub(super) fn visit_message<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(value) = self.payload_is_utf8 {
            visit(Property::PayloadIsUtf8(value));
        }
        if let Some(value) = self.message_expiry {
            visit(Property::MessageExpiry(value));
        }
        if let Some(value) = self.content_type {
            visit(Property::ContentType(value));
        }
        if let Some(value) = self.response_topic {
            visit(Property::ResponseTopic(value));
        }
        if let Some(value) = self.correlation_data {
            visit(Property::CorrelationData(value));
        }
        visit_user(&self.user, visit);
    }
}
