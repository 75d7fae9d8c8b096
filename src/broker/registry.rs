//! All sessions, by client id and by number, and when the sleeping ones have something due.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::slot::Slot;
use crate::{message::SessionNo, store::Gate, time::Timestamp};

/// All sessions.
pub(super) struct Registry {
    by_client_id: HashSet<ByClientId>,
    by_no: HashSet<ByNo>,
    next_no: SessionNo,
    /// Moments at which a session is looked at: a will is due, or the session ends. One for each session at most, which
    /// knows it too, and it may be too early: a device that wakes every minute moves its end sixty times an hour.
    due: BTreeSet<(Timestamp, SessionNo)>,
    /// The ends of sessions that may not be durable yet.
    ending: HashMap<Arc<str>, Gate>,
    /// How many of them there may be before the durable ones are taken out.
    ending_max: usize,
}

/// A session that is found by its client id. The key stands in the slot: there are hundreds of thousands of them.
struct ByClientId(Arc<Slot>);

/// The same by its number.
struct ByNo(Arc<Slot>);

impl Borrow<str> for ByClientId {
    fn borrow(&self) -> &str {
        &self.0.keep.client_id
    }
}

impl Hash for ByClientId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.keep.client_id.hash(state);
    }
}

impl PartialEq for ByClientId {
    fn eq(&self, other: &Self) -> bool {
        self.0.keep.client_id == other.0.keep.client_id
    }
}

impl Eq for ByClientId {}

impl Borrow<SessionNo> for ByNo {
    fn borrow(&self) -> &SessionNo {
        &self.0.no
    }
}

impl Hash for ByNo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.no.hash(state);
    }
}

impl PartialEq for ByNo {
    fn eq(&self, other: &Self) -> bool {
        self.0.no == other.0.no
    }
}

impl Eq for ByNo {}

/// Fewer ends of sessions than this are not gone through.
const ENDING_MIN: usize = 64;

impl Registry {
    pub(super) fn new(next_no: SessionNo) -> Self {
        Self {
            by_client_id: HashSet::new(),
            by_no: HashSet::new(),
            next_no,
            due: BTreeSet::new(),
            ending: HashMap::new(),
            ending_max: 0,
        }
    }

    pub(super) fn by_client_id(&self, client_id: &str) -> Option<Arc<Slot>> {
        self.by_client_id.get(client_id).map(|found| Arc::clone(&found.0))
    }

    pub(super) fn by_no(&self, no: SessionNo) -> Option<Arc<Slot>> {
        self.by_no.get(&no).map(|found| Arc::clone(&found.0))
    }

    pub(super) fn len(&self) -> usize {
        self.by_no.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.by_no.iter().map(|found| Arc::clone(&found.0)).collect()
    }

    /// A number no session has had before.
    pub(super) fn take_number(&mut self) -> SessionNo {
        let no = self.next_no;
        self.next_no = SessionNo(no.0.saturating_add(1));
        no
    }

    pub(super) fn insert(&mut self, slot: &Arc<Slot>) {
        // A set keeps the one it has.
        self.by_client_id.replace(ByClientId(Arc::clone(slot)));
        self.by_no.replace(ByNo(Arc::clone(slot)));
    }

    /// Takes the session out, unless the client id has a newer one already. Its end is durable behind `gone`.
    pub(super) fn remove(&mut self, slot: &Slot, gone: Gate, is_open: impl Fn(&Gate) -> bool) {
        self.by_no.remove(&slot.no);
        self.due.remove(&(slot.due_at(), slot.no));
        slot.set_due_at(Timestamp::NEVER);
        // All but the last few commits' are open: this keeps what is left small.
        if self.ending.len() >= ENDING_MIN && self.ending.len() >= self.ending_max {
            self.ending.retain(|_, gate| !is_open(gate));
            self.ending_max = 2 * self.ending.len();
        }
        if !is_open(&gone) {
            self.ending.insert(Arc::clone(&slot.keep.client_id), gone);
        }
        if self.by_client_id.get(&*slot.keep.client_id).is_some_and(|found| found.0.no == slot.no) {
            self.by_client_id.remove(&*slot.keep.client_id);
        }
    }

    /// The gate behind which the client's former session is gone.
    pub(super) fn gone(&self, client_id: &str) -> Gate {
        self.ending.get(client_id).cloned().unwrap_or(Gate::Open)
    }

    /// Has the session looked at at this moment, or earlier.
    pub(super) fn schedule(&mut self, at: Timestamp, no: SessionNo) {
        let Some(ByNo(slot)) = self.by_no.get(&no) else { return };
        let before = slot.due_at();
        if at >= before {
            return;
        }
        slot.set_due_at(at);
        self.due.remove(&(before, no));
        self.due.insert((at, no));
    }

    /// The next session whose moment has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Arc<Slot>> {
        while let Some(&(at, no)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, no));
            if let Some(slot) = self.by_no(no) {
                slot.set_due_at(Timestamp::NEVER);
                return Some(slot);
            }
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|&(at, _)| at)
    }

    #[cfg(test)]
    pub(super) fn due_len(&self) -> usize {
        self.due.len()
    }
}
