//! Reading bodies back from disk, on a thread of its own: a sleeper's backlog must not hold up commits.

use std::{
    borrow::Cow,
    collections::VecDeque,
    iter,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use super::{
    format::{Entry, read_entry},
    journal::Shared,
    medium::{Medium, MediumError},
    packing::{Opened, Packing},
    stats::count,
    stored::{Place, Stored},
};
use crate::message::Message;
use crate::sync::lock;

/// How many requests wait at most. A session has one at a time; of those that come beyond it only the waker is kept, and
/// they ask again when there is room.
const REQUESTS_MAX: usize = 4_096;
/// How long nothing is read after the system has refused.
const FAILED_WAIT: Duration = Duration::from_millis(200);
/// How many frames are remembered, and how many bytes of theirs: compressed ones have more. Sessions that wake one after
/// the other often want messages of the same frames.
const FRAMES_MAX: usize = 512;
const FRAMES_BYTES_MAX: usize = 2 << 20;
/// A message moves while it is read only if compaction has just copied it, once.
const TRIES: usize = 3;

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    state: Mutex<Requests>,
    work: Condvar,
    /// For the read thread alone.
    frames: Mutex<FrameCache>,
}

#[derive(Debug, Default)]
struct Requests {
    waiting: VecDeque<(Vec<Arc<Stored>>, Waker)>,
    /// Who came when there was no room: one a connection, since nobody asks again before being woken.
    turned_away: Vec<Waker>,
    stopping: bool,
}

impl ReadQueue {
    /// Queues a request, or, when there is no room, who asked.
    pub(super) fn push(&self, wanted: Vec<Arc<Stored>>, waker: Waker) {
        let mut requests = self.lock();
        if requests.waiting.len() >= REQUESTS_MAX {
            requests.turned_away.push(waker);
        } else if !requests.stopping {
            requests.waiting.push_back((wanted, waker));
            self.work.notify_one();
        }
    }

    /// Takes the next request, and who may ask again by now.
    fn pop(&self) -> Option<(Vec<Arc<Stored>>, Waker, Vec<Waker>)> {
        let mut requests = self.lock();
        let (wanted, waker) = requests.waiting.pop_front()?;
        let has_room = requests.waiting.len() < REQUESTS_MAX / 2;
        let again = if has_room { std::mem::take(&mut requests.turned_away) } else { Vec::new() };
        Some((wanted, waker, again))
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        lock(&self.state)
    }
}

impl Shared {
    /// The read thread.
    pub(super) fn run_reads(&self) {
        loop {
            let mut requests = self.reads.lock();
            while requests.waiting.is_empty() && !requests.stopping {
                requests = self.reads.work.wait(requests).unwrap_or_else(PoisonError::into_inner);
            }
            if requests.stopping {
                return;
            }
            drop(requests);
            if self.serve() == Some(Outcome::Failed) {
                // Who asked will ask again: not at once.
                let requests = self.reads.lock();
                let stopping = |requests: &mut Requests| !requests.stopping;
                drop(self.reads.work.wait_timeout_while(requests, FAILED_WAIT, stopping));
            }
        }
    }

    /// Serves one request; false if there is none.
    pub(super) fn read_step(&self) -> bool {
        self.serve().is_some()
    }

    fn serve(&self) -> Option<Outcome> {
        let (mut wanted, waker, again) = self.reads.pop()?;
        again.into_iter().for_each(Waker::wake);
        let mut worst = Outcome::Served;
        wanted.sort_by_cached_key(|stored| stored.lock().place());
        let mut frames = std::mem::take(&mut *lock(&self.reads.frames));
        if frames.places.is_empty() {
            frames = FrameCache::of(FRAMES_MAX);
        }
        let mut reader = EntryReader { medium: &*self.medium, packing: &self.packing, frames };
        for stored in wanted {
            match read_body(&mut reader, &stored) {
                Outcome::Served => {}
                Outcome::Lost => {
                    tracing::error!(
                        message = stored.id(),
                        "a stored message cannot be read back: it is lost"
                    );
                    count(&self.counters.messages_lost, 1);
                }
                Outcome::Failed => worst = Outcome::Failed,
            }
        }
        *lock(&self.reads.frames) = reader.frames;
        waker.wake();
        Some(worst)
    }
}

/// What became of a request for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    /// It is not where it was written.
    Lost,
    /// The system refuses for now.
    Failed,
}

/// Reads one body back.
fn read_body(reader: &mut EntryReader<'_>, stored: &Stored) -> Outcome {
    for attempt in 1..=TRIES {
        let place = {
            let state = stored.lock();
            match state.place() {
                Some(place) if state.body.is_none() && !state.lost && !state.is_dead() => place,
                _ => return Outcome::Served,
            }
        };
        let found = reader.message(place, stored.id());
        let mut state = stored.lock();
        match found {
            Ok(Some(message)) => {
                if !state.is_dead() {
                    state.body = Some(Arc::new(message));
                }
                return Outcome::Served;
            }
            _ if state.place() != Some(place) && attempt < TRIES => {}
            _ if state.is_dead() => return Outcome::Served,
            Ok(None) => {
                state.lost = true;
                return Outcome::Lost;
            }
            Err(MediumError::Io(error)) => {
                tracing::warn!(message = stored.id(), %error, "reading the journal failed; it is tried again");
                return Outcome::Failed;
            }
            Err(error) => {
                tracing::error!(message = stored.id(), %error, "reading the journal failed");
                state.lost = true;
                return Outcome::Lost;
            }
        }
    }
    Outcome::Served
}

