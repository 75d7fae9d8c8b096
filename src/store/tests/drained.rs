//! What compaction does while a queue is drained.

use std::sync::Arc;

use super::{Time, growth::OneSession, message, open_sim, session, settle, target, truth::Chance};
use crate::{
    message::Seq,
    store::{Completion, Config, Journal, Parked, SnapshotSource, medium::sim::SimDisk},
};

const GENERATION_BYTES: u64 = 64 << 10;
const MESSAGES: u64 = 2_000;
/// A drain ends with so many left.
const LEFT: usize = 500;
/// How often it is looked.
const STEP_MS: u64 = 300;

/// Messages of 1 KB for one session, over some thirty generations.
struct Scene {
    journal: Journal,
    time: Time,
    _source: Arc<dyn SnapshotSource>,
    waiting: Vec<(u64, Parked)>,
    chance: Chance,
}

impl Scene {
    fn filled() -> Self {
        let time = Time::default();
        let config = Config { generation_bytes: GENERATION_BYTES, ..Config::default() };
        let (journal, _) = open_sim(&SimDisk::new(), &config, &time);
        let source: Arc<dyn SnapshotSource> = Arc::new(OneSession(journal.clone()));
        journal.set_snapshot_source(Arc::downgrade(&source));
        source.snapshot(session(1));
        let mut waiting = Vec::new();
        for seq in 1..=MESSAGES {
            let stored = journal.message(Arc::new(message("a", &[b'x'; 1_000])));
            journal.complete(&stored, vec![target(1, seq)], Completion::default());
            if seq % 20 == 0 {
                settle(&journal);
            }
            waiting.push((seq, stored));
        }
        settle(&journal);
        let park = |(seq, stored)| (seq, journal.park(vec![(stored, 0)])[0]);
        let waiting = waiting.into_iter().map(park).collect();
        Self { journal, time, _source: source, waiting, chance: Chance(3) }
    }

    /// Confirms so many, from all over the queue, in each step, until `LEFT` are left. Returns how often the journal took
    /// more than two and a half times what was wanted and some generations, and how many messages were copied.
    fn drain(&mut self, at_once: usize) -> (u32, u64) {
        let (written, mut confirmed, mut too_much) = (self.journal.stats().records, 0_u64, 0);
        while self.waiting.len() > LEFT {
            for _ in 0..at_once {
                let at = self.chance.below(self.waiting.len() as u64);
                let (seq, parked) = self.waiting.swap_remove(usize::try_from(at).unwrap());
                let (stored, target) = self.journal.unpark(&[parked]).remove(0);
                self.journal.confirm(&stored, target, session(1), Seq(seq));
                confirmed += 1;
            }
            self.step();
            let stats = self.journal.stats();
            too_much += u32::from(stats.frame_bytes > stats.live_bytes * 5 / 2 + 4 * GENERATION_BYTES);
        }
        // A few more are snapshots and marks.
        (too_much, (self.journal.stats().records - written).saturating_sub(confirmed + 100))
    }

    fn step(&self) {
        self.time.advance(STEP_MS);
        settle(&self.journal);
    }
}

#[test]
fn a_drain_that_is_soon_through_is_not_copied_before() {
    let mut scene = Scene::filled();
    let (_, copied) = scene.drain(200);
    assert_eq!(copied, 0, "3 s");
    let before = scene.journal.stats();
    assert!(before.frame_bytes > 3 * before.live_bytes, "{before:?}");
    // It stops before its end, and once that is clear, what is live is copied without a pause.
    (0..8).for_each(|_| scene.step());
    let soon = scene.journal.stats();
    assert!(soon.frame_bytes <= soon.live_bytes * 5 / 2 + GENERATION_BYTES, "{soon:?}");
    (0..40).for_each(|_| scene.step());
    let after = scene.journal.stats();
    assert!(after.frame_bytes <= 2 * after.live_bytes + 2 * GENERATION_BYTES, "{after:?}");
    assert_eq!(after.messages_lost, 0);
}

#[test]
fn a_drain_that_takes_longer_gives_room_back_meanwhile() {
    let mut scene = Scene::filled();
    let (too_much, copied) = scene.drain(10);
    assert_eq!(too_much, 0, "60 s");
    assert!(copied > MESSAGES / 8, "{copied}");
}
