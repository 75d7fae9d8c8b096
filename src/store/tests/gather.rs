//! `commit_interval_max`: fewer commits for later acknowledgements, when little comes.

use std::{sync::Arc, time::Duration};

use super::{Time, message, open_sim, session, settle, snapshot, target};
use crate::{
    store::{Completion, Config, Durability, Gate, Journal, Record, Urgency, medium::sim::SimDisk},
    time::Timestamp,
};

struct Traffic {
    journal: Journal,
    disk: SimDisk,
    time: Time,
    now_ms: u64,
    seq: u64,
}

/// What ten seconds of traffic cost.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    messages: u64,
    commits: u64,
    /// From publishing to the gate, at most.
    wait_max_ms: u64,
}

impl Traffic {
    fn new(commit_interval_max: Duration) -> Self {
        let config = Config { commit_interval_max, ..Config::default() };
        let (disk, time) = (SimDisk::new(), Time::default());
        let (journal, recovered) = open_sim(&disk, &config, &time);
        assert_eq!(recovered.now, Timestamp(0));
        journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
        journal.hurry();
        settle(&journal);
        Self { journal, disk, time, now_ms: 0, seq: 0 }
    }

    /// A message for a session that sleeps.
    fn publish(&mut self) -> Gate {
        self.seq += 1;
        let stored = self.journal.message(Arc::new(message("sensors/1", &[0x5A; 100])));
        self.journal.complete(&stored, vec![target(1, self.seq)], Completion::default());
        Gate::Message(stored)
    }

    fn pass_ms(&mut self) {
        self.now_ms += 1;
        self.time.advance(1);
        settle(&self.journal);
    }

    fn cost(mut self, every_ms: u64) -> Cost {
        let before = self.journal.stats();
        let (mut waiting, mut wait_max_ms) = (Vec::new(), 0);
        while self.now_ms < 10_000 || !waiting.is_empty() {
            if self.now_ms < 10_000 && self.now_ms.is_multiple_of(every_ms) {
                waiting.push((self.now_ms, self.publish()));
                settle(&self.journal);
            }
            waiting.retain(|(since, gate)| {
                let open = self.journal.is_open(gate);
                if open {
                    wait_max_ms = wait_max_ms.max(self.now_ms - since);
                }
                !open
            });
            self.pass_ms();
        }
        let after = self.journal.stats();
        let messages = after.messages_written - before.messages_written;
        Cost { messages, commits: after.commits - before.commits, wait_max_ms }
    }
}

fn cost(per_second: u64, interval_ms: u64) -> Cost {
    Traffic::new(Duration::from_millis(interval_ms)).cost(1_000 / per_second)
}

#[test]
fn gathering_trades_latency_for_commits() {
    let cost = |per_second, interval_ms| {
        let Cost { messages, commits, wait_max_ms } = cost(per_second, interval_ms);
        assert_eq!(messages, per_second * 10);
        (commits, wait_max_ms)
    };
    // A message each 100 ms: none comes before the interval is over.
    assert_eq!(cost(10, 0), (100, 0));
    assert_eq!(cost(10, 20), (100, 20));
    assert_eq!(cost(10, 100), (100, 100));
    // A message each 10 ms.
    assert_eq!(cost(100, 0), (1_000, 0));
    assert_eq!(cost(100, 20), (500, 20));
    assert_eq!(cost(100, 100), (100, 100));
}

#[test]
fn a_batch_that_has_grown_waits_no_longer() {
    let mut traffic = Traffic::new(Duration::from_secs(1));
    let gates: Vec<Gate> = (0..63).map(|_| traffic.publish()).collect();
    settle(&traffic.journal);
    assert!(!gates.iter().any(|gate| traffic.journal.is_open(gate)));
    traffic.publish();
    settle(&traffic.journal);
    assert!(gates.iter().all(|gate| traffic.journal.is_open(gate)));

    let large = traffic.journal.message(Arc::new(message("firmware", &vec![7; 100_000])));
    traffic.journal.complete(&large, vec![target(1, 1_000)], Completion::default());
    settle(&traffic.journal);
    assert!(traffic.journal.is_open(&Gate::Message(large)));
}

