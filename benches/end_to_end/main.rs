//! End to end: what a message costs the broker, with Mosquitto beside it.
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
mod disk;
mod durable;
mod idle;
mod latency;
mod ledger;
mod pairs;
mod peer;
mod process;
mod queue;
mod size;
mod table;

use std::{error::Error, future::Future, process::ExitCode, time::Duration};

use clap::Parser as _;
use tokio::{runtime, task::LocalSet, time::timeout};

use self::{
    args::{Args, Scenario},
    broker::{Broker, Kind},
    table::Report,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The broker is left alone this long before a reading, so that what it put off is counted too. Longer than a
/// confirmation may wait for a commit by default.
const SETTLE: Duration = Duration::from_millis(1_500);

fn main() -> ExitCode {
    let args = Args::parse();
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

/// Runs what was asked for and prints it. Returns how many rounds do not count.
fn measure(args: &Args) -> Result<u32> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = args.kinds();
    let mut report = Report::default();
    for scenario in args.scenarios() {
        if scenario == Scenario::Size {
            print!("{}", size::table(args)?);
            continue;
        }
        for round in 1..=args.rounds {
            for &kind in &kinds {
                eprintln!("{} round {round}/{} {}", scenario.title(), args.rounds, kind.name());
                let outcome = LocalSet::new().block_on(&runtime, run(args, scenario, kind));
                report.add(scenario, kind, outcome);
            }
            if matches!(scenario, Scenario::Durable | Scenario::Queue) {
                report.add_disk(disk::sync_latency(&args.work_dir()?)?);
            }
        }
        print!("{}", report.finish(scenario));
    }
    Ok(report.wrong())
}

async fn run(args: &Args, scenario: Scenario, kind: Kind) -> Result<Vec<(&'static str, f64)>> {
    let mut broker = Broker::start(args, kind, scenario == Scenario::IdleTls).await?;
    let result = bounded(args, async {
        match scenario {
            Scenario::Idle | Scenario::IdleTls => idle::run(args, &mut broker).await,
            Scenario::Durable => durable::run(args, &mut broker).await,
            Scenario::Queue => queue::run(args, &mut broker).await,
            Scenario::Latency => latency::run(&mut broker).await,
            Scenario::Size => Err("the size is not run".into()),
            _ => pairs::run(args, &mut broker, scenario.pairs()).await,
        }
    })
    .await;
    let log = broker.stop().await?;
    result.map_err(|error| if log.is_empty() { error } else { format!("{error}\n{log}").into() })
}

/// Whatever happens, a round ends.
async fn bounded<T>(args: &Args, work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(Duration::from_secs(args.limit_s), work).await {
        Ok(result) => result,
        Err(_) => Err(format!("not done after {} s: stalled", args.limit_s).into()),
    }
}
