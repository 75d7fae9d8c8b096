//! The real binary, started on a folder and killed without warning.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
}

impl Process {
    /// Starts a broker on the data in `folder`, on a free port, and waits until it listens.
    pub(super) fn start(folder: &Path) -> Self {
        let log = folder.join("log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let config = folder.join("dormouse.toml");
        // Generations as small as can be, so that compaction runs all the time.
        fs::write(&config, "[store]\ngeneration_bytes = \"1MiB\"\n").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dormouse"))
            .args(["--listen", "tcp://127.0.0.1:0", "--log-level", "warn", "--config"])
            .arg(config)
            .arg("--data")
            .arg(folder.join("data"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("tcp://")?;
            rest.split_whitespace().next()?.parse().ok()
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the broker did not start: {}", fs::read_to_string(&log).unwrap_or_default());
        };
        Self { child, address, log }
    }

    /// SIGKILL, at once.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The end of what the brokers on this folder have logged.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many generations the journal in `folder` has begun.
pub(super) fn newest_generation(folder: &Path) -> u32 {
    let names = fs::read_dir(folder.join("data/journal")).unwrap();
    names.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).max().unwrap_or(0)
}
