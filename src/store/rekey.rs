//! A stopped broker's store under another key: every frame is opened and sealed anew, in a journal made beside the old one,
//! which takes its place when it is durable (`swap`). A cut leaves a store that opens with the old or the new key. For so long
//! there are both, so it begins only where the bounds on disk space have room for another one.

use std::path::Path;

use thiserror::Error;

use super::{
    aside::{Aside, size_bytes},
    config::Config,
    error::OpenError,
    key::{KeyError, KeySource},
    key_check::{self, Found},
    lock::DataLock,
    medium::{Medium, MediumError, NumberedFrame, sled::SledMedium},
    offline::Progress,
    packing::Packing,
    recover::open_error,
    space::lacks_room_for_copy,
    swap,
};
use crate::time::WallClock;

/// How much is written between two syncs.
const PIECE_BYTES: usize = 128 << 10;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// Frames written anew.
    pub frames: u64,
    /// Whether they were sealed before.
    pub was_sealed: bool,
    /// Whether they are now.
    pub is_sealed: bool,
    /// Bytes of what was set aside as damaged earlier, and is as it was.
    pub set_aside_bytes: u64,
}

/// Why a store has the key it had.
#[derive(Debug, Error)]
pub enum RekeyError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Some frames cannot be opened.
    #[error(
        "{frames} frames of the store are damaged: dormouse store compact leaves them out; the store is as it was"
    )]
    Damaged {
        /// How many.
        frames: u64,
    },
    /// There is nothing to be done.
    #[error("the store is sealed with this key already: name another one with --new-key-file, or --plain")]
    Same,
    /// There is nothing to be done either.
    #[error("the store is not sealed, and there is no key to seal it with: name one with --new-key-file")]
    Plain,
    /// There is not enough room for another journal beside the old one.
    #[error(
        "writing the store anew takes {needed_bytes} bytes beside the old files while it runs, and there is room for {room_bytes} above the \
         reserve ([store] disk_reserve, max_disk_bytes): make room, or give it other bounds for this once; the store is as it was"
    )]
    NoRoom {
        /// What it takes.
        needed_bytes: u64,
        /// What there is.
        room_bytes: u64,
    },
    /// A write failed.
    #[error("the store could not be written anew ({0}); it is as it was")]
    Write(MediumError),
    /// The new journal could not be put in the old one's place.
    #[error(
        "the new journal could not be put in the old one's place ({0}); the next start finishes that or takes it back"
    )]
    Swap(std::io::Error),
}

impl From<KeyError> for RekeyError {
    fn from(error: KeyError) -> Self {
        Self::Open(error.into())
    }
}

/// Seals the store in the data folder `dir`, which opens with `from` if it is sealed, with `to`, or takes its seal off, if the
/// bounds of `config` have room for that. `wall` is the wall clock.
pub fn rekey(
    dir: &Path,
    config: &Config,
    from: &KeySource,
    to: &KeySource,
    wall: WallClock,
    progress: Progress<'_>,
) -> Result<Rekeyed, RekeyError> {
    let after = Packing::new(to.load()?);
    if !swap::current(dir).is_dir() {
        return Err(OpenError::Missing { path: dir.to_owned() }.into());
    }
    let _lock = DataLock::take(dir)?;
    let not_writable = |source| OpenError::NotWritable { path: dir.to_owned(), source };
    swap::settle(dir).map_err(not_writable)?;
    let journal = swap::current(dir);
    let plain = Packing::new(None);
    let look = |packing| key_check::look(&journal, packing).map_err(|error| open_error(error, dir));
    let was_sealed = look(&plain)? == Found::Sealed;
    match (was_sealed, after.seals()) {
        (false, false) => return Err(RekeyError::Plain),
        (true, true) if look(&after)? == Found::Ours => return Err(RekeyError::Same),
        _ => {}
    }
    let before = if was_sealed { Packing::new(from.load()?) } else { plain };
    key_check::check(dir, &journal, &before)?;
    let aside = Aside::new(dir.join("damaged"), wall);
    let made = loop {
        let old = SledMedium::open(&journal, &aside).map_err(|error| open_error(error, dir))?;
        let generations = old.generations().len() as u64;
        let lacks = lacks_room_for_copy(config, old.space(), old.disk_bytes(), generations);
        if let Some((needed_bytes, room_bytes)) = lacks {
            return Err(RekeyError::NoRoom { needed_bytes, room_bytes });
        }
        let made = SledMedium::open(&swap::making(dir), &aside)
            .map_err(RekeyError::Write)
            .and_then(|new| copy(&old, &before, &new, &after, progress));
        if !matches!(made, Err(RekeyError::Write(MediumError::Changed))) {
            break made;
        }
        // Each time one chart less is believed.
        swap::settle(dir).map_err(not_writable)?;
    };
    match made {
        Ok(frames) => {
            swap::replace(dir).map_err(RekeyError::Swap)?;
            let set_aside_bytes = size_bytes(&dir.join("damaged"));
            Ok(Rekeyed { frames, was_sealed, is_sealed: after.seals(), set_aside_bytes })
        }
        Err(error) => {
            swap::settle(dir).map_err(not_writable)?;
            Err(error)
        }
    }
}

/// Writes every frame of one journal, opened and sealed anew, into another, durably. Their headers stay as they are.
fn copy(
    old: &SledMedium,
    before: &Packing,
    new: &SledMedium,
    after: &Packing,
    progress: Progress<'_>,
) -> Result<u64, RekeyError> {
    let (mut frames, mut damaged) = (0, 0);
    let generations = old.generations();
    for (done, &generation) in (1..).zip(&generations) {
        new.new_generation(generation).map_err(RekeyError::Write)?;
        let mut writer = Writer { medium: new, piece: Vec::new(), bytes: 0 };
        let mut failed = None;
        let scanned = old.scan(generation, &mut |no, bytes| {
            let unsealed = before.unseal(generation, bytes).ok();
            let Some(frame) = unsealed.filter(|frame| frame.header.frame == no && frame.is_whole()) else {
                damaged += 1;
                return;
            };
            frames += 1;
            if failed.is_none() {
                let packed = after.repack(generation, &frame);
                failed = packed.and_then(|packed| writer.put(no, packed)).err();
            }
        });
        let written = scanned.and_then(|()| failed.map_or(Ok(()), Err)).and_then(|()| writer.finish());
        written.map_err(RekeyError::Write)?;
        progress(done, generations.len() as u64);
    }
    if damaged > 0 { Err(RekeyError::Damaged { frames: damaged }) } else { Ok(frames) }
}

/// Writes frames in pieces, with a sync after each.
struct Writer<'m> {
    medium: &'m SledMedium,
    piece: Vec<NumberedFrame>,
    bytes: usize,
}

impl Writer<'_> {
    fn put(&mut self, no: u64, frame: Vec<u8>) -> Result<(), MediumError> {
        self.bytes += frame.len();
        self.piece.push((no, frame));
        if self.bytes < PIECE_BYTES { Ok(()) } else { self.finish() }
    }

    fn finish(&mut self) -> Result<(), MediumError> {
        self.bytes = 0;
        if !self.piece.is_empty() {
            self.medium.apply(std::mem::take(&mut self.piece))?;
        }
        self.medium.sync()
    }
}
