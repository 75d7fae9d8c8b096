//! What the journal's one lock guards: the open batch, the messages held back, the books.
//!
//! Every change to a message and the record that tells of it happen in one hold of this lock; hence a message stands
//! in the journal before its confirmations do.

use std::{collections::HashMap, sync::Arc, task::Waker, time::Duration};

use super::{
    batch::{Batch, Item},
    config::{Config, Durability},
    gate::{CommitNo, Gate, Waiters, Wakers},
    hold::{Hold, Left},
    ledger::Ledger,
    record::{Completion, Marks, Record, Target},
    space::Space,
    stored::{Bits, Held, Phase, Stored, StoredState},
};
use crate::{
    message::{Seq, SessionNo},
    time::Timestamp,
};

/// A batch is taken when it has grown to this, even if nobody waits for it.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The longest a `Lazy` record waits for a commit of its own.
pub const LAZY_INTERVAL: Duration = Duration::from_secs(3_600);

/// Whether a record may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for its gate: it starts a commit.
    Now,
    /// It rides the next commit, or the one after `done_interval`.
    Rides,
    /// It rides the next commit, or the one after `LAZY_INTERVAL`.
    Lazy,
}

/// How a target came off a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenOff {
    /// The client has confirmed it: it needs the message no more, whatever becomes of the broker.
    Confirmed,
    /// A record in the journal says so, and says it durably only when it is committed.
    ByRecord,
}

/// Whether the journal takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Running,
    /// A write failed. What is on disk stays; nothing more is promised.
    Poisoned,
    Closed,
}

#[derive(Debug)]
pub(super) struct State {
    config: Config,
    pub(super) health: Health,
    pub(super) open: Batch,
    /// The empty batch that is opened next.
    pub(super) next: Batch,
    /// The number the open batch will be committed under.
    pub(super) open_no: CommitNo,
    /// Bytes of the batch that is being written.
    pub(super) writing_bytes: usize,
    /// All commits up to this one are durable.
    pub(super) durable: CommitNo,
    pub(super) hold: Hold,
    pub(super) ledger: Ledger,
    /// Claims that have passed to another session than the message names on disk, by message id.
    pub(super) handed_on: HashMap<u64, Vec<(u32, Target)>>,
    pub(super) marks: Marks,
    pub(super) waiters: Waiters,
    pub(super) backlog_waiters: Wakers,
    /// Who is to be woken as soon as the lock is released.
    pub(super) ready: Vec<Waker>,
    /// How much room there is.
    pub(super) space: Space,
    /// When compaction, which stands back, looks again without a commit.
    pub(super) compact_at: Option<Timestamp>,
    pub(super) elided: u64,
    /// Their bytes of topic, payload and properties.
    pub(super) elided_bytes: u64,
    /// The commit thread sleeps and must be told of work.
    pub(super) sleeping: bool,
    pub(super) stopping: bool,
}

impl State {
    pub(super) fn new(config: Config, marks: Marks, durable: CommitNo, ledger: Ledger) -> Self {
        let hold = Hold::new(config.elision_wait_max, config.held_bytes_max);
        Self {
            config,
            health: Health::Running,
            open: Batch::default(),
            next: Batch::default(),
            open_no: CommitNo(durable.0 + 1),
            writing_bytes: 0,
            durable,
            hold,
            ledger,
            handed_on: HashMap::new(),
            marks,
            waiters: Waiters::default(),
            backlog_waiters: Wakers::default(),
            ready: Vec::new(),
            space: Space::default(),
            compact_at: None,
            elided: 0,
            elided_bytes: 0,
            sleeping: false,
            stopping: false,
        }
    }

    /// Appends a record to the open batch.
    pub(super) fn append(&mut self, record: Record, urgency: Urgency, now: Timestamp) -> Gate {
        if self.health == Health::Running {
            self.marks.see(&record);
            match &record {
                Record::Snapshot(snapshot) => self.ledger.session_known(snapshot.record.session),
                Record::Gone(session) => self.ledger.session_gone(*session),
                _ => {}
            }
            let extra = match urgency {
                Urgency::Now | Urgency::Rides => Duration::ZERO,
                Urgency::Lazy => LAZY_INTERVAL.saturating_sub(self.config.done_interval),
            };
            self.open.push(Item::Record(record), now.after(extra));
            if urgency == Urgency::Now {
                self.open.mark_urgent(now);
            }
            if self.config.durability == Durability::Relaxed {
                return Gate::Open;
            }
        }
        Gate::Commit(self.open_no)
    }

    /// Starts a commit, if there is anything to commit.
    pub(super) fn hurry(&mut self) {
        self.open.hurry();
    }

