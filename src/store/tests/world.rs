//! A broker in miniature that does things at random and remembers what the journal owes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    task::Waker,
};

use super::{
    Time, message, queued, session, snapshot, subscription,
    truth::{Chance, Fact, Truth, payload},
};
use crate::{
    codec::PacketId,
    message::{Seq, SessionNo},
    store::{
        Completion, Gate, Journal, Parked, Record, Recovered, SnapshotSource, Step, Stored, Target, Urgency,
        stored::Phase,
    },
    time::Timestamp,
    topic::TopicName,
};

const SESSIONS_MAX: usize = 6;

/// The sessions as the broker has them in memory.
#[derive(Default)]
struct Live {
    filters: BTreeSet<String>,
    inbound: Vec<u16>,
    received: Vec<u64>,
    expires_at: u64,
    next_seq: u64,
    queue: BTreeMap<u64, Claim>,
}

/// A session's claim on a message.
enum Claim {
    AtHand(Arc<Stored>, u32),
    Parked(Parked),
}

impl Claim {
    fn take(self, journal: &Journal) -> (Arc<Stored>, u32) {
        match self {
            Self::AtHand(stored, target) => (stored, target),
            Self::Parked(parked) => journal.unpark(&[parked]).remove(0),
        }
    }
}

/// Answers the journal's questions.
struct Sessions {
    journal: Journal,
    live: Mutex<BTreeMap<u64, Live>>,
}

impl SnapshotSource for Sessions {
    fn snapshot(&self, no: SessionNo) {
        let live = self.live.lock().unwrap();
        let Some(session) = live.get(&no.0.get()) else { return };
        let mut snapshot = snapshot(no.0.get());
        snapshot.record.expires_at = Timestamp(session.expires_at);
        snapshot.subscriptions = session.filters.iter().map(|f| subscription(f)).collect();
        snapshot.inbound_qos2 = session.inbound.iter().filter_map(|id| PacketId::new(*id)).collect();
        snapshot.received = session.received.iter().map(|seq| Seq(*seq)).collect();
        self.journal.append(Record::Snapshot(Box::new(snapshot)), Urgency::Rides);
    }
}

/// A message that is in no commit yet, as far as is known.
struct Early {
    stored: Arc<Stored>,
    body: u64,
    targets: Vec<(u64, u64)>,
    confirmed: BTreeSet<u32>,
    retained: Option<(String, u64)>,
}

/// A message whose publisher was told that it is safe.
struct Acked {
    body: u64,
    stored: Arc<Stored>,
    targets: Vec<(u64, u64)>,
}

/// One run of the broker, between two crashes.
pub(super) struct World {
    pub(super) journal: Journal,
    sessions: Arc<Sessions>,
    time: Time,
    /// What was there at the start.
    base: Truth,
    facts: Vec<(u64, Fact)>,
    early: Vec<Early>,
    retained: BTreeMap<String, Arc<Stored>>,
    published: Vec<Acked>,
    confirmed: BTreeSet<(u64, u64)>,
    next_session: u64,
    next_version: u64,
    next_body: u64,
    scale: u64,
}

impl World {
    /// Goes on from what was recovered. `next_body` numbers payloads across runs.
    pub(super) fn new(
        journal: Journal,
        recovered: &Recovered,
        base: Truth,
        time: Time,
        next_body: u64,
    ) -> Self {
        let mut live = BTreeMap::new();
        for found in &recovered.sessions {
            let truth = &base.sessions[&found.snapshot.record.session.0.get()];
            let queue: BTreeMap<_, _> =
                found.queue.iter().map(|q| (q.seq.0, Claim::Parked(q.parked))).collect();
            let session = Live {
                filters: truth.filters.clone(),
                inbound: truth.inbound.clone(),
                received: truth.received.clone(),
                expires_at: truth.expires_at,
                // Numbers given before the crash may have been lost: go well beyond.
                next_seq: next_body * 100,
                queue,
            };
            live.insert(found.snapshot.record.session.0.get(), session);
        }
        let sessions = Arc::new(Sessions { journal: journal.clone(), live: Mutex::new(live) });
        let source: Arc<dyn SnapshotSource> = sessions.clone();
        journal.set_snapshot_source(Arc::downgrade(&source));
        let retained = recovered
            .retained
            .iter()
            .map(|r| (r.message.topic.as_str().to_owned(), Arc::clone(&r.stored)))
            .collect();
        Self {
            journal,
            sessions,
            time,
            base,
            facts: Vec::new(),
            early: Vec::new(),
            retained,
            published: Vec::new(),
            confirmed: BTreeSet::new(),
            next_session: recovered.next_session,
            next_version: recovered.next_retained_version,
            next_body,
            scale: 1,
        }
    }

