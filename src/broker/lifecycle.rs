//! The end of connections and sessions: wills, expiry, sleep.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tracing::{info, warn};

use super::{
    Broker,
    connect::{TAKEN_OVER, wake_urgency},
    dead_letters::DeadReason,
    dispatch::{Origin, Touched},
    doze::Held,
    keep::Ended,
    slot::{Slot, State},
};
use crate::{
    codec::Publish,
    message::expires_at,
    session::Remains,
    store::{Record, Urgency, WillRecord},
    sync::lock,
    time::Timestamp,
};

/// How often `handle_timeout` wants to be called at least.
const TICK: Duration = Duration::from_secs(1);

/// How long a client that came back with the will it had before, and that it had taken back by its DISCONNECT, is
/// connected before the journal has to know that the will counts again.
///
/// A device that wakes, says what it has to say and leaves is gone by then: its wake writes nothing for its will. The
/// price: a broker that crashes in the first seconds of such a connection has forgotten that the device was awake, and
/// does not publish its will. The other way round nothing is given up: on disk the will counts only while a connection
/// does that the journal knows of, and the DISCONNECT that ends that one is written within `done_interval`
/// [MQTT-3.14.4-3].
pub(super) const ARM_AFTER: Duration = Duration::from_secs(10);

/// A DISCONNECT from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parting {
    /// Reason code 0x04: the will is to be published all the same.
    pub(super) with_will: bool,
    /// v5 may change the session expiry on leaving, in seconds.
    pub(super) session_expiry: Option<u32>,
}

impl Broker {
    /// Runs what is due: delayed wills, the end of sessions, of retained messages. Returns when to call again.
    pub fn handle_timeout(&self, now: Timestamp) -> Timestamp {
        self.looked_after_at.store(now.0, Ordering::Relaxed);
        self.expire_retained(now);
        self.rest_restless();
        let mut touched = Touched::default();
        loop {
            // What sessions leave behind has to be dealt with before more of them end.
            if self.letters.is_backlogged() {
                break;
            }
            let Some(slot) = lock(&self.registry).pop_due(now) else { break };
            self.handle_due(&slot, now, &mut touched);
        }
        self.send_letters(now, &mut touched);
        let next = lock(&self.registry).next_due();
        next.unwrap_or(Timestamp::NEVER).min(self.letters_due(now)).min(now.after(TICK))
    }

    /// Ends a session that sleeps and whose time is over; whether it was so.
    pub(super) fn end_if_expired(&self, slot: &Arc<Slot>, now: Timestamp) -> bool {
        let state = slot.state();
        let is_over = !state.ended && state.connection.is_none() && state.expires_at() <= now;
        if is_over {
            info!(client_id = &*slot.keep.client_id, "session expired");
            // Under the same hold of the lock: a client that comes back at this moment finds it ended, or in time.
            self.end_locked(slot, state, Ended::Expired, now);
        }
        is_over
    }

    fn handle_due(&self, slot: &Arc<Slot>, now: Timestamp, touched: &mut Touched) {
        if self.end_if_expired(slot, now) {
            return;
        }
        let mut state = slot.state();
        if state.connection.is_some() && state.arming {
            let gate = self.journal.append(state.record_now(), Urgency::Rides);
            state.session.outbound.wake_recorded(gate);
        }
        if state.ended || state.connection.is_some() {
            return;
        }
        let will = match &state.record.will {
            Some(will) if will.due_at <= now => state.lend_will(),
            _ => None,
        };
        drop(state);
        if let Some(will) = will {
            self.publish_will(slot, will, now, touched);
            let mut state = slot.state();
            state.will_left();
            if !state.ended {
                state.settled = self.journal.append(state.record_now(), Urgency::Now);
            }
        }
        let next = slot.state().next_due();
        lock(&self.registry).schedule(next, slot.no);
    }

