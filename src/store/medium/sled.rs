//! Frames in sled 0.34: a database a generation, in `<dir>/NNNNNN/`.
//!
//! What was learned the hard way, and holds here:
//! - `Db::flush` ends in `sync_file_range` and is not durable; `sync_data` on sled's `db` file afterwards is.
//! - A tree page over a quarter of a segment goes to a file in `blobs/` that sled never syncs. Frames are small enough
//!   that none does (`frame::FRAME_BYTES_MAX`), and `sync` looks.
//! - sled frees a segment when what replaces it is *written*; so no more than `PIECE_BYTES_MAX` are ever written
//!   without a sync in between, less than the tail of segments it does not reuse.
//! - It takes a snapshot file whose writing was cut short for a whole one, and refuses the database for it.
//! - It writes a value when it is inserted, and again with its whole leaf whenever that splits (at 17 keys) or has been
//!   changed ten times: frames inserted one behind the other reach the disk four times. So the keys of the frames to come
//!   are inserted before, empty and in order, which leaves leaves of nine keys behind; a frame then overwrites its
//!   key, and no leaf splits or changes often enough to be written again.
//! - It makes its file longer with each write. A file system has to write that down beside the data, which for a small
//!   commit is more than the data; so the file is given a whole segment as soon as sled begins one (`Generation::grow`).
//! - A database that is opened for the first time after it was written to begins a new segment, even if nothing is written
//!   any more: a start takes half a MiB for each generation made since the last one (`SledMedium::owed_bytes`).
//! - It panics on damage. Every call goes through `guarded`, which turns a panic into an error.
//!
//! A generation is made under another name and renamed when it is durable, so a power cut leaves a whole one or none.
//! Deleting one renames it first.

mod census;
mod chart;
mod charting;
pub(in crate::store) mod frames_of;
mod generation;
pub mod left;
mod salvage;

use std::{
    fmt::Debug,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

#[cfg(test)]
pub(in crate::store) use self::generation::open_sled;
use self::{
    chart::Charts,
    charting::Charting,
    generation::{Generation, SEGMENT_BYTES, is_lock},
};
use super::{DiskSpace, Found, Medium, MediumError, NumberedFrame};
use crate::{folder, store::aside::Aside, sync::lock};

/// sled's page cache in bytes for the generation being written.
const ACTIVE_CACHE_BYTES: u64 = 1 << 20;
/// The same for one that is only read.
const OLD_CACHE_BYTES: u64 = 1 << 20;
/// How many old generations are kept open for reading.
const OLD_OPEN_MAX: usize = 2;
/// How much is written between two syncs at most.
const PIECE_BYTES_MAX: usize = 256 << 10;

const MAKING: &str = "new";
const REBUILT: &str = "rebuilt";
const DELETED: &str = "deleted";

/// Makes the data file of a generation durable. Tests put a model of a disk here.
pub trait DataSync: Debug + Send + Sync {
    /// All that was written to `file` is durable when this returns; `generation` is the folder it is in.
    fn sync_data(&self, file: &File, generation: &Path) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Debug)]
struct RealDisk;

impl DataSync for RealDisk {
    fn sync_data(&self, file: &File, _generation: &Path) -> io::Result<()> {
        file.sync_data()
    }
}

/// The journal's folder.
#[derive(Debug)]
pub struct SledMedium {
    dir: PathBuf,
    disk: Arc<dyn DataSync>,
    damaged: u64,
    /// Generations up to this one were there when the medium was opened.
    found_until: u32,
    /// The one written to. Its lock is held for moments only.
    active: Mutex<Option<Arc<Generation>>>,
    /// Its lock is held for moments only. Taken before `active` when both are.
    old: Arc<Mutex<Old>>,
    /// Held while an old one is opened, charted, or taken off the list. Taken before `old`.
    opening: Arc<Mutex<()>>,
    /// Held while one is read in. Taken before the others.
    charts: Mutex<Charts>,
    /// The generation that is being charted.
    charting: Charting,
}

#[derive(Debug, Default)]
struct Old {
    /// All there are, the active one included, ascending.
    all: Vec<u32>,
    /// Those open for reading, the least recently used first.
    open: Vec<Arc<Generation>>,
}

