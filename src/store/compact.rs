//! Compaction: empties the oldest generation of what is still wanted, and deletes it.
//!
//! Runs when the frames on disk take more than twice what is live, a little after each commit, so it never holds up
//! more than it must. Where the disk is nearly full it runs sooner and faster, if there is room for its copies. Where there
//! is enough it stands back from a drain that will be through with all there is before long: each copy would be one for
//! nothing, and the disk holds no more meanwhile than it did before. Why deleting is safe stands in the module's doc.

use std::{collections::VecDeque, sync::Weak};

use super::{
    batch::Item,
    commit::Committer,
    ebb::{Ebb, SEEN_OVER},
    format::split_message,
    gate::CommitNo,
    journal::Shared,
    medium::MediumError,
    read::EntryReader,
    slab::SlotNo,
    space::Pressure,
    state::{Health, State},
    stats::count,
    stored::Place,
};
use crate::message::SessionNo;
use crate::sync::lock;

/// What is copied per commit at least. More only when commits are larger than that: then as much as the last one had,
/// so compaction keeps up with whatever comes.
const COPY_BYTES_MIN: u64 = 256 << 10;
/// One that has no more wanted bytes than one in so many is emptied while a queue is drained, too.
const WORTH_WAITING_FOR: u64 = 64;
/// A generation that is not empty after so many passes is left alone until the next one is begun.
const PASSES_MAX: u32 = 3;

/// Gives a session's state back to the journal.
pub trait SnapshotSource: Send + Sync {
    /// Takes the session's lock and appends a `Record::Snapshot` with `Urgency::Rides`. Does nothing if the session is
    /// gone and its `Record::Gone` appended. Called by the commit thread with no lock of the journal's state held; it
    /// must not wait for a commit.
    fn snapshot(&self, session: SessionNo);
}

/// Where compaction stands.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    stage: Stage,
    /// The open batch that is given copies, and how many bytes more it takes.
    fed: CommitNo,
    room: u64,
    last_commit_bytes: u64,
    ebb: Ebb,
    /// The active generation in which compaction was given up; tried again in the next.
    given_up_in: Option<u32>,
    /// Generations below this one go, however much of them is wanted.
    rewrite_before: u32,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Feeding(Feeding),
    /// Everything is copied; when this commit is durable the generation goes.
    Waiting {
        victim: u32,
        pass: u32,
        commit: CommitNo,
    },
}

/// What is left to copy of a generation.
#[derive(Debug)]
struct Feeding {
    victim: u32,
    pass: u32,
    messages: VecDeque<(Place, SlotNo)>,
    sessions: VecDeque<SessionNo>,
}

impl Compaction {
    /// Takes note of a commit's size.
    pub(super) fn committed(&mut self, bytes: u64) {
        self.last_commit_bytes = bytes;
    }
}

impl Committer {
    /// Does a piece of compaction if any is wanted, and deletes one generation at most; true if there is more to do
    /// before the next commit.
    pub(super) fn compact(&mut self, shared: &Shared) -> Result<bool, MediumError> {
        let mut deleted = false;
        loop {
            match std::mem::take(&mut self.compaction.stage) {
                Stage::Idle => {
                    if Self::has_to_turn_over(shared) {
                        let before = shared.state().ledger.active().map(|books| books.no);
                        self.next_generation(shared, before)?;
                    }
                    self.compaction.stage = self.begin(shared);
                    if matches!(self.compaction.stage, Stage::Idle) {
                        return Ok(deleted);
                    }
                }
                Stage::Feeding(feeding) => {
                    self.compaction.stage = self.feed(shared, feeding);
                    if matches!(self.compaction.stage, Stage::Feeding(_)) {
                        hurry(shared);
                        return Ok(deleted);
                    }
                }
                Stage::Waiting { victim, pass, commit } => {
                    if deleted || !shared.state().is_durable(commit) {
                        self.compaction.stage = Stage::Waiting { victim, pass, commit };
                        hurry(shared);
                        return Ok(deleted);
                    }
                    self.compaction.stage = self.finish(shared, victim, pass)?;
                    deleted = true;
                }
            }
        }
    }

