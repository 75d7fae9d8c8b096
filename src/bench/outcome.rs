//! What a run has shown.

use std::time::Duration;

use serde::Serialize;

use super::{Faults, as_f64, micros};

/// What a run has shown.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Outcome {
    /// Messages sent, or acknowledged where nobody receives.
    pub sent: u64,
    /// Messages that reached a receiver, each receiver counted.
    pub delivered: u64,
    /// From the first message sent until the last one arrived.
    pub seconds: f64,
    /// Deliveries (acknowledgements where nobody receives) a second.
    pub rate: f64,
    /// From a message's sending to its arrival.
    pub delivery: Option<Latency>,
    /// From a message's sending to its acknowledgement (`QoS` 1) or its PUBCOMP (`QoS` 2).
    pub acknowledgement: Option<Latency>,
    /// What went wrong.
    #[serde(flatten)]
    pub faults: Faults,
    /// What it cost the broker, if its process was looked at.
    #[serde(flatten)]
    pub usage: Option<Usage>,
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_us: f64,
    /// Of a hundred, ninety-nine took no longer.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What the broker's process has used for a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// CPU time for each delivery, in microseconds.
    pub cpu_us_per_message: f64,
    /// Memory in use after it, in bytes.
    pub rss_bytes: u64,
    /// Bytes sent to the disk for each delivery.
    pub disk_bytes_per_message: f64,
}

/// Times that something took, at most a few millions of them.
#[derive(Debug, Default)]
pub(super) struct Times {
    micros: Vec<u32>,
}

/// Beyond this many no time is kept: a run of a minute at full speed stays below 32 MiB a connection.
const TIMES_MAX: usize = 4 << 20;

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        if self.micros.len() < TIMES_MAX {
            self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn clear(&mut self) {
        self.micros.clear();
    }

    /// `None` if there are none.
    pub(super) fn latency(&mut self) -> Option<Latency> {
        self.micros.sort_unstable();
        let at = |share: usize| {
            let index = (self.micros.len() * share / 100).min(self.micros.len().saturating_sub(1));
            self.micros.get(index).copied().map(f64::from)
        };
        Some(Latency { p50_us: at(50)?, p99_us: at(99)?, max_us: at(100)? })
    }
}

impl Usage {
    pub(super) fn new(cpu: Duration, written_bytes: u64, rss_bytes: u64, messages: u64) -> Self {
        let messages = as_f64(messages.max(1));
        Self {
            cpu_us_per_message: micros(cpu) / messages,
            rss_bytes,
            disk_bytes_per_message: as_f64(written_bytes) / messages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_times() {
        let mut times = Times::default();
        assert_eq!(times.latency(), None);
        for micros in (1..=100).rev() {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!(times.latency(), Some(Latency { p50_us: 51.0, p99_us: 100.0, max_us: 100.0 }));
        times.clear();
        times.add(Duration::from_secs(1 << 20));
        assert_eq!(times.latency().map(|latency| latency.p99_us), Some(f64::from(u32::MAX)));
    }
}
