//! The broker below the sockets: who is connected, who sleeps, what goes to whom.
//!
//! It is driven from outside. A connection's driver calls [`Broker::connect`] with the first bytes until it is answered, then
//! [`Connection::receive`] with what it reads, [`Connection::poll_transmit`] for what to write, and
//! [`Connection::close`] at the end; somebody calls [`Broker::handle_timeout`] when it is due. Time comes in as an
//! argument, and only the journal touches the disk.
//!
//! Invariants:
//! - Lock order: a slot's `handling`, that of who sends dead letters, the registry, a slot's `state`, then the dead letters,
//!   the subscriptions or the retained messages, then the journal. No thread holds two slots' `state`. Nothing waits for the disk under a lock.
//! - State that the journal knows changes under its session's lock, and the record is appended under the same lock: the
//!   journal has each session's changes in the order in which they happened.
//! - What promises something to a client leaves behind the gate of the commit that keeps the promise.

mod acknowledge;
mod admission;
mod authenticate;
mod config;
mod connack;
mod connect;
mod connection;
mod counters;
mod dead_letters;
mod dispatch;
mod doze;
mod farewells;
mod features;
mod keep;
mod last_answers;
mod letters;
mod lifecycle;
mod publish;
mod queues;
mod recover;
mod registry;
mod retained;
mod shared;
mod slot;
mod stats;
mod subscribe;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::SocketAddr,
    num::NonZeroU64,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub use authenticate::Handshake;
pub use config::Config;
pub use connect::Greeting;
pub use connection::{CloseReason, Connection, Reading, Transmit};
use counters::Counters;
pub use dead_letters::{DeadLetters, DeadReason, DeadReasons};
use dispatch::Routes;
use farewells::Farewells;
pub use features::Features;
pub use keep::Dropped;
use keep::Drops;
use letters::Letters;
use queues::Queues;
pub use queues::{NamePattern, QueueBound};
use registry::Registry;
use retained::RetainedMessages;
pub use stats::{SessionStats, Stats, Strained, Traffic, Unready};
use tracing::info;

use crate::{
    auth::Methods,
    codec::ReasonCode,
    message::SessionNo,
    routing::Subscriptions,
    session::Verdict,
    store::{self, Journal, OpenError},
    sync::lock,
    time::{Clock, Timestamp, WallClock},
};

/// The verdict on every connection when the broker ends.
const SHUTTING_DOWN: Verdict =
    Verdict { reason: ReasonCode::ServerShuttingDown, why: "the broker shuts down" };

/// Who is at the other end of a connection, for the log.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: Address,
    /// The name of the listener it came in by.
    pub listener: Arc<str>,
    /// The subject common name of its client certificate, if it showed a good one.
    pub certificate_name: Option<Arc<str>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// From the network: the client's own address, also when a proxy stands in between that says it.
    Net(SocketAddr),
    /// From this machine, by a Unix socket: who the kernel says it was when it connected.
    Local {
        /// The user; `None` if the kernel does not know.
        uid: Option<u32>,
        /// The process.
        pid: Option<i32>,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::Local { uid, pid } => {
                f.write_str("unix")?;
                uid.map_or(Ok(()), |uid| write!(f, ":uid={uid}"))?;
                pid.map_or(Ok(()), |pid| write!(f, ":pid={pid}"))
            }
        }
    }
}

/// A broker, shared by all its connections.
pub struct Broker {
    config: Config,
    journal: Journal,
    registry: Mutex<Registry>,
    subscriptions: RwLock<Subscriptions<SessionNo>>,
    /// The subscriptions' generation, readable without their lock.
    generation: AtomicU64,
    routes: Routes,
    retained: Mutex<RetainedMessages>,
    queues: Queues,
    drops: Arc<Drops>,
    letters: Arc<Letters>,
    /// Sleeping sessions with messages at hand that were not on disk yet. Nothing is locked under it.
    restless: Mutex<Vec<SessionNo>>,
    counters: Arc<Counters>,
    /// When `handle_timeout` was called last.
    looked_after_at: AtomicU64,
    next_epoch: AtomicU64,
    farewells: Farewells,
    shutting_down: AtomicBool,
    clock: OnceLock<Arc<dyn Clock>>,
    methods: OnceLock<Methods>,
    opened_at: Timestamp,
}

impl Broker {
    /// Opens the data folder and brings back what it holds. Returns the broker and the time to start its clock from
    /// (`wall` is what the wall clock reads). Call [`Broker::start`] next.
    pub fn open(
        config: Config,
        folder: &Path,
        mut store: store::Config,
        wall: WallClock,
    ) -> Result<(Arc<Self>, Timestamp), OpenError> {
        store.labels = queues::labels(&config.queue_bounds);
        let (journal, recovered) = Journal::open(folder, store, wall)?;
        Ok(Self::recover(config, journal, recovered))
    }

