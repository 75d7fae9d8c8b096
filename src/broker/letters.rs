//! From a message that somebody does not get to its dead letter.
//!
//! A message is given up under its session's lock, where nothing can be published. If the journal knows the claim, it passes
//! to the *office* by the record that ends it for the session (`Record::HandedOn`): a session of the broker's own, with no
//! client. When no session's lock is held the letter is published, and the office's claim ends in the commit that has the
//! letter. So a power cut finds the claim with the session, or with the office, or the letter: it costs a letter that comes
//! twice, never one that does not come.
//!
//! What is not in the journal (a message for a session that ends with its connection, QoS 0) waits for its letter in memory.
//!
//! Each run of the broker has an office of its own, made when it is needed; those of before are done when what they have
//! is. While too much waits, publishers are slowed down, and no session expires.
//!
//! Its lock is taken under a session's, and the journal's under it.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use super::{
    Broker,
    dead_letters::{DeadLetters, DeadReason, Loss, is_reserved},
    dispatch::Touched,
    keep::Kept,
    slot::Slot,
};
use crate::{
    codec::QoS,
    message::{Delivery, Message, Seq, SessionNo},
    store::{
        Claim, Gate, Journal, Record, RecoveredSession, SessionRecord, Snapshot, Stored, Target, Urgency,
    },
    sync::lock,
    telemetry::Counter,
    time::Timestamp,
};

/// So many letters that wait slow publishers down.
const WAITING_MAX: usize = 10_000;
/// Letters published at one time: a client's thread is not to be held up by what is not its own.
const SENT_MAX: usize = 1_000;
/// When to look again for what is being read back.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Messages read back for letters at a time, and their bytes of topic, payload and properties; a larger one is read alone.
const LOADED_MAX: usize = 256;
const LOADED_BYTES_MAX: usize = 1 << 20;

/// The letters that are to be published.
#[derive(Debug)]
pub(super) struct Letters {
    config: DeadLetters,
    /// This run's office.
    office: OnceLock<SessionNo>,
    /// Somebody subscribes to them.
    wanted: AtomicBool,
    /// How many wait.
    waiting: AtomicUsize,
    inbox: Mutex<Inbox>,
    /// Held by who publishes them: one at a time, in their order.
    sending: Mutex<()>,
    loading: Arc<Loading>,
    sent: [Counter; DeadReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Inbox {
    /// In memory only; they go first.
    kept: VecDeque<(Arc<Message>, Loss)>,
    /// The offices' claims.
    claims: VecDeque<(Claim, Loss)>,
    /// What the journal knows: the offices that are open, and how many claims each has.
    offices: HashMap<SessionNo, usize>,
    next: u64,
    /// Connections that wait for less to wait, by their epoch.
    paused: HashMap<u64, Waker>,
}

/// Whether bodies are being read back.
#[derive(Debug, Default)]
struct Loading(AtomicBool);

impl Wake for Loading {
    fn wake(self: Arc<Self>) {
        self.0.store(false, Ordering::Release);
    }
}

impl Letters {
    pub(super) fn new(config: DeadLetters) -> Self {
        Self {
            config,
            office: OnceLock::new(),
            wanted: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            inbox: Mutex::default(),
            sending: Mutex::default(),
            loading: Arc::default(),
            sent: Default::default(),
        }
    }

    /// The number this run's office will have; no session has it.
    pub(super) fn set_office(&self, no: SessionNo) {
        self.office.get_or_init(|| no);
    }

    /// Whether there are any at all.
    pub(super) fn is_enabled(&self) -> bool {
        self.config.enabled
    }

    /// Somebody subscribes to them, or nobody does.
    pub(super) fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted && self.config.enabled, Ordering::Release);
    }

    /// Whether there is to be a letter for this reason.
    pub(super) fn wants(&self, reason: DeadReason) -> bool {
        self.wanted.load(Ordering::Acquire) && self.config.reasons.contains(reason)
    }

    /// How many have been published, by reason.
    pub(super) fn sent_so_far(&self) -> Vec<(DeadReason, u64)> {
        DeadReason::ALL.into_iter().zip(self.sent.iter().map(Counter::total)).collect()
    }

