//! Packets as a test writes them down: owned, with what tests ask about, and short to say.

use std::num::NonZeroU16;

use dormouse::codec::{
    Ack, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet,
    PacketId, Publish, PublishProperties, QoS, ReasonCode, ReasonProperties, RetainHandling, Suback,
    Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Version, Will,
};

/// Any packet that a test sends or expects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Spec {
    Connect(Box<Connecting>),
    Connack { session_present: bool, reason: ReasonCode },
    Publish(Publishing),
    Ack(AckKind, u16, ReasonCode),
    Subscribe(Subscribing),
    Suback(u16, Vec<ReasonCode>),
    Unsubscribe(u16, Vec<String>),
    Unsuback(u16, Vec<ReasonCode>),
    Pingreq,
    Pingresp,
    Disconnect(ReasonCode),
    Auth(ReasonCode),
}

/// The four packets that acknowledge a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// A CONNECT: a clean session, no keep alive, no will, until told otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Connecting {
    client_id: String,
    is_clean: bool,
    keep_alive: u16,
    login: Option<(String, Vec<u8>)>,
    will: Option<Publishing>,
    will_delay: Option<u32>,
    session_expiry: Option<u32>,
    receive_maximum: Option<u16>,
    packet_bytes_max: Option<u32>,
    topic_alias_maximum: Option<u16>,
    problem_information: Option<bool>,
    response_information: Option<bool>,
    authentication: Option<(String, Option<Vec<u8>>)>,
}

/// A PUBLISH: QoS 0, not retained, no properties, until told otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Publishing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    /// Zero with QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) payload_is_utf8: Option<bool>,
    pub(crate) message_expiry: Option<u32>,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation_data: Option<Vec<u8>>,
    pub(crate) content_type: Option<String>,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) user: Vec<(String, String)>,
}

/// A SUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscribing {
    packet_id: u16,
    subscription_id: Option<u32>,
    filters: Vec<(String, SubscribeOptions)>,
}

pub(crate) fn connect(client_id: &str) -> Connecting {
    Connecting {
        client_id: client_id.to_owned(),
        is_clean: true,
        keep_alive: 0,
        login: None,
        will: None,
        will_delay: None,
        session_expiry: None,
        receive_maximum: None,
        packet_bytes_max: None,
        topic_alias_maximum: None,
        problem_information: None,
        response_information: None,
        authentication: None,
    }
}

impl Connecting {
    /// Continues a session, and keeps it: for an hour in v5.
    pub(crate) fn persistent(mut self) -> Self {
        self.is_clean = false;
        self.session_expiry = self.session_expiry.or(Some(3600));
        self
    }

    /// In seconds; v5 only.
    pub(crate) fn session_expiry(mut self, seconds: u32) -> Self {
        self.session_expiry = Some(seconds);
        self
    }

    /// In seconds.
    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn login(mut self, user_name: &str, password: &str) -> Self {
        self.login = Some((user_name.to_owned(), password.as_bytes().to_vec()));
        self
    }

    pub(crate) fn will(mut self, will: Publishing) -> Self {
        self.will = Some(will);
        self
    }

    /// In seconds; v5 only.
    pub(crate) fn will_delay(mut self, seconds: u32) -> Self {
        self.will_delay = Some(seconds);
        self
    }

    /// v5 only, as are the next two.
    pub(crate) fn receive_maximum(mut self, messages: u16) -> Self {
        self.receive_maximum = Some(messages);
        self
    }

    pub(crate) fn packet_bytes_max(mut self, bytes: u32) -> Self {
        self.packet_bytes_max = Some(bytes);
        self
    }

    pub(crate) fn topic_alias_maximum(mut self, aliases: u16) -> Self {
        self.topic_alias_maximum = Some(aliases);
        self
    }

    /// Asks for reason strings, or for none; v5 only.
    pub(crate) fn problem_information(mut self, asked: bool) -> Self {
        self.problem_information = Some(asked);
        self
    }

