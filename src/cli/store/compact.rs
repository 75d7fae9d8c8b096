//! `dormouse store compact`: gives back the room of what nobody wants any more.

use clap::Args;

use super::{DataArgs, failed, progress::Line};
use crate::{
    cli::{Failure, logging, say},
    config::LogConfig,
    server::wall_clock,
    store::compact,
};

/// What is to be compacted.
#[derive(Clone, Debug, Args)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    data: DataArgs,
}

/// Does it, and says what it brought.
pub(super) fn run(args: &CompactArgs) -> Result<(), Failure> {
    logging::init(LogConfig::default());
    let config = args.data.config()?;
    let mut line = Line::new("compacting", args.data.progress);
    let rewritten =
        compact(&config.data, config.store.clone(), wall_clock(), &mut |done, of| line.show(done, of))
            .map_err(|error| failed(&error))?;
    say(&format!(
        "{}: {} bytes in {} generations before, {} bytes in {} after\n",
        config.data.display(),
        rewritten.bytes_before,
        rewritten.generations_before,
        rewritten.bytes_after,
        rewritten.generations_after
    ));
    Ok(())
}
