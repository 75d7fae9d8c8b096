//! `[mqtt]`: which features of the protocol are offered.

use std::{ops::RangeInclusive, sync::Arc};

use serde::Serialize;

use super::document::Section;
use crate::{broker::Features, codec::QoS, topic::TopicName};

const QOS: RangeInclusive<u8> = 0..=2;
/// Longer than any prefix somebody would write.
const PREFIX_BYTES_MAX: usize = 1024;

/// The section as it is written.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "keys of a file")]
pub(super) struct RawMqtt {
    max_qos: u8,
    retain_available: bool,
    wildcard_subscriptions: bool,
    shared_subscriptions: bool,
    subscription_ids: bool,
    check_payload_format: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic_prefix: Option<String>,
}

impl RawMqtt {
    pub(super) fn of(features: &Features) -> Self {
        Self {
            max_qos: features.qos_max.into(),
            retain_available: features.retain,
            wildcard_subscriptions: features.wildcard_subscriptions,
            shared_subscriptions: features.shared_subscriptions,
            subscription_ids: features.subscription_ids,
            check_payload_format: features.payload_format_checked,
            response_topic_prefix: features.response_topic_prefix.as_deref().map(str::to_owned),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, features: &mut Features) {
    let mut qos_max = u8::from(features.qos_max);
    section.count("max_qos", &mut qos_max, &QOS);
    features.qos_max = QoS::try_from(qos_max).unwrap_or(features.qos_max);
    section.flag("retain_available", &mut features.retain);
    section.flag("wildcard_subscriptions", &mut features.wildcard_subscriptions);
    section.flag("shared_subscriptions", &mut features.shared_subscriptions);
    section.flag("subscription_ids", &mut features.subscription_ids);
    section.flag("check_payload_format", &mut features.payload_format_checked);
    let prefix =
        section.optional_text("response_topic_prefix", is_prefix, "is not the beginning of a topic name");
    features.response_topic_prefix = prefix.map(Arc::from);
}

fn is_prefix(text: &str) -> bool {
    text.len() <= PREFIX_BYTES_MAX && TopicName::parse(text).is_ok()
}
