//! Whether the key at hand is the store's, asked before anything in the folder is changed.
//!
//! A wrong key, a missing one, or one for a store that is not sealed must never look like damage. Which it is shows in the
//! frames themselves, as they lie in the files: each says whether it is sealed, and opens with the right key. So there is
//! no file beside them that could be lost or be about another store.

use std::path::Path;

use super::{
    error::OpenError,
    medium::{MediumError, sled::frames_of},
    packing::Packing,
    recover::open_error,
};

/// What a store's frames say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There are none.
    Nothing,
    /// They are not sealed.
    Plain,
    /// They are sealed, and the key opens them.
    Ours,
    /// They are sealed; there is no key, or it does not open them.
    Sealed,
}

/// Refuses a store in the data folder `dir`, with its journal in `journal`, that is not packed as `packing` says.
pub(super) fn check(dir: &Path, journal: &Path, packing: &Packing) -> Result<(), OpenError> {
    let path = || dir.to_owned();
    let found = look(journal, packing).map_err(|error| open_error(error, dir))?;
    match (found, packing.seals()) {
        (Found::Nothing | Found::Ours, _) | (Found::Plain, false) => Ok(()),
        (Found::Sealed, false) => Err(OpenError::KeyMissing { path: path() }),
        (Found::Sealed, true) => Err(OpenError::KeyWrong { path: path() }),
        (Found::Plain, true) => Err(OpenError::KeyForPlain { path: path() }),
    }
}

/// Looks at the newest generation that has frames. Only if it is sealed and nothing in it opens, at those before it too:
/// it may be damaged.
pub(super) fn look(journal: &Path, packing: &Packing) -> Result<Found, MediumError> {
    let mut found = Found::Nothing;
    for (generation, db) in frames_of::newest_first(journal)? {
        let (mut plain, mut sealed, mut opened) = (0_u64, 0_u64, false);
        frames_of::each(&db, &mut |frame, bytes| {
            if frame.packed.sealed {
                sealed += 1;
                opened = opened || packing.open(generation, bytes).is_ok();
            } else {
                plain += 1;
            }
        })?;
        // A few of the other kind may be what somebody has put into a payload.
        match (plain + sealed, sealed > plain) {
            (0, _) => {}
            (_, true) if opened => return Ok(Found::Ours),
            (_, true) => found = Found::Sealed,
            (_, false) if found == Found::Nothing => return Ok(Found::Plain),
            (_, false) => {}
        }
        if found == Found::Sealed && !packing.seals() {
            break;
        }
    }
    Ok(found)
}
