//! Opening: what the journal says becomes what the broker starts with.

use std::{io, path::Path, sync::Arc};

use super::{
    commit::Committer,
    config::Config,
    error::OpenError,
    gate::CommitNo,
    ledger::{GenerationBooks, Ledger},
    medium::{Medium, MediumError},
    packing::Packing,
    read::EntryReader,
    record::Snapshot,
    replay::{FoundSession, Replay},
    slab::Parked,
    state::State,
    stored::Stored,
};
use crate::{
    message::{Message, Seq, SessionNo},
    session::Shelf,
    time::{Timeline, Timestamp, WallClock},
    topic::{Label, TopicFilter},
};

/// A session as it was when the power went.
#[derive(Clone, Debug)]
pub struct RecoveredSession {
    /// All but the queue.
    pub snapshot: Snapshot,
    /// What it must still get, by `seq`. Messages in `snapshot.received` are not in it.
    pub queue: Shelf<Parked>,
    /// Which of them came by a shared subscription, and by which; by `seq`.
    pub groups: Vec<(Seq, TopicFilter)>,
    /// Their labels, where those are not empty; by `seq`.
    pub labels: Vec<(Seq, Label)>,
}

/// A topic's retained message.
#[derive(Clone, Debug)]
pub struct RecoveredRetained {
    /// The version it was stored with.
    pub version: u64,
    /// Its claim in the journal.
    pub stored: Arc<Stored>,
    /// The message.
    pub message: Arc<Message>,
}

/// What was in the journal.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where the broker's time goes on.
    pub now: Timestamp,
    /// Where it stood at the last commit, and the wall clock.
    pub timeline: Timeline,
    /// Every session, by number.
    pub sessions: Vec<RecoveredSession>,
    /// Every retained message, by topic.
    pub retained: Vec<RecoveredRetained>,
    /// Session numbers from here on were never given.
    pub next_session: u64,
    /// Retained versions from here on were never given.
    pub next_retained_version: u64,
    /// Damaged parts that were set aside or left out; the log says which.
    pub damaged: u64,
    /// Messages that could not be read back.
    pub messages_lost: u64,
}

/// Why recovery failed, before it is said of which folder.
#[derive(Debug)]
pub(super) enum Failure {
    Medium(MediumError),
    Newer(u8),
}

impl From<MediumError> for Failure {
    fn from(error: MediumError) -> Self {
        Self::Medium(error)
    }
}

impl Failure {
    pub(super) fn at(self, dir: &Path) -> OpenError {
        match self {
            Self::Medium(error) => open_error(error, dir),
            Self::Newer(version) => OpenError::NewerFormat { path: dir.to_owned(), version },
        }
    }
}

/// A medium's error as the user sees it.
pub(super) fn open_error(error: MediumError, dir: &Path) -> OpenError {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let path = dir.to_owned();
    match error {
        MediumError::Io(source)
            if matches!(
                source.kind(),
                PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull
            ) =>
        {
            OpenError::NotWritable { path, source }
        }
        MediumError::Io(source) => OpenError::Unreadable { path, source },
        MediumError::Newer(version) => OpenError::NewerFormat { path, version },
        MediumError::Changed => OpenError::Unreadable { path, source: io::Error::other(error) },
        MediumError::Broken(text) => OpenError::Unreadable { path, source: io::Error::other(text) },
    }
}

/// Reads the journal.
pub(super) fn recover(
    medium: &dyn Medium,
    packing: &Packing,
    config: &Config,
    wall: WallClock,
) -> Result<(State, Committer, Recovered), Failure> {
    let mut replay = Replay::default();
    replay.damaged = medium.damaged();
    replay.labels = config.labels.clone();
    let mut ledger = Ledger::default();
    for generation in medium.generations() {
        let mut books = GenerationBooks::new(generation);
        replay.begin_generation(generation);
        medium.scan(generation, &mut |no, bytes| {
            books.frame_bytes += bytes.len() as u64;
            let opened = packing.open(generation, bytes);
            books.stream_bytes += opened.as_ref().map_or(0, |opened| opened.body.len() as u64);
            replay.frame(no, opened);
        })?;
        ledger.generations.push_back(books);
        if let Some(version) = replay.newer {
            return Err(Failure::Newer(version));
        }
    }
    replay.end();
    drop_unwanted(&mut replay);
    let handed_on = replay.handed_on_left();

    let mut builder = Builder { medium, packing, ledger, messages_lost: 0 };
    builder.place_messages(&mut replay);
    let retained = builder.retained(&replay);
    let sessions = builder.sessions(&mut replay);
    let recovered = Recovered {
        now: replay.timeline.resume(wall),
        timeline: replay.timeline,
        sessions,
        retained,
        next_session: replay.marks.session + 1,
        next_retained_version: replay.marks.retained_version + 1,
        damaged: replay.damaged,
        messages_lost: builder.messages_lost,
    };
    let committer = Committer::new(replay.marks.run + 1, replay.last_frame + 1);
    let durable = CommitNo(replay.last_commit);
    let mut state = State::new(config.clone(), replay.marks, durable, builder.ledger);
    state.handed_on = handed_on;
    Ok((state, committer, recovered))
}

