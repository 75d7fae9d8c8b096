//! One seed's world: what happens in it, and when.

mod doing;
mod end;
mod on_the_way;
mod post;
mod power;
mod world;

use std::{
    ops::AddAssign,
    sync::{Arc, atomic::AtomicU64},
};

use self::{power::open, world::World};
use super::{
    chance::Chance,
    device::{Device, Who},
    model::{Model, SHARED, Terms, Verdict},
};
use crate::{
    broker::{Broker, Config},
    codec::{QoS, Version},
    store::{self, KeySource, medium::sim::SimDisk},
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
/// Gets the dead letters, and nothing else.
const POST: Who = JUDGE + 1;
/// Takes no large packets, where there are letters.
const NARROW: Who = 3;
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

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    seeds: u64,
    crashes: u64,
    /// Publishes.
    refused: u64,
    letters: u64,
    /// On a full disk.
    full: u64,
}

pub(super) struct Trial {
    seed: u64,
    mood: Mood,
    chance: Chance,
    odds: Chance,
    terms: Terms,
    /// The disk's size, if it is a small one.
    disk_bytes: Option<u64>,
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
    tally: Tally,
    trace: bool,
    pub(super) quiet: bool,
    pub(super) told: Vec<String>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.crashes += other.crashes;
        self.refused += other.refused;
        self.letters += other.letters;
        self.full += other.full;
    }
}

impl Trial {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        // Of its own, so that what a seed means to the devices does not depend on it.
        let mut odds = Chance::new(!seed);
        let World { config, store, terms, disk_bytes, .. } = World::new(&mut chance, &mut odds);
        let devices = DEVICES.map(|(name, version)| Device::new(name, version));
        let mut devices = Vec::from(devices);
        devices.push(Device::new("judge", Version::V5));
        devices.push(Device::new("post", Version::V5));
        let (disk, line, wall_ms) = (SimDisk::new(), Arc::default(), Arc::new(AtomicU64::new(BIRTH_MS)));
        if let Some(bytes) = disk_bytes {
            disk.set_capacity(bytes);
        }
        if seed % 4 == 1 {
            disk.set_in_memory(seed / 4 % 9);
        }
        let broker = open(&disk, &line, &wall_ms, &config, &store).expect("an empty disk");
        let mood = if chance.one_in(4) { Mood::Group } else { Mood::Any };
        for device in &mut devices {
            device.reuses_ids = chance.one_in(2);
        }
        let mut model = Model::new(devices.len(), terms);
        if terms.letters {
            devices[NARROW].packet_bytes_max = Some(200);
            model.set_narrow(NARROW);
        }
        Self {
            seed,
            mood,
            chance,
            odds,
            terms,
            disk_bytes,
            disk,
            line,
            truth: 0,
            wall_ms,
            wall: Wall::Right,
            config,
            store,
            broker,
            model,
            devices,
            failing: false,
            next_request: 1,
            tally: Tally::default(),
            trace,
            quiet: false,
            told: Vec::new(),
        }
    }

    pub(super) fn run(&mut self) -> Tally {
        let (terms, disk_bytes, sealed) = (self.terms, self.disk_bytes, self.store.key != KeySource::None);
        self.note(|| format!("{terms:?}; the disk has {disk_bytes:?} bytes; sealed {sealed}"));
        self.open_the_post();
        for who in 0..JUDGE {
            self.dial(who);
        }
        for _ in 0..EVENTS {
            self.event();
        }
        self.end();
        self.tally.seeds = 1;
        self.tally
    }

    fn event(&mut self) {
        if self.terms.letters && self.odds.one_in(12) {
            self.post_comes_and_goes();
        }
        if self.terms.crowded && self.odds.one_in(25) {
            self.others_come();
        }
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

    /// Publishes may be refused; and an older device's connection ends with that, before it leaves, and its will goes.
    fn may_refuse(&self) -> bool {
        self.failing || self.terms.crowded || self.terms.bound.is_some()
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
