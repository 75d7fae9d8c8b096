//! Stores that are not as they were left: every row of the table in `docs/durability.md` that needs no other user.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    WALL,
    damage::{MESSAGES, fill, open},
    database, message, plain_frames,
    records::fixture,
    settle, target,
};
use crate::{
    store::{
        Completion, Config, Gate, Journal, OpenError, Recovered,
        frame::{self, VERSION},
    },
    time::WallClock,
};

const SET_ASIDE_AT: &str = "20270115T080000Z";

/// A data folder with several generations, closed.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    assert!(journal.stats().generations >= 4);
    journal.close();
    dir
}

fn generation(dir: &Path, no: u32) -> PathBuf {
    dir.join(format!("journal/{no:06}"))
}

/// What lies in `damaged/`.
fn set_aside(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("damaged")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn queued(recovered: &Recovered) -> u64 {
    recovered.sessions.first().map_or(0, |session| session.queue.len() as u64)
}

/// Starts, serves one more message, and starts again without finding anything amiss but what `still` says. Returns what
/// was damaged, and how many messages were there.
fn serves(dir: &Path, still: u64) -> (u64, u64) {
    let (journal, recovered) = open(dir);
    let kept = queued(&recovered);
    let stored = journal.message(Arc::new(message("a/b", b"one more")));
    journal.complete(&stored, vec![target(1, MESSAGES)], Completion::default());
    settle(&journal);
    assert!(journal.is_open(&Gate::Message(stored)), "a message is taken");
    journal.close();
    drop(journal);
    let (_, again) = open(dir);
    assert_eq!(again.damaged, still, "the second time");
    assert_eq!(queued(&again), kept + 1);
    (recovered.damaged, kept)
}

/// All files of a folder with their contents, sled's snapshots aside: it writes a new one whenever it opens.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if !path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            all.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    all.sort();
    all
}

/// Puts a frame of the next version of the format into a generation.
fn add_newer_frame(dir: &Path, no: u32, key: u64) {
    let db = database(&generation(dir, no));
    let (_, mut bytes) = plain_frames(9, 9, key, b"from the future").remove(0);
    bytes[3] = VERSION + 1;
    let end = bytes.len() - 4;
    let sum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&sum);
    db.insert(key.to_be_bytes(), bytes).unwrap();
    db.flush().unwrap();
}

#[test]
fn a_missing_generation_costs_what_stood_in_it() {
    let dir = filled();
    fs::remove_dir_all(generation(dir.path(), 2)).unwrap();
    let (damaged, kept) = serves(dir.path(), 1);
    assert_eq!(damaged, 1, "one gap");
    assert!((MESSAGES - 80..MESSAGES).contains(&kept), "{kept}");
}

#[test]
fn a_generation_whose_files_are_empty_is_set_aside() {
    for every_file in [false, true] {
        let dir = filled();
        for entry in fs::read_dir(generation(dir.path(), 2)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && (every_file || path.ends_with("db")) {
                fs::write(path, "").unwrap();
            }
        }
        let (damaged, kept) = serves(dir.path(), 1);
        assert_eq!(damaged, 2, "the part, and the gap in the commits");
        assert!((MESSAGES - 80..MESSAGES).contains(&kept), "{kept}");
        assert_eq!(set_aside(dir.path()), [format!("{SET_ASIDE_AT}-generation-000002")]);
    }
}

/// No later commit tells of what is missing there.
#[test]
fn the_newest_generation_is_missed_when_its_files_are_empty() {
    let dir = filled();
    let names = fs::read_dir(dir.path().join("journal")).unwrap();
    let newest = names.filter_map(|name| name.unwrap().file_name().to_str()?.parse().ok()).max().unwrap();
    fs::write(generation(dir.path(), newest).join("db"), "").unwrap();
    let (damaged, kept) = serves(dir.path(), 0);
    assert_eq!(damaged, 1);
    assert!((MESSAGES - 80..MESSAGES).contains(&kept), "{kept}");
    assert_eq!(set_aside(dir.path()), [format!("{SET_ASIDE_AT}-generation-{newest:06}")]);
}

#[test]
fn an_empty_folder_in_a_generations_place_is_set_aside() {
    let dir = filled();
    fs::remove_dir_all(generation(dir.path(), 2)).unwrap();
    fs::create_dir(generation(dir.path(), 2)).unwrap();
    assert_eq!(serves(dir.path(), 1).0, 2);
    assert_eq!(set_aside(dir.path()), [format!("{SET_ASIDE_AT}-generation-000002")]);
}