impl Old {
    fn find_open(&mut self, no: u32) -> Option<Arc<Generation>> {
        let at = self.open.iter().position(|old| old.no == no)?;
        let generation = self.open.remove(at);
        self.open.push(Arc::clone(&generation));
        Some(generation)
    }
}

impl SledMedium {
    /// Opens the journal in `dir`, making the folder if need be. Generations that sled cannot read are moved to
    /// `aside`, and what of them can be saved takes their place.
    pub fn open(dir: &Path, aside: &Aside) -> Result<Self, MediumError> {
        Self::open_on(dir, aside, Arc::new(RealDisk))
    }

    /// The same on a given disk.
    pub fn open_on(dir: &Path, aside: &Aside, disk: Arc<dyn DataSync>) -> Result<Self, MediumError> {
        let mut damaged = 0;
        if dir.symlink_metadata().is_ok() && !dir.is_dir() {
            damaged += set_aside(dir, aside)?;
        }
        folder::make(dir)?;
        damaged += strangers(dir, aside)?;
        let all = tidy(dir)?;
        let mut medium = Self {
            dir: dir.to_owned(),
            disk,
            damaged: 0,
            found_until: 0,
            active: Mutex::default(),
            old: Arc::default(),
            opening: Arc::default(),
            charts: Mutex::default(),
            charting: Mutex::default(),
        };
        medium.damaged = damaged + medium.check(&all, aside)?;
        let newest = lock(&medium.old).all.last().copied();
        medium.found_until = newest.unwrap_or(0);
        if let Some(no) = newest {
            // It is written to: opening it syncs its folder.
            chart::remove(&path_of(dir, no))?;
            let generation = medium.open_generation(no, ACTIVE_CACHE_BYTES)?;
            *lock(&medium.active) = Some(Arc::new(generation));
        }
        Ok(medium)
    }

    fn open_generation(&self, no: u32, cache_bytes: u64) -> Result<Generation, MediumError> {
        Generation::open(path_of(&self.dir, no), no, cache_bytes, Arc::clone(&self.disk))
    }

    /// What opening them takes of the disk the next time, at most: a charted one is not opened while its chart is good.
    fn owed_bytes(&self) -> u64 {
        let made = lock(&self.old).all.iter().filter(|no| **no > self.found_until).count();
        made as u64 * SEGMENT_BYTES
    }

    fn active(&self) -> Result<Arc<Generation>, MediumError> {
        let active = lock(&self.active).clone();
        active.ok_or_else(|| MediumError::Broken("no generation to write to".to_owned()))
    }

    fn is_open(&self, no: u32) -> bool {
        lock(&self.active).as_ref().is_some_and(|active| active.no == no)
            || lock(&self.old).open.iter().any(|old| old.no == no)
    }

    /// A generation, opened if it is not; `None` if it was deleted.
    fn generation(&self, no: u32) -> Result<Option<Arc<Generation>>, MediumError> {
        if let Some(active) = lock(&self.active).as_ref().filter(|active| active.no == no) {
            return Ok(Some(Arc::clone(active)));
        }
        if let Some(open) = lock(&self.old).find_open(no) {
            return Ok(Some(open));
        }
        let _opening = lock(&self.opening);
        let mut old = lock(&self.old);
        if let Some(open) = old.find_open(no) {
            return Ok(Some(open));
        }
        if !old.all.contains(&no) {
            return Ok(None);
        }
        // One in use cannot be opened a second time, so only an idle one makes room.
        if old.open.len() >= OLD_OPEN_MAX
            && let Some(at) = old.open.iter().position(|old| Arc::strong_count(old) == 1)
        {
            old.open.remove(at);
        }
        drop(old);
        let generation = Arc::new(self.open_generation(no, OLD_CACHE_BYTES)?);
        lock(&self.old).open.push(Arc::clone(&generation));
        Ok(Some(generation))
    }
}

impl Medium for SledMedium {
    fn generations(&self) -> Vec<u32> {
        lock(&self.old).all.clone()
    }

