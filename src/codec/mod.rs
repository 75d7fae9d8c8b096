//! MQTT 3.1, 3.1.1 and 5.0: bytes <-> packets. (API contract; bodies come from the codec work.)
#![allow(missing_docs)]
use std::num::NonZeroU16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    V31,
    V311,
    V5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);
impl PacketId {
    pub fn new(id: u16) -> Option<Self> {
        NonZeroU16::new(id).map(Self)
    }
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// All v5 reason codes; 0x00 has the three names Success/NormalDisconnection/GrantedQos0 in the standard: one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    Success = 0x00,
    GrantedQos1 = 0x01,
    GrantedQos2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QosNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

pub type UserProperties<'a> = Vec<(&'a str, &'a str)>;

/// Every packet type. v3 packets leave the v5-only fields at their defaults.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    Connect(Box<Connect<'a>>),
    Connack(Box<Connack<'a>>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Suback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    pub version: Version,
    pub client_id: &'a str,
    /// v3: clean session; v5: clean start.
    pub clean_start: bool,
    /// Seconds; 0 switches it off.
    pub keep_alive: u16,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: ConnectProperties<'a>,
}
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectProperties<'a> {
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub packet_bytes_max: Option<u32>,
    pub topic_alias_maximum: Option<u16>,
    pub request_response_information: Option<bool>,
    pub request_problem_information: Option<bool>,
    pub user: UserProperties<'a>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// Seconds.
    pub delay: Option<u32>,
    /// `topic_alias` and `subscription_ids` stay empty here.
    pub properties: PublishProperties<'a>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Connack<'a> {
    pub session_present: bool,
    /// v5 reason code. For v3 the encoder maps it to return codes 1..=5 (`v3_return_code`).
    pub reason: ReasonCode,
    pub properties: ConnackProperties<'a>,
}
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnackProperties<'a> {
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub packet_bytes_max: Option<u32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub wildcard_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only in v5 with a topic alias.
    pub topic: &'a str,
    /// `Some` exactly when qos > 0.
    pub packet_id: Option<PacketId>,
    pub properties: PublishProperties<'a>,
    pub payload: &'a [u8],
}
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// Payload format indicator: Some(true) is UTF-8.
    pub payload_is_utf8: Option<bool>,
    /// Seconds.
    pub message_expiry: Option<u32>,
    pub topic_alias: Option<NonZeroU16>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    pub content_type: Option<&'a str>,
    pub subscription_ids: Vec<u32>,
    pub user: UserProperties<'a>,
}
/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    pub packet_id: PacketId,
    pub reason: ReasonCode,
    pub properties: ReasonProperties<'a>,
}
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReasonProperties<'a> {
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    pub packet_id: PacketId,
    pub subscription_id: Option<u32>,
    pub user: UserProperties<'a>,
    pub filters: Vec<SubscribeFilter<'a>>,
}
/// `filter` is a well-formed MQTT string, not yet a valid topic filter: the broker parses it and answers 0x8F.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    pub filter: &'a str,
    pub options: SubscribeOptions,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    Send = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

/// SUBACK and UNSUBACK; a v3 UNSUBACK has no reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Suback<'a> {
    pub packet_id: PacketId,
    pub reasons: Vec<ReasonCode>,
    pub properties: ReasonProperties<'a>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    pub packet_id: PacketId,
    pub user: UserProperties<'a>,
    pub filters: Vec<&'a str>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    pub reason: ReasonCode,
    pub properties: DisconnectProperties<'a>,
}
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DisconnectProperties<'a> {
    pub session_expiry: Option<u32>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub server_reference: Option<&'a str>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub method: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    pub properties: ReasonProperties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("malformed packet")]
    Malformed,
}
impl DecodeError {
    pub fn reason(self) -> ReasonCode {
        ReasonCode::MalformedPacket
    }
}

/// `Ok(None)`: incomplete. `Ok(Some((packet, bytes used)))`. The size limit is checked as soon as the fixed header is known.
pub fn decode(
    _input: &[u8],
    _version: Version,
    _packet_bytes_max: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    Ok(None)
}

impl Packet<'_> {
    pub fn encode(&self, _version: Version, _out: &mut Vec<u8>) {}
    pub fn encoded_len(&self, _version: Version) -> usize {
        0
    }
}
impl Publish<'_> {
    pub fn encode(&self, _version: Version, _out: &mut Vec<u8>) {}
    pub fn encoded_len(&self, _version: Version) -> usize {
        0
    }
}
