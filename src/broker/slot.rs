//! A session's place in the broker: its protocol state, its connection, and what the journal knows of it.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
};

use super::{counters::Counters, doze::Life, farewells::Farewells, keep::Keep};
use crate::{
    message::SessionNo,
    session::{Answer, Dormant, Link, Outbound, Session, Subscribed, Verdict},
    store::{Gate, Record, SessionRecord, WillRecord},
    time::Timestamp,
};

/// One session. Lock order: `handling`, then `state`; no thread ever holds two sessions' `state`.
///
/// Its size is not that of anything a connection has: else the allocator would put it between such things, and a page of which
/// everything but a sleeping session is gone stays (`doze.rs`, the test).
pub(super) struct Slot {
    pub(super) no: SessionNo,
    pub(super) keep: Keep,
    /// Held while a connection handles a batch of packets, so that a connection that takes over can wait for the old
    /// one's last packet before it handles its first.
    pub(super) handling: Mutex<()>,
    pub(super) life: Mutex<Life>,
    online: AtomicBool,
    busy: AtomicBool,
    /// Which of the rules for queues there are for its own; changes with the user its client comes as.
    queue_rules: AtomicU32,
    /// It sleeps with messages at hand that were not on disk yet, and is looked at again soon. Changed under the lock of
    /// its state.
    pub(super) restless: AtomicBool,
    /// See [`super::registry::Registry::schedule`]; changed under the registry's lock.
    due_at: AtomicU64,
}

/// What the session's lock guards.
pub(super) struct State {
    pub(super) session: Session<Keep>,
    pub(super) connection: Option<Attached>,
    /// Settings, will and deadlines. For a persistent session, as the journal has them or is about to.
    pub(super) record: SessionRecord,
    /// Opens when the latest change of session or subscriptions is durable.
    pub(super) settled: Gate,
    /// After a crash: asleep as it is, it ends no sooner, whatever the record says.
    pub(super) spared_until: Timestamp,
    /// The client has come back with the will it had, and the journal still has that as disarmed: for a short wake it
    /// is not written. See [`super::lifecycle::ARM_AFTER`].
    pub(super) arming: bool,
    /// Somebody is publishing the record's will at this moment.
    pub(super) will_is_leaving: bool,
    /// The session is gone: nothing may be delivered to it or journalled for it any more.
    pub(super) ended: bool,
}

/// The connection that serves a session at present.
pub(super) struct Attached {
    /// Tells this connection from earlier and later ones.
    pub(super) epoch: u64,
    pub(super) waker: Option<Waker>,
    /// The waker has been called, or is about to be, since the connection last looked.
    pub(super) notified: bool,
}

impl Slot {
    pub(super) fn new(no: SessionNo, keep: Keep, state: State, queue_rules: u32) -> Self {
        let life = Mutex::new(Life::new(state, &keep));
        Self {
            no,
            keep,
            handling: Mutex::new(()),
            life,
            online: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            queue_rules: AtomicU32::new(queue_rules),
            restless: AtomicBool::new(false),
            due_at: AtomicU64::new(Timestamp::NEVER.0),
        }
    }

    /// When it is to be looked at, by the registry's books; `NEVER`: it is not in them.
    pub(super) fn due_at(&self) -> Timestamp {
        Timestamp(self.due_at.load(Ordering::Relaxed))
    }

    pub(super) fn set_due_at(&self, at: Timestamp) {
        self.due_at.store(at.0, Ordering::Relaxed);
    }

    /// A hint for choosing among a shared subscription's members; may be out of date.
    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// A hint for the same: messages wait for this client, which is online, since it does not keep up.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Takes note of whether messages wait; its state is locked.
    pub(super) fn note_busy(&self, state: &State) {
        let is_full = |l: &Link<Gate>| l.out.len() >= l.terms.out_bytes_max;
        let busy = state.session.outbound.has_backlog() || state.session.link.as_deref().is_some_and(is_full);
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// The rules for its queue, as [`super::queues::Queues::rules_for`] gives them.
    pub(super) fn queue_rules(&self) -> u32 {
        self.queue_rules.load(Ordering::Relaxed)
    }

    /// What waits already stays under the rule it came under.
    pub(super) fn set_queue_rules(&self, rules: u32) {
        self.queue_rules.store(rules, Ordering::Relaxed);
    }

    pub(super) fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
    }
}

impl State {
    /// That of a session nobody is connected to, and for which nothing waits.
    pub(super) fn asleep(
        record: SessionRecord,
        subscriptions: Subscribed,
        outbound: Dormant,
        settled: Gate,
        spared_until: Timestamp,
    ) -> Self {
        let outbound = Outbound::wake(outbound, record.inflight_max);
        Self {
            session: Session { subscriptions, ..Session::new(outbound) },
            connection: None,
            record,
            settled,
            spared_until,
            arming: false,
            will_is_leaving: false,
            ended: false,
        }
    }

