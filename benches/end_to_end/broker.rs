//! A broker as a child process, with a data folder of its own.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use dormouse::bench::{Process, Target};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    Result,
    args::{Args, located},
};

/// How long a broker may take to open its listeners, or to end.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(10);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Ours
    Dormouse,
    /// Eclipse Mosquitto
    Mosquitto,
    /// Rumqttd; not over TLS
    Rumqttd,
    /// RMQTT
    Rmqttd,
}

/// A running broker. Dropping it kills it.
pub(crate) struct Broker {
    pub(crate) process: Process,
    /// Its listener on this machine.
    pub(crate) target: Target,
    port: u16,
    kind: Kind,
    tls: bool,
    child: Child,
    dir: TempDir,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dormouse => "Dormouse",
            Self::Mosquitto => "Mosquitto",
            Self::Rumqttd => "rumqttd",
            Self::Rmqttd => "rmqttd",
        }
    }

    pub(crate) fn binary(self, args: &Args) -> &Path {
        match self {
            Self::Dormouse => &args.dormouse,
            Self::Mosquitto => &args.mosquitto,
            Self::Rumqttd => &args.rumqttd,
            Self::Rmqttd => &args.rmqttd,
        }
    }

    /// What it says of itself: versions differ by as much as brokers do.
    pub(crate) fn version(self, args: &Args) -> String {
        let flag = if self == Self::Mosquitto { "-h" } else { "--version" };
        let said = program(self, args).ok().and_then(|program| Command::new(program).arg(flag).output().ok());
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("of an unknown version");
        // Some begin with their name and some do not.
        if line.contains(|c: char| c.is_ascii_alphabetic()) {
            line.into()
        } else {
            format!("{} {line}", self.name())
        }
    }
}

impl Broker {
    /// Starts it and waits until it takes connections: over TLS if asked for, else over TCP.
    pub(crate) async fn start(args: &Args, kind: Kind, tls: bool) -> Result<Self> {
        let dir = TempDir::with_prefix_in("end_to_end-", args.work_dir()?)?;
        if tls {
            make_certs(args, dir.path())?;
        }
        fs::create_dir(dir.path().join("data"))?;
        // Both get a port that was free a moment ago: Mosquitto cannot choose one itself.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = spawn(args, kind, dir.path(), port, tls)?;
        listens(&mut child, kind, dir.path(), port).await?;
        let scheme = if tls { "mqtts" } else { "mqtt" };
        let transport = format!("{scheme}://localhost:{port}").parse()?;
        let target = Target::new(transport, Some(&dir.path().join("certs/ca.crt")), None)?;
        Ok(Self { process: Process::new(child.id()), target, port, kind, tls, child, dir })
    }

    /// Ends it, starts it again on the same folder and port, and waits until it takes connections. Returns how long the
    /// start took.
    pub(crate) async fn restart(&mut self, args: &Args) -> Result<Duration> {
        self.end().await?;
        let clock = Instant::now();
        self.child = spawn(args, self.kind, self.dir.path(), self.port, self.tls)?;
        self.process = Process::new(self.child.id());
        listens(&mut self.child, self.kind, self.dir.path(), self.port).await?;
        Ok(clock.elapsed())
    }

    /// Bytes that the data folder takes on the disk.
    pub(crate) fn folder_bytes(&self) -> Result<u64> {
        disk_bytes(&self.dir.path().join("data"))
    }

