//! Saving what can be saved of a generation that sled cannot read.
//!
//! sled writes values as they are, so a frame lies in the data file in one piece and can be found by its first bytes
//! and proven by its checksum. What is found makes a new generation in the old one's place; a commit that is not whole
//! is dropped by recovery like any torn one. The damaged folder is kept for people to look at.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{DataSync, MediumError, REBUILT, make, path_of, rename_durably, suffixed, sync_dir};
use crate::store::frame::{self, FRAME_BYTES_MAX};

/// How much of the data file is looked at in one go.
const WINDOW_BYTES: usize = 1 << 20;

/// Moves generation `no` to `damaged_dir` and puts what could be saved in its place. False if nothing could.
pub(super) fn set_aside(
    dir: &Path,
    damaged_dir: &Path,
    no: u32,
    disk: &Arc<dyn DataSync>,
) -> Result<bool, MediumError> {
    let damaged = path_of(dir, no);
    let frames = find_frames(&damaged.join("db"))?;
    let saved = frames.len();
    if saved > 0 {
        make(dir, no, REBUILT, &mut frames.into_iter(), disk)?;
    }
    fs::create_dir_all(damaged_dir)?;
    if let Some(parent) = damaged_dir.parent() {
        sync_dir(parent)?;
    }
    let away = free_name(damaged_dir, no);
    rename_durably(&damaged, &away)?;
    if saved > 0 {
        rename_durably(&suffixed(dir, no, REBUILT), &damaged)?;
    }
    tracing::error!(
        generation = no,
        frames_saved = saved,
        kept_at = %away.display(),
        "the damaged part of the journal was set aside; serving goes on with what could be saved"
    );
    Ok(saved > 0)
}

/// Every whole frame in a file, by number. Parts of the file that cannot be read are passed over.
fn find_frames(path: &Path) -> io::Result<BTreeMap<u64, Vec<u8>>> {
    let mut frames = BTreeMap::new();
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(frames),
        opened => opened?,
    };
    let len = file.metadata()?.len();
    let mut at = 0;
    let mut window = vec![0; WINDOW_BYTES + FRAME_BYTES_MAX];
    while at < len {
        file.seek(SeekFrom::Start(at))?;
        let filled = fill(&mut file, &mut window);
        find_in(window.get(..filled).unwrap_or_default(), &mut frames);
        at += WINDOW_BYTES as u64;
    }
    Ok(frames)
}

fn find_in(window: &[u8], frames: &mut BTreeMap<u64, Vec<u8>>) {
    let mut at = 0;
    while let Some(rest) = window.get(at..)
        && let Some(hit) = rest.windows(frame::MAGIC.len()).position(|bytes| bytes == frame::MAGIC)
    {
        let found = rest.get(hit..).unwrap_or_default();
        match frame::decode_prefix(found) {
            Ok((frame, len)) => {
                let bytes = found.get(..len).unwrap_or_default();
                keep_newest(frames.entry(frame.header.frame), bytes);
                at += hit + len;
            }
            Err(_) => at += hit + 1,
        }
    }
}

/// A number may have been used twice when the first use was lost to a power cut: the later run counts.
fn keep_newest(entry: Entry<'_, u64, Vec<u8>>, bytes: &[u8]) {
    let run = |bytes: &[u8]| frame::decode(bytes).ok().map(|frame| frame.header.run);
    let kept = entry.or_insert_with(|| bytes.to_vec());
    if run(kept) < run(bytes) {
        *kept = bytes.to_vec();
    }
}

/// Reads until the buffer is full, the file ends or it cannot be read.
fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..)
        && !free.is_empty()
    {
        match file.read(free) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}

fn free_name(damaged_dir: &Path, no: u32) -> PathBuf {
    (0_u32..)
        .map(|n| damaged_dir.join(format!("{no:06}-{n}")))
        .find(|path| !path.exists())
        .expect("the file system runs out of names later than we do")
}
