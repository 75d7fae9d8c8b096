//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): they differ in type and reason codes only.

use super::{Body, ReasonProperties, frame, read_reason};
use crate::codec::{
    error::DecodeError,
    header::PacketType,
    packet_id::PacketId,
    primitive::{Reader, Sink},
    property::write_properties,
    reason::ReasonCode,
    version::Version,
};

/// PUBACK, PUBREC, PUBREL, PUBCOMP. In v3 the reason is always `Success`: a failure cannot be said.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// Of the PUBLISH [MQTT-2.2.1-5].
    pub packet_id: PacketId,
    /// v5 only.
    pub reason: ReasonCode,
    /// v5 only.
    pub properties: ReasonProperties<'a>,
}

/// Of PUBACK [MQTT-3.4.2-1] and PUBREC [MQTT-3.5.2-1].
pub(super) const PUBLISH_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
];

/// Of PUBREL [MQTT-3.6.2-1] and PUBCOMP [MQTT-3.7.2-1].
pub(super) const RELEASE_REASONS: &[ReasonCode] =
    &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];

/// Of one without a reason: the packet id.
const PLAIN_BODY_BYTES: u8 = 2;

const FOUR: [PacketType; 4] =
    [PacketType::Puback, PacketType::Pubrec, PacketType::Pubrel, PacketType::Pubcomp];

impl<'a> Ack<'a> {
    /// The plain answer: success, without properties.
    pub fn success(packet_id: PacketId) -> Self {
        Self { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
    }

    /// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP, which `packet_type` says, without properties: what most of them are.
    pub fn encode_plain(
        packet_type: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        version: Version,
        out: &mut Vec<u8>,
    ) {
        if reason == ReasonCode::Success {
            let [high, low] = packet_id.get().to_be_bytes();
            out.extend_from_slice(&[packet_type.first_byte(), PLAIN_BODY_BYTES, high, low]);
        } else {
            frame(packet_type.first_byte(), &Ack { reason, ..Ack::success(packet_id) }, version, out);
        }
    }

    /// Reads one that is success, and nothing but its packet id, at the start of `input`: its type, its packet id, and how
    /// many bytes it took. `None` for all others, whole or not, right or wrong: [`decode`](crate::codec::decode) knows those.
    pub fn decode_plain(input: &[u8]) -> Option<(PacketType, PacketId, usize)> {
        let &[first, PLAIN_BODY_BYTES, high, low, ..] = input else { return None };
        let of = |packet_type: &PacketType| packet_type.first_byte() == first;
        let packet_type = FOUR.into_iter().find(of)?;
        let packet_id = PacketId::new(u16::from_be_bytes([high, low]))?;
        Some((packet_type, packet_id, 2 + usize::from(PLAIN_BODY_BYTES)))
    }

    pub(super) fn read(
        r: &mut Reader<'a>,
        version: Version,
        allowed: &[ReasonCode],
    ) -> Result<Self, DecodeError> {
        let mut this = Self::success(r.packet_id()?);
        // Short forms of 5.0 (section 3.4.2.1): reason and properties may be left out, or the properties alone.
        if version.is_v5() && !r.is_empty() {
            this.reason = read_reason(r, allowed)?;
            if !r.is_empty() {
                this.properties = ReasonProperties::read(r)?;
            }
        }
        Ok(this)
    }
}

impl Body for Ack<'_> {
    #[inline]
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        out.u16(self.packet_id.get());
        if !version.is_v5() {
            return;
        }
        let has_properties = !self.properties.is_empty();
        if self.reason != ReasonCode::Success || has_properties {
            out.u8(self.reason.into());
        }
        if has_properties {
            write_properties(&self.properties, out);
        }
    }
}
