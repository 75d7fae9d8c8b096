//! What the kernel says of this process. What it does not say is left out.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// A reading of `/proc/self` and its like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
    /// Bytes that the process has had sent to storage: pages made dirty, as the kernel accounts them.
    pub(super) written_bytes: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "exact for as long as anybody lives")]
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let open_files = fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu_seconds: Some(cpu_seconds),
            resident_bytes: field("/proc/self/status", "VmRSS:").map(|kib| kib * 1024),
            // Without the one that is open to read this.
            open_files: open_files.map(|files| (files.count() as u64).saturating_sub(1)),
            open_files_max: getrlimit(Resource::Nofile).current,
            written_bytes: field("/proc/self/io", "write_bytes:"),
        }
    }
}

/// The number behind `name` in a file of lines.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_something_sensible() {
        let before = Process::read();
        let files: Vec<_> = (0..10).map(|_| tempfile::tempfile().unwrap()).collect();
        let after = Process::read();
        assert_eq!(after.open_files.unwrap(), before.open_files.unwrap() + files.len() as u64);
        assert!(after.open_files <= after.open_files_max);
        assert!((1 << 20..1 << 36).contains(&after.resident_bytes.unwrap()), "{after:?}");
        assert!(after.cpu_seconds.unwrap() > 0.0);
        assert_eq!(field("/proc/self/status", "NoSuchThing:"), None);
        assert_eq!(field("/no/such/file", "x"), None);
    }
}