    /// Begins a generation into which, and into those after it, everything is copied that stands before it. Returns it.
    pub(super) fn begin_rewrite(&mut self, shared: &Shared) -> Result<u32, MediumError> {
        let before = shared.state().ledger.active().map(|books| books.no);
        let fresh = self.next_generation(shared, before)?;
        self.compaction.rewrite_before = fresh;
        Ok(fresh)
    }

    /// Chooses the oldest generation, if compaction is wanted.
    fn begin(&mut self, shared: &Shared) -> Stage {
        let now = shared.now();
        let mut state = shared.state();
        let is_worth_it = is_worth_it(&state);
        let is_ebbing = self.compaction.ebb.is_fast(state.ledger.live_bytes(), now);
        let stands_back = is_ebbing && state.space.pressure() == Pressure::None;
        state.compact_at = None;
        let ledger = &mut state.ledger;
        let rewriting =
            ledger.generations.front().is_some_and(|oldest| oldest.no < self.compaction.rewrite_before);
        let active = ledger.active().map(|books| books.no);
        if !(rewriting || is_worth_it) || active == self.compaction.given_up_in {
            return Stage::Idle;
        }
        let victim = ledger.generations.front().filter(|books| Some(books.no) != active);
        if stands_back
            && !rewriting
            && victim.is_some_and(|books| books.live_frame_bytes() > books.frame_bytes / WORTH_WAITING_FOR)
        {
            state.compact_at = Some(now.after(SEEN_OVER));
            return Stage::Idle;
        }
        let victim = victim.map(|books| (books.no, books.live_frame_bytes()));
        let victim = victim.filter(|(_, live_bytes)| state.space.takes_copies(*live_bytes));
        drop(state);
        victim.map(|(no, _)| no).map_or(Stage::Idle, |victim| pass(shared, victim, 1))
    }

    /// Whether room is wanted that only the generation being written to could give.
    fn has_to_turn_over(shared: &Shared) -> bool {
        let state = shared.state();
        state.ledger.generations.len() == 1 && state.space.pressure() >= Pressure::Full && is_worth_it(&state)
    }

    /// Copies what the open batch has room for.
    fn feed(&mut self, shared: &Shared, mut feeding: Feeding) -> Stage {
        let open_no = shared.state().open_no;
        if self.compaction.fed != open_no {
            self.compaction.fed = open_no;
            self.compaction.room = COPY_BYTES_MIN.max(self.compaction.last_commit_bytes);
        }
        let room = &mut self.compaction.room;
        let mut reader = EntryReader::new(&*shared.medium, &shared.packing);
        while *room > 0
            && let Some((place, no)) = feeding.messages.pop_front()
        {
            match copy(shared, &mut reader, place, no) {
                Ok(bytes) => *room = room.saturating_sub(bytes),
                Err(error) => {
                    tracing::warn!(generation = feeding.victim, %error, "a part of the journal cannot be read now");
                    return self.compaction.give_up(shared);
                }
            }
        }
        if feeding.messages.is_empty() && !feeding.sessions.is_empty() {
            let source = lock(&shared.source).as_ref().and_then(Weak::upgrade);
            let Some(source) = source else { return self.compaction.give_up(shared) };
            while *room > 0
                && let Some(session) = feeding.sessions.pop_front()
            {
                let before = shared.state().open.bytes();
                source.snapshot(session);
                let bytes = shared.state().open.bytes().saturating_sub(before) as u64;
                *room = room.saturating_sub(bytes);
            }
        }
        if !feeding.messages.is_empty() || !feeding.sessions.is_empty() {
            return Stage::Feeding(feeding);
        }
        let state = shared.state();
        let commit = if state.open.is_empty() { state.durable } else { state.open_no };
        Stage::Waiting { victim: feeding.victim, pass: feeding.pass, commit }
    }

