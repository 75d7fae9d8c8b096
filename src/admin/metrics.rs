//! What is counted below, as a page for Prometheus and its like (the text format of `OpenMetrics` 1.0). The names stand
//! in `families`.
//!
//! The floors below count plain values, and know neither names nor format. `docs/metrics.md` is generated from this list, and a test
//! holds it against it.

mod families;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, text::encode},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};

use self::families::families;
use super::{Subject, process::Process};
use crate::{
    broker::{Broker, SessionStats, Stats},
    net::limits::CounterReading,
    store::SyncLatency,
    sync::lock,
    telemetry::HistogramReading,
    time::{Timestamp, WallClock},
};

/// Going through all sessions takes tens of milliseconds when there are a hundred thousand: at most once in this time,
/// however often it is asked for.
const SESSIONS_EVERY: Duration = Duration::from_secs(1);

/// Reads a serving broker.
pub(super) struct Reader {
    subject: Subject,
    sessions: Mutex<Option<(Timestamp, SessionStats)>>,
}

/// All that is shown, read at one time.
#[derive(Clone, Debug, Default)]
struct Reading {
    /// Name, transport, counts.
    listeners: Vec<(Arc<str>, &'static str, CounterReading)>,
    broker: Stats,
    sessions: SessionStats,
    process: Process,
    sync_latency: Option<SyncLatency>,
    started_at: WallClock,
    is_ready: bool,
}

/// One metric with all its samples.
struct Family {
    /// Without unit and `_total`.
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    labels: &'static [&'static str],
    samples: Samples,
}

/// Each with the values of its labels.
enum Samples {
    Counters(Vec<(Vec<String>, Count)>),
    Gauges(Vec<(Vec<String>, f64)>),
    /// A reading, and how many of its units make one of the metric's.
    Histogram(HistogramReading, f64),
    /// The values of its labels.
    Info(Vec<String>),
}

#[derive(Clone, Copy)]
enum Count {
    Whole(u64),
    Seconds(f64),
}

impl Reader {
    pub(super) fn new(subject: Subject) -> Self {
        Self { subject, sessions: Mutex::default() }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.subject.broker
    }

    /// The page. Waits for locks and asks the file system: not for a thread that serves clients.
    pub(super) fn metrics(&self) -> Result<String, fmt::Error> {
        let Subject { broker, listeners, sync_latency, started_at } = &self.subject;
        let listeners = listeners.iter().map(|l| (Arc::clone(&l.name), l.transport, l.read())).collect();
        Page::write(Reading {
            listeners,
            broker: broker.stats(),
            sessions: self.sessions(),
            process: Process::read(),
            sync_latency: *sync_latency,
            started_at: *started_at,
            is_ready: broker.unready().is_empty(),
        })
    }

    /// Held while they are counted: who asks meanwhile gets the same.
    fn sessions(&self) -> SessionStats {
        let broker = &self.subject.broker;
        let mut last = lock(&self.sessions);
        let now = broker.now();
        match *last {
            Some((at, stats)) if now.since(at) < SESSIONS_EVERY => stats,
            _ => {
                let stats = broker.session_stats();
                *last = Some((now, stats));
                stats
            }
        }
    }
}

/// A reading on its way to the text.
#[derive(Debug)]
struct Page(Reading);

impl Page {
    fn write(reading: Reading) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Self(reading)));
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        families(&self.0).iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

impl EncodeCounterValue for Count {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::CounterValueEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        match self {
            Self::Whole(count) => EncodeCounterValue::encode(count, encoder),
            Self::Seconds(seconds) => EncodeCounterValue::encode(seconds, encoder),
        }
    }
}

impl Family {
    fn kind(&self) -> MetricType {
        match self.samples {
            Samples::Counters(_) => MetricType::Counter,
            Samples::Gauges(_) => MetricType::Gauge,
            Samples::Histogram(..) => MetricType::Histogram,
            Samples::Info(_) => MetricType::Info,
        }
    }

    fn labelled(&self, values: &[String]) -> Vec<(&'static str, String)> {
        self.labels.iter().copied().zip(values.iter().cloned()).collect()
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), self.kind())?;
        let no_exemplar = None::<&Exemplar<Vec<(String, String)>, f64>>;
        match &self.samples {
            Samples::Counters(samples) => {
                for (values, count) in samples {
                    if self.labels.is_empty() {
                        metric.encode_counter(count, no_exemplar)?;
                    } else {
                        metric.encode_family(&self.labelled(values))?.encode_counter(count, no_exemplar)?;
                    }
                }
            }
            Samples::Gauges(samples) => {
                for (values, value) in samples {
                    if self.labels.is_empty() {
                        metric.encode_gauge(value)?;
                    } else {
                        metric.encode_family(&self.labelled(values))?.encode_gauge(value)?;
                    }
                }
            }
            Samples::Histogram(reading, per_unit) => {
                let bounds = reading.bounds.iter().map(|bound| float(*bound) / per_unit);
                let bounds = bounds.chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(reading.counts.iter().copied()).collect();
                let count = reading.counts.iter().sum();
                let sum = float(reading.sum) / per_unit;
                metric.encode_histogram::<Vec<(String, String)>>(sum, count, &buckets, None)?;
            }
            Samples::Info(values) => metric.encode_info(&self.labelled(values))?,
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}
