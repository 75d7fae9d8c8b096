//! Claims that pass from one session to another, when a member of a shared subscription goes.
//!
//! A message on disk names the session it was for. The record that hands the claim on stands after it, so recovery
//! applies it; a copy made by compaction names the session it is for now, and what a copy has to say differently is
//! remembered here until the claim ends.

use std::sync::Arc;

use super::{
    gate::Gate,
    journal::Journal,
    record::{Completion, HandedOn, Record, Target},
    state::{State, TakenOff, Urgency},
    stored::{Phase, Stored},
};
use crate::{
    message::{Seq, SessionNo},
    time::Timestamp,
};

/// A target's claim on a message.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The message.
    pub stored: Arc<Stored>,
    /// Index among the message's targets.
    pub target: u32,
    /// Whose it is now.
    pub session: SessionNo,
    /// Its number there.
    pub seq: Seq,
}

impl Journal {
    /// The same for a message that takes the place of another: that one's claim ends in the same commit.
    pub fn complete_instead(
        &self,
        stored: &Arc<Stored>,
        targets: Vec<Target>,
        completion: &Completion,
        claim: Option<&Claim>,
    ) {
        let now = self.shared().now();
        self.shared().change(|state| {
            state.complete(stored, targets, completion, now);
            if let Some(Claim { stored, target, session, seq }) = claim
                && state.take_off(stored, *target, TakenOff::Confirmed, now)
            {
                state.append(Record::Done(*session, *seq), Urgency::Rides, now);
            }
        });
    }

    /// A claim ends, with nothing in its place.
    pub fn give_up(&self, claim: &Claim) -> Gate {
        self.confirm(&claim.stored, claim.target, claim.session, claim.seq)
    }
}

impl State {
    /// Gives the claim `index` of a message, which is `from`'s, to another session. `None` when it has ended meanwhile.
    pub(super) fn hand_on(
        &mut self,
        stored: &Arc<Stored>,
        index: u32,
        from: (SessionNo, Seq),
        to: Target,
        now: Timestamp,
    ) -> Option<Gate> {
        let mut guard = stored.lock();
        let message = &mut *guard;
        match &mut message.phase {
            Phase::Early(early) => {
                if let Some(held) = &mut early.held {
                    let target =
                        held.targets.get_mut(index as usize).filter(|_| message.left.contains(index))?;
                    *target = to;
                    drop(guard);
                    self.write_now(stored, now);
                } else {
                    if early.has_confirmed(index) {
                        return None;
                    }
                    let handed_on = &mut early.rare().handed_on;
                    handed_on.retain(|(other, _)| *other != index);
                    handed_on.push((index, to));
                }
                Some(Gate::Message(Arc::clone(stored)))
            }
            Phase::Queued(_) | Phase::Written(_) => {
                if !message.left.contains(index) {
                    return None;
                }
                drop(guard);
                self.drop_handed_on(stored.id(), index);
                self.handed_on.entry(stored.id()).or_default().push((index, to.clone()));
                let (session, seq) = from;
                let record = Record::HandedOn(Box::new(HandedOn { session, seq, to }));
                Some(self.append(record, Urgency::Rides, now))
            }
            Phase::Settled => None,
        }
    }

    /// The claim has ended, or passed on once more.
    pub(super) fn drop_handed_on(&mut self, id: u64, index: u32) {
        if self.handed_on.is_empty() {
            return;
        }
        if let Some(claims) = self.handed_on.get_mut(&id) {
            claims.retain(|(other, _)| *other != index);
            if claims.is_empty() {
                self.handed_on.remove(&id);
            }
        }
    }
}