/// Leaves out what nobody is there for any more.
fn drop_unwanted(replay: &mut Replay) {
    let nobodys: Vec<SessionNo> =
        replay.queues.keys().filter(|no| !replay.sessions.contains_key(no)).copied().collect();
    for no in nobodys {
        replay.drop_queue(no);
    }
    let received: Vec<(SessionNo, Seq)> = replay
        .sessions
        .iter()
        .flat_map(|(no, session)| session.snapshot.received.iter().map(|seq| (*no, *seq)))
        .collect();
    for (no, seq) in received {
        replay.drop_target(no, seq);
    }
}

struct Builder<'a> {
    medium: &'a dyn Medium,
    packing: &'a Packing,
    ledger: Ledger,
    messages_lost: u64,
}

impl Builder<'_> {
    /// Enters the messages that somebody wants in the books, and drops the others.
    fn place_messages(&mut self, replay: &mut Replay) {
        for id in replay.retained.values().filter_map(|(_, message)| *message) {
            let stored = replay.messages.get(&id).and_then(|no| replay.slab.wake(*no));
            if let Some(stored) = stored {
                stored.lock().retained = true;
            }
        }
        self.ledger.slab = std::mem::take(&mut replay.slab);
        for no in replay.messages.values() {
            match self.ledger.slab.live(*no) {
                Some((_, place)) if !self.ledger.slab.is_dead(*no) => self.ledger.message_placed(*no, place),
                _ => self.ledger.slab.remove(*no),
            }
        }
    }

    /// Reads the retained messages back.
    fn retained(&mut self, replay: &Replay) -> Vec<RecoveredRetained> {
        let mut wanted: Vec<_> = replay
            .retained
            .values()
            .filter_map(|(version, message)| Some((*version, replay.messages.get(&(*message)?)?)))
            .filter_map(|(version, no)| Some((version, self.ledger.slab.wake(*no)?)))
            .filter_map(|(version, stored)| {
                let place = stored.lock().place()?;
                Some((place, version, stored))
            })
            .collect();
        wanted.sort_unstable_by_key(|(place, _, _)| *place);
        let mut reader = EntryReader::new(self.medium, self.packing);
        let mut retained = Vec::with_capacity(wanted.len());
        for (place, version, stored) in wanted {
            if let Ok(Some(message)) = reader.message(place, stored.id()) {
                retained.push(RecoveredRetained { version, stored, message: Arc::new(message) });
            } else {
                tracing::error!(message = stored.id(), "a retained message cannot be read back: it is lost");
                self.messages_lost += 1;
                stored.lock().lost = true;
            }
        }
        retained.sort_unstable_by(|a, b| a.message.topic.cmp(&b.message.topic));
        retained
    }

    fn sessions(&mut self, replay: &mut Replay) -> Vec<RecoveredSession> {
        let mut sessions: Vec<_> = std::mem::take(&mut replay.sessions).into_iter().collect();
        sessions.sort_unstable_by_key(|(no, _)| *no);
        let mut recovered = Vec::with_capacity(sessions.len());
        for (no, found) in sessions {
            let FoundSession { mut snapshot, subscriptions, generation, len } = found;
            self.ledger.session_known(no);
            self.ledger.snapshot_placed(no, generation, len);
            snapshot.subscriptions = subscriptions.into_values().collect();
            let queue = replay.queues.remove(&no).unwrap_or_default();
            let groups = replay.groups.remove(&no).unwrap_or_default().into_iter().collect();
            let labels = self.labels(replay, &queue);
            recovered.push(RecoveredSession { snapshot, queue, groups, labels });
        }
        recovered
    }

    fn labels(&self, replay: &Replay, queue: &Shelf<Parked>) -> Vec<(Seq, Label)> {
        if replay.labelled.is_empty() {
            return Vec::new();
        }
        let label = |parked: Parked| replay.labelled.get(&self.ledger.slab.id(parked.slot())?).copied();
        queue.iter().filter_map(|shelved| Some((shelved.seq, label(shelved.parked)?))).collect()
    }
}