#[test]
fn who_cannot_go_on_without_it_does_not_wait() {
    let mut traffic = Traffic::new(Duration::from_secs(1));
    let gate = traffic.publish();
    settle(&traffic.journal);
    assert!(!traffic.journal.is_open(&gate));
    traffic.journal.hurry();
    settle(&traffic.journal);
    assert!(traffic.journal.is_open(&gate));
    let last = traffic.publish();
    traffic.journal.close();
    assert!(traffic.journal.is_open(&last), "nothing is left behind at the end");
}

/// The commit thread sleeps until the interval is over, and no longer.
#[test]
fn the_commit_thread_wakes_for_what_was_gathered() {
    let config = Config { commit_interval_max: Duration::from_millis(20), ..Config::default() };
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config, &time);
    journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    assert_eq!(journal.step(), crate::store::Step::Idle(Some(Timestamp(20))));
    time.advance(20);
    assert_eq!(journal.step(), crate::store::Step::Worked);
    assert_eq!(journal.step(), crate::store::Step::Idle(None));
}

/// What waits for company is lost in a power cut like anything that is not acknowledged, and what was acknowledged is not.
#[test]
fn a_power_cut_while_gathering_takes_only_what_was_not_acknowledged() {
    for seed in 0..20 {
        let mut traffic = Traffic::new(Duration::from_millis(50));
        let kept: Vec<Gate> = (0..5).map(|_| traffic.publish()).collect();
        (0..50).for_each(|_| traffic.pass_ms());
        assert!(kept.iter().all(|gate| traffic.journal.is_open(gate)));
        let waiting = traffic.publish();
        traffic.pass_ms();
        assert!(!traffic.journal.is_open(&waiting));
        traffic.disk.cut(seed);
        let (_, recovered) = open_sim(&traffic.disk, &Config::default(), &Time::default());
        assert_eq!(recovered.sessions[0].snapshot.record.session, session(1));
        let queue: Vec<u64> = recovered.sessions[0].queue.iter().map(|queued| queued.seq.0).collect();
        assert_eq!(queue, [1, 2, 3, 4, 5]);
    }
}

#[test]
fn what_a_commit_cost_is_counted() {
    let mut traffic = Traffic::new(Duration::ZERO);
    let before = traffic.journal.stats();
    for _ in 0..3 {
        traffic.publish();
    }
    settle(&traffic.journal);
    traffic.publish();
    settle(&traffic.journal);
    let after = traffic.journal.stats();
    assert_eq!(after.commits - before.commits, 2);
    // Ranges end at 0, 1, 2, 5, ...: one commit of one message, one of three.
    let by_range: Vec<u64> =
        after.commit_messages.counts.iter().zip(&before.commit_messages.counts).map(|(a, b)| a - b).collect();
    assert_eq!(by_range, [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(after.commit_messages.sum, 4);
    assert_eq!(after.commit_bytes.sum, after.bytes_frames);
    assert_eq!(after.bytes_kept, 4 * (9 + 100), "topic and payload");
    assert_eq!(after.sync_micros.counts.iter().sum::<u64>(), after.syncs);
    assert_eq!(after.commit_micros.counts.iter().sum::<u64>(), after.commits);
    assert!(!after.is_poisoned);

    traffic.disk.fail_after(0);
    let lost = traffic.publish();
    settle(&traffic.journal);
    assert!(!traffic.journal.is_open(&lost));
    assert!(traffic.journal.stats().is_poisoned);
}

/// Relaxed acknowledges at once and commits on its own interval: there is nothing to gather for.
#[test]
fn relaxed_does_not_gather() {
    let config = Config {
        durability: Durability::Relaxed,
        commit_interval_max: Duration::from_millis(20),
        ..Config::default()
    };
    let (disk, time) = (SimDisk::new(), Time::default());
    let (journal, _) = open_sim(&disk, &config, &time);
    let gate = journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    assert!(journal.is_open(&gate));
    assert_eq!(journal.step(), crate::store::Step::Idle(Some(Timestamp(1_000))));
}
