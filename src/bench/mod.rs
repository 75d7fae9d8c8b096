//! A load generator: drives any MQTT 5.0 broker from one thread, and checks every message it gets back.
//!
//! - The loop is closed: each publisher has at most a window of messages on the way, so that a broker which drops nothing
//!   within its bounds loses nothing here, and the rate is the broker's own.
//! - Every message carries its sender, its number and the time it was sent: what is lost, doubled or out of order is counted,
//!   so that a wrong run is not taken for a fast one.
//! - Connections are made before the clock runs, and a warm-up goes first.
//! - What is measured of the broker's process (CPU time, memory, disk writes) needs its process id, on the same machine.
//!
//! `dormouse bench` shows it to users; `benches/end_to_end` drives several brokers with it in turn.

#![expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]

mod ledger;
mod load;
mod outcome;
mod payload;
mod peer;
mod process;
mod sleepers;
mod target;

use std::{io, time::Duration};

pub use self::{
    ledger::Faults,
    load::{Load, Shape},
    outcome::{Latency, Outcome, Usage},
    payload::Content,
    peer::{Heard, PAYLOAD_BYTES_MIN, Peer, Session, Stamp, packet_id},
    process::{Process, Reading},
    sleepers::{Sleepers, Slept},
    target::{Login, Target, Transport},
};

/// Why a run could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The address, the certificate, or what else was given is not right.
    #[error("{0}")]
    Settings(String),
    /// The connection could not be made, or was lost.
    #[error("{doing}: {source}")]
    Connection {
        /// What was being done.
        doing: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The broker said something that has no place there.
    #[error("the broker answers {0}")]
    Protocol(String),
    /// What the kernel knows about the broker's process cannot be read.
    #[error("cannot read about the broker's process in {file}: {why}")]
    Process {
        /// Below `/proc`.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing has moved for too long.
    #[error("{0}")]
    Stalled(String),
}

type Result<T> = std::result::Result<T, BenchError>;

/// How long a run lasts.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before anything is measured.
    pub warm_up: Duration,
    /// How long messages are sent; what is on the way then is waited for.
    pub measured: Duration,
    /// The broker is left alone this long before each reading, so that what it put off is counted too.
    pub settle: Duration,
}

impl Default for Timing {
    /// Two seconds of load after half a second of warm-up. The broker is left alone longer than a confirmation may wait
    /// for a commit by default.
    fn default() -> Self {
        Self {
            warm_up: Duration::from_millis(500),
            measured: Duration::from_secs(2),
            settle: Duration::from_millis(1_500),
        }
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^52")]
pub fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