    /// Publishes payloads so many times the usual size.
    pub(super) fn with_scale(self, scale: u64) -> Self {
        Self { scale, ..self }
    }

    pub(super) fn next_body(&self) -> u64 {
        self.next_body
    }

    /// Does something.
    pub(super) fn act(&mut self, chance: &mut Chance) {
        match chance.below(32) {
            0 => self.create(),
            1 if chance.one_in(4) => self.end(chance),
            2 => self.subscribe(chance),
            3 => self.inbound(chance),
            4 => self.change(chance),
            5 => self.clear(chance),
            6..=14 => self.publish(chance),
            15..=21 => self.confirm(chance),
            22..=23 => self.receive(chance),
            24 => self.complete_qos2(chance),
            25 => self.load(chance),
            26 => self.write_now(chance),
            27 => self.park(chance),
            28 => self.time.advance([1, 5, 30, 200, 1_000][usize::try_from(chance.below(5)).unwrap()]),
            29 => self.hand_on(chance),
            _ => self.step(),
        }
        self.look();
    }

    /// One step of the commit loop.
    pub(super) fn step(&mut self) {
        while self.journal.step() == Step::Worked {
            self.look();
        }
        self.look();
    }

    /// What a recovery must show, given that the commit in flight may have been completed.
    pub(super) fn check(&self, found: &Truth) -> Result<(), String> {
        let durable = self.journal.durable().0;
        let possible = [durable, durable + 1].map(|last| self.base.after(&self.facts, last));
        if !possible.contains(found) {
            let [expected, _] = possible;
            return Err(format!("found {found:#?}\nexpected {expected:#?}\nor a commit more"));
        }
        // The same promise seen from outside: what was acknowledged and not confirmed is there.
        for acked in
            self.published.iter().filter(|a| self.journal.is_open(&Gate::Message(Arc::clone(&a.stored))))
        {
            for (s, seq) in &acked.targets {
                let is_owed = !self.confirmed.contains(&(*s, *seq));
                let there = found.sessions.get(s).map(|session| session.queue.get(seq) == Some(&acked.body));
                if is_owed && there == Some(false) {
                    return Err(format!("acknowledged message {} of session {s} is lost", acked.body));
                }
            }
        }
        Ok(())
    }

    /// The state with everything committed.
    pub(super) fn all(&self) -> Truth {
        self.base.after(&self.facts, u64::MAX)
    }

    fn note(&mut self, gate: &Gate, fact: Fact) {
        if let Gate::Commit(commit) = gate {
            self.facts.push((commit.0, fact));
        }
    }

    /// Notices which messages have entered a commit.
    fn look(&mut self) {
        let durable = self.journal.durable().0;
        for early in std::mem::take(&mut self.early) {
            let commit = match early.stored.lock().phase {
                Phase::Early(_) => None,
                Phase::Queued(commit) => Some(commit.0),
                Phase::Written(_) => Some(durable),
                Phase::Settled => continue,
            };
            let Some(commit) = commit else {
                self.early.push(early);
                continue;
            };
            let left = (0..).zip(early.targets).filter(|(index, _)| !early.confirmed.contains(index));
            let targets = left.map(|(_, target)| target).collect();
            let fact = Fact::Message { body: early.body, targets, retained: early.retained };
            self.facts.push((commit, fact));
        }
    }

    fn create(&mut self) {
        let mut live = self.sessions.live.lock().unwrap();
        if live.len() >= SESSIONS_MAX {
            return;
        }
        let no = self.next_session;
        self.next_session += 1;
        live.insert(no, Live { next_seq: 1, ..Live::default() });
        let mut first = snapshot(no);
        first.record.expires_at = Timestamp(0);
        let gate = self.journal.append(Record::Snapshot(Box::new(first)), Urgency::Now);
        drop(live);
        self.note(&gate, Fact::Created(no));
    }