    /// Asks where to expect answers; v5 only.
    pub(crate) fn response_information(mut self, asked: bool) -> Self {
        self.response_information = Some(asked);
        self
    }

    /// Names an authentication method, with the client's first data; v5 only.
    pub(crate) fn authentication(mut self, method: &str, data: Option<&[u8]>) -> Self {
        self.authentication = Some((method.to_owned(), data.map(<[u8]>::to_vec)));
        self
    }

    fn packet(&self, version: Version) -> Connect<'_> {
        let will = self.will.as_ref().map(|will| Will {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            delay: self.will_delay,
            properties: will.properties(),
        });
        let properties = ConnectProperties {
            session_expiry: self.session_expiry,
            receive_maximum: self.receive_maximum.and_then(NonZeroU16::new),
            packet_bytes_max: self.packet_bytes_max,
            topic_alias_maximum: self.topic_alias_maximum,
            request_problem_information: self.problem_information,
            request_response_information: self.response_information,
            authentication_method: self.authentication.as_ref().map(|(method, _)| method.as_str()),
            authentication_data: self.authentication.as_ref().and_then(|(_, data)| data.as_deref()),
            ..ConnectProperties::default()
        };
        Connect {
            version,
            client_id: &self.client_id,
            clean_start: self.is_clean,
            keep_alive: self.keep_alive,
            will,
            user_name: self.login.as_ref().map(|(name, _)| name.as_str()),
            password: self.login.as_ref().map(|(_, password)| password.as_slice()),
            properties,
        }
    }
}

/// Session present is 0 until told otherwise.
pub(crate) fn connack(reason: ReasonCode) -> Spec {
    Spec::Connack { session_present: false, reason }
}

/// The CONNACK of a session that was continued.
pub(crate) fn connack_present() -> Spec {
    Spec::Connack { session_present: true, reason: ReasonCode::Success }
}

pub(crate) fn publish(topic: &str, payload: impl AsRef<[u8]>) -> Publishing {
    Publishing {
        topic: topic.to_owned(),
        payload: payload.as_ref().to_vec(),
        qos: QoS::AtMostOnce,
        packet_id: 0,
        retain: false,
        dup: false,
        payload_is_utf8: None,
        message_expiry: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: None,
        content_type: None,
        subscription_ids: Vec::new(),
        user: Vec::new(),
    }
}

impl Publishing {
    pub(crate) fn qos1(self, packet_id: u16) -> Self {
        Self { qos: QoS::AtLeastOnce, packet_id, ..self }
    }

    pub(crate) fn qos2(self, packet_id: u16) -> Self {
        Self { qos: QoS::ExactlyOnce, packet_id, ..self }
    }

    pub(crate) fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    pub(crate) fn dup(self) -> Self {
        Self { dup: true, ..self }
    }

    fn properties(&self) -> PublishProperties<'_> {
        PublishProperties {
            payload_is_utf8: self.payload_is_utf8,
            message_expiry: self.message_expiry,
            topic_alias: self.topic_alias.and_then(NonZeroU16::new),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            content_type: self.content_type.as_deref(),
            subscription_ids: self.subscription_ids.clone(),
            user: self.user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }

    fn packet(&self) -> Publish<'_> {
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: PacketId::new(self.packet_id),
            properties: self.properties(),
            payload: &self.payload,
        }
    }
}

