//! `[limits]`: bounds on connections and packets.

use std::{ops::RangeInclusive, time::Duration};

use super::document::Section;

const PACKET_BYTES: RangeInclusive<usize> = 1 << 10..=256 << 20;
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const KEEP_ALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(65_535);
const TOPIC_ALIAS: RangeInclusive<u16> = 0..=u16::MAX;
const RECEIVE_MAXIMUM: RangeInclusive<u16> = 1..=u16::MAX;
const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
const OUT_BUFFER_BYTES: RangeInclusive<usize> = 4 << 10..=256 << 20;
const SUBSCRIPTIONS: RangeInclusive<usize> = 1..=1_000_000;

/// Bounds on what one client, and all of them, may take.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// The largest packet taken from a client, in bytes. 1 KiB to 256 MiB, default 1 MiB: firmware comes in pieces, and
    /// memory is small.
    pub packet_bytes_max: usize,
    /// Open connections, beyond which new ones are closed. 1 to 1,000,000, default 10,000.
    pub connections_max: usize,
    /// The longest keep alive a client may have; a longer one, or none, is replaced by it (5.0: told in CONNACK). 1 to
    /// 65,535 s, default none: a sleeper knows best when it wakes.
    pub keep_alive_max: Option<Duration>,
    /// Topic aliases a 5.0 client may use on its connection. Up to 65,535, default 16: a device has a few topics, and
    /// each alias holds a topic name in memory.
    pub topic_alias_max: u16,
    /// QoS 1 and 2 messages a client may have sent that are not confirmed to it yet. 1 to 65,535, default 1,000: a
    /// publisher that waits for the disk sends a commit full meanwhile.
    pub receive_maximum: u16,
    /// How long a new connection may take to send its CONNECT. 100 ms to 5 min, default 10 s: a slow radio needs
    /// seconds, a silent attacker none.
    pub connect_timeout: Duration,
    /// Bytes waiting to be sent to one client, beyond which QoS 0 is dropped and QoS 1 and 2 stay in the queue. 4 KiB to
    /// 256 MiB, default 1 MiB.
    pub out_buffer_bytes_max: usize,
    /// Subscriptions of one session, beyond which new ones are refused. 1 to 1,000,000, default 1,000.
    pub subscriptions_per_session_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1 << 20,
            connections_max: 10_000,
            keep_alive_max: None,
            topic_alias_max: 16,
            receive_maximum: 1_000,
            connect_timeout: Duration::from_secs(10),
            out_buffer_bytes_max: 1 << 20,
            subscriptions_per_session_max: 1_000,
        }
    }
}

impl LimitsConfig {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.size("packet_bytes_max", &mut self.packet_bytes_max, &PACKET_BYTES);
        section.count("connections_max", &mut self.connections_max, &CONNECTIONS);
        section.optional_duration("keep_alive_max", &mut self.keep_alive_max, &KEEP_ALIVE);
        section.count("topic_alias_max", &mut self.topic_alias_max, &TOPIC_ALIAS);
        section.count("receive_maximum", &mut self.receive_maximum, &RECEIVE_MAXIMUM);
        section.duration("connect_timeout", &mut self.connect_timeout, &CONNECT_TIMEOUT);
        section.size("out_buffer_bytes_max", &mut self.out_buffer_bytes_max, &OUT_BUFFER_BYTES);
        section.count(
            "subscriptions_per_session_max",
            &mut self.subscriptions_per_session_max,
            &SUBSCRIPTIONS,
        );
    }
}
