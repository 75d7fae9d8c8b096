//! Reason codes of 5.0, and the return codes 3.1 and 3.1.1 have in their place.

use std::fmt;

use super::qos::QoS;

/// How an operation ended (5.0, section 2.4). 0x00 has three names in the standard and one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success; also called "normal disconnection" (DISCONNECT) and "granted `QoS` 0" (SUBACK).
    Success = 0x00,
    /// SUBACK: granted `QoS` 1.
    GrantedQos1 = 0x01,
    /// SUBACK: granted `QoS` 2.
    GrantedQos2 = 0x02,
    /// DISCONNECT: the client leaves, and its will is to be published.
    DisconnectWithWill = 0x04,
    /// PUBACK, PUBREC: accepted, but nobody is subscribed.
    NoMatchingSubscribers = 0x10,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// AUTH: another step follows.
    ContinueAuthentication = 0x18,
    /// AUTH: the client starts again.
    ReAuthenticate = 0x19,
    /// Refused, for a reason that is not given; the only failure a v3 SUBACK knows.
    UnspecifiedError = 0x80,
    /// The packet could not be parsed.
    MalformedPacket = 0x81,
    /// The packet could be parsed, and is not allowed.
    ProtocolError = 0x82,
    /// Valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83,
    /// CONNACK: not a version of the protocol that is served.
    UnsupportedProtocolVersion = 0x84,
    /// CONNACK: the client id is well-formed, but not accepted.
    ClientIdentifierNotValid = 0x85,
    /// CONNACK: not accepted.
    BadUserNameOrPassword = 0x86,
    /// Not allowed to do this.
    NotAuthorized = 0x87,
    /// CONNACK: not available.
    ServerUnavailable = 0x88,
    /// Busy; try again later.
    ServerBusy = 0x89,
    /// CONNACK: banned by an administrator.
    Banned = 0x8A,
    /// DISCONNECT: the server ends.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported, or not the one in use.
    BadAuthenticationMethod = 0x8C,
    /// DISCONNECT: nothing was heard for one and a half times the keep alive.
    KeepAliveTimeout = 0x8D,
    /// DISCONNECT: another connection has come with the same client id.
    SessionTakenOver = 0x8E,
    /// The topic filter is well-formed, but not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is well-formed, but not accepted.
    TopicNameInvalid = 0x90,
    /// The packet id is in use.
    PacketIdentifierInUse = 0x91,
    /// PUBREL, PUBCOMP: no such packet id is known.
    PacketIdentifierNotFound = 0x92,
    /// DISCONNECT: more unconfirmed messages than the receive maximum.
    ReceiveMaximumExceeded = 0x93,
    /// DISCONNECT: the topic alias is zero, unknown, or above the maximum.
    TopicAliasInvalid = 0x94,
    /// Larger than the maximum packet size.
    PacketTooLarge = 0x95,
    /// DISCONNECT: too many messages in too little time.
    MessageRateTooHigh = 0x96,
    /// A limit of the implementation or the administrator is reached.
    QuotaExceeded = 0x97,
    /// DISCONNECT: closed by an administrator.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A,
    /// A `QoS` above the maximum announced in CONNACK.
    QosNotSupported = 0x9B,
    /// Use another server for now.
    UseAnotherServer = 0x9C,
    /// Use another server from now on.
    ServerMoved = 0x9D,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Too many connections in too little time.
    ConnectionRateExceeded = 0x9F,
    /// DISCONNECT: the time this connection was allowed is over.
    MaximumConnectTime = 0xA0,
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

/// A number that is no reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("0x{0:02X} is no reason code")]
pub struct UnknownReasonCode(pub u8);

impl ReasonCode {
    /// Whether the operation failed: codes from 0x80 on.
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// What a granted quality of service is called in SUBACK.
    pub fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::Success,
            QoS::AtLeastOnce => Self::GrantedQos1,
            QoS::ExactlyOnce => Self::GrantedQos2,
        }
    }
}

impl TryFrom<u8> for ReasonCode {
    type Error = UnknownReasonCode;

    fn try_from(number: u8) -> Result<Self, UnknownReasonCode> {
        Ok(match number {
            0x00 => Self::Success,
            0x01 => Self::GrantedQos1,
            0x02 => Self::GrantedQos2,
            0x04 => Self::DisconnectWithWill,
            0x10 => Self::NoMatchingSubscribers,
            0x11 => Self::NoSubscriptionExisted,
            0x18 => Self::ContinueAuthentication,
            0x19 => Self::ReAuthenticate,
            0x80 => Self::UnspecifiedError,
            0x81 => Self::MalformedPacket,
            0x82 => Self::ProtocolError,
            0x83 => Self::ImplementationSpecificError,
            0x84 => Self::UnsupportedProtocolVersion,
            0x85 => Self::ClientIdentifierNotValid,
            0x86 => Self::BadUserNameOrPassword,
            0x87 => Self::NotAuthorized,
            0x88 => Self::ServerUnavailable,
            0x89 => Self::ServerBusy,
            0x8A => Self::Banned,
            0x8B => Self::ServerShuttingDown,
            0x8C => Self::BadAuthenticationMethod,
            0x8D => Self::KeepAliveTimeout,
            0x8E => Self::SessionTakenOver,
            0x8F => Self::TopicFilterInvalid,
            0x90 => Self::TopicNameInvalid,
            0x91 => Self::PacketIdentifierInUse,
            0x92 => Self::PacketIdentifierNotFound,
            0x93 => Self::ReceiveMaximumExceeded,
            0x94 => Self::TopicAliasInvalid,
            0x95 => Self::PacketTooLarge,
            0x96 => Self::MessageRateTooHigh,
            0x97 => Self::QuotaExceeded,
            0x98 => Self::AdministrativeAction,
            0x99 => Self::PayloadFormatInvalid,
            0x9A => Self::RetainNotSupported,
            0x9B => Self::QosNotSupported,
            0x9C => Self::UseAnotherServer,
            0x9D => Self::ServerMoved,
            0x9E => Self::SharedSubscriptionsNotSupported,
            0x9F => Self::ConnectionRateExceeded,
            0xA0 => Self::MaximumConnectTime,
            0xA1 => Self::SubscriptionIdentifiersNotSupported,
            0xA2 => Self::WildcardSubscriptionsNotSupported,
            other => return Err(UnknownReasonCode(other)),
        })
    }
}

impl From<ReasonCode> for u8 {
    fn from(reason: ReasonCode) -> Self {
        reason as u8
    }
}

/// The number and the name, for logs: `0x97 QuotaExceeded`.
impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {self:?}", u8::from(*self))
    }
}

/// The return code of a v3 CONNACK (3.1.1, table 3.1): 0 accepted, 1 protocol version, 2 client id, 3 server
/// unavailable, 4 user name or password, 5 not authorised. Refusals that v3 has no code for are "server unavailable",
/// the one that invites the client to come again.
pub fn v3_return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdentifierNotValid => 2,
        ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => 4,
        ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
        other if other.is_error() => 3,
        _ => 0,
    }
}

/// The nearest reason code to a v3 return code; `None` for the reserved ones.
pub(super) fn from_v3_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}
