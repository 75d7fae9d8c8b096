//! `dormouse store stats`: what is in the store, and how much room it takes.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::{DataArgs, failed};
use crate::{
    cli::{Failure, logging, say},
    config::{Config, LogConfig},
    store::Offline,
};

/// How many sessions are listed.
const TOP: usize = 10;
/// Whose a queue is that is no client's.
const OFFICE: &str = "(dead letters that wait)";

/// What is to be said.
#[derive(Clone, Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Prints one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What is in the store.
#[derive(Debug, Serialize)]
struct Contents {
    sessions: usize,
    subscriptions: usize,
    wills: usize,
    queued_messages: u64,
    queued_bytes: u64,
    retained_messages: usize,
    retained_bytes: u64,
    damaged: u64,
    sealed: bool,
    generations: usize,
    frame_bytes: u64,
    live_bytes: u64,
    /// Live bytes by bytes of all frames.
    live_ratio: f64,
    disk_bytes: u64,
    set_aside_bytes: u64,
    longest_queues: Vec<Queue>,
}

/// A session's queue.
#[derive(Debug, Serialize)]
struct Queue {
    client_id: String,
    messages: u64,
    bytes: u64,
}

/// Prints it.
pub(super) fn run(args: &StatsArgs) -> Result<(), Failure> {
    logging::init(LogConfig::default());
    let Config { data: folder, store: journal, .. } = args.data.config()?;
    let store = Offline::open(&folder, &journal.key).map_err(|error| failed(&error))?;
    let contents = Contents::of(&store);
    if args.json {
        say(&(serde_json::to_string(&contents).map_err(|error| failed(&error))? + "\n"));
    } else {
        say(&contents.table());
    }
    Ok(())
}

impl Contents {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn of(store: &Offline) -> Self {
        let recovered = &store.recovered;
        let mut queues: Vec<Queue> = recovered
            .sessions
            .iter()
            .map(|session| {
                let (messages, bytes) = store.waiting(session);
                Queue { client_id: session.snapshot.record.client_id.to_string(), messages, bytes }
            })
            .collect();
        queues.sort_by_key(|queue| std::cmp::Reverse((queue.messages, queue.bytes)));
        let frame_bytes = store.parts.iter().map(|part| part.frame_bytes).sum();
        let live_bytes = store.live_bytes();
        let snapshots = || recovered.sessions.iter().map(|session| &session.snapshot);
        let (queued_messages, queued_bytes) = queues
            .iter()
            .fold((0, 0), |(messages, bytes), queue| (messages + queue.messages, bytes + queue.bytes));
        queues.retain(|queue| queue.messages > 0);
        queues.truncate(TOP);
        Self {
            sessions: recovered.sessions.len(),
            subscriptions: snapshots().map(|snapshot| snapshot.subscriptions.len()).sum(),
            wills: snapshots().filter(|snapshot| snapshot.record.will.is_some()).count(),
            queued_messages,
            queued_bytes,
            retained_messages: recovered.retained.len(),
            retained_bytes: recovered.retained.iter().map(|value| value.message.size_bytes() as u64).sum(),
            damaged: recovered.damaged,
            sealed: store.sealed,
            generations: store.parts.len(),
            frame_bytes,
            live_bytes,
            live_ratio: if frame_bytes == 0 { 1.0 } else { live_bytes as f64 / frame_bytes as f64 },
            disk_bytes: store.parts.iter().map(|part| part.disk_bytes).sum(),
            set_aside_bytes: store.set_aside_bytes,
            longest_queues: queues,
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let lines = [
            ("sessions", self.sessions.to_string()),
            ("subscriptions", self.subscriptions.to_string()),
            ("wills", self.wills.to_string()),
            ("queued", format!("{} messages, {} bytes", self.queued_messages, self.queued_bytes)),
            ("retained", format!("{} messages, {} bytes", self.retained_messages, self.retained_bytes)),
            ("sealed", if self.sealed { "yes" } else { "no" }.to_owned()),
            ("generations", self.generations.to_string()),
            ("live", format!("{} of {} bytes, {:.2}", self.live_bytes, self.frame_bytes, self.live_ratio)),
            ("on disk", format!("{} bytes", self.disk_bytes)),
            ("set aside", format!("{} bytes", self.set_aside_bytes)),
            ("damaged", self.damaged.to_string()),
        ];
        for (name, value) in lines {
            let _ = writeln!(text, "{name:<15}{value}");
        }
        if !self.longest_queues.is_empty() {
            text += "\nthe longest queues\n";
        }
        for queue in &self.longest_queues {
            let whose = if queue.client_id.is_empty() { OFFICE } else { &queue.client_id };
            let _ = writeln!(text, "{:>10} messages {:>14} bytes  {whose}", queue.messages, queue.bytes);
        }
        text
    }
}
