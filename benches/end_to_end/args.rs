//! What can be asked for on the command line.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use dormouse::{
    bench::{Content, Load, Session, Shape},
    codec::QoS,
};

use crate::{Result, broker::Kind};

/// Measures what a message costs the broker, with others beside it. A Markdown table goes to stdout.
#[derive(Debug, Parser)]
#[command(name = "end_to_end")]
pub(crate) struct Args {
    /// What is run, separated by commas. Default: everything
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Which brokers are driven, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dormouse,mosquitto,rumqttd,rmqttd")]
    broker: Vec<Kind>,
    /// Our binary
    #[arg(long, default_value = env!("CARGO_BIN_EXE_dormouse"))]
    pub(crate) dormouse: PathBuf,
    /// Mosquitto's (Debian: `apt install mosquitto`); a broker whose binary is not there is left out
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    pub(crate) mosquitto: PathBuf,
    /// Rumqttd's (`cargo install rumqttd`)
    #[arg(long, default_value = "rumqttd")]
    pub(crate) rumqttd: PathBuf,
    /// Rmqttd's (`cargo install rmqttd`)
    #[arg(long, default_value = "rmqttd")]
    pub(crate) rmqttd: PathBuf,
    /// Rounds of each scenario for each broker; the table has their medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// How long messages are sent in each round, in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Multiplies the number of messages where they are counted: sleepers, queue
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub(crate) scale: f64,
    /// Messages without an acknowledgement of each of the four publishers to sleepers
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) in_flight: u64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub(crate) payload: u32,
    /// Connections, or sleeping sessions, where they are counted. Default: 1,000 sleepers, 10,000 of the others
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..=10_000))]
    clients: Option<u32>,
    /// A round that is not done after this many seconds has stalled
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) limit_s: u64,
    /// Draws the curves of the growth scenarios that are run into this SVG file
    #[arg(long)]
    pub(crate) picture: Option<PathBuf>,
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
    /// `QoS` 0, 10 publishers to 1 subscriber
    Qos0FanIn,
    /// `QoS` 0, 1 publisher to 100 subscribers
    Qos0FanOut,
    /// `QoS` 0, 10 pairs
    Qos0Pairs,
    /// `QoS` 1, 10 publishers to 1 subscriber
    Qos1FanIn,
    /// `QoS` 1, 1 publisher to 100 subscribers
    Qos1FanOut,
    /// `QoS` 1, 10 pairs
    Qos1Pairs,
    /// `QoS` 2, 10 pairs
    Qos2Pairs,
    /// `QoS` 0, one message of each of 10 publishers at a time
    Qos0Single,
    /// `QoS` 1, one message of each of 10 publishers at a time
    Qos1Single,
    /// `QoS` 1, 10 pairs, 5,000 messages a second in all: the cost of waking
    Qos1Paced,
    /// `QoS` 1, 10 pairs, to persistent subscribers that are online and confirm at once
    Online,
    /// The same with `QoS` 2
    OnlineQos2,
    /// `QoS` 1 to persistent sessions that sleep, who then wake and take what waited
    Sleepers,
    /// A million messages for ten thousand sleeping sessions: memory, restart, and taking them all
    Queue,
    /// `QoS` 1, one message at a time, to a transient subscriber
    Latency,
    /// The same to a persistent subscriber that is online
    LatencyOnline,
    /// `QoS` 0 and 1, 10 pairs, while others have 10 to 100,000 subscriptions
    GrowthSubscriptions,
    /// The same while others change 0 to 1,000 subscriptions a second
    GrowthChanges,
    /// The same while 0 to 1,000,000 messages wait for others, who sleep
    GrowthQueued,
    /// The same while 10 to 10,000 others are connected and silent
    GrowthConnections,
    /// `QoS` 0 and 1, 1 publisher to 1, 10, 100, 1,000 and 5,000 subscribers
    GrowthFanOut,
    /// `QoS` 1, one pair at 1,000 messages a second while others load the broker
    Fairness,
    /// Memory and CPU time of idle connections with persistent sessions, and of those sessions asleep
    Idle,
    /// The same over TLS
    IdleTls,
    /// Connecting again to persistent sessions
    Connects,
    /// The same over TLS, with a whole handshake and with a resumed one
    ConnectsTls,
    /// All clients connect again at the same time, over TLS, while a pair sends 1,000 messages a second
    Storm,
    /// The size of the binaries
    Size,
}

/// What a scenario is run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// There is only one way.
    Plain,
    /// So many of what grows.
    Size(u32),
    /// What the others do.
    Disturbed(Disturbance),
}

