//! One thing at a time.

use std::{
    path::Path,
    sync::Arc,
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use super::{Time, WALL, message, open_sim, queued, session, settle, snapshot, subscription, target};
use crate::{
    codec::PacketId,
    message::{Seq, SessionNo},
    store::{
        Aside, Completion, Config, Durability, Gate, Journal, OpenError, Parked, Record, Recovered,
        SnapshotSource, Urgency,
        frame::FRAME_BYTES_MAX,
        medium::{Found, Medium as _, sim::SimDisk, sled::SledMedium},
    },
    time::{Timestamp, WallClock},
};

fn config() -> Config {
    Config { generation_bytes: 64 << 10, ..Config::default() }
}

/// sled writes a leaf again whenever it splits; the journal sees to it that leaves with frames in them do not.
#[test]
fn a_frame_reaches_the_disk_about_once() {
    let dir = tempfile::tempdir().unwrap();
    let aside = Aside::new(dir.path().join("damaged"), WallClock(WALL));
    let medium = SledMedium::open(&dir.path().join("journal"), &aside).unwrap();
    medium.new_generation(1).unwrap();
    let (mut no, frame) = (7, vec![0xA5; FRAME_BYTES_MAX]);
    for _ in 0..60 {
        medium.apply((no..no + 30).map(|no| (no, frame.clone())).collect()).unwrap();
        medium.sync().unwrap();
        no += 30;
    }
    let bytes = (no - 7) * FRAME_BYTES_MAX as u64;
    let grown = std::fs::metadata(dir.path().join("journal/000001/db")).unwrap().len();
    // The file grows by whole segments of 512 KiB.
    assert!(
        grown < bytes * 115 / 100 + (512 << 10),
        "{bytes} bytes of frames made the file {grown} bytes long"
    );
    drop(medium);
    let medium = SledMedium::open(&dir.path().join("journal"), &aside).unwrap();
    let mut seen = Vec::new();
    medium.scan(1, &mut |no, bytes| seen.push((no, bytes.len()))).unwrap();
    assert_eq!(seen, (7..no).map(|no| (no, FRAME_BYTES_MAX)).collect::<Vec<_>>());
    let found = medium.read(1, no, &mut Vec::new()).unwrap();
    assert_eq!(found, Found::Nothing, "its key is there, the frame is not");
}

#[test]
fn what_was_committed_is_there_after_a_restart_on_sled() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::default();
    let (journal, recovered) = Journal::open(dir.path(), config(), WallClock(WALL)).unwrap();
    assert_eq!(recovered.now, Timestamp(0));
    assert!(recovered.sessions.is_empty());
    journal.start(time.clock()).unwrap();
    let gate = journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    journal.append(Record::Subscribed(session(1), subscription("a/#")), Urgency::Now);
    let big = vec![7; 100_000];
    let stored = journal.message(Arc::new(message("a/b", &big)));
    journal.complete(&stored, vec![target(1, 5)], Completion::default());
    let kept = journal.message(Arc::new(message("a/c", b"kept")));
    journal.complete(&kept, Vec::new(), Completion { retained: Some(3), ..Completion::default() });
    journal.close();
    assert!(journal.is_open(&gate));
    assert!(journal.is_open(&Gate::Message(stored)));
    drop(journal);

    let (journal, recovered) = Journal::open(dir.path(), config(), WallClock(WALL + 500)).unwrap();
    journal.start(time.clock()).unwrap();
    assert_eq!(recovered.now, Timestamp(500));
    assert_eq!((recovered.next_session, recovered.next_retained_version), (2, 4));
    let found = &recovered.sessions[0];
    assert_eq!(found.snapshot.subscriptions, [subscription("a/#")]);
    assert_eq!(recovered.retained[0].message.payload, "kept");
    let queued = queued(&journal, found).remove(0);
    assert_eq!((queued.seq, queued.target), (Seq(5), 0));
    assert!(queued.message.body().is_none());
    assert_eq!(queued.message.size_bytes(), 3 + big.len());
    let (waker, woken) = thread_waker();
    journal.load(vec![Arc::clone(&queued.message)], waker);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(queued.message.body().unwrap().payload, big);
    queued.message.unload();
    assert!(queued.message.body().is_none());
    journal.close();
}

