//! What the journal counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{Histogram, HistogramReading};

/// Ranges of durations, in microseconds: from the cache of a disk that lies to an SD card that cleans up.
const MICROS: &[u64] =
    &[50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// Ranges of a commit's size in bytes of frames.
const BYTES: &[u64] = &[256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Ranges of a commit's size in messages.
const MESSAGES: &[u64] = &[0, 1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000];

/// Counts since the start, and sizes as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Payload bytes of messages written for the first time.
    pub bytes_payload: u64,
    /// Bytes of frames written, copies included.
    pub bytes_frames: u64,
    /// Commits.
    pub commits: u64,
    /// Syncs of the disk asked for; a large commit takes several.
    pub syncs: u64,
    /// Messages written for the first time.
    pub messages_written: u64,
    /// Messages held back and confirmed by all before they were written.
    pub messages_elided: u64,
    /// Records written, messages and copies included.
    pub records: u64,
    /// Messages lost to damage of the disk.
    pub messages_lost: u64,
    /// Bytes of topic, payload and properties of all messages taken care of: written for the first time, or confirmed by all before
    /// that. What the bytes written are to be compared with.
    pub bytes_kept: u64,
    /// Messages held back now.
    pub held_messages: u64,
    /// Bytes of messages held back now.
    pub held_bytes: u64,
    /// Bytes that wait for the disk now.
    pub backlog_bytes: u64,
    /// Bytes on disk that are wanted now.
    pub live_bytes: u64,
    /// Bytes of all frames on disk now.
    pub frame_bytes: u64,
    /// Generations on disk now.
    pub generations: u64,
    /// Bytes the journal's files take on disk now; 0 if the medium has none.
    pub disk_bytes: u64,
    /// Bytes free on the file system at the last look; `None` if there is none.
    pub disk_free_bytes: Option<u64>,
    /// Bytes the journal's files may grow by before what has to be stored is refused; `None` if nothing bounds them.
    pub disk_room_bytes: Option<u64>,
    /// There is no room: what would have to be stored is refused.
    pub is_full: bool,
    /// Damaged parts found at the start.
    pub damaged: u64,
    /// A write has failed: nothing is acknowledged any more.
    pub is_poisoned: bool,
    /// Messages written for the first time, by commit.
    pub commit_messages: HistogramReading,
    /// Bytes of frames, by commit.
    pub commit_bytes: HistogramReading,
    /// Microseconds from taking a batch until it was durable.
    pub commit_micros: HistogramReading,
    /// Microseconds of the sync at the end of a commit.
    pub sync_micros: HistogramReading,
}

/// The counters behind `Stats`.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) bytes_payload: AtomicU64,
    pub(super) bytes_kept: AtomicU64,
    pub(super) bytes_frames: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) messages_written: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) messages_lost: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) commit_messages: Histogram,
    pub(super) commit_bytes: Histogram,
    pub(super) commit_micros: Histogram,
    pub(super) sync_micros: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            bytes_payload: AtomicU64::new(0),
            bytes_kept: AtomicU64::new(0),
            bytes_frames: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            messages_written: AtomicU64::new(0),
            records: AtomicU64::new(0),
            messages_lost: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            commit_messages: Histogram::new(MESSAGES),
            commit_bytes: Histogram::new(BYTES),
            commit_micros: Histogram::new(MICROS),
            sync_micros: Histogram::new(MICROS),
        }
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads a counter.
pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