    fn count(&self, loss: &Loss) {
        let counter = DeadReason::ALL.iter().position(|reason| *reason == loss.reason);
        let counter = counter.and_then(|at| self.sent.get(at));
        if let Some(total) = counter.and_then(Counter::count) {
            let (reason, client_id) = (loss.reason.as_str(), &*loss.client_id);
            tracing::debug!(reason, client_id, total, "dead letter");
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Whether so many wait that no more are to be made, as far as that can be helped.
    pub(super) fn is_backlogged(&self) -> bool {
        self.waiting() > WAITING_MAX
    }

    /// True when connections may read; if not, the task is woken when they may.
    pub(super) fn poll_backlog(&self, epoch: u64, waker: &Waker) -> bool {
        if !self.is_backlogged() {
            return true;
        }
        lock(&self.inbox).paused.insert(epoch, waker.clone());
        !self.is_backlogged()
    }

    /// Takes what a session gives up, if a letter is to be made of it. The gate opens when it is durably not that
    /// session's any more.
    pub(super) fn take(
        &self,
        journal: &Journal,
        from: (SessionNo, Seq),
        kept: &Kept,
        loss: Loss,
    ) -> Option<Gate> {
        if !self.wants(loss.reason) || kept.body().is_some_and(|message| is_reserved(message.topic.as_str()))
        {
            return None;
        }
        match kept {
            Kept::Memory { message, .. } => {
                self.keep(Arc::clone(message), loss);
                Some(Gate::Open)
            }
            Kept::Journal { stored, target } => self.take_claim(journal, from, (stored, *target), loss),
            Kept::Sent => None,
        }
    }

    /// The same for what is in memory only.
    pub(super) fn keep(&self, message: Arc<Message>, loss: Loss) {
        if self.wants(loss.reason) && !is_reserved(message.topic.as_str()) {
            lock(&self.inbox).kept.push_back((message, loss));
            self.waiting.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn take_claim(
        &self,
        journal: &Journal,
        from: (SessionNo, Seq),
        (stored, target): (&Arc<Stored>, u32),
        loss: Loss,
    ) -> Option<Gate> {
        let no = *self.office.get()?;
        let group = Some(loss.to_filter()?);
        let mut inbox = lock(&self.inbox);
        // Before the first claim, so that recovery knows whose it is.
        inbox.offices.entry(no).or_insert_with(|| {
            journal.append(snapshot(no), Urgency::Rides);
            0
        });
        let seq = Seq(inbox.next);
        let delivery = Delivery { qos: QoS::AtLeastOnce, retain: false, subscription_ids: Vec::new() };
        let gate = journal.hand_on(stored, target, from, Target { session: no, seq, delivery, group })?;
        inbox.next += 1;
        let claim = Claim { stored: Arc::clone(stored), target, session: no, seq };
        inbox.enter(claim, loss);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Some(gate)
    }

    /// What an office of a former run has left, in its order.
    pub(super) fn recover(&self, journal: &Journal, office: &RecoveredSession) {
        let no = office.snapshot.record.session;
        let mut losses: HashMap<Seq, Loss> = office
            .groups
            .iter()
            .filter_map(|(seq, filter)| Some((*seq, Loss::from_filter(filter)?)))
            .collect();
        let mut inbox = lock(&self.inbox);
        inbox.offices.insert(no, 0);
        for shelved in office.queue.iter() {
            let Some((stored, target)) = journal.unpark(&[shelved.parked]).pop() else { continue };
            let claim = Claim { stored, target, session: no, seq: shelved.seq };
            match losses.remove(&shelved.seq) {
                Some(loss) => {
                    inbox.enter(claim, loss);
                    self.waiting.fetch_add(1, Ordering::AcqRel);
                }
                None => drop(journal.give_up(&claim)),
            }
        }
        inbox.close_if_empty(no, self.office.get(), journal);
    }

    /// The journal asks for a session's snapshot; nothing is done if it is no office.
    pub(super) fn snapshot(&self, journal: &Journal, no: SessionNo) {
        let inbox = lock(&self.inbox);
        if inbox.offices.contains_key(&no) {
            journal.append(snapshot(no), Urgency::Rides);
        }
    }

    /// The next one whose message is in memory. Asks the disk for the others'.
    fn next(&self, journal: &Journal) -> Option<Due> {
        let mut inbox = lock(&self.inbox);
        if let Some((message, loss)) = inbox.kept.pop_front() {
            return Some(Due { message: Some(message), loss, claim: None });
        }
        // The disk has no room even for what makes some.
        if journal.is_pressed() {
            mem::take(&mut inbox.paused).into_values().for_each(Waker::wake);
            return None;
        }
        let (claim, _) = inbox.claims.front()?;
        // Each has the whole body, of which the disk may have one for all of them.
        if !journal.takes_instead(claim.stored.size_bytes()) {
            journal.hurry();
            return None;
        }
        let message = claim.stored.body();
        if message.is_none() && !claim.stored.is_lost() {
            self.load(journal, &inbox);
            return None;
        }
        let (claim, loss) = inbox.claims.pop_front()?;
        Some(Due { message, loss, claim: Some(claim) })
    }

    fn load(&self, journal: &Journal, inbox: &Inbox) {
        if self.loading.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let first = inbox.claims.iter().take(LOADED_MAX).map(|(claim, _)| &claim.stored).enumerate();
        let mut bytes = 0;
        let first = first.take_while(|(n, stored)| {
            bytes += stored.size_bytes();
            *n == 0 || bytes <= LOADED_BYTES_MAX
        });
        let first = first.map(|(_, stored)| Arc::clone(stored));
        let wanted = first.filter(|stored| stored.body().is_none()).collect();
        journal.load(wanted, Waker::from(Arc::clone(&self.loading)));
    }

    /// It is published, or there is nothing to be published.
    fn is_done(&self, journal: &Journal, claim: Option<&Claim>) {
        let mut inbox = lock(&self.inbox);
        if let Some(claim) = claim {
            if let Some(claims) = inbox.offices.get_mut(&claim.session) {
                *claims -= 1;
            }
            inbox.close_if_empty(claim.session, self.office.get(), journal);
        }
        let left = self.waiting.fetch_sub(1, Ordering::AcqRel) - 1;
        let paused = if left <= WAITING_MAX { mem::take(&mut inbox.paused) } else { HashMap::new() };
        drop(inbox);
        paused.into_values().for_each(Waker::wake);
    }
}

/// A letter whose turn it is.
struct Due {
    /// `None`: it was damaged on disk.
    message: Option<Arc<Message>>,
    loss: Loss,
    claim: Option<Claim>,
}

impl Inbox {
    fn enter(&mut self, claim: Claim, loss: Loss) {
        *self.offices.entry(claim.session).or_default() += 1;
        self.claims.push_back((claim, loss));
    }

    /// An office of a former run that has nothing left is gone; this one's stays.
    fn close_if_empty(&mut self, no: SessionNo, this: Option<&SessionNo>, journal: &Journal) {
        if this != Some(&no) && self.offices.get(&no) == Some(&0) {
            self.offices.remove(&no);
            journal.append(Record::Gone(no), Urgency::Rides);
        }
    }
}

impl Broker {
    /// Whether letters wait to be published.
    pub(super) fn has_letters(&self) -> bool {
        self.letters.waiting() > 0
    }

    /// Publishes the letters whose messages are in memory. No session's lock is held.
    pub(super) fn send_letters(&self, now: Timestamp, touched: &mut Touched) {
        if !self.has_letters() {
            return;
        }
        // Somebody is at it.
        let Ok(_sending) = self.letters.sending.try_lock() else { return };
        for _ in 0..SENT_MAX {
            let Some(due) = self.letters.next(&self.journal) else { return };
            let message = due.message.filter(|message| !is_reserved(message.topic.as_str()));
            match message {
                Some(message) => {
                    drop(self.send_letter(&message, &due.loss, due.claim.as_ref(), now, touched));
                }
                None => due.claim.iter().for_each(|claim| drop(self.journal.give_up(claim))),
            }
            self.letters.is_done(&self.journal, due.claim.as_ref());
        }
    }

    /// Publishes the letter of this message. `claim` ends with it. The gate opens when it is durable for those who keep it.
    pub(super) fn send_letter(
        &self,
        message: &Message,
        loss: &Loss,
        claim: Option<&Claim>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Gate {
        let Some(letter) = loss.letter(message, self.letters.config) else {
            return claim.map_or(Gate::Open, |claim| self.journal.give_up(claim));
        };
        let route = self.route(letter.topic.clone());
        if !route.is_empty() {
            self.letters.count(loss);
        }
        self.dispatch_letter(&route, &Arc::new(letter), claim, now, touched)
    }

    /// True when connections may read; if not, the task is woken when they may.
    pub(super) fn poll_backlog(&self, epoch: u64, waker: &Waker) -> bool {
        let journal = &self.journal;
        journal.poll_backlog(waker) && (self.letters.poll_backlog(epoch, waker) || journal.is_pressed())
    }

    /// Whether clients are to send no more until fewer letters wait. Not while the disk has no room for any: then it is the
    /// clients' confirmations that make some, and what may come to wait is on disk already.
    pub(super) fn letters_hold_up(&self) -> bool {
        self.letters.is_backlogged() && !self.journal.is_pressed()
    }

    /// The same at the end, for what is in memory only.
    pub(super) fn send_last_letters(&self, now: Timestamp) {
        let mut waiting = usize::MAX;
        while self.letters.waiting() < waiting {
            waiting = self.letters.waiting();
            self.send_letters(now, &mut Touched::default());
        }
    }

    /// Whether letters wait, and when to look again.
    pub(super) fn letters_due(&self, now: Timestamp) -> Timestamp {
        let is_idle = self.letters.waiting() == 0 || self.journal.is_pressed();
        if is_idle { Timestamp::NEVER } else { now.after(LOOK_INTERVAL) }
    }

    /// A message of which this session gets nothing, since its queue keeps what it has. To be published by the caller.
    pub(super) fn dead_newest(&self, slot: &Slot) -> Option<Loss> {
        let reason = DeadReason::QueueFull;
        self.letters.wants(reason).then(|| Loss { reason, client_id: Arc::clone(&slot.keep.client_id) })
    }
}

/// An office, as the journal knows it. No client has an empty identifier.
fn snapshot(session: SessionNo) -> Record {
    let record = SessionRecord {
        session,
        client_id: OFFICE.into(),
        expiry: Duration::from_secs(u32::MAX.into()),
        expires_at: Timestamp::NEVER,
        inflight_max: 1,
        sent_below: Seq::MAX,
        seq_reserved: Seq(0),
        will: None,
        user_name: None,
    };
    let (subscriptions, inbound_qos2, received) = (Vec::new(), Vec::new(), Vec::new());
    Record::Snapshot(Box::new(Snapshot { record, subscriptions, inbound_qos2, received }))
}

/// The client identifier of an office.
pub(super) const OFFICE: &str = "";
