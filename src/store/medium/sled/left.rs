//! What a stopped broker left, read without changing it. sled writes whenever it opens a database, so frames are looked up
//! in its files as they lie there, by the rules by which a start takes them.
//!
//! What is written to this medium stays in memory: a journal can be opened on it, and nothing on disk changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    Found, Generation, Medium, MediumError, NumberedFrame, OLD_CACHE_BYTES, REBUILT, RealDisk,
    census::Census, parse, path_of, salvage::find_frames,
};
use crate::{
    store::{
        aside::size_bytes,
        frame::{self, FrameHeader},
    },
    sync::lock,
};

/// The journal's folder as it lies there.
#[derive(Debug)]
pub struct LeftBehind {
    damaged: u64,
    parts: Mutex<BTreeMap<u32, Part>>,
    file: Mutex<Option<(u32, Arc<File>)>>,
}

/// A generation.
#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    frames: BTreeMap<u64, Spot>,
}

/// Where a frame is.
#[derive(Clone, Debug)]
enum Spot {
    File { offset: u64, len: usize },
    Memory(Vec<u8>),
}

/// How large a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize {
    /// Its number.
    pub generation: u32,
    /// How many frames it has.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// Bytes of its files.
    pub disk_bytes: u64,
}

/// What sled says of a generation that its file says something else of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// sled fails: a start sets the generation aside and saves the frames of its file.
    Fails(String),
    /// So many frames of whole commits lie in the file and are not shown; a start puts them back.
    Hides(u64),
}

impl LeftBehind {
    /// Looks through the journal in `dir`. A folder that is not there holds nothing.
    pub fn open(dir: &Path) -> Result<Self, MediumError> {
        let Listed { parts: mut found, strays } = list(dir)?;
        for path in strays {
            tracing::error!(path = %path.display(), "a file stands where a part of the journal belongs");
        }
        let mut damaged = 0;
        // An earlier run's commits that a cut has taken may still lie there; a later generation begins behind them.
        let mut before = u64::MAX;
        let mut parts = BTreeMap::new();
        while let Some((no, path)) = found.pop_last() {
            let db = path.join("db");
            if !fs::metadata(&db).is_ok_and(|db| db.len() > 0) {
                tracing::error!(
                    generation = no,
                    "a part of the journal is damaged: its data file is empty or missing"
                );
                damaged += 1;
                continue;
            }
            let (frames, first) = whole_frames(&db, before)?;
            before = first.unwrap_or(before);
            parts.insert(no, Part { path, frames });
        }
        Ok(Self { damaged, parts: Mutex::new(parts), file: Mutex::default() })
    }

    /// How large its generations are.
    pub fn sizes(&self) -> Vec<PartSize> {
        let size = |(no, part): (&u32, &Part)| PartSize {
            generation: *no,
            frames: part.frames.len() as u64,
            frame_bytes: part.frames.values().map(|spot| spot.len() as u64).sum(),
            disk_bytes: size_bytes(&part.path),
        };
        lock(&self.parts).iter().map(size).collect()
    }

    /// Compares what sled shows of a generation with what its file holds, in a copy of it at `scratch`, which is made
    /// and removed.
    pub fn compare(&self, generation: u32, scratch: &Path) -> Result<Option<Difference>, MediumError> {
        let Some(part) = lock(&self.parts).get(&generation).cloned() else { return Ok(None) };
        let copy = path_of(scratch, generation);
        fs::create_dir_all(copy.join("blobs"))?;
        for entry in fs::read_dir(&part.path)? {
            let path = entry?.path();
            // One that was not finished is not looked at by a start either.
            let unfinished = path.extension().is_some_and(|suffix| suffix == "generating");
            if let (true, false, Some(name)) = (path.is_file(), unfinished, path.file_name()) {
                fs::copy(&path, copy.join(name))?;
            }
        }
        let (mut hidden, mut last) = (part.frames, 0);
        let shown = Generation::open(copy.clone(), generation, OLD_CACHE_BYTES, Arc::new(RealDisk)).and_then(
            |opened| {
                opened.scan(&mut |no, _| {
                    hidden.remove(&no);
                    last = last.max(no);
                })
            },
        );
        fs::remove_dir_all(&copy)?;
        if let Err(error) = shown {
            return Ok(Some(Difference::Fails(error.to_string())));
        }
        let mut commits = BTreeSet::new();
        for spot in hidden.values() {
            let bytes = self.fetch(generation, &part.path, spot)?;
            commits.extend(frame::decode(&bytes).map(|frame| frame.header.commit));
        }
        // The last commit of a killed broker may be whole and not entered: that is no damage.
        let newest = self.generations().last() == Some(&generation);
        let is_tail = newest && commits.len() == 1 && hidden.keys().all(|no| *no > last);
        Ok((!hidden.is_empty() && !is_tail).then_some(Difference::Hides(hidden.len() as u64)))
    }

