//! What the broker may hold and promise.

use std::time::Duration;

use super::{dead_letters::DeadLetters, features::Features, queues::QueueBound};
use crate::session::{Overflow, QueueLimits};

/// Bounds and options of the broker. Every bound has a defined behaviour when it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sessions, connected or sleeping. A new client beyond it is refused (0x97; 3.1.1: 0x03). Default 100,000: some
    /// 100 MB of memory when all are sleeping.
    pub sessions_max: usize,
    /// Longest time a session is kept for a client that is away: caps the session expiry of v5 and ends the
    /// persistent sessions of v3. Default 30 days: a device in a drawer for a month finds its messages.
    pub session_expiry_max: Duration,
    /// QoS > 0 messages sent to a client and not yet durably confirmed; the client's receive maximum may lower it.
    /// Default 512: a device that is a second away gets so many a second, and its confirmations share commits.
    pub inflight_max: u16,
    /// One session's waiting messages, but for those that have a bound of their own in `queue_bounds`. Default 100,000 and
    /// 64 MiB; beyond it the oldest goes, counted and logged.
    pub queue: QueueLimits,
    /// Whether QoS 0 messages are kept for sleeping sessions. Default no: their publisher asked for no guarantee, and
    /// flash wears.
    pub queue_qos0: bool,
    /// Retained messages; one more is refused (0x97). Default 100,000.
    pub retained_messages_max: usize,
    /// Their bytes of topic, payload and properties; they are held in memory. Default 64 MiB: what a gateway with 512 MiB can spare.
    pub retained_bytes_max: usize,
    /// Largest packet taken from a client, in bytes. Default 1 MiB: firmware comes in pieces, and memory is small.
    pub packet_bytes_max: u32,
    /// Largest packet taken before there is a connection, which is anybody's CONNECT, in bytes; `packet_bytes_max` goes before
    /// it. Default 64 KiB: a CONNECT with a token for its password has a few KiB, one with the largest will that is of use to
    /// a device has some more, and ten thousand strangers can hold no more than 640 MiB instead of 10 GiB.
    pub connect_bytes_max: u32,
    /// Keep alive imposed on clients that ask for a longer one or none (v5), in seconds. Default none: a sleeper
    /// knows best when it wakes.
    pub keep_alive_max: Option<u16>,
    /// Longest client identifier, in bytes; a longer one is refused (0x85; 3.1.1: 0x02). Default 1,024: the name of each
    /// session is in memory, in the journal and in the log, and the protocol allows 64 KiB.
    pub client_id_bytes_max: usize,
    /// Topic aliases in either direction. Default 16: a device has few topics, and each alias holds one in memory.
    pub topic_alias_max: u16,
    /// QoS > 0 messages taken from a client before it has its answers. Default 1,000: a publisher that waits for the
    /// disk sends a commit full meanwhile.
    pub receive_maximum: u16,
    /// Bytes waiting to be written to one client. Beyond it QoS 0 is dropped and counted, the rest stays queued.
    /// Default 1 MiB.
    pub out_bytes_max: usize,
    /// Subscriptions of one session; one more gets 0x97. Default 1,000.
    pub subscriptions_max: usize,
    /// What of MQTT is offered.
    pub features: Features,
    /// Bounds for the waiting messages of some topics and clients: the first that matches counts, instead of `queue`. At
    /// most 32. Default none.
    pub queue_bounds: Vec<QueueBound>,
    /// What is published of messages that somebody does not get. Default nothing.
    pub dead_letters: DeadLetters,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sessions_max: 100_000,
            session_expiry_max: Duration::from_secs(30 * 86_400),
            inflight_max: 512,
            queue: QueueLimits { messages_max: 100_000, bytes_max: 64 << 20, overflow: Overflow::DropOldest },
            queue_qos0: false,
            retained_messages_max: 100_000,
            retained_bytes_max: 64 << 20,
            packet_bytes_max: 1 << 20,
            connect_bytes_max: 64 << 10,
            keep_alive_max: None,
            client_id_bytes_max: 1_024,
            topic_alias_max: 16,
            receive_maximum: 1_000,
            out_bytes_max: 1 << 20,
            subscriptions_max: 1_000,
            features: Features::default(),
            queue_bounds: Vec::new(),
            dead_letters: DeadLetters::default(),
        }
    }
}
