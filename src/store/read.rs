//! Reading bodies back: those in the memory of the operating system where they are wanted, the others on a thread of its own, since a
//! sleeper's backlog must hold up neither commits nor who serves other clients.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use super::{
    format::read_body_of,
    frame_cache::{FrameCache, ReadFrame},
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
/// How long frames are remembered after the last request.
const REMEMBERED: Duration = Duration::from_secs(2);
/// A message moves while it is read only if compaction has just copied it, once.
const TRIES: usize = 3;

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    state: Mutex<Requests>,
    work: Condvar,
    /// Locked for a look at a time, and nothing else under it.
    frames: Mutex<FrameCache>,
}

#[derive(Debug, Default)]
struct Requests {
    waiting: VecDeque<(Vec<Arc<Stored>>, Waker)>,
    /// Who came when there was no room: one a connection, since nobody asks again before being woken.
    turned_away: Vec<Waker>,
    /// Frames are remembered, and to be forgotten in time.
    remembers: bool,
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

    /// The frame, if it is remembered; else memory to read it into.
    fn find(&self, generation: u32, no: u64) -> Result<Arc<ReadFrame>, Vec<u8>> {
        lock(&self.frames).find(generation, no)
    }

    /// Remembers a frame for who wants it next.
    fn remember(&self, frame: &Arc<ReadFrame>) {
        if lock(&self.frames).keep(frame) {
            self.lock().remembers = true;
            self.work.notify_one();
        }
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
            let has_none = |requests: &mut Requests| is_idle(requests) && !requests.remembers;
            let waited = self.reads.work.wait_while(self.reads.lock(), has_none);
            let requests = waited.unwrap_or_else(PoisonError::into_inner);
            let waited = self.reads.work.wait_timeout_while(requests, REMEMBERED, is_idle);
            let (mut requests, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                // Whoever remembers the first frame after this says so behind it.
                requests.remembers = false;
                drop(requests);
                if !lock(&self.reads.frames).forget_if_unused() {
                    self.reads.lock().remembers = true;
                }
                continue;
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
        let mut reader = EntryReader::remembering(self, Reach::Disk);
        for (place, stored) in to_read(&wanted) {
            match read_body(&mut reader, stored, place) {
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
        waker.wake();
        Some(worst)
    }

    /// Reads the bodies of messages back as far as that needs no waiting for the disk. `None`: all of them; else those that the
    /// thread is to look at.
    pub(super) fn read_at_hand(&self, wanted: Vec<Arc<Stored>>) -> Option<Vec<Arc<Stored>>> {
        let mut reader = EntryReader::remembering(self, Reach::AtHand);
        // Whatever is the matter with one: the thread will find out.
        let mut read = |place, stored: &Stored| match reader.message(place, stored.id()) {
            Ok(Some(message)) => {
                stored.lock().read_back(message);
                true
            }
            _ => false,
        };
        // The newest is the likeliest not to be at hand: what is being written to is read on the thread.
        let Some((newest, others)) = wanted.split_last() else { return Some(wanted) };
        let place = place_to_read(&newest.lock());
        let are_all_read = place.is_some_and(|place| read(place, newest)) && {
            let readable = to_read(others);
            readable.len() == others.len() && readable.into_iter().all(|(place, stored)| read(place, stored))
        };
        (!are_all_read).then_some(wanted)
    }
}

/// Those that have to be read, in the order in which they lie.
fn to_read<'w>(wanted: &'w [Arc<Stored>]) -> Vec<(Place, &'w Stored)> {
    let here = |stored: &'w Arc<Stored>| Some((place_to_read(&stored.lock())?, &**stored));
    let mut wanted: Vec<_> = wanted.iter().filter_map(here).collect();
    wanted.sort_unstable_by_key(|(place, _)| *place);
    wanted
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
                state.read_back(message);
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

/// How far a reader goes for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Nowhere it would have to wait for the disk.
    AtHand,
    Disk,
}

/// Reads entries by place.
pub(super) struct EntryReader<'a> {
    medium: &'a dyn Medium,
    packing: &'a Packing,
    /// Where frames are remembered beyond this reader.
    reads: Option<&'a ReadQueue>,
    reach: Reach,
    /// The frame before: the next entry is often of the same one.
    frame: Option<Arc<ReadFrame>>,
    /// Of the message before: the next one often has the same.
    topic: Option<TopicName>,
}

impl<'a> EntryReader<'a> {
    /// One that remembers a frame: messages of one frame are read one after the other.
    pub(super) fn new(medium: &'a dyn Medium, packing: &'a Packing) -> Self {
        Self { medium, packing, reads: None, reach: Reach::Disk, frame: None, topic: None }
    }

    /// One that shares what it reads with others.
    fn remembering(shared: &'a Shared, reach: Reach) -> Self {
        Self { reads: Some(&shared.reads), reach, ..Self::new(&*shared.medium, &shared.packing) }
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
        let Some(frame) = self.turn_to(generation, first)? else { return Ok(None) };
        let Some(begun) = frame.body().get(offset..) else { return Ok(None) };
        if begun.len() >= len {
            // What is borrowed is borrowed to the end: so it is looked at once more.
            let whole = self.frame.as_ref().and_then(|frame| frame.body().get(offset..offset + len));
            return Ok(whole.map(Cow::Borrowed));
        }
        let commit = frame.commit;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(begun);
        for no in first + 1.. {
            let Some(frame) = self.turn_to(generation, no)? else { return Ok(None) };
            if frame.commit != commit {
                return Ok(None);
            }
            bytes.extend(frame.body().iter().take(len - bytes.len()));
            if bytes.len() == len {
                return Ok(Some(Cow::Owned(bytes)));
            }
        }
        Ok(None)
    }

    /// Takes a frame in hand, remembered or read; `None` if it is missing or damaged.
    fn turn_to(&mut self, generation: u32, no: u64) -> Result<Option<&ReadFrame>, MediumError> {
        if !self.frame.as_ref().is_some_and(|frame| frame.is(generation, no)) {
            let before = self.frame.take();
            let found = match self.reads {
                Some(reads) => reads.find(generation, no),
                None => Err(before.and_then(Arc::into_inner).map(ReadFrame::into_buffer).unwrap_or_default()),
            };
            self.frame = match found {
                Ok(remembered) => Some(remembered),
                Err(buffer) => self.read(generation, no, buffer)?,
            };
        }
        Ok(self.frame.as_deref())
    }

    fn read(&self, generation: u32, no: u64, buffer: Vec<u8>) -> Result<Option<Arc<ReadFrame>>, MediumError> {
        let read = |into: &mut Vec<u8>| match self.reach {
            Reach::AtHand => self.medium.read_at_hand(generation, no, into),
            Reach::Disk => self.medium.read(generation, no, into),
        };
        let frame = ReadFrame::read(self.packing, (generation, no), buffer, read)?.map(Arc::new);
        if let (Some(reads), Some(frame)) = (self.reads, &frame) {
            reads.remember(frame);
        }
        Ok(frame)
    }
}