    fn end(&mut self, chance: &mut Chance) {
        let Some(no) = self.any_session(chance) else { return };
        let ended = self.sessions.live.lock().unwrap().remove(&no);
        let gate = self.journal.append(Record::Gone(session(no)), Urgency::Now);
        for claim in ended.into_iter().flat_map(|live| live.queue.into_values()) {
            let (stored, index) = claim.take(&self.journal);
            self.note_early_confirm(&stored, index);
            self.journal.forget(&stored, index);
        }
        self.note(&gate, Fact::Gone(no));
    }

    fn subscribe(&mut self, chance: &mut Chance) {
        let Some(no) = self.any_session(chance) else { return };
        let filter = format!("f/{}", chance.below(8));
        let mut live = self.sessions.live.lock().unwrap();
        let filters = &mut live.get_mut(&no).unwrap().filters;
        let (record, fact) = if filters.remove(&filter) {
            let record = Record::Unsubscribed(session(no), subscription(&filter).filter);
            (record, Fact::Unsubscribed(no, filter))
        } else {
            filters.insert(filter.clone());
            (Record::Subscribed(session(no), subscription(&filter)), Fact::Subscribed(no, filter))
        };
        let gate = self.journal.append(record, Urgency::Now);
        drop(live);
        self.note(&gate, fact);
    }

    fn inbound(&mut self, chance: &mut Chance) {
        let Some(no) = self.any_session(chance) else { return };
        let id = 1 + u16::try_from(chance.below(20)).unwrap();
        let mut live = self.sessions.live.lock().unwrap();
        let inbound = &mut live.get_mut(&no).unwrap().inbound;
        let packet_id = PacketId::new(id).unwrap();
        let (record, fact) = if inbound.contains(&id) {
            inbound.retain(|x| *x != id);
            (Record::Released(session(no), packet_id), Fact::Released(no, id))
        } else {
            inbound.push(id);
            (Record::InboundQos2(session(no), packet_id), Fact::Inbound(no, id))
        };
        let gate = self.journal.append(record, Urgency::Now);
        drop(live);
        self.note(&gate, fact);
    }

    fn change(&mut self, chance: &mut Chance) {
        let Some(no) = self.any_session(chance) else { return };
        let at = chance.below(1_000_000);
        let mut live = self.sessions.live.lock().unwrap();
        live.get_mut(&no).unwrap().expires_at = at;
        let mut record = snapshot(no).record;
        record.expires_at = Timestamp(at);
        let gate = self.journal.append(Record::Session(Box::new(record)), Urgency::Rides);
        drop(live);
        self.note(&gate, Fact::Changed(no, at));
    }

    fn clear(&mut self, chance: &mut Chance) {
        let topics: Vec<_> = self.retained.keys().cloned().collect();
        let Some(topic) = chance.pick(&topics) else { return };
        let stored = self.retained.remove(&topic).unwrap();
        let version = self.next_version;
        self.next_version += 1;
        let gate = self.journal.unretain(&stored, Some((TopicName::parse(&topic).unwrap(), version)));
        self.note(&gate, Fact::Cleared(topic, version));
    }

