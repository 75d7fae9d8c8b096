//! The command line: `dormouse [serve] | check | certs | store | bench`.
//!
//! It turns flags, variables and the file into a `Config`, calls what does the work, and turns what comes back into
//! a sentence and an exit code: 0 for success, 1 when something went wrong, 2 for a command line that is not understood, 3
//! for a store that is damaged (`store`), 78
//! (`EX_CONFIG` of sysexits) for a configuration that is not right.

mod allocator;
pub mod bench;
pub mod certs;
pub mod check;
mod config_args;
mod live;
mod logging;
mod open_files;
pub mod serve;
pub mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigErrors;
use bench::BenchArgs;
use certs::CertsArgs;
use check::CheckArgs;
use config_args::ConfigArgs;
use store::StoreArgs;

/// The MQTT broker for devices that sleep.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves; the same as no command at all
    Serve(ConfigArgs),
    /// Says whether the configuration and its certificates are right, without serving; or whether its broker lives
    Check(CheckArgs),
    /// Makes a development CA, and a server's and a client's certificate signed by it
    Certs(CertsArgs),
    /// Looks into the data of a broker that does not run: check, stats, export, import, compact, rekey
    Store(StoreArgs),
    /// Measures what a broker can do, this one or another
    Bench(BenchArgs),
}

/// Why a command ended without success. Its text is one sentence, or one line for each mistake.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is not right: exit code 78.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A store was looked at, and is not whole: exit code 3.
    #[error("the store is damaged")]
    Damaged,
    /// Anything else: exit code 1.
    #[error("{0}")]
    Runtime(String),
}

const AFTER_HELP: &str = "\
Without a file, dormouse serves this machine only: plain MQTT on 127.0.0.1:1883 and TLS on 127.0.0.1:8883, with
development certificates in ./certs, made at the first start, and its data in ./data.
`dormouse check --show` prints the configuration in force. DORMOUSE_STORE_KEY holds the key of a sealed store, if no file does.

Exit codes: 0 success, 1 something went wrong, 2 command line not understood, 3 a store is damaged \
(`dormouse store`), 78 configuration not right.";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        None => serve::run(&args.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Certs(args)) => certs::run(&args),
        Some(Command::Store(args)) => store::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            failure.exit_code()
        }
    }
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(78),
            Self::Damaged => ExitCode::from(3),
            Self::Runtime(_) => ExitCode::FAILURE,
        }
    }
}

/// Writes to stdout for a person. A reader that went away (`dormouse | head`) is no reason to stop.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(failure: &Failure) {
    use std::io::Write;
    let text = match failure {
        Failure::Config(errors) => format!("{errors}\n"),
        Failure::Damaged | Failure::Runtime(_) => format!("dormouse: {failure}\n"),
    };
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    /// Every variable a flag reads stands in the reference file, and every one that stands there is read by a flag.
    #[test]
    fn every_variable_is_documented_and_works() {
        let reference = include_str!("../../config/dormouse.toml");
        let mut command = Args::command();
        let mut read: std::collections::BTreeSet<String> =
            command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())).collect();
        let written: std::collections::BTreeSet<String> = reference
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("DORMOUSE_"))
            .map(str::to_owned)
            .collect();
        assert!(!read.is_empty());
        // The one without a flag.
        read.insert(config_args::STORE_KEY.to_owned());
        assert_eq!(read, written);
        let help = command.render_long_help().to_string();
        for variable in read {
            assert!(help.contains(&variable), "--help lacks {variable}");
        }
    }
}
