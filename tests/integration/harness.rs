//! The real binary as a child process, in a folder of its own, on ports of its own.
//!
//! Everything that waits has a limit and says what it waited for. When a test fails, the broker's log is printed.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// A broker of our own. Dropping it kills it and removes its folder.
pub(crate) struct Broker {
    folder: TempDir,
    options: Vec<String>,
    running: Option<Running>,
    /// The listeners' URLs, in the order of the configuration.
    urls: Vec<String>,
}

struct Running {
    child: Child,
    /// A line for each listener, then the end when the process is gone.
    lines: Receiver<String>,
    reader: JoinHandle<()>,
}

impl Broker {
    /// Starts one with the built-in configuration, but for its addresses and folders.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more options of the command line.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options)
    }

    /// The same with a configuration file. If it names listeners they have to be on port 0 (such a broker has other ports
    /// after a restart) or in `{folder}`, which stands for the broker's own.
    pub(crate) fn start_configured(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dormouse.toml");
        fs::write(&file, toml.replace("{folder}", path(folder.path()))).unwrap();
        Self::start_in(folder, &["--config", path(&file)])
    }

    /// Gives it this configuration file from its next start on, which names no listeners.
    pub(crate) fn configure(&mut self, toml: &str) {
        let file = self.folder.path().join("dormouse.toml");
        fs::write(&file, toml).unwrap();
        self.options = vec!["--config".to_owned(), path(&file).to_owned()];
    }

    /// The same in this folder.
    pub(crate) fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut broker = Self { folder, options, running: None, urls: Vec::new() };
        broker.spawn();
        broker
    }

    /// The address of the first plain listener.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.address("tcp", 0)
    }

    /// The address of the first TLS listener.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.address("tls", 0)
    }

    /// The address of the listener of this scheme that has so many others of it before it.
    pub(crate) fn address(&self, scheme: &str, before: usize) -> SocketAddr {
        let place = self.place(scheme, before);
        place.split('/').next().expect("a first part").parse().unwrap()
    }

    /// The same, as it stands behind `://`: an address, with a path perhaps, or the path of a file.
    pub(crate) fn place(&self, scheme: &str, before: usize) -> &str {
        let own = |url: &'_ String| url.split_once("://").is_some_and(|(found, _)| found == scheme);
        let url = self.urls.iter().filter(|&url| own(url)).nth(before).expect("a listener of this scheme");
        &url[scheme.len() + 3..]
    }

    /// Where metrics and health are served, this time.
    pub(crate) fn admin(&self) -> SocketAddr {
        let lines = &self.running.as_ref().expect("the broker runs").lines;
        loop {
            let line = lines.recv_timeout(LIMIT).expect("the greeting names the admin listener, once");
            if let Some((_, rest)) = line.split_once("  admin       http://") {
                return rest.split_whitespace().next().unwrap_or_default().parse().unwrap();
            }
        }
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the journal is.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where the development certificates are: `ca.crt`, `client.crt`, `client.key`.
    pub(crate) fn certs_dir(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// The process, to look at in /proc.
    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().expect("the broker runs").child.id()
    }

    /// What it has logged since the first start: a JSON object a line.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Kills it in the middle of whatever it is doing.
    pub(crate) fn kill9(&mut self) {
        let mut running = self.running.take().expect("the broker runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        running.reader.join().unwrap();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("the broker runs");
        let pid = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).unwrap();
        // Its standard output closes with it.
        loop {
            match running.lines.recv_timeout(LIMIT) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.running = Some(running);
                    panic!("the broker did not end on SIGTERM");
                }
            }
        }
        let status = running.child.wait().unwrap();
        running.reader.join().unwrap();
        status
    }

    /// Starts it again on the same data, at the same addresses unless the system has given one to somebody else meanwhile.
    pub(crate) fn restart(&mut self) {
        if self.running.is_some() {
            self.kill9();
        }
        self.spawn();
    }

    fn spawn(&mut self) {
        let listeners = self.launch();
        if !self.learn_urls(listeners) {
            let log = self.log();
            let last = log.lines().last().unwrap_or_default();
            assert!(last.contains("address already in use"), "the broker did not come up: {last}");
            self.kill9();
            self.urls.clear();
            let listeners = self.launch();
            assert!(self.learn_urls(listeners), "the broker did not come up");
        }
    }

    /// Starts the process; with how many listeners.
    fn launch(&mut self) -> usize {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command
            .args(["--data", path(&self.data_dir()), "--certs", path(&self.certs_dir())])
            .args(&self.options)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(self.open_log()));
        let config = fs::read_to_string(self.folder.path().join("dormouse.toml")).unwrap_or_default();
        if !self.options.iter().any(|option| option == "--admin") {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        let mut listeners = config.lines().filter(|line| *line == "[[listeners]]").count();
        if listeners == 0 {
            let first = ["tcp://127.0.0.1:0".to_owned(), "tls://127.0.0.1:0".to_owned()];
            let urls = if self.urls.is_empty() { &first[..] } else { &self.urls };
            for url in urls {
                command.args(["--listen", url]);
            }
            listeners = urls.len();
        }
        // What the person running the tests has set is not theirs.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_"))
        {
            command.env_remove(name);
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = sync_channel(64);
        let reader = thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody listens any more once the listeners are up; the pipe is emptied all the same.
                let _ = sender.try_send(line);
            }
        });
        self.running = Some(Running { child, lines, reader });
        listeners
    }

    /// Waits for lines like `listening   tcp://127.0.0.1:40123  (not encrypted)`; false if the process ends before.
    fn learn_urls(&mut self, listeners: usize) -> bool {
        let running = self.running.as_ref().expect("just started");
        let mut urls = Vec::new();
        while urls.len() < listeners {
            let line = match running.lines.recv_timeout(LIMIT) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("the broker does not come up"),
            };
            let Some(url) = line.trim_start().strip_prefix("listening").map(str::trim_start) else {
                continue;
            };
            let url = url.split_whitespace().next().unwrap_or_default();
            assert!(url.contains("://"), "not a URL: {line:?}");
            urls.push(url.to_owned());
        }
        self.urls = urls;
        true
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("broker.log")
    }

    fn open_log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may be gone already.
            let _ = running.child.kill();
            let _ = running.child.wait();
            let _ = running.reader.join();
        }
        if thread::panicking() {
            eprintln!("---- the broker's log ----\n{}---- end of the broker's log ----", self.log());
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
