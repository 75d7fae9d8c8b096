//! What of MQTT this broker offers. What is switched off is announced in CONNACK, and its use is refused.

use std::sync::Arc;

use crate::{
    codec::{ConnackProperties, Publish, PublishProperties, QoS, ReasonCode, Subscribe, Will},
    session::Verdict,
    topic::TopicFilter,
};

/// Everything is on by default, but for what costs every message something, or has to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each with a key of its own")]
pub struct Features {
    /// The highest QoS a client may publish with. A subscription that asks for more is granted this one. Default 2.
    pub qos_max: QoS,
    /// Retained messages. Those that are there already stay, and are given to nobody while this is off.
    pub retain: bool,
    /// Topic filters with `+` or `#`. Subscriptions of before stay, as with the next one.
    pub wildcard_subscriptions: bool,
    /// Topic filters that begin with `$share/`.
    pub shared_subscriptions: bool,
    /// Subscription identifiers (v5).
    pub subscription_ids: bool,
    /// Whether a payload is looked at that is declared to be UTF-8 (v5). Default no: it costs a walk over each of them.
    pub payload_format_checked: bool,
    /// Where a client may expect answers, told to those that ask for it (v5): a topic prefix, in which `%c` stands for the
    /// client identifier. Default none.
    pub response_topic_prefix: Option<Arc<str>>,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            qos_max: QoS::ExactlyOnce,
            retain: true,
            wildcard_subscriptions: true,
            shared_subscriptions: true,
            subscription_ids: true,
            payload_format_checked: false,
            response_topic_prefix: None,
        }
    }
}

const QOS: Verdict =
    Verdict { reason: ReasonCode::QosNotSupported, why: "a QoS above the maximum of this broker" };
const RETAIN: Verdict =
    Verdict { reason: ReasonCode::RetainNotSupported, why: "retained messages are switched off" };
const WILDCARDS: Verdict = Verdict {
    reason: ReasonCode::WildcardSubscriptionsNotSupported,
    why: "subscriptions with wildcards are switched off",
};
const SHARED: Verdict = Verdict {
    reason: ReasonCode::SharedSubscriptionsNotSupported,
    why: "shared subscriptions are switched off",
};
const IDS: Verdict = Verdict {
    reason: ReasonCode::SubscriptionIdentifiersNotSupported,
    why: "subscription identifiers are switched off",
};
const NOT_UTF8: Verdict = Verdict {
    reason: ReasonCode::PayloadFormatInvalid,
    why: "the payload is not the UTF-8 that its format indicator says",
};

impl Features {
    /// A PUBLISH that a client which has read its CONNACK does not send.
    pub(super) fn check_publish(&self, publish: &Publish<'_>) -> Result<(), Verdict> {
        self.check_message(publish.qos, publish.retain)
    }

    /// A payload that is not what it is declared to be (section 3.3.2.3.2).
    pub(super) fn check_payload(
        &self,
        properties: &PublishProperties<'_>,
        payload: &[u8],
    ) -> Result<(), Verdict> {
        let is_declared = self.payload_format_checked && properties.payload_is_utf8 == Some(true);
        if is_declared && std::str::from_utf8(payload).is_err() { Err(NOT_UTF8) } else { Ok(()) }
    }

    /// The will of a CONNECT [MQTT-3.2.2-12], [MQTT-3.2.2-13].
    pub(super) fn check_will(&self, will: &Will<'_>) -> Result<(), Verdict> {
        self.check_message(will.qos, will.retain)?;
        self.check_payload(&will.properties, will.payload)
    }

    fn check_message(&self, qos: QoS, retain: bool) -> Result<(), Verdict> {
        // [MQTT-3.2.2-11]
        if qos > self.qos_max {
            return Err(QOS);
        }
        // [MQTT-3.2.2-14]
        if retain && !self.retain { Err(RETAIN) } else { Ok(()) }
    }

    /// A SUBSCRIBE that a v5 client which has read its CONNACK does not send (sections 3.2.2.3.11 to 3.2.2.3.13). An older
    /// client has not been told: its filters are refused one by one.
    pub(super) fn check_subscribe(&self, subscribe: &Subscribe<'_>) -> Result<(), Verdict> {
        if subscribe.subscription_id.is_some() && !self.subscription_ids {
            return Err(IDS);
        }
        if self.wildcard_subscriptions && self.shared_subscriptions {
            return Ok(());
        }
        // What is no filter at all is refused in its place.
        let filters = subscribe.filters.iter().filter_map(|asked| TopicFilter::parse(asked.filter).ok());
        filters.into_iter().try_for_each(|filter| self.check_filter(&filter))
    }

    pub(super) fn check_filter(&self, filter: &TopicFilter) -> Result<(), Verdict> {
        if filter.share_name().is_some() && !self.shared_subscriptions {
            return Err(SHARED);
        }
        if filter.has_wildcard() && !self.wildcard_subscriptions { Err(WILDCARDS) } else { Ok(()) }
    }

    /// What CONNACK says of all this; where it says nothing, everything is there.
    pub(super) fn announce<'a>(&self, properties: ConnackProperties<'a>) -> ConnackProperties<'a> {
        let missing = |is_there: bool| (!is_there).then_some(false);
        ConnackProperties {
            // [MQTT-3.2.2-9]
            maximum_qos: Some(self.qos_max).filter(|&qos| qos < QoS::ExactlyOnce),
            retain_available: missing(self.retain),
            wildcard_available: missing(self.wildcard_subscriptions),
            subscription_ids_available: missing(self.subscription_ids),
            shared_available: missing(self.shared_subscriptions),
            ..properties
        }
    }

    /// The basis of a client's response topics. None for a client whose identifier cannot be part of a topic name.
    pub(super) fn response_information(&self, client_id: &str) -> Option<String> {
        let prefix = self.response_topic_prefix.as_deref()?;
        let is_usable = !prefix.contains("%c") || !client_id.contains(['+', '#']);
        is_usable.then(|| prefix.replace("%c", client_id)).filter(|text| u16::try_from(text.len()).is_ok())
    }
}
