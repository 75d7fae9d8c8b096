//! `[[queue_limits]]`: bounds for the queued messages of some topics, some clients or some users.

use serde::Serialize;

use super::{
    document::Section,
    sessions::{QUEUE_BYTES, QUEUE_MESSAGES},
    value::{Choice, show_choice, show_size},
};
use crate::{
    broker::{Config, NamePattern, QueueBound},
    session::Overflow,
    topic::{TopicFilter, TopicLabels},
};

/// One entry as it is written.
#[derive(Serialize)]
pub(super) struct RawQueueLimit<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'c str>,
    messages_max: usize,
    bytes_max: String,
    policy: &'static str,
}

impl<'c> RawQueueLimit<'c> {
    pub(super) fn of(bound: &'c QueueBound) -> Self {
        Self {
            filter: bound.filter.as_ref().map(TopicFilter::as_str),
            client: bound.client.as_ref().map(NamePattern::as_str),
            user: bound.user.as_ref().map(NamePattern::as_str),
            messages_max: bound.limits.messages_max,
            bytes_max: show_size(bound.limits.bytes_max).to_string(),
            policy: show_choice(bound.limits.overflow),
        }
    }
}

/// Reads the entries; what one does not say is as in `[sessions]`, which was read before.
pub(super) fn read_all(root: &mut Section<'_>, broker: &mut Config) {
    for (n, mut section) in root.sections("queue_limits").into_iter().flatten().enumerate() {
        if n == TopicLabels::FILTERS_MAX {
            section.complain("", format!("is one entry too many; there may be {}", TopicLabels::FILTERS_MAX));
        }
        if let Some(bound) = read(&mut section, broker) {
            broker.queue_bounds.push(bound);
        }
        section.finish();
    }
}

fn read(section: &mut Section<'_>, broker: &Config) -> Option<QueueBound> {
    let filter = section.optional_text("filter", is_filter, "is not a topic filter; use e.g. \"cmd/#\"");
    let is_pattern = |text: &str| NamePattern::parse(text).is_some();
    let how = "is not a client identifier, or the beginning of one and \"*\"";
    let client = section.optional_text("client", is_pattern, how);
    let how = "is not a user name, or the beginning of one and \"*\"";
    let user = section.optional_text("user", is_pattern, how);
    let mut limits = broker.queue;
    section.count("messages_max", &mut limits.messages_max, &QUEUE_MESSAGES);
    section.size("bytes_max", &mut limits.bytes_max, &QUEUE_BYTES);
    section.choice("policy", &mut limits.overflow);
    if !["filter", "client", "user"].iter().any(|key| section.has(key)) {
        let what = "is missing; say which topics, or with `client` or `user` whose queues";
        section.complain("filter", what.to_owned());
        return None;
    }
    let pattern = |text: Option<String>| text.and_then(|text| NamePattern::parse(&text));
    Some(QueueBound {
        filter: filter.and_then(|text| TopicFilter::parse(&text).ok()),
        client: pattern(client),
        user: pattern(user),
        limits,
    })
}

/// Which subscription brought a message does not matter here.
fn is_filter(text: &str) -> bool {
    TopicFilter::parse(text).is_ok_and(|filter| filter.share_name().is_none())
}

impl Choice for Overflow {
    const ALL: &'static [(&'static str, Self)] =
        &[("drop-oldest", Self::DropOldest), ("drop-newest", Self::DropNewest), ("reject", Self::Reject)];
}