    fn damaged(&self) -> u64 {
        self.damaged
    }

    fn disk_bytes(&self) -> u64 {
        let paths = self.generations().into_iter().map(|no| path_of(&self.dir, no));
        paths
            .flat_map(fs::read_dir)
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|file| file.blocks() * 512)
            .sum()
    }

    fn space(&self) -> Option<DiskSpace> {
        let found = rustix::fs::statvfs(&self.dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(DiskSpace {
            free_bytes: bytes(found.f_bavail),
            total_bytes: bytes(found.f_blocks),
            owed_bytes: self.owed_bytes(),
            free_files: if found.f_files == 0 { u64::MAX } else { found.f_favail },
        })
    }

    fn scan(&self, generation: u32, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), MediumError> {
        if let Some(chart) = self.chart(generation) {
            if chart.scan(each) {
                return Ok(());
            }
            self.drop_chart(generation)?;
            return Err(MediumError::Changed);
        }
        let Some(found) = self.generation(generation)? else { return Ok(()) };
        self.scan_with_sled(found, each)
    }

    fn new_generation(&self, generation: u32) -> Result<(), MediumError> {
        make(&self.dir, generation, MAKING, &mut std::iter::empty(), &self.disk)?;
        rename_durably(&suffixed(&self.dir, generation, MAKING), &path_of(&self.dir, generation))?;
        let opened = self.open_generation(generation, ACTIVE_CACHE_BYTES)?;
        let mut old = lock(&self.old);
        old.all.push(generation);
        let before = lock(&self.active).replace(Arc::new(opened));
        // One in use cannot be opened a second time.
        old.open.extend(before.iter().cloned());
        drop(old);
        if let Some(closed) = before {
            self.begin_chart(closed);
        }
        Ok(())
    }

    fn apply(&self, frames: Vec<NumberedFrame>) -> Result<(), MediumError> {
        let active = self.active()?;
        if let (Some((first, _)), Some((last, _))) = (frames.first(), frames.last()) {
            active.prepare(*first, *last)?;
        }
        // Batches are an economy: a commit is whole by its own count. One frame is cheaper without.
        if let [(no, frame)] = frames.as_slice() {
            return active.insert(*no, frame);
        }
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for (no, frame) in frames {
            if bytes + frame.len() > PIECE_BYTES_MAX {
                active.apply(std::mem::take(&mut batch))?;
                active.sync()?;
                bytes = 0;
            }
            bytes += frame.len();
            batch.insert(&no.to_be_bytes(), frame);
        }
        active.apply(batch)
    }

    fn sync(&self) -> Result<(), MediumError> {
        self.active()?.sync()
    }

    fn hand_over(&self) -> Result<(), MediumError> {
        self.active()?.flush()
    }

    fn read(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        if self.chart(generation).is_some_and(|chart| chart.read(frame, into)) {
            return Ok(Found::Checked);
        }
        if !self.is_open(generation) {
            // One that is being charted is charted when that ends, and need not be opened.
            drop(lock(&self.opening));
            if self.chart(generation).is_some_and(|chart| chart.read(frame, into)) {
                return Ok(Found::Checked);
            }
        }
        match self.generation(generation)? {
            Some(generation) => generation.read(frame, into),
            None => Ok(Found::Nothing),
        }
    }

    fn read_at_hand(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        // What has no open chart is read with sled, which waits for its files.
        let chart = lock(&self.charts).get(generation);
        if chart.is_some_and(|chart| chart.read_at_hand(frame, into)) {
            return Ok(Found::Checked);
        }
        Err(MediumError::Io(io::ErrorKind::WouldBlock.into()))
    }

    fn delete_generation(&self, generation: u32) -> Result<(), MediumError> {
        let opening = lock(&self.opening);
        let mut old = lock(&self.old);
        old.all.retain(|no| *no != generation);
        old.open.retain(|old| old.no != generation);
        drop((old, opening));
        lock(&self.charts).forget(generation);
        self.end_chart(|no| no == generation);
        let deleted = suffixed(&self.dir, generation, DELETED);
        rename_durably(&path_of(&self.dir, generation), &deleted)?;
        if let Err(error) = fs::remove_dir_all(&deleted) {
            tracing::warn!(generation, %error, "a deleted part of the journal is removed at the next start");
        }
        Ok(())
    }
}