impl From<&Publish<'_>> for Publishing {
    fn from(packet: &Publish<'_>) -> Self {
        let properties = &packet.properties;
        Self {
            topic: packet.topic.to_owned(),
            payload: packet.payload.to_vec(),
            qos: packet.qos,
            packet_id: packet.packet_id.map_or(0, PacketId::get),
            retain: packet.retain,
            dup: packet.dup,
            payload_is_utf8: properties.payload_is_utf8,
            message_expiry: properties.message_expiry,
            topic_alias: properties.topic_alias.map(NonZeroU16::get),
            response_topic: properties.response_topic.map(str::to_owned),
            correlation_data: properties.correlation_data.map(<[u8]>::to_vec),
            content_type: properties.content_type.map(str::to_owned),
            subscription_ids: properties.subscription_ids.clone(),
            user: properties.user.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

pub(crate) fn puback(packet_id: u16) -> Spec {
    Spec::Ack(AckKind::Puback, packet_id, ReasonCode::Success)
}

pub(crate) fn pubrec(packet_id: u16) -> Spec {
    Spec::Ack(AckKind::Pubrec, packet_id, ReasonCode::Success)
}

pub(crate) fn pubrel(packet_id: u16) -> Spec {
    Spec::Ack(AckKind::Pubrel, packet_id, ReasonCode::Success)
}

pub(crate) fn pubcomp(packet_id: u16) -> Spec {
    Spec::Ack(AckKind::Pubcomp, packet_id, ReasonCode::Success)
}

pub(crate) fn subscribe(packet_id: u16, filter: &str, qos: QoS) -> Subscribing {
    Subscribing { packet_id, subscription_id: None, filters: Vec::new() }.and(filter, qos)
}

impl Subscribing {
    /// One more filter.
    pub(crate) fn and(self, filter: &str, qos: QoS) -> Self {
        let retain_handling = RetainHandling::Send;
        self.and_with(
            filter,
            SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling },
        )
    }

    /// One more filter with v5 options.
    pub(crate) fn and_with(mut self, filter: &str, options: SubscribeOptions) -> Self {
        self.filters.push((filter.to_owned(), options));
        self
    }

    /// v5 only.
    pub(crate) fn subscription_id(mut self, id: u32) -> Self {
        self.subscription_id = Some(id);
        self
    }
}

/// A SUBSCRIBE with one filter and v5 options.
pub(crate) fn subscribe_with(packet_id: u16, filter: &str, options: SubscribeOptions) -> Subscribing {
    Subscribing { packet_id, subscription_id: None, filters: Vec::new() }.and_with(filter, options)
}

pub(crate) fn suback(packet_id: u16, reasons: impl IntoIterator<Item = ReasonCode>) -> Spec {
    Spec::Suback(packet_id, reasons.into_iter().collect())
}

pub(crate) fn unsubscribe(packet_id: u16, filter: &str) -> Spec {
    Spec::Unsubscribe(packet_id, vec![filter.to_owned()])
}

/// v3 has no reasons.
pub(crate) fn unsuback(packet_id: u16, reasons: impl IntoIterator<Item = ReasonCode>) -> Spec {
    Spec::Unsuback(packet_id, reasons.into_iter().collect())
}

pub(crate) fn disconnect() -> Spec {
    Spec::Disconnect(ReasonCode::Success)
}

impl Spec {
    /// The same with a reason other than success.
    pub(crate) fn because(self, reason: ReasonCode) -> Self {
        match self {
            Self::Ack(kind, packet_id, _) => Self::Ack(kind, packet_id, reason),
            Self::Disconnect(_) => Self::Disconnect(reason),
            other => panic!("has no reason: {other:?}"),
        }
    }

    /// Lends the packet as the codec has it.
    pub(super) fn with_packet(&self, version: Version, use_it: impl FnOnce(&Packet<'_>)) {
        let properties = ReasonProperties::default();
        let packet = match self {
            Self::Connect(connecting) => connecting.packet(version).into(),
            &Self::Connack { session_present, reason } => {
                Connack { session_present, reason, properties: ConnackProperties::default() }.into()
            }
            Self::Publish(publishing) => Packet::Publish(publishing.packet()),
            &Self::Ack(kind, packet_id, reason) => {
                let ack = Ack { packet_id: id(packet_id), reason, properties };
                match kind {
                    AckKind::Puback => Packet::Puback(ack),
                    AckKind::Pubrec => Packet::Pubrec(ack),
                    AckKind::Pubrel => Packet::Pubrel(ack),
                    AckKind::Pubcomp => Packet::Pubcomp(ack),
                }
            }
            Self::Subscribe(subscribing) => Packet::Subscribe(Subscribe {
                packet_id: id(subscribing.packet_id),
                subscription_id: subscribing.subscription_id,
                user: Vec::new(),
                filters: subscribing
                    .filters
                    .iter()
                    .map(|(filter, options)| SubscribeFilter { filter, options: *options })
                    .collect(),
            }),
            Self::Suback(packet_id, reasons) => {
                Packet::Suback(Suback { packet_id: id(*packet_id), reasons: reasons.clone(), properties })
            }
            Self::Unsubscribe(packet_id, filters) => Packet::Unsubscribe(Unsubscribe {
                packet_id: id(*packet_id),
                user: Vec::new(),
                filters: filters.iter().map(String::as_str).collect(),
            }),
            Self::Unsuback(packet_id, reasons) => {
                Packet::Unsuback(Suback { packet_id: id(*packet_id), reasons: reasons.clone(), properties })
            }
            Self::Pingreq => Packet::Pingreq,
            Self::Pingresp => Packet::Pingresp,
            &Self::Disconnect(reason) => {
                Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() })
            }
            Self::Auth(_) => panic!("an AUTH is sent as bytes"),
        };
        use_it(&packet);
    }
}

