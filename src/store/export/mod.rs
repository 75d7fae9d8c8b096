//! A store as text, one JSON object a line, and back (`docs/store-export.md`).
//!
//! An export holds what a start would find: it is the same whatever generations and copies stand behind it, and a store
//! made from it gives the same export.

mod import;
mod lines;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

pub use import::{ImportError, Imported, import};

use self::lines::{EndLine, HeaderLine, Line, MessageLine, SessionLine};
use super::{
    offline::{Offline, Progress},
    record::Target,
    stored::Stored,
};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Sessions.
    pub sessions: u64,
    /// Messages, retained ones included; one that several sessions must get counts once.
    pub messages: u64,
    /// Messages that could not be read back: they are not in the export.
    pub lost: u64,
}

/// A message and who must get it, by the target's index.
struct Wanted {
    stored: Arc<Stored>,
    retained_version: Option<u64>,
    targets: BTreeMap<u32, Target>,
}

/// Writes everything.
pub fn export(store: &Offline, out: &mut dyn Write, progress: Progress<'_>) -> io::Result<Exported> {
    put(out, &Line::Header(HeaderLine::of(store.recovered.timeline)))?;
    for session in &store.recovered.sessions {
        put(out, &Line::Session(Box::new(SessionLine::of(&session.snapshot))))?;
    }
    let wanted = wanted(store);
    let messages: Vec<Arc<Stored>> = wanted.values().map(|wanted| Arc::clone(&wanted.stored)).collect();
    let mut exported = Exported {
        sessions: store.recovered.sessions.len() as u64,
        messages: 0,
        lost: store.recovered.messages_lost,
    };
    store.each_body(&messages, progress, &mut |stored, body| {
        let (Some(body), Some(wanted)) = (body, wanted.get(&stored.id())) else {
            exported.lost += 1;
            return Ok(());
        };
        exported.messages += 1;
        let targets: Vec<Target> = wanted.targets.values().cloned().collect();
        put(out, &Line::Message(Box::new(MessageLine::of(&body, wanted.retained_version, &targets))))
    })?;
    put(out, &Line::End(EndLine { sessions: exported.sessions, messages: exported.messages }))?;
    out.flush()?;
    Ok(exported)
}

/// Every message that somebody wants, in the order in which they were published.
fn wanted(store: &Offline) -> BTreeMap<u64, Wanted> {
    let mut all: BTreeMap<u64, Wanted> = BTreeMap::new();
    let entry = |stored: Arc<Stored>| Wanted { stored, retained_version: None, targets: BTreeMap::new() };
    for session in &store.recovered.sessions {
        let no = session.snapshot.record.session;
        for waiting in store.queue(session) {
            let target =
                Target { session: no, seq: waiting.seq, delivery: waiting.delivery, group: waiting.group };
            let wanted = all.entry(waiting.stored.id()).or_insert_with(|| entry(waiting.stored));
            wanted.targets.insert(waiting.target, target);
        }
    }
    for value in &store.recovered.retained {
        let wanted = all.entry(value.stored.id()).or_insert_with(|| entry(Arc::clone(&value.stored)));
        wanted.retained_version = Some(value.version);
    }
    all
}

fn put(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