    /// Deletes the generation if nothing in it is wanted, else goes over it again.
    fn finish(&mut self, shared: &Shared, victim: u32, passes: u32) -> Result<Stage, MediumError> {
        if !is_empty(shared, victim) {
            if passes < PASSES_MAX {
                return Ok(pass(shared, victim, passes + 1));
            }
            tracing::warn!(generation = victim, "a part of the journal cannot be emptied yet");
            return Ok(self.compaction.give_up(shared));
        }
        shared.medium.delete_generation(victim)?;
        shared.state().ledger.generations.pop_front();
        self.looks.freed();
        Ok(Stage::Idle)
    }
}

/// Whether there is enough to be gained: the less room there is, the less has to be.
fn is_worth_it(state: &State) -> bool {
    let (bytes, live) = (state.ledger.frame_bytes(), state.ledger.live_bytes());
    let generation_bytes = state.generation_bytes();
    let dead = bytes.saturating_sub(live);
    match state.space.pressure() {
        Pressure::None => bytes > tolerated_bytes(state),
        Pressure::Near => dead > generation_bytes.max(live / 4),
        Pressure::Full => dead > (generation_bytes / 2).max(live / 16),
        Pressure::Dire => dead > generation_bytes / 2,
    }
}

/// What the frames may take before they are compacted, where there is room enough.
fn tolerated_bytes(state: &State) -> u64 {
    2 * state.generation_bytes().max(state.ledger.live_bytes())
}

/// Somebody waits for room, or the disk holds more than it should: what is copied is not to wait for company.
fn hurry(shared: &Shared) {
    let state = shared.state();
    let is_behind = state.ledger.frame_bytes() > tolerated_bytes(&state) * 5 / 4;
    let is_wanted = is_behind || state.space.pressure() > Pressure::None;
    drop(state);
    if is_wanted {
        shared.change(State::hurry);
    }
}

impl Compaction {
    /// Leaves the rest for the time after the next generation is begun.
    fn give_up(&mut self, shared: &Shared) -> Stage {
        self.given_up_in = shared.state().ledger.active().map(|books| books.no);
        Stage::Idle
    }
}

/// Lists what is wanted of a generation.
fn pass(shared: &Shared, victim: u32, pass: u32) -> Stage {
    let state = shared.state();
    let messages = state.ledger.live(victim).into();
    let sessions = state.ledger.sessions_in(victim);
    Stage::Feeding(Feeding { victim, pass, messages, sessions: sessions.into() })
}

fn is_empty(shared: &Shared, victim: u32) -> bool {
    let state = shared.state();
    state.ledger.sessions_in(victim).is_empty() && !state.ledger.has_live(victim)
}

/// Copies a message with the claims it has left. Returns the bytes it takes.
fn copy(shared: &Shared, reader: &mut EntryReader<'_>, place: Place, no: SlotNo) -> Result<u64, MediumError> {
    let Some((id, _)) = shared.state().ledger.slab.live(no).filter(|(_, at)| *at == place) else {
        return Ok(0);
    };
    let entry = reader.entry(place)?;
    let split = entry.as_deref().and_then(split_message).filter(|(head, _, _)| head.id == id);
    let Some((_, part, mut claims)) = split else {
        let mut state = shared.state();
        if let Some(stored) = state.ledger.slab.wake(no).filter(|stored| stored.id() == id) {
            tracing::error!(message = id, "a stored message cannot be read back: it is lost");
            count(&shared.counters.messages_lost, 1);
            stored.lock().lost = true;
        }
        return Ok(0);
    };
    let part = part.to_vec();
    let bytes = part.len() as u64;
    let now = shared.now();
    let mut state = shared.state();
    let Some(stored) = state.ledger.slab.wake(no).filter(|stored| stored.id() == id) else { return Ok(0) };
    let message = stored.lock();
    if message.is_dead() || message.place() != Some(place) || state.health != Health::Running {
        return Ok(0);
    }
    claims.targets.retain(|(index, _)| message.left.contains(*index));
    claims.retained = claims.retained.filter(|_| message.retained);
    drop(message);
    for (index, to) in state.handed_on.get(&id).into_iter().flatten() {
        if let Some((_, target)) = claims.targets.iter_mut().find(|(other, _)| other == index) {
            *target = to.clone();
        }
    }
    state.open.push(Item::Copy { stored, part, claims }, now);
    Ok(bytes)
}