impl From<&Packet<'_>> for Spec {
    fn from(packet: &Packet<'_>) -> Self {
        let ack = |kind, ack: &Ack<'_>| Self::Ack(kind, ack.packet_id.get(), ack.reason);
        match packet {
            Packet::Connack(p) => Self::Connack { session_present: p.session_present, reason: p.reason },
            Packet::Publish(p) => Self::Publish(p.into()),
            Packet::Puback(p) => ack(AckKind::Puback, p),
            Packet::Pubrec(p) => ack(AckKind::Pubrec, p),
            Packet::Pubrel(p) => ack(AckKind::Pubrel, p),
            Packet::Pubcomp(p) => ack(AckKind::Pubcomp, p),
            Packet::Suback(p) => Self::Suback(p.packet_id.get(), p.reasons.clone()),
            Packet::Unsuback(p) => Self::Unsuback(p.packet_id.get(), p.reasons.clone()),
            Packet::Pingreq => Self::Pingreq,
            Packet::Pingresp => Self::Pingresp,
            Packet::Disconnect(p) => Self::Disconnect(p.reason),
            Packet::Auth(p) => Self::Auth(p.reason),
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) => {
                panic!("a broker does not send this: {packet:?}")
            }
        }
    }
}

impl From<Connecting> for Spec {
    fn from(connecting: Connecting) -> Self {
        Self::Connect(Box::new(connecting))
    }
}

impl From<Publishing> for Spec {
    fn from(publishing: Publishing) -> Self {
        Self::Publish(publishing)
    }
}

impl From<Subscribing> for Spec {
    fn from(subscribing: Subscribing) -> Self {
        Self::Subscribe(subscribing)
    }
}

/// What an answer says to people, and that it says nothing else to them.
pub(super) fn reason_string(packet: &Packet<'_>) -> Option<String> {
    let (reason, user) = match packet {
        Packet::Connack(p) => (p.properties.reason_string, &p.properties.user),
        Packet::Puback(p) | Packet::Pubrec(p) | Packet::Pubrel(p) | Packet::Pubcomp(p) => {
            (p.properties.reason_string, &p.properties.user)
        }
        Packet::Suback(p) | Packet::Unsuback(p) => (p.properties.reason_string, &p.properties.user),
        Packet::Disconnect(p) => (p.properties.reason_string, &p.properties.user),
        Packet::Auth(p) => (p.properties.reason_string, &p.properties.user),
        other => panic!("has no reason: {other:?}"),
    };
    assert!(user.is_empty(), "{packet:?}");
    reason.map(str::to_owned)
}

fn id(packet_id: u16) -> PacketId {
    PacketId::new(packet_id).expect("packet ids of tests are not zero; send_bytes sends what is wrong")
}