    fn publish(&mut self, chance: &mut Chance) {
        let body = self.next_body;
        self.next_body += 1;
        let len = match chance.below(20) {
            0 => 5_000 + chance.below(20_000),
            1..=3 => chance.below(2_000),
            _ => chance.below(150),
        };
        let len = len * self.scale;
        let topic = format!("t/{}", chance.below(4));
        let stored =
            self.journal.message(Arc::new(message(&topic, &payload(body, usize::try_from(len).unwrap()))));
        let targets = self.push(&stored, chance);
        let numbers: Vec<(u64, u64)> = targets.iter().map(|t| (t.session.0.get(), t.seq.0)).collect();
        let retained = chance.one_in(8).then(|| {
            self.next_version += 1;
            (topic.clone(), self.next_version - 1)
        });
        let early = Early {
            stored: Arc::clone(&stored),
            body,
            targets: numbers.clone(),
            confirmed: BTreeSet::new(),
            retained: retained.clone(),
        };
        self.early.push(early);
        // Some confirm before the last one has been given it.
        for _ in 0..chance.below(3) {
            if let Some((s, seq)) = chance.pick(&numbers) {
                self.confirm_one(s, seq);
            }
        }
        // And a member of a shared subscription may be gone by then.
        if chance.one_in(8)
            && let Some(((s, seq), to)) = chance.pick(&numbers).zip(self.any_session(chance))
        {
            self.hand_on_one(s, seq, to);
        }
        let publisher = chance.one_in(2).then(|| self.any_session(chance)).flatten();
        let inbound_qos2 = publisher.filter(|_| chance.one_in(4)).and_then(|no| self.new_inbound(no, chance));
        let completion = Completion {
            publisher: publisher.map(session),
            inbound_qos2,
            will_of: None,
            retained: retained.as_ref().map(|(_, version)| *version),
            may_elide: chance.one_in(2),
            keep_body: chance.one_in(2),
        };
        self.journal.complete(&stored, targets, completion);
        if let Some((no, id)) = publisher.zip(inbound_qos2) {
            let commit = match stored.lock().phase {
                Phase::Queued(commit) => commit,
                ref other => panic!("an inbound id is always written: {other:?}"),
            };
            self.facts.push((commit.0, Fact::Inbound(no, id.get())));
        }
        if let Some((topic, _)) = retained
            && let Some(old) = self.retained.insert(topic, Arc::clone(&stored))
        {
            self.journal.unretain(&old, None);
        }
        self.published.push(Acked { body, stored, targets: numbers });
    }

    /// Gives the message to some sessions.
    fn push(&self, stored: &Arc<Stored>, chance: &mut Chance) -> Vec<Target> {
        let mut targets = Vec::new();
        for (no, live) in self.sessions.live.lock().unwrap().iter_mut() {
            if chance.one_in(2) {
                let seq = live.next_seq;
                live.next_seq += 1;
                let target = u32::try_from(targets.len()).unwrap();
                live.queue.insert(seq, Claim::AtHand(Arc::clone(stored), target));
                targets.push(super::target(*no, seq));
            }
        }
        targets
    }

    fn new_inbound(&self, no: u64, chance: &mut Chance) -> Option<PacketId> {
        let id = 100 + u16::try_from(chance.below(1_000)).unwrap();
        let mut live = self.sessions.live.lock().unwrap();
        let inbound = &mut live.get_mut(&no)?.inbound;
        if inbound.contains(&id) {
            return None;
        }
        inbound.push(id);
        PacketId::new(id)
    }

    fn confirm(&mut self, chance: &mut Chance) {
        if let Some((s, seq)) = self.any_queued(chance) {
            self.confirm_one(s, seq);
        }
    }

    fn confirm_one(&mut self, s: u64, seq: u64) {
        let mut live = self.sessions.live.lock().unwrap();
        let Some(claim) = live.get_mut(&s).and_then(|live| live.queue.remove(&seq)) else { return };
        let (stored, index) = claim.take(&self.journal);
        let gate = self.journal.confirm(&stored, index, session(s), Seq(seq));
        drop(live);
        self.confirmed.insert((s, seq));
        if matches!(gate, Gate::Open) {
            self.note_early_confirm(&stored, index);
        }
        self.note(&gate, Fact::Done(s, seq));
    }

    /// A claim passes to another session.
    fn hand_on(&mut self, chance: &mut Chance) {
        if let Some(((s, seq), to)) = self.any_queued(chance).zip(self.any_session(chance)) {
            self.hand_on_one(s, seq, to);
        }
    }

    fn hand_on_one(&mut self, s: u64, seq: u64, to: u64) {
        let mut live = self.sessions.live.lock().unwrap();
        let Some(claim) = live.get_mut(&s).and_then(|live| live.queue.remove(&seq)) else { return };
        let (stored, index) = claim.take(&self.journal);
        let taker = live.get_mut(&to).unwrap();
        let to_seq = taker.next_seq;
        taker.next_seq += 1;
        let new = super::target(to, to_seq);
        let gate = self.journal.hand_on(&stored, index, (session(s), Seq(seq)), new).expect("it is claimed");
        taker.queue.insert(to_seq, Claim::AtHand(Arc::clone(&stored), index));
        drop(live);
        self.confirmed.insert((s, seq));
        if let Gate::Message(_) = gate {
            for early in self.early.iter_mut().filter(|early| Arc::ptr_eq(&early.stored, &stored)) {
                early.targets[index as usize] = (to, to_seq);
            }
        }
        self.note(&gate, Fact::HandedOn((s, seq), (to, to_seq)));
    }

