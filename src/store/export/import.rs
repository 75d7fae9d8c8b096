//! An export into an empty data folder.
//!
//! The journal is made beside the place where it belongs and moved there when it is whole: a cut leaves an empty data
//! folder, or a full one.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{self, BufRead},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::lines::{EndLine, Line, MessageLine, SessionLine};
use crate::{
    folder,
    message::{Seq, SessionNo},
    store::{
        commit::Step,
        config::Config,
        error::OpenError,
        journal::Journal,
        lock::DataLock,
        record::{Completion, Record},
        state::Urgency,
        swap,
    },
    time::Timeline,
};

/// How many lines go into a commit at most, and how many bytes of them.
const COMMIT_LINES: u64 = 1_000;
const COMMIT_BYTES: usize = 256 << 10;
/// No line is longer: a packet has 256 MiB at most, and base64 makes four bytes of three.
const LINE_BYTES_MAX: u64 = 400 << 20;

/// Where the journal is made, within the data folder.
const MAKING: &str = "import";

/// What was brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Sessions.
    pub sessions: u64,
    /// Messages.
    pub messages: u64,
}

/// Why an export cannot be brought in. The data folder is as empty as before.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is a store already.
    #[error("the data folder {} holds a store already: import into an empty one", .path.display())]
    NotEmpty {
        /// The data folder.
        path: PathBuf,
    },
    /// The export cannot be read, or the store not be written.
    #[error("the import stopped: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The last line is missing, or says something else than what came before it.
    #[error("the export is not whole: its last line is missing or counts something else")]
    NotWhole,
    /// The journal could not be written.
    #[error("the store in {} cannot be written: check the space left", .path.display())]
    Failed {
        /// The data folder.
        path: PathBuf,
    },
}

/// Brings an export into the data folder `dir`. `progress` is told the bytes read.
pub fn import(
    dir: &Path,
    config: Config,
    lines: &mut dyn BufRead,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    let lock = DataLock::take(dir)?;
    swap::settle(dir)?;
    let journal = dir.join("journal");
    match fs::read_dir(&journal).map(|mut entries| entries.next().is_none()) {
        Ok(true) => fs::remove_dir(&journal)?,
        Ok(false) => return Err(ImportError::NotEmpty { path: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let making = dir.join(MAKING);
    remove_if_there(&making)?;
    let made = make(&making, config, lines, progress).and_then(|imported| {
        fs::rename(making.join("journal"), &journal)?;
        folder::sync(dir)?;
        Ok(imported)
    });
    // Whatever became of it, nothing of it is needed any more.
    let removed = remove_if_there(&making);
    drop(lock);
    let imported = made?;
    removed?;
    Ok(imported)
}

fn make(
    dir: &Path,
    config: Config,
    lines: &mut dyn BufRead,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    let mut reader = Lines { input: lines, line: 0, bytes: 0 };
    let timeline = match reader.next()? {
        Some(Line::Header(header)) => header.timeline().map_err(|why| reader.wrong(why))?,
        _ => return Err(reader.wrong("the first line is not the header of an export")),
    };
    let (journal, _) = Journal::open(dir, config, timeline.wall)?;
    let Timeline { at, wall } = timeline;
    journal.set_clock(Arc::new(move || (at, wall)));
    let mut import =
        Import { journal, seen: HashMap::new(), clients: BTreeSet::new(), imported: Imported::default() };
    let (mut since, mut bytes_before) = (0, 0);
    loop {
        match reader.next()? {
            Some(Line::Session(line)) => import.session(*line).map_err(|why| reader.wrong(why))?,
            Some(Line::Message(line)) => import.message(*line).map_err(|why| reader.wrong(why))?,
            Some(Line::Header(_)) => return Err(reader.wrong("a second header")),
            Some(Line::End(EndLine { sessions, messages })) => {
                let whole = import.imported == Imported { sessions, messages };
                if !whole || reader.next()?.is_some() {
                    return Err(ImportError::NotWhole);
                }
                break;
            }
            None => return Err(ImportError::NotWhole),
        }
        since += 1;
        if since >= COMMIT_LINES || reader.bytes - bytes_before >= COMMIT_BYTES as u64 {
            import.commit();
            progress(reader.bytes);
            (since, bytes_before) = (0, reader.bytes);
        }
    }
    import.journal.close();
    if import.journal.poisoned() {
        return Err(ImportError::Failed { path: dir.to_owned() });
    }
    progress(reader.bytes);
    Ok(import.imported)
}

/// What has been brought in so far.
struct Import {
    journal: Journal,
    /// The sessions: the numbers of their messages, and below which these must be.
    seen: HashMap<SessionNo, (Seq, BTreeSet<Seq>)>,
    clients: BTreeSet<Arc<str>>,
    imported: Imported,
}

impl Import {
    fn session(&mut self, line: SessionLine) -> Result<(), &'static str> {
        let snapshot = line.snapshot()?;
        let record = &snapshot.record;
        if self.imported.messages > 0 {
            return Err("a session after the first message");
        }
        if !record.is_office() && !self.clients.insert(Arc::clone(&record.client_id)) {
            return Err("a second session of this client");
        }
        if snapshot.received.iter().any(|seq| *seq >= record.seq_reserved) {
            return Err("a message's number was never reserved");
        }
        let numbers = snapshot.received.iter().copied().collect();
        let below = if record.is_office() { Seq(u64::MAX) } else { record.seq_reserved };
        if self.seen.insert(record.session, (below, numbers)).is_some() {
            return Err("a session's number was given twice");
        }
        self.journal.append(Record::Snapshot(Box::new(snapshot)), Urgency::Rides);
        self.imported.sessions += 1;
        Ok(())
    }

    fn message(&mut self, line: MessageLine) -> Result<(), &'static str> {
        let (message, retained, targets) = line.parts()?;
        if targets.is_empty() && retained.is_none() {
            return Err("a message that nobody must get");
        }
        for target in &targets {
            let Some((reserved, numbers)) = self.seen.get_mut(&target.session) else {
                return Err("a message for a session that is not there");
            };
            if target.seq >= *reserved {
                return Err("a message's number was never reserved");
            }
            if !numbers.insert(target.seq) {
                return Err("a message's number was given twice");
            }
        }
        let stored = self.journal.message(Arc::new(message));
        self.journal.complete(&stored, targets, Completion { retained, ..Completion::default() });
        self.imported.messages += 1;
        Ok(())
    }

    fn commit(&self) {
        self.journal.hurry();
        while self.journal.step() == Step::Worked {}
    }
}

/// The export, line by line.
struct Lines<'l> {
    input: &'l mut dyn BufRead,
    line: u64,
    bytes: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Line>, ImportError> {
        let mut text = Vec::new();
        let mut limited = io::Read::take(&mut *self.input, LINE_BYTES_MAX);
        let bytes = limited.read_until(b'\n', &mut text)?;
        if bytes == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes += bytes as u64;
        match serde_json::from_slice(&text) {
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(self.wrong(&error.to_string())),
        }
    }

    fn wrong(&self, why: &str) -> ImportError {
        ImportError::Line { line: self.line, why: why.to_owned() }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
