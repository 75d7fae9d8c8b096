//! How much disk the journal takes for what is wanted of it.

use std::sync::Arc;

use super::{Time, WALL, message, session, settle, snapshot, target, truth::Chance};
use crate::{
    message::{Seq, SessionNo},
    store::{Completion, Config, Journal, Parked, Record, SnapshotSource, Urgency},
    time::WallClock,
};

const GENERATION_BYTES: u64 = 2 << 20;
/// What compaction leaves alone, two generations; the one that is written to; and what sled has of its files ahead of what
/// it writes, up to two segments of each.
const FLOOR_BYTES: u64 = 3 * GENERATION_BYTES + (8 << 20);
const ROUNDS: usize = 8;
/// In one commit.
const AT_ONCE: u64 = 200;

/// Answers for a session that has nothing but its queue.
pub(super) struct OneSession(pub(super) Journal);

impl SnapshotSource for OneSession {
    fn snapshot(&self, no: SessionNo) {
        self.0.append(Record::Snapshot(Box::new(snapshot(no.0.get()))), Urgency::Rides);
    }
}

/// A queue on the real sled that grows and shrinks.
struct Queue {
    journal: Journal,
    time: Time,
    waiting: Vec<(u64, Parked)>,
    next: u64,
}

impl Queue {
    fn fill(&mut self, messages: u64, chance: &mut Chance) {
        for _ in 0..messages.div_ceil(AT_ONCE) {
            let mut given = Vec::new();
            for seq in self.next..self.next + AT_ONCE {
                let payload = vec![b'x'; usize::try_from(100 + chance.below(6_000)).unwrap()];
                let stored = self.journal.message(Arc::new(message("a", &payload)));
                self.journal.complete(&stored, vec![target(1, seq)], Completion::default());
                given.push((seq, stored));
            }
            self.next += AT_ONCE;
            settle(&self.journal);
            for (seq, stored) in given {
                self.waiting.push((seq, self.journal.park(vec![(stored, 0)])[0]));
            }
        }
    }

    /// Confirms those that are picked.
    fn drain(&mut self, mut is_picked: impl FnMut(u64) -> bool) {
        let (gone, left) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(seq, _)| is_picked(*seq));
        self.waiting = left;
        let gone: Vec<(u64, Parked)> = gone;
        for some in gone.chunks(1_000) {
            for (seq, parked) in some {
                let (stored, target) = self.journal.unpark(&[*parked]).remove(0);
                self.journal.confirm(&stored, target, session(1), Seq(*seq));
            }
            self.time.advance(1_000);
            settle(&self.journal);
        }
    }

    /// Lets compaction come to its end: it goes on between commits.
    fn come_to_rest(&self) {
        let mut before = u64::MAX;
        loop {
            for _ in 0..20 {
                self.time.advance(1_000);
                settle(&self.journal);
            }
            let now = self.journal.stats().disk_bytes;
            if now >= before {
                return;
            }
            before = now;
        }
    }
}

/// "Compaction keeps the disk below 2.5 times the live bytes", however queues grow and shrink.
#[test]
fn the_disk_holds_no_more_than_two_and_a_half_times_what_is_wanted() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let time = Time::default();
    let config = Config { generation_bytes: GENERATION_BYTES, ..Config::default() };
    let (journal, _) = Journal::open(dir.path(), config, WallClock(WALL)).unwrap();
    journal.set_clock(time.clock());
    let source: Arc<dyn SnapshotSource> = Arc::new(OneSession(journal.clone()));
    journal.set_snapshot_source(Arc::downgrade(&source));
    source.snapshot(session(1));
    let mut queue = Queue { journal, time, waiting: Vec::new(), next: 1 };
    let mut chance = Chance(4);
    let (mut worst, mut most_live) = (0, 0);
    for round in 0..ROUNDS {
        queue.fill(4_000 + chance.below(6_000), &mut chance);
        let (newest, some) = (queue.next, 1 + chance.below(4));
        match round % 5 {
            0 => queue.drain(|_| chance.one_in(some + 1)),
            1 => queue.drain(|seq| seq < newest / (some + 1)),
            2 => queue.drain(|seq| seq % 4 != 0),
            3 => queue.drain(|seq| seq > newest / 2),
            _ => {}
        }
        queue.come_to_rest();
        let stats = queue.journal.stats();
        let (live, disk) = (stats.live_bytes, stats.disk_bytes);
        assert!(disk <= live * 5 / 2 + FLOOR_BYTES, "round {round}: {disk} bytes for {live} live ones");
        worst = worst.max(disk.saturating_sub(FLOOR_BYTES) * 100 / live.max(1));
        most_live = most_live.max(live);
    }
    queue.drain(|_| true);
    queue.come_to_rest();
    let disk = queue.journal.stats().disk_bytes;
    assert!(disk <= FLOOR_BYTES, "{disk} bytes for an empty queue");
    assert!(most_live > 2 * FLOOR_BYTES, "{most_live} bytes are too few to judge by");
    println!("at most {worst} % beyond the floor, {most_live} bytes live at most, {disk} left");
}
