//! A serving broker: the broker, its network and its clock work, started and ended in the right order.
//!
//! ```text
//! start:    read certificates, bind all addresses -> accept
//! shutdown: stop accepting -> ask every client to leave -> wait up to the grace period -> end the rest -> close the journal
//! ```
//!
//! A program that embeds the broker uses `Server` and leaves the signals to itself; the `dormouse` binary uses `run`.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tracing::{error, info, warn};

use crate::{
    admin::{self, Admin, Subject},
    auth::Methods,
    broker::Broker,
    config::Config,
    net::{
        limits::{CounterReading, Limits},
        listener::{Bind, ListenError, ListenerConfig, Listening},
        network::Network,
    },
    store::{Durability, OpenError, SyncLatency},
    time::{Clock, Timestamp, WallClock},
};

/// The broker's clock work is looked after at least this often.
const TIMEOUTS_MAX: Duration = Duration::from_secs(1);
/// And at most this often, whatever it asks for.
const TIMEOUTS_MIN: Duration = Duration::from_millis(20);
/// How many tasks a thread serves, each of which may handle 64 KiB of input, before it looks which sockets have something. tokio's
/// own number is 61: while somebody floods the broker, the others wait for as long.
const TASKS_BETWEEN_LOOKS: u32 = 8;

/// A broker that is being served to the network. Dropping it cuts everything off and leaves the journal to recovery;
/// `shutdown` is the way to end it.
pub struct Server {
    broker: Arc<Broker>,
    network: Network,
    timeouts: JoinHandle<()>,
    admin: Option<Admin>,
    sync_latency: Option<SyncLatency>,
}

/// Why a server cannot start, or had to end. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be set up.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The listener for monitoring cannot be set up.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The data folder cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The system refused a thread, a timer or a signal handler.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// What was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Where each listener of the configuration listens, in its order, with the port the system chose for port 0.
    pub listeners: Vec<Bind>,
    /// Where metrics and health are served, if they are.
    pub admin: Option<SocketAddr>,
    /// How long the disk takes to make something durable, if it could be measured.
    pub sync_latency: Option<SyncLatency>,
}

/// Opens everything, calls `ready`, and returns when SIGTERM or SIGINT has ended the broker. From `ready` on, neither
/// signal kills it.
pub fn run(config: &Config, ready: impl FnOnce(&Started)) -> Result<(), StartError> {
    let mut runtime = runtime::Builder::new_multi_thread();
    runtime.enable_all().event_interval(TASKS_BETWEEN_LOOKS).build()?.block_on(async {
        let signals = Signals::install()?;
        let server = Server::open(config)?;
        let listeners = server.local_addresses().iter().map(|l| l.address.clone()).collect();
        ready(&Started { listeners, admin: server.admin_address(), sync_latency: server.sync_latency });
        serve_until(server, signals, config.shutdown.grace).await;
        Ok(())
    })
}

