//! `[sessions]`: sessions and the queues of those who sleep.

use std::{ops::RangeInclusive, time::Duration};

use super::document::Section;

const MAX: RangeInclusive<usize> = 1..=10_000_000;
/// Four bytes of seconds is what the protocol can say; the largest of them means "for ever". [MQTT 5.0, 3.1.2.11.2]
const EXPIRY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(49_710 * 86_400);
const INFLIGHT: RangeInclusive<u16> = 1..=u16::MAX;
const QUEUE_MESSAGES: RangeInclusive<usize> = 1..=10_000_000;
const QUEUE_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 30;

/// Bounds on sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionsConfig {
    /// Sessions, connected or sleeping, beyond which new clients are refused. 1 to 10,000,000, default 100,000: some
    /// 100 MB of memory when all are sleeping.
    pub max: usize,
    /// The longest a session is kept after its client left; it caps what 5.0 clients ask for, and is what 3.1 and
    /// 3.1.1 clients get. Up to 49,710 days, default 30 days: a device in a drawer for a month finds its messages.
    pub session_expiry_max: Duration,
    /// QoS 1 and 2 messages on their way to one client and not confirmed yet. 1 to 65,535, default 100; a 5.0 client
    /// can ask for fewer.
    pub inflight_max: u16,
    /// Messages queued for one session, beyond which the oldest make room. 1 to 10,000,000, default 100,000.
    pub queue_messages_max: usize,
    /// Bytes queued for one session, beyond which the oldest make room. 1 KiB to 1 GiB, default 64 MiB.
    pub queue_bytes_max: usize,
    /// Whether QoS 0 messages are queued for sleeping sessions. Default no: their publisher asked for no guarantee,
    /// and flash wears.
    pub queue_qos0: bool,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            max: 100_000,
            session_expiry_max: Duration::from_secs(30 * 86_400),
            inflight_max: 100,
            queue_messages_max: 100_000,
            queue_bytes_max: 64 << 20,
            queue_qos0: false,
        }
    }
}

impl SessionsConfig {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.count("max", &mut self.max, &MAX);
        section.duration("session_expiry_max", &mut self.session_expiry_max, &EXPIRY);
        section.count("inflight_max", &mut self.inflight_max, &INFLIGHT);
        section.count("queue_messages_max", &mut self.queue_messages_max, &QUEUE_MESSAGES);
        section.size("queue_bytes_max", &mut self.queue_bytes_max, &QUEUE_BYTES);
        section.flag("queue_qos0", &mut self.queue_qos0);
    }
}
