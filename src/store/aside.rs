//! Where damage goes: `<data>/damaged/<when>-<what>`. It is moved there, never deleted: people may want to look at it,
//! or to give it to somebody who can read more of it. Nothing here reads it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{folder, time::WallClock};

/// From here on a start warns of the room that it takes: four generations of the usual size.
const WARN_BYTES: u64 = 64 << 20;
/// And from so many things.
const WARN_THINGS: usize = 16;

const DAY_MS: u64 = 86_400_000;

/// The folder for what is damaged.
#[derive(Clone, Debug)]
pub struct Aside {
    folder: PathBuf,
    when: String,
}

impl Aside {
    /// This folder, which is made when it is needed. `wall` goes into the names.
    pub fn new(folder: PathBuf, wall: WallClock) -> Self {
        Self { folder, when: when(wall) }
    }

    /// Moves a file or a folder away, durably, and returns where it is now.
    pub(super) fn take(&self, path: &Path, what: &str) -> io::Result<PathBuf> {
        folder::make(&self.folder)?;
        let name = format!("{}-{what}", self.when);
        let more = (2_u32..).map(|n| format!("{name}-{n}"));
        let mut names = std::iter::once(name.clone()).chain(more).map(|name| self.folder.join(name));
        let to = names.find(|to| to.symlink_metadata().is_err());
        let to = to.ok_or_else(|| io::Error::other("no name left"))?;
        fs::rename(path, &to)?;
        for around in [path.parent(), to.parent()].into_iter().flatten() {
            folder::sync(around)?;
        }
        Ok(to)
    }

    /// Says so in the log when what lies there has become much. Nothing else bounds it.
    pub(super) fn warn_of_size(&self) {
        let (things, bytes) = (children(&self.folder).len(), size_bytes(&self.folder));
        if bytes >= WARN_BYTES || things >= WARN_THINGS {
            tracing::warn!(
                folder = %self.folder.display(),
                things,
                bytes,
                "damage that was set aside takes room: look at it, move it elsewhere or remove it"
            );
        }
    }
}

/// Bytes of all files in a folder and below it; what cannot be looked at counts nothing.
pub(super) fn size_bytes(folder: &Path) -> u64 {
    let of = |path: &PathBuf| match path.symlink_metadata() {
        Ok(found) if found.is_dir() => size_bytes(path),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    children(folder).iter().map(of).sum()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A moment as `20261122T031200Z`, or `undated` when the clock is not believed.
fn when(wall: WallClock) -> String {
    if wall == WallClock::UNKNOWN {
        return "undated".to_owned();
    }
    let (year, month, day) = date(wall.0 / DAY_MS);
    let seconds = wall.0 % DAY_MS / 1_000;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day that is counted from 1970 (Gregorian calendar).
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Four hundred years have 146,097 days.
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Aside, date, when};
    use crate::time::WallClock;

    #[test]
    fn a_name_says_when() {
        assert_eq!(when(WallClock(1_795_317_120_000)), "20261122T031200Z");
        assert_eq!(when(WallClock(1_709_164_799_999)), "20240228T235959Z");
        assert_eq!(when(WallClock(1_709_164_800_000)), "20240229T000000Z");
        assert_eq!(when(WallClock(1_735_689_599_000)), "20241231T235959Z");
        assert_eq!(when(WallClock::UNKNOWN), "undated");
        assert_eq!(date(146_097), (2370, 1, 1));
    }

    #[test]
    fn what_is_set_aside_twice_is_kept_twice() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside::new(dir.path().join("damaged"), WallClock::UNKNOWN);
        for (content, name) in [("a", "undated-x"), ("b", "undated-x-2"), ("c", "undated-x-3")] {
            fs::write(dir.path().join("x"), content).unwrap();
            let to = aside.take(&dir.path().join("x"), "x").unwrap();
            assert_eq!(to, dir.path().join("damaged").join(name));
            assert_eq!(fs::read_to_string(to).unwrap(), content);
        }
    }
}
