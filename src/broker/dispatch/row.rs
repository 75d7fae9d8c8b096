//! Messages that came in one read and go the same way: each subscriber is given all of them under one hold of its session's
//! lock, and its connection is woken once.
//!
//! Ten publishers that send to one subscriber want its lock all the time, and a publisher with a hundred subscribers finds none
//! of their sessions in the cache any more when its next message comes. Whoever gets a row gets it in its order, so nobody can
//! tell it from one message after the other.

use std::sync::Arc;

use super::{
    super::{Broker, slot::Slot},
    Batch, Needs, Origin, Outgoing, Published, Refused, Route, Shares, Touched, completion,
    deliver::Handed,
    shares::direct_share,
};
use crate::{
    codec::{Publish, QoS},
    message::{SessionNo, size_bytes},
    routing::Match,
    store::{Gate, Stored},
    time::Timestamp,
};

/// Of a PUBLISH without properties, as a rule: fixed header, lengths and packet id.
const HEADER_BYTES: usize = 8;

/// One message of a row.
struct InRow<'a> {
    outgoing: Outgoing<'a>,
    batch: Batch<'a>,
}

impl InRow<'_> {
    /// Somebody would have to keep it, and there is no room on the disk.
    fn is_refused(&self) -> bool {
        !self.outgoing.may_store
    }
}

impl Broker {
    /// Routes a row of messages of one QoS and without RETAIN: see [`Route::takes_rows`]. What became of each. They are of QoS 2
    /// only if nothing of them has to be stored.
    pub(in crate::broker) fn dispatch_row(
        &self,
        route: &Route,
        row: &[Publish<'_>],
        origin: Origin<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Vec<Result<Published, Refused>> {
        let Some(first) = row.first() else { return Vec::new() };
        let shares = Shares::new(route, first, Some(origin.slot.no));
        let must_keep = route.has_persistent
            && shares.iter().any(|share| share.slot.keep.persistent && self.keeps(&share));
        let bytes: usize = row.iter().map(|publish| size_bytes(&route.topic, publish)).sum();
        // Who is to be told what of them he may keep, is told one by one.
        let is_plain = origin.is_answered && !self.journal.poisoned() && self.journal.has_room(bytes);
        if must_keep && !is_plain {
            return row.iter().map(|one| self.dispatch(route, one, origin, now, touched)).collect();
        }
        let outgoing = |publish| {
            let mut outgoing = Outgoing::new(route, publish, now);
            outgoing.is_admitted = origin.is_answered;
            outgoing
        };
        let outgoing: Vec<_> = row.iter().map(outgoing).collect();
        let store = |one: &Outgoing<'_>| self.journal.message_if_room(&one.copy());
        let stored: Vec<Option<Arc<Stored>>> =
            outgoing.iter().map(|one| if must_keep { store(one) } else { None }).collect();
        let mut rooms = vec![Vec::new(); row.len()];
        let mut messages = Vec::with_capacity(row.len());
        for ((outgoing, stored), room) in outgoing.into_iter().zip(&stored).zip(&mut rooms) {
            let batch = Batch::new(&outgoing, route.direct.len(), room);
            let may_store = stored.is_some() || !must_keep;
            let mut outgoing = outgoing.with_stored(stored.as_ref());
            outgoing.may_store = may_store;
            messages.push(InRow { outgoing, batch });
        }
        let bytes = bytes + row.len() * HEADER_BYTES;
        for subscriber in &route.direct {
            self.deliver_row(subscriber, &mut messages, bytes, origin.slot.no, touched);
        }
        let matched = !shares.is_empty();
        let finish = |one: InRow<'_>| {
            if one.is_refused() {
                return Err(Refused::DiskFull);
            }
            let publish = one.outgoing.publish;
            let to_hold = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce);
            Ok(Published { gate: self.finish_one(one, origin, touched), matched, to_hold })
        };
        messages.into_iter().map(finish).collect()
    }

    /// Gives one subscriber its share of each.
    fn deliver_row<'a>(
        &self,
        (slot, matched): &'a (Arc<Slot>, Match<SessionNo>),
        messages: &mut [InRow<'a>],
        bytes: usize,
        publisher: SessionNo,
        touched: &mut Touched,
    ) {
        let share = |one: &InRow<'a>| {
            let publish = one.outgoing.publish;
            direct_share(slot, matched, Some(publisher), (publish.qos, publish.retain))
        };
        let Some(first) = messages.first().and_then(share) else { return };
        // One that dozes is not woken for what it does not get.
        if self.sleeps_through(&first) {
            for _ in messages.iter() {
                self.drops.asleep();
            }
            return;
        }
        let mut held = slot.state();
        let state = &mut *held;
        if state.ended {
            return;
        }
        if !state.session.outbound.queue_waits_for_client()
            && let Some(link) = &mut state.session.link
        {
            link.expect(bytes);
        }
        let mut handed = Handed::Not;
        for one in messages.iter_mut().filter(|one| !one.is_refused()) {
            let Some(share) = share(one) else { continue };
            handed = handed.max(self.hand_over(&share, state, &one.outgoing, &mut one.batch));
        }
        self.after_handing(handed, slot, state, touched);
    }

    /// All have got it: tells the journal soon, if anybody keeps it. The gate is the publisher's.
    fn finish_one(&self, one: InRow<'_>, origin: Origin<'_>, touched: &mut Touched) -> Gate {
        let InRow { outgoing, mut batch } = one;
        let letters = self.send_newest(&mut batch, &outgoing, touched);
        let Some(stored) = outgoing.stored else { return letters };
        let needs = Needs { must_keep: true, may_pass_on: false, retain: false, inbound: None };
        let completion = completion(&batch, outgoing.publish, needs, None, origin);
        if matches!(letters, Gate::Open) {
            touched.complete_soon(&self.journal, stored, batch.targets, completion);
            return Gate::Message(Arc::clone(stored));
        }
        touched.complete();
        let gate = self.complete(&outgoing, batch.targets, completion, None);
        // Behind the letters of those that do not get it.
        if self.journal.is_open(&gate) { letters } else { gate }
    }
}