    fn file(&self, generation: u32, path: &Path) -> Result<Arc<File>, MediumError> {
        let mut open = lock(&self.file);
        if let Some((_, file)) = open.as_ref().filter(|(no, _)| *no == generation) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(path.join("db"))?);
        *open = Some((generation, Arc::clone(&file)));
        Ok(file)
    }

    fn fetch(&self, generation: u32, path: &Path, spot: &Spot) -> Result<Vec<u8>, MediumError> {
        Ok(match spot {
            Spot::Memory(bytes) => bytes.clone(),
            Spot::File { offset, len } => {
                let mut bytes = vec![0; *len];
                self.file(generation, path)?.read_exact_at(&mut bytes, *offset)?;
                bytes
            }
        })
    }
}

impl Medium for LeftBehind {
    fn generations(&self) -> Vec<u32> {
        lock(&self.parts).keys().copied().collect()
    }

    fn damaged(&self) -> u64 {
        self.damaged
    }

    fn scan(&self, generation: u32, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), MediumError> {
        let Some(part) = lock(&self.parts).get(&generation).cloned() else { return Ok(()) };
        for (no, spot) in &part.frames {
            each(*no, &self.fetch(generation, &part.path, spot)?);
        }
        Ok(())
    }

    fn new_generation(&self, generation: u32) -> Result<(), MediumError> {
        lock(&self.parts).insert(generation, Part { path: PathBuf::new(), frames: BTreeMap::new() });
        Ok(())
    }

    fn apply(&self, frames: Vec<NumberedFrame>) -> Result<(), MediumError> {
        let mut parts = lock(&self.parts);
        let newest = parts.values_mut().next_back();
        let newest = newest.ok_or_else(|| MediumError::Broken("no generation to write to".to_owned()))?;
        newest.frames.extend(frames.into_iter().map(|(no, bytes)| (no, Spot::Memory(bytes))));
        Ok(())
    }

    fn sync(&self) -> Result<(), MediumError> {
        Ok(())
    }

    fn hand_over(&self) -> Result<(), MediumError> {
        Ok(())
    }

    fn read(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        let found = lock(&self.parts)
            .get(&generation)
            .and_then(|part| part.frames.get(&frame).map(|spot| (part.path.clone(), spot.clone())));
        let found = found.map(|(path, spot)| self.fetch(generation, &path, &spot)).transpose()?;
        Ok(Found::copied(found, into))
    }

    fn delete_generation(&self, generation: u32) -> Result<(), MediumError> {
        lock(&self.parts).remove(&generation);
        Ok(())
    }
}

impl Spot {
    fn len(&self) -> usize {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len(),
        }
    }
}

/// What is in a journal's folder.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The generations.
    pub(super) parts: BTreeMap<u32, PathBuf>,
    /// Files that stand where a generation belongs.
    pub(super) strays: Vec<PathBuf>,
}

/// The generations in a folder; one that was rebuilt and not yet given its name counts where the other is away.
pub(super) fn list(dir: &Path) -> io::Result<Listed> {
    let mut found = Listed::default();
    if !dir.is_dir() {
        return Ok(found);
    }
    let mut rebuilt = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        match name.split_once('.') {
            None if parse(&name).is_some() && !path.is_dir() => found.strays.push(path),
            None => found.parts.extend(parse(&name).map(|no| (no, path))),
            Some((no, REBUILT)) if path.is_dir() => rebuilt.extend(parse(no).map(|no| (no, path))),
            Some(_) => {}
        }
    }
    for (no, path) in rebuilt {
        found.parts.entry(no).or_insert(path);
    }
    Ok(found)
}

/// The frames of the whole commits below number `before` that lie in a file, and the lowest of those commits.
fn whole_frames(db: &Path, before: u64) -> Result<(BTreeMap<u64, Spot>, Option<u64>), MediumError> {
    let mut seen: Vec<(FrameHeader, u64, usize)> = Vec::new();
    let mut census = Census::default();
    let newer = find_frames(db, &mut |frame, bytes, offset| {
        if frame.header.commit < before {
            census.see(&frame.header);
            seen.push((frame.header, offset, bytes.len()));
        }
    })?;
    if let Some(version) = newer {
        return Err(MediumError::Newer(version));
    }
    let whole = census.whole();
    seen.retain(|(header, ..)| whole.get(&header.commit) == Some(&header.run));
    let spots = seen.into_iter().map(|(header, offset, len)| (header.frame, Spot::File { offset, len }));
    Ok((spots.collect(), whole.keys().next().copied()))
}
