//! Room for the next start on a disk that others have filled.
//!
//! A start takes some: sled begins a segment in a file that it opens for the first time after it was written to, and the run
//! commits its marks. The reserve is no help when others have taken the last byte. So a file of that size lies in the data
//! folder, allocated and never written to. A start that finds less room than that gives it up, and makes another of what is
//! left, for the start after it; it grows again when there is room beside the reserve.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::FallocateFlags;
use tracing::{debug, warn};

/// A segment of sled's for the generation that is written to, one for a closed one that cannot be read without it, and as much
/// again.
const SPARE_BYTES: u64 = 2 << 20;
/// It grows to that when there is so much room beside the reserve.
const ROOM_BYTES_MIN: u64 = 4 * SPARE_BYTES;
/// What a start on a full disk leaves to the run.
const RUN_BYTES: u64 = 256 << 10;
/// Less than this is of no use to a start.
const SPARE_BYTES_MIN: u64 = 512 << 10;

const NAME: &str = "spare";

/// The file.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    len: u64,
    /// This file system has no such files.
    is_refused: bool,
}

impl Spare {
    /// That of a data folder, given up if the disk has less room than a start may take.
    pub(super) fn for_start(data: &Path) -> Self {
        let path = data.join(NAME);
        let mut spare = Self { len: path.metadata().map_or(0, |file| file.len()), path, is_refused: false };
        if let Some(free_bytes) = spare.free_bytes().filter(|free| spare.len > 0 && *free < SPARE_BYTES) {
            warn!(free_bytes, "the disk is full: the room that was kept for a start is used");
            spare.give_up();
        }
        spare
    }

    /// The start has had what it takes: makes one for the next.
    pub(super) fn started(&mut self) {
        let free_bytes = self.free_bytes().filter(|_| self.len == 0).unwrap_or(0);
        self.grow(free_bytes.saturating_sub(RUN_BYTES).min(SPARE_BYTES));
    }

    /// There is so much room beside the reserve.
    pub(super) fn has_room(&mut self, room_bytes: u64) {
        if room_bytes >= ROOM_BYTES_MIN {
            self.grow(SPARE_BYTES);
        }
    }

    fn grow(&mut self, len: u64) {
        if self.is_refused || len <= self.len || len < SPARE_BYTES_MIN {
            return;
        }
        match allocate(&self.path, len) {
            Ok(()) => self.len = len,
            Err(error) => {
                debug!(%error, path = %self.path.display(), "no room is kept for a start on a full disk");
                self.is_refused = true;
                self.give_up();
            }
        }
    }

    fn give_up(&mut self) {
        self.len = 0;
        if let Err(error) = fs::remove_file(&self.path) {
            debug!(%error, path = %self.path.display(), "the room kept for a start is not there");
        }
    }

    /// `None` when the system does not say.
    fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.path.parent()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

fn allocate(path: &Path, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::{ROOM_BYTES_MIN, SPARE_BYTES, SPARE_BYTES_MIN, Spare};

    #[test]
    fn it_takes_its_room_and_grows_when_there_is_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spare");
        let taken = || file.metadata().map_or(0, |file| file.blocks() * 512);
        let mut spare = Spare::for_start(dir.path());
        spare.grow(SPARE_BYTES_MIN - 1);
        assert!(!file.exists());
        spare.grow(SPARE_BYTES_MIN);
        assert!((SPARE_BYTES_MIN..SPARE_BYTES).contains(&taken()));
        let mut spare = Spare::for_start(dir.path());
        assert_eq!(spare.len, SPARE_BYTES_MIN);
        spare.has_room(ROOM_BYTES_MIN - 1);
        assert!(taken() < SPARE_BYTES);
        spare.has_room(ROOM_BYTES_MIN);
        assert!(taken() >= SPARE_BYTES);
        spare.give_up();
        assert!(!file.exists());
        spare.started();
        assert!(taken() >= SPARE_BYTES);
    }
}