    /// Ends it, and returns what it had to say: the last lines of its log.
    pub(crate) async fn stop(mut self) -> Result<String> {
        self.end().await?;
        let log = fs::read_to_string(self.dir.path().join("log"))?;
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        Ok(lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    async fn end(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > until {
                return Err("does not end on SIGTERM".into());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &Args, kind: Kind, dir: &Path, port: u16, tls: bool) -> Result<Child> {
    let mut command = match kind {
        Kind::Dormouse => dormouse(args, dir, port, tls)?,
        Kind::Mosquitto => mosquitto(args, dir, port, tls)?,
        Kind::Rumqttd if tls => return Err("rumqttd is not measured over TLS".into()),
        Kind::Rumqttd => rumqttd(args, dir, port)?,
        Kind::Rmqttd => rmqttd(args, dir, port, tls)?,
    };
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// By its whole path, since it is started in another folder.
fn program(kind: Kind, args: &Args) -> Result<PathBuf> {
    let program = located(kind.binary(args)).ok_or_else(|| format!("{} is not there", kind.name()))?;
    Ok(fs::canonicalize(program)?)
}

/// Waits until it takes connections.
async fn listens(child: &mut Child, kind: Kind, dir: &Path, port: u16) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(dir.join("log"))?;
            return Err(format!("{} ended with {status}\n{log}", kind.name()).into());
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Err(format!("{} does not listen", kind.name()).into());
        }
        sleep(GLANCE).await;
    }
    Ok(())
}

/// As installed, but for bounds that some scenarios go beyond: connections, the queue of a session and the size of a packet.
fn dormouse(args: &Args, dir: &Path, port: u16, tls: bool) -> Result<Command> {
    let config = "[limits]\n\
                  connections_max = 15000\n\
                  packet_bytes_max = \"128MiB\"\n\
                  [sessions]\n\
                  queue_messages_max = 2000000\n\
                  queue_bytes_max = \"1GiB\"\n";
    let path = dir.join("dormouse.toml");
    fs::write(&path, config)?;
    let mut command = Command::new(program(Kind::Dormouse, args)?);
    let scheme = if tls { "tls" } else { "tcp" };
    command
        .current_dir(dir)
        .args([
            "serve",
            "--config",
            "dormouse.toml",
            "--log-level",
            "warn",
            "--admin",
            "off",
            "--listen",
            &format!("{scheme}://127.0.0.1:{port}"),
        ])
        .arg("--data")
        .arg(dir.join("data"))
        .arg("--certs")
        .arg(dir.join("certs"));
    Ok(command)
}

/// As installed, but without bounds that would drop messages or hold them up here. Persistence is on, with the
/// half hour between two saves that is its default: what it acknowledges is in memory. `user` is for runs as root.
fn mosquitto(args: &Args, dir: &Path, port: u16, tls: bool) -> Result<Command> {
    let mut config = format!(
        "listener {port} 127.0.0.1\n\
         allow_anonymous true\n\
         persistence true\n\
         persistence_location {data}/\n\
         max_queued_messages 0\n\
         max_inflight_messages 0\n\
         max_packet_size 268435455\n\
         set_tcp_nodelay true\n\
         log_type error\n\
         log_dest stderr\n\
         user root\n",
        data = dir.join("data").display(),
    );
    if tls {
        let certs = dir.join("certs");
        for (key, file) in [("cafile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key")] {
            let _ = writeln!(config, "{key} {}", certs.join(file).display());
        }
    }
    let path = dir.join("mosquitto.conf");
    fs::write(&path, config)?;
    let mut command = Command::new(program(Kind::Mosquitto, args)?);
    command.arg("-c").arg(path);
    Ok(command)
}

/// A listener for MQTT 5.0, and bounds as in its example but for windows as large as ours. It keeps nothing on disk.
fn rumqttd(args: &Args, dir: &Path, port: u16) -> Result<Command> {
    let config = format!(
        "id = 0\n\
         [router]\n\
         id = 0\n\
         max_connections = 20010\n\
         max_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\n\
         max_segment_count = 10\n\
         [v5.1]\n\
         name = \"v5-1\"\n\
         listen = \"127.0.0.1:{port}\"\n\
         next_connection_delay_ms = 1\n\
         [v5.1.connections]\n\
         connection_timeout_ms = 60000\n\
         max_payload_size = 1048576\n\
         max_inflight_count = 512\n\
         dynamic_filters = true\n"
    );
    let path = dir.join("rumqttd.toml");
    fs::write(&path, config)?;
    let mut command = Command::new(program(Kind::Rumqttd, args)?);
    command.arg("-q").arg("-c").arg(path);
    Ok(command)
}

/// As installed, but without bounds that would drop messages or turn clients away here, with a window as large as ours, and without
/// its HTTP interface, which has a port of its own. It keeps nothing on disk.
fn rmqttd(args: &Args, dir: &Path, port: u16, tls: bool) -> Result<Command> {
    let scheme = if tls { "tls" } else { "tcp" };
    let mut config = format!(
        "[node]\n\
         busy.check_enable = false\n\
         [rpc]\n\
         server_addr = \"127.0.0.1:0\"\n\
         [log]\n\
         to = \"off\"\n\
         [plugins]\n\
         disabled_default_startups = [\"rmqtt-http-api\"]\n\
         [listener.{scheme}.measured]\n\
         addr = \"127.0.0.1:{port}\"\n\
         allow_anonymous = true\n\
         nodelay = true\n\
         max_connections = 20000\n\
         max_handshaking_limit = 20000\n\
         max_packet_size = \"128m\"\n\
         max_inflight = 512\n\
         max_mqueue_len = 2000000\n"
    );
    if tls {
        let certs = dir.join("certs");
        for (key, file) in [("cert", "server.crt"), ("key", "server.key")] {
            let _ = writeln!(config, "{key} = \"{}\"", certs.join(file).display());
        }
    }
    let path = dir.join("rmqtt.toml");
    fs::write(&path, config)?;
    let mut command = Command::new(program(Kind::Rmqttd, args)?);
    command.current_dir(dir).arg("--config").arg(path);
    Ok(command)
}

fn make_certs(args: &Args, dir: &Path) -> Result<()> {
    let made = Command::new(program(Kind::Dormouse, args)?)
        .arg("certs")
        .arg("--out")
        .arg(dir.join("certs"))
        .output()?;
    if made.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&made.stderr).into_owned().into())
    }
}

/// Blocks, not lengths: files may have holes. A file that goes away meanwhile counts nothing.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path()).unwrap_or(0)
        } else {
            metadata.blocks() * BLOCK_BYTES
        };
    }
    Ok(bytes)
}