    /// All targets of a message are known.
    pub(super) fn complete(
        &mut self,
        stored: &Arc<Stored>,
        mut targets: Vec<Target>,
        completion: &Completion,
        now: Timestamp,
    ) {
        let mut state = stored.lock();
        self.space.came(state.body.as_ref());
        let Phase::Early(early) = &mut state.phase else {
            debug_assert!(false, "a message is completed once");
            return;
        };
        let retained = completion.retained.filter(|_| !early.unretained);
        let rests_on_record = early.rests_on_record;
        let (confirmed, handed_on) = early.take_changes();
        // Who got it from another has not been sent it, as far as the publisher's thread knows.
        let may_elide = completion.may_elide && handed_on.is_empty();
        for (index, to) in handed_on {
            if let Some(target) = targets.get_mut(index as usize) {
                *target = to;
            }
        }
        let mut left = Bits::of(0..u32::try_from(targets.len()).expect("targets fit 32 bits"));
        for index in confirmed {
            left.remove(index);
        }
        let is_target_left = !left.is_empty();
        state.left = left;
        state.retained = retained.is_some();
        state.keep_body |= completion.keep_body;
        let inbound = completion.publisher.zip(completion.inbound_qos2);
        if let Some(version) = retained {
            self.marks.see_retained(version);
        }
        if !is_target_left && retained.is_none() && inbound.is_none() && !rests_on_record {
            return self.settle(&mut state);
        }
        let may_hold = may_elide && is_target_left && retained.is_none() && inbound.is_none();
        if may_hold && self.health == Health::Running && self.hold.admits(stored.size_bytes()) {
            let publisher = completion.publisher;
            if let Phase::Early(early) = &mut state.phase {
                early.held = Some(Held { targets, publisher, since: now });
            }
            drop(state);
            self.hold.add(stored, publisher, now);
            return;
        }
        if let Some(publisher) = completion.publisher.filter(|_| self.hold.messages() > 0) {
            drop(state);
            self.release_of(publisher, u64::MAX, now);
            state = stored.lock();
        }
        if let Some((session, id)) = inbound {
            self.append(Record::InboundQos2(session, id), Urgency::Now, now);
        }
        if let Some(record) = &completion.will_of {
            self.append(Record::Session(record.clone()), Urgency::Now, now);
        }
        self.enqueue(stored, &mut state, &targets, retained, now);
    }

    /// Puts a complete message into the open batch.
    fn enqueue(
        &mut self,
        stored: &Arc<Stored>,
        state: &mut StoredState,
        targets: &[Target],
        retained: Option<u64>,
        now: Timestamp,
    ) {
        if self.health == Health::Running
            && !(state.left.is_empty() && retained.is_none())
            && let Some(message) = &state.body
        {
            let left = (0..).zip(targets).filter(|(index, _)| state.left.contains(*index));
            left.clone().for_each(|(_, target)| self.marks.see_session(target.session));
            self.open.push_message(stored, message, retained, left, now);
        }
        // With nothing of its own to write it waits for the records before it.
        let rests_on_nothing_new = self.health == Health::Running && self.open.is_empty();
        let commit = CommitNo(self.open_no.0 - u64::from(rests_on_nothing_new));
        if self.is_durable(commit) {
            return self.settle(state);
        }
        self.open.mark_urgent(now);
        if let Phase::Early(early) = std::mem::replace(&mut state.phase, Phase::Queued(commit)) {
            early.into_wakers().into_iter().for_each(|waker| self.waiters.add(commit, waker));
        }
    }

    /// A message that nobody needs any more and that is not on disk.
    fn settle(&mut self, state: &mut StoredState) {
        if let Phase::Early(early) = std::mem::replace(&mut state.phase, Phase::Settled) {
            self.ready.extend(early.into_wakers());
        }
    }

    /// Writes the messages of a publisher that are held, up to this id.
    fn release_of(&mut self, publisher: SessionNo, up_to: u64, now: Timestamp) {
        let mut held = self.hold.take_of(publisher);
        while let Some(stored) = held.pop_front() {
            if stored.id() > up_to {
                held.push_front(stored);
                break;
            }
            self.release(&stored, Left::Forced, now);
        }
        self.hold.give_back(publisher, held);
    }

    /// Writes a message if it is held.
    fn release(&mut self, stored: &Arc<Stored>, why: Left, now: Timestamp) {
        let mut state = stored.lock();
        let held = match &mut state.phase {
            Phase::Early(early) => early.held.take(),
            _ => None,
        };
        if let Some(held) = held {
            self.enqueue(stored, &mut state, &held.targets, None, now);
            drop(state);
            self.hold.left(stored, held.publisher, why);
        }
    }

    /// Writes a message at once if it is held, and those of its publisher before it.
    pub(super) fn write_now(&mut self, stored: &Arc<Stored>, now: Timestamp) {
        let publisher = match &stored.lock().phase {
            Phase::Early(early) => early.held.as_ref().and_then(|held| held.publisher),
            _ => None,
        };
        if let Some(publisher) = publisher {
            self.release_of(publisher, stored.id(), now);
        }
        self.release(stored, Left::Forced, now);
    }

    /// Writes the messages that have been held long enough.
    pub(super) fn release_due(&mut self, now: Timestamp) {
        while let Some(stored) = self.hold.pop_due(now) {
            self.release(&stored, Left::TimedOut, now);
        }
    }

