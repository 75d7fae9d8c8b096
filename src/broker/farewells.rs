//! What connections say at last that are ended by the broker: left here for each one's own driver to fetch. Hardly any connection
//! ever has one, so none has a place for it.

use std::{collections::HashMap, sync::Mutex};

use crate::{session::Verdict, sync::lock};

/// The last bytes of connections, by epoch, and why they end. Nothing is locked under it. Whoever drives a connection that
/// no session has any more takes its own out, or forgets it.
#[derive(Debug, Default)]
pub(super) struct Farewells(Mutex<HashMap<u64, (Vec<u8>, Verdict)>>);

impl Farewells {
    /// Whoever ends the connection first has the last word.
    pub(super) fn leave(&self, epoch: u64, bytes: Vec<u8>, verdict: Verdict) {
        lock(&self.0).entry(epoch).or_insert((bytes, verdict));
    }

    pub(super) fn take(&self, epoch: u64) -> Option<(Vec<u8>, Verdict)> {
        let mut all = lock(&self.0);
        let found = all.remove(&epoch);
        // A shutdown has one for each connection.
        if all.is_empty() {
            *all = HashMap::new();
        }
        found
    }

    /// The connection is over.
    pub(super) fn forget(&self, epoch: u64) {
        drop(self.take(epoch));
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.0).len()
    }
}
