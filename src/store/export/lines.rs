//! The lines of an export, version 1 (`docs/store-export.md`), and what they stand for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::{
    codec::{PacketId, QoS, RetainHandling, SubscribeOptions},
    message::{Delivery, Message, MessageProperties, Seq, SessionNo},
    store::record::{SessionRecord, Snapshot, SubscriptionRecord, Target, WillRecord},
    time::{Timeline, Timestamp, WallClock},
    topic::{TopicFilter, TopicName},
};

/// What the first line names.
const FORMAT: &str = "dormouse-store";
/// The version this build writes, and the only one it reads.
const VERSION: u32 = 1;

/// A line. `None` in it is left out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Header(HeaderLine),
    Session(Box<SessionLine>),
    Message(Box<MessageLine>),
    End(EndLine),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderLine {
    format: String,
    version: u32,
    /// Where the broker's time stood.
    broker_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wall_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionLine {
    pub(super) session: SessionNoField,
    client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    inflight_max: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_below: Option<u64>,
    seq_reserved: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    will: Option<WillLine>,
    subscriptions: Vec<SubscriptionLine>,
    inbound_qos2: Vec<u16>,
    received: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WillLine {
    message: BodyLine,
    delay_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry_s: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriptionLine {
    filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageLine {
    message: BodyLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retained_version: Option<u64>,
    targets: Vec<TargetLine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyLine {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    properties: Option<PropertiesLine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PropertiesLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_is_utf8: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    user: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetLine {
    session: SessionNoField,
    seq: u64,
    qos: u8,
    retain: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subscription_ids: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) sessions: u64,
    pub(super) messages: u64,
}

type SessionNoField = std::num::NonZeroU64;

/// Why a line cannot be taken.
type Why = &'static str;

impl HeaderLine {
    pub(super) fn of(timeline: Timeline) -> Self {
        let wall_ms = (timeline.wall != WallClock::UNKNOWN).then_some(timeline.wall.0);
        Self { format: FORMAT.to_owned(), version: VERSION, broker_ms: timeline.at.0, wall_ms }
    }

    pub(super) fn timeline(&self) -> Result<Timeline, Why> {
        if self.format != FORMAT {
            return Err("this is not an export of a store");
        }
        if self.version != VERSION {
            return Err("its version is not known here: import it with the Dormouse that wrote it");
        }
        let wall = self.wall_ms.map_or(WallClock::UNKNOWN, WallClock::believed);
        Ok(Timeline { at: Timestamp(self.broker_ms), wall })
    }
}

impl SessionLine {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let record = &snapshot.record;
        Self {
            session: record.session.0,
            client_id: record.client_id.to_string(),
            user_name: record.user_name.as_deref().map(str::to_owned),
            expiry_ms: finite(record.expiry),
            expires_at_ms: moment(record.expires_at),
            inflight_max: record.inflight_max,
            sent_below: (record.sent_below != Seq::MAX).then_some(record.sent_below.0),
            seq_reserved: record.seq_reserved.0,
            will: record.will.as_ref().map(|will| WillLine {
                message: BodyLine::of(&will.message),
                delay_ms: millis(will.delay),
                due_at_ms: moment(will.due_at),
                expiry_s: will.expiry,
            }),
            subscriptions: snapshot.subscriptions.iter().map(SubscriptionLine::of).collect(),
            inbound_qos2: snapshot.inbound_qos2.iter().map(|id| id.get()).collect(),
            received: snapshot.received.iter().map(|seq| seq.0).collect(),
        }
    }

    pub(super) fn snapshot(self) -> Result<Snapshot, Why> {
        let will = self.will.map(|will| -> Result<_, Why> {
            Ok(WillRecord {
                message: will.message.message()?,
                delay: Duration::from_millis(will.delay_ms),
                due_at: at(will.due_at_ms),
                expiry: will.expiry_s,
            })
        });
        let record = SessionRecord {
            session: SessionNo(self.session),
            client_id: Arc::from(self.client_id),
            expiry: Duration::from_millis(self.expiry_ms.unwrap_or(u64::MAX)),
            expires_at: at(self.expires_at_ms),
            inflight_max: self.inflight_max,
            sent_below: self.sent_below.map_or(Seq::MAX, Seq),
            seq_reserved: Seq(self.seq_reserved),
            will: will.transpose()?.map(Box::new),
            user_name: self.user_name.map(Arc::from),
        };
        let subscriptions = self.subscriptions.into_iter().map(SubscriptionLine::subscription);
        let id = |id: u16| PacketId::new(id).ok_or("a packet id is zero");
        Ok(Snapshot {
            record,
            subscriptions: subscriptions.collect::<Result<_, _>>()?,
            inbound_qos2: self.inbound_qos2.into_iter().map(id).collect::<Result<_, _>>()?,
            received: self.received.into_iter().map(Seq).collect(),
        })
    }
}

impl SubscriptionLine {
    fn of(subscription: &SubscriptionRecord) -> Self {
        let options = subscription.options;
        Self {
            filter: subscription.filter.as_str().to_owned(),
            qos: options.qos as u8,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling as u8,
            id: subscription.subscription_id,
        }
    }

    fn subscription(self) -> Result<SubscriptionRecord, Why> {
        let retain_handling = match self.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err("a retain handling is not 0, 1 or 2"),
        };
        let options = SubscribeOptions {
            qos: qos(self.qos)?,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling,
        };
        Ok(SubscriptionRecord { filter: filter(&self.filter)?, options, subscription_id: self.id })
    }
}

impl MessageLine {
    pub(super) fn of(message: &Message, retained_version: Option<u64>, targets: &[Target]) -> Self {
        let targets = targets.iter().map(TargetLine::of).collect();
        Self { message: BodyLine::of(message), retained_version, targets }
    }

    pub(super) fn parts(self) -> Result<(Message, Option<u64>, Vec<Target>), Why> {
        let targets = self.targets.into_iter().map(TargetLine::target).collect::<Result<_, _>>()?;
        Ok((self.message.message()?, self.retained_version, targets))
    }
}

impl BodyLine {
    fn of(message: &Message) -> Self {
        Self {
            topic: message.topic.as_str().to_owned(),
            payload: BASE64.encode(&message.payload),
            qos: message.qos as u8,
            retain: message.retain,
            expires_at_ms: moment(message.expires_at),
            properties: message.properties.as_deref().map(PropertiesLine::of),
        }
    }

    fn message(self) -> Result<Message, Why> {
        Ok(Message {
            topic: TopicName::parse(&self.topic).map_err(|_| "a topic is not one")?,
            payload: bytes(&self.payload)?,
            qos: qos(self.qos)?,
            retain: self.retain,
            expires_at: at(self.expires_at_ms),
            properties: self.properties.map(|p| p.properties().map(Box::new)).transpose()?,
        })
    }
}

impl PropertiesLine {
    fn of(properties: &MessageProperties) -> Self {
        Self {
            payload_is_utf8: properties.payload_is_utf8,
            response_topic: properties.response_topic.as_deref().map(str::to_owned),
            correlation_data: properties.correlation_data.as_ref().map(|data| BASE64.encode(data)),
            content_type: properties.content_type.as_deref().map(str::to_owned),
            user: properties.user.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        }
    }

    fn properties(self) -> Result<MessageProperties, Why> {
        Ok(MessageProperties {
            payload_is_utf8: self.payload_is_utf8,
            response_topic: self.response_topic.map(Arc::from),
            correlation_data: self.correlation_data.map(|data| bytes(&data)).transpose()?,
            content_type: self.content_type.map(Arc::from),
            user: self.user.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
        })
    }
}

impl TargetLine {
    fn of(target: &Target) -> Self {
        Self {
            session: target.session.0,
            seq: target.seq.0,
            qos: target.delivery.qos as u8,
            retain: target.delivery.retain,
            subscription_ids: target.delivery.subscription_ids.clone(),
            group: target.group.as_ref().map(|group| group.as_str().to_owned()),
        }
    }

    fn target(self) -> Result<Target, Why> {
        let delivery =
            Delivery { qos: qos(self.qos)?, retain: self.retain, subscription_ids: self.subscription_ids };
        if delivery.qos == QoS::AtMostOnce {
            return Err("a target has QoS 0, which is not kept");
        }
        let group = self.group.map(|group| filter(&group)).transpose()?;
        Ok(Target { session: SessionNo(self.session), seq: Seq(self.seq), delivery, group })
    }
}

/// A moment on the broker's time line; none if it never comes.
fn moment(at: Timestamp) -> Option<u64> {
    (at != Timestamp::NEVER).then_some(at.0)
}

fn at(moment: Option<u64>) -> Timestamp {
    moment.map_or(Timestamp::NEVER, Timestamp)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// A duration; none if it never ends.
fn finite(d: Duration) -> Option<u64> {
    Some(millis(d)).filter(|ms| *ms != u64::MAX)
}

fn bytes(text: &str) -> Result<Bytes, Why> {
    BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(|_| "what should be base64 is not")
}

fn filter(text: &str) -> Result<TopicFilter, Why> {
    TopicFilter::parse(text).map_err(|_| "a topic filter is not one")
}

fn qos(level: u8) -> Result<QoS, Why> {
    match level {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err("a QoS is not 0, 1 or 2"),
    }
}
