//! What stands where: the bytes of each generation, which of them are live, and each session's latest snapshot.

use std::collections::{HashMap, VecDeque};

use super::{
    slab::{Slab, SlotNo},
    stored::Place,
};
use crate::message::SessionNo;

/// Dead messages are dropped from a generation's list when there are more than this, and more than live ones.
const DEAD_MIN: usize = 64;

/// The books of the journal.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Oldest first; the last is written to.
    pub(super) generations: VecDeque<GenerationBooks>,
    /// The messages.
    pub(super) slab: Slab,
    /// Every session that is not gone.
    sessions: HashMap<SessionNo, SnapshotPlace>,
}

/// One generation's books.
#[derive(Debug)]
pub(super) struct GenerationBooks {
    pub(super) no: u32,
    /// Bytes of its frames.
    pub(super) frame_bytes: u64,
    /// Bytes of the streams in them, which are more where frames are compressed.
    pub(super) stream_bytes: u64,
    /// Bytes of messages and snapshots in it that are still wanted, in the stream.
    pub(super) live_bytes: u64,
    /// The live messages in it, and some that have died.
    messages: Vec<SlotNo>,
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
        Self { no, frame_bytes: 0, stream_bytes: 0, live_bytes: 0, messages: Vec::new(), dead: 0 }
    }

    /// The messages in it that are alive, by place.
    fn live(&self, slab: &Slab) -> Vec<(Place, SlotNo)> {
        let here = |no: &SlotNo| {
            let (_, place) = slab.live(*no)?;
            (place.generation == self.no).then_some((place, *no))
        };
        let mut live: Vec<_> = self.messages.iter().filter_map(here).collect();
        live.sort_unstable();
        // A slot that was used again for another message of this generation stands here twice.
        live.dedup();
        live
    }

    /// Whether any message in it is alive.
    fn has_live(&self, slab: &Slab) -> bool {
        self.messages.iter().any(|no| self.is_live(*no, slab))
    }

    fn is_live(&self, no: SlotNo, slab: &Slab) -> bool {
        slab.live(no).is_some_and(|(_, place)| place.generation == self.no)
    }

    /// Drops the dead from the list. In the order of the slots, which is how they lie in memory.
    fn drop_dead(&mut self, slab: &Slab) {
        let mut messages = std::mem::take(&mut self.messages);
        messages.sort_unstable();
        messages.dedup();
        messages.retain(|no| self.is_live(*no, slab));
        messages.shrink_to_fit();
        self.messages = messages;
        self.dead = 0;
    }

    /// What is wanted, in bytes of frames: compressed it is less than in the stream.
    pub(super) fn live_frame_bytes(&self) -> u64 {
        if self.frame_bytes >= self.stream_bytes {
            return self.live_bytes;
        }
        let part = u128::from(self.live_bytes) * u128::from(self.frame_bytes) / u128::from(self.stream_bytes);
        u64::try_from(part).unwrap_or(self.live_bytes)
    }

    fn left(&mut self, len: u64) {
        self.live_bytes = self.live_bytes.saturating_sub(len);
    }
}

impl Ledger {
    pub(super) fn frame_bytes(&self) -> u64 {
        self.generations.iter().map(|g| g.frame_bytes).sum()
    }

    /// Bytes of frames that are wanted.
    pub(super) fn live_bytes(&self) -> u64 {
        self.generations.iter().map(GenerationBooks::live_frame_bytes).sum()
    }

    /// The generation written to.
    pub(super) fn active(&mut self) -> Option<&mut GenerationBooks> {
        self.generations.back_mut()
    }

    /// A generation begins; the one before grows no more.
    pub(super) fn begin(&mut self, no: u32) {
        if let Some(before) = self.generations.back_mut() {
            before.messages.shrink_to_fit();
        }
        self.generations.push_back(GenerationBooks::new(no));
    }

    /// The messages of a generation that are alive, by place.
    pub(super) fn live(&self, generation: u32) -> Vec<(Place, SlotNo)> {
        let books = self.generations.iter().find(|books| books.no == generation);
        books.map_or_else(Vec::new, |books| books.live(&self.slab))
    }

    /// Whether any message of a generation is alive.
    pub(super) fn has_live(&self, generation: u32) -> bool {
        self.generations.iter().any(|books| books.no == generation && books.has_live(&self.slab))
    }

    /// A live message stands here now.
    pub(super) fn message_placed(&mut self, no: SlotNo, place: Place) {
        if let Some(books) = self.books(place.generation) {
            books.live_bytes += u64::from(place.len);
            books.messages.push(no);
        }
    }

    /// A message that stood here has died or moved. No message's lock is held.
    pub(super) fn message_left(&mut self, place: Place) {
        let Some(at) = self.position(place.generation) else { return };
        let Some(books) = self.generations.get_mut(at) else { return };
        books.left(u64::from(place.len));
        books.dead += 1;
        if books.dead > DEAD_MIN && books.dead * 2 > books.messages.len() {
            books.drop_dead(&self.slab);
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
        let at = self.position(no)?;
        self.generations.get_mut(at)
    }

    fn position(&self, no: u32) -> Option<usize> {
        self.generations.binary_search_by_key(&no, |g| g.no).ok()
    }
}