impl Server {
    /// Opens what the configuration names and serves it: the data folder first, then the listeners; the one for
    /// monitoring is bound before all, and served last.
    ///
    /// Has to be called within a tokio runtime with time and I/O enabled.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, Methods::new())
    }

    /// The same with methods of extended authentication (MQTT 5.0 section 4.12), which clients may name in CONNECT.
    pub fn open_with(config: &Config, methods: Methods) -> Result<Self, StartError> {
        let bound = match &config.admin {
            admin::Config { enabled: true, listen, .. } => Some(admin::Bound::new(*listen)?),
            admin::Config { enabled: false, .. } => None,
        };
        let started_at = wall_clock();
        let (broker, from) =
            Broker::open(config.broker.clone(), &config.data, config.store.clone(), wall_clock())?;
        broker.set_authentication(methods);
        let clock = Arc::new(SystemClock::starting_at(from));
        let sync_latency = measure_disk(config, &clock);
        broker.start(clock)?;
        let sockets: Vec<ListenerConfig> = config.listeners.iter().map(|l| l.socket.clone()).collect();
        match Self::start(Arc::clone(&broker), &sockets, config.network.clone()) {
            Ok(mut server) => {
                server.sync_latency = sync_latency;
                let listeners = server.network.listener_counters().to_vec();
                let subject = Subject { broker, listeners, sync_latency, started_at };
                server.admin = bound.map(|bound| bound.serve(subject));
                Ok(server)
            }
            Err(error) => {
                broker.close();
                Err(error)
            }
        }
    }

    /// Starts serving `broker`. All certificates are read and all addresses bound before the first connection is
    /// accepted, so an error means that nobody has been served. No listeners is allowed.
    ///
    /// Has to be called within a tokio runtime with time and I/O enabled.
    pub fn start(
        broker: Arc<Broker>,
        listeners: &[ListenerConfig],
        limits: Limits,
    ) -> Result<Self, StartError> {
        let network = Network::start(Arc::clone(&broker), listeners, limits)?;
        let timeouts = tokio::spawn(handle_timeouts(Arc::clone(&broker)));
        Ok(Self { broker, network, timeouts, admin: None, sync_latency: None })
    }

    /// The broker being served.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The listeners in the order of their configuration, with the ports the system chose.
    pub fn local_addresses(&self) -> &[Listening] {
        self.network.listening()
    }

    /// What the network has counted so far.
    pub fn counters(&self) -> CounterReading {
        self.network.counters()
    }

    /// Where metrics and health are served, with the port the system chose; `None` if they are not.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// How long the disk took to make something durable when `open` measured it.
    pub fn sync_latency(&self) -> Option<SyncLatency> {
        self.sync_latency
    }

    /// Stops accepting, asks every client to leave (DISCONNECT 0x8B to v5 clients), waits up to `grace` for them, ends
    /// the rest, and closes the journal. When it returns, no task and no thread of the server is left.
    pub async fn shutdown(self, grace: Duration) {
        self.shutdown_when(tokio::time::sleep(grace)).await;
    }

    /// The same with a grace period that ends when `grace` resolves.
    pub async fn shutdown_when(mut self, grace: impl Future<Output = ()>) {
        info!("shutting down");
        self.network.stop_accepting();
        self.broker.begin_shutdown(self.broker.now());
        self.network.close(grace).await;
        self.timeouts.abort();
        // Cancelled: that is what it was asked for.
        let _ = (&mut self.timeouts).await;
        // It has said until now that the broker is not ready.
        if let Some(admin) = self.admin {
            admin.close().await;
        }
        let broker = self.broker;
        // It waits for the disk and joins threads.
        let closed = tokio::task::spawn_blocking(move || broker.close()).await;
        match closed {
            Ok(()) => info!("shut down"),
            Err(failure) => {
                error!(%failure, "closing the journal panicked; it will be recovered at the next start");
            }
        }
    }
}

/// Says what the disk costs, and when it cannot be what it says it is.
fn measure_disk(config: &Config, clock: &SystemClock) -> Option<SyncLatency> {
    let folder = config.data.display();
    match SyncLatency::measure(&config.data, &|| clock.elapsed()) {
        Ok(latency) => {
            let SyncLatency { syncs, median, max } = latency;
            info!(%folder, syncs, ?median, ?max, "a sync of the disk (fdatasync of 4 KiB) takes");
            if !latency.is_plausible() && config.store.durability == Durability::Power {
                warn!(
                    %folder, ?median,
                    "the disk syncs faster than any medium can: the data folder is in memory (tmpfs), or the disk says \
                     that data is safe before it is; what is acknowledged may not survive a power cut"
                );
            }
            Some(latency)
        }
        Err(error) => {
            warn!(%folder, %error, "how long a sync of the disk takes could not be measured");
            None
        }
    }
}

/// Runs the broker's clock work when it is due.
async fn handle_timeouts(broker: Arc<Broker>) {
    loop {
        let now = broker.now();
        let next = broker.handle_timeout(now);
        tokio::time::sleep(next.since(now).clamp(TIMEOUTS_MIN, TIMEOUTS_MAX)).await;
    }
}

/// The signals that ask the process to end. Installed before anybody can be told that the server is up, or a signal
/// in between would kill the process without a shutdown.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM for the life of the process.
    pub fn install() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of them and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Serves until a signal, then shuts down. A second signal ends the grace period.
async fn serve_until(server: Server, mut signals: Signals, grace: Duration) {
    // Not inside the log line: a line below the log level evaluates nothing.
    let signal = signals.next().await;
    info!(signal, "asked to end");
    let cut_short = async {
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            signal = signals.next() => info!(signal, "asked again: not waiting any longer"),
        }
    };
    server.shutdown_when(cut_short).await;
}

/// The machine's clocks: the time line goes on from `from` with the monotonic one.
struct SystemClock {
    from: Timestamp,
    started: Instant,
}

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock of the process: everything below is handed the time"
    )]
    fn starting_at(from: Timestamp) -> Self {
        Self { from, started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.from.after(self.started.elapsed())
    }

    fn wall(&self) -> WallClock {
        wall_clock()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What the wall clock reads, if that can be believed.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of the process: everything below is handed the time"
)]
pub fn wall_clock() -> WallClock {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock::believed(u64::try_from(since_1970.as_millis()).unwrap_or(0))
}
