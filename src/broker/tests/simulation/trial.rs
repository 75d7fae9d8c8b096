//! One seed's world: what happens in it, and when.

mod doing;
mod end;
mod on_the_way;
mod power;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use self::power::open;
use super::{
    chance::Chance,
    device::{Device, Who},
    model::{Model, SHARED, Verdict},
};
use crate::{
    broker::{Broker, Config},
    codec::{QoS, Version},
    store::{self, medium::sim::SimDisk},
};

const DEVICES: [(&str, Version); 5] = [
    ("d0", Version::V5),
    ("d1", Version::V5),
    ("d2", Version::V311),
    ("d3", Version::V5),
    ("d4", Version::V31),
];
/// Looks at what is retained in the end.
const JUDGE: Who = DEVICES.len();
const TOPICS: [&str; 4] = ["a/1", "a/2", "b/1", "s/1/x"];
const FILTERS: [&str; 5] = ["a/1", "a/+", "+/1", "b/#", SHARED];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const EVENTS: usize = 300;
/// The true time at the beginning, in milliseconds since 1970: somewhere in 2026.
const BIRTH_MS: u64 = 1_780_000_000_000;
const YEAR_MS: u64 = 365 * 86_400_000;

/// What the wall clock shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wall {
    Right,
    /// A gateway without a battery, that has not learned the time yet.
    Epoch,
    /// 73 years ahead.
    Future,
}

/// What a seed's devices have in mind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// Everything.
    Any,
    /// Mostly the shared subscription, whose members come and go, with exactly-once messages.
    Group,
}

pub(super) struct Trial {
    seed: u64,
    mood: Mood,
    chance: Chance,
    disk: SimDisk,
    /// The broker's time line.
    line: Arc<AtomicU64>,
    /// Milliseconds that have passed in truth.
    truth: u64,
    wall_ms: Arc<AtomicU64>,
    wall: Wall,
    config: Config,
    store: store::Config,
    broker: Arc<Broker>,
    devices: Vec<Device>,
    model: Model,
    failing: bool,
    next_request: u16,
    crashes: u64,
    trace: bool,
    pub(super) quiet: bool,
    pub(super) told: Vec<String>,
}

impl Trial {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        let mut chance = Chance(seed);
        let small = chance.one_in(4);
        let config = Config {
            inflight_max: 1 + u16::try_from(chance.below(6)).unwrap(),
            queue_qos0: chance.one_in(3),
            out_bytes_max: if small { 120 } else { 1 << 20 },
            ..Config::default()
        };
        let store = store::Config {
            generation_bytes: if chance.one_in(2) { 3_000 } else { 16 << 20 },
            elision_wait_max: Duration::from_millis(if chance.one_in(4) { 0 } else { 100 }),
            ..store::Config::default()
        };
        let devices = DEVICES.map(|(name, version)| Device::new(name, version));
        let mut devices = Vec::from(devices);
        devices.push(Device::new("judge", Version::V5));
        let (disk, line, wall_ms) = (SimDisk::new(), Arc::default(), Arc::new(AtomicU64::new(BIRTH_MS)));
        let broker = open(&disk, &line, &wall_ms, &config, &store).expect("an empty disk");
        let lossy = small;
        let mood = if chance.one_in(4) { Mood::Group } else { Mood::Any };
        for device in &mut devices {
            device.reuses_ids = chance.one_in(2);
        }
        Self {
            seed,
            mood,
            chance,
            disk,
            line,
            truth: 0,
            wall_ms,
            wall: Wall::Right,
            config,
            store,
            broker,
            model: Model::new(devices.len(), lossy),
            devices,
            failing: false,
            next_request: 1,
            crashes: 0,
            trace,
            quiet: false,
            told: Vec::new(),
        }
    }

    /// Returns how often the broker crashed.
    pub(super) fn run(&mut self) -> u64 {
        for who in 0..JUDGE {
            self.dial(who);
        }
        for _ in 0..EVENTS {
            self.event();
        }
        self.end();
        self.crashes
    }

    fn event(&mut self) {
        let who = self.chance.below(JUDGE);
        if self.mood == Mood::Group && self.chance.one_in(10) {
            return self.member_goes(who);
        }
        match self.chance.below(100) {
            0..=23 => self.publish(who),
            24..=28 => self.subscribe(who),
            29..=30 => self.unsubscribe(who),
            31..=37 => self.dial(who),
            38..=39 => self.lose(who),
            40 => self.close_side(who),
            41..=42 => self.part(who),
            43..=60 => self.exchange(who),
            61..=64 => self.arrive(who, false),
            65..=68 => self.leave(who),
            69..=72 => self.hear(who, false),
            73..=76 => {
                self.note(|| "the journal does a step".to_owned());
                self.broker.journal.step();
            }
            77..=85 => self.settle(),
            86..=90 => {
                let ms = [1, 20, 101, 150][self.chance.below(4)];
                self.pass(ms);
            }
            91..=94 => {
                let ms = [1_000, 2_000, 9_000, 21_000][self.chance.below(4)];
                self.pass(ms);
            }
            95 if self.chance.one_in(3) => self.fail_soon(),
            96 => self.jump(),
            97..=98 if self.chance.one_in(2) => self.crash(),
            _ => self.exchange_all(),
        }
    }

    fn judge(&self, verdict: Verdict) {
        if let Err(how) = verdict {
            self.wrong(&how);
        }
    }

    fn wrong(&self, how: &str) -> ! {
        panic!("seed {}: {how}", self.seed);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace {
            let line = line();
            if !self.quiet {
                println!("{line}");
            }
            self.told.push(line);
        }
    }
}
