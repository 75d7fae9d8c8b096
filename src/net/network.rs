//! All listeners with all their connections: started together, stopped together, joined.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{error, info, warn};

use super::{
    accept::{Door, Shared, Tls, accept_loop},
    gate::Gate,
    handshakes::Handshakes,
    keep_alive::{Stop, Wheel},
    limits::{CounterReading, Counters, Limits},
    listener::{ListenError, ListenerConfig, Listening},
};
use crate::broker::Broker;

/// After the grace period connections are told to end at once, and have this long to do so before they are cut off.
const LAST_CALL: Duration = Duration::from_millis(500);

/// The network side of a serving broker. Dropping it cuts everything off; `close` is the way to end it.
pub struct Network {
    wheel: Wheel,
    counters: Vec<ListenerCounters>,
    listening: Vec<Listening>,
    stop_accepting: watch::Sender<bool>,
    /// An accept loop per listener; each owns its connections.
    loops: JoinSet<()>,
    ticker: JoinHandle<()>,
}

/// One listener's counters, to be read at any time, also after the network has closed.
#[derive(Clone, Debug)]
pub struct ListenerCounters {
    /// `ListenerConfig::name`.
    pub name: Arc<str>,
    /// What is spoken: `tcp`, `tls`, `unix`, `ws` or `wss`.
    pub transport: &'static str,
    counters: Arc<Counters>,
}

impl ListenerCounters {
    /// What has been counted so far.
    pub fn read(&self) -> CounterReading {
        self.counters.read()
    }
}

impl Network {
    /// Reads all certificates and binds all addresses, and only then begins to accept. Needs a tokio runtime around it.
    pub fn start(
        broker: Arc<Broker>,
        listeners: &[ListenerConfig],
        limits: Limits,
    ) -> Result<Self, ListenError> {
        Self::start_at(broker, listeners, limits)
    }

    pub(super) fn start_at<G: Gate>(
        gate: Arc<G>,
        listeners: &[ListenerConfig],
        limits: Limits,
    ) -> Result<Self, ListenError> {
        let mut bound = Vec::with_capacity(listeners.len());
        let mut handshakes = None;
        for config in listeners {
            bound.push((config.door(&mut handshakes, &limits)?, config.bind()?));
        }
        let wheel = Wheel::new();
        let ticker = {
            let gate = Arc::clone(&gate);
            tokio::spawn(wheel.clone().tick(move || gate.now()))
        };
        let shared = Arc::new(Shared::new(gate, wheel.clone(), limits));
        let (stop_accepting, stopped) = watch::channel(false);
        let counters = Vec::new();
        let mut network =
            Self { wheel, counters, listening: Vec::new(), stop_accepting, loops: JoinSet::new(), ticker };
        for ((door, listener), config) in bound.into_iter().zip(listeners) {
            let address = listener.local_address().unwrap_or_else(|| config.bind.clone());
            let is_tls = door.tls.is_some();
            info!(listener = %door.name, %address, tls = is_tls, "listening");
            network.listening.push(Listening { name: Arc::clone(&door.name), address, is_tls });
            network.counters.push(ListenerCounters {
                name: Arc::clone(&door.name),
                transport: config.transport_name(),
                counters: Arc::clone(&door.counters),
            });
            network.loops.spawn(accept_loop(listener, Arc::new(door), Arc::clone(&shared), stopped.clone()));
        }
        Ok(network)
    }

    /// The listeners in the order of their configuration, with the ports the system chose.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// What has been counted so far, over all listeners.
    pub fn counters(&self) -> CounterReading {
        self.counters.iter().map(ListenerCounters::read).fold(CounterReading::default(), CounterReading::plus)
    }

    /// The counters of each listener, in the order of their configuration.
    pub fn listener_counters(&self) -> &[ListenerCounters] {
        &self.counters
    }

    /// Closes the listening sockets. Connections go on.
    pub fn stop_accepting(&self) {
        self.stop_accepting.send_replace(true);
    }

    /// Stops accepting, ends what has not become an MQTT connection, and waits until `grace` resolves for the others,
    /// which the broker has to have asked to close. Then ends the rest. Nothing of it runs any more when this returns.
    pub async fn close(mut self, grace: impl Future<Output = ()>) {
        self.stop_accepting();
        self.wheel.stop(Stop::Drain);
        let drained = tokio::select! {
            () = self.join_loops() => true,
            () = grace => false,
        };
        if !drained {
            let connections = self.counters().open();
            warn!(connections, "connections cut off at the end of the grace period");
            self.wheel.stop(Stop::Now);
            if timeout(LAST_CALL, self.join_loops()).await.is_err() {
                self.loops.abort_all();
                self.join_loops().await;
            }
        }
        self.ticker.abort();
        // Cancelled: that is what it was asked for.
        let _ = (&mut self.ticker).await;
    }

    async fn join_loops(&mut self) {
        while let Some(ended) = self.loops.join_next().await {
            if let Err(failure) = ended
                && failure.is_panic()
            {
                error!(%failure, "a listener's task panicked; this is a defect of the broker");
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}

impl ListenerConfig {
    /// The first one with TLS starts the threads for the handshakes of all.
    fn door(&self, handshakes: &mut Option<Arc<Handshakes>>, limits: &Limits) -> Result<Door, ListenError> {
        let tls = match self.transport.tls() {
            None => None,
            Some(tls) => {
                let unusable = |source| ListenError::Tls { address: self.bind.clone(), source };
                let loaded = if self.transport.ws().is_some() { tls.load_for_http() } else { tls.load() };
                let settings = loaded.map_err(unusable)?;
                let handshakes = match handshakes {
                    Some(handshakes) => Arc::clone(handshakes),
                    None => Arc::clone(handshakes.insert(start_handshakes(limits)?)),
                };
                Some(Tls { settings, handshake_timeout: tls.handshake_timeout, handshakes })
            }
        };
        let proxy = self.proxy.clone();
        let ws = self.transport.ws().cloned();
        Ok(Door {
            name: Arc::clone(&self.name),
            connect_timeout: self.connect_timeout,
            tls,
            proxy,
            ws,
            counters: Arc::default(),
        })
    }
}

fn start_handshakes(limits: &Limits) -> Result<Arc<Handshakes>, ListenError> {
    Handshakes::start(limits).map(Arc::new).map_err(ListenError::Threads)
}