    fn note_early_confirm(&mut self, stored: &Arc<Stored>, index: u32) {
        for early in self.early.iter_mut().filter(|early| Arc::ptr_eq(&early.stored, stored)) {
            early.confirmed.insert(index);
        }
    }

    fn receive(&mut self, chance: &mut Chance) {
        let Some((s, seq)) = self.any_queued(chance) else { return };
        let mut live = self.sessions.live.lock().unwrap();
        let session_live = live.get_mut(&s).unwrap();
        let (stored, index) = session_live.queue.remove(&seq).unwrap().take(&self.journal);
        session_live.received.push(seq);
        let gate = self.journal.received(&stored, index, session(s), Seq(seq));
        drop(live);
        self.confirmed.insert((s, seq));
        self.note_early_confirm(&stored, index);
        self.note(&gate, Fact::Received(s, seq));
    }

    fn complete_qos2(&mut self, chance: &mut Chance) {
        let Some(no) = self.any_session(chance) else { return };
        let mut live = self.sessions.live.lock().unwrap();
        let received = &mut live.get_mut(&no).unwrap().received;
        if received.is_empty() {
            return;
        }
        let seq = received.remove(0);
        let gate = self.journal.append(Record::Done(session(no), Seq(seq)), Urgency::Rides);
        drop(live);
        self.note(&gate, Fact::Done(no, seq));
    }

    fn load(&mut self, chance: &mut Chance) {
        let Some((s, seq)) = self.any_queued(chance) else { return };
        let stored = {
            let mut live = self.sessions.live.lock().unwrap();
            let queue = &mut live.get_mut(&s).unwrap().queue;
            let (stored, target) = queue.remove(&seq).unwrap().take(&self.journal);
            queue.insert(seq, Claim::AtHand(Arc::clone(&stored), target));
            stored
        };
        if let Some(left) = self.journal.load_at_hand(vec![Arc::clone(&stored)]) {
            self.journal.load(left, Waker::noop().clone());
            while self.journal.read_step() {}
        }
        assert!(self.journal.poisoned() || stored.body().is_some(), "what is queued can be read");
        stored.unload();
    }

    /// A session falls asleep: all that is on disk needs no more memory than it takes to find it.
    fn park(&mut self, chance: &mut Chance) {
        let Some(no) = self.any_session(chance) else { return };
        let mut live = self.sessions.live.lock().unwrap();
        for claim in live.get_mut(&no).unwrap().queue.values_mut() {
            if let Claim::AtHand(stored, target) = claim
                && stored.may_sleep(*target)
            {
                *claim = Claim::Parked(self.journal.park(vec![(Arc::clone(stored), *target)])[0]);
            }
        }
    }

    fn write_now(&mut self, chance: &mut Chance) {
        let held: Vec<_> = self.early.iter().map(|early| Arc::clone(&early.stored)).collect();
        if let Some(stored) = chance.pick(&held) {
            self.journal.write_now(&stored);
        }
    }

    fn any_session(&self, chance: &mut Chance) -> Option<u64> {
        let live = self.sessions.live.lock().unwrap();
        chance.pick(&live.keys().copied().collect::<Vec<_>>())
    }

    fn any_queued(&self, chance: &mut Chance) -> Option<(u64, u64)> {
        let live = self.sessions.live.lock().unwrap();
        let all: Vec<_> = live.iter().flat_map(|(no, l)| l.queue.keys().map(|seq| (*no, *seq))).collect();
        // Mostly in order, as clients confirm.
        if chance.one_in(4) { chance.pick(&all) } else { all.first().copied() }
    }
}

/// Reads all queued bodies back.
pub(super) fn load_all(journal: &Journal, recovered: &Recovered) {
    let all = recovered.sessions.iter().flat_map(|found| queued(journal, found));
    journal.load(all.map(|queued| queued.message).collect(), Waker::noop().clone());
    while journal.read_step() {}
}
