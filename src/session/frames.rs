//! The PUBLISH packets of one message that is passed on as it comes in: encoded once for all who get the same bytes.

use super::link::Terms;
use crate::{
    codec::{PacketId, Publish, QoS},
    message::Manner,
    topic::TopicName,
};

/// What differs between the packets of one message, but for packet id, alias and subscription identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    is_v5: bool,
    qos: QoS,
    retain: bool,
}

/// One message's packets.
pub struct Frames<'a> {
    /// As its subscribers get it.
    packet: Publish<'a>,
    topic: &'a TopicName,
    /// The packet that was encoded last, with the packet id of whoever got it first.
    bytes: &'a mut Vec<u8>,
    form: Option<Form>,
    /// It goes to several.
    is_shared: bool,
}

impl<'a> Frames<'a> {
    /// Of a message that goes to `subscribers`. `bytes` is room to work in; what it holds is thrown away.
    pub fn new(
        publish: &Publish<'a>,
        topic: &'a TopicName,
        subscribers: usize,
        bytes: &'a mut Vec<u8>,
    ) -> Self {
        let mut packet = publish.clone();
        // [MQTT-3.3.1-3], [MQTT3-3.3.1-3]: the publisher's DUP goes no further.
        packet.dup = false;
        packet.topic = topic.as_str();
        packet.properties.topic_alias = None;
        Self { packet, topic, bytes, form: None, is_shared: subscribers > 1 }
    }

    /// Where it was published.
    pub fn topic(&self) -> &'a TopicName {
        self.topic
    }

    /// Seconds it is of use.
    pub(super) fn message_expiry(&self) -> Option<u32> {
        self.packet.properties.message_expiry
    }

    /// The packet for one subscriber.
    pub(super) fn packet(&mut self, manner: Manner<'_>, id: Option<PacketId>) -> &mut Publish<'a> {
        let packet = &mut self.packet;
        packet.qos = manner.qos;
        packet.retain = manner.retain;
        packet.packet_id = id;
        packet.topic = self.topic.as_str();
        packet.properties.topic_alias = None;
        packet.properties.subscription_ids.clear();
        packet.properties.subscription_ids.extend_from_slice(manner.subscription_ids);
        packet
    }

    /// Appends the packet for a subscriber to `out`. `false`, and nothing is appended, if it is larger than that one takes
    /// [MQTT-3.1.2-24].
    pub(super) fn append(
        &mut self,
        manner: Manner<'_>,
        id: Option<PacketId>,
        terms: &Terms,
        out: &mut Vec<u8>,
    ) -> bool {
        let version = terms.version;
        if !self.is_shared || !manner.subscription_ids.is_empty() {
            let packet = self.packet(manner, id);
            let fits = packet.encoded_len(version) <= terms.packet_bytes_max;
            if fits {
                packet.encode(version, out);
            }
            return fits;
        }
        let form = Form { is_v5: version.is_v5(), qos: manner.qos, retain: manner.retain };
        if self.form != Some(form) {
            self.packet(manner, id);
            self.bytes.clear();
            self.packet.encode(version, self.bytes);
            self.form = Some(form);
        }
        if self.bytes.len() > terms.packet_bytes_max {
            return false;
        }
        let from = out.len();
        out.extend_from_slice(self.bytes);
        if let (Some(id), Some(packet)) = (id, out.get_mut(from..)) {
            Publish::set_packet_id(packet, id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PublishProperties, Version};

    fn terms(version: Version, packet_bytes_max: usize) -> Terms {
        Terms {
            version,
            packet_bytes_max,
            wants_reasons: true,
            receive_maximum: 100,
            alias_max_out: 0,
            alias_max_in: 0,
            out_bytes_max: 1 << 20,
        }
    }

    /// One after the other, of every kind and size: each is what encoding it alone gives.
    #[test]
    fn each_subscriber_gets_what_it_would_get_alone() {
        let topic = TopicName::parse("site/plant/temperature").unwrap();
        for payload in [0, 1, 90, 100, 120, 16_300, 16_400] {
            let payload = vec![7; payload];
            let properties =
                PublishProperties { message_expiry: Some(9), user: vec![("a", "b")], ..Default::default() };
            let publish = Publish {
                dup: true,
                qos: QoS::ExactlyOnce,
                retain: true,
                topic: "",
                packet_id: PacketId::new(77),
                properties,
                payload: &payload,
            };
            let mut room = vec![1, 2, 3];
            let mut frames = Frames::new(&publish, &topic, 100, &mut room);
            for n in 0..60_u16 {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(n / 4 % 3)];
                let ids: &[u32] = if n % 7 == 6 { &[5, 300] } else { &[] };
                let manner = Manner { qos, retain: n / 2 % 2 == 0, subscription_ids: ids };
                let version = if n / 12 % 2 == 0 { Version::V5 } else { Version::V311 };
                let id = PacketId::new(n + 1_000).filter(|_| qos != QoS::AtMostOnce);
                let mut alone = Vec::new();
                let alone_packet = Publish {
                    dup: false,
                    qos,
                    retain: manner.retain,
                    topic: topic.as_str(),
                    packet_id: id,
                    properties: PublishProperties {
                        subscription_ids: ids.to_vec(),
                        ..publish.properties.clone()
                    },
                    payload: &payload,
                };
                alone_packet.encode(version, &mut alone);
                let mut out = vec![0xEE];
                assert!(frames.append(manner, id, &terms(version, alone.len()), &mut out));
                assert_eq!(out[1..], alone, "{n}, {} bytes of payload", payload.len());
                assert!(!frames.append(manner, id, &terms(version, alone.len() - 1), &mut out), "{n}");
                assert_eq!(out.len(), 1 + alone.len(), "nothing of one that is too large");
            }
        }
    }
}
