//! `dormouse store check`: is everything there, and whole?

use clap::Args;
use serde::Serialize;

use super::{DataArgs, failed, findings::gather, progress::Line};
use crate::{
    cli::{Failure, say},
    config::Config,
    store::Offline,
};

/// What is to be checked.
#[derive(Clone, Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Prints one JSON object instead of sentences
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Verdict {
    sound: bool,
    damage: Vec<String>,
    generations: usize,
    frames: u64,
    sessions: usize,
    subscriptions: usize,
    queued: u64,
    retained: usize,
}

/// Prints what was found; damage is exit code 3.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let Config { data: folder, store: journal, .. } = args.data.config()?;
    let mut line = Line::new("checking", args.data.progress);
    let (result, mut damage) = gather(|| {
        let store = Offline::open(&folder, &journal.key)?;
        let amiss = store.check(&folder, &mut |done, of| line.show(done, of))?;
        Ok((store, amiss))
    });
    let (store, amiss) = result.map_err(|error: crate::store::OpenError| failed(&error))?;
    damage.extend(amiss);
    let sessions = &store.recovered.sessions;
    let verdict = Verdict {
        sound: damage.is_empty(),
        damage,
        generations: store.parts.len(),
        frames: store.parts.iter().map(|part| part.frames).sum(),
        sessions: sessions.len(),
        subscriptions: sessions.iter().map(|session| session.snapshot.subscriptions.len()).sum(),
        queued: sessions.iter().map(|session| store.waiting(session).0).sum(),
        retained: store.recovered.retained.len(),
    };
    if args.json {
        say(&(serde_json::to_string(&verdict).map_err(|error| failed(&error))? + "\n"));
    } else {
        for sentence in &verdict.damage {
            say(&format!("damaged: {sentence}\n"));
        }
        say(&format!(
            "{}: {}; {} generations, {} frames, {} sessions, {} subscriptions, {} queued messages, {} retained\n",
            folder.display(),
            if verdict.sound { "sound" } else { "damaged" },
            verdict.generations,
            verdict.frames,
            verdict.sessions,
            verdict.subscriptions,
            verdict.queued,
            verdict.retained
        ));
    }
    if verdict.sound { Ok(()) } else { Err(Failure::Damaged) }
}
