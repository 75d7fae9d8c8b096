//! Sealed stores: nothing in them can be read, nothing but the key opens them, and a key can be changed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Time, WALL, contents,
    damage::{MESSAGES, fill},
    database, key, message,
    offline::{rich, text, without_time},
    open_sim, session, settle, snapshot, subscription, target,
};
use crate::{
    message::{Message, MessageProperties, SessionNo},
    store::{
        Aside, Completion, Config, Journal, KeySource, Offline, OpenError, Record, Recovered, RekeyError,
        Rekeyed, Urgency, WillRecord, compact, export, import,
        medium::{Medium, sim::SimDisk, sled::SledMedium},
        rekey,
    },
    time::{Timestamp, WallClock},
    topic::TopicFilter,
};

fn given(digit: char) -> KeySource {
    KeySource::Given(key(digit))
}

fn config(key: &KeySource) -> Config {
    Config { generation_bytes: 32 << 10, key: key.clone(), ..Config::default() }
}

fn open(dir: &Path, key: &KeySource) -> (Journal, Recovered) {
    let (journal, recovered) = Journal::open(dir, config(key), WallClock(WALL)).unwrap();
    journal.set_clock(Time::default().clock());
    (journal, recovered)
}

/// A store with one of everything and several generations, closed.
fn filled(key: &KeySource) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), key);
    fill(&journal);
    rich(&journal);
    assert!(journal.stats().generations >= 4);
    journal.close();
    dir
}

fn exported(dir: &Path, key: &KeySource) -> String {
    without_time(&text(&Offline::open(dir, key).unwrap()))
}

fn set_key(dir: &Path, from: &KeySource, to: &KeySource) -> Result<Rekeyed, RekeyError> {
    rekey(dir, &config(from), from, to, WallClock(WALL), &mut |_, _| {})
}

const MARKERS: [&str; 9] = [
    "markpayload",
    "marktopic",
    "markclient",
    "markfilter",
    "markwill",
    "markuser",
    "markgroup",
    "markretained",
    "markcleared",
];

/// Writes each of the markers where a client could have put it, and has them copied by compaction.
fn write_markers(dir: &Path, key: &KeySource) {
    let (journal, _) = open(dir, key);
    let mut marked = snapshot(1);
    marked.record.client_id = "markclient".into();
    let will = message("will/markwill", b"markwill");
    let will = WillRecord { message: will, delay: Duration::ZERO, due_at: Timestamp::NEVER, expiry: None };
    marked.record.will = Some(Box::new(will));
    marked.subscriptions = vec![subscription("a/markfilter/#"), subscription("$share/markgroup/b")];
    journal.append(Record::Snapshot(Box::new(marked)), Urgency::Now);
    let user = vec![("markuser".into(), "markuser".into())];
    let properties = Some(Box::new(MessageProperties { user, ..MessageProperties::default() }));
    let body = Message { properties, ..message("a/marktopic", "markpayload".repeat(1_000).as_bytes()) };
    let mut to = target(1, 1);
    to.group = Some(TopicFilter::parse("$share/markgroup/b").unwrap());
    let stored = journal.message(Arc::new(body));
    journal.complete(&stored, vec![to], Completion::default());
    let retained =
        journal.message(Arc::new(Message { retain: true, ..message("markretained", b"markretained") }));
    journal.complete(&retained, Vec::new(), Completion { retained: Some(1), ..Completion::default() });
    journal.unretain(&retained, Some((crate::topic::TopicName::parse("markcleared").unwrap(), 2)));
    settle(&journal);
    journal.close();
    drop(journal);
    compact(dir, config(key), WallClock(WALL), &mut |_, _| {}).unwrap();
}

