//! End to end: what a message costs the broker, with others beside it.
//!
//! Every round starts a fresh broker as a child process, drives it over loopback in a closed loop, and checks each
//! sequence number, so that a wrong run is not taken for a fast one. What is measured is the CPU time of the broker's
//! process: unlike a rate, it hardly depends on what else the machine does. `docs/performance.md` has the reading.
//!
//! ```text
//! cargo bench --bench end_to_end -- --help
//! ```

#![expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]

mod args;
mod broker;
mod connects;
mod disk;
mod fairness;
mod growth;
mod idle;
mod picture;
mod queue;
mod size;
mod storm;
mod table;

use std::{error::Error, future::Future, process::ExitCode, time::Duration};

use clap::Parser as _;
use dormouse::bench::{Content, Outcome, Sleepers, Timing, as_f64};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime, time::timeout};

use self::{
    args::{Args, Case, Scenario},
    broker::{Broker, Kind},
    table::Report,
};

/// What a table shows of a round: the columns and their values.
type Columns = Vec<(String, f64)>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The broker is left alone this long before a reading, so that what it put off is counted too. Longer than a
/// confirmation may wait for a commit by default.
const SETTLE: Duration = Duration::from_millis(1_500);

fn main() -> ExitCode {
    let args = Args::parse();
    raise_open_files();
    match measure(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("{wrong} rounds were wrong or stalled");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("end_to_end: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As far as the system allows: each connection is a file here, and one in the broker, which inherits the limit.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What is missing is seen when connections fail.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Runs what was asked for and prints it. Returns how many rounds do not count.
fn measure(args: &Args) -> Result<u32> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = args.kinds();
    let versions: Vec<String> = kinds.iter().map(|kind| kind.version(args)).collect();
    let mut report = Report::new(versions.join(", "));
    for scenario in args.scenarios() {
        if scenario == Scenario::Size {
            print!("{}", size::table(args)?);
            continue;
        }
        for round in 1..=args.rounds {
            for &case in scenario.cases() {
                for &kind in &kinds {
                    let title = scenario.title();
                    eprintln!("{title} round {round}/{} {}{case}", args.rounds, kind.name());
                    let outcome = runtime.block_on(run(args, scenario, case, kind));
                    report.add(scenario, case, kind, outcome);
                }
            }
            if matches!(scenario, Scenario::Sleepers | Scenario::Queue) {
                report.add_disk(disk::sync_latency(&args.work_dir()?)?);
            }
        }
        print!("{}", report.finish(scenario));
    }
    if let Some(path) = &args.picture {
        std::fs::write(path, report.picture.svg())?;
    }
    Ok(report.wrong())
}

async fn run(args: &Args, scenario: Scenario, case: Case, kind: Kind) -> Result<Columns> {
    let mut broker = Broker::start(args, kind, scenario.is_tls()).await?;
    let result = Box::pin(bounded(args, async {
        if let Some(load) = scenario.load(args.payload as usize) {
            return columns(&load.run(&broker.target, Some(&broker.process), timing(args)).await?, "message");
        }
        match (scenario, case) {
            (Scenario::Idle | Scenario::IdleTls, _) => idle::run(args, &mut broker).await,
            (Scenario::Connects | Scenario::ConnectsTls, _) => {
                connects::run(args, &broker, scenario.is_tls()).await
            }
            (Scenario::Storm, _) => storm::run(args, &broker).await,
            (Scenario::Sleepers, _) => sleepers(args, &mut broker).await,
            (Scenario::Queue, _) => queue::run(args, &mut broker).await,
            (_, Case::Size(size)) => growth::run(args, &broker, scenario, size).await,
            (_, Case::Disturbed(by)) => fairness::run(args, &broker, by).await,
            (_, Case::Plain) => Err("this is not run".into()),
        }
    }))
    .await;
    let log = broker.stop().await?;
    result.map_err(|error| if log.is_empty() { error } else { format!("{error}\n{log}").into() })
}

fn timing(args: &Args) -> Timing {
    Timing { measured: Duration::from_secs(args.seconds), ..Timing::default() }
}

/// Whatever happens, a round ends.
async fn bounded<T>(args: &Args, work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(Duration::from_secs(args.limit_s), work).await {
        Ok(result) => result,
        Err(_) => Err(format!("not done after {} s: stalled", args.limit_s).into()),
    }
}

/// The columns of a load. One that was wrong has none.
fn columns(outcome: &Outcome, what: &str) -> Result<Columns> {
    if !outcome.faults.is_none() {
        return Err(outcome.faults.to_string().into());
    }
    let mut columns = vec![(format!("{what}s/s"), outcome.rate)];
    if let Some(usage) = outcome.usage {
        columns.insert(0, (format!("CPU us/{what}"), usage.cpu_us_per_message));
        columns.push(("RSS MiB".to_owned(), mib(usage.rss_bytes)));
        columns.push((format!("disk bytes/{what}"), usage.disk_bytes_per_message));
    }
    if let Some(latency) = outcome.delivery {
        columns.push(("delivery us, p50".to_owned(), latency.p50_us));
        columns.push(("p99".to_owned(), latency.p99_us));
    }
    if let Some(latency) = outcome.acknowledgement {
        columns.push(("ack us, p50".to_owned(), latency.p50_us));
        columns.push(("p99".to_owned(), latency.p99_us));
    }
    Ok(columns)
}

/// Messages for sessions that sleep.
async fn sleepers(args: &Args, broker: &mut Broker) -> Result<Columns> {
    const PUBLISHERS: u64 = 4;
    const MESSAGES: u32 = 40_000;
    let sessions = u64::from(args.clients(1_000)) / PUBLISHERS * PUBLISHERS;
    let sleepers = Sleepers {
        sessions,
        each: args.scaled(MESSAGES).div_ceil(sessions),
        publishers: PUBLISHERS,
        in_flight: args.in_flight,
        pace: None,
        payload_bytes: args.payload as usize,
        content: Content::Dots,
        name: "cmd".to_owned(),
    };
    let slept = sleepers.run(&broker.target, Some(&broker.process), SETTLE).await?;
    let mut all = columns(&slept.published, "ack")?;
    all.extend(
        columns(&slept.woken, "message")?.into_iter().map(|(name, value)| (format!("wake: {name}"), value)),
    );
    all.push(("folder MiB, at the end".to_owned(), mib(broker.folder_bytes()?)));
    Ok(all)
}

/// Mebibytes.
fn mib(bytes: u64) -> f64 {
    as_f64(bytes) / f64::from(1 << 20)
}
