//! CONNECT (section 3.1): the client introduces itself.

use std::num::NonZeroU16;

use super::{Body, publish::PublishProperties};
use crate::codec::{
    error::DecodeError,
    primitive::{Reader, Sink},
    property::{
        Property, PropertyReader, PropertySource, Repeatable, UserProperties, has_wildcard, visit_user,
        write_properties,
    },
    qos::QoS,
    version::Version,
};

/// A client's first packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// What the client speaks, and how this packet is encoded.
    pub version: Version,
    /// May be empty; whether that is accepted is for the broker to say, as is 3.1's limit of 23 characters.
    pub client_id: &'a str,
    /// v3: clean session; v5: clean start.
    pub clean_start: bool,
    /// Seconds; 0 switches it off.
    pub keep_alive: u16,
    /// What is published when the client goes without saying good-bye.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Any bytes. In v3 only with a user name.
    pub password: Option<&'a [u8]>,
    /// v5 only.
    pub properties: ConnectProperties<'a>,
}

/// Properties of CONNECT (section 3.1.2.11).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Seconds the session outlives the connection; `None` is 0, `u32::MAX` is for ever.
    pub session_expiry: Option<u32>,
    /// How many unconfirmed `QoS` > 0 messages the client takes at a time; `None` is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Largest packet the client takes; `None` is no limit. Not zero.
    pub packet_bytes_max: Option<u32>,
    /// Highest topic alias the client takes; `None` is 0, none at all.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client asks for response information in CONNACK; `None` is no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings and user properties may be sent on failure; `None` is yes.
    pub request_problem_information: Option<bool>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Name of the extended authentication; `None` is none.
    pub authentication_method: Option<&'a str>,
    /// Only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// A will (section 3.1.2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    /// Not empty, without wildcards.
    pub topic: &'a str,
    /// Any bytes, up to 65,535.
    pub payload: &'a [u8],
    /// Quality of service it is published with.
    pub qos: QoS,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// Seconds between the end of the connection and the will; `None` is 0. v5 only.
    pub delay: Option<u32>,
    /// `topic_alias` and `subscription_ids` stay empty here, and are not encoded. v5 only.
    pub properties: PublishProperties<'a>,
}

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

impl<'a> Connect<'a> {
    /// One that continues the session of this client, if there is one, and has nothing that may be left out: no keep alive,
    /// will, login or properties.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            client_id,
            clean_start: false,
            keep_alive: 0,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let version = read_version(r)?;
        let flags = ConnectFlags::read(r, version)?;
        let keep_alive = r.u16()?;
        let properties =
            if version.is_v5() { ConnectProperties::read(r)? } else { ConnectProperties::default() };
        let client_id = r.string()?;
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::read(r, version, qos, retain)?),
            None => None,
        };
        // 3.1 lets the remaining length rule: a client may set the flag and leave the field out.
        let left_out = |r: &Reader<'_>| version == Version::V31 && r.is_empty();
        let user_name = if flags.user_name && !left_out(r) { Some(r.string()?) } else { None };
        let password = if flags.password && !left_out(r) { Some(r.binary()?) } else { None };
        Ok(Self {
            version,
            client_id,
            clean_start: flags.clean_start,
            keep_alive,
            will,
            user_name,
            password,
            properties,
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | u8::from(will.qos) << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        flags
    }
}

/// Goes by the packet's own version.
impl Body for Connect<'_> {
    fn write_body(&self, _version: Version, out: &mut impl Sink) {
        out.string(self.version.protocol_name());
        out.u8(self.version.protocol_level());
        out.u8(self.flags());
        out.u16(self.keep_alive);
        if self.version.is_v5() {
            write_properties(&self.properties, out);
        }
        out.string(self.client_id);
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                write_properties(&WillProperties(will), out);
            }
            out.string(will.topic);
            out.binary(will.payload);
        }
        if let Some(user_name) = self.user_name {
            out.string(user_name);
        }
        if let Some(password) = self.password {
            out.binary(password);
        }
    }
}