    /// What has to be kept of its outbound half for `asleep` to make the same state of it; `None` if that cannot be.
    pub(super) fn dormant(&self, keep: &Keep) -> Option<Dormant> {
        let is_stirring = self.connection.is_some() || self.arming || self.will_is_leaving || self.ended;
        if is_stirring || !keep.persistent {
            return None;
        }
        self.session.dormant(keep)
    }

    /// Whether the connection numbered `epoch` is the one that serves this session.
    pub(super) fn is_served_by(&self, epoch: u64) -> bool {
        self.connection.as_ref().is_some_and(|c| c.epoch == epoch)
    }

    /// When the session ends if nobody connects: NEVER while connected.
    pub(super) fn expires_at(&self) -> Timestamp {
        self.record.expires_at.max(self.spared_until)
    }

    /// When there is something to do for the session while nobody is connected.
    pub(super) fn next_due(&self) -> Timestamp {
        // Whoever publishes the will looks again afterwards.
        let will = self.record.will.as_ref().filter(|_| !self.will_is_leaving);
        self.expires_at().min(will.map_or(Timestamp::NEVER, |will| will.due_at))
    }

    /// The will, to be published without this lock. It stays in the record until `will_left`, so that a record or a
    /// snapshot of the session that is journalled meanwhile does not lose it.
    pub(super) fn lend_will(&mut self) -> Option<WillRecord> {
        let will = self.armed_will().filter(|_| !self.will_is_leaving)?.clone();
        self.will_is_leaving = true;
        Some(will)
    }

    /// The will, if it is to be published. One whose client has said good-bye stays in the record, without a due time,
    /// for the next connection to find it unchanged.
    pub(super) fn armed_will(&self) -> Option<&WillRecord> {
        let is_connected = self.record.expires_at == Timestamp::NEVER;
        self.record.will.as_deref().filter(|will| is_connected || will.due_at != Timestamp::NEVER)
    }

    /// The session's record, to be appended: it says what is so now.
    pub(super) fn record_now(&mut self) -> Record {
        self.arming = false;
        Record::Session(Box::new(self.record.clone()))
    }

    /// The same without the will that was lent; `None` if the journal has none. For one of QoS 2: in the journal any later, a
    /// crash would publish it again when it has been sent.
    pub(super) fn record_without_will(&mut self, keep: &Keep) -> Option<Box<SessionRecord>> {
        if !self.will_is_leaving || !keep.persistent {
            return None;
        }
        self.record.will.take()?;
        self.arming = false;
        Some(Box::new(self.record.clone()))
    }

    /// The will that was lent is in the journal, unless a new connection has brought another one meanwhile.
    pub(super) fn will_left(&mut self) {
        if std::mem::take(&mut self.will_is_leaving) {
            self.record.will = None;
        }
    }

    /// The waker to call when the connection has something new to look at; `None` if it has been called already.
    pub(super) fn notify(&mut self) -> Option<Waker> {
        let connection = self.connection.as_mut()?;
        if connection.notified {
            return None;
        }
        let waker = connection.waker.clone()?;
        connection.notified = true;
        Some(waker)
    }

    /// Answers the client, behind `gate` and behind the answers before.
    pub(super) fn answer(&mut self, gate: Gate, answer: Answer, now: Timestamp) {
        let Some(link) = &mut self.session.link else { return };
        if matches!(gate, Gate::Open) {
            link.answer_now(gate, answer, now);
        } else {
            link.answer(gate, answer);
        }
    }

    /// Encodes everything that may leave now into the link's out-buffer, without waiting for anything.
    pub(super) fn encode_ready(&mut self, keep: &Keep, now: Timestamp) {
        // What it waits for is looked at again by the connection itself, which is woken.
        let _pending = self.session.transmit(keep, now);
    }

    /// Detaches the connection from outside: it says goodbye with `verdict` (v5) and closes.
    pub(super) fn kick(&mut self, verdict: Verdict, farewells: &Farewells, counters: &Counters) {
        let Some(connection) = self.connection.take() else { return };
        let mut bytes = Vec::new();
        if let Some(mut link) = self.session.link.take() {
            link.say_goodbye(verdict);
            counters.sent(link.tally, link.out.len());
            bytes = link.out;
        }
        farewells.leave(connection.epoch, bytes, verdict);
        if let Some(waker) = connection.waker {
            waker.wake();
        }
    }
}
