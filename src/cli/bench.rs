//! `dormouse bench`: what a broker can do, Dormouse or another one.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::runtime;

use super::{Failure, say};
use crate::{
    bench::{
        Content, Latency, Load, Login, Outcome, Process, Session, Shape, Sleepers, Target, Timing, Transport,
    },
    codec::QoS,
    store::SyncLatency,
};

/// How the broker is driven.
#[derive(Debug, Args)]
#[command(after_help = "\
Drives the broker from one thread, with MQTT 5.0. Every message is numbered and every number is checked: what is lost, doubled
or out of order is counted, and makes the exit code 1. Topics and client identifiers begin with `dormouse-bench-`; their sessions
are removed at the end.

The rate is what the broker and this command reach together; on one machine they share its cores. CPU time (--pid) is the
better measure: it hardly depends on what else the machine does.")]
pub struct BenchArgs {
    /// The broker: mqtt://HOST:PORT, or mqtts://HOST:PORT with --ca
    #[arg(value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    url: Transport,
    /// What is run, separated by commas. Default: everything
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// How long messages are sent in each scenario
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Bytes of each message's payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    payload: u32,
    /// What payloads are filled with
    #[arg(long, value_enum, default_value_t = Filling::Dots)]
    content: Filling,
    /// Messages a second, all publishers together (`qos1-paced`, `online`, `sleepers`). Default: 1,000 in `qos1-paced`, else as many as go
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pace: Option<u32>,
    /// How long subscribers that are online take to confirm a message
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    confirm_after: u64,
    /// Publishers (`fan-in`), subscribers (`pairs`), and ten times as many subscribers (`fan-out`)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// Messages of each publisher that are on the way at a time; no more than the broker says it takes (receive maximum)
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    window: u64,
    /// Sleeping sessions (`sleepers`)
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(4..=100_000))]
    sleepers: u64,
    /// Messages for each of them
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    each: u64,
    /// The broker's process on this machine: its CPU time, memory and disk writes are told too
    #[arg(long)]
    pid: Option<u32>,
    /// The folder of the broker's data: how long its disk takes for a sync is told too
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// PEM: the authority that has signed the broker's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The user name, if the broker asks for one; the password is read from `DORMOUSE_BENCH_PASSWORD`
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Prints one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Scenario {
    /// `QoS` 0, many publishers to one subscriber
    Qos0FanIn,
    /// `QoS` 0, one publisher to many subscribers
    Qos0FanOut,
    /// `QoS` 0, publishers with a subscriber each
    Qos0Pairs,
    /// `QoS` 1, many publishers to one subscriber
    Qos1FanIn,
    /// `QoS` 1, one publisher to many subscribers
    Qos1FanOut,
    /// `QoS` 1, publishers with a subscriber each
    Qos1Pairs,
    /// `QoS` 2, publishers with a subscriber each
    Qos2Pairs,
    /// `QoS` 1, 1,000 messages a second: latency, and the cost of waking
    Qos1Paced,
    /// `QoS` 1 to persistent sessions that are online
    Online,
    /// `QoS` 1 to persistent sessions that sleep, who then wake and take what waited
    Sleepers,
}

/// What payloads are filled with, behind the 20 bytes by which a message is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Filling {
    /// Always the same
    Dots,
    /// A sensor's readings, as JSON
    Readings,
}

impl From<Filling> for Content {
    fn from(filling: Filling) -> Self {
        match filling {
            Filling::Dots => Self::Dots,
            Filling::Readings => Self::Readings,
        }
    }
}

