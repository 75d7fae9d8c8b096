//! CONNACK (section 3.2): the server accepts or refuses a connection.

use std::num::NonZeroU16;

use super::{Body, read_reason};
use crate::codec::{
    error::DecodeError,
    primitive::{Reader, Sink},
    property::{
        Property, PropertyReader, PropertySource, Repeatable, UserProperties, visit_user, write_properties,
    },
    qos::QoS,
    reason::{ReasonCode, from_v3_return_code, v3_return_code},
    version::Version,
};

/// A server's first packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Connack<'a> {
    /// Whether the server goes on with a session it has kept. False in a refusal, and in 3.1, which has no such flag.
    pub session_present: bool,
    /// v5 reason code. For v3 it is encoded as return code 0 to 5
    /// ([`v3_return_code`](crate::codec::v3_return_code)), and decoded to the nearest reason code.
    pub reason: ReasonCode,
    /// v5 only.
    pub properties: ConnackProperties<'a>,
}

/// Properties of CONNACK (section 3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnackProperties<'a> {
    /// Seconds, if other than the client asked for.
    pub session_expiry: Option<u32>,
    /// How many unconfirmed `QoS` > 0 messages the server takes at a time; `None` is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Highest `QoS` the server takes; `None` is 2, and so is `ExactlyOnce`, which has no encoding of its own.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are supported; `None` is yes.
    pub retain_available: Option<bool>,
    /// Largest packet the server takes; `None` is no limit. Not zero.
    pub packet_bytes_max: Option<u32>,
    /// The client id the server has given to a client that came without one.
    pub assigned_client_id: Option<&'a str>,
    /// Highest topic alias the server takes; `None` is 0, none at all.
    pub topic_alias_maximum: Option<u16>,
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Whether wildcard subscriptions are supported; `None` is yes.
    pub wildcard_available: Option<bool>,
    /// Whether subscription identifiers are supported; `None` is yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether shared subscriptions are supported; `None` is yes.
    pub shared_available: Option<bool>,
    /// Seconds, in place of the client's keep alive.
    pub server_keep_alive: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Name of the extended authentication.
    pub authentication_method: Option<&'a str>,
    /// Only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// Section 3.2.2.2.
const REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::Banned,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QosNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::ConnectionRateExceeded,
];

impl<'a> Connack<'a> {
    pub(super) fn read(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let flags = r.u8()?;
        // 3.1 does not use this byte. Later versions: [MQTT-3.2.2-1]
        if flags > 1 && version != Version::V31 {
            return Err(DecodeError::ConnackFlagsReserved);
        }
        let session_present = flags == 1 && version != Version::V31;
        let (reason, properties) = if version.is_v5() {
            // [MQTT-3.2.2-8]
            (read_reason(r, REASONS)?, ConnackProperties::read(r)?)
        } else {
            let reason = from_v3_return_code(r.u8()?).ok_or(DecodeError::ReturnCodeUnknown)?;
            (reason, ConnackProperties::default())
        };
        // [MQTT-3.2.2-6], [MQTT3-3.2.2-4]
        if session_present && reason.is_error() {
            return Err(DecodeError::SessionPresentOnRefusal);
        }
        Ok(Self { session_present, reason, properties })
    }
}

impl Body for Connack<'_> {
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        out.u8(u8::from(self.session_present && version != Version::V31));
        if version.is_v5() {
            out.u8(self.reason.into());
            write_properties(&self.properties, out);
        } else {
            out.u8(v3_return_code(self.reason));
        }
    }
}

impl<'a> ConnackProperties<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        let mut properties = PropertyReader::new(r, Repeatable::User)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiry(value) => this.session_expiry = Some(value),
                Property::ReceiveMaximum(value) => this.receive_maximum = Some(value),
                Property::MaximumQos(value) => this.maximum_qos = Some(value),
                Property::RetainAvailable(value) => this.retain_available = Some(value),
                Property::PacketBytesMax(value) => this.packet_bytes_max = Some(value),
                Property::AssignedClientId(value) => this.assigned_client_id = Some(value),
                Property::TopicAliasMaximum(value) => this.topic_alias_maximum = Some(value),
                Property::ReasonString(value) => this.reason_string = Some(value),
                Property::User(name, value) => this.user.push((name, value)),
                Property::WildcardAvailable(value) => this.wildcard_available = Some(value),
                Property::SubscriptionIdsAvailable(value) => this.subscription_ids_available = Some(value),
                Property::SharedAvailable(value) => this.shared_available = Some(value),
                Property::ServerKeepAlive(value) => this.server_keep_alive = Some(value),
                Property::ResponseInformation(value) => this.response_information = Some(value),
                Property::ServerReference(value) => this.server_reference = Some(value),
                Property::AuthenticationMethod(value) => this.authentication_method = Some(value),
                Property::AuthenticationData(value) => this.authentication_data = Some(value),
                _ => return Err(DecodeError::PropertyMisplaced),
            }
        }
        if this.authentication_data.is_some() && this.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        Ok(this)
    }
}

impl PropertySource for ConnackProperties<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        let fields = [
            self.session_expiry.map(Property::SessionExpiry),
            self.assigned_client_id.map(Property::AssignedClientId),
            self.server_keep_alive.map(Property::ServerKeepAlive),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.reason_string.map(Property::ReasonString),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.maximum_qos.filter(|&qos| qos != QoS::ExactlyOnce).map(Property::MaximumQos),
            self.retain_available.map(Property::RetainAvailable),
            self.packet_bytes_max.map(Property::PacketBytesMax),
            self.wildcard_available.map(Property::WildcardAvailable),
            self.subscription_ids_available.map(Property::SubscriptionIdsAvailable),
            self.shared_available.map(Property::SharedAvailable),
        ];
        fields.into_iter().flatten().for_each(&mut *visit);
        visit_user(&self.user, visit);
    }
}
