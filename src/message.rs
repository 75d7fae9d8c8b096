//! The routed message, shared by reference: one body, however many sessions it goes to.
//!
//! A message owns what outlives the read it came in with. It is built once per PUBLISH, only when something must keep
//! it, and is immutable from then on.

use std::{num::NonZeroU64, sync::Arc};

use bytes::Bytes;

use crate::{
    codec::{Forwarded, PacketId, Publish, PublishProperties, QoS},
    time::Timestamp,
    topic::TopicName,
};

/// Numbers a session for ever: never reused, not even after the session is gone. Client ids name sessions to people;
/// this names them in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNo(pub NonZeroU64);

/// Numbers a session's QoS > 0 messages, in the order they are sent. Never given twice; gaps are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

impl Seq {
    /// How many sequence numbers share the packet id space before it repeats.
    pub const PACKET_IDS: u64 = 65_535;
    /// Higher than any that is given.
    pub const MAX: Self = Self(u64::MAX);

    /// The packet id this message is sent with: `1 + seq mod 65,535`, so it needs no write to survive a crash.
    pub fn packet_id(self) -> PacketId {
        let id = u16::try_from(1 + self.0 % Self::PACKET_IDS).unwrap_or(1);
        PacketId::new(id).expect("1 + n is not zero")
    }
}

/// A message as the broker routes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where it was published.
    pub topic: TopicName,
    /// The application's bytes, never looked into.
    pub payload: Bytes,
    /// The publisher's quality of service; a delivery has the lesser of this and the subscription's.
    pub qos: QoS,
    /// Whether the publisher asked for it to be retained.
    pub retain: bool,
    /// When it is of no more use; `Timestamp::NEVER` without a message expiry interval.
    pub expires_at: Timestamp,
    /// v5 properties that travel with the message; `None` for most.
    pub properties: Option<Box<MessageProperties>>,
}

/// The v5 properties a broker forwards unaltered (MQTT 5.0 section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageProperties {
    /// Payload format indicator [MQTT-3.3.2-4]: `Some(true)` declares UTF-8.
    pub payload_is_utf8: Option<bool>,
    /// Response topic of a request [MQTT-3.3.2-15].
    pub response_topic: Option<Arc<str>>,
    /// Correlation data of a request [MQTT-3.3.2-16].
    pub correlation_data: Option<Bytes>,
    /// Content type (a MIME type by custom) [MQTT-3.3.2-20].
    pub content_type: Option<Arc<str>>,
    /// User properties [MQTT-3.3.2-17], in the publisher's order [MQTT-3.3.2-18].
    pub user: Vec<(Box<str>, Box<str>)>,
}

/// What a user property takes beside its texts: in memory, where it is more than on disk.
const USER_PROPERTY_BYTES: usize = size_of::<(Box<str>, Box<str>)>();

impl MessageProperties {
    /// Copies what travels; `None` when there is nothing.
    fn from_packet(p: &PublishProperties<'_>) -> Option<Box<Self>> {
        if p.payload_is_utf8.is_none() && is_plain(p) {
            return None;
        }
        Some(Box::new(Self {
            payload_is_utf8: p.payload_is_utf8,
            response_topic: p.response_topic.map(Arc::from),
            correlation_data: p.correlation_data.map(Bytes::copy_from_slice),
            content_type: p.content_type.map(Arc::from),
            user: p.user.iter().map(|&(k, v)| (k.into(), v.into())).collect(),
        }))
    }

    #[cold]
    fn size_bytes(&self) -> usize {
        let texts = [&self.response_topic, &self.content_type].into_iter().flatten().map(|text| text.len());
        let data = self.correlation_data.as_ref().map_or(0, Bytes::len);
        texts.sum::<usize>() + data + user_bytes(self.user.iter().map(|(name, value)| (&**name, &**value)))
    }
}

fn user_bytes<'a>(user: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    user.map(|(name, value)| name.len() + value.len() + USER_PROPERTY_BYTES).sum()
}

impl Message {
    /// Copies a PUBLISH out of the read buffer. `topic` is the packet's topic with any alias resolved.
    pub fn from_packet(topic: TopicName, publish: &Publish<'_>, now: Timestamp) -> Self {
        Self {
            topic,
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            expires_at: expires_at(publish.properties.message_expiry, now),
            properties: MessageProperties::from_packet(&publish.properties),
        }
    }

