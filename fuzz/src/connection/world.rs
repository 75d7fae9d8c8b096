//! A broker on a simulated disk, in its own time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dormouse::{
    broker::{Broker, Config},
    store::{self, Compression, KeySource, OpenError, StoreKey, medium::sim::SimDisk},
    time::{Clock, Timestamp, WallClock},
};

/// Pieces of work a disk may find at one time: far more than there are messages.
const WORK_MAX: usize = 10_000;

pub struct World {
    pub disk: SimDisk,
    pub config: Config,
    pub broker: Arc<Broker>,
    /// Whether the disk fails, or is about to.
    pub is_failing: bool,
    key: KeySource,
    ms: Arc<AtomicU64>,
    starts: u32,
}

impl World {
    /// `is_sealed`: the store is.
    pub fn new(config: Config, is_sealed: bool) -> Self {
        let key = || KeySource::Given(StoreKey::parse(&"5e".repeat(32)).unwrap());
        let key = if is_sealed { key() } else { KeySource::None };
        let (disk, ms) = (SimDisk::new(), Arc::default());
        let broker = open(&disk, &ms, &config, &key, 0).unwrap();
        Self { disk, config, broker, is_failing: false, key, ms, starts: 1 }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.ms.load(Ordering::Relaxed))
    }

    pub fn pass(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
        let next = self.broker.handle_timeout(self.now());
        assert!(next > self.now(), "due at once, again and again");
    }

    /// One piece of the disk's work.
    pub fn step(&self) {
        self.broker.step();
    }

    /// All of it.
    pub fn settle(&self) {
        assert!((0..WORK_MAX).any(|_| !self.broker.step()), "the disk finds no end");
    }

    /// Lets the disk fail after so many more operations, until the next cut.
    pub fn fail_after(&mut self, operations: u64) {
        self.disk.fail_after(operations);
        self.is_failing = true;
    }

    /// Takes the power, or only the process, away, and starts anew from what the disk kept.
    pub fn cut(&mut self, seed: u64, kill: bool) {
        if kill {
            self.disk.kill();
        } else {
            self.disk.cut(seed);
        }
        self.is_failing = false;
        self.start().unwrap();
    }

    /// Starts anew on another disk.
    pub fn move_to(&mut self, disk: SimDisk) -> Result<(), OpenError> {
        self.disk = disk;
        self.is_failing = false;
        self.start()
    }

    fn start(&mut self) -> Result<(), OpenError> {
        self.broker = open(&self.disk, &self.ms, &self.config, &self.key, self.starts)?;
        self.starts += 1;
        Ok(())
    }
}

fn open(
    disk: &SimDisk,
    ms: &Arc<AtomicU64>,
    config: &Config,
    key: &KeySource,
    starts: u32,
) -> Result<Arc<Broker>, OpenError> {
    // Every other start compresses, and reads what the one before did not.
    let compression = if starts % 2 == 1 { Compression::Lz4 } else { Compression::None };
    // Small generations, so that the oldest goes now and then.
    let key = key.clone();
    let store = store::Config { generation_bytes: 4_000, compression, key, ..store::Config::default() };
    let medium = Box::new(disk.medium());
    let (broker, from) = Broker::open_on(config.clone(), medium, store, WallClock::UNKNOWN)?;
    ms.store(from.0, Ordering::Relaxed);
    let ms = Arc::clone(ms);
    let clock: Arc<dyn Clock> = Arc::new(move || (Timestamp(ms.load(Ordering::Relaxed)), WallClock::UNKNOWN));
    broker.set_clock(clock);
    Ok(broker)
}
