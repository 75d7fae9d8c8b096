//! How the journal is to behave.

use std::time::Duration;

use super::key::KeySource;
use crate::topic::TopicLabels;

/// What an acknowledgement is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut: every commit is synced to the disk.
    Power,
    /// It survives a crash of the broker, not of the machine: commits are handed to the operating system.
    Process,
    /// It is given at once; commits happen every `done_interval`.
    Relaxed,
}

/// How what is written is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// It is not.
    #[default]
    None,
    /// LZ4, where it saves something.
    Lz4,
}

/// The journal's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What an acknowledgement is worth; `Power`, for which the broker exists.
    pub durability: Durability,
    /// The longest a message is held back in the hope that it need not be written, and its
    /// acknowledgement with it; 100 ms: longer than a round trip on a bad link, short enough for a person not to notice.
    /// Zero: none is.
    pub elision_wait_max: Duration,
    /// How long a commit that somebody waits for may wait for company when little comes; zero: not at all. Fewer commits
    /// wear the disk less, and every acknowledgement that needs one is later by up to so much. A batch of 64 items or
    /// 64 KiB waits no longer.
    pub commit_interval_max: Duration,
    /// How long a record that nobody waits for may wait for a commit; 1 s. A record lost so costs a duplicate.
    pub done_interval: Duration,
    /// The bytes that may wait for the disk before readers are told to pause (`Journal::backlogged`); 16 MiB:
    /// some seconds of an SD card's writing.
    pub backlog_bytes_max: usize,
    /// The bytes of messages held back at one time; 8 MiB: half of what may wait for the disk, where all of it has to go
    /// when nobody confirms. Beyond it messages are written at once.
    pub held_bytes_max: usize,
    /// A generation is closed when it holds this many bytes; 16 MiB. Space is given back in such pieces.
    pub generation_bytes: u64,
    /// How what is written is compressed; not at all.
    pub compression: Compression,
    /// The key with which the store is sealed; none: it is not.
    pub key: KeySource,
    /// Bytes the journal's files may take; none. A part of them is the reserve, as on a disk of that size.
    pub disk_bytes_max: Option<u64>,
    /// Bytes kept free on the file system, so that confirmations and compaction can go on when it is full otherwise; none:
    /// four generations, but no more than a quarter of the file system. A generation has a quarter of it at most.
    pub disk_reserve_bytes: Option<u64>,
    /// Labels by which the messages that wait for sessions are told apart when they are brought back; none.
    pub labels: TopicLabels,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::Power,
            elision_wait_max: Duration::from_millis(100),
            commit_interval_max: Duration::ZERO,
            done_interval: Duration::from_secs(1),
            backlog_bytes_max: 16 << 20,
            held_bytes_max: 8 << 20,
            generation_bytes: 16 << 20,
            compression: Compression::None,
            key: KeySource::None,
            disk_bytes_max: None,
            disk_reserve_bytes: None,
            labels: TopicLabels::default(),
        }
    }
}
