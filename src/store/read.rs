//! Reading bodies back from disk, on a thread of its own: a sleeper's backlog must not hold up commits.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use super::{
    format::{Entry, read_entry},
    frame::FrameHeader,
    journal::Shared,
    medium::{Medium, MediumError},
    packing::Packing,
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
/// A message moves while it is read only if compaction has just copied it, once.
const TRIES: usize = 3;

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    state: Mutex<Requests>,
    work: Condvar,
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
        let mut reader = EntryReader::new(&*self.medium, &self.packing);
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

/// Reads entries by place. Keeps the last frame, unpacked: messages of one frame are read one after the other.
pub(super) struct EntryReader<'a> {
    medium: &'a dyn Medium,
    packing: &'a Packing,
    last: Option<LastFrame>,
}

struct LastFrame {
    generation: u32,
    header: FrameHeader,
    body: Vec<u8>,
}

impl<'a> EntryReader<'a> {
    pub(super) fn new(medium: &'a dyn Medium, packing: &'a Packing) -> Self {
        Self { medium, packing, last: None }
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
    pub(super) fn entry(&mut self, place: Place) -> Result<Option<Vec<u8>>, MediumError> {
        let len = place.len as usize;
        let mut bytes = Vec::with_capacity(len);
        let mut offset = usize::from(place.offset);
        let mut belongs_to = None;
        for no in place.frame.. {
            let Some(frame) = self.fetch(place.generation, no)? else { return Ok(None) };
            let commit = (frame.header.run, frame.header.commit);
            if *belongs_to.get_or_insert(commit) != commit {
                return Ok(None);
            }
            let Some(rest) = frame.body.get(offset..) else { return Ok(None) };
            let take = rest.len().min(len - bytes.len());
            bytes.extend_from_slice(rest.get(..take).unwrap_or_default());
            if bytes.len() == len {
                return Ok(Some(bytes));
            }
            offset = 0;
        }
        Ok(None)
    }

    /// Makes a frame the last one read; `None` if it is not there, or damaged.
    fn fetch(&mut self, generation: u32, no: u64) -> Result<Option<&LastFrame>, MediumError> {
        let is_last = |last: &LastFrame| (last.generation, last.header.frame) == (generation, no);
        if !self.last.as_ref().is_some_and(is_last) {
            self.last = None;
            let Some(bytes) = self.medium.read(generation, no)? else { return Ok(None) };
            let opened = self.packing.open(generation, &bytes).ok();
            self.last = opened.filter(|opened| opened.header.frame == no).map(|opened| LastFrame {
                generation,
                header: opened.header,
                body: opened.body.into_owned(),
            });
        }
        Ok(self.last.as_ref())
    }
}
