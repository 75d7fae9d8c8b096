//! `kill -9` under load, again and again, against a ledger of what was acknowledged.
//!
//! Publishers of both acknowledging qualities of service and both protocol versions send numbered messages; subscribers
//! that stay and subscribers that nap receive them; a topic is retained; a client changes its subscriptions. The real
//! binary is killed at random moments and started again on the same data. In the end nothing acknowledged may be
//! missing, nothing may come twice where both ends speak QoS 2, and each publisher's messages arrive in order.
//!
//! `DORMOUSE_TEST_KILLS` and `DORMOUSE_TEST_SEED` set the number of kills and repeat a run.

#![expect(clippy::disallowed_methods, reason = "a run against the real binary takes real time")]

pub(crate) mod client;
pub(crate) mod ledger;
pub(crate) mod process;
pub(crate) mod publisher;
mod retained;
pub(crate) mod subscriber;
pub(crate) mod wire;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dormouse::codec::{QoS, Version};
use ledger::Ledger;
use process::Process;
use publisher::Publisher;
use subscriber::Subscriber;

const SUBSCRIBERS: [(&str, QoS, usize); 4] = [
    ("sub-stays-2", QoS::ExactlyOnce, 0),
    ("sub-naps-2", QoS::ExactlyOnce, 150),
    ("sub-stays-1", QoS::AtLeastOnce, 0),
    ("sub-naps-1", QoS::AtLeastOnce, 150),
];
const PUBLISHERS: [(&str, QoS, Version); 4] = [
    ("pub-2-v5", QoS::ExactlyOnce, Version::V5),
    ("pub-2-v3", QoS::ExactlyOnce, Version::V311),
    ("pub-1-v5", QoS::AtLeastOnce, Version::V5),
    ("pub-1-v3", QoS::AtLeastOnce, Version::V311),
];
/// Longest wait for progress before a kill, and for the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all threads of the run share.
struct Run {
    address: Arc<Mutex<SocketAddr>>,
    ledger: Arc<Ledger>,
    goal: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Run {
    fn subscribe(&self) -> Vec<JoinHandle<()>> {
        let spawn = |(i, (name, qos, nap_every)): (usize, (&'static str, QoS, usize))| {
            let subscriber = Subscriber {
                name,
                version: if i % 2 == 0 { Version::V5 } else { Version::V311 },
                qos,
                filter: "load/#",
                nap_every,
                address: Arc::clone(&self.address),
                ledger: Arc::clone(&self.ledger),
                stop: Arc::clone(&self.stop),
            };
            let thread = thread::spawn(move || subscriber.run());
            wait_until("a first SUBACK", || self.ledger.is_subscribed(name));
            thread
        };
        SUBSCRIBERS.into_iter().enumerate().map(spawn).collect()
    }

    fn publisher(
        &self,
        name: &str,
        qos: QoS,
        version: Version,
        retained: bool,
    ) -> (Publisher, Arc<AtomicU64>) {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let publisher = Publisher {
            name: name.to_owned(),
            version,
            qos,
            retain: retained,
            topic: if retained { retained::TOPIC.to_owned() } else { format!("load/{name}") },
            address: Arc::clone(&self.address),
            ledger: if retained { Arc::default() } else { Arc::clone(&self.ledger) },
            padding_bytes: 400,
            goal: Arc::clone(&self.goal),
            acknowledged: Arc::clone(&acknowledged),
        };
        (publisher, acknowledged)
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_under_load() {
    let kills = setting("DORMOUSE_TEST_KILLS").unwrap_or(50);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("DORMOUSE_TEST_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let mut chance = Chance(seed | 1);

    let folder = tempfile::tempdir().unwrap();
    let mut broker = Process::start(folder.path());
    let run = Run {
        address: Arc::new(Mutex::new(broker.address)),
        ledger: Arc::default(),
        goal: Arc::new(AtomicU64::new(u64::MAX)),
        stop: Arc::default(),
    };
    let subscribers = run.subscribe();
    let publishers: Vec<_> = PUBLISHERS
        .map(|(name, qos, version)| {
            let (publisher, _) = run.publisher(name, qos, version, false);
            thread::spawn(move || publisher.run())
        })
        .into();
    let (retaining, last_retained) = run.publisher("retainer", QoS::AtLeastOnce, Version::V5, true);
    let retainer_thread = thread::spawn(move || retaining.run());

    for _ in 0..kills {
        let goal = run.ledger.acknowledged() + usize::try_from(chance.below(400)).unwrap();
        wait_until("messages to be acknowledged", || run.ledger.acknowledged() >= goal);
        thread::park_timeout(Duration::from_micros(chance.below(30_000)));
        broker.kill();
        let acknowledged = last_retained.load(Ordering::SeqCst);
        broker = Process::start(folder.path());
        *run.address.lock().unwrap() = broker.address;
        let value = retained::read(broker.address);
        if value.unwrap_or(0) < acknowledged {
            run.ledger.broken(format!("retained value is {value:?} and {acknowledged} was acknowledged"));
        }
    }

    run.goal.store(0, Ordering::SeqCst);
    let published: u64 = publishers.into_iter().map(|p| p.join().unwrap()).sum();
    retainer_thread.join().unwrap();
    let names = SUBSCRIBERS.map(|(name, ..)| name);
    let complete = wait(|| names.iter().all(|name| run.ledger.is_complete(name)));
    run.stop.store(true, Ordering::SeqCst);
    for subscriber in subscribers {
        subscriber.join().unwrap();
    }
    let verdict = run.ledger.verdict(&names, |subscriber, publisher| {
        subscriber.ends_with("-2") && publisher.starts_with("pub-2")
    });
    let generations = process::newest_generation(folder.path());
    println!(
        "crash test: seed {seed}, kills {kills}, journal generations {generations}, published {published}, {verdict}"
    );
    assert!(
        verdict.is_clean() && complete && verdict.acknowledged > 0,
        "{verdict}\nbroken: {:?}\nlost: {:?}\ntwice: {:?}\nreordered: {:?}\n{}",
        verdict.broken,
        first(&verdict.lost),
        first(&verdict.duplicates_qos2),
        first(&verdict.reordered),
        broker.log()
    );
}

fn first<T: std::fmt::Debug>(faults: &[T]) -> &[T] {
    &faults[..faults.len().min(20)]
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    assert!(wait(done), "waited {PATIENCE:?} for {what}");
}

fn wait(done: impl Fn() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return false;
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    true
}

/// A small generator (xorshift64*): the run is named by its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}
