//! A stopped broker's data, read without changing it: what `dormouse store` works on.
//!
//! The journal is recovered as at a start, on a medium that keeps writes to itself (`medium::sled::left`). While it is
//! open, no broker can be started on the folder.

use std::{collections::BTreeMap, env, fs, path::Path, process, sync::Arc, task::Waker};

use super::{
    aside::size_bytes,
    config::Config,
    error::OpenError,
    journal::Journal,
    key::KeySource,
    key_check,
    lock::DataLock,
    medium::sled::left::{Difference, LeftBehind, PartSize},
    packing::Packing,
    recover::{Recovered, RecoveredSession, open_error},
    slab::Parked,
    stored::Stored,
    swap,
};
use crate::{
    message::{Delivery, Message, Seq},
    time::WallClock,
    topic::TopicFilter,
};

/// How many bodies are read at a time.
const BODIES_AT_A_TIME: usize = 256;

/// Told how far a long run is: steps done, and of how many.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// Given messages, each with its body if that can be read.
pub(super) type EachBody<'e, E> = &'e mut dyn FnMut(&Stored, Option<Arc<Message>>) -> Result<(), E>;

/// The data of a broker that does not run.
#[derive(Debug)]
pub struct Offline {
    pub(super) journal: Journal,
    /// What a start would find.
    pub recovered: Recovered,
    /// Its generations.
    pub parts: Vec<PartSize>,
    /// Whether its frames are sealed.
    pub sealed: bool,
    /// Bytes of what was set aside.
    pub set_aside_bytes: u64,
    _lock: Option<DataLock>,
}

/// A message in a session's queue.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) seq: Seq,
    pub(super) stored: Arc<Stored>,
    /// The target's index in the message.
    pub(super) target: u32,
    pub(super) delivery: Delivery,
    /// The shared subscription it came by.
    pub(super) group: Option<TopicFilter>,
}

impl Offline {
    /// Reads the journal in the data folder `dir`, which is sealed with `key` if there is one. Damage that is met is
    /// logged, as at a start; nothing is set aside.
    pub fn open(dir: &Path, key: &KeySource) -> Result<Self, OpenError> {
        let lock = DataLock::look(dir)?;
        let packing = Packing::new(key.load()?);
        let path = swap::current(dir);
        key_check::check(dir, &path, &packing)?;
        let left = LeftBehind::open(&path).map_err(|error| open_error(error, dir))?;
        let parts = left.sizes();
        // With the clock unknown the time stands where it stood.
        let (journal, recovered) =
            Journal::open_left(left, packing, Config::default(), WallClock::UNKNOWN, dir)?;
        let set_aside_bytes = size_bytes(&dir.join("damaged"));
        let sealed = journal.shared().packing.seals();
        Ok(Self { parts, sealed, set_aside_bytes, _lock: lock, ..Self::around(journal, recovered) })
    }

    /// What was recovered, whatever it was recovered from.
    pub(super) fn around(journal: Journal, recovered: Recovered) -> Self {
        Self { journal, recovered, parts: Vec::new(), sealed: false, set_aside_bytes: 0, _lock: None }
    }

    /// Reads everything a start would not read before it is asked for, and compares it. Returns a sentence for each thing
    /// that is amiss; what the log says is not in it.
    pub fn check(&self, dir: &Path, progress: Progress<'_>) -> Result<Vec<String>, OpenError> {
        let mut amiss = self.check_files(dir, progress)?;
        self.check_sessions(&mut amiss);
        let bodies = self.messages();
        let mut lost = 0;
        self.each_body(&bodies, progress, &mut |_, body| {
            lost += u64::from(body.is_none());
            Ok::<(), OpenError>(())
        })?;
        if lost > 0 {
            amiss.push(format!("{lost} messages in queues cannot be read back"));
        }
        Ok(amiss)
    }

