//! From a publisher to its subscribers: resolve, deliver, and hand what must be kept to the journal.
//!
//! A message that a persistent session must keep is known to the journal as a whole only after it was pushed to all
//! its targets; confirmations that arrive before that are remembered on the message itself, so none can precede it in
//! the journal. No session's lock is held while another's is taken.

mod dead;
mod deliver;
mod route;
mod row;
mod shares;

use std::{mem, sync::Arc, task::Waker};

use deliver::{Batch, Outgoing};
pub(super) use route::{Route, RouteCache, Routes};
pub(super) use shares::{Share, Shares, group_share};

use super::{Broker, retained::Replaced, slot::Slot};
use crate::{
    codec::{PacketId, Publish, QoS},
    store::{Completion, Gate, Journal, Record, Stored, Target, Urgency},
    time::Timestamp,
};

/// Connections that got something during a batch of packets. Each is woken once, when this is dropped: at the end of
/// the batch, on an early return, and on unwinding alike.
#[derive(Default)]
pub(super) struct Touched {
    wakers: Vec<Waker>,
    /// For packets that are encoded once for several.
    room: Vec<u8>,
    /// Messages that have been given to all their subscribers, and whom the journal is told of in rows.
    given: Given,
}

/// Messages whose targets are known, and not to the journal yet. Until it is told they count as incomplete: what their
/// subscribers confirm meanwhile is remembered on the messages, and their publisher's acknowledgements wait. It is told before
/// anything else that a message's order could depend on.
#[derive(Default)]
struct Given {
    row: Vec<(Arc<Stored>, Vec<Target>, Completion)>,
    bytes: usize,
    journal: Option<Journal>,
}

/// The most in a row, of them and of messages for the same subscribers, and their bytes: some microseconds under the journal's
/// lock, or a session's.
pub(super) const ROW_MAX: usize = 64;
pub(super) const ROW_BYTES_MAX: usize = 64 * 1024;

impl Touched {
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// Completes what has been given to its subscribers.
    pub(super) fn complete(&mut self) {
        if let Some(journal) = &self.given.journal {
            journal.complete_all(&mut self.given.row);
            self.given.bytes = 0;
        }
    }

    /// Completes a message soon, in a row with those after it.
    fn complete_soon(
        &mut self,
        journal: &Journal,
        stored: &Arc<Stored>,
        targets: Vec<Target>,
        completion: Completion,
    ) {
        self.given.journal.get_or_insert_with(|| journal.clone());
        self.given.row.push((Arc::clone(stored), targets, completion));
        self.given.bytes += stored.size_bytes();
        if self.given.row.len() >= ROW_MAX || self.given.bytes >= ROW_BYTES_MAX {
            self.complete();
        }
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        self.complete();
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// Where a message came from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The publisher's session; its `state` is not locked by this thread.
    pub(super) slot: &'a Slot,
    /// A new QoS 2 packet id, to be held until PUBREL and journalled with the message.
    pub(super) inbound_qos2: Option<PacketId>,
    /// Its publisher waits for an acknowledgement, and can be told that it was refused.
    pub(super) is_answered: bool,
    /// It is the session's will, which is lent ([`super::slot::State::lend_will`]).
    pub(super) is_will: bool,
}

/// What became of a published message.
pub(super) struct Published {
    /// Opens when the publisher may be told so.
    pub(super) gate: Gate,
    /// Whether any subscription matched.
    pub(super) matched: bool,
    /// A new QoS 2 packet id that its publisher's session has still to hold.
    pub(super) to_hold: Option<PacketId>,
}

/// Why nothing was kept of a message; the publisher has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// No room for another retained message.
    #[error("the bound on retained messages is reached")]
    RetainedFull,
    /// A subscriber's queue is full, and its policy is to refuse.
    #[error("the queue of a subscriber is full")]
    QueueFull,
    /// No room to store it.
    #[error("the disk is full")]
    DiskFull,
    /// The journal has failed.
    #[error("the store has failed")]
    StoreFailed,
}

/// What a message asks for beyond its delivery.
#[derive(Clone, Copy)]
struct Needs {
    /// A persistent session keeps it.
    must_keep: bool,
    /// A member of a shared subscription may be gone when its turn comes, and another one needs what it did not.
    may_pass_on: bool,
    /// It is to be the retained value of its topic.
    retain: bool,
    /// The publisher's session keeps its packet id.
    inbound: Option<PacketId>,
}

