//! One generation: a database of sled's, and its file.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    fs::{Advice, FallocateFlags, fadvise, fallocate},
    io::Errno,
};

use super::DataSync;
use crate::{
    folder,
    store::medium::{Found, MediumError},
};

/// sled's segments: files grow by them.
pub(super) const SEGMENT_BYTES: u64 = 512 << 10;
/// How many keys are inserted ahead of their frames at a time: some 30 KiB.
const KEYS_AHEAD: u64 = 256;
/// The value of a key whose frame has not come yet.
pub(super) const NO_FRAME: &[u8] = b"";

/// How long the lock of a database that was just closed is waited for.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const LOCK_WAIT: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) no: u32,
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    /// sled's data file, to make it durable, and longer.
    file: File,
    /// The file system has refused to make it longer.
    grows_by_itself: AtomicBool,
    pub(super) path: PathBuf,
    pub(super) disk: Arc<dyn DataSync>,
    /// The keys of frames below this number are there. Only the commit thread changes it.
    keys_until: AtomicU64,
}

impl Generation {
    pub(super) fn open(
        path: PathBuf,
        no: u32,
        cache_bytes: u64,
        disk: Arc<dyn DataSync>,
    ) -> Result<Self, MediumError> {
        let db = open_sled(&path, cache_bytes)?;
        let file = File::options().read(true).write(true).open(path.join("db"))?;
        // sled has written zeros over the rest of the segment, and synced them. In memory they are large pieces, of which
        // the kernel counts the whole as written for each byte that changes.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        // sled has renamed a snapshot file into place when it opened.
        folder::sync(&path)?;
        let last = guarded(|| db.last())?.and_then(|(key, _)| number(&key));
        let keys_until = AtomicU64::new(last.map_or(0, |last| last + 1));
        let grows_by_itself = AtomicBool::new(false);
        Ok(Self { no, db: Some(db), file, grows_by_itself, path, disk, keys_until })
    }

    /// Sees to it that the keys of these frames are there, and those of a few more.
    pub(super) fn prepare(&self, first: u64, last: u64) -> Result<(), MediumError> {
        let mut until = self.keys_until.load(Ordering::Relaxed).max(first);
        while until <= last {
            for no in until..until + KEYS_AHEAD {
                // One by one: a batch has an order of its own.
                self.insert(no, NO_FRAME)?;
            }
            until += KEYS_AHEAD;
            self.keys_until.store(until, Ordering::Relaxed);
            self.sync()?;
        }
        Ok(())
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("a generation has its database until it is dropped")
    }

    pub(super) fn apply(&self, batch: sled::Batch) -> Result<(), MediumError> {
        guarded(|| self.db().apply_batch(batch))
    }

    pub(super) fn insert(&self, no: u64, frame: &[u8]) -> Result<(), MediumError> {
        guarded(|| self.db().insert(no.to_be_bytes(), frame)).map(drop)
    }

    pub(super) fn flush(&self) -> Result<(), MediumError> {
        guarded(|| self.db().flush()).map(drop)
    }

    /// Makes the file as long as the segments in it, if it ends within one. `fallocate` leaves alone what is there, whatever
    /// sled's threads write meanwhile. It is an economy: where the file system cannot, or has no room, the file grows with
    /// what is written.
    fn grow(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        let whole = len.next_multiple_of(SEGMENT_BYTES);
        if len == whole || self.grows_by_itself.load(Ordering::Relaxed) {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), len, whole - len) {
            Err(error) if error != Errno::IO => {
                tracing::debug!(generation = self.no, %error, "a file of the journal grows by itself");
                self.grows_by_itself.store(true, Ordering::Relaxed);
                Ok(())
            }
            done => Ok(done?),
        }
    }

    pub(super) fn sync(&self) -> Result<(), MediumError> {
        self.flush()?;
        // What is written down of it is part of this sync.
        self.grow()?;
        self.disk.sync_data(&self.file, &self.path)?;
        if fs::read_dir(self.path.join("blobs"))?.next().is_some() {
            tracing::error!(
                generation = self.no,
                "sled has put a page into a file it does not sync; it may not survive a power cut"
            );
        }
        Ok(())
    }

    pub(super) fn read(&self, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        let found = guarded(|| self.db().get(frame.to_be_bytes()))?;
        Ok(Found::copied(found.filter(|bytes| **bytes != *NO_FRAME), into))
    }

    pub(super) fn scan(&self, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), MediumError> {
        let mut pairs = self.db().iter();
        while let Some((key, value)) = guarded(|| pairs.next().transpose())? {
            match number(&key) {
                Some(_) if *value == *NO_FRAME => {}
                Some(no) => each(no, &value),
                None => return Err(MediumError::Broken(format!("a key of {} bytes", key.len()))),
            }
        }
        Ok(())
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let db = self.db.take();
        if let Err(error) = guarded(|| {
            drop(db);
            Ok(())
        }) {
            tracing::error!(generation = self.no, %error, "closing a part of the journal failed");
        }
    }
}

/// The frame a key belongs to.
fn number(key: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(key).map(u64::from_be_bytes).ok()
}

/// Runs sled behind an unwinding boundary.
pub(super) fn guarded<T>(f: impl FnOnce() -> sled::Result<T>) -> Result<T, MediumError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(MediumError::Io(error)),
        Ok(Err(error)) => Err(MediumError::Broken(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(MediumError::Broken(text.to_owned()))
        }
    }
}

/// Opens a database. A thread of sled's may hold the lock of one that was just closed for a moment longer; and no other
/// process can hold it, because the data folder is ours.
pub(in crate::store) fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db, MediumError> {
    let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
    let mut waited = Duration::ZERO;
    loop {
        match guarded(|| config.open()) {
            Err(MediumError::Io(error)) if is_lock(&error) && waited < LOCK_WAIT_MAX => {
                thread::park_timeout(LOCK_WAIT);
                waited += LOCK_WAIT;
            }
            opened => return opened,
        }
    }
}

pub(super) fn is_lock(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, thread};

    use super::open_sled;

    #[test]
    fn a_database_that_is_still_being_closed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = open_sled(dir.path(), 1 << 20).unwrap();
        let (tried, try_it) = sync_channel(1);
        let path = dir.path().to_owned();
        let opener = thread::spawn(move || {
            tried.send(sled::Config::new().path(&path).open().is_err()).unwrap();
            open_sled(&path, 1 << 20).map(drop)
        });
        assert!(try_it.recv().unwrap(), "it is locked");
        drop(held);
        opener.join().unwrap().unwrap();
    }
}
