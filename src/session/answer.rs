//! What a client is answered, and how it is told why.

use std::sync::Arc;

use super::link::Terms;
use crate::{
    codec::{Ack, Packet, PacketId, PacketType, ReasonCode, ReasonProperties},
    message::{Delivery, Message},
    time::Timestamp,
};

/// How what a client asked for has ended: a code for programs and, where it was refused, a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For the program.
    pub reason: ReasonCode,
    /// For the person who reads its log; empty where everything went well.
    pub why: &'static str,
}

impl Verdict {
    /// Nothing to explain.
    pub const SUCCESS: Self = Self { reason: ReasonCode::Success, why: "" };

    /// It was refused, and this is why.
    pub fn refused(reason: ReasonCode, why: &'static str) -> Self {
        Self { reason, why }
    }
}

/// A code that explains itself.
impl From<ReasonCode> for Verdict {
    fn from(reason: ReasonCode) -> Self {
        Self { reason, why: "" }
    }
}

/// An answer to the client, in the order of the packets it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// PUBACK.
    Puback(PacketId, Verdict),
    /// PUBREC.
    Pubrec(PacketId, Verdict),
    /// PUBCOMP.
    Pubcomp(PacketId, Verdict),
    /// CONNACK: nothing else may leave before it [MQTT-3.2.0-1].
    Connack(Vec<u8>),
    /// SUBACK, encoded; messages are held back until it has left.
    Suback(Vec<u8>),
    /// A QoS 0 retained message: it follows its SUBACK, and is encoded when the out-buffer has room.
    Retained(Arc<Message>, Delivery),
    /// A QoS 0 PUBLISH, encoded, that came while others were held back, and when it expires.
    Publish(Vec<u8>, Timestamp),
    /// Any other packet, encoded.
    Encoded(Vec<u8>),
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP: `name` is one of the four.
pub(super) fn acknowledgement(
    name: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
    reason_string: Option<&str>,
) -> Packet<'_> {
    let properties = ReasonProperties { reason_string, ..ReasonProperties::default() };
    let ack = Ack { packet_id, reason, properties };
    match name {
        PacketType::Pubrec => Packet::Pubrec(ack),
        PacketType::Pubrel => Packet::Pubrel(ack),
        PacketType::Pubcomp => Packet::Pubcomp(ack),
        _ => Packet::Puback(ack),
    }
}

impl Terms {
    /// Appends `build(Some(why))`: the packet with a reason string, if the client may be told and the packet still fits;
    /// else `build(None)`, the same without it. `false`: the client takes not even that, and nothing was appended
    /// [MQTT-3.1.2-24].
    pub fn encode<'a>(
        &self,
        why: &'a str,
        build: impl Fn(Option<&'a str>) -> Packet<'a>,
        out: &mut Vec<u8>,
    ) -> bool {
        let fits = |packet: &Packet<'_>| packet.encoded_len(self.version) <= self.packet_bytes_max;
        if !why.is_empty() {
            let explained = build(Some(why));
            // [MQTT-3.1.2-29]
            let may_tell =
                self.wants_reasons || matches!(explained, Packet::Connack(_) | Packet::Disconnect(_));
            // [MQTT-3.2.2-19], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.6.2-2], [MQTT-3.7.2-2], [MQTT-3.9.2-1],
            // [MQTT-3.11.2-1], [MQTT-3.14.2-3], [MQTT-3.15.2-2]. User properties are never put into an answer, which
            // keeps [MQTT-3.2.2-20], [MQTT-3.4.2-3], [MQTT-3.5.2-3], [MQTT-3.6.2-3], [MQTT-3.7.2-3], [MQTT-3.9.2-2],
            // [MQTT-3.11.2-2], [MQTT-3.14.2-4] and [MQTT-3.15.2-3].
            if may_tell && fits(&explained) {
                explained.encode(self.version, out);
                return true;
            }
        }
        let plain = build(None);
        let takes = fits(&plain);
        if takes {
            plain.encode(self.version, out);
        }
        takes
    }
}