/// Makes a generation under `NNNNNN.<suffix>` with these frames in it, durably.
fn make(
    dir: &Path,
    no: u32,
    suffix: &str,
    frames: &mut dyn Iterator<Item = NumberedFrame>,
    disk: &Arc<dyn DataSync>,
) -> Result<(), MediumError> {
    let path = suffixed(dir, no, suffix);
    remove_if_there(&path)?;
    let generation = Generation::open(path.clone(), no, OLD_CACHE_BYTES, Arc::clone(disk))?;
    for (frame, bytes) in frames {
        generation.insert(frame, &bytes)?;
    }
    generation.sync()?;
    drop(generation);
    for entry in fs::read_dir(&path)? {
        File::open(entry?.path())?.sync_all()?;
    }
    folder::sync(&path)?;
    Ok(())
}

/// Sets aside what has the name of a part of the journal and is not a folder, and tells of what has no such name. Returns
/// how many were set aside.
fn strangers(dir: &Path, aside: &Aside) -> Result<u64, MediumError> {
    let mut found = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = match name.split_once('.') {
            None => parse(name).is_some(),
            Some((no, suffix)) => parse(no).is_some() && [MAKING, REBUILT, DELETED].contains(&suffix),
        };
        if !is_ours {
            tracing::warn!(path = %path.display(), "this does not belong to the journal: it is left alone");
        } else if !path.is_dir() {
            found += set_aside(&path, aside)?;
        }
    }
    Ok(found)
}

/// Sets aside what should be a folder.
fn set_aside(path: &Path, aside: &Aside) -> Result<u64, MediumError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kept_at = aside.take(path, &format!("file-{name}"))?;
    tracing::error!(path = %path.display(), kept_at = %kept_at.display(), "a file stood where a part of the journal belongs: it was set aside");
    Ok(1)
}

/// Removes what a cut left half done, and lists the generations, ascending.
fn tidy(dir: &Path) -> Result<Vec<u32>, MediumError> {
    let mut all = Vec::new();
    let mut rebuilt = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        match name.split_once('.') {
            None => all.extend(parse(name)),
            Some((no, REBUILT)) => rebuilt.extend(parse(no)),
            Some((no, MAKING | DELETED)) if parse(no).is_some() => remove_if_there(&path)?,
            Some(_) => {}
        }
    }
    for no in rebuilt {
        // The damaged one is moved away only when this one is complete.
        let path = suffixed(dir, no, REBUILT);
        if all.contains(&no) {
            remove_if_there(&path)?;
        } else {
            rename_durably(&path, &path_of(dir, no))?;
            all.push(no);
        }
    }
    all.sort_unstable();
    for no in &all {
        remove_unfinished_snapshots(&path_of(dir, *no))?;
    }
    Ok(all)
}

/// Removes what sled writes before it is renamed to a snapshot: it passes over another suffix when it looks for the
/// latest one.
fn remove_unfinished_snapshots(generation: &Path) -> io::Result<()> {
    for entry in fs::read_dir(generation)? {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether an error comes from the machine's state and not from what the files hold.
fn is_environment(error: &io::Error) -> bool {
    use io::ErrorKind::{
        OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock,
    };
    let too_many_files = matches!(error.raw_os_error(), Some(23 | 24));
    let kind = error.kind();
    too_many_files
        || matches!(
            kind,
            OutOfMemory | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull | WouldBlock
        )
        || is_lock(error)
}

fn path_of(dir: &Path, no: u32) -> PathBuf {
    dir.join(format!("{no:06}"))
}

fn suffixed(dir: &Path, no: u32, suffix: &str) -> PathBuf {
    dir.join(format!("{no:06}.{suffix}"))
}

fn parse(name: &str) -> Option<u32> {
    (name.len() >= 6 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    for parent in [from.parent(), to.parent()].into_iter().flatten() {
        folder::sync(parent)?;
    }
    Ok(())
}
