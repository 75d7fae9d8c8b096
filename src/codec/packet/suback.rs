//! SUBACK and UNSUBACK (sections 3.9, 3.11).

use super::{Body, ReasonProperties, read_reason};
use crate::codec::{
    error::DecodeError,
    packet_id::PacketId,
    primitive::{Reader, Sink},
    property::write_properties,
    reason::ReasonCode,
    version::Version,
};

/// SUBACK and UNSUBACK; a v3 UNSUBACK has no reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Suback<'a> {
    /// Of the SUBSCRIBE or UNSUBSCRIBE [MQTT-2.2.1-6], [MQTT3-2.3.1-7].
    pub packet_id: PacketId,
    /// One for each topic filter, in their order. A v3 SUBACK knows one failure, 0x80, which stands for them all
    /// and is decoded as `UnspecifiedError`.
    pub reasons: Vec<ReasonCode>,
    /// v5 only.
    pub properties: ReasonProperties<'a>,
}

/// [MQTT-3.9.3-2]
const SUBACK_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::GrantedQos1,
    ReasonCode::GrantedQos2,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

/// [MQTT-3.11.3-2]
const UNSUBACK_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoSubscriptionExisted,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
];

impl<'a> Suback<'a> {
    pub(super) fn read_suback(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        if version.is_v5() {
            return Self::read_v5(r, SUBACK_REASONS);
        }
        let packet_id = r.packet_id()?;
        let mut reasons = Vec::with_capacity(r.len());
        while !r.is_empty() {
            reasons.push(read_v3_granted(r)?);
        }
        if reasons.is_empty() {
            return Err(DecodeError::SubackEmpty);
        }
        Ok(Self { packet_id, reasons, properties: ReasonProperties::default() })
    }

    pub(super) fn read_unsuback(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        if version.is_v5() {
            return Self::read_v5(r, UNSUBACK_REASONS);
        }
        let packet_id = r.packet_id()?;
        Ok(Self { packet_id, reasons: Vec::new(), properties: ReasonProperties::default() })
    }

    fn read_v5(r: &mut Reader<'a>, allowed: &[ReasonCode]) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties = ReasonProperties::read(r)?;
        let mut reasons = Vec::with_capacity(r.len());
        while !r.is_empty() {
            reasons.push(read_reason(r, allowed)?);
        }
        // [MQTT-3.8.4-6], [MQTT-3.11.3-1]: one for each topic filter, of which there is at least one.
        if reasons.is_empty() {
            return Err(DecodeError::SubackEmpty);
        }
        Ok(Self { packet_id, reasons, properties })
    }

    fn write_v5(&self, out: &mut impl Sink) {
        out.u16(self.packet_id.get());
        write_properties(&self.properties, out);
        for &reason in &self.reasons {
            out.u8(reason.into());
        }
    }
}

/// As SUBACK.
impl Body for Suback<'_> {
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        if version.is_v5() {
            return self.write_v5(out);
        }
        out.u16(self.packet_id.get());
        for &reason in &self.reasons {
            out.u8(if reason.is_error() { V3_FAILURE } else { reason.into() });
        }
    }
}

/// The same as UNSUBACK, which in v3 is a packet id and nothing else.
pub(super) struct AsUnsuback<'p>(pub(super) &'p Suback<'p>);

impl Body for AsUnsuback<'_> {
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        if version.is_v5() {
            return self.0.write_v5(out);
        }
        out.u16(self.0.packet_id.get());
    }
}

const V3_FAILURE: u8 = 0x80;

/// [MQTT3-3.9.3-2]
fn read_v3_granted(r: &mut Reader<'_>) -> Result<ReasonCode, DecodeError> {
    match r.u8()? {
        0 => Ok(ReasonCode::Success),
        1 => Ok(ReasonCode::GrantedQos1),
        2 => Ok(ReasonCode::GrantedQos2),
        V3_FAILURE => Ok(ReasonCode::UnspecifiedError),
        _ => Err(DecodeError::ReturnCodeUnknown),
    }
}
