//! The disk itself: without this, a rate of durable acknowledgements says nothing.

use std::{os::unix::fs::FileExt as _, path::Path, time::Instant};

use tempfile::NamedTempFile;

use dormouse::bench::micros;

use crate::Result;

const WRITES: u32 = 200;
const WRITE_BYTES: u32 = 4096;

/// What a write of 4 KiB and the `fdatasync` behind it take, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncLatency {
    /// Median at the end of a growing file: the file system writes its own journal too.
    pub(crate) append: f64,
    /// Median within a file that was written before: data only.
    pub(crate) overwrite: f64,
}

pub(crate) fn sync_latency(dir: &Path) -> Result<SyncLatency> {
    let file = NamedTempFile::new_in(dir)?;
    let append = median(&file)?;
    let overwrite = median(&file)?;
    Ok(SyncLatency { append, overwrite })
}

/// Over the same places each time: the first time they are new.
fn median(file: &NamedTempFile) -> Result<f64> {
    let mut times = Vec::new();
    for number in 0..WRITES {
        let clock = Instant::now();
        file.as_file().write_all_at(&[0x5A; WRITE_BYTES as usize], u64::from(number * WRITE_BYTES))?;
        file.as_file().sync_data()?;
        times.push(micros(clock.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}
