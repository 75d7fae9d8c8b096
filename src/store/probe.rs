//! How long the disk takes to make something durable, measured where the journal will be.
//!
//! It costs some writes of 4 KiB at each start, and tells two things: what an acknowledgement will cost at least, and
//! whether the disk can be keeping its word. Flash needs hundreds of microseconds to program a page, a disk with a
//! protected cache some tens; what answers sooner has most likely not written anything.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// The file, in the data folder, while it is measured. One that a power cut left behind is used again, then removed.
const FILE: &str = "sync-probe";
const WRITE_BYTES: usize = 4096;
const SYNCS_MAX: usize = 16;
/// No further sync is begun after so long; it bounds what a slow disk adds to the start.
const TIME_MAX: Duration = Duration::from_millis(50);
/// A disk that is faster than this has kept nothing safe.
const PLAUSIBLE_MIN: Duration = Duration::from_micros(20);

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncLatency {
    /// How often.
    pub syncs: usize,
    /// Half of them took no longer.
    pub median: Duration,
    /// The slowest one.
    pub max: Duration,
}

impl SyncLatency {
    /// Appends to a file in `folder` and syncs it, a few times, for some 50 ms in all (and for one sync at least, however
    /// long it takes). `elapsed` tells the time passed since any fixed moment.
    pub fn measure(folder: &Path, elapsed: &dyn Fn() -> Duration) -> io::Result<Self> {
        let path = folder.join(FILE);
        let measured = File::create(&path).and_then(|mut file| {
            Self::of(elapsed, &mut || {
                file.write_all(&[0xA5; WRITE_BYTES])?;
                file.sync_data()
            })
        });
        // If it was made at all.
        let removed = fs::remove_file(&path);
        let measured = measured?;
        removed.map(|()| measured)
    }

    fn of(
        elapsed: &dyn Fn() -> Duration,
        write_and_sync: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Self> {
        let begun = elapsed();
        let mut taken = Vec::with_capacity(SYNCS_MAX);
        while taken.is_empty() || (taken.len() < SYNCS_MAX && elapsed().saturating_sub(begun) < TIME_MAX) {
            let before = elapsed();
            write_and_sync()?;
            taken.push(elapsed().saturating_sub(before));
        }
        taken.sort_unstable();
        let at = |index: usize| taken.get(index).copied().unwrap_or_default();
        Ok(Self { syncs: taken.len(), median: at(taken.len() / 2), max: at(taken.len() - 1) })
    }

    /// Whether it can be true. A folder in memory (tmpfs), and a disk that answers before it has written, are faster
    /// than any medium that survives a power cut.
    pub fn is_plausible(&self) -> bool {
        self.median >= PLAUSIBLE_MIN
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A disk whose syncs take these microseconds in turn, and then the last of them for ever.
    fn measured(micros: &[u64]) -> SyncLatency {
        let (now, next) = (Cell::new(7), Cell::new(0));
        let elapsed = || Duration::from_micros(now.get());
        let mut sync = || {
            now.set(now.get() + micros[next.get().min(micros.len() - 1)]);
            next.set(next.get() + 1);
            Ok(())
        };
        SyncLatency::of(&elapsed, &mut sync).unwrap()
    }

    #[test]
    fn a_fast_disk_is_asked_often_and_a_slow_one_once() {
        let micros = Duration::from_micros;
        let fast = measured(&[900, 100, 100, 300, 100]);
        assert_eq!(fast, SyncLatency { syncs: SYNCS_MAX, median: micros(100), max: micros(900) });
        let card = measured(&[20_000]);
        assert_eq!(card, SyncLatency { syncs: 3, median: micros(20_000), max: micros(20_000) });
        let cleaning = measured(&[1_500_000]);
        assert_eq!((cleaning.syncs, cleaning.max), (1, micros(1_500_000)));
        assert!(fast.is_plausible() && card.is_plausible());
        assert!(!measured(&[3]).is_plausible());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the clock that is handed in")]
    fn it_leaves_nothing_behind_and_uses_what_was_left() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "of a start that was cut short").unwrap();
        let begun = std::time::Instant::now();
        let measured = SyncLatency::measure(folder.path(), &|| begun.elapsed()).unwrap();
        assert!((1..=SYNCS_MAX).contains(&measured.syncs), "{measured:?}");
        assert!(measured.median <= measured.max);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(SyncLatency::measure(&folder.path().join("no such folder"), &|| begun.elapsed()).is_err());
    }
}