#[test]
fn nothing_of_what_clients_said_can_be_read_in_any_file() {
    let found_in = |dir: &Path| -> Vec<&str> {
        let files = contents(dir);
        assert!(files.len() >= 4);
        let holds = |marker: &&str| {
            let holds =
                |(_, bytes): &(PathBuf, Vec<u8>)| memchr::memmem::find(bytes, marker.as_bytes()).is_some();
            files.iter().any(holds)
        };
        MARKERS.into_iter().filter(holds).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    write_markers(dir.path(), &given('1'));
    assert_eq!(found_in(dir.path()), [""; 0]);
    // Not even while it is being moved to another key; and without one all of it is there.
    set_key(dir.path(), &given('1'), &given('2')).unwrap();
    assert_eq!(found_in(dir.path()), [""; 0]);
    let plain = tempfile::tempdir().unwrap();
    write_markers(plain.path(), &KeySource::None);
    let found = found_in(plain.path());
    // The rest went with the generations that compaction has removed.
    assert!(
        ["markpayload", "marktopic", "markclient", "markfilter"].iter().all(|m| found.contains(m)),
        "{found:?}"
    );
    set_key(plain.path(), &KeySource::None, &given('2')).unwrap();
    assert_eq!(found_in(plain.path()), [""; 0], "sealed afterwards");
}

type Fits = fn(&OpenError) -> bool;

/// Never damage, nothing set aside, not a byte changed.
#[test]
fn a_key_that_does_not_fit_is_refused_and_changes_nothing() {
    let (none, one, two) = (KeySource::None, given('1'), given('2'));
    let missing: Fits = |error| matches!(error, OpenError::KeyMissing { .. });
    let wrong: Fits = |error| matches!(error, OpenError::KeyWrong { .. });
    let for_plain: Fits = |error| matches!(error, OpenError::KeyForPlain { .. });
    for (with, fits, bad) in [(&one, missing, &none), (&one, wrong, &two), (&none, for_plain, &one)] {
        let dir = filled(with);
        // Damage is not touched either before it is known that the key is right.
        fs::write(dir.path().join("journal/000002/db"), "").unwrap();
        let before = contents(dir.path());
        let error = Journal::open(dir.path(), config(bad), WallClock(WALL)).unwrap_err();
        assert!(fits(&error), "{error}");
        let error = Offline::open(dir.path(), bad).unwrap_err();
        assert!(fits(&error), "{error}");
        let compacted = compact(dir.path(), config(bad), WallClock(WALL), &mut |_, _| {});
        assert!(compacted.is_err());
        if bad != &one {
            let error = set_key(dir.path(), bad, &given('3')).unwrap_err();
            assert!(matches!(&error, RekeyError::Open(error) if fits(error)), "{error}");
        }
        assert!(contents(dir.path()) == before, "something was changed");
        assert!(!dir.path().join("damaged").exists());
    }
}

#[test]
fn a_new_store_takes_any_key_and_then_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &given('1'));
    journal.close();
    drop(journal);
    let error = Journal::open(dir.path(), config(&given('2')), WallClock(WALL)).unwrap_err();
    assert!(matches!(error, OpenError::KeyWrong { .. }), "{error}");
    assert!(open(dir.path(), &given('1')).1.sessions.is_empty());
}

#[test]
fn a_sealed_store_is_brought_back_exported_imported_and_compacted() {
    let (key, plain) = (given('1'), filled(&KeySource::None));
    let dir = filled(&key);
    let all = exported(plain.path(), &KeySource::None);
    assert_eq!(exported(dir.path(), &key), all);
    let (journal, recovered) = open(dir.path(), &key);
    assert_eq!((recovered.damaged, recovered.messages_lost), (0, 0));
    drop((journal, recovered));
    compact(dir.path(), config(&key), WallClock(WALL), &mut |_, _| {}).unwrap();
    let text = text(&Offline::open(dir.path(), &key).unwrap());
    let other = tempfile::tempdir().unwrap();
    import(other.path(), config(&given('5')), &mut text.as_slice(), &mut |_| {}).unwrap();
    assert!(matches!(Offline::open(other.path(), &key).unwrap_err(), OpenError::KeyWrong { .. }));
    let mut again = Vec::new();
    export(&Offline::open(other.path(), &given('5')).unwrap(), &mut again, &mut |_, _| {}).unwrap();
    assert_eq!(without_time(&again).len(), without_time(&text).len());
}

/// The search for frames in a damaged file needs no key: what sled cannot show is put back as it is.
#[test]
fn sealed_frames_are_saved_from_a_generation_that_sled_cannot_read() {
    let key = given('1');
    let dir = filled(&key);
    let before = exported(dir.path(), &key);
    for generation in ["000002", "000003"] {
        let generation = dir.path().join("journal").join(generation);
        fs::write(generation.join("conf"), "what is this").unwrap();
        fs::remove_file(generation.join("chart")).unwrap();
    }
    let (journal, recovered) = open(dir.path(), &key);
    assert_eq!((recovered.damaged, recovered.messages_lost), (2, 0));
    assert_eq!(fs::read_dir(dir.path().join("damaged")).unwrap().count(), 2);
    journal.close();
    drop((journal, recovered));
    assert_eq!(exported(dir.path(), &key), before);
}

#[test]
fn a_key_is_given_changed_and_taken_away() {
    let (none, one, two) = (KeySource::None, given('1'), given('2'));
    let dir = filled(&none);
    let all = exported(dir.path(), &none);
    let steps = [(&none, &one), (&one, &two), (&two, &none), (&none, &two)];
    for (from, to) in steps {
        let done = set_key(dir.path(), from, to).unwrap();
        assert_eq!((done.was_sealed, done.is_sealed), (*from != none, *to != none));
        assert!(done.frames >= MESSAGES / 10);
        assert!(exported(dir.path(), to) == all, "from {from:?} to {to:?}");
        assert!(Offline::open(dir.path(), from).is_err());
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LOCK", "journal", "spare"]);
        // It goes on.
        let (journal, recovered) = open(dir.path(), to);
        assert_eq!((recovered.damaged, recovered.messages_lost), (0, 0));
        journal.close();
    }
    assert!(matches!(set_key(dir.path(), &two, &two).unwrap_err(), RekeyError::Same));
    set_key(dir.path(), &two, &none).unwrap();
    assert!(matches!(set_key(dir.path(), &two, &none).unwrap_err(), RekeyError::Plain));
    let empty = tempfile::tempdir().unwrap();
    let error = set_key(empty.path(), &none, &one).unwrap_err();
    assert!(matches!(error, RekeyError::Open(OpenError::Missing { .. })), "{error}");
}

