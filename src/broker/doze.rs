//! A session that sleeps while nothing waits for it: what there is to know of it, in a fifth of the room.
//!
//! Most sessions of a broker for devices that sleep are like that most of the time. The state of one is put together again
//! when somebody wants to look at it, and put away when he has seen it and it is still so.

use std::{
    ops::{Deref, DerefMut},
    sync::MutexGuard,
};

use super::{
    keep::Keep,
    slot::{Slot, State},
};
use crate::{
    session::{Dormant, Subscribed},
    store::{Gate, SessionRecord},
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
    record: SessionRecord,
    subscriptions: Subscribed,
    outbound: Dormant,
    settled: Gate,
    spared_until: Timestamp,
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

    fn wake(&mut self) {
        let Some(dozing) = self.dozing.take() else { return };
        let Dozing { record, subscriptions, outbound, settled, spared_until } = *dozing;
        self.state = Some(Box::new(State::asleep(record, subscriptions, outbound, settled, spared_until)));
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
        let State { session, record, settled, spared_until, .. } = *state;
        let settled = if keep.journal.is_open(&settled) { Gate::Open } else { settled };
        let subscriptions = session.subscriptions;
        self.dozing = Some(Box::new(Dozing { record, subscriptions, outbound, settled, spared_until }));
    }
}

impl Slot {
    /// Locks the session's state.
    pub(super) fn state(&self) -> Held<'_> {
        let mut life = lock(&self.life);
        if life.dozing.is_some() {
            life.wake();
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

    /// There are hundreds of thousands of them.
    #[test]
    fn a_sleeping_slot_stays_small() {
        let bytes = (size_of::<Slot>(), size_of::<Dozing>());
        assert!(bytes.0 <= 128 && bytes.1 <= 184, "{bytes:?}");
        // While its client is connected.
        assert!(size_of::<State>() <= 600, "{}", size_of::<State>());
    }
}
