//! Disk, power and time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{BIRTH_MS, Trial, Wall, YEAR_MS};
use crate::{
    broker::{Broker, Config},
    store::{self, Step, medium::sim::SimDisk},
    time::{Clock, Timestamp, WallClock},
};

impl Trial {
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.line.load(Ordering::Relaxed))
    }

    pub(super) fn settle(&mut self) {
        self.note(|| "the disk settles".to_owned());
        while self.broker.journal.step() == Step::Worked || self.broker.journal.read_step() {}
        if !self.failing && self.broker.journal.poisoned() {
            self.wrong("a write has failed for want of room");
        }
        self.model.settled();
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.truth += ms;
        self.line.fetch_add(ms, Ordering::Relaxed);
        self.show_time();
        self.broker.handle_timeout(self.now());
        self.note(|| format!("{ms} ms pass"));
        let verdict = self.model.passed(self.now().0, self.truth);
        self.judge(verdict);
    }

    pub(super) fn show_time(&self) {
        let right = BIRTH_MS + self.truth;
        let shown = match self.wall {
            Wall::Right => right,
            Wall::Epoch => self.truth,
            Wall::Future => right + 73 * YEAR_MS,
        };
        self.wall_ms.store(shown, Ordering::Relaxed);
    }

    /// The wall clock is set while the broker runs.
    pub(super) fn jump(&mut self) {
        self.wall = [Wall::Right, Wall::Right, Wall::Epoch, Wall::Future][self.chance.below(4)];
        self.show_time();
        self.note(|| "the clock jumps".to_owned());
    }

    pub(super) fn fail_soon(&mut self) {
        if !self.failing {
            let operations = u64::try_from(self.chance.below(6)).unwrap();
            self.note(|| format!("the disk fails after {operations} operations"));
            self.disk.fail_after(operations);
            self.failing = true;
            self.model.disk_fails();
        }
    }

    /// The power goes, or the process; some time later the broker starts anew, perhaps only at the third try.
    pub(super) fn crash(&mut self) {
        self.tally.crashes += 1;
        for device in &mut self.devices {
            drop(device.wire.take());
            device.owed.clear();
        }
        let coin = self.chance.next();
        if self.chance.one_in(4) {
            self.disk.kill();
        } else {
            self.disk.cut(coin);
        }
        self.truth += [0, 100, 15_000, 3_600_000][self.chance.below(4)];
        self.wall = [self.wall, Wall::Right, Wall::Epoch, Wall::Future][self.chance.below(4)];
        self.show_time();
        for _ in 0..2 {
            if self.chance.one_in(3) {
                let operations = u64::try_from(self.chance.below(4)).unwrap();
                self.disk.fail_after(operations);
                let tried = open(&self.disk, &self.line, &self.wall_ms, &self.config, &self.store);
                drop(tried);
                let coin = self.chance.next();
                self.disk.cut(coin);
            }
        }
        self.broker = open(&self.disk, &self.line, &self.wall_ms, &self.config, &self.store)
            .unwrap_or_else(|| self.wrong("the broker does not start"));
        self.failing = false;
        let (now, wall) = (self.now(), self.wall);
        self.note(|| format!("a crash; the time is {now:?}, the clock shows {wall:?}"));
        self.broker.handle_timeout(now);
        let verdict = self.model.crashed(now.0, self.truth);
        self.judge(verdict);
    }
}

pub(super) fn open(
    disk: &SimDisk,
    line: &Arc<AtomicU64>,
    wall_ms: &Arc<AtomicU64>,
    config: &Config,
    store: &store::Config,
) -> Option<Arc<Broker>> {
    let wall = WallClock::believed(wall_ms.load(Ordering::Relaxed));
    let (broker, from) =
        Broker::open_on(config.clone(), Box::new(disk.medium()), store.clone(), wall).ok()?;
    line.store(from.0, Ordering::Relaxed);
    let (line, wall_ms) = (Arc::clone(line), Arc::clone(wall_ms));
    let clock: Arc<dyn Clock> = Arc::new(move || {
        (Timestamp(line.load(Ordering::Relaxed)), WallClock::believed(wall_ms.load(Ordering::Relaxed)))
    });
    broker.set_clock(clock);
    Some(broker)
}
