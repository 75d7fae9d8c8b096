//! The load that is recorded, and the same clients going on after a cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use dormouse::codec::{QoS, Version};

use super::{
    changer,
    disk::{Disk, Packing},
    model::Model,
    retainer,
    steps::Steps,
    trace::{Change, Record},
    willer,
};
use crate::crash::{
    ledger::Ledger, process::newest_generation, publisher::Publisher, subscriber::Subscriber,
};

struct Sub {
    name: &'static str,
    version: Version,
    qos: QoS,
    filter: &'static str,
    nap_every: usize,
}

/// Two that are online and two that sleep now and then, on what is always written; one that is nearly always online, on
/// what need not be written as long as it is.
const SUBSCRIBERS: [Sub; 5] = [
    Sub { name: "sub-stays-2", version: Version::V5, qos: QoS::ExactlyOnce, filter: "load/#", nap_every: 0 },
    Sub {
        name: "sub-naps-2",
        version: Version::V311,
        qos: QoS::ExactlyOnce,
        filter: "load/#",
        nap_every: 40,
    },
    Sub { name: "sub-stays-1", version: Version::V5, qos: QoS::AtLeastOnce, filter: "load/#", nap_every: 0 },
    Sub {
        name: "sub-naps-1",
        version: Version::V311,
        qos: QoS::AtLeastOnce,
        filter: "load/#",
        nap_every: 40,
    },
    Sub { name: "live-sub", version: Version::V5, qos: QoS::AtLeastOnce, filter: "live/#", nap_every: 100 },
];

struct Pub {
    name: &'static str,
    version: Version,
    qos: QoS,
    topic: &'static str,
    padding_bytes: usize,
}

const PUBLISHERS: [Pub; 5] = [
    Pub {
        name: "pub-2-v5",
        version: Version::V5,
        qos: QoS::ExactlyOnce,
        topic: "load/a",
        padding_bytes: 900,
    },
    Pub {
        name: "pub-2-v3",
        version: Version::V311,
        qos: QoS::ExactlyOnce,
        topic: "load/b",
        padding_bytes: 5_000,
    },
    Pub {
        name: "pub-1-v5",
        version: Version::V5,
        qos: QoS::AtLeastOnce,
        topic: "load/c",
        padding_bytes: 2_500,
    },
    Pub {
        name: "pub-1-v3",
        version: Version::V311,
        qos: QoS::AtLeastOnce,
        topic: "load/d",
        padding_bytes: 100,
    },
    Pub {
        name: "live-pub",
        version: Version::V5,
        qos: QoS::AtLeastOnce,
        topic: "live/e",
        padding_bytes: 500,
    },
];

/// A slow disk: commits have something to gather, and the machine something else to do.
const SYNC_DELAY_US: u64 = 1_500;
/// Longest wait for progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of the subscribers.
pub(super) fn subscribers() -> Vec<&'static str> {
    SUBSCRIBERS.iter().map(|sub| sub.name).collect()
}

/// What was recorded.
pub(super) struct Recording {
    pub(super) seed: u64,
    pub(super) before: Model,
    pub(super) records: Vec<Record>,
    pub(super) ledger: Ledger,
    pub(super) retainer: Steps,
    pub(super) changer: Steps,
    /// How its store was written.
    pub(super) store: Packing,
    /// The highest generation of the journal.
    pub(super) generations: u32,
}

impl Recording {
    pub(super) fn syncs(&self) -> usize {
        self.records.iter().filter(|record| matches!(record.change, Change::SyncEnd { .. })).count()
    }
}

/// Whether an fdatasync, which is what a commit ends with, is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syncs {
    Kept,
    Forgotten,
}

/// Lets a broker work on an empty disk until so many messages are acknowledged.
pub(super) fn record(seed: u64, messages: usize, syncs: Syncs, store: Packing) -> Recording {
    let disk = Disk::holding(&super::model::Image::new()).packed(store);
    disk.set(super::disk::Field::SyncDelayUs, SYNC_DELAY_US);
    disk.set(super::disk::Field::ForgetSyncs, u64::from(syncs == Syncs::Forgotten));
    let broker = disk.start(true).unwrap_or_else(|why| panic!("the broker did not start: {why}"));
    let address = broker.address;

    let clients = Clients::start(address, Arc::new(Ledger::new(wants)), Naps::Taken);
    clients.wait_subscribed();
    clients.publish(|_| u64::MAX);
    let steps = [(); 2].map(|()| Arc::new(Steps::default()));
    let others = [
        spawn(&steps[0], &clients.stop, move |steps, stop| retainer::run(address, seed, steps, stop)),
        spawn(&steps[1], &clients.stop, move |steps, stop| changer::run(address, seed, steps, stop)),
        spawn(&clients.ledger, &clients.stop, move |ledger, stop| {
            willer::run(address, "load/will", ledger, stop)
        }),
    ];
    wait_until("messages to be acknowledged", || clients.ledger.acknowledged() >= messages);
    let generations = newest_generation(&disk.root());
    let (before, records) = disk.end(broker);
    let ledger = clients.abandon();
    for thread in others {
        thread.join().unwrap();
    }
    let [retainer, changer] = steps.map(|steps| Arc::into_inner(steps).expect("its client has ended"));
    let ledger = Arc::into_inner(ledger).expect("its clients have ended");
    Recording { seed, before, records, ledger, retainer, changer, store, generations }
}