#[test]
fn a_second_process_is_told_that_the_folder_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), config(), WallClock(WALL)).unwrap();
    let error = Journal::open(dir.path(), config(), WallClock(WALL)).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    journal.close();
    drop(journal);
    assert!(Journal::open(dir.path(), config(), WallClock(WALL)).is_ok());
}

#[test]
fn gates_open_when_the_commit_is_durable_and_wake() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config(), &time);
    let gate = journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    let (waker, woken) = thread_waker();
    assert!(!journal.poll_gate(&gate, &waker));
    assert!(!journal.poll_gate(&gate, &waker));
    settle(&journal);
    assert!(journal.is_open(&gate));
    assert_eq!(woken.try_iter().count(), 1);

    let rides = journal.append(Record::Done(session(1), Seq(1)), Urgency::Rides);
    settle(&journal);
    assert!(!journal.is_open(&rides));
    time.advance(1_000);
    settle(&journal);
    assert!(journal.is_open(&rides));
}

#[test]
fn a_message_confirmed_by_all_in_time_is_never_written() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config(), &time);
    let elide = Completion { publisher: Some(session(9)), may_elide: true, ..Completion::default() };
    let stored = journal.message(Arc::new(message("a", b"x")));
    assert!(matches!(journal.confirm(&stored, 1, session(2), Seq(1)), Gate::Open));
    journal.complete(&stored, vec![target(1, 1), target(2, 1)], elide.clone());
    let gate = Gate::Message(Arc::clone(&stored));
    let (waker, woken) = thread_waker();
    assert!(!journal.poll_gate(&gate, &waker));
    settle(&journal);
    assert!(!journal.is_open(&gate));
    assert!(journal.is_open(&journal.confirm(&stored, 0, session(1), Seq(1))));
    assert!(journal.is_open(&gate));
    assert_eq!(woken.try_iter().count(), 1);
    time.advance(10_000);
    settle(&journal);
    let stats = journal.stats();
    assert_eq!((stats.messages_written, stats.messages_elided, stats.held_bytes), (0, 1, 0));

    // Not confirmed in time: written, and the gate opens with the commit.
    let late = journal.message(Arc::new(message("a", b"y")));
    journal.complete(&late, vec![target(1, 2)], elide.clone());
    time.advance(100);
    settle(&journal);
    assert!(journal.is_open(&Gate::Message(Arc::clone(&late))));
    assert_eq!(journal.stats().messages_written, 1);

    // A later message of the publisher is written: so are the held ones before it.
    let first = journal.message(Arc::new(message("a", b"1")));
    journal.complete(&first, vec![target(1, 3)], elide.clone());
    let second = journal.message(Arc::new(message("a", b"2")));
    journal.complete(&second, vec![target(1, 4)], Completion { may_elide: false, ..elide.clone() });
    settle(&journal);
    assert!(journal.is_open(&Gate::Message(first)));

    // The target goes offline: written at once.
    let third = journal.message(Arc::new(message("a", b"3")));
    journal.complete(&third, vec![target(1, 5)], elide);
    settle(&journal);
    assert!(!journal.is_open(&Gate::Message(Arc::clone(&third))));
    journal.write_now(&third);
    settle(&journal);
    assert!(journal.is_open(&Gate::Message(third)));
}

#[test]
fn a_failed_write_poisons_and_no_gate_opens_any_more() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config(), &time);
    let held = journal.message(Arc::new(message("a", b"x")));
    let elide = Completion { may_elide: true, ..Completion::default() };
    journal.complete(&held, vec![target(1, 1)], elide);
    disk.fail_after(1);
    let gate = journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    let (waker, woken) = thread_waker();
    assert!(!journal.poll_gate(&gate, &waker));
    settle(&journal);
    assert!(journal.poisoned());
    assert_eq!(woken.try_iter().count(), 1);
    assert!(!journal.is_open(&gate));
    journal.confirm(&held, 0, session(1), Seq(1));
    assert!(!journal.is_open(&Gate::Message(held)));
    let after = journal.append(Record::Gone(session(1)), Urgency::Now);
    settle(&journal);
    assert!(!journal.is_open(&after));
    journal.close();
    assert!(!journal.is_open(&after));
}

