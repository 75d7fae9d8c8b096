//! The real binary, started on a folder and killed without warning.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

/// Longer than a start takes on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Process {
    child: Child,
    /// Where its plain listener is.
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

/// What a broker is started with.
pub(crate) struct Launch {
    /// Where its configuration and its log go.
    pub(crate) folder: PathBuf,
    /// Where its data and its certificates are.
    pub(crate) root: PathBuf,
    /// Whether it listens for TLS as well.
    pub(crate) tls: bool,
    /// Whether what it writes is compressed.
    pub(crate) compressed: bool,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Process {
    /// Starts a broker on the data in `folder`, on a free port, and waits until it listens.
    pub(crate) fn start(folder: &Path) -> Self {
        let (root, folder) = (folder.to_owned(), folder.to_owned());
        let launch = Launch { folder, root, tls: false, compressed: false, environment: Vec::new() };
        launch.start().unwrap_or_else(|why| panic!("the broker did not start: {why}"))
    }

    /// SIGKILL, at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The end of what the brokers on this folder have logged.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Launch {
    /// Starts it and waits until it listens; else says what it logged.
    pub(crate) fn start(&self) -> Result<Process, String> {
        let log = self.folder.join("log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let config = self.folder.join("dormouse.toml");
        // Generations as small as can be, so that compaction runs all the time.
        let compression = if self.compressed { "lz4" } else { "none" };
        let store = format!("[store]\ngeneration_bytes = \"1MiB\"\ncompression = \"{compression}\"\n");
        fs::write(&config, store).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command
            .args(["--listen", "tcp://127.0.0.1:0", "--admin", "off", "--log-level", "warn", "--config"])
            .arg(config);
        if self.tls {
            command.args(["--listen", "tls://127.0.0.1:0"]);
        }
        command
            .arg("--data")
            .arg(self.root.join("data"))
            .arg("--certs")
            .arg(self.root.join("certs"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().expect("it is piped");
        let (found, addresses) = sync_channel(1);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let plain = line.split_once("tcp://").and_then(|(_, rest)| rest.split_whitespace().next());
                if let Some(Ok(address)) = plain.map(str::parse::<SocketAddr>) {
                    // Nobody waits any more when the start took too long.
                    let _ = found.send(address);
                    return;
                }
            }
        });
        let why = match addresses.recv_timeout(START_MAX) {
            Ok(address) => {
                reader.join().unwrap();
                return Ok(Process { child, address, log });
            }
            Err(RecvTimeoutError::Disconnected) => "it ended".to_owned(),
            Err(RecvTimeoutError::Timeout) => format!("it was silent for {START_MAX:?}"),
        };
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("{why}: {}", fs::read_to_string(&log).unwrap_or_default()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many generations the journal in `folder` has begun.
pub(crate) fn newest_generation(folder: &Path) -> u32 {
    let names = fs::read_dir(folder.join("data/journal")).unwrap();
    names.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).max().unwrap_or(0)
}