#[test]
fn stray_files_do_not_stop_the_start() {
    let dir = filled();
    let at = |name: &str| dir.path().join("journal").join(name);
    for name in ["notes.txt", "000002.bak", "000099", "000098.new", "000097.deleted", "000096.rebuilt"] {
        fs::write(at(name), name).unwrap();
    }
    fs::create_dir(at("lost+found")).unwrap();
    let (damaged, kept) = serves(dir.path(), 0);
    assert_eq!((damaged, kept), (4, MESSAGES));
    let moved = ["000096.rebuilt", "000097.deleted", "000098.new", "000099"];
    assert_eq!(set_aside(dir.path()), moved.map(|name| format!("{SET_ASIDE_AT}-file-{name}")));
    for name in moved {
        let kept = dir.path().join(format!("damaged/{SET_ASIDE_AT}-file-{name}"));
        assert_eq!(fs::read_to_string(kept).unwrap(), name);
    }
    assert!(at("notes.txt").exists() && at("000002.bak").exists() && at("lost+found").exists());
}

#[test]
fn a_journal_that_is_a_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal"), "what is this").unwrap();
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.damaged, 1);
    fill(&journal);
    journal.close();
    assert_eq!(set_aside(dir.path()), [format!("{SET_ASIDE_AT}-file-journal")]);
}

#[test]
fn an_empty_store_is_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("journal")).unwrap();
    let (journal, recovered) = open(dir.path());
    assert_eq!((recovered.damaged, recovered.sessions.len()), (0, 0));
    fill(&journal);
    journal.close();
    assert!(set_aside(dir.path()).is_empty());
}

/// What it holds is compared in `records`; here it is opened as a store, and goes on as one of this version.
#[test]
fn a_store_of_an_older_version_is_served_and_goes_on() {
    for version in 1..=VERSION {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("journal")).unwrap();
        let db = database(&generation(dir.path(), 1));
        let bytes = fs::read(fixture(version)).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (found, len) = frame::decode_prefix(rest).unwrap();
            db.insert(found.header.frame.to_be_bytes(), &rest[..len]).unwrap();
            rest = &rest[len..];
        }
        db.flush().unwrap();
        drop(db);
        let (journal, recovered) = open(dir.path());
        assert_eq!(recovered.damaged, 0, "version {version}");
        assert!(!recovered.sessions.is_empty());
        let before = recovered.sessions.len();
        fill(&journal);
        journal.close();
        drop(journal);
        let (_, recovered) = open(dir.path());
        assert_eq!((recovered.damaged, recovered.sessions.len()), (0, before), "version {version}");
    }
}

/// Not even what is damaged of it.
#[test]
fn nothing_of_a_newer_store_is_touched() {
    for harm in [false, true] {
        let dir = filled();
        // An older part is damaged, and may not be set aside either.
        fs::write(generation(dir.path(), 1).join("db"), "").unwrap();
        let newer = generation(dir.path(), 2);
        fs::remove_dir_all(&newer).unwrap();
        for key in 1..4 {
            add_newer_frame(dir.path(), 2, key);
        }
        if harm {
            fs::write(newer.join("conf"), "what is this").unwrap();
        }
        let before = contents(dir.path());
        let error = Journal::open(dir.path(), Config::default(), WallClock(WALL)).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { version, .. } if version == VERSION + 1), "{error}");
        assert_eq!(contents(dir.path()), before);
    }
}

/// Somebody's payload is nobody's frame, wherever in the file it lies.
#[test]
fn frames_in_a_payload_are_not_the_journals() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    let (_, forged) = plain_frames(99, 1_000_000, 1_000_000, b"not the journal's").remove(0);
    let mut newer = forged.clone();
    newer[3] = VERSION + 1;
    let end = newer.len() - 4;
    let sum = crc32fast::hash(&newer[..end]).to_le_bytes();
    newer[end..].copy_from_slice(&sum);
    let payload = [forged, newer].concat().repeat(1_500);
    for seq in 0..20 {
        let stored = journal.message(Arc::new(message("a/b", &payload)));
        journal.complete(&stored, vec![target(1, MESSAGES + seq)], Completion::default());
        settle(&journal);
    }
    journal.close();
    drop(journal);
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.damaged, 0);
    assert_eq!(queued(&recovered), MESSAGES + 20);
}
