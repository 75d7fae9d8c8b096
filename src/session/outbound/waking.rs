//! What a crash leaves of how far a sleeping session was sent its messages, and what has to wait for that.
//!
//! When its client goes, the session's record says that no message from a number on has been sent (`sent_below`). The journal
//! learns that the client is back some time after it is; until then a crash finds the session asleep as before. So while
//! that may be:
//!
//! - A message from the queue that expires is sent only when the journal has the wake; whoever keeps the session is asked
//!   for it ([`Outbound::wants_wake`]). One that is sent as it comes is not in the journal yet, and the wake's record stands
//!   before it there.
//! - One behind a message that was given up, or is on its way to others, waits as well while the journal may still have that
//!   one.
//! - All others are sent at once: most messages never expire, and a wake is to cost no commit.
//!
//! Messages are sent in their order. So when a crash finds the session asleep, the first message from the mark on that expires
//! was not sent, and none behind it was; those before it count as sent as far as the window goes.

use super::{Entry, InFlight, Outbound, State};
use crate::{
    codec::QoS,
    message::Seq,
    session::{
        keeper::Keeper,
        outbound::transmit::Next,
        shelf::{Shelf, Shelved},
    },
    time::Timestamp,
};

/// A client has come back, and the journal may have its session as asleep.
pub(super) enum Waking<G> {
    /// Nothing has been said to the journal; with `wanted`, something waits for it.
    Unrecorded { wanted: bool },
    /// The journal has it when this gate is open.
    Recorded(G),
}

impl<K: Keeper> Outbound<K> {
    /// The client is about to come back, and the journal to be told: by the record behind `gate`, or later, if that is
    /// wanted.
    pub fn wakes(&mut self, gate: Option<K::Gate>) {
        self.waking = Some(gate.map_or(Waking::Unrecorded { wanted: false }, Waking::Recorded));
    }

    /// Whether messages wait for the journal to be told that the client is there.
    pub fn wants_wake(&self) -> bool {
        matches!(self.waking, Some(Waking::Unrecorded { wanted: true }))
    }

    /// The journal has been told, of a client that is there.
    pub fn wake_recorded(&mut self, gate: K::Gate) {
        if matches!(self.waking, Some(Waking::Unrecorded { .. })) {
            self.waking = Some(Waking::Recorded(gate));
        }
    }

    /// No message with this number or a higher one has been sent.
    pub fn sent_below(&self) -> Seq {
        let is_open = |f: &&InFlight<K>| !matches!(f.state, State::Confirmed(_));
        let in_flight = self.inflight.iter().rev().find(is_open).map(|f| f.seq);
        let last = in_flight.into_iter().chain(self.resting.last()).max();
        last.map_or(Seq(0), |last| Seq(last.0.saturating_add(1)))
    }

    /// Whether one that expires may not be sent as it comes: it would be in the journal before the wake.
    pub(super) fn is_unrecorded(&self) -> bool {
        matches!(self.waking, Some(Waking::Unrecorded { .. }))
    }
}

impl<G: Clone> Waking<G> {
    /// Why the journal has to know of the wake before a message that rests on that is sent.
    #[cold]
    pub(super) fn hold_back<K: Keeper<Gate = G>>(&mut self, keeper: &K) -> Option<Next<K>> {
        match self {
            Self::Recorded(gate) if keeper.is_open(gate) => None,
            Self::Recorded(gate) => {
                keeper.hurry();
                Some(Next::Wait(gate.clone()))
            }
            Self::Unrecorded { wanted } => {
                *wanted = true;
                Some(Next::Nothing)
            }
        }
    }
}

/// Whether a message may be sent only when the journal knows that its client is there. `handing_on` and `dropped` say
/// whether others before it may still be there after a crash.
pub(super) fn rests_on_wake<K: Keeper>(
    keeper: &K,
    message: &Entry<K>,
    handing_on: bool,
    dropped: Option<&K::Gate>,
) -> bool {
    if message.delivery.qos == QoS::AtMostOnce {
        return false;
    }
    let expires = keeper.expires_at(&message.kept) != Timestamp::NEVER;
    expires || handing_on || dropped.is_some_and(|gate| !keeper.is_open(gate))
}

/// The first message that a session which the journal has as asleep was certainly not sent, of the oldest `window` that
/// have a packet id. QoS 0 waits for nothing and has none.
pub(super) fn first_unsent<K: Keeper>(
    keeper: &K,
    waiting: &Shelf<K::Parked>,
    sent_below: Seq,
    window: usize,
) -> Seq {
    if sent_below == Seq::MAX {
        return Seq::MAX;
    }
    let oldest = waiting.iter().filter(|shelved| shelved.delivery.qos != QoS::AtMostOnce).take(window);
    let known: Vec<_> = oldest.filter(|shelved| shelved.seq >= sent_below).collect();
    let parked: Vec<_> = known.iter().map(|shelved| shelved.parked).collect();
    let first = keeper.first_to_expire(&parked).and_then(|at| known.get(at));
    first.map_or(Seq::MAX, |Shelved { seq, .. }| *seq)
}
