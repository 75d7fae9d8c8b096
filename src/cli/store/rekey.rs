//! `dormouse store rekey`: seals a store, seals it with another key, or takes the seal off.

use std::path::PathBuf;

use clap::Args;

use super::{DataArgs, failed, progress::Line};
use crate::{
    cli::{Failure, logging, say},
    config::LogConfig,
    server::wall_clock,
    store::{KeySource, Rekeyed, rekey},
};

/// Which key it has, and which it is to get.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The store opens with the key of the configuration ([store] key_file, DORMOUSE_STORE_KEY), or with that of --old-key-file. One that is not \
sealed needs none; without --new-key-file it is sealed with the key of the configuration. With --old-key-file, the key of the configuration \
is the new one.

Everything is written anew beside the old files, which are removed when that is durable: it needs as much room \
again, within max_disk_bytes and above disk_reserve, and does not begin without. A cut leaves a store that \
opens with the old or with the new key. What flash has stored before may still be read from its chips.")]
pub(super) struct RekeyArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The file with the new key: 32 bytes, as 64 hexadecimal digits or in base64
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    new_key_file: Option<PathBuf>,
    /// The file with the key it is sealed with now, if that is not the one of the configuration
    #[arg(long, value_name = "FILE")]
    old_key_file: Option<PathBuf>,
    /// Takes the seal off
    #[arg(long)]
    plain: bool,
}

/// Does it.
pub(super) fn run(args: &RekeyArgs) -> Result<(), Failure> {
    logging::init(LogConfig::default());
    let config = args.data.config()?;
    let file = |path: &Option<PathBuf>| path.clone().map(KeySource::File);
    let configured = config.store.key.clone();
    let from = file(&args.old_key_file).unwrap_or_else(|| configured.clone());
    let to = match file(&args.new_key_file) {
        _ if args.plain => KeySource::None,
        Some(new) => new,
        None => configured,
    };
    let mut line = Line::new("sealing", args.data.progress);
    let mut show = |done, of| line.show(done, of);
    let rekeyed = rekey(&config.data, &config.store, &from, &to, wall_clock(), &mut show)
        .map_err(|error| failed(&error))?;
    let Rekeyed { frames, was_sealed, is_sealed, set_aside_bytes } = rekeyed;
    let done = match (was_sealed, is_sealed) {
        (false, _) => "sealed",
        (true, true) => "sealed with another key",
        (true, false) => "not sealed any more",
    };
    say(&format!("{}: {done}; {frames} frames written anew\n", config.data.display()));
    if set_aside_bytes > 0 {
        tracing::warn!(
            bytes = set_aside_bytes,
            "what was set aside in damaged/ is as it was, under the old key or none"
        );
    }
    Ok(())
}
