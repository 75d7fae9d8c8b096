//! What the kernel knows about a process.

use std::{fs, path::PathBuf, time::Duration};

use crate::Result;

/// `USER_HZ`, which Linux has fixed at 100 for what user space sees.
const TICK: Duration = Duration::from_millis(10);

/// A process, by its number.
pub(crate) struct Process {
    proc: PathBuf,
}

/// A reading at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// User and system time so far.
    pub(crate) cpu: Duration,
    /// Bytes sent towards the disk so far: pages made dirty, counted once for each time they are.
    pub(crate) written_bytes: u64,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { proc: PathBuf::from(format!("/proc/{pid}")) }
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        Ok(Reading { cpu: self.cpu()?, written_bytes: self.field("io", "write_bytes:")? })
    }

    /// Memory in use, in bytes.
    pub(crate) fn rss_bytes(&self) -> Result<u64> {
        Ok(self.field("status", "VmRSS:")? * 1024)
    }

    /// The scheduler's own sum, in nanoseconds, over the threads there are. Threads that ended are missing in it; they
    /// are in the process's clock ticks, which therefore count if they are clearly more.
    fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(self.proc.join("task"))? {
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_ascii_whitespace().next().ok_or("schedstat is empty")?;
            sum += Duration::from_nanos(nanoseconds.parse()?);
        }
        let stat = fs::read_to_string(self.proc.join("stat"))?;
        // The name, in parentheses, may hold anything. utime and stime are fields 14 and 15; the third comes first here.
        let (_, rest) = stat.rsplit_once(')').ok_or("stat without a name")?;
        let ticks: Vec<u32> = rest
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        let ticks = TICK * ticks.iter().sum::<u32>();
        Ok(if ticks > sum + TICK * 3 { ticks } else { sum })
    }

    /// A number that stands behind a name.
    fn field(&self, file: &str, name: &str) -> Result<u64> {
        let text = fs::read_to_string(self.proc.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(number.ok_or_else(|| format!("no {name} in {file}"))?.parse()?)
    }
}

impl Reading {
    /// CPU time and disk bytes since `before`.
    pub(crate) fn since(self, before: Self) -> (Duration, u64) {
        (self.cpu.saturating_sub(before.cpu), self.written_bytes.saturating_sub(before.written_bytes))
    }
}