#[test]
fn relaxed_gates_open_at_once_and_the_commit_follows() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let config = Config { durability: Durability::Relaxed, ..config() };
    let (journal, _) = open_sim(&disk, &config, &time);
    assert!(matches!(journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now), Gate::Open));
    let stored = journal.message(Arc::new(message("a", b"x")));
    journal.complete(&stored, vec![target(1, 1)], Completion::default());
    assert!(journal.is_open(&Gate::Message(stored)));
    settle(&journal);
    assert_eq!(journal.stats().messages_written, 0);
    time.advance(1_000);
    settle(&journal);
    assert_eq!(journal.stats().messages_written, 1);
}

#[test]
fn an_inbound_qos2_id_is_durable_with_its_message_even_without_a_target() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config(), &time);
    journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    let stored = journal.message(Arc::new(message("a", b"x")));
    let inbound =
        Completion { publisher: Some(session(1)), inbound_qos2: PacketId::new(77), ..Completion::default() };
    journal.complete(&stored, Vec::new(), inbound);
    let gate = Gate::Message(stored);
    assert!(!journal.is_open(&gate));
    settle(&journal);
    assert!(journal.is_open(&gate));
    assert_eq!(journal.stats().messages_written, 0);
    disk.cut(1);
    let (_, recovered) = open_sim(&disk, &config(), &time);
    assert_eq!(recovered.sessions[0].snapshot.inbound_qos2, [PacketId::new(77).unwrap()]);
}

#[test]
fn readers_pause_while_too_much_waits_for_the_disk() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let config = Config { backlog_bytes_max: 1_000, ..config() };
    let (journal, _) = open_sim(&disk, &config, &time);
    let (waker, woken) = thread_waker();
    assert!(journal.poll_backlog(&waker));
    let stored = journal.message(Arc::new(message("a", &[0; 1_000])));
    journal.complete(&stored, vec![target(1, 1)], Completion::default());
    assert!(journal.backlogged());
    assert!(!journal.poll_backlog(&waker));
    settle(&journal);
    assert_eq!(woken.try_iter().count(), 1);
    assert!(journal.poll_backlog(&waker));
}

#[test]
fn a_body_that_cannot_be_read_is_lost_and_nobody_hangs() {
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config(), &time);
    journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    settle(&journal);
    let stored = journal.message(Arc::new(message("a", b"x")));
    journal.complete(&stored, vec![target(1, 1)], Completion::default());
    settle(&journal);
    for seed in 0..200 {
        disk.flip_bit(seed * 31);
    }
    let (waker, woken) = thread_waker();
    journal.load(vec![Arc::clone(&stored)], waker);
    assert!(journal.read_step());
    assert_eq!(woken.try_iter().count(), 1);
    assert!(stored.is_lost() && stored.body().is_none());
    assert_eq!(journal.stats().messages_lost, 1);
}

/// Answers for a session that has nothing but its queue.
struct OneSession(Journal);

impl SnapshotSource for OneSession {
    fn snapshot(&self, no: SessionNo) {
        self.0.append(Record::Snapshot(Box::new(snapshot(no.0.get()))), Urgency::Rides);
    }
}

