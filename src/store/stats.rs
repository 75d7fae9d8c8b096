//! What the journal counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, and sizes as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Bytes of messages held back now.
    pub held_bytes: u64,
    /// Bytes on disk that are wanted now.
    pub live_bytes: u64,
    /// Bytes of all frames on disk now.
    pub frame_bytes: u64,
    /// Generations on disk now.
    pub generations: u64,
    /// Damaged parts found at the start.
    pub damaged: u64,
}

/// The counters behind `Stats`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes_payload: AtomicU64,
    pub(super) bytes_frames: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) messages_written: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) messages_lost: AtomicU64,
    pub(super) damaged: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads a counter.
pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
