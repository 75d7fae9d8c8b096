//! Frames back into commits, and commits back into the broker's state.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    batch::{TIMELINE_BYTES, place},
    format::{Entry, StoredMessage, read_entry},
    frame::FrameError,
    packing::Opened,
    record::{HandedOn, Marks, Record, Snapshot, SubscriptionRecord, Target},
    slab::{Parked, Slab, SlotNo},
    stored::{Bits, Place},
};
use crate::{
    message::{Seq, SessionNo},
    session::Shelf,
    time::{Timeline, Timestamp, WallClock},
    topic::{Label, TopicFilter, TopicLabels, TopicName},
};

/// What the journal says, frame by frame, oldest first.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The messages, with the targets that have not confirmed.
    pub(super) slab: Slab,
    /// Where in it each one is, by its id.
    pub(super) messages: HashMap<u64, SlotNo>,
    /// What each session must still get, whether or not it is known yet: its snapshot may stand later.
    pub(super) queues: HashMap<SessionNo, Shelf<Parked>>,
    /// Which of them came by a shared subscription, and by which.
    pub(super) groups: HashMap<SessionNo, BTreeMap<Seq, TopicFilter>>,
    /// What labels are made of.
    pub(super) labels: TopicLabels,
    /// The labels that are not empty, by message id.
    pub(super) labelled: HashMap<u64, Label>,
    /// The claims that have passed to another session than their message names, by message id.
    pub(super) handed_on: HashMap<u64, Vec<(u32, Target)>>,
    pub(super) sessions: HashMap<SessionNo, FoundSession>,
    /// The highest version of each topic, and the message if it is not a deletion.
    pub(super) retained: HashMap<TopicName, (u64, Option<u64>)>,
    pub(super) marks: Marks,
    pub(super) timeline: Timeline,
    pub(super) last_commit: u64,
    pub(super) last_frame: u64,
    /// Things that did not survive though they should have.
    pub(super) damaged: u64,
    /// The version of a frame that a newer build wrote.
    pub(super) newer: Option<u8>,
    group_names: HashSet<TopicFilter>,
    generation: u32,
    partial: Option<Partial>,
    /// The last commit that was begun and not completed: a torn tail, unless its run went on.
    torn: Option<(u32, u64)>,
}

/// A session found in the journal.
#[derive(Debug)]
pub(super) struct FoundSession {
    /// As of the last record; `subscriptions` stand in the map meanwhile.
    pub(super) snapshot: Snapshot,
    pub(super) subscriptions: BTreeMap<TopicFilter, SubscriptionRecord>,
    pub(super) generation: u32,
    pub(super) len: usize,
}

/// A commit of which not all frames have been seen.
#[derive(Debug)]
struct Partial {
    run: u32,
    commit: u64,
    first_frame: u64,
    seen: u32,
    count: u32,
    stream: Vec<u8>,
    /// Where in the stream each frame begins.
    starts: Vec<usize>,
}

impl Replay {
    /// Frames of this generation follow.
    pub(super) fn begin_generation(&mut self, generation: u32) {
        self.tear();
        self.generation = generation;
    }

    /// The last generation has ended.
    pub(super) fn end(&mut self) {
        self.tear();
    }

    /// Takes the next frame. A commit is applied when its last frame has come.
    pub(super) fn frame(&mut self, no: u64, opened: Result<Opened<'_>, FrameError>) {
        self.last_frame = self.last_frame.max(no);
        let frame = match opened {
            Ok(frame) if frame.header.frame == no => frame,
            Err(FrameError::Newer(version)) => {
                self.newer = Some(version);
                return;
            }
            other => {
                let error = other.err().unwrap_or(FrameError::Shape);
                tracing::error!(generation = self.generation, frame = no, %error, "a damaged frame is left out");
                self.damaged += 1;
                return;
            }
        };
        let header = frame.header;
        if self.last_commit != 0 && header.commit > self.last_commit + 1 {
            let (from, to) = (self.last_commit + 1, header.commit - 1);
            tracing::error!(from, to, "commits are missing: a damaged disk has lost them");
            self.damaged += 1;
        }
        self.last_commit = self.last_commit.max(header.commit);
        self.marks.run = self.marks.run.max(header.run);
        let goes_on = self.partial.as_ref().is_some_and(|p| {
            (p.run, p.commit, p.count) == (header.run, header.commit, header.count)
                && p.seen == header.index
                && p.first_frame + u64::from(p.seen) == no
        });
        if !goes_on {
            self.tear();
            if header.index != 0 {
                self.torn = Some((header.run, header.commit));
                return;
            }
            self.partial = Some(Partial {
                run: header.run,
                commit: header.commit,
                first_frame: no,
                seen: 0,
                count: header.count,
                stream: Vec::new(),
                starts: Vec::new(),
            });
        }
        let Some(partial) = &mut self.partial else { return };
        partial.seen += 1;
        partial.starts.push(partial.stream.len());
        partial.stream.extend_from_slice(&frame.body);
        if partial.seen >= partial.count
            && let Some(whole) = self.partial.take()
        {
            self.commit(&whole);
        }
    }

