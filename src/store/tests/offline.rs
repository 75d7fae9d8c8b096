//! What `dormouse store` does: reading without a trace, export and import, compaction of everything.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Time, WALL, contents,
    damage::{MESSAGES, fill},
    message, open_sim, session, settle, snapshot, subscription, target,
};
use crate::{
    codec::{PacketId, QoS},
    message::{Message, MessageProperties, Seq},
    store::{
        Completion, Config, Exported, Gate, HandedOn, ImportError, Imported, Journal, KeySource, Offline,
        OpenError, Record, Recovered, SessionRecord, Snapshot, Target, Urgency, WillRecord, compact, export,
        import, medium::sim::SimDisk, rewrite::rewrite,
    },
    time::{Timestamp, WallClock},
    topic::TopicFilter,
};

fn config() -> Config {
    Config { generation_bytes: 32 << 10, ..Config::default() }
}

fn will() -> WillRecord {
    let properties = MessageProperties {
        payload_is_utf8: Some(false),
        response_topic: Some("answer/here".into()),
        correlation_data: Some(Bytes::from_static(&[0, 255, 10])),
        content_type: Some("text/plain; \"quoted\"".into()),
        user: vec![("ä".into(), "b\n".into()), ("ä".into(), String::new().into())],
    };
    let message = Message {
        expires_at: Timestamp(99_000),
        retain: true,
        properties: Some(Box::new(properties)),
        ..message("will/of/2", &[0, 159, 146, 150])
    };
    WillRecord { message, delay: Duration::from_secs(7), due_at: Timestamp(12_345), expiry: Some(60) }
}

fn sleeper() -> Snapshot {
    let mut sleeper = snapshot(2);
    sleeper.record.will = Some(Box::new(will()));
    sleeper.record.expires_at = Timestamp(77_000);
    sleeper.record.sent_below = Seq(21);
    sleeper.record.expiry = Duration::from_millis(u64::MAX);
    sleeper.subscriptions = vec![subscription("$share/g/b/#"), subscription("a/+")];
    sleeper.inbound_qos2 = vec![PacketId::new(9).unwrap(), PacketId::new(3).unwrap()];
    sleeper.received = vec![Seq(2), Seq(1)];
    sleeper
}

/// Publishes a message that is kept, and says whether it is.
fn put(journal: &Journal, body: Message, targets: Vec<Target>, retained: Option<u64>) {
    let stored = journal.message(Arc::new(body));
    journal.complete(&stored, targets, Completion { retained, ..Completion::default() });
    settle(journal);
    assert!(journal.is_open(&Gate::Message(stored)));
}

/// One of everything.
pub(super) fn rich(journal: &Journal) {
    for snapshot in [snapshot(1), sleeper(), snapshot(3)] {
        journal.append(Record::Snapshot(Box::new(snapshot)), Urgency::Now);
    }
    let in_group =
        |no, seq| Target { group: Some(TopicFilter::parse("$share/g/b/#").unwrap()), ..target(no, seq) };
    let mut twice = target(2, 20);
    twice.delivery.qos = QoS::ExactlyOnce;
    twice.delivery.subscription_ids = vec![1, 268_435_455];
    let exactly_once = Message { qos: QoS::ExactlyOnce, ..message("a/1", "x".repeat(30_000).as_bytes()) };
    put(journal, exactly_once, vec![target(1, 905), twice], None);
    put(journal, message("a/2", b""), vec![target(1, 906), target(3, 1)], Some(4));
    put(journal, Message { retain: true, ..message("kept", b"value") }, Vec::new(), Some(5));
    put(journal, message("b/1", b"handed on"), vec![in_group(3, 2)], None);
    let to = in_group(1, 907);
    journal
        .append(Record::HandedOn(Box::new(HandedOn { session: session(3), seq: Seq(2), to })), Urgency::Now);
    journal.append(Record::Done(session(3), Seq(1)), Urgency::Now);
    settle(journal);
}

fn open(dir: &Path) -> (Journal, Recovered) {
    let (journal, recovered) = Journal::open(dir, config(), WallClock(WALL)).unwrap();
    journal.set_clock(Time::default().clock());
    (journal, recovered)
}

/// All that a start has found, as text; the first line, which has the time, is left out.
fn text_of(journal: &Journal, recovered: &Recovered) -> String {
    without_time(&text(&Offline::around(journal.clone(), recovered.clone())))
}

pub(super) fn text(store: &Offline) -> Vec<u8> {
    let mut text = Vec::new();
    assert_eq!(export(store, &mut text, &mut |_, _| {}).unwrap().lost, 0);
    text
}

