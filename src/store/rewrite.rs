//! Compaction of everything, on a broker that does not run: what is wanted is copied into fresh generations, and all older
//! ones are deleted, by the same steps as while serving. So a cut leaves a store that starts, at any moment.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Weak},
};

use thiserror::Error;

use super::{
    aside::size_bytes,
    commit::Step,
    compact::SnapshotSource,
    config::Config,
    error::OpenError,
    journal::Journal,
    medium::MediumError,
    offline::Progress,
    record::{Record, Snapshot},
    recover::Recovered,
    state::Urgency,
    swap,
};
use crate::{
    message::SessionNo,
    time::{Timeline, WallClock},
};

/// The size of a journal before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Bytes of its files, before.
    pub bytes_before: u64,
    /// The same, after.
    pub bytes_after: u64,
    /// Generations, before.
    pub generations_before: u64,
    /// The same, after.
    pub generations_after: u64,
}

/// Why a journal was not rewritten, or not wholly. Whatever it is, the store starts.
#[derive(Debug, Error)]
pub enum RewriteError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A write failed, for want of space perhaps.
    #[error("compaction stopped: a write failed ({0}); the store is as good as before")]
    Write(#[from] MediumError),
    /// A generation could not be emptied.
    #[error("compaction stopped: a part of the journal cannot be emptied; the store is as good as before")]
    Stuck,
}

/// Rewrites the journal in the data folder `dir`. `wall` is the wall clock.
pub fn compact(
    dir: &Path,
    config: Config,
    wall: WallClock,
    progress: Progress<'_>,
) -> Result<Rewritten, RewriteError> {
    if !swap::current(dir).exists() {
        return Err(OpenError::Missing { path: dir.to_owned() }.into());
    }
    let path = dir.join("journal");
    let bytes_before = size_bytes(&swap::current(dir));
    let (journal, recovered) = Journal::open(dir, config, wall)?;
    let generations_before = journal.stats().generations;
    let Timeline { at, wall } = Timeline { at: recovered.now, wall };
    journal.set_clock(Arc::new(move || (at, wall)));
    let done = rewrite(&journal, &recovered, progress);
    journal.close();
    let generations_after = journal.stats().generations;
    drop((journal, recovered));
    done?;
    Ok(Rewritten { bytes_before, bytes_after: size_bytes(&path), generations_before, generations_after })
}

/// The same with a journal that was just recovered.
pub(super) fn rewrite(
    journal: &Journal,
    recovered: &Recovered,
    progress: Progress<'_>,
) -> Result<(), RewriteError> {
    let snapshots = recovered.sessions.iter().map(|session| {
        let snapshot = session.snapshot.clone();
        (snapshot.record.session, snapshot)
    });
    let source: Arc<dyn SnapshotSource> =
        Arc::new(Snapshots { journal: journal.clone(), sessions: snapshots.collect() });
    journal.set_snapshot_source(Arc::downgrade(&source) as Weak<dyn SnapshotSource>);
    let fresh = journal.begin_rewrite()?;
    let first = journal.oldest_generation().unwrap_or(fresh);
    let all = u64::from(fresh.saturating_sub(first));
    while let Some(oldest) = journal.oldest_generation()
        && oldest < fresh
    {
        progress(u64::from(oldest - first), all);
        journal.hurry();
        let worked = journal.step() == Step::Worked;
        if journal.poisoned() {
            return Err(MediumError::Broken("the log says why".to_owned()).into());
        }
        if !worked && journal.oldest_generation() == Some(oldest) && !journal.has_open_batch() {
            return Err(RewriteError::Stuck);
        }
    }
    progress(all, all);
    Ok(())
}

impl Journal {
    fn begin_rewrite(&self) -> Result<u32, MediumError> {
        self.shared().committer().begin_rewrite(self.shared())
    }

    fn oldest_generation(&self) -> Option<u32> {
        self.shared().state().ledger.generations.front().map(|books| books.no)
    }

    fn has_open_batch(&self) -> bool {
        !self.shared().state().open.is_empty()
    }
}

/// The sessions as they were found: nobody changes them.
struct Snapshots {
    journal: Journal,
    sessions: HashMap<SessionNo, Snapshot>,
}

impl SnapshotSource for Snapshots {
    fn snapshot(&self, session: SessionNo) {
        if let Some(snapshot) = self.sessions.get(&session) {
            self.journal.append(Record::Snapshot(Box::new(snapshot.clone())), Urgency::Rides);
        }
    }
}