fn spawn<T: Send + Sync + 'static>(
    what: &Arc<T>,
    stop: &Arc<AtomicBool>,
    run: impl FnOnce(&T, &AtomicBool) -> std::io::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    let (what, stop) = (Arc::clone(what), Arc::clone(stop));
    thread::spawn(move || {
        // It ends with the broker.
        let _ = run(&what, &stop);
    })
}

/// Whether those who sleep now and then do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Naps {
    Taken,
    Skipped,
}

/// Who is to get what.
fn wants(subscriber: &str, publisher: &str) -> bool {
    subscriber.starts_with("live") == publisher.starts_with("live")
}

/// Whether both ends speak QoS 2.
pub(super) fn exactly_once(subscriber: &str, publisher: &str) -> bool {
    subscriber.ends_with("-2") && publisher.starts_with("pub-2")
}

/// The publishers and subscribers on one broker, going on from where the ledger has them.
pub(super) struct Clients {
    address: Arc<Mutex<SocketAddr>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stop: Arc<AtomicBool>,
    subscribers: Vec<JoinHandle<()>>,
    publishers: Mutex<Vec<JoinHandle<u64>>>,
    goals: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Clients {
    /// Starts the subscribers.
    pub(super) fn start(address: SocketAddr, ledger: Arc<Ledger>, naps: Naps) -> Self {
        let address = Arc::new(Mutex::new(address));
        let stop: Arc<AtomicBool> = Arc::default();
        let subscribers = SUBSCRIBERS
            .iter()
            .map(|sub| {
                let subscriber = Subscriber {
                    name: sub.name,
                    version: sub.version,
                    qos: sub.qos,
                    filter: sub.filter,
                    nap_every: if naps == Naps::Taken { sub.nap_every } else { 0 },
                    address: Arc::clone(&address),
                    ledger: Arc::clone(&ledger),
                    stop: Arc::clone(&stop),
                };
                thread::spawn(move || subscriber.run())
            })
            .collect();
        Self { address, ledger, stop, subscribers, publishers: Mutex::default(), goals: Mutex::default() }
    }

    pub(super) fn wait_subscribed(&self) {
        wait_until("every SUBACK", || SUBSCRIBERS.iter().all(|sub| self.ledger.is_subscribed(sub.name)));
    }

    /// Starts the publishers, each up to a number that depends on what it has published.
    pub(super) fn publish(&self, goal: impl Fn(u64) -> u64) {
        for kind in &PUBLISHERS {
            let sent = u64::try_from(self.ledger.published(kind.name).len()).unwrap();
            let goal = Arc::new(AtomicU64::new(goal(sent)));
            self.goals.lock().unwrap().push(Arc::clone(&goal));
            let publisher = Publisher {
                name: kind.name.to_owned(),
                version: kind.version,
                qos: kind.qos,
                retain: false,
                topic: kind.topic.to_owned(),
                padding_bytes: kind.padding_bytes,
                address: Arc::clone(&self.address),
                ledger: Arc::clone(&self.ledger),
                goal,
                acknowledged: Arc::default(),
            };
            let stop = Arc::clone(&self.stop);
            let run = move || publisher.run_until(|| stop.load(Ordering::Relaxed));
            self.publishers.lock().unwrap().push(thread::spawn(run));
        }
    }

    /// Waits until the publishers have all confirmed and the subscribers have all of it, but not longer than `limit`
    /// without anything happening.
    pub(super) fn settle(&self, limit: Duration) {
        let mut last = (0, Instant::now());
        loop {
            let published = self.publishers.lock().unwrap().iter().all(JoinHandle::is_finished);
            if published && SUBSCRIBERS.iter().all(|sub| self.ledger.is_complete(sub.name)) {
                return;
            }
            let events = self.ledger.events();
            if events != last.0 {
                last = (events, Instant::now());
            } else if last.1.elapsed() > limit {
                return;
            }
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Ends the clients, whatever they are doing, on a broker that is gone or about to go.
    pub(super) fn abandon(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::SeqCst);
        for goal in self.goals.into_inner().unwrap() {
            goal.store(0, Ordering::SeqCst);
        }
        let publishers =
            self.publishers.into_inner().unwrap().into_iter().map(|thread| thread.join().map(drop));
        for ended in self.subscribers.into_iter().map(JoinHandle::join).chain(publishers) {
            if let Err(panic) = ended {
                let why = panic.downcast_ref::<String>().map_or("a client panicked", String::as_str);
                self.ledger.broken(why.to_owned());
            }
        }
        self.ledger
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}
