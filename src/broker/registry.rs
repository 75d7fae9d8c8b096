//! All sessions, by client id and by number, and when the sleeping ones have something due.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::slot::Slot;
use crate::{message::SessionNo, time::Timestamp};

/// All sessions.
pub(super) struct Registry {
    by_client_id: HashMap<Arc<str>, Arc<Slot>>,
    by_no: HashMap<SessionNo, Arc<Slot>>,
    next_no: SessionNo,
    /// Moments at which a session is looked at: a will is due, or the session ends. One a session at most, which may be
    /// too early but is never too late.
    due: BTreeSet<(Timestamp, SessionNo)>,
    due_of: HashMap<SessionNo, Timestamp>,
}

impl Registry {
    pub(super) fn new(next_no: SessionNo) -> Self {
        Self {
            by_client_id: HashMap::new(),
            by_no: HashMap::new(),
            next_no,
            due: BTreeSet::new(),
            due_of: HashMap::new(),
        }
    }

    pub(super) fn by_client_id(&self, client_id: &str) -> Option<Arc<Slot>> {
        self.by_client_id.get(client_id).cloned()
    }

    pub(super) fn by_no(&self, no: SessionNo) -> Option<Arc<Slot>> {
        self.by_no.get(&no).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.by_no.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.by_no.values().cloned().collect()
    }

    /// A number no session has had before.
    pub(super) fn take_number(&mut self) -> SessionNo {
        let no = self.next_no;
        self.next_no = SessionNo(no.0.saturating_add(1));
        no
    }

    pub(super) fn insert(&mut self, slot: &Arc<Slot>) {
        self.by_client_id.insert(Arc::clone(&slot.client_id), Arc::clone(slot));
        self.by_no.insert(slot.no, Arc::clone(slot));
    }

    /// Takes the session out, unless the client id has a newer one already.
    pub(super) fn remove(&mut self, slot: &Slot) {
        self.by_no.remove(&slot.no);
        if let Some(at) = self.due_of.remove(&slot.no) {
            self.due.remove(&(at, slot.no));
        }
        if self.by_client_id.get(&slot.client_id).is_some_and(|s| s.no == slot.no) {
            self.by_client_id.remove(&slot.client_id);
        }
    }

    /// Looks at the session at `at`, or earlier if it has been scheduled for that already: a device that wakes every
    /// minute must not leave a moment behind each time.
    pub(super) fn schedule(&mut self, at: Timestamp, no: SessionNo) {
        if at == Timestamp::NEVER || self.due_of.get(&no).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        if let Some(later) = self.due_of.insert(no, at) {
            self.due.remove(&(later, no));
        }
        self.due.insert((at, no));
    }

    /// The next session whose moment has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Arc<Slot>> {
        while let Some(&(at, no)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, no));
            self.due_of.remove(&no);
            if let Some(slot) = self.by_no(no) {
                return Some(slot);
            }
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|&(at, _)| at)
    }
}
