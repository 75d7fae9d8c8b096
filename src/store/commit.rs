//! The commit loop: takes the open batch, writes it, syncs, raises the durable mark, wakes.
//!
//! It is a `step` that a thread drives in production and a simulation drives directly.

use std::{sync::Arc, time::Duration};

use super::{
    batch::{Batch, Encoded, place},
    compact::Compaction,
    config::Durability,
    gate::CommitNo,
    journal::Shared,
    medium::MediumError,
    packing::{CommitHead, Cut},
    record::Marks,
    space::Looks,
    spare::Spare,
    state::{Health, State},
    stats::count,
    stored::{Phase, Place, Stored},
};
use crate::{sync::lock, time::Timestamp};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more to do.
    Worked,
    /// Nothing: there is nothing to do until then, unless something is appended.
    Idle(Option<Timestamp>),
}

/// What only the commit thread knows.
#[derive(Debug)]
pub(super) struct Committer {
    /// This start of the broker.
    pub(super) run: u32,
    pub(super) next_frame: u64,
    /// The next commit begins with the marks.
    pub(super) marks_due: bool,
    pub(super) compaction: Compaction,
    pub(super) looks: Looks,
    /// Where there is a disk to keep it on.
    pub(super) spare: Option<Spare>,
}

/// A batch on its way to the disk.
struct Taken {
    batch: Batch,
    no: CommitNo,
    marks: Marks,
    generation: Option<u32>,
    generation_is_full: bool,
}

impl Shared {
    /// The commit thread.
    pub(super) fn run_commits(&self) {
        while self.wait_for_work() {
            loop {
                *lock(&self.busy_since) = Some(self.now());
                let step = self.step();
                *lock(&self.busy_since) = None;
                if step != Step::Worked {
                    break;
                }
                if self.state().stopping {
                    return;
                }
            }
        }
    }

    /// Commits if something is due, then gives compaction its turn.
    pub(super) fn step(&self) -> Step {
        let mut committer = self.committer();
        // First: what the others have taken of the disk is known before a batch is.
        committer.look_at_space(self);
        let worked = committer.commit_if_due(self).and_then(|committed| {
            let compacted = committer.compact(self)?;
            Ok(committed || compacted)
        });
        match worked {
            Ok(true) => Step::Worked,
            Ok(false) => Step::Idle(self.state().next_deadline()),
            Err(error) => {
                self.poison(&error);
                Step::Idle(None)
            }
        }
    }

    /// The first commit of this run: the marks. It makes the run's number known, and shows that the disk takes writes.
    pub(super) fn first_commit(&self) -> Result<(), MediumError> {
        let mut committer = self.committer();
        committer.marks_due = true;
        let taken = self.state().take();
        committer.commit(self, taken)?;
        if let Some(spare) = &mut committer.spare {
            spare.started();
        }
        committer.look_at_space(self);
        Ok(())
    }

    /// Commits all that is left, held messages included, and closes.
    pub(super) fn commit_the_rest(&self) {
        let mut committer = self.committer();
        let now = self.now();
        let taken = self.change(|state| {
            state.release_all(now);
            (state.health == Health::Running && !state.open.is_empty()).then(|| state.take())
        });
        if let Some(taken) = taken
            && let Err(error) = committer.commit(self, taken)
        {
            self.poison(&error);
        }
        self.change(|state| {
            if state.health == Health::Running {
                state.stop(Health::Closed, now);
            }
        });
    }
}

impl State {
    /// Takes the open batch and opens the next.
    fn take(&mut self) -> Taken {
        let no = self.open_no;
        self.open_no = CommitNo(no.0 + 1);
        let batch = std::mem::replace(&mut self.open, std::mem::take(&mut self.next));
        self.writing_bytes = batch.bytes();
        let full_at = self.generation_bytes();
        let generation = self.ledger.active().map(|books| (books.no, books.frame_bytes >= full_at));
        Taken {
            batch,
            no,
            marks: self.marks,
            generation: generation.map(|(no, _)| no),
            generation_is_full: generation.is_none_or(|(_, full)| full),
        }
    }
}

impl Committer {
    pub(super) fn new(run: u32, next_frame: u64) -> Self {
        Self {
            run,
            next_frame,
            marks_due: true,
            compaction: Compaction::default(),
            looks: Looks::default(),
            spare: None,
        }
    }

