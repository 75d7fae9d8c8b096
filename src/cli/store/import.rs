//! `dormouse store import`: a store from what `export` wrote.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
};

use clap::Args;

use super::{DataArgs, failed, progress::Line};
use crate::{
    cli::{Failure, logging, say},
    config::LogConfig,
    store::import,
};

/// What is to be imported.
#[derive(Clone, Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The file to read; standard input if none is named
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Makes the store.
pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    logging::init(LogConfig::default());
    let config = args.data.config()?;
    let (mut lines, bytes): (Box<dyn BufRead>, u64) = match &args.file {
        Some(path) => {
            let named =
                |error: io::Error| Failure::Runtime(format!("{} cannot be read: {error}", path.display()));
            let file = File::open(path).map_err(named)?;
            let bytes = file.metadata().map_err(named)?.len();
            (Box::new(BufReader::new(file)), bytes)
        }
        // How much will come is not known: nothing is shown.
        None => (Box::new(BufReader::new(io::stdin())), u64::MAX),
    };
    let mut line = Line::new("importing", args.data.progress);
    let imported = import(&config.data, config.store.clone(), &mut *lines, &mut |done| {
        line.show(done / 128, bytes / 128);
    })
    .map_err(|error| failed(&error))?;
    say(&format!(
        "{}: {} sessions, {} messages\n",
        config.data.display(),
        imported.sessions,
        imported.messages
    ));
    Ok(())
}
