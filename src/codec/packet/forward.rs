//! A PUBLISH as it is passed on to one of its receivers: what was published, and what is different for that one.

use std::num::NonZeroU16;

use super::{
    Body, frame, frame_within, framed_len,
    publish::{DUP, Publish, QOS_SHIFT, RETAIN},
};
use crate::codec::{
    header::PacketType,
    packet_id::PacketId,
    primitive::Sink,
    property::{Property, PropertySource, write_properties},
    qos::QoS,
    version::Version,
};

/// Encodes to what a [`Publish`] with these fields in place of its own does, and copies nothing for it.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// Whose payload and properties these are, but for topic alias and subscription identifiers.
    pub publish: &'a Publish<'a>,
    /// It may have been sent to this receiver before.
    pub dup: bool,
    /// As this receiver gets it.
    pub qos: QoS,
    /// The same.
    pub retain: bool,
    /// Empty only with an alias the receiver knows.
    pub topic: &'a str,
    /// `Some` exactly when qos > 0.
    pub packet_id: Option<PacketId>,
    /// v5 only.
    pub topic_alias: Option<NonZeroU16>,
    /// v5 only.
    pub subscription_ids: &'a [u32],
}

impl Forwarded<'_> {
    /// Bytes of the packet. The packet id counts with `QoS` > 0 even if it is not set yet.
    pub fn encoded_len(&self, version: Version) -> usize {
        framed_len(self, version)
    }

    /// Appends the packet.
    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        frame(self.first_byte(), self, version, out);
    }

    /// Appends the packet, if it has `bytes_max` bytes at most; else nothing, and `false`.
    pub fn encode_within(&self, version: Version, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        frame_within(self.first_byte(), self, version, bytes_max, out)
    }

    fn first_byte(&self) -> u8 {
        debug_assert_eq!(
            self.packet_id.is_some(),
            self.qos != QoS::AtMostOnce,
            "packet id exactly with QoS > 0"
        );
        let mut first = PacketType::Publish.first_byte() | u8::from(self.qos) << QOS_SHIFT;
        if self.retain {
            first |= RETAIN;
        }
        if self.dup {
            first |= DUP;
        }
        first
    }
}

impl Body for Forwarded<'_> {
    #[inline]
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        out.string(self.topic);
        if self.qos != QoS::AtMostOnce {
            out.u16(self.packet_id.map_or(0, PacketId::get));
        }
        if version.is_v5() {
            write_properties(self, out);
        }
        out.bytes(self.publish.payload);
    }
}

impl PropertySource for Forwarded<'_> {
    #[inline]
    fn is_empty(&self) -> bool {
        self.topic_alias.is_none()
            && self.subscription_ids.is_empty()
            && self.publish.properties.has_no_message_properties()
    }

    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(value) = self.topic_alias {
            visit(Property::TopicAlias(value));
        }
        self.publish.properties.visit_message(visit);
        // Last, because rumqttc miscounts behind them and loses what follows.
        for &value in self.subscription_ids {
            visit(Property::SubscriptionId(value));
        }
    }
}