/// Reads entries by place.
pub(super) struct EntryReader<'a> {
    medium: &'a dyn Medium,
    packing: &'a Packing,
    frames: FrameCache,
}

impl<'a> EntryReader<'a> {
    /// One that keeps the last frame: messages of one frame are read one after the other.
    pub(super) fn new(medium: &'a dyn Medium, packing: &'a Packing) -> Self {
        Self { medium, packing, frames: FrameCache::of(1) }
    }

    /// The message at a place; `None` if what stands there is not it.
    pub(super) fn message(&mut self, place: Place, id: u64) -> Result<Option<Message>, MediumError> {
        let Some(bytes) = self.entry(place)? else { return Ok(None) };
        Ok(match read_entry(&bytes) {
            Some((Entry::Message(found), _)) if found.id == id => Some(found.message),
            _ => None,
        })
    }

    /// The bytes of the entry at a place; `None` if a frame is missing or damaged.
    pub(super) fn entry(&mut self, place: Place) -> Result<Option<Cow<'_, [u8]>>, MediumError> {
        let (len, offset) = (place.len as usize, usize::from(place.offset));
        let Place { generation, frame: first, .. } = place;
        if !self.frames.fetch(self.medium, self.packing, generation, first)? {
            return Ok(None);
        }
        let Some((commit, body)) = self.frames.get(generation, first) else { return Ok(None) };
        let Some(begun) = body.get(offset..) else { return Ok(None) };
        if begun.len() >= len {
            // What is borrowed is borrowed to the end: so it is looked up once more.
            return Ok(self
                .frames
                .get(generation, first)
                .and_then(|(_, body)| body.get(offset..offset + len).map(Cow::Borrowed)));
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(begun);
        for no in first + 1.. {
            if !self.frames.fetch(self.medium, self.packing, generation, no)? {
                return Ok(None);
            }
            let Some((of, body)) = self.frames.get(generation, no) else { return Ok(None) };
            if of != commit {
                return Ok(None);
            }
            bytes.extend(body.iter().take(len - bytes.len()));
            if bytes.len() == len {
                return Ok(Some(Cow::Owned(bytes)));
            }
        }
        Ok(None)
    }
}

/// Frames read lately, each in the one place that its number gives it.
#[derive(Debug, Default)]
struct FrameCache {
    places: Vec<Option<CachedFrame>>,
    bytes: usize,
    /// Whose turn it is to go when there are too many bytes.
    next_out: usize,
}

/// A frame that was found whole.
#[derive(Debug)]
struct CachedFrame {
    generation: u32,
    frame: u64,
    commit: CommitOfRun,
    /// Its body, unpacked.
    body: Vec<u8>,
}

/// A commit's number, and the run it is of.
type CommitOfRun = (u32, u64);

impl FrameCache {
    fn of(places: usize) -> Self {
        Self { places: iter::repeat_with(|| None).take(places).collect(), bytes: 0, next_out: 0 }
    }

    /// Which commit a frame is of, and its body, if it was read lately.
    fn get(&self, generation: u32, frame: u64) -> Option<(CommitOfRun, &[u8])> {
        let found = self.places.get(self.place(frame)?)?.as_ref()?;
        ((found.generation, found.frame) == (generation, frame))
            .then_some((found.commit, found.body.as_slice()))
    }

    /// Reads a frame unless it is there; false if it is missing or damaged.
    fn fetch(
        &mut self,
        medium: &dyn Medium,
        packing: &Packing,
        generation: u32,
        no: u64,
    ) -> Result<bool, MediumError> {
        if self.get(generation, no).is_some() {
            return Ok(true);
        }
        let Some(bytes) = medium.read(generation, no)? else { return Ok(false) };
        let Ok(Opened { header, body }) = packing.open(generation, &bytes) else { return Ok(false) };
        if header.frame != no {
            return Ok(false);
        }
        let commit = (header.run, header.commit);
        let found = CachedFrame { generation, frame: no, commit, body: body.into_owned() };
        if let Some(at) = self.place(no) {
            self.take_out(at);
            while self.bytes + found.body.len() > FRAMES_BYTES_MAX && self.bytes > 0 {
                self.take_out(self.next_out);
                self.next_out = (self.next_out + 1) % self.places.len().max(1);
            }
            self.bytes += found.body.len();
            if let Some(place) = self.places.get_mut(at) {
                *place = Some(found);
            }
        }
        Ok(true)
    }

    fn take_out(&mut self, at: usize) {
        let out = self.places.get_mut(at).and_then(Option::take);
        self.bytes -= out.map_or(0, |frame| frame.body.len());
    }

    fn place(&self, frame: u64) -> Option<usize> {
        usize::try_from(frame.checked_rem(self.places.len() as u64)?).ok()
    }
}