/// Everything that was found.
#[derive(Serialize)]
struct Report {
    broker: String,
    /// What 4 KiB and a sync take at the median, in microseconds.
    sync_us: Option<f64>,
    results: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    scenario: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Scenario {
    fn load(self, args: &BenchArgs, name: &str) -> Option<Load> {
        let many = args.clients;
        let (qos, shape) = match self {
            Self::Qos0FanIn => (QoS::AtMostOnce, Shape::FanIn(many)),
            Self::Qos0FanOut => (QoS::AtMostOnce, Shape::FanOut(many * 10)),
            Self::Qos0Pairs => (QoS::AtMostOnce, Shape::Pairs(many)),
            Self::Qos1FanIn => (QoS::AtLeastOnce, Shape::FanIn(many)),
            Self::Qos1FanOut => (QoS::AtLeastOnce, Shape::FanOut(many * 10)),
            Self::Qos1Pairs | Self::Qos1Paced | Self::Online => (QoS::AtLeastOnce, Shape::Pairs(many)),
            Self::Qos2Pairs => (QoS::ExactlyOnce, Shape::Pairs(many)),
            Self::Sleepers => return None,
        };
        let subscribers = if self == Self::Online { Session::Persistent } else { Session::Transient };
        Some(Load {
            shape,
            qos,
            subscribers,
            window: args.window,
            pace: match self {
                Self::Qos1Paced => args.pace.or(Some(1_000)),
                Self::Online => args.pace,
                _ => None,
            },
            payload_bytes: args.payload as usize,
            content: args.content.into(),
            confirm_after: Duration::from_millis(args.confirm_after),
            name: name.to_owned(),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Qos0FanIn => "qos0-fan-in",
            Self::Qos0FanOut => "qos0-fan-out",
            Self::Qos0Pairs => "qos0-pairs",
            Self::Qos1FanIn => "qos1-fan-in",
            Self::Qos1FanOut => "qos1-fan-out",
            Self::Qos1Pairs => "qos1-pairs",
            Self::Qos2Pairs => "qos2-pairs",
            Self::Qos1Paced => "qos1-paced",
            Self::Online => "online",
            Self::Sleepers => "sleepers",
        }
    }
}

/// Runs what was asked for and prints it.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Runtime(error.to_string());
    let password = std::env::var("DORMOUSE_BENCH_PASSWORD").unwrap_or_default();
    let login = args.user.clone().map(|user_name| Login { user_name, password });
    let target = Target::new(args.url.clone(), args.ca.as_deref(), login).map_err(|error| failed(&error))?;
    let broker = args.pid.map(Process::new);
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let sync_us = args.disk.as_deref().map(sync_us).transpose()?;
    let mut results = Vec::new();
    let all = Scenario::value_variants().iter().copied();
    for scenario in all.filter(|one| args.scenario.is_empty() || args.scenario.contains(one)) {
        eprintln!("{} ..", scenario.name());
        let ran = runtime.block_on(one(args, scenario, &target, broker.as_ref()));
        let ran = ran.map_err(|error| Failure::Runtime(format!("{}: {error}", scenario.name())))?;
        results.extend(ran);
    }
    let wrong = results.iter().filter(|row| !row.outcome.faults.is_none()).count();
    let report = Report { broker: args.url.to_string(), sync_us, results };
    if args.json {
        say(&format!("{}\n", serde_json::to_string_pretty(&report).map_err(|error| failed(&error))?));
    } else {
        say(&table(&report));
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::Runtime("messages were lost, doubled, or out of order: see the table".to_owned())),
    }
}

async fn one(
    args: &BenchArgs,
    scenario: Scenario,
    target: &Target,
    broker: Option<&Process>,
) -> Result<Vec<Row>, crate::bench::BenchError> {
    let name = format!("dormouse-bench-{}-{}", process::id(), scenario.name());
    let timing = Timing { measured: Duration::from_secs(args.seconds), ..Timing::default() };
    let row = |scenario, outcome| Row { scenario, outcome };
    if let Some(load) = scenario.load(args, &name) {
        return Ok(vec![row(scenario.name(), load.run(target, broker, timing).await?)]);
    }
    let publishers = 4;
    let sleepers = Sleepers {
        sessions: args.sleepers / publishers * publishers,
        each: args.each,
        publishers,
        in_flight: args.window * 2,
        pace: args.pace,
        payload_bytes: args.payload as usize,
        content: args.content.into(),
        name,
    };
    let slept = sleepers.run(target, broker, timing.settle).await?;
    Ok(vec![row("sleepers, asleep", slept.published), row("sleepers, waking", slept.woken)])
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn sync_us(folder: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    let measured = SyncLatency::measure(folder, &|| begun.elapsed())
        .map_err(|error| Failure::Runtime(format!("cannot write in {}: {error}", folder.display())))?;
    Ok(measured.median.as_secs_f64() * 1e6)
}

fn table(report: &Report) -> String {
    let mut text = format!("{}\n", report.broker);
    if let Some(sync_us) = report.sync_us {
        let _ = writeln!(text, "4 KiB and a sync of the disk: {sync_us:.0} us (median)");
    }
    let _ = writeln!(
        text,
        "\n{:<18}{:>12}{:>22}{:>22}{:>10}{:>10}{:>12}{:>12}  lost/doubled/out of order",
        "",
        "messages/s",
        "delivery us p50/p99",
        "ack us p50/p99",
        "CPU us",
        "RSS MiB",
        "disk B/msg",
        "disk B/byte"
    );
    for Row { scenario, outcome } in &report.results {
        let latency = |latency: Option<Latency>| match latency {
            Some(Latency { p50_us, p99_us, .. }) => format!("{p50_us:.0}/{p99_us:.0}"),
            None => "-".to_owned(),
        };
        let usage = outcome.usage.map_or_else(
            || format!("{:>10}{:>10}{:>12}{:>12}", "-", "-", "-", "-"),
            |usage| {
                #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
                let rss = usage.rss_bytes as f64 / f64::from(1 << 20);
                let (cpu, disk) = (usage.cpu_us_per_message, usage.disk_bytes_per_message);
                format!("{cpu:>10.2}{rss:>10.1}{disk:>12.1}{:>12.3}", usage.disk_bytes_per_byte)
            },
        );
        let faults = outcome.faults;
        let _ = writeln!(
            text,
            "{scenario:<18}{:>12.0}{:>22}{:>22}{usage}  {}/{}/{}",
            outcome.rate,
            latency(outcome.delivery),
            latency(outcome.acknowledgement),
            faults.lost,
            faults.duplicated,
            faults.reordered
        );
    }
    text
}
