//! What the kernel knows about a process.

use std::{fs, path::PathBuf, time::Duration};

use super::{BenchError, Result};

/// `USER_HZ`, which Linux has fixed at 100 for what user space sees.
const TICK: Duration = Duration::from_millis(10);

/// A process, by its number.
#[derive(Clone, Debug)]
pub struct Process {
    proc: PathBuf,
}

/// A reading at one time.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// User and system time so far.
    pub cpu: Duration,
    /// Bytes sent towards the disk so far: pages made dirty, counted once for each time they are.
    pub written_bytes: u64,
}

impl Process {
    /// The process with this number; whether there is one is seen at the first reading.
    pub fn new(pid: u32) -> Self {
        Self { proc: PathBuf::from(format!("/proc/{pid}")) }
    }

    /// What it has used so far.
    pub fn read(&self) -> Result<Reading> {
        Ok(Reading { cpu: self.cpu()?, written_bytes: self.field("io", "write_bytes:")? })
    }

    /// Memory in use, in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        Ok(self.field("status", "VmRSS:")? * 1024)
    }

    /// The scheduler's own sum, in nanoseconds, over the threads there are. Threads that ended are missing in it; they
    /// are in the process's clock ticks, which therefore count if they are clearly more.
    fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(self.proc.join("task")).map_err(|error| self.failed("task", &error))? {
            let task = task.map_err(|error| self.failed("task", &error))?;
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
            sum += Duration::from_nanos(nanoseconds.ok_or_else(|| self.failed("schedstat", &"no number"))?);
        }
        let stat = self.text("stat")?;
        // The name, in parentheses, may hold anything. utime and stime are fields 14 and 15; the third comes first here.
        let (_, rest) = stat.rsplit_once(')').ok_or_else(|| self.failed("stat", &"no name"))?;
        let ticks: u32 = rest
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum();
        let ticks = TICK * ticks;
        Ok(if ticks > sum + TICK * 3 { ticks } else { sum })
    }

    /// A number that stands behind a name.
    fn field(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.text(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
        number.ok_or_else(|| self.failed(file, &format!("no {name}")))
    }

    fn text(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.proc.join(file)).map_err(|error| self.failed(file, &error))
    }

    fn failed(&self, file: &str, why: &dyn ToString) -> BenchError {
        BenchError::Process { file: self.proc.join(file).display().to_string(), why: why.to_string() }
    }
}

impl Reading {
    /// CPU time and disk bytes since `before`.
    pub fn since(self, before: Self) -> (Duration, u64) {
        (self.cpu.saturating_sub(before.cpu), self.written_bytes.saturating_sub(before.written_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to() {
        let process = Process::new(std::process::id());
        let before = process.read().unwrap();
        let mut sum = 0_u64;
        while process.read().unwrap().since(before).0 < Duration::from_millis(5) {
            sum = (0..100_000).fold(sum, |sum: u64, n| std::hint::black_box(sum.wrapping_mul(31) + n));
        }
        assert!(process.rss_bytes().unwrap() > 1 << 20);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Process::new(u32::MAX).read().unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/"), "{error}");
    }
}