/// What would be lost with the old files is not left behind in silence.
#[test]
fn a_store_with_damaged_frames_keeps_its_key() {
    let (none, one) = (KeySource::None, given('1'));
    let dir = filled(&none);
    let db = database(&dir.path().join("journal/000002"));
    let (no, bytes) = db.iter().find_map(|pair| pair.ok().filter(|(_, frame)| !frame.is_empty())).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[60] ^= 1;
    db.insert(no, bytes).unwrap();
    db.flush().unwrap();
    drop(db);
    fs::remove_file(dir.path().join("journal/000002/chart")).unwrap();
    let error = set_key(dir.path(), &none, &one).unwrap_err();
    assert!(matches!(error, RekeyError::Damaged { frames: 1 }), "{error}");
    assert!(!dir.path().join("journal.making").exists());
    compact(dir.path(), config(&none), WallClock(WALL), &mut |_, _| {}).unwrap();
    set_key(dir.path(), &none, &one).unwrap();
    assert!(!exported(dir.path(), &one).is_empty());
}

/// Whoever can write to the disk can take things away, but not put things in.
#[test]
fn a_frame_that_was_not_sealed_there_is_damage() {
    let disk = SimDisk::new();
    let (time, config) = (Time::default(), config(&given('1')));
    let (journal, _) = open_sim(&disk, &config, &time);
    fill(&journal);
    let waiting = |recovered: &Recovered| {
        let of = |no: SessionNo| recovered.sessions.iter().filter(move |s| s.snapshot.record.session == no);
        of(session(1)).map(|s| s.queue.len() as u64).sum::<u64>()
    };
    journal.close();
    drop(journal);
    disk.kill();
    let medium = disk.medium();
    let newest = *medium.generations().last().unwrap();
    let mut frames = Vec::new();
    medium.scan(newest, &mut |no, bytes| frames.push((no, bytes.to_vec()))).unwrap();
    let (first, last) = (frames[0].clone(), frames.last().unwrap().clone());
    // One that is not sealed, one under another key, and one that stood elsewhere, with its number changed and its sum put right.
    let next = last.0 + 1;
    let forged = super::plain_frames(1, 1_000_000, next, b"0123456789abcdef");
    let mut moved = first.1;
    moved[16..24].copy_from_slice(&(next + 1).to_le_bytes());
    let end = moved.len() - 4;
    let sum = crc32fast::hash(&moved[..end]).to_le_bytes();
    moved[end..].copy_from_slice(&sum);
    medium.apply(forged).unwrap();
    medium.apply(vec![(next + 1, moved)]).unwrap();
    medium.sync().unwrap();
    let (_, recovered) = open_sim(&disk, &config, &time);
    assert_eq!((recovered.damaged, waiting(&recovered)), (2, MESSAGES));
}

/// It says so before it writes anything, and goes through with a bound that has room for both.
#[test]
fn a_store_is_not_written_anew_beyond_the_bound_on_disk_space() {
    let dir = filled(&given('1'));
    let looked_at = || {
        let aside = Aside::new(dir.path().join("damaged"), WallClock(WALL));
        let medium = SledMedium::open(&dir.path().join("journal"), &aside).unwrap();
        (medium.disk_bytes(), medium.generations().len() as u64)
    };
    let (journal_bytes, generations) = looked_at();
    let before = contents(dir.path());
    let needed = journal_bytes + generations * (512 << 10);
    // A quarter is the reserve.
    let (small, enough) =
        (journal_bytes + needed, (journal_bytes + needed) * 4 / 3 + generations * (1 << 20));
    let with = |max| {
        let config = Config { disk_bytes_max: Some(max), ..config(&given('1')) };
        rekey(dir.path(), &config, &given('1'), &given('2'), WallClock(WALL), &mut |_, _| {})
    };
    let refused = with(small).unwrap_err();
    let RekeyError::NoRoom { needed_bytes, room_bytes } = refused else { panic!("{refused}") };
    assert_eq!(needed_bytes, needed);
    assert!(room_bytes < needed, "{room_bytes}");
    let said = refused.to_string();
    assert!(said.contains(&needed.to_string()) && said.contains(&room_bytes.to_string()), "{said}");
    assert_eq!(contents(dir.path()), before);

    let text = exported(dir.path(), &given('1'));
    with(enough).unwrap();
    assert_eq!(exported(dir.path(), &given('2')), text);
    let (taken, _) = looked_at();
    assert!(taken <= needed, "{taken} of {needed}");
}
