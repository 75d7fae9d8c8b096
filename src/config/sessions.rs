//! `[sessions]`: sessions and the queues of those who sleep.

use std::{ops::RangeInclusive, time::Duration};

use super::document::Section;
use crate::broker::Config;

const MAX: RangeInclusive<usize> = 1..=10_000_000;
/// Four bytes of seconds is what the protocol can say; the largest of them means "for ever". [MQTT 5.0, 3.1.2.11.2]
const EXPIRY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(49_710 * 86_400);
const INFLIGHT: RangeInclusive<u16> = 1..=u16::MAX;
const QUEUE_MESSAGES: RangeInclusive<usize> = 1..=10_000_000;
const QUEUE_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 30;

pub(super) fn read(section: &mut Section<'_>, broker: &mut Config) {
    section.count("max", &mut broker.sessions_max, &MAX);
    section.duration("session_expiry_max", &mut broker.session_expiry_max, &EXPIRY);
    section.count("inflight_max", &mut broker.inflight_max, &INFLIGHT);
    section.count("queue_messages_max", &mut broker.queue.messages_max, &QUEUE_MESSAGES);
    section.size("queue_bytes_max", &mut broker.queue.bytes_max, &QUEUE_BYTES);
    section.flag("queue_qos0", &mut broker.queue_qos0);
}