    /// The same on any medium, for simulations: [`Broker::set_clock`] and [`Broker::step`] take the place of
    /// [`Broker::start`], and nothing is committed on its own.
    pub fn open_on(
        config: Config,
        medium: Box<dyn store::medium::Medium>,
        mut store: store::Config,
        wall: WallClock,
    ) -> Result<(Arc<Self>, Timestamp), OpenError> {
        store.labels = queues::labels(&config.queue_bounds);
        let (journal, recovered) = Journal::open_on(medium, store, wall)?;
        Ok(Self::recover(config, journal, recovered))
    }

    fn recover(config: Config, journal: Journal, recovered: store::Recovered) -> (Arc<Self>, Timestamp) {
        let now = recovered.now;
        let first = NonZeroU64::new(recovered.next_session).unwrap_or(NonZeroU64::MIN);
        let queues = Queues::new(config.queue, &config.queue_bounds);
        let letters = Letters::new(config.dead_letters);
        let broker = Arc::new(Self {
            queues,
            config,
            journal,
            registry: Mutex::new(Registry::new(SessionNo(first))),
            subscriptions: RwLock::new(Subscriptions::new()),
            generation: AtomicU64::new(0),
            routes: Routes::default(),
            retained: Mutex::new(RetainedMessages::recover(
                recovered.retained,
                recovered.next_retained_version,
            )),
            drops: Arc::default(),
            letters: Arc::new(letters),
            restless: Mutex::default(),
            counters: Arc::default(),
            looked_after_at: AtomicU64::new(now.0),
            next_epoch: AtomicU64::new(1),
            farewells: Farewells::default(),
            shutting_down: AtomicBool::new(false),
            clock: OnceLock::new(),
            methods: OnceLock::new(),
            opened_at: now,
        });
        if broker.letters.is_enabled() {
            broker.letters.set_office(lock(&broker.registry).take_number());
        }
        for session in recovered.sessions {
            if &*session.snapshot.record.client_id == letters::OFFICE {
                broker.letters.recover(&broker.journal, &session);
            } else {
                broker.recover_session(session, now);
            }
        }
        let source: Arc<dyn store::SnapshotSource> = Arc::clone(&broker) as _;
        broker.journal.set_snapshot_source(Arc::downgrade(&source));
        (broker, now)
    }

    /// Gives the broker its clock, which reads the time line and the wall clock, and starts the journal's threads.
    pub fn start(&self, clock: Arc<dyn Clock>) -> io::Result<()> {
        // A second start would be a second clock: the first stays.
        let clock = self.clock.get_or_init(|| clock);
        self.journal.start(Arc::clone(clock))
    }

    /// Gives the broker its methods of extended authentication; without them every method is refused. To be called before
    /// clients come, and once: who has authenticated by a method must find it again.
    pub fn set_authentication(&self, methods: Methods) {
        self.methods.get_or_init(|| methods);
    }

    fn methods(&self) -> Option<&Methods> {
        self.methods.get()
    }

    /// Gives the broker a clock and starts no threads: a simulation has none.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        let clock = self.clock.get_or_init(|| clock);
        self.journal.set_clock(Arc::clone(clock));
    }

    /// Does the next piece of the journal's work, in a simulation; false if there is none at this time.
    pub fn step(&self) -> bool {
        self.journal.step() == store::Step::Worked || self.journal.read_step()
    }

    /// The time now, by the clock given to [`Broker::start`]; before that, the time at which the broker was opened.
    pub fn now(&self) -> Timestamp {
        self.clock.get().map_or(self.opened_at, |clock| clock.now())
    }

    /// Asks every connection to close, v5 clients with DISCONNECT 0x8B, and refuses new ones.
    pub fn begin_shutdown(&self, now: Timestamp) {
        self.shutting_down.store(true, Ordering::Release);
        let slots = lock(&self.registry).all();
        for slot in slots {
            self.kick(&slot, SHUTTING_DOWN, now);
        }
    }

    /// Messages that were given up undelivered since the start.
    pub fn dropped(&self) -> Dropped {
        self.drops.read()
    }

    /// Commits what is open and closes the journal. Call it when all connections have ended.
    pub fn close(&self) {
        self.send_last_letters(self.now());
        self.journal.close();
        let s = self.journal.stats();
        info!(
            commits = s.commits,
            records = s.records,
            messages_written = s.messages_written,
            messages_never_written = s.messages_elided,
            bytes_written = s.bytes_frames,
            "journal closed"
        );
        let Dropped { queue_full, rejected, disk_full, expired, too_large, damaged, slow_reader, .. } =
            self.dropped();
        info!(
            queue_full,
            rejected, disk_full, expired, too_large, damaged, slow_reader, "messages dropped since the start"
        );
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    fn next_epoch(&self) -> u64 {
        self.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes the subscriptions; routes resolved before are stale when this returns.
    fn change_subscriptions<T>(&self, change: impl FnOnce(&mut Subscriptions<SessionNo>) -> T) -> T {
        let mut subscriptions = self.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut subscriptions);
        self.generation.store(subscriptions.generation(), Ordering::Release);
        self.letters.set_wanted(subscriptions.names_level(dead_letters::LEVEL));
        result
    }
}