    /// The PUBLISH that carries this message, as it was published, packet id aside. The message expiry interval is what is
    /// left of it at `now` [MQTT-3.3.2-6].
    pub fn to_packet(&self, now: Timestamp) -> Publish<'_> {
        let message_expiry = (self.expires_at != Timestamp::NEVER).then(|| {
            u32::try_from(self.expires_at.since(now).as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
        });
        let mut properties = PublishProperties { message_expiry, ..PublishProperties::default() };
        if let Some(p) = &self.properties {
            properties.payload_is_utf8 = p.payload_is_utf8;
            properties.response_topic = p.response_topic.as_deref();
            properties.correlation_data = p.correlation_data.as_deref();
            properties.content_type = p.content_type.as_deref();
            properties.user = p.user.iter().map(|(k, v)| (&**k, &**v)).collect();
        }
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_str(),
            packet_id: None,
            properties,
            payload: &self.payload,
        }
    }

    /// The same for one subscriber, DUP and packet id aside. `packet` is what `to_packet` gave.
    pub fn forwarded<'a>(&'a self, packet: &'a Publish<'a>, delivery: &'a Delivery) -> Forwarded<'a> {
        Forwarded {
            publish: packet,
            dup: false,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: self.topic.as_str(),
            packet_id: None,
            topic_alias: None,
            subscription_ids: &delivery.subscription_ids,
        }
    }

    /// Bytes of topic, payload and properties: what it takes in memory and on disk, more or less, and what bounds count.
    pub fn size_bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| properties.size_bytes());
        self.topic.as_str().len() + self.payload.len() + properties
    }
}

/// `Message::size_bytes` of the message that a PUBLISH would make.
pub fn size_bytes(topic: &TopicName, publish: &Publish<'_>) -> usize {
    let properties = if is_plain(&publish.properties) { 0 } else { properties_bytes(&publish.properties) };
    topic.as_str().len() + publish.payload.len() + properties
}

/// Whether nothing of it travels with the message, but for its payload format.
fn is_plain(p: &PublishProperties<'_>) -> bool {
    p.response_topic.is_none()
        && p.correlation_data.is_none()
        && p.content_type.is_none()
        && p.user.is_empty()
}

/// Most messages have none: what is counted for each of them should not carry this with it.
#[cold]
fn properties_bytes(p: &PublishProperties<'_>) -> usize {
    let texts = [p.response_topic, p.content_type].into_iter().flatten().map(str::len);
    let data = p.correlation_data.map_or(0, <[u8]>::len);
    texts.sum::<usize>() + data + user_bytes(p.user.iter().copied())
}

/// The moment a message expiry interval ends.
pub fn expires_at(message_expiry: Option<u32>, now: Timestamp) -> Timestamp {
    message_expiry.map_or(Timestamp::NEVER, |s| now.after(std::time::Duration::from_secs(u64::from(s))))
}

/// How one subscriber gets a message.
#[derive(Clone, Debug, Eq)]
pub struct Delivery {
    /// The lesser of the message's and the subscription's quality of service [MQTT-3.8.4-8], [MQTT3-3.8.4-6].
    pub qos: QoS,
    /// The RETAIN flag of the delivery: set for a retained message sent on subscribing, else kept only when the
    /// subscription asked for "retain as published".
    pub retain: bool,
    /// The identifiers of every matching subscription that has one [MQTT-3.3.4-3].
    pub subscription_ids: Vec<u32>,
}

impl PartialEq for Delivery {
    /// One number after the other, since most have none: comparing nothing with nothing as slices takes 300 ns where the C
    /// library loads behind a mask, from where an empty `Vec` points to.
    fn eq(&self, other: &Self) -> bool {
        (self.qos, self.retain) == (other.qos, other.retain)
            && self.subscription_ids.iter().eq(&other.subscription_ids)
    }
}

/// The same, borrowed: what a message that is only passed on needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field as in `Delivery`")]
pub struct Manner<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub subscription_ids: &'a [u32],
}

impl Manner<'_> {
    /// To be kept.
    pub fn to_delivery(self) -> Delivery {
        let Self { qos, retain, subscription_ids } = self;
        Delivery { qos, retain, subscription_ids: subscription_ids.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_kept_of_a_message_counts_whether_it_is_copied_or_not() {
        let topic = TopicName::parse("a/b").unwrap();
        let plain = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "a/b",
            packet_id: None,
            properties: PublishProperties::default(),
            payload: b"12345",
        };
        let laden = Publish {
            properties: PublishProperties {
                payload_is_utf8: Some(true),
                message_expiry: Some(60),
                response_topic: Some("answers"),
                correlation_data: Some(b"42"),
                content_type: Some("text"),
                user: vec![("name", "value"), ("", "")],
                ..PublishProperties::default()
            },
            ..plain.clone()
        };
        for (publish, bytes) in [(plain, 8), (laden, 8 + 7 + 2 + 4 + 9 + 2 * 32)] {
            assert_eq!(size_bytes(&topic, &publish), bytes);
            assert_eq!(Message::from_packet(topic.clone(), &publish, Timestamp(0)).size_bytes(), bytes);
        }
    }
}