    /// Gives up a commit that is not whole.
    fn tear(&mut self) {
        if let Some(partial) = self.partial.take() {
            tracing::info!(
                commit = partial.commit,
                run = partial.run,
                "a commit that is not whole is left out"
            );
            self.torn = Some((partial.run, partial.commit));
        }
    }

    fn commit(&mut self, commit: &Partial) {
        if let Some((run, torn)) = self.torn.take()
            && run == commit.run
            && torn < commit.commit
        {
            tracing::error!(commit = torn, "a commit is missing frames though later ones are there: damage");
            self.damaged += 1;
        }
        let mut offset = TIMELINE_BYTES;
        let Some(timeline) = commit.stream.get(..offset).and_then(read_timeline) else {
            self.damaged += 1;
            return;
        };
        self.timeline = timeline;
        while let Some(rest) = commit.stream.get(offset..).filter(|rest| !rest.is_empty()) {
            let Some((entry, len)) = read_entry(rest) else {
                tracing::error!(
                    commit = commit.commit,
                    "a record cannot be read; the rest of its commit is left out"
                );
                self.damaged += 1;
                return;
            };
            self.entry(entry, place(self.generation, commit.first_frame, &commit.starts, offset, len));
            offset += len;
        }
    }

    fn entry(&mut self, entry: Entry, place: Place) {
        match entry {
            Entry::Message(message) => self.message(*message, place),
            Entry::Marks(marks) => self.marks.join(&marks),
            Entry::Record(record) => {
                self.marks.see(&record);
                self.record(record, place);
            }
        }
    }

    fn message(&mut self, found: StoredMessage, place: Place) {
        let StoredMessage { id, message, claims } = found;
        self.marks.message = self.marks.message.max(id);
        if let Some(known) = self.messages.get(&id) {
            // A copy: it moves, and what was confirmed meanwhile is known already.
            return self.slab.found_again(*known, place);
        }
        let left = Bits::of(claims.targets.iter().map(|(index, _)| *index));
        let size_bytes = u32::try_from(message.size_bytes()).unwrap_or(u32::MAX);
        let label = self.labels.of(&message.topic);
        let slot = self.slab.insert_found(id, size_bytes, message.expires_at, place, left, label);
        self.messages.insert(id, slot);
        if !label.is_empty() {
            self.labelled.insert(id, label);
        }
        for (index, target) in claims.targets {
            self.queue(id, slot, index, target);
        }
        if let Some(version) = claims.retained {
            self.retain(message.topic, version, Some(id));
        }
    }

    fn queue(&mut self, message: u64, slot: SlotNo, index: u32, target: Target) {
        let Target { session, seq, delivery, group } = target;
        self.marks.see_session(session);
        if let Some(group) = group {
            // One copy of the name for all messages of the group.
            let known = self.group_names.get(&group).cloned();
            let group = known.unwrap_or_else(|| {
                self.group_names.insert(group.clone());
                group
            });
            self.groups.entry(session).or_default().insert(seq, group);
        }
        let queue = self.queues.entry(session).or_default();
        let parked = Parked::new(slot, message, index);
        if parked.is_none_or(|parked| queue.insert(seq, parked, &delivery).is_err()) {
            tracing::error!(message, "a message's number cannot be: it is left out");
            self.damaged += 1;
            self.slab.clear(slot, index);
        }
    }

    /// Of a message whose original is deleted a later copy says the same.
    fn hand_on(&mut self, handed_on: HandedOn) {
        let HandedOn { session, seq, to } = handed_on;
        let Some(old) = self.queues.get_mut(&session).and_then(|queue| queue.remove(seq)) else { return };
        self.forget_group(session, seq);
        let (slot, index) = (old.parked.slot(), old.parked.target());
        let Some(message) = self.slab.id(slot) else { return };
        let claims = self.handed_on.entry(message).or_default();
        claims.retain(|(other, _)| *other != index);
        claims.push((index, to.clone()));
        self.queue(message, slot, index, to);
    }

