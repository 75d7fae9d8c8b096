//! One seed's world: what happens in it, and when.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    device::{Body, Device, Heard, Hello, Message, Outcome, Said, Who, WillWish},
    model::{Model, SHARED, Verdict},
};
use crate::{
    broker::{Broker, Config},
    codec::{QoS, Version},
    store::{self, Step, medium::sim::SimDisk},
    time::{Clock, Timestamp, WallClock},
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

pub(super) struct Trial {
    seed: u64,
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
        Self {
            seed,
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
        match self.chance.below(100) {
            0..=23 => self.publish(who),
            24..=28 => self.subscribe(who),
            29..=30 => self.unsubscribe(who),
            31..=37 => self.dial(who),
            38..=40 => self.lose(who),
            41..=42 => self.part(who),
            43..=60 => self.exchange(who),
            61..=64 => self.arrive(who, false),
            65..=68 => self.leave(who),
            69..=72 => self.hear(who, false),
            73..=76 => {
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

    // What devices do.

    fn publish(&mut self, who: Who) {
        if !self.devices[who].is_greeted() || self.devices[who].open.len() > 9 {
            return;
        }
        let message = Message {
            body: 0,
            topic: TOPICS[self.chance.below(TOPICS.len())],
            qos: QOS[self.chance.below(3)],
            retain: self.chance.one_in(5),
            expiry: self.chance.one_in(5).then(|| [1, 5, 30][self.chance.below(3)]),
            pad: if self.chance.one_in(10) { 300 } else { 0 },
            clears: false,
            will: false,
        };
        let clears = message.retain && self.chance.one_in(4);
        let is_v5 = DEVICES[who].1 == Version::V5;
        let message = Message { clears, expiry: message.expiry.filter(|_| is_v5 && !clears), ..message };
        let retain = message.retain && !message.topic.starts_with("s/");
        let message = Message { clears: message.clears && retain, retain, ..message };
        let message = self.model.number(who, |body| Message { body, ..message }, false);
        self.note(|| format!("{who} publishes {message:?}"));
        self.devices[who].publish(message);
        if self.chance.one_in(2) {
            self.arrive(who, true);
        }
    }

    fn subscribe(&mut self, who: Who) {
        let filter = FILTERS[self.chance.below(FILTERS.len())];
        let shared = filter == SHARED;
        if !self.devices[who].is_greeted() || (shared && !self.model.is_persistent(who)) {
            return;
        }
        let qos = QOS[if shared { 1 + self.chance.below(2) } else { self.chance.below(3) }];
        let id = self.request();
        self.note(|| format!("{who} subscribes {filter} {qos:?}"));
        self.devices[who].say(Said::Subscribe { id, filter, qos });
        self.arrive(who, true);
    }

    fn unsubscribe(&mut self, who: Who) {
        if self.devices[who].is_greeted() {
            let (id, filter) = (self.request(), FILTERS[self.chance.below(FILTERS.len())]);
            self.note(|| format!("{who} unsubscribes {filter}"));
            self.devices[who].say(Said::Unsubscribe { id, filter });
        }
    }

    fn request(&mut self) -> u16 {
        self.next_request = self.next_request % 60_000 + 1;
        self.next_request
    }

    /// A new connection, perhaps while there is one.
    fn dial(&mut self, who: Who) {
        let clean = self.chance.one_in(8);
        let expiry = if clean && self.chance.one_in(2) { 0 } else { [20, 100, 3_600][self.chance.below(3)] };
        let will = self.chance.one_in(3).then(|| WillWish {
            body: 0,
            topic: TOPICS[self.chance.below(3)],
            qos: QOS[self.chance.below(3)],
            retain: false,
            delay: [0, 0, 5, 30][self.chance.below(4)],
        });
        let receive_maximum = 1 + u16::try_from(self.chance.below(5)).unwrap();
        self.greet(who, Hello { clean, expiry, receive_maximum, will });
        if self.chance.one_in(4) {
            self.arrive(who, false);
        } else {
            self.arrive(who, true);
            self.leave(who);
            self.settle();
            self.exchange(who);
        }
    }

    fn greet(&mut self, who: Who, hello: Hello) {
        let is_v5 = self.devices[who].version == Version::V5;
        let will = hello.will.map(|will| {
            let WillWish { topic, qos, retain, delay, .. } = will;
            let (clears, expiry, pad) = (false, None, 0);
            let message = |body| Message { body, topic, qos, retain, expiry, pad, clears, will: true };
            let body = self.model.number(who, message, true).body;
            WillWish { body, delay: if is_v5 { delay } else { 0 }, ..will }
        });
        // 3.1 does not say whether a session was present: its device never has one.
        let clean = hello.clean || self.devices[who].version == Version::V31;
        let hello = Hello { clean, will, ..hello };
        // Its driver learns of the takeover later; what was on its way is lost.
        let old = self.devices[who].wire.take();
        self.note(|| format!("{who} dials {hello:?}"));
        self.devices[who].dial(hello);
        if let Some(old) = old {
            if self.chance.one_in(2) {
                self.ended(who, old);
            } else {
                self.arrive(who, true);
                drop(old);
            }
        }
    }

    fn ended(&mut self, who: Who, wire: super::device::Wire) {
        wire.end(self.now());
        self.model.parted(who, true, false);
    }

    fn lose(&mut self, who: Who) {
        if let Some(wire) = self.devices[who].wire.take() {
            self.note(|| format!("{who} is lost"));
            self.devices[who].owed.clear();
            self.ended(who, wire);
        }
    }

    /// Says good-bye.
    fn part(&mut self, who: Who) {
        if !self.devices[who].is_greeted() {
            return;
        }
        let is_v5 = DEVICES[who].1 == Version::V5;
        let with_will = is_v5 && self.chance.one_in(4);
        let ends_session = is_v5 && self.chance.one_in(6);
        self.note(|| format!("{who} parts, with will {with_will}, ends {ends_session}"));
        self.devices[who].say(Said::Disconnect { with_will, ends_session });
        self.arrive(who, true);
        self.lose(who);
    }

    /// Everything on its way arrives, here and there.
    fn exchange(&mut self, who: Who) {
        self.arrive(who, true);
        self.leave(who);
        self.hear(who, true);
    }

    fn exchange_all(&mut self) {
        (0..self.devices.len()).for_each(|who| self.exchange(who));
    }

    // What is on its way.

    fn arrive(&mut self, who: Who, wholly: bool) {
        let now = self.now();
        let Some(wire) = self.devices[who].wire.as_mut() else { return };
        let on_the_way = wire.on_the_way();
        let bytes = if wholly { on_the_way } else { self.chance.below(on_the_way + 1) };
        let taken = wire.arrive(bytes, &self.broker, now);
        for said in taken {
            self.taken(who, said);
        }
    }

    fn taken(&mut self, who: Who, said: Said) {
        self.note(|| format!("  taken from {who}: {said:?}"));
        let wire = self.devices[who].wire.as_mut();
        match said {
            Said::Connect(hello) => {
                let is_v5 = self.devices[who].version == Version::V5;
                self.model.connect(who, &hello, is_v5);
            }
            Said::Publish { id, message, .. } => self.model.publish(who, id, message.body),
            Said::Puback(id) | Said::Pubcomp(id) => {
                wire.map(|wire| wire.unanswered.remove(&id));
            }
            Said::Pubrec(_) => {}
            Said::Pubrel(id) => self.model.released(who, id),
            Said::Subscribe { id, filter, qos } => self.model.subscribe(who, id, filter, qos),
            Said::Unsubscribe { id, filter } => self.model.unsubscribe(who, id, filter),
            Said::Disconnect { with_will, ends_session } => {
                // The broker acts on it when its driver closes, which is now.
                if let Some(wire) = self.devices[who].wire.take() {
                    wire.end(self.now());
                }
                self.devices[who].owed.clear();
                self.model.parted(who, with_will, ends_session);
            }
        }
    }

    /// What can leave the broker leaves.
    fn leave(&mut self, who: Who) {
        let now = self.now();
        let Some(wire) = self.devices[who].wire.as_mut() else { return };
        let not_before = wire.looked_at;
        let heard = wire.leave(now);
        for packet in heard {
            self.left(who, packet, not_before);
        }
        if self.devices[who].wire.as_ref().is_some_and(|wire| wire.closing && wire.heard.is_empty()) {
            self.lose(who);
        }
    }

    fn left(&mut self, who: Who, packet: Heard, not_before: u64) {
        self.note(|| format!("  leaves for {who}: {packet:?}"));
        let verdict = match &packet {
            Heard::Connack { present, refused } => self.model.greeted(who, *present, *refused),
            Heard::Publish { id, body, qos, dup, .. } => {
                let is_live_qos_0 = *qos == QoS::AtMostOnce;
                let sent = self.model.sent(who, *body, *dup || is_live_qos_0, not_before);
                sent.and_then(|()| self.count(who, *id, *qos))
            }
            Heard::Puback { id, refused: false } | Heard::Pubrec { id, refused: false } => {
                let open = self.devices[who].open.iter().find(|open| open.id == *id);
                let body = open.map(|open| open.message.body);
                if let Some(body) = body {
                    self.model.promised(body);
                }
                Ok(())
            }
            Heard::Puback { .. } | Heard::Pubrec { .. } if !self.failing => {
                Err("a publish is refused".to_owned())
            }
            Heard::Suback(id) => {
                self.model.subscribed(who, *id);
                Ok(())
            }
            Heard::Unsuback(id) => {
                self.model.unsubscribed(who, *id);
                Ok(())
            }
            _ => Ok(()),
        };
        self.judge(verdict);
        if let Some(wire) = self.devices[who].wire.as_mut() {
            wire.heard.push_back(packet);
        }
    }

    /// [MQTT-3.3.4-9]
    fn count(&mut self, who: Who, id: u16, qos: QoS) -> Verdict {
        let Some(wire) = self.devices[who].wire.as_mut().filter(|_| qos != QoS::AtMostOnce) else {
            return Ok(());
        };
        wire.unanswered.insert(id);
        if wire.unanswered.len() > usize::from(wire.receive_maximum) {
            return Err(format!("{who} is sent {:?}, more than {}", wire.unanswered, wire.receive_maximum));
        }
        Ok(())
    }

    /// A device looks at what has reached it, and answers: all of it, or some.
    fn hear(&mut self, who: Who, all: bool) {
        let mut packets = if all { usize::MAX } else { 1 + self.chance.below(3) };
        while packets > 0
            && let Some(outcome) = self.devices[who].hear(self.model.incarnation(who))
        {
            packets -= 1;
            let verdict = match outcome {
                Outcome::Nothing => Ok(()),
                Outcome::Message { body, qos, retain, dup } => {
                    self.note(|| format!("  {who} hears {body} {qos:?} retain {retain} dup {dup}"));
                    self.model.heard(who, body, qos, retain, dup)
                }
                Outcome::Wrong(how) => Err(how),
            };
            self.judge(verdict);
        }
        let owed = self.devices[who].owed.len();
        let answers = if all && !self.chance.one_in(4) { owed } else { self.chance.below(owed + 1) };
        for _ in 0..answers {
            if let Some(said) = self.devices[who].owed.pop_front() {
                self.devices[who].say(said);
            }
        }
        if self.devices[who].wire.as_ref().is_some_and(|wire| wire.closing && wire.heard.is_empty()) {
            self.lose(who);
        }
    }

    // Disk, power and time.

    fn now(&self) -> Timestamp {
        Timestamp(self.line.load(Ordering::Relaxed))
    }

    fn settle(&mut self) {
        while self.broker.journal.step() == Step::Worked || self.broker.journal.read_step() {}
        self.model.settled();
    }

    fn pass(&mut self, ms: u64) {
        self.truth += ms;
        self.line.fetch_add(ms, Ordering::Relaxed);
        self.show_time();
        self.broker.handle_timeout(self.now());
        self.note(|| format!("{ms} ms pass"));
        let verdict = self.model.passed(self.now().0, self.truth);
        self.judge(verdict);
    }

    fn show_time(&self) {
        let right = BIRTH_MS + self.truth;
        let shown = match self.wall {
            Wall::Right => right,
            Wall::Epoch => self.truth,
            Wall::Future => right + 73 * YEAR_MS,
        };
        self.wall_ms.store(shown, Ordering::Relaxed);
    }

    /// The wall clock is set while the broker runs.
    fn jump(&mut self) {
        self.wall = [Wall::Right, Wall::Right, Wall::Epoch, Wall::Future][self.chance.below(4)];
        self.show_time();
        self.note(|| "the clock jumps".to_owned());
    }

    fn fail_soon(&mut self) {
        if !self.failing {
            let operations = u64::try_from(self.chance.below(6)).unwrap();
            self.note(|| format!("the disk fails after {operations} operations"));
            self.disk.fail_after(operations);
            self.failing = true;
            self.model.disk_fails();
        }
    }

    /// The power goes, or the process; some time later the broker starts anew, perhaps only at the third try.
    fn crash(&mut self) {
        self.crashes += 1;
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

    // The end.

    /// Everybody comes back and hears everything.
    fn end(&mut self) {
        if self.failing {
            self.crash();
        }
        for _ in 0..3 {
            for who in 0..JUDGE {
                if !self.devices[who].is_greeted() {
                    let hello = Hello { clean: false, expiry: 3_600, receive_maximum: 5, will: None };
                    self.greet(who, hello);
                }
            }
            for _ in 0..30 {
                self.exchange_all();
                self.settle();
            }
            self.pass(150);
        }
        for _ in 0..400 {
            self.exchange_all();
            self.settle();
            let idle = |d: &Device| d.owed.is_empty() && d.open.is_empty();
            if self.devices.iter().all(idle) && self.nothing_moves() {
                break;
            }
        }
        let verdict = self.model.finish();
        self.judge(verdict);
        self.look_at_retained();
    }

    fn nothing_moves(&mut self) -> bool {
        (0..JUDGE).all(|who| {
            self.leave(who);
            self.devices[who].wire.as_ref().is_none_or(|wire| wire.heard.is_empty())
        })
    }

    fn look_at_retained(&mut self) {
        self.greet(JUDGE, Hello { clean: true, expiry: 0, receive_maximum: 5, will: None });
        self.exchange(JUDGE);
        self.settle();
        self.exchange(JUDGE);
        self.devices[JUDGE].say(Said::Subscribe { id: 1, filter: "#", qos: QoS::AtMostOnce });
        let mut found: BTreeMap<String, Body> = BTreeMap::new();
        for _ in 0..40 {
            self.arrive(JUDGE, true);
            self.settle();
            self.leave(JUDGE);
            if let Some(wire) = &self.devices[JUDGE].wire {
                for heard in &wire.heard {
                    if let Heard::Publish { topic, body, retain: true, .. } = heard {
                        found.insert(topic.clone(), *body);
                    }
                }
            }
        }
        let verdict = self.model.retained(&found);
        self.judge(verdict);
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

fn open(
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

/// A small random number generator (splitmix64), so that a seed means the same for ever.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