    /// The connection is gone, for whatever reason; `parting` is the client's DISCONNECT, if it sent one.
    pub(super) fn after_connection<'a>(
        &self,
        slot: &'a Arc<Slot>,
        mut state: Held<'a>,
        parting: Option<Parting>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        state.connection = None;
        state.session.link = None;
        slot.set_online(false);
        for kept in state.session.outbound.unconfirmed() {
            slot.keep.write_now(kept);
        }
        state.session.outbound.unload(&slot.keep);
        state.session.outbound.rest(&slot.keep);
        self.note_restless(slot, &state);
        // Whether the journal may have the will as armed.
        let before = (state.record.expiry, state.record.will.is_some() && !state.arming);
        let is_clean = parting.is_some_and(|p| !p.with_will);
        if let Some(seconds) = parting.and_then(|p| p.session_expiry) {
            state.record.expiry = Duration::from_secs(u64::from(seconds)).min(self.config.session_expiry_max);
        }
        let ends = state.record.expiry.is_zero() || !slot.keep.persistent;
        // [MQTT-3.14.4-3], [MQTT3-3.14.4-3]: without a due time it is nobody's to publish.
        if is_clean && ends {
            state.record.will = None;
        }
        if ends {
            self.end_locked(slot, state, Ended::WithConnection, now);
            return;
        }
        state.record.expires_at = now.after(state.record.expiry);
        state.record.sent_below = state.session.outbound.sent_below();
        let mut due = None;
        if let Some(will) = state.record.will.as_mut().filter(|_| !is_clean) {
            will.due_at = now.after(will.delay);
            if will.delay.is_zero() {
                due = state.lend_will();
            }
        }
        if let Some(will) = due {
            // Into the journal before the record that no longer has it; not under the lock, as it may be for its own
            // session.
            drop(state);
            self.publish_will(slot, will, now, touched);
            state = slot.state();
            state.will_left();
        }
        if state.ended {
            return;
        }
        // Only falling asleep as before may wait: a will that is due, published or taken back, or another expiry, may not.
        let (expiry, was_armed) = before;
        let is_due = state.armed_will().is_some();
        let falls_asleep_as_before = expiry == state.record.expiry && !was_armed && !is_due;
        let urgency = if falls_asleep_as_before { wake_urgency(expiry) } else { Urgency::Rides };
        self.journal.append(state.record_now(), urgency);
        let next = state.next_due();
        drop(state);
        lock(&self.registry).schedule(next, slot.no);
    }

    /// Sees to it that a sleeping session is looked at again when more of it is on disk.
    pub(super) fn note_restless(&self, slot: &Slot, state: &State) {
        let sleeps = state.session.link.is_none() && slot.keep.persistent;
        if sleeps && state.session.is_restless(&slot.keep) && !slot.restless.swap(true, Ordering::Relaxed) {
            lock(&self.restless).push(slot.no);
        }
    }

    /// What sleeping sessions had at hand has become durable meanwhile.
    fn rest_restless(&self) {
        let sessions = std::mem::take(&mut *lock(&self.restless));
        for no in sessions {
            let Some(slot) = lock(&self.registry).by_no(no) else { continue };
            let mut state = slot.state();
            slot.restless.store(false, Ordering::Relaxed);
            if state.session.link.is_none() && !state.ended {
                state.session.outbound.rest(&slot.keep);
                self.note_restless(&slot, &state);
            }
        }
    }

    /// Ends a session for good, for a client that begins anew; `false` if another thread does or did.
    pub(super) fn end_session(&self, slot: &Arc<Slot>, now: Timestamp) -> bool {
        let state = slot.state();
        let lives = !state.ended;
        if lives {
            self.end_locked(slot, state, Ended::CleanStart, now);
        }
        lives
    }

    fn end_locked<'a>(&self, slot: &'a Arc<Slot>, mut state: Held<'a>, why: Ended, now: Timestamp) {
        let mut touched = Touched::default();
        state.kick(TAKEN_OVER, &self.farewells, &self.counters);
        state.ended = true;
        slot.set_online(false);
        // The end of the session is the last moment for its will [MQTT-3.1.2-8].
        let will = state.lend_will();
        let subscriptions = std::mem::take(&mut state.session.subscriptions);
        drop(state);
        self.change_subscriptions(|all| {
            for (filter, _) in subscriptions.iter() {
                all.remove(slot.no, filter);
            }
        });
        if let Some(will) = will {
            self.publish_will(slot, will, now, &mut touched);
        }
        // Nothing is given to it any more. What it leaves to others is theirs before the journal has its end.
        let Remains { leaving, mut unconfirmed } = slot.state().session.outbound.dissolve(&slot.keep);
        self.hand_on(slot, leaving, now, &mut touched);
        let mut state = slot.state();
        let messages = unconfirmed.len();
        let dead = DeadReason::of_ended(why);
        unconfirmed.retain(|(seq, kept)| slot.keep.dead(*seq, kept, dead).is_none());
        if slot.keep.persistent {
            state.settled = self.journal.append(Record::Gone(slot.no), Urgency::Now);
        }
        for (_, kept) in &unconfirmed {
            slot.keep.forget(kept);
        }
        self.drops.session_ended(&slot.keep.client_id, why, messages);
        let gate = state.settled.clone();
        drop(state);
        lock(&self.registry).remove(slot, gate, |gate| self.journal.is_open(gate));
    }

    /// Publishes a will taken from its session. Nobody is told when it cannot be kept: it is logged.
    pub(super) fn publish_will(&self, slot: &Slot, will: WillRecord, now: Timestamp, touched: &mut Touched) {
        let WillRecord { mut message, expiry, .. } = will;
        message.expires_at = expires_at(expiry, now);
        // It may have come when retained messages were still on.
        let retain = message.retain && self.config.features.retain;
        let publish = Publish { retain, ..message.to_packet(now) };
        let route = self.route(message.topic.clone());
        let origin = Origin { slot, inbound_qos2: None, is_answered: false, is_will: true };
        match self.dispatch(&route, &publish, origin, now, touched) {
            Ok(_) => {
                info!(client_id = &*slot.keep.client_id, topic = message.topic.as_str(), "will published");
            }
            Err(refused) => {
                warn!(client_id = &*slot.keep.client_id, topic = message.topic.as_str(), reason = %refused, "will lost");
            }
        }
    }

    /// Journals the next block of sequence numbers when the present one is half used; `true` if it did. It waits for
    /// nothing: at a few thousand messages a second the other half is gone before a confirmation's commit comes, and
    /// what waits for a number is written to disk. But after a restart no session has a number left, and that each client
    /// comes back is no reason for a commit each: the first message that needs a number asks for one.
    /// Also that the client is there, where messages wait for that.
    pub(super) fn reserve_numbers(&self, slot: &Slot, state: &mut State) -> bool {
        if !slot.keep.persistent {
            return false;
        }
        let until = state.session.outbound.wanted_reservation(&slot.keep);
        if until.is_none() && !state.session.outbound.wants_wake() {
            return false;
        }
        let outbound = &state.session.outbound;
        let may_wait = !outbound.has_numbers() && !outbound.wants_wake();
        let urgency = if may_wait { wake_urgency(state.record.expiry) } else { Urgency::Now };
        state.record.seq_reserved = until.unwrap_or(state.record.seq_reserved);
        let gate = self.journal.append(state.record_now(), urgency);
        if let Some(until) = until {
            state.session.outbound.reserving(until, gate.clone());
        }
        if state.connection.is_some() {
            state.session.outbound.wake_recorded(gate);
        }
        true
    }
}
