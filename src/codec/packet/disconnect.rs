//! DISCONNECT (section 3.14): the last packet of a connection; in v3 only a client sends it.

use super::{Body, read_reason};
use crate::codec::{
    error::DecodeError,
    primitive::{Reader, Sink},
    property::{
        Property, PropertyReader, PropertySource, Repeatable, UserProperties, visit_user, write_properties,
    },
    reason::ReasonCode,
    version::Version,
};

/// The end of a connection. In v3 it has no fields: the reason is `Success`.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// v5 only.
    pub reason: ReasonCode,
    /// v5 only.
    pub properties: DisconnectProperties<'a>,
}

/// Properties of DISCONNECT (section 3.14.2.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DisconnectProperties<'a> {
    /// Seconds, in place of what CONNECT said. A server must not send it [MQTT-3.14.2-2]; the codec does not know
    /// directions.
    pub session_expiry: Option<u32>,
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
}

/// [MQTT-3.14.2-1]. 0x8C is missing from the list in section 3.14.2.1, but section 2.4 has it for DISCONNECT.
const REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::DisconnectWithWill,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::TopicNameInvalid,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QosNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::MaximumConnectTime,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

impl<'a> Disconnect<'a> {
    /// A DISCONNECT that says why, and no more.
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: DisconnectProperties::default() }
    }

    pub(super) fn read(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut this = Self::new(ReasonCode::Success);
        // Short forms of 5.0 (section 3.14.2.1): nothing, or the reason alone.
        if version.is_v5() && !r.is_empty() {
            this.reason = read_reason(r, REASONS)?;
            if !r.is_empty() {
                this.properties = DisconnectProperties::read(r)?;
            }
        }
        Ok(this)
    }
}

impl Body for Disconnect<'_> {
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        if !version.is_v5() {
            return;
        }
        // A reason alone could do without a property length (section 3.14.2.1), but there are clients that take that
        // for a malformed packet, rumqttc among them, and would not learn the reason.
        if self.reason != ReasonCode::Success || !self.properties.is_empty() {
            out.u8(self.reason.into());
            write_properties(&self.properties, out);
        }
    }
}

impl<'a> DisconnectProperties<'a> {
    /// No property is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        let mut properties = PropertyReader::new(r, Repeatable::User)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiry(value) => this.session_expiry = Some(value),
                Property::ReasonString(value) => this.reason_string = Some(value),
                Property::User(name, value) => this.user.push((name, value)),
                Property::ServerReference(value) => this.server_reference = Some(value),
                _ => return Err(DecodeError::PropertyMisplaced),
            }
        }
        Ok(this)
    }
}

impl PropertySource for DisconnectProperties<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(value) = self.session_expiry {
            visit(Property::SessionExpiry(value));
        }
        if let Some(value) = self.server_reference {
            visit(Property::ServerReference(value));
        }
        if let Some(value) = self.reason_string {
            visit(Property::ReasonString(value));
        }
        visit_user(&self.user, visit);
    }
}