/// From the commit to the confirmation, over compaction and a restart: a slot for each message somebody needs, and no
/// other; and all of them asleep while nobody looks.
#[test]
fn every_message_has_its_slot_and_gives_it_back() {
    const MESSAGES: u64 = 3_000;
    let (disk, time) = (SimDisk::new(), Time::default());
    let config = config();
    let (journal, _) = open_sim(&disk, &config, &time);
    let source: Arc<dyn SnapshotSource> = Arc::new(OneSession(journal.clone()));
    journal.set_snapshot_source(Arc::downgrade(&source));
    source.snapshot(session(1));
    let publish = |seq| {
        let stored = journal.message(Arc::new(message("a", &[b'x'; 90])));
        journal.complete(&stored, vec![target(1, seq)], Completion::default());
        stored
    };
    let slots = |journal: &Journal| journal.shared().state().ledger.slab.count();
    let mut parked = Vec::new();
    for seq in 1..=MESSAGES {
        let stored = publish(seq);
        settle(&journal);
        parked.extend(journal.park(vec![(stored, 0)]));
    }
    settle(&journal);
    assert_eq!(slots(&journal), (usize::try_from(MESSAGES).unwrap(), 0));
    // Most are confirmed: the others are moved, by compaction, and keep their slots.
    let (few, most): (Vec<_>, Vec<_>) = (1..).zip(parked).partition(|(seq, _)| seq % 10 == 0);
    let confirm = |journal: &Journal, all: Vec<(u64, Parked)>| {
        for (seq, parked) in all {
            let (stored, target) = journal.unpark(&[parked]).remove(0);
            journal.confirm(&stored, target, session(1), Seq(seq));
        }
        for _ in 0..50 {
            time.advance(1_000);
            settle(journal);
        }
    };
    confirm(&journal, most);
    assert!(disk.generations() < 5, "{} generations", disk.generations());
    let last = publish(MESSAGES + 1);
    settle(&journal);
    journal.park(vec![(last, 0)]);
    let left = few.len() + 1;
    assert_eq!(slots(&journal), (left, 0));
    drop(journal);

    let (journal, recovered) = open_sim(&disk, &config, &time);
    assert_eq!(slots(&journal), (left, 0));
    let found = recovered.sessions[0].queue.iter().map(|shelved| (shelved.seq.0, shelved.parked));
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), left);
    confirm(&journal, found.clone());
    assert_eq!(slots(&journal), (0, 0));
    // A claim that has outlived its message is on nothing.
    let (stored, _) = journal.unpark(&[found[0].1]).remove(0);
    assert!(stored.is_lost());
    assert_eq!(journal.stats().messages_lost, 1);
}

#[test]
fn many_threads_wait_for_their_commits_and_all_is_there_afterwards() {
    const THREADS: u64 = 4;
    const EACH: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), config(), WallClock(WALL)).unwrap();
    #[expect(clippy::disallowed_methods, reason = "threads on a real disk take real time")]
    let started = Instant::now();
    let clock = move || (Timestamp(0).after(started.elapsed()), WallClock(WALL));
    journal.start(Arc::new(clock)).unwrap();
    let publish = |no: u64| {
        journal.append(Record::Snapshot(Box::new(snapshot(no))), Urgency::Now);
        for seq in 0..EACH {
            let stored = journal.message(Arc::new(message("a", b"x")));
            // Half of them are held first, and confirmed by nobody.
            let completion = Completion { may_elide: seq % 2 == 0, ..Completion::default() };
            journal.complete(&stored, vec![target(no, seq)], completion);
            let (waker, woken) = thread_waker();
            while !journal.poll_gate(&Gate::Message(Arc::clone(&stored)), &waker) {
                woken.recv_timeout(Duration::from_secs(20)).unwrap();
            }
        }
    };
    thread::scope(|scope| (1..=THREADS).for_each(|no| drop(scope.spawn(move || publish(no)))));
    let stats = journal.stats();
    assert_eq!((stats.messages_written, stats.messages_elided), (THREADS * EACH, 0));
    // No close: a crash.
    drop(journal);
    let (journal, recovered) = reopen_when_free(dir.path());
    let queued: Vec<_> = recovered.sessions.iter().map(|s| s.queue.len() as u64).collect();
    assert_eq!(queued, [EACH; 4]);
    journal.close();
}

/// The threads of a journal that was dropped end on their own; the folder is free then.
fn reopen_when_free(dir: &Path) -> (Journal, Recovered) {
    loop {
        match Journal::open(dir, config(), WallClock(WALL)) {
            Err(OpenError::Locked { .. }) => thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// A waker that sends on a channel, so a test can wait for it and count.
fn thread_waker() -> (Waker, std::sync::mpsc::Receiver<()>) {
    struct Send(std::sync::mpsc::SyncSender<()>);
    impl std::task::Wake for Send {
        fn wake(self: Arc<Self>) {
            let _ = self.0.try_send(());
        }
    }
    // Room for more calls than any test makes.
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    (Arc::new(Send(sender)).into(), receiver)
}