/// What the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Nothing,
    /// One publishes as fast as it can, to one who takes it and one who hardly does.
    Flood,
    /// One sends messages of 100 MB to another, one after the other.
    LargePayloads,
    /// One takes a million messages that have waited for it.
    Drain,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => Ok(()),
            Self::Size(size) => write!(f, ", {}", grouped(*size)),
            Self::Disturbed(Disturbance::Nothing) => f.write_str(", alone"),
            Self::Disturbed(Disturbance::Flood) => {
                f.write_str(", QoS 0 at full speed, and a slow subscriber")
            }
            Self::Disturbed(Disturbance::LargePayloads) => f.write_str(", payloads of 100 MB"),
            Self::Disturbed(Disturbance::Drain) => f.write_str(", 1,000,000 messages to one session"),
        }
    }
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Args {
    /// In their fixed order, without repetitions.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants().iter().copied();
        all.filter(|scenario| self.scenario.is_empty() || self.scenario.contains(scenario)).collect()
    }

    /// How many connections or sessions, if not said `otherwise`.
    pub(crate) fn clients(&self, otherwise: u32) -> u32 {
        self.clients.unwrap_or(otherwise)
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.broker.clone();
        kinds.retain(|&kind| {
            let is_there = located(kind.binary(self)).is_some();
            if !is_there {
                eprintln!("{} is not there ({})", kind.name(), kind.binary(self).display());
            }
            is_there
        });
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

/// Where the program is: in the path, if no folder is named.
pub(crate) fn located(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

impl Scenario {
    /// What it is run with, each in a table row of its own.
    pub(crate) fn cases(self) -> &'static [Case] {
        use Case::{Disturbed, Plain, Size};
        match self {
            Self::GrowthSubscriptions => &[Size(10), Size(100), Size(1_000), Size(10_000), Size(100_000)],
            Self::GrowthChanges => &[Size(0), Size(10), Size(100), Size(1_000)],
            Self::GrowthQueued => &[Size(0), Size(10_000), Size(100_000), Size(1_000_000)],
            Self::GrowthConnections => &[Size(10), Size(100), Size(1_000), Size(10_000)],
            Self::GrowthFanOut => &[Size(1), Size(10), Size(100), Size(1_000), Size(5_000)],
            Self::Fairness => &[
                Disturbed(Disturbance::Nothing),
                Disturbed(Disturbance::Flood),
                Disturbed(Disturbance::LargePayloads),
                Disturbed(Disturbance::Drain),
            ],
            _ => &[Plain],
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::IdleTls | Self::ConnectsTls | Self::Storm)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Qos0FanIn => "QoS 0, 10 publishers -> 1 subscriber",
            Self::Qos0FanOut => "QoS 0, 1 publisher -> 100 subscribers",
            Self::Qos0Pairs => "QoS 0, 10 pairs",
            Self::Qos1FanIn => "QoS 1, 10 publishers -> 1 subscriber",
            Self::Qos1FanOut => "QoS 1, 1 publisher -> 100 subscribers",
            Self::Qos1Pairs => "QoS 1, 10 pairs",
            Self::Qos2Pairs => "QoS 2, 10 pairs",
            Self::Qos0Single => "QoS 0, 10 pairs, window 1",
            Self::Qos1Single => "QoS 1, 10 pairs, window 1",
            Self::Qos1Paced => "QoS 1, 10 pairs, paced at 5,000 messages/s",
            Self::Online => "QoS 1, 10 pairs, persistent subscribers online",
            Self::OnlineQos2 => "QoS 2, 10 pairs, persistent subscribers online",
            Self::Sleepers => "QoS 1 to sleeping sessions, 4 publishers",
            Self::Queue => "100 messages of 200 bytes for each of 10,000 sleeping sessions",
            Self::Latency => "QoS 1, one message at a time",
            Self::LatencyOnline => "QoS 1, one message at a time, persistent subscriber online",
            Self::GrowthSubscriptions => "10 pairs while others have subscriptions",
            Self::GrowthChanges => "10 pairs while others subscribe and unsubscribe, so often a second",
            Self::GrowthQueued => "10 pairs while messages wait for others, who sleep",
            Self::GrowthConnections => "10 pairs while others are connected and silent",
            Self::GrowthFanOut => "1 publisher -> so many subscribers",
            Self::Fairness => "QoS 1, one pair at 1,000 messages/s while others load the broker",
            Self::Idle => "Idle connections, TCP",
            Self::IdleTls => "Idle connections, TLS",
            Self::Connects => "Connecting again, TCP",
            Self::ConnectsTls => "Connecting again, TLS 1.3",
            Self::Storm => "All connect at the same time, TLS 1.3",
            Self::Size => "Size of the binary",
        }
    }

    /// For the scenarios where everybody is online.
    pub(crate) fn load(self, payload_bytes: usize) -> Option<Load> {
        let (zero, one, two) = (QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce);
        let pairs = Shape::Pairs(10);
        let (shape, qos, window) = match self {
            Self::Qos0FanIn => (Shape::FanIn(10), zero, 50),
            Self::Qos0FanOut => (Shape::FanOut(100), zero, 50),
            Self::Qos0Pairs => (pairs, zero, 50),
            Self::Qos1FanIn => (Shape::FanIn(10), one, 50),
            Self::Qos1FanOut => (Shape::FanOut(100), one, 50),
            Self::Qos1Pairs | Self::Online | Self::Qos1Paced => (pairs, one, 50),
            Self::Qos2Pairs | Self::OnlineQos2 => (pairs, two, 50),
            Self::Qos0Single => (pairs, zero, 1),
            Self::Qos1Single => (pairs, one, 1),
            Self::Latency | Self::LatencyOnline => (Shape::Pairs(1), one, 1),
            _ => return None,
        };
        let persistent = matches!(self, Self::Online | Self::OnlineQos2 | Self::LatencyOnline);
        Some(Load {
            shape,
            qos,
            subscribers: if persistent { Session::Persistent } else { Session::Transient },
            window,
            pace: (self == Self::Qos1Paced).then_some(5_000),
            payload_bytes,
            content: Content::Dots,
            confirm_after: Duration::ZERO,
            name: "bench".to_owned(),
        })
    }
}

fn scale(text: &str) -> std::result::Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1_000.0).contains(&scale) { Ok(scale) } else { Err("not within 0.001 and 1000".into()) }
}
