//! `dormouse store`: what can be done with the data of a broker that does not run.
//!
//! Damage is told in the words of the log at a start; here it is gathered and printed.

mod check;
mod compact;
mod export;
mod findings;
mod import;
mod progress;
mod rekey;
mod stats;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, config_args::ConfigArgs};
use crate::config::Config;

/// What is to be done.
#[derive(Debug, Args)]
#[command(after_help = "\
The broker has to be stopped first; while one of these runs none can be started on the same data. The key of a sealed store is taken from where \
the broker takes it: [store] key_file in the configuration, or the variable DORMOUSE_STORE_KEY.

Exit codes: 0 success, 1 something went wrong, 2 command line not understood, 3 the store is damaged (what is whole was dealt with), 78 configuration \
not right.")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Reads everything and says what is damaged, and where; changes nothing
    Check(check::CheckArgs),
    /// Says what is in the store and how much room it takes; changes nothing
    Stats(stats::StatsArgs),
    /// Writes everything in it as text (docs/store-export.md); changes nothing
    Export(export::ExportArgs),
    /// Makes a store from an export, in an empty data folder
    Import(import::ImportArgs),
    /// Copies what is wanted into fresh files and removes the old ones
    Compact(compact::CompactArgs),
    /// Seals the store, seals it with another key, or takes the seal off
    Rekey(rekey::RekeyArgs),
}

/// Which store is meant.
#[derive(Clone, Debug, Args)]
struct DataArgs {
    /// The configuration file that names the data folder
    #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
    config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "DIR", env = "DORMOUSE_DATA")]
    data: Option<PathBuf>,
    /// Says how far it is, on stderr; on a terminal it does so anyway
    #[arg(long)]
    progress: bool,
}

impl DataArgs {
    /// The configuration, for the data folder, the key and the journal's settings.
    fn config(&self) -> Result<Config, Failure> {
        Ok(ConfigArgs::of(self.config.clone(), self.data.clone()).load()?)
    }
}

/// Does it.
pub fn run(args: &StoreArgs) -> Result<(), Failure> {
    match &args.command {
        StoreCommand::Check(args) => check::run(args),
        StoreCommand::Stats(args) => stats::run(args),
        StoreCommand::Export(args) => export::run(args),
        StoreCommand::Import(args) => import::run(args),
        StoreCommand::Compact(args) => compact::run(args),
        StoreCommand::Rekey(args) => rekey::run(args),
    }
}

/// A sentence for a person.
fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::Runtime(error.to_string())
}