impl Needs {
    fn has_to_store(self) -> bool {
        self.must_keep || self.retain || self.inbound.is_some()
    }
}

impl Broker {
    /// Routes one message. `publish` carries it; its topic is `route.topic`.
    pub(super) fn dispatch(
        &self,
        route: &Route,
        publish: &Publish<'_>,
        origin: Origin<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Result<Published, Refused> {
        let mut shares = Shares::new(route, publish, Some(origin.slot.no));
        if origin.is_answered {
            self.find_room(&mut shares, route, publish)?;
        }
        let needs = Needs {
            must_keep: route.has_persistent
                && shares.iter().any(|s| s.slot.keep.persistent && self.keeps(&s)),
            may_pass_on: publish.qos != QoS::AtMostOnce && !route.groups.is_empty(),
            // [MQTT-3.3.1-7], [MQTT3-3.3.1-11]
            retain: publish.retain && !publish.payload.is_empty(),
            inbound: origin.inbound_qos2.filter(|_| origin.slot.keep.persistent),
        };
        let matched = !shares.is_empty();
        let mut room = mem::take(&mut touched.room);
        let mut outgoing = Outgoing::new(route, publish, now);
        outgoing.is_admitted = origin.is_answered;
        let mut batch = Batch::new(&outgoing, shares.len_max(), &mut room);
        let published = if needs.has_to_store() || needs.may_pass_on || publish.retain {
            let gate = self.dispatch_kept(&shares, outgoing, batch, needs, origin, touched)?;
            Published { gate, matched, to_hold: None }
        } else {
            // With nothing to keep nobody waits, but for the letters of those that do not get it.
            self.deliver_all(&shares, &outgoing, &mut batch, touched);
            let gate = self.send_newest(&mut batch, &outgoing, touched);
            Published { gate, matched, to_hold: origin.inbound_qos2 }
        };
        touched.room = room;
        Ok(published)
    }

    /// The same for a message of which something outlives its delivery.
    fn dispatch_kept(
        &self,
        shares: &Shares<'_>,
        mut outgoing: Outgoing<'_>,
        mut batch: Batch<'_>,
        mut needs: Needs,
        origin: Origin<'_>,
        touched: &mut Touched,
    ) -> Result<Gate, Refused> {
        let publish = outgoing.publish;
        let asks_the_disk = needs.has_to_store() || publish.retain;
        // More than that its subscribers confirm it: others look whether it is complete, or it has records beside it; or it is a
        // will, and its session forgets it as soon as this is done.
        let asks_more =
            needs.may_pass_on || publish.retain || publish.qos != QoS::AtLeastOnce || !origin.is_answered;
        if asks_the_disk && self.journal.poisoned() {
            return Err(Refused::StoreFailed);
        }
        let stored = if needs.has_to_store() {
            self.journal.message_if_room(&outgoing.copy())
        } else {
            needs.may_pass_on.then(|| self.journal.message(outgoing.copy()))
        };
        outgoing.may_store = stored.is_some() || !needs.has_to_store();
        if !outgoing.may_store && origin.is_answered {
            return Err(Refused::DiskFull);
        }
        if !outgoing.may_store && needs.retain {
            self.drops.not_retained(&origin.slot.keep.client_id, outgoing.topic, Refused::DiskFull);
            needs.retain = false;
        }
        let replaced = self.retain(&outgoing, needs, stored.as_ref(), origin)?;
        let is_exact_will = origin.is_will && publish.qos == QoS::ExactlyOnce;
        // From memory: its session is rid of it first.
        let is_from_memory = is_exact_will && !outgoing.may_store;
        let after_will = is_from_memory.then(|| self.take_will(origin.slot)).flatten();
        let mut outgoing = outgoing.with_stored(stored.as_ref());
        outgoing.after_will = after_will.as_ref();
        self.deliver_all(shares, &outgoing, &mut batch, touched);
        let letters = self.send_newest(&mut batch, &outgoing, touched);
        // The id is held and handed to the journal under one lock, so that a snapshot has both or neither; a will likewise.
        let changes_own = origin.inbound_qos2.is_some() || is_exact_will;
        let mut own = changes_own.then(|| origin.slot.state());
        let will_of = own.as_mut().filter(|_| is_exact_will);
        let will_of = will_of.and_then(|own| own.record_without_will(&origin.slot.keep));
        let may_wait = !asks_more && matches!(letters, Gate::Open);
        let completion = completion(&batch, publish, needs, replaced.as_ref(), origin);
        let completion = Completion { will_of, ..completion };
        let gate = if may_wait && let Some(stored) = &stored {
            touched.complete_soon(&self.journal, stored, batch.targets, completion);
            Gate::Message(Arc::clone(stored))
        } else {
            touched.complete();
            self.complete(&outgoing, batch.targets, completion, replaced.as_ref())
        };
        // Behind the letters of those that do not get it.
        let is_own = |stored: &Arc<Stored>| !self.journal.is_open(&Gate::Message(Arc::clone(stored)));
        let is_last = matches!(letters, Gate::Open) || stored.as_ref().is_some_and(is_own);
        let gate = if is_last { gate } else { letters };
        if let Some((id, own)) = origin.inbound_qos2.zip(own.as_mut()) {
            own.session.inbound.accept(id, gate.clone());
        }
        drop(own);
        if let Some(replaced) = &replaced {
            self.let_go_of_replaced(replaced);
        }
        Ok(gate)
    }

    /// A will goes, of which the journal is to keep nothing; the gate opens when its session is without it there too.
    fn take_will(&self, slot: &Slot) -> Option<Gate> {
        let mut state = slot.state();
        let record = state.record_without_will(&slot.keep)?;
        Some(self.journal.append(Record::Session(record), Urgency::Now))
    }

    /// Makes it the retained value of its topic, or clears that [MQTT-3.3.1-8], [MQTT3-3.3.1-12]; `None`: neither.
    fn retain(
        &self,
        outgoing: &Outgoing<'_>,
        needs: Needs,
        stored: Option<&Arc<Stored>>,
        origin: Origin<'_>,
    ) -> Result<Option<Replaced>, Refused> {
        let clears = outgoing.publish.retain && outgoing.publish.payload.is_empty();
        if !needs.retain && !clears {
            return Ok(None);
        }
        let message = needs.retain.then(|| outgoing.copy());
        match self.set_retained(outgoing.topic, message.as_ref(), stored) {
            Ok(replaced) => Ok(Some(replaced)),
            // Who cannot be told is not refused: those who are there get it, and the topic keeps what it has.
            Err(Refused::RetainedFull) if !origin.is_answered => {
                self.drops.not_retained(&origin.slot.keep.client_id, outgoing.topic, Refused::RetainedFull);
                Ok(None)
            }
            Err(refused) => {
                if let Some(stored) = stored {
                    self.journal.withdraw(stored);
                }
                Err(refused)
            }
        }
    }

    /// All have got it: tells the journal who they are. The gate is the publisher's.
    fn complete(
        &self,
        outgoing: &Outgoing<'_>,
        targets: Vec<Target>,
        completion: Completion,
        replaced: Option<&Replaced>,
    ) -> Gate {
        let Some(stored) = outgoing.stored else {
            // Nothing was kept but, perhaps, the clearing of the topic.
            return replaced.map_or(Gate::Open, |_| self.retained_gate(outgoing.topic));
        };
        self.journal.complete(stored, targets, completion);
        let gate = Gate::Message(Arc::clone(stored));
        // One that needs no commit for itself waits all the same for what became of its topic.
        if replaced.is_some() && self.journal.is_open(&gate) {
            self.retained_gate(outgoing.topic)
        } else {
            gate
        }
    }
}

fn completion(
    batch: &Batch<'_>,
    publish: &Publish<'_>,
    needs: Needs,
    replaced: Option<&Replaced>,
    origin: Origin<'_>,
) -> Completion {
    Completion {
        publisher: origin.slot.keep.persistent.then_some(origin.slot.no),
        inbound_qos2: needs.inbound,
        will_of: None,
        retained: replaced.and_then(|r| r.version),
        // A will's session is about to forget it: held back, a crash would leave it to nobody.
        may_elide: batch.may_elide
            && origin.is_answered
            && publish.qos != QoS::ExactlyOnce
            && !publish.retain,
        keep_body: batch.is_awaited,
    }
}
