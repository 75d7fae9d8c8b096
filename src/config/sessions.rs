//! `[sessions]`: sessions and the queues of those who sleep.

use std::{ops::RangeInclusive, time::Duration};

use serde::Serialize;

use super::{
    document::Section,
    value::{show_choice, show_duration, show_size},
};
use crate::broker::Config;

const MAX: RangeInclusive<usize> = 1..=10_000_000;
/// Four bytes of seconds is what the protocol can say; the largest of them means "for ever". [MQTT 5.0, 3.1.2.11.2]
const EXPIRY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(49_710 * 86_400);
const INFLIGHT: RangeInclusive<u16> = 1..=u16::MAX;
pub(super) const QUEUE_MESSAGES: RangeInclusive<usize> = 1..=10_000_000;
pub(super) const QUEUE_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 30;

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawSessions {
    max: usize,
    session_expiry_max: String,
    inflight_max: u16,
    queue_messages_max: usize,
    queue_bytes_max: String,
    queue_policy: &'static str,
    queue_qos0: bool,
}

impl RawSessions {
    pub(super) fn of(broker: &Config) -> Self {
        Self {
            max: broker.sessions_max,
            session_expiry_max: show_duration(broker.session_expiry_max).to_string(),
            inflight_max: broker.inflight_max,
            queue_messages_max: broker.queue.messages_max,
            queue_bytes_max: show_size(broker.queue.bytes_max).to_string(),
            queue_policy: show_choice(broker.queue.overflow),
            queue_qos0: broker.queue_qos0,
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, broker: &mut Config) {
    section.count("max", &mut broker.sessions_max, &MAX);
    section.duration("session_expiry_max", &mut broker.session_expiry_max, &EXPIRY);
    section.count("inflight_max", &mut broker.inflight_max, &INFLIGHT);
    section.count("queue_messages_max", &mut broker.queue.messages_max, &QUEUE_MESSAGES);
    section.size("queue_bytes_max", &mut broker.queue.bytes_max, &QUEUE_BYTES);
    section.choice("queue_policy", &mut broker.queue.overflow);
    section.flag("queue_qos0", &mut broker.queue_qos0);
}