pub(super) fn without_time(text: &[u8]) -> String {
    str::from_utf8(text).unwrap().split_once('\n').unwrap().1.to_owned()
}

fn exported(dir: &Path) -> (Exported, Vec<u8>) {
    let mut text = Vec::new();
    let store = Offline::open(dir, &KeySource::None).unwrap();
    let exported = export(&store, &mut text, &mut |_, _| {}).unwrap();
    (exported, text)
}

fn imported(dir: &Path, text: &[u8]) -> Result<Imported, ImportError> {
    import(dir, config(), &mut &*text, &mut |_| {})
}

/// Each run of the broker that had any dead letters to publish left a session of no client, which reserves no numbers.
#[test]
fn letters_that_wait_are_exported_and_brought_back() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (journal, _) = open(dir.path());
    rich(&journal);
    for no in [7, 8] {
        let office = snapshot(no);
        let record = SessionRecord { client_id: "".into(), seq_reserved: Seq(0), ..office.record };
        journal.append(Record::Snapshot(Box::new(Snapshot { record, ..office })), Urgency::Now);
        let group = Some(TopicFilter::parse("$dead/queue_full/dev").unwrap());
        put(&journal, message("a/1", b"not delivered"), vec![Target { group, ..target(no, 0) }], None);
    }
    journal.close();
    drop(journal);
    let store = Offline::open(dir.path(), &KeySource::None).unwrap();
    assert_eq!(store.check(dir.path(), &mut |_, _| {}).unwrap(), Vec::<String>::new());
    drop(store);
    let (counts, text) = exported(dir.path());
    assert_eq!(counts, Exported { sessions: 5, messages: 6, lost: 0 });
    assert_eq!(imported(copy.path(), &text).unwrap(), Imported { sessions: 5, messages: 6 });
    let (_, again) = exported(copy.path());
    assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(text).unwrap());
}

#[test]
fn an_export_gives_a_store_that_gives_the_same_export() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (journal, _) = open(dir.path());
    rich(&journal);
    journal.close();
    drop(journal);
    let (counts, text) = exported(dir.path());
    assert_eq!(counts, Exported { sessions: 3, messages: 4, lost: 0 });
    assert_eq!(imported(copy.path(), &text).unwrap(), Imported { sessions: 3, messages: 4 });
    let (_, again) = exported(copy.path());
    assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(text.clone()).unwrap());

    // And a start finds the same.
    let (journal, recovered) = Journal::open(dir.path(), config(), WallClock::UNKNOWN).unwrap();
    let (other, copied) = Journal::open(copy.path(), config(), WallClock::UNKNOWN).unwrap();
    assert_eq!(recovered.now, copied.now);
    let snapshots = |recovered: &Recovered| {
        recovered.sessions.iter().map(|session| session.snapshot.clone()).collect::<Vec<_>>()
    };
    assert_eq!(snapshots(&recovered), snapshots(&copied));
    assert_eq!(snapshots(&copied)[1], sleeper());
    let values = |recovered: &Recovered| {
        let values = recovered.retained.iter().map(|value| (value.version, Message::clone(&value.message)));
        values.collect::<Vec<_>>()
    };
    assert_eq!(values(&recovered), values(&copied));

    assert!(matches!(imported(copy.path(), &text), Err(ImportError::Open(OpenError::Locked { .. }))));
    drop((journal, other, recovered, copied));
    assert!(matches!(imported(copy.path(), &text), Err(ImportError::NotEmpty { .. })));
}

#[test]
fn an_export_that_is_not_whole_or_not_right_leaves_the_folder_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    rich(&journal);
    journal.close();
    drop(journal);
    let text = String::from_utf8(exported(dir.path()).1).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let refuse = |text: &str| {
        let copy = tempfile::tempdir().unwrap();
        let error = imported(copy.path(), text.as_bytes()).unwrap_err();
        let left: Vec<_> =
            fs::read_dir(copy.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["LOCK"], "{error}");
        error.to_string()
    };
    for end in 1..lines.len() {
        assert!(refuse(&lines[..end].join("\n")).starts_with("the export is not whole"), "{end} lines");
    }
    assert!(refuse("").starts_with("line 0: the first line is not the header"));
    for (from, to, expected) in [
        ("dormouse-store", "x", "line 1: this is not an export of a store"),
        ("\"version\":1", "\"version\":2", "line 1: its version is not known here"),
        (
            "\"client_id\":\"client-3\"",
            "\"client_id\":\"client-1\"",
            "line 4: a second session of this client",
        ),
        ("\"topic\":\"kept\"", "\"topic\":\"ke+pt\"", "line 7: a topic is not one"),
        ("\"seq\":20", "\"seq\":2", "line 5: a message's number was given twice"),
        ("\"seq\":20", "\"seq\":1000", "line 5: a message's number was never reserved"),
        ("\"inbound_qos2\":[9,3]", "\"inbound_qos2\":[0]", "line 3: a packet id is zero"),
        ("\"messages\":4", "\"messages\":5", "the export is not whole"),
    ] {
        assert!(text.contains(from), "{from}");
        let said = refuse(&text.replacen(from, to, 1));
        assert!(said.starts_with(expected), "{said}");
    }
}

