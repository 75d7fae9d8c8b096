//! What the network may cost, and what it has cost so far.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bounds over all listeners together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open sockets, with those that have not sent a CONNECT. A socket beyond it is closed at once, counted and logged.
    /// Default 10,000: at some tens of KiB for an idle TLS connection, what a gateway of 1 GiB can carry. The process'
    /// limit of open files has to be higher.
    pub connections_max: usize,
    /// TLS handshakes being computed at the same time; further clients wait, inside their handshake timeout.
    /// Default 64: when everybody reconnects after a power cut, the first finish instead of all timing out together.
    pub handshakes_max: usize,
    /// TLS handshakes begun and not ended, with those whose clients are waited for. Further clients wait; for each of them the
    /// oldest one is closed whose client has been silent beyond its patience. Default 1024: some 16 KiB each beside what any
    /// connection takes, and clients that need two seconds for their answer still get through at five hundred a second.
    pub open_handshakes_max: usize,
    /// How long output may stand without the peer taking one byte of it. Default 30 s.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            handshakes_max: 64,
            open_handshakes_max: 1024,
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Counted since start, of one listener.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
    handshakes_failed: AtomicU64,
    handshakes_displaced: AtomicU64,
    proxies_refused: AtomicU64,
    upgrades_refused: AtomicU64,
    connect_timeouts: AtomicU64,
    closed: AtomicU64,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterReading {
    /// Sockets accepted, without the refused.
    pub accepted: u64,
    /// Sockets closed at once because `Limits::connections_max` were open.
    pub refused: u64,
    /// Failed calls of `accept`, without connections that the peer took back.
    pub accept_errors: u64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// TLS handshakes whose clients went silent and whose places others waited for.
    pub handshakes_displaced: u64,
    /// Connections closed because a PROXY header was expected and none came, or not from where one may come.
    pub proxies_refused: u64,
    /// HTTP requests to WebSocket listeners that were refused, or did not come in time.
    pub upgrades_refused: u64,
    /// Connections closed because no CONNECT came in time.
    pub connect_timeouts: u64,
    /// Connections that have ended, of the accepted.
    pub closed: u64,
}

impl CounterReading {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            accept_errors: self.accept_errors + other.accept_errors,
            handshakes_failed: self.handshakes_failed + other.handshakes_failed,
            handshakes_displaced: self.handshakes_displaced + other.handshakes_displaced,
            proxies_refused: self.proxies_refused + other.proxies_refused,
            upgrades_refused: self.upgrades_refused + other.upgrades_refused,
            connect_timeouts: self.connect_timeouts + other.connect_timeouts,
            closed: self.closed + other.closed,
        }
    }

    /// Accepted and not ended yet.
    pub fn open(self) -> u64 {
        self.accepted.saturating_sub(self.closed)
    }
}

impl Counters {
    /// Reads them all; each is exact, the set is not a snapshot of one moment.
    pub fn read(&self) -> CounterReading {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterReading {
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            accept_errors: get(&self.accept_errors),
            handshakes_failed: get(&self.handshakes_failed),
            handshakes_displaced: get(&self.handshakes_displaced),
            proxies_refused: get(&self.proxies_refused),
            upgrades_refused: get(&self.upgrades_refused),
            connect_timeouts: get(&self.connect_timeouts),
            closed: get(&self.closed),
        }
    }

    pub(super) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_handshake_displaced(&self) {
        self.handshakes_displaced.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_proxy_refused(&self) {
        self.proxies_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_upgrade_refused(&self) {
        self.upgrades_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_connect_timeout(&self) {
        self.connect_timeouts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}
