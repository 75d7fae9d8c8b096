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
        self.make_folder()?;
        let to = free_name(&self.folder.join(format!("{}-{what}", self.when)))?;
        fs::rename(path, &to)?;
        for around in [path.parent(), to.parent()].into_iter().flatten() {
            folder::sync(around)?;
        }
        Ok(to)
    }

    /// A file that stands where the folder belongs is the first thing to lie in it.
    fn make_folder(&self) -> io::Result<()> {
        if !self.folder.is_file() {
            return folder::make(&self.folder);
        }
        let parked = free_name(&self.folder.with_extension("file"))?;
        fs::rename(&self.folder, &parked)?;
        folder::make(&self.folder)?;
        let lies_at = self.take(&parked, "file-named-damaged")?;
        let to = lies_at.display();
        tracing::error!(%to, "a file stood where the folder for damage belongs: it was set aside");
        Ok(())
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

/// This path, or the first with a number behind it, at which there is nothing.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    let mut names = std::iter::once(path.to_owned()).chain((2_u32..).map(numbered));
    names.find(|to| to.symlink_metadata().is_err()).ok_or_else(|| io::Error::other("no name left"))
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

    #[test]
    fn a_file_in_the_place_of_the_folder_is_set_aside_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside::new(dir.path().join("damaged"), WallClock::UNKNOWN);
        fs::write(dir.path().join("damaged"), "notes").unwrap();
        fs::write(dir.path().join("damaged.file"), "other notes").unwrap();
        fs::write(dir.path().join("x"), "a").unwrap();
        let to = aside.take(&dir.path().join("x"), "x").unwrap();
        assert_eq!(fs::read_to_string(to).unwrap(), "a");
        let notes = dir.path().join("damaged/undated-file-named-damaged");
        assert_eq!(fs::read_to_string(notes).unwrap(), "notes");
        assert_eq!(fs::read_to_string(dir.path().join("damaged.file")).unwrap(), "other notes");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
