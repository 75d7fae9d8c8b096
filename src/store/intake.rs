//! Messages that are taken and not complete yet: numbered and counted without the journal's lock, since there is one for each
//! message that somebody keeps, confirmed at once or not.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Intake {
    /// The last number given to a message.
    last_id: AtomicU64,
    /// Bytes of those that are not complete. What has become complete counts here until the room that is left without it is
    /// known to everybody: too much for a moment, never too little.
    coming_bytes: AtomicU64,
}

impl Intake {
    /// Goes on behind this number.
    pub(super) fn new(last_id: u64) -> Self {
        Self { last_id: AtomicU64::new(last_id), coming_bytes: AtomicU64::new(0) }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The last number given, at least that of each message that was made complete under a lock the caller holds.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// So much comes. Returns what came before it.
    pub(super) fn come(&self, bytes: u64) -> u64 {
        self.coming_bytes.fetch_add(bytes, Ordering::AcqRel)
    }

    /// So much has come.
    pub(super) fn came(&self, bytes: u64) {
        if bytes > 0 {
            self.coming_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    pub(super) fn coming_bytes(&self) -> u64 {
        self.coming_bytes.load(Ordering::Acquire)
    }
}
