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
        frame(packet_type.first_byte(), &Ack { reason, ..Ack::success(packet_id) }, version, out);
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
