//! The admin listener: a few read-only pages over HTTP, for monitoring and for whoever restarts the broker.
//!
//! `/metrics` has the counts (`metrics`), `/livez` says whether the broker makes progress, `/readyz` whether everything
//! it promises can be kept. It changes nothing, asks nobody who he is, and shows no message, topic or client name; so it
//! is on the loopback address unless the configuration says otherwise in so many words.
//!
//! Invariants: what a client can take is bounded (`http`); every task is owned and joined by [`Admin::close`]; nothing
//! here is on the way of a message.

mod http;
mod metrics;
mod process;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tracing::{error, info};

use crate::{broker::Broker, net::network::ListenerCounters, store::SyncLatency, time::WallClock};
use metrics::Reader;

/// Connections that the kernel completes ahead of us.
const BACKLOG: u32 = 16;

/// The listener's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether there is one. Default yes.
    pub enabled: bool,
    /// Where it listens; port 0 lets the system choose. Default 127.0.0.1:9883: one that only this machine reaches.
    pub listen: SocketAddr,
    /// Whether it may be where other machines reach it, who then read what they like. Default no.
    pub allow_anonymous: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9883)), allow_anonymous: false }
    }
}

/// The listener cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for monitoring: {source}; another broker may be running: choose another address with --admin, or --admin off"
)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// What is looked at.
pub struct Subject {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Its listeners.
    pub listeners: Vec<ListenerCounters>,
    /// What a sync of the disk took at the start.
    pub sync_latency: Option<SyncLatency>,
    /// When the broker was started.
    pub started_at: WallClock,
}

/// A listener that is bound and not served yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// A listener that is being served. Dropping it cuts it off; `close` is the way to end it.
pub struct Admin {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Bound {
    /// Binds and listens. Needs a tokio runtime around it.
    pub fn new(address: SocketAddr) -> Result<Self, BindError> {
        Self::bind(address).map_err(|source| BindError { address, source })
    }

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Begins to serve.
    pub fn serve(self, subject: Subject) -> Admin {
        let Self { listener, address } = self;
        info!(%address, "metrics and health are served");
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(http::serve(listener, Arc::new(Reader::new(subject)), stopped));
        Admin { address, stop, serving }
    }
}

impl Admin {
    /// Where it listens, with the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts off who is connected. Nothing of it runs any more when this returns.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        if let Err(failure) = (&mut self.serving).await
            && failure.is_panic()
        {
            error!(%failure, "the admin listener's task panicked; this is a defect of the broker");
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
