//! The running broker: opens what the configuration names, tells when it is ready, and ends on a signal.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::config::Config;

/// What was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The address of each listener of the configuration, in its order, with the port the system chose for port 0.
    pub listeners: Vec<SocketAddr>,
}

/// Why the broker could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened to.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system refused a thread, a timer or a signal handler.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// Opens everything, calls `ready`, and returns when SIGTERM or SIGINT told the broker to end. From `ready` on, neither
/// signal kills it.
pub fn run(config: Config, ready: impl FnOnce(&Started)) -> Result<(), ServeError> {
    let mut open = Vec::with_capacity(config.listeners.len());
    let mut listeners = Vec::with_capacity(config.listeners.len());
    for listener in config.listeners {
        let address = listener.bind;
        let bound = TcpListener::bind(address).and_then(|bound| Ok((bound.local_addr()?, bound)));
        let (actual, bound) = bound.map_err(|source| ServeError::Listen { address, source })?;
        listeners.push(actual);
        open.push(bound);
    }
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        ready(&Started { listeners });
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        Ok(())
    })
}
