//! `dormouse store export`: the store as text.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::PathBuf,
};

use clap::Args;

use super::{DataArgs, failed, progress::Line};
use crate::{
    cli::{Failure, logging},
    config::{Config, LogConfig},
    store::{Exported, Offline, OpenError, export},
};

/// What is to be exported, and where to.
#[derive(Clone, Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The file to write, which must not be there yet; standard output if none is named
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Writes everything; what could not be read is exit code 3.
pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    logging::init(LogConfig::default());
    let Config { data: folder, store: journal, .. } = args.data.config()?;
    let store = Offline::open(&folder, &journal.key).map_err(|error: OpenError| failed(&error))?;
    let mut line = Line::new("exporting", args.data.progress);
    let mut show = |done, of| line.show(done, of);
    let exported = if let Some(path) = &args.file {
        let named =
            |error: io::Error| Failure::Runtime(format!("{} cannot be written: {error}", path.display()));
        let file = File::options().write(true).create_new(true).open(path).map_err(named)?;
        let mut out = BufWriter::new(&file);
        let exported = export(&store, &mut out, &mut show).map_err(named)?;
        drop(out);
        file.sync_all().map_err(named)?;
        exported
    } else {
        let mut out = BufWriter::new(io::stdout().lock());
        export(&store, &mut out, &mut show).map_err(|error| failed(&error))?
    };
    let Exported { sessions, messages, lost } = exported;
    tracing::info!(sessions, messages, lost, "exported");
    if store.recovered.damaged + lost > 0 { Err(Failure::Damaged) } else { Ok(()) }
}