    fn commit_if_due(&mut self, shared: &Shared) -> Result<bool, MediumError> {
        let now = shared.now();
        let taken = shared.change(|state| {
            if !state.is_due(now) {
                return None;
            }
            state.release_due(now);
            (!state.open.is_empty()).then(|| state.take())
        });
        match taken {
            Some(taken) => self.commit(shared, taken).map(|()| true),
            None => Ok(false),
        }
    }

    fn commit(&mut self, shared: &Shared, taken: Taken) -> Result<(), MediumError> {
        let started = shared.elapsed();
        let generation = match taken.generation {
            Some(no) if !taken.generation_is_full => no,
            before => self.next_generation(shared, before)?,
        };
        let timeline = shared.timeline();
        let marks = Marks { run: self.run, message: shared.intake.last_id(), ..taken.marks };
        let encoded = taken.batch.encode(timeline, self.marks_due.then_some(marks));
        let first_frame = self.next_frame;
        let head = CommitHead { run: self.run, commit: taken.no.0, generation, first_frame };
        let Cut { frames, starts } = shared.packing.cut(head, encoded.stream())?;
        let bytes: u64 = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
        self.next_frame += frames.len() as u64;
        shared.medium.apply(frames)?;
        match shared.config.durability {
            Durability::Power => {
                let before = shared.elapsed();
                shared.medium.sync()?;
                shared.counters.sync_micros.record(micros(shared.elapsed().saturating_sub(before)));
                count(&shared.counters.syncs, 1);
            }
            Durability::Process | Durability::Relaxed => shared.medium.hand_over()?,
        }
        self.marks_due = false;
        self.compaction.committed(bytes);
        self.looks.committed(bytes);
        let (counters, counts) = (&shared.counters, encoded.counts());
        count(&counters.commits, 1);
        count(&counters.bytes_frames, bytes);
        count(&counters.bytes_payload, counts.payload_bytes);
        count(&counters.bytes_kept, counts.kept_bytes);
        count(&counters.messages_written, counts.first_written);
        counters.commit_messages.record(counts.first_written);
        counters.commit_bytes.record(bytes);
        counters.commit_micros.record(micros(shared.elapsed().saturating_sub(started)));
        count(&counters.records, counts.records);
        shared.change(|state| state.committed(taken.no, head, &starts, bytes, encoded));
        Ok(())
    }

    pub(super) fn next_generation(
        &mut self,
        shared: &Shared,
        before: Option<u32>,
    ) -> Result<u32, MediumError> {
        let no = before.map_or(1, |no| no + 1);
        shared.medium.new_generation(no)?;
        self.marks_due = true;
        shared.state().ledger.begin(no);
        Ok(no)
    }
}

impl State {
    /// A commit is durable: keeps the books and wakes who waited for it.
    fn committed(
        &mut self,
        no: CommitNo,
        head: CommitHead,
        starts: &[usize],
        bytes: u64,
        mut encoded: Encoded,
    ) {
        let CommitHead { generation, first_frame, .. } = head;
        self.durable = no;
        self.writing_bytes = 0;
        self.space.written(bytes);
        if let Some(books) = self.ledger.active() {
            books.frame_bytes += bytes;
            books.stream_bytes += encoded.stream().len() as u64;
        }
        for (stored, offset, len) in encoded.take_messages() {
            self.placed(&stored, place(generation, first_frame, starts, offset, len));
        }
        for (session, len) in encoded.snapshots() {
            self.ledger.snapshot_placed(session, generation, len);
        }
        self.next = encoded.into_empty();
        self.ledger.slab.doze();
        self.ready.extend(self.waiters.take_until(no));
        if !self.is_backlogged() {
            self.ready.extend(self.backlog_waiters.take());
        }
    }

    /// A message stands here now, for the first time or as a copy.
    fn placed(&mut self, stored: &Arc<Stored>, place: Place) {
        let mut state = stored.lock();
        let before = state.place();
        let is_dead = state.is_dead();
        state.phase = Phase::Written(place);
        if is_dead || !state.keep_body {
            state.body = None;
        }
        if is_dead {
            return;
        }
        let no = *state.slot.get_or_insert_with(|| self.ledger.slab.insert(stored));
        drop(state);
        if let Some(before) = before {
            self.ledger.message_left(before);
            // Who moved it lets go of it now.
            self.ledger.slab.let_go(no);
        }
        self.ledger.message_placed(no, place);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