    fn forget_group(&mut self, session: SessionNo, seq: Seq) {
        if let Some(groups) = self.groups.get_mut(&session) {
            groups.remove(&seq);
        }
    }

    fn retain(&mut self, topic: TopicName, version: u64, message: Option<u64>) {
        self.marks.see_retained(version);
        let value = self.retained.entry(topic).or_insert((version, message));
        if value.0 <= version {
            *value = (version, message);
        }
    }

    fn record(&mut self, record: Record, place: Place) {
        match record {
            Record::Snapshot(mut snapshot) => {
                let subscriptions = std::mem::take(&mut snapshot.subscriptions);
                let subscriptions = subscriptions.into_iter().map(|s| (s.filter.clone(), s)).collect();
                let session = snapshot.record.session;
                let (generation, len) = (place.generation, place.len as usize);
                let found = FoundSession { snapshot: *snapshot, subscriptions, generation, len };
                self.sessions.insert(session, found);
            }
            Record::Session(record) => {
                if let Some(session) = self.sessions.get_mut(&record.session) {
                    session.snapshot.record = *record;
                }
            }
            Record::Gone(no) => {
                self.sessions.remove(&no);
                self.drop_queue(no);
            }
            Record::Subscribed(no, subscription) => self.with(no, |session| {
                session.subscriptions.insert(subscription.filter.clone(), subscription);
            }),
            Record::Unsubscribed(no, filter) => self.with(no, |session| {
                session.subscriptions.remove(&filter);
            }),
            Record::InboundQos2(no, id) => self.with(no, |session| {
                let ids = &mut session.snapshot.inbound_qos2;
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }),
            Record::Released(no, id) => self.with(no, |session| {
                session.snapshot.inbound_qos2.retain(|other| *other != id);
            }),
            Record::Received(no, seq) => {
                self.drop_target(no, seq);
                self.with(no, |session| {
                    let received = &mut session.snapshot.received;
                    if !received.contains(&seq) {
                        received.push(seq);
                    }
                });
            }
            Record::Done(no, seq) => {
                self.drop_target(no, seq);
                self.with(no, |session| session.snapshot.received.retain(|other| *other != seq));
            }
            Record::RetainedCleared(topic, version) => self.retain(topic, version, None),
            Record::HandedOn(handed_on) => self.hand_on(*handed_on),
        }
    }

    /// Changes a session if its snapshot has been seen: if not, a later one holds the change.
    fn with(&mut self, no: SessionNo, change: impl FnOnce(&mut FoundSession)) {
        if let Some(session) = self.sessions.get_mut(&no) {
            change(session);
        }
    }

    /// The claims that have passed on and that have not ended.
    pub(super) fn handed_on_left(&mut self) -> HashMap<u64, Vec<(u32, Target)>> {
        let mut all = std::mem::take(&mut self.handed_on);
        all.retain(|id, claims| {
            let slot = self.messages.get(id);
            claims.retain(|(index, _)| slot.is_some_and(|no| self.slab.is_left(*no, *index)));
            !claims.is_empty()
        });
        all
    }

    /// Takes a message out of a session's queue.
    pub(super) fn drop_target(&mut self, session: SessionNo, seq: Seq) {
        self.forget_group(session, seq);
        if let Some(old) = self.queues.get_mut(&session).and_then(|queue| queue.remove(seq)) {
            self.slab.clear(old.parked.slot(), old.parked.target());
        }
    }

    /// Takes all messages out of a session's queue.
    pub(super) fn drop_queue(&mut self, session: SessionNo) {
        self.groups.remove(&session);
        for shelved in self.queues.remove(&session).unwrap_or_default().iter() {
            self.slab.clear(shelved.parked.slot(), shelved.parked.target());
        }
    }
}

fn read_timeline(bytes: &[u8]) -> Option<Timeline> {
    let (at, rest) = bytes.split_first_chunk()?;
    let (wall, _) = rest.split_first_chunk()?;
    Some(Timeline { at: Timestamp(u64::from_le_bytes(*at)), wall: WallClock(u64::from_le_bytes(*wall)) })
}