    /// Writes all messages that are held.
    pub(super) fn release_all(&mut self, now: Timestamp) {
        while let Some(stored) = self.hold.pop_due(Timestamp::NEVER) {
            self.release(&stored, Left::Forced, now);
        }
    }

    /// How large a generation may grow.
    pub(super) fn generation_bytes(&self) -> u64 {
        self.config.generation_bytes.min(self.space.generation_bytes_max())
    }

    /// A target has confirmed a message. The gate says when that is durable.
    pub(super) fn confirm(
        &mut self,
        stored: &Arc<Stored>,
        target: u32,
        (session, seq): (SessionNo, Seq),
        now: Timestamp,
    ) -> Gate {
        if self.take_off(stored, target, TakenOff::Confirmed, now) {
            self.append(Record::Done(session, seq), Urgency::Rides, now)
        } else {
            Gate::Open
        }
    }

    /// Takes one target off a message. Returns whether the message is on disk, or on its way there, with that target.
    pub(super) fn take_off(
        &mut self,
        stored: &Arc<Stored>,
        target: u32,
        why: TakenOff,
        now: Timestamp,
    ) -> bool {
        let mut state = stored.lock();
        match &mut state.phase {
            Phase::Early(early) => {
                early.rests_on_record |= why == TakenOff::ByRecord;
                let rests_on_record = early.rests_on_record;
                let Some(held) = &early.held else {
                    if !early.has_confirmed(target) {
                        early.rare().confirmed.push(target);
                    }
                    return false;
                };
                let (publisher, since) = (held.publisher, held.since);
                if !state.left.remove(target) || !state.left.is_empty() {
                    return false;
                }
                if rests_on_record {
                    drop(state);
                    self.release(stored, Left::Forced, now);
                    return false;
                }
                self.settle(&mut state);
                drop(state);
                self.elided += 1;
                self.elided_bytes += stored.size_bytes() as u64;
                self.hold.left(stored, publisher, Left::Confirmed(now.since(since)));
                false
            }
            Phase::Queued(_) | Phase::Written(_) => {
                let was_left = state.left.remove(target);
                if was_left {
                    self.drop_handed_on(stored.id(), target);
                    self.bury(state);
                }
                was_left
            }
            Phase::Settled => false,
        }
    }

    /// Drops a message's claim to be its topic's retained value.
    pub(super) fn unretain(&mut self, stored: &Stored) {
        let mut state = stored.lock();
        if let Phase::Early(early) = &mut state.phase {
            early.unretained = true;
        } else if state.retained {
            state.retained = false;
            self.bury(state);
        }
    }

    /// Keeps the books when a message on disk has lost a claim, perhaps its last.
    fn bury(&mut self, mut state: std::sync::MutexGuard<'_, StoredState>) {
        if state.is_dead()
            && let Some(place) = state.place()
        {
            state.body = None;
            let no = state.slot.take();
            drop(state);
            self.ledger.message_left(place);
            if let Some(no) = no {
                self.ledger.slab.remove(no);
            }
        } else if let Some(no) = state.slot {
            drop(state);
            self.ledger.slab.let_go(no);
        }
    }

    /// Whether the open batch should be committed now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.health == Health::Running
            && (self.open.bytes() >= BATCH_BYTES_MAX
                || self.urgent_deadline().is_some_and(|at| at <= now)
                || self.open_deadline().is_some_and(|at| at <= now)
                || self.hold.next_deadline().is_some_and(|at| at <= now)
                || self.looks_at().is_some_and(|at| at <= now))
    }

    /// When something will be due if nothing comes.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        if self.health != Health::Running {
            return None;
        }
        let all = [self.urgent_deadline(), self.open_deadline(), self.hold.next_deadline(), self.looks_at()];
        all.into_iter().flatten().min()
    }

    /// When the commit thread looks what there is to do besides committing.
    fn looks_at(&self) -> Option<Timestamp> {
        self.space.look_at.into_iter().chain(self.compact_at).min()
    }

    /// When the open batch is committed for those who wait for it.
    fn urgent_deadline(&self) -> Option<Timestamp> {
        let waited_for = self.config.durability != Durability::Relaxed;
        self.open.urgent_deadline(self.config.commit_interval_max).filter(|_| waited_for)
    }

    fn open_deadline(&self) -> Option<Timestamp> {
        self.open.opened_at().map(|at| at.after(self.config.done_interval))
    }

    /// Bytes that wait for the disk.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.open.bytes() + self.writing_bytes
    }

    pub(super) fn is_backlogged(&self) -> bool {
        self.backlog_bytes() > self.config.backlog_bytes_max
    }

    /// Whether a commit counts as done.
    pub(super) fn is_durable(&self, commit: CommitNo) -> bool {
        commit <= self.durable
    }

    /// Stops promising. Everybody who waits is to look again.
    pub(super) fn stop(&mut self, health: Health, now: Timestamp) {
        // Held messages become queued ones of a commit that never comes: their gates stay shut.
        self.health = health;
        self.release_all(now);
        self.open = Batch::default();
        self.writing_bytes = 0;
        self.ready.extend(self.waiters.take_all());
        self.ready.extend(self.backlog_waiters.take());
    }
}
