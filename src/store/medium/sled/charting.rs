//! When generations are charted, and when a chart is believed no more.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex},
    thread::{self, Builder, JoinHandle},
    time::Duration,
};

use super::{
    Generation, MediumError, Old, SledMedium,
    chart::{self, Chart, Shown},
    path_of,
};
use crate::sync::lock;

/// The generation that is being charted, and the thread that does it.
pub(super) type Charting = Mutex<Option<(u32, JoinHandle<()>)>>;

/// How often, and how long each time, it is waited for the last reader of a generation that is to be charted.
const TRIES: u32 = 500;
const WAIT: Duration = Duration::from_millis(2);

impl SledMedium {
    /// The chart of a closed generation that has one.
    pub(super) fn chart(&self, no: u32) -> Option<Arc<Chart>> {
        let mut charts = lock(&self.charts);
        if let Some(known) = charts.get(no) {
            return Some(known);
        }
        // Deleting takes it off this list first, and forgets its chart afterwards.
        if !lock(&self.old).all.contains(&no) || lock(&self.active).as_ref().is_some_and(|a| a.no == no) {
            return None;
        }
        let opened = Arc::new(Chart::open(no, &path_of(&self.dir, no))?);
        charts.insert(Arc::clone(&opened));
        Some(opened)
    }

    /// The data file is not as the chart says.
    pub(super) fn drop_chart(&self, no: u32) -> io::Result<()> {
        tracing::warn!(
            generation = no,
            "a part of the journal is not as it was when it was closed: sled is asked"
        );
        chart::remove(&path_of(&self.dir, no))?;
        lock(&self.charts).forget(no);
        Ok(())
    }

    /// Shows what sled has in a generation; what is closed is charted.
    pub(super) fn scan_with_sled(
        &self,
        generation: Arc<Generation>,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), MediumError> {
        if lock(&self.active).as_ref().is_some_and(|active| active.no == generation.no) {
            return generation.scan(each);
        }
        let mut shown = Shown::default();
        generation.scan(&mut |no, bytes| {
            shown.see(no, bytes);
            each(no, bytes);
        })?;
        close_and_chart(&self.opening, &self.old, generation, shown);
        Ok(())
    }

    /// Charts a generation that was just closed, on a thread of its own.
    pub(super) fn begin_chart(&self, closed: Arc<Generation>) {
        let (opening, old) = (Arc::clone(&self.opening), Arc::clone(&self.old));
        let no = closed.no;
        let work = move || {
            let mut shown = Shown::default();
            match closed.scan(&mut |no, bytes| shown.see(no, bytes)) {
                Ok(()) => close_and_chart(&opening, &old, closed, shown),
                Err(error) => {
                    tracing::warn!(generation = no, %error, "a part of the journal was not charted");
                }
            }
        };
        self.end_chart(|_| true);
        match Builder::new().name("journal-chart".to_owned()).spawn(work) {
            Ok(thread) => *lock(&self.charting) = Some((no, thread)),
            Err(error) => tracing::warn!(generation = no, %error, "a part of the journal was not charted"),
        }
    }

    /// Waits for the chart of such a generation, if it is being made.
    pub(super) fn end_chart(&self, is_meant: impl FnOnce(u32) -> bool) {
        let thread = lock(&self.charting).take_if(|(no, _)| is_meant(*no));
        if let Some((no, thread)) = thread
            && thread.join().is_err()
        {
            tracing::error!(generation = no, "charting a part of the journal failed");
        }
    }
}

impl Drop for SledMedium {
    fn drop(&mut self) {
        self.end_chart(|_| true);
    }
}

/// Closes a generation and charts it. sled moves pages about even when it is only read from: so a chart is made of a file
/// that sled has let go of, and nobody may open it meanwhile.
fn close_and_chart(opening: &Mutex<()>, old: &Mutex<Old>, generation: Arc<Generation>, shown: Shown) {
    for _ in 0..TRIES {
        let opening = lock(opening);
        let mut old = lock(old);
        let listed = usize::from(old.open.iter().any(|open| Arc::ptr_eq(open, &generation)));
        if Arc::strong_count(&generation) > 1 + listed {
            drop((old, opening));
            thread::park_timeout(WAIT);
            continue;
        }
        let (no, path, disk) = (generation.no, generation.path.clone(), Arc::clone(&generation.disk));
        old.open.retain(|open| open.no != no);
        drop((old, generation));
        let synced = File::open(path.join("db")).and_then(|db| disk.sync_data(&db, &path));
        match synced.map_err(MediumError::from).and_then(|()| shown.chart(no, &path)) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                generation = no,
                "a part of the journal was not charted: it has gaps, or is damaged"
            ),
            Err(error) => tracing::warn!(generation = no, %error, "a part of the journal was not charted"),
        }
        return;
    }
    tracing::info!(generation = generation.no, "a part of the journal is read too much to be charted now");
}
