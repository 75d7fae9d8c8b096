//! The frames in a journal's files, found without sled, and without changing anything.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{left::list, salvage::find_frames};
use crate::store::frame::Frame;

/// The data files of the generations in the journal `dir`, the newest first.
pub(in crate::store) fn newest_first(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let found = list(dir)?.parts;
    Ok(found.into_iter().rev().map(|(no, path)| (no, path.join("db"))).collect())
}

/// Shows every whole frame in a file, some more than once.
pub(in crate::store) fn each(db: &Path, each: &mut dyn FnMut(&Frame<'_>, &[u8])) -> io::Result<()> {
    find_frames(db, &mut |frame, bytes, _| each(frame, bytes)).map(drop)
}
