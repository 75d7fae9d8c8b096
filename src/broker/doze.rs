//! A session that sleeps while nothing waits for it: what there is to know of it, in a fifth of the room.
//!
//! Most sessions of a broker for devices that sleep are like that most of the time. The state of one is put together again
//! when somebody wants to look at it, and put away when he has seen it and it is still so.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use super::{
    keep::Keep,
    slot::{Slot, State},
};
use crate::{
    message::Seq,
    session::{Dormant, Subscribed},
    store::{Gate, SessionRecord, WillRecord},
    sync::lock,
    time::Timestamp,
};

/// A session's state, in one of two forms.
///
/// Invariant: it has exactly one of them, and the whole state while somebody holds it.
pub(super) struct Life {
    state: Option<Box<State>>,
    dozing: Option<Box<Dozing>>,
}

/// What is left of a state that has no connection and no messages, and is about to have neither.
struct Dozing {
    /// Of its record, without the names that the slot has.
    expiry: Duration,
    expires_at: Timestamp,
    sent_below: Seq,
    seq_reserved: Seq,
    inflight_max: u16,
    subscriptions: Subscribed,
    outbound: Dormant,
    spared_until: Timestamp,
    rare: Option<Box<Rare>>,
}

/// What most sessions that sleep have nothing of.
struct Rare {
    will: Option<Box<WillRecord>>,
    user_name: Option<Arc<str>>,
    settled: Gate,
}

/// A session's state, locked.
pub(super) struct Held<'a> {
    life: MutexGuard<'a, Life>,
    keep: &'a Keep,
}

impl Life {
    /// One that dozes, if it can.
    pub(super) fn new(state: State, keep: &Keep) -> Self {
        let mut life = Self { state: Some(Box::new(state)), dozing: None };
        life.doze(keep);
        life
    }

    fn wake(&mut self, keep: &Keep) {
        if let Some(dozing) = self.dozing.take() {
            self.state = Some(Box::new(dozing.wake(keep)));
        }
    }

    /// Nobody needs the whole state of a session without connection: puts away what can be.
    #[cold]
    fn doze(&mut self, keep: &Keep) {
        // Who panics may have left it anyhow.
        if std::thread::panicking() {
            return;
        }
        let Some(outbound) = self.state.as_ref().and_then(|state| state.dormant(keep)) else { return };
        let Some(state) = self.state.take() else { return };
        self.dozing = Some(Box::new(Dozing::new(*state, outbound, keep)));
    }
}

impl Dozing {
    fn new(state: State, outbound: Dormant, keep: &Keep) -> Self {
        let State { session, record, settled, spared_until, .. } = state;
        let SessionRecord {
            session: _,
            client_id: _,
            expiry,
            expires_at,
            sent_below,
            seq_reserved,
            inflight_max,
            will,
            user_name,
        } = record;
        let settled = if keep.journal.is_open(&settled) { Gate::Open } else { settled };
        let is_rare = will.is_some() || user_name.is_some() || !matches!(settled, Gate::Open);
        let rare = is_rare.then(|| Box::new(Rare { will, user_name, settled }));
        let subscriptions = session.subscriptions;
        Self {
            expiry,
            expires_at,
            sent_below,
            seq_reserved,
            inflight_max,
            subscriptions,
            outbound,
            spared_until,
            rare,
        }
    }

    fn wake(self, keep: &Keep) -> State {
        let Self {
            expiry,
            expires_at,
            sent_below,
            seq_reserved,
            inflight_max,
            subscriptions,
            outbound,
            spared_until,
            rare,
        } = self;
        let nothing = || Rare { will: None, user_name: None, settled: Gate::Open };
        let Rare { will, user_name, settled } = rare.map_or_else(nothing, |rare| *rare);
        let (session, client_id) = (keep.session, Arc::clone(&keep.client_id));
        let record = SessionRecord {
            session,
            client_id,
            expiry,
            expires_at,
            inflight_max,
            sent_below,
            seq_reserved,
            will,
            user_name,
        };
        State::asleep(record, subscriptions, outbound, settled, spared_until)
    }
}

impl Slot {
    /// Locks the session's state.
    pub(super) fn state(&self) -> Held<'_> {
        let mut life = lock(&self.life);
        if life.dozing.is_some() {
            life.wake(&self.keep);
        }
        Held { life, keep: &self.keep }
    }

    /// Whether it sleeps, and nothing waits for its client.
    pub(super) fn is_dozing(&self) -> bool {
        lock(&self.life).dozing.is_some()
    }
}

impl Deref for Held<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.life.state.as_deref().expect("a state that is held is awake")
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.life.state.as_deref_mut().expect("a state that is held is awake")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.connection.is_none() {
            self.life.doze(self.keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are hundreds of thousands of them. With the two counts of its `Arc` a slot takes 128 bytes too: a size that nothing
    /// else has which comes and goes, but for the link of a connection, in whose place its dozing session comes.
    #[test]
    fn a_sleeping_slot_stays_small() {
        let bytes = (size_of::<Slot>(), size_of::<Dozing>());
        assert!(bytes.0 <= 112 && bytes.1 <= 128, "{bytes:?}");
        // While its client is connected.
        assert!(size_of::<State>() <= 512, "{}", size_of::<State>());
    }
}