impl<'a> ConnectProperties<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        let mut properties = PropertyReader::new(r, Repeatable::User)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiry(value) => this.session_expiry = Some(value),
                Property::ReceiveMaximum(value) => this.receive_maximum = Some(value),
                Property::PacketBytesMax(value) => this.packet_bytes_max = Some(value),
                Property::TopicAliasMaximum(value) => this.topic_alias_maximum = Some(value),
                Property::RequestResponseInformation(value) => {
                    this.request_response_information = Some(value);
                }
                Property::RequestProblemInformation(value) => this.request_problem_information = Some(value),
                Property::User(name, value) => this.user.push((name, value)),
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

impl PropertySource for ConnectProperties<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        let fields = [
            self.session_expiry.map(Property::SessionExpiry),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
            self.request_problem_information.map(Property::RequestProblemInformation),
            self.request_response_information.map(Property::RequestResponseInformation),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.packet_bytes_max.map(Property::PacketBytesMax),
        ];
        fields.into_iter().flatten().for_each(&mut *visit);
        visit_user(&self.user, visit);
    }
}

impl<'a> Will<'a> {
    fn read(r: &mut Reader<'a>, version: Version, qos: QoS, retain: bool) -> Result<Self, DecodeError> {
        let (delay, properties) = if version.is_v5() { read_will_properties(r)? } else { Default::default() };
        let topic = r.string()?;
        // [MQTT-4.7.3-1], [MQTT-3.3.2-2]
        if topic.is_empty() || has_wildcard(topic) {
            return Err(DecodeError::WillTopicInvalid);
        }
        Ok(Self { topic, payload: r.binary()?, qos, retain, delay, properties })
    }
}

/// The delay, and what goes into the will message.
fn read_will_properties<'a>(r: &mut Reader<'a>) -> Result<(Option<u32>, PublishProperties<'a>), DecodeError> {
    let mut delay = None;
    let mut this = PublishProperties::default();
    let mut properties = PropertyReader::new(r, Repeatable::User)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::WillDelay(value) => delay = Some(value),
            Property::PayloadIsUtf8(value) => this.payload_is_utf8 = Some(value),
            Property::MessageExpiry(value) => this.message_expiry = Some(value),
            Property::ContentType(value) => this.content_type = Some(value),
            Property::ResponseTopic(value) => this.response_topic = Some(value),
            Property::CorrelationData(value) => this.correlation_data = Some(value),
            Property::User(name, value) => this.user.push((name, value)),
            _ => return Err(DecodeError::PropertyMisplaced),
        }
    }
    Ok((delay, this))
}

struct WillProperties<'w>(&'w Will<'w>);

impl PropertySource for WillProperties<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(delay) = self.0.delay {
            visit(Property::WillDelay(delay));
        }
        self.0.properties.visit_message(visit);
    }
}

/// Protocol name and level.
pub(in crate::codec) fn read_version(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = r.binary()?;
    let level = r.u8()?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        // [MQTT-3.1.2-2]
        (b"MQIsdp" | b"MQTT", _) => Err(DecodeError::UnsupportedProtocolVersion),
        // [MQTT-3.1.2-1]
        _ => Err(DecodeError::UnknownProtocolName),
    }
}

/// Which parts follow (section 3.1.2.3).
struct ConnectFlags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    user_name: bool,
    password: bool,
}

impl ConnectFlags {
    fn read(r: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let flags = r.u8()?;
        let has = |flag| flags & flag != 0;
        // [MQTT-3.1.2-3]
        if has(0b0000_0001) {
            return Err(DecodeError::ConnectFlagReserved);
        }
        // [MQTT-3.1.2-12]
        let will_qos = QoS::try_from(flags >> WILL_QOS_SHIFT & 0b11).map_err(|_| DecodeError::WillQos3)?;
        let will_retain = has(WILL_RETAIN);
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        if !has(WILL) && (will_qos != QoS::AtMostOnce || will_retain) {
            return Err(DecodeError::WillFlagsWithoutWill);
        }
        // [MQTT3-3.1.2-22]; 5.0 allows a password alone (section 3.1.2.9).
        if has(PASSWORD) && !has(USER_NAME) && !version.is_v5() {
            return Err(DecodeError::PasswordWithoutUserName);
        }
        Ok(Self {
            clean_start: has(CLEAN_START),
            will: has(WILL).then_some((will_qos, will_retain)),
            user_name: has(USER_NAME),
            password: has(PASSWORD),
        })
    }
}