/// Frames looked up in the files add up to what a start finds, also when the broker was killed; and nothing changes.
#[test]
fn reading_a_stopped_store_finds_what_a_start_finds_and_leaves_no_trace() {
    for closes in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        fill(&journal);
        rich(&journal);
        if closes {
            journal.close();
        }
        assert!(matches!(Offline::open(dir.path(), &KeySource::None).unwrap_err(), OpenError::Locked { .. }));
        drop(journal);
        let before = contents(dir.path());
        let store = Offline::open(dir.path(), &KeySource::None).unwrap();
        assert_eq!(store.check(dir.path(), &mut |_, _| {}).unwrap(), Vec::<String>::new());
        assert_eq!(store.recovered.damaged, 0);
        let found = without_time(&text(&store));
        drop(store);
        assert_eq!(contents(dir.path()), before);
        let (journal, recovered) = open(dir.path());
        assert_eq!(found, text_of(&journal, &recovered));
    }
}

#[test]
fn a_check_finds_damage_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    journal.close();
    drop(journal);
    let at = |name: &str| dir.path().join("journal").join(name);
    fs::write(at("000002/conf"), "what is this").unwrap();
    fs::write(at("000003/db"), "").unwrap();
    let before = contents(dir.path());
    let store = Offline::open(dir.path(), &KeySource::None).unwrap();
    assert_eq!(store.recovered.damaged, 2, "an empty file, and the gap it leaves");
    let amiss = store.check(dir.path(), &mut |_, _| {}).unwrap();
    assert!(amiss.len() == 1 && amiss[0].starts_with("generation 2: sled cannot open it ("), "{amiss:?}");
    drop(store);
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_folder_without_a_store_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        assert!(matches!(Offline::open(&path, &KeySource::None).unwrap_err(), OpenError::Missing { .. }));
        let said = compact(&path, config(), WallClock(WALL), &mut |_, _| {}).unwrap_err().to_string();
        assert!(said.contains("holds no store"), "{said}");
        assert!(!path.join("LOCK").exists());
    }
}

#[test]
fn compaction_gives_room_back_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    rich(&journal);
    for seq in 20..MESSAGES {
        journal.append(Record::Done(session(1), Seq(seq)), Urgency::Rides);
    }
    journal.close();
    drop(journal);
    let (_, before) = exported(dir.path());
    let rewritten = compact(dir.path(), config(), WallClock::UNKNOWN, &mut |_, _| {}).unwrap();
    assert!(rewritten.generations_after < rewritten.generations_before, "{rewritten:?}");
    assert!(rewritten.bytes_after < rewritten.bytes_before, "{rewritten:?}");
    assert_eq!(without_time(&exported(dir.path()).1), without_time(&before));
}

/// The power goes at every step of it.
#[test]
fn a_cut_in_the_middle_of_compaction_costs_nothing() {
    let mut cuts = 0;
    for operations in 0.. {
        let (disk, time) = (SimDisk::new(), Time::default());
        let (journal, _) = open_sim(&disk, &config(), &time);
        fill(&journal);
        rich(&journal);
        for seq in 100..MESSAGES {
            journal.append(Record::Done(session(1), Seq(seq)), Urgency::Rides);
        }
        journal.close();
        let (journal, recovered) = open_sim(&disk, &config(), &time);
        let truth = text_of(&journal, &recovered);
        let generations = disk.generations();
        disk.fail_after(operations);
        let done = rewrite(&journal, &recovered, &mut |_, _| {});
        disk.cut(operations);
        let (journal, recovered) = open_sim(&disk, &config(), &time);
        assert_eq!(recovered.damaged, 0, "{operations} operations");
        assert!(text_of(&journal, &recovered) == truth, "{operations} operations");
        if done.is_ok() {
            assert!(disk.generations() < generations);
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
}
