//! What stands where: the bytes of each generation, which of them are live, and each session's latest snapshot.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::stored::{Place, Stored};
use crate::message::SessionNo;

/// Dead messages are dropped from a generation's list when there are more than this, and more than live ones.
const DEAD_MIN: usize = 64;

/// The books of the journal.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Oldest first; the last is written to.
    pub(super) generations: VecDeque<GenerationBooks>,
    /// Every session that is not gone.
    sessions: HashMap<SessionNo, SnapshotPlace>,
}

/// One generation's books.
#[derive(Debug)]
pub(super) struct GenerationBooks {
    pub(super) no: u32,
    /// Bytes of its frames.
    pub(super) frame_bytes: u64,
    /// Bytes of messages and snapshots in it that are still wanted.
    pub(super) live_bytes: u64,
    /// The live messages in it, and some that have died.
    stored: Vec<Arc<Stored>>,
    dead: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct SnapshotPlace {
    /// The generation its latest durable snapshot stands in; `None` while the first is not durable.
    generation: Option<u32>,
    len: u64,
}

impl GenerationBooks {
    pub(super) fn new(no: u32) -> Self {
        Self { no, frame_bytes: 0, live_bytes: 0, stored: Vec::new(), dead: 0 }
    }

    /// The messages in it that are alive, by place.
    pub(super) fn live(&self) -> Vec<(Place, Arc<Stored>)> {
        let mut live: Vec<_> = self
            .stored
            .iter()
            .filter_map(|stored| {
                let state = stored.lock();
                let place = state
                    .place()
                    .filter(|place| place.generation == self.no && !state.is_dead() && !state.lost)?;
                Some((place, Arc::clone(stored)))
            })
            .collect();
        live.sort_unstable_by_key(|(place, _)| *place);
        live
    }

    fn is_live(&self, stored: &Stored) -> bool {
        let state = stored.lock();
        !state.is_dead() && state.place().is_some_and(|place| place.generation == self.no)
    }

    fn left(&mut self, len: u64) {
        self.live_bytes = self.live_bytes.saturating_sub(len);
    }
}

impl Ledger {
    pub(super) fn frame_bytes(&self) -> u64 {
        self.generations.iter().map(|g| g.frame_bytes).sum()
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.generations.iter().map(|g| g.live_bytes).sum()
    }

    /// The generation written to.
    pub(super) fn active(&mut self) -> Option<&mut GenerationBooks> {
        self.generations.back_mut()
    }

    /// A live message stands here now.
    pub(super) fn message_placed(&mut self, stored: &Arc<Stored>, place: Place) {
        if let Some(books) = self.books(place.generation) {
            books.live_bytes += u64::from(place.len);
            books.stored.push(Arc::clone(stored));
        }
    }

    /// A message that stood here has died or moved. No message's lock is held.
    pub(super) fn message_left(&mut self, place: Place) {
        let Some(books) = self.books(place.generation) else { return };
        books.left(u64::from(place.len));
        books.dead += 1;
        if books.dead > DEAD_MIN && books.dead * 2 > books.stored.len() {
            let stored = std::mem::take(&mut books.stored);
            books.stored = stored.into_iter().filter(|stored| books.is_live(stored)).collect();
            books.dead = 0;
        }
    }

    /// A snapshot of the session is on its way.
    pub(super) fn session_known(&mut self, session: SessionNo) {
        self.sessions.entry(session).or_default();
    }

    /// A snapshot of the session stands durably in this generation, unless the session is gone.
    pub(super) fn snapshot_placed(&mut self, session: SessionNo, generation: u32, len: usize) {
        let Some(place) = self.sessions.get_mut(&session) else { return };
        let new = SnapshotPlace { generation: Some(generation), len: len as u64 };
        let old = std::mem::replace(place, new);
        self.snapshot_left(old);
        if let Some(books) = self.books(generation) {
            books.live_bytes += new.len;
        }
    }

    /// The session is gone.
    pub(super) fn session_gone(&mut self, session: SessionNo) {
        if let Some(old) = self.sessions.remove(&session) {
            self.snapshot_left(old);
        }
    }

    /// The sessions whose latest durable snapshot stands in this generation.
    pub(super) fn sessions_in(&self, generation: u32) -> Vec<SessionNo> {
        let here = |place: &SnapshotPlace| place.generation == Some(generation);
        let mut sessions: Vec<_> =
            self.sessions.iter().filter(|(_, place)| here(place)).map(|(no, _)| *no).collect();
        sessions.sort_unstable();
        sessions
    }

    fn snapshot_left(&mut self, place: SnapshotPlace) {
        if let Some(books) = place.generation.and_then(|no| self.books(no)) {
            books.left(place.len);
        }
    }

    fn books(&mut self, no: u32) -> Option<&mut GenerationBooks> {
        let at = self.generations.binary_search_by_key(&no, |g| g.no).ok()?;
        self.generations.get_mut(at)
    }
}