    /// Opens a copy of each generation with sled: a broken index does not show in the frames.
    fn check_files(&self, dir: &Path, progress: Progress<'_>) -> Result<Vec<String>, OpenError> {
        let mut amiss = Vec::new();
        let left = LeftBehind::open(&swap::current(dir)).map_err(|error| open_error(error, dir))?;
        let scratch = Scratch::make()?;
        for (done, part) in (1..).zip(&self.parts) {
            let no = part.generation;
            let found = left.compare(no, &scratch.0).map_err(|error| open_error(error, &scratch.0))?;
            match found {
                None => {}
                Some(Difference::Fails(why)) => amiss.push(format!(
                    "generation {no}: sled cannot open it ({why}); a start saves the {} frames of its file",
                    part.frames
                )),
                Some(Difference::Hides(frames)) => amiss.push(format!(
                    "generation {no}: {frames} frames of whole commits lie in the file and are not entered; a start puts \
                     them back"
                )),
            }
            progress(done, self.parts.len() as u64);
        }
        Ok(amiss)
    }

    fn check_sessions(&self, amiss: &mut Vec<String>) {
        let mut owners: BTreeMap<&str, u64> = BTreeMap::new();
        for session in &self.recovered.sessions {
            let record = &session.snapshot.record;
            let no = record.session.0;
            if record.is_office() {
                continue;
            }
            if let Some(other) = owners.insert(&record.client_id, no.get()) {
                amiss.push(format!("sessions {other} and {no} both belong to client {:?}", record.client_id));
            }
            let waiting = session.queue.iter().map(|shelved| shelved.seq);
            let numbers = waiting.chain(session.snapshot.received.iter().copied());
            let beyond = numbers.filter(|seq| *seq >= record.seq_reserved).count();
            if beyond > 0 {
                amiss.push(format!("session {no}: {beyond} messages have numbers that were never reserved"));
            }
        }
    }

    /// A session's queue, in order.
    pub(super) fn queue(&self, session: &RecoveredSession) -> Vec<Waiting> {
        let mut groups: BTreeMap<Seq, TopicFilter> = session.groups.iter().cloned().collect();
        let claims = self.journal.unpark(&Self::parked(session));
        let waiting =
            claims.into_iter().zip(session.queue.iter()).map(|((stored, target), shelved)| Waiting {
                seq: shelved.seq,
                stored,
                target,
                delivery: shelved.delivery,
                group: groups.remove(&shelved.seq),
            });
        waiting.collect()
    }

    fn parked(session: &RecoveredSession) -> Vec<Parked> {
        session.queue.iter().map(|shelved| shelved.parked).collect()
    }

    /// Every message that some session must still get, in the order in which they were published.
    fn messages(&self) -> Vec<Arc<Stored>> {
        let queues = self.recovered.sessions.iter().flat_map(|session| self.queue(session));
        let all: BTreeMap<u64, Arc<Stored>> = queues.map(|w| (w.stored.id(), w.stored)).collect();
        all.into_values().collect()
    }

    /// Shows these messages in order, each with its body if that can be read.
    pub(super) fn each_body<E>(
        &self,
        messages: &[Arc<Stored>],
        progress: Progress<'_>,
        each: EachBody<'_, E>,
    ) -> Result<(), E> {
        let mut done = 0;
        for some in messages.chunks(BODIES_AT_A_TIME) {
            self.journal.load(some.to_vec(), Waker::noop().clone());
            while self.journal.read_step() {}
            for stored in some {
                each(stored, stored.body())?;
                stored.unload();
            }
            done += some.len() as u64;
            progress(done, messages.len() as u64);
        }
        Ok(())
    }

    /// Bytes on disk that are wanted.
    pub fn live_bytes(&self) -> u64 {
        self.journal.stats().live_bytes
    }

    /// How many messages wait for a session, and their bytes of topic, payload and properties.
    pub fn waiting(&self, session: &RecoveredSession) -> (u64, u64) {
        (session.queue.len() as u64, self.journal.parked_bytes(&Self::parked(session)) as u64)
    }
}

/// A folder for copies, removed with what is in it.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn make() -> Result<Self, OpenError> {
        let path = env::temp_dir().join(format!("dormouse-check-{}", process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(OpenError::NotWritable { path, source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a folder for copies stays behind");
        }
    }
}
