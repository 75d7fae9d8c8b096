//! What can be asked for on the command line.

use std::{fs, path::PathBuf};

use clap::{Parser, ValueEnum};
use dormouse::codec::QoS;

use crate::{Result, broker::Kind, pairs::Pairs, peer::Session};

/// Measures what a message costs the broker, with Mosquitto beside it. A Markdown table goes to stdout.
#[derive(Debug, Parser)]
#[command(name = "end_to_end")]
pub(crate) struct Args {
    /// What is run, separated by commas. Default: everything
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Which brokers are driven, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dormouse,mosquitto")]
    broker: Vec<Kind>,
    /// Our binary
    #[arg(long, default_value = env!("CARGO_BIN_EXE_dormouse"))]
    pub(crate) dormouse: PathBuf,
    /// Mosquitto's; if it is not there, ours is measured alone
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    pub(crate) mosquitto: PathBuf,
    /// Rounds of each scenario for each broker; the table has their medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// Multiplies the number of messages of every scenario
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub(crate) scale: f64,
    /// Publisher-subscriber pairs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) pairs: u32,
    /// Idle connections, and sleeping sessions
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(4..=10_000))]
    pub(crate) clients: u32,
    /// A round that is not done after this many seconds has stalled
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) limit_s: u64,
    /// Where the data folders are made: on the disk that is to be measured
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    data: PathBuf,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// `QoS` 0 to transient subscribers
    Qos0,
    /// `QoS` 1 to transient subscribers
    Qos1,
    /// `QoS` 2 to transient subscribers
    Qos2,
    /// `QoS` 0, one message of each publisher at a time
    Qos0Single,
    /// `QoS` 1, one message of each publisher at a time
    Qos1Single,
    /// `QoS` 1 to persistent subscribers that are online and confirm at once
    Online,
    /// The same with `QoS` 2
    OnlineQos2,
    /// `QoS` 1 to persistent sessions that sleep, who then wake and take what waited
    Durable,
    /// A million messages for ten thousand sleeping sessions: memory, restart, and taking them all
    Queue,
    /// How long a single message takes
    Latency,
    /// Memory and CPU time of idle connections
    Idle,
    /// The same over TLS
    IdleTls,
    /// The size of the binaries
    Size,
}

impl Args {
    /// In their fixed order, without repetitions.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants().iter().copied();
        all.filter(|scenario| self.scenario.is_empty() || self.scenario.contains(scenario)).collect()
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.broker.clone();
        if !self.mosquitto.exists() {
            eprintln!("{} is not there: no comparison", self.mosquitto.display());
            kinds.retain(|&kind| kind != Kind::Mosquitto);
        }
        kinds
    }

    /// A number of messages, scaled.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both factors are bounded")]
    pub(crate) fn scaled(&self, messages: u32) -> u64 {
        (f64::from(messages) * self.scale) as u64
    }

    /// The folder the data folders are made in, made when missing.
    pub(crate) fn work_dir(&self) -> Result<PathBuf> {
        fs::create_dir_all(&self.data)?;
        Ok(fs::canonicalize(&self.data)?)
    }
}

impl Scenario {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Qos0 => "QoS 0, window 50",
            Self::Qos1 => "QoS 1, window 50",
            Self::Qos2 => "QoS 2, window 50",
            Self::Qos0Single => "QoS 0, window 1",
            Self::Qos1Single => "QoS 1, window 1",
            Self::Online => "QoS 1, persistent subscribers online, window 50",
            Self::OnlineQos2 => "QoS 2, persistent subscribers online, window 50",
            Self::Durable => "QoS 1 to sleeping sessions, 4 publishers, 100 in flight each",
            Self::Queue => "100 messages of 200 bytes for each of 10,000 sleeping sessions",
            Self::Latency => "One message at a time",
            Self::Idle => "Idle connections, TCP",
            Self::IdleTls => "Idle connections, TLS",
            Self::Size => "Size of the binary",
        }
    }

    /// How the pairs behave. Only for the scenarios that have pairs.
    pub(crate) fn pairs(self) -> Pairs {
        let (qos, subscribers, window, messages) = match self {
            Self::Qos0Single => (QoS::AtMostOnce, Session::Transient, 1, 8_000),
            Self::Qos1 => (QoS::AtLeastOnce, Session::Transient, 50, 20_000),
            Self::Qos1Single => (QoS::AtLeastOnce, Session::Transient, 1, 5_000),
            Self::Qos2 => (QoS::ExactlyOnce, Session::Transient, 50, 8_000),
            Self::Online => (QoS::AtLeastOnce, Session::Persistent, 50, 10_000),
            Self::OnlineQos2 => (QoS::ExactlyOnce, Session::Persistent, 50, 2_000),
            _ => (QoS::AtMostOnce, Session::Transient, 50, 40_000),
        };
        Pairs { qos, subscribers, window, messages }
    }
}

fn scale(text: &str) -> std::result::Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1_000.0).contains(&scale) { Ok(scale) } else { Err("not within 0.001 and 1000".into()) }
}
