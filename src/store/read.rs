//! Reading bodies back from disk, on a thread of its own: a sleeper's backlog must not hold up commits.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use super::{
    format::read_body_of,
    frame_cache::FrameCache,
    journal::Shared,
    medium::{Medium, MediumError},
    packing::Packing,
    stats::count,
    stored::{Place, Stored, StoredState},
};
use crate::{message::Message, sync::lock, topic::TopicName};

/// How many requests wait at most. A session has one at a time; of those that come beyond it only the waker is kept, and
/// they ask again when there is room.
const REQUESTS_MAX: usize = 4_096;
/// How long nothing is read after the system has refused.
const FAILED_WAIT: Duration = Duration::from_millis(200);
/// How many frames are remembered: sessions that wake one after the other often want messages of the same ones. 1,000 that
/// were sent a thousand messages in turn share some 800 of them.
const FRAMES_MAX: usize = 1_024;
/// And for how long after the last request.
const REMEMBERED: Duration = Duration::from_secs(2);
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
            let is_idle = |requests: &mut Requests| requests.waiting.is_empty() && !requests.stopping;
            let waited = self.reads.work.wait_timeout_while(self.reads.lock(), REMEMBERED, is_idle);
            let (mut requests, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                drop(requests);
                *lock(&self.reads.frames) = FrameCache::default();
                requests = self.reads.lock();
                let waited = self.reads.work.wait_while(requests, is_idle);
                requests = waited.unwrap_or_else(PoisonError::into_inner);
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
        let (wanted, waker, again) = self.reads.pop()?;
        again.into_iter().for_each(Waker::wake);
        let mut worst = Outcome::Served;
        let here = |stored: Arc<Stored>| {
            let place = place_to_read(&stored.lock())?;
            Some((place, stored))
        };
        let mut wanted: Vec<_> = wanted.into_iter().filter_map(here).collect();
        wanted.sort_unstable_by_key(|(place, _)| *place);
        let frames = std::mem::take(&mut *lock(&self.reads.frames)).holding(FRAMES_MAX);
        let mut reader = EntryReader { medium: &*self.medium, packing: &self.packing, frames, topic: None };
        for (place, stored) in wanted {
            match read_body(&mut reader, &stored, place) {
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

/// Where the body of a message stands, if it is to be read.
fn place_to_read(state: &StoredState) -> Option<Place> {
    state.place().filter(|_| state.body.is_none() && !state.lost && !state.is_dead())
}

/// Reads one body back, which stood at `place` a moment ago.
fn read_body(reader: &mut EntryReader<'_>, stored: &Stored, mut place: Place) -> Outcome {
    for attempt in 1..=TRIES {
        let found = reader.message(place, stored.id());
        let mut state = stored.lock();
        match found {
            Ok(Some(message)) => {
                if !state.is_dead() {
                    state.body = Some(Arc::new(message));
                }
                return Outcome::Served;
            }
            _ if state.place() != Some(place) && attempt < TRIES => match place_to_read(&state) {
                Some(moved) => place = moved,
                None => return Outcome::Served,
            },
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
    /// Of the message before: the next one often has the same.
    topic: Option<TopicName>,
}

impl<'a> EntryReader<'a> {
    /// One that keeps the last frame: messages of one frame are read one after the other.
    pub(super) fn new(medium: &'a dyn Medium, packing: &'a Packing) -> Self {
        Self { medium, packing, frames: FrameCache::default(), topic: None }
    }

    /// The message at a place; `None` if what stands there is not it.
    pub(super) fn message(&mut self, place: Place, id: u64) -> Result<Option<Message>, MediumError> {
        let before = self.topic.take();
        let Some(bytes) = self.entry(place)? else { return Ok(None) };
        let found = read_body_of(id, &bytes, before.as_ref());
        self.topic = found.as_ref().map(|message| message.topic.clone()).or(before);
        Ok(found)
    }

    /// The bytes of the entry at a place; `None` if a frame is missing or damaged.
    pub(super) fn entry(&mut self, place: Place) -> Result<Option<Cow<'_, [u8]>>, MediumError> {
        let (len, offset) = (place.len as usize, usize::from(place.offset));
        let Place { generation, frame: first, .. } = place;
        let Some(found) = self.frames.fetch(self.medium, self.packing, generation, first)? else {
            return Ok(None);
        };
        let (commit, body) = self.frames.get(found);
        let Some(begun) = body.get(offset..) else { return Ok(None) };
        if begun.len() >= len {
            // What is borrowed is borrowed to the end: so it is looked up once more.
            return Ok(self.frames.get(found).1.get(offset..offset + len).map(Cow::Borrowed));
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(begun);
        for no in first + 1.. {
            let Some(found) = self.frames.fetch(self.medium, self.packing, generation, no)? else {
                return Ok(None);
            };
            let (of, body) = self.frames.get(found);
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
