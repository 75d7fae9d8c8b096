//! A journal made beside another one, and put in its place.
//!
//! | in the data folder | what it is |
//! |---|---|
//! | `journal.making/` | being made; removed at the next start |
//! | `journal.whole/` | whole, and about to take the place of `journal/` |
//! | `journal.replaced/` | the one whose place was taken; removed |
//!
//! Three renames, each made durable before the next. At every moment there is one whole journal of which it is known that
//! it counts, and `settle` finishes or takes back what a cut has left.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::folder;

const JOURNAL: &str = "journal";
const MAKING: &str = "journal.making";
const WHOLE: &str = "journal.whole";
const REPLACED: &str = "journal.replaced";

/// Where a journal to take the place of the one in `dir` is made.
pub(super) fn making(dir: &Path) -> PathBuf {
    dir.join(MAKING)
}

/// The journal that counts, as things lie there.
pub(super) fn current(dir: &Path) -> PathBuf {
    let journal = dir.join(JOURNAL);
    let whole = dir.join(WHOLE);
    if !journal.exists() && whole.is_dir() { whole } else { journal }
}

/// Puts the journal that was made, and is durable, in the place of the other.
pub(super) fn replace(dir: &Path) -> io::Result<()> {
    for step in STEPS {
        step(dir)?;
    }
    Ok(())
}

/// Finishes or takes back what a cut has left. What is in `journal/` counts, and only when it is missing what is whole.
pub(super) fn settle(dir: &Path) -> io::Result<()> {
    let journal = dir.join(JOURNAL);
    if journal.symlink_metadata().is_err() && dir.join(WHOLE).is_dir() {
        tracing::info!("a journal that was made anew is put in its place");
        put_in_place(dir)?;
    }
    if journal.symlink_metadata().is_ok() {
        for left in [MAKING, WHOLE, REPLACED] {
            remove_if_there(&dir.join(left))?;
        }
    }
    Ok(())
}

type StepFn = fn(&Path) -> io::Result<()>;

const STEPS: [StepFn; 4] = [
    |dir| rename(dir, MAKING, WHOLE),
    |dir| rename(dir, JOURNAL, REPLACED),
    put_in_place,
    |dir| remove_if_there(&dir.join(REPLACED)),
];

fn put_in_place(dir: &Path) -> io::Result<()> {
    rename(dir, WHOLE, JOURNAL)
}

fn rename(dir: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(dir.join(from), dir.join(to))?;
    folder::sync(dir)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{JOURNAL, MAKING, REPLACED, STEPS, WHOLE, current, settle};

    /// A folder after so many steps of replacing.
    fn after(steps: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [(JOURNAL, "old"), (MAKING, "new")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("x"), content).unwrap();
        }
        STEPS[..steps].iter().for_each(|step| step(dir.path()).unwrap());
        dir
    }

    fn content(journal: &Path) -> String {
        fs::read_to_string(journal.join("x")).unwrap()
    }

    #[test]
    fn a_cut_leaves_the_old_or_the_new_one_whole() {
        for (steps, counts) in [(0, "old"), (1, "old"), (2, "new"), (3, "new"), (4, "new")] {
            let dir = after(steps);
            assert_eq!(content(&current(dir.path())), counts, "looked at after {steps} steps");
            settle(dir.path()).unwrap();
            assert_eq!(content(&dir.path().join(JOURNAL)), counts, "started after {steps} steps");
            for left in [MAKING, WHOLE, REPLACED] {
                assert!(!dir.path().join(left).exists(), "{left} after {steps} steps");
            }
        }
    }

    #[test]
    fn a_new_folder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        settle(dir.path()).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
