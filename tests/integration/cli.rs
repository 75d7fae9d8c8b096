//! The binary as a child process: exit codes, and what it says.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::harness::Broker;

fn dormouse(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.args(args).current_dir(dir).stdin(Stdio::null());
    // What the person running the tests has set is not theirs.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_")) {
        command.env_remove(name);
    }
    command
}

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    outcome(&dormouse(dir, args).output().unwrap())
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_says_that_the_built_in_configuration_is_right() {
    let dir = TempDir::new().unwrap();
    let (code, out, err) = run(dir.path(), &["check"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "built-in configuration: ok, 2 listeners, data in ./data\n\
         the first start makes development certificates in ./certs\n"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "check made something");
}

#[test]
fn check_accepts_the_files_that_are_shipped() {
    let dir = TempDir::new().unwrap();
    for file in ["config/dormouse.toml", "docker/dormouse.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let (code, out, err) = run(dir.path(), &["check", "--config", path.to_str().unwrap()]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{file}");
        assert!(out.starts_with(&format!("{}: ok, ", path.display())), "{out}");
    }
}

#[test]
fn mistakes_end_with_78_and_all_of_them() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("bad.toml"), "[store]\npth = \"x\"\n[log]\nlevel = \"loud\"\n").unwrap();
    let expected = "--durability (DORMOUSE_DURABILITY): \"no\" is not known; use \"power\", \"process\" or \"relaxed\"\n\
                    bad.toml:2: store.pth: unknown key `pth`; did you mean `path`?\n\
                    bad.toml:4: log.level: \"loud\" is not known; use \"error\", \"warn\", \"info\", \"debug\" or \"trace\"\n";
    for command in [&["check"][..], &["serve"], &[]] {
        let args = [command, &["--config", "bad.toml", "--durability", "no"]].concat();
        assert_eq!(run(dir.path(), &args), (Some(78), String::new(), expected.to_owned()), "{args:?}");
    }
    let (code, _, err) = run(dir.path(), &["check", "--config", "none.toml"]);
    assert_eq!(code, Some(78));
    assert!(err.starts_with("none.toml: cannot be read: No such file"), "{err}");
}

#[test]
fn variables_are_read_and_flags_go_before_them() {
    let dir = TempDir::new().unwrap();
    let mut command = dormouse(dir.path(), &["check"]);
    command
        .env("DORMOUSE_DATA", "/from/variable")
        .env("DORMOUSE_LISTEN", "tcp://127.0.0.1:1,tcp://127.0.0.1:2");
    command.env("DORMOUSE_DURABILITY", "");
    let (code, out, err) = outcome(&command.output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, "built-in configuration: ok, 2 listeners, data in /from/variable\n");
    let (_, out, _) = outcome(&command.args(["--data", "/from/flag"]).output().unwrap());
    assert!(out.ends_with("data in /from/flag\n"), "{out}");
    command.env("DORMOUSE_LISTEN", "tcp://0.0.0.0:1883");
    assert_eq!(command.output().unwrap().status.code(), Some(78));
    command.env("DORMOUSE_ALLOW_ANONYMOUS", "true");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn certificates_are_made_once_and_checked() {
    let dir = TempDir::new().unwrap();
    let (code, out, err) = run(dir.path(), &["certs", "--name", "gateway.example"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("made ./certs/ca.crt, ./certs/ca.key, ./certs/server.crt"), "{out}");
    let (code, out, err) = run(dir.path(), &["check"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "built-in configuration: ok, 2 listeners, data in ./data\n", "")
    );
    let (code, _, err) = run(dir.path(), &["certs"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("dormouse: ./certs/server.crt exists; --force"), "{err}");

    fs::copy(dir.path().join("certs/client.key"), dir.path().join("certs/server.key")).unwrap();
    let (code, _, err) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        err,
        "dormouse: listener tls://127.0.0.1:8883: the key in ./certs/server.key does not match the certificate in \
         ./certs/server.crt\n"
    );
    fs::remove_file(dir.path().join("certs/server.key")).unwrap();
    let (code, _, err) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("are incomplete") && err.contains("server.key missing"), "{err}");
}

/// What `check --show` prints is the file, the variables and the flags together, and a file itself.
#[test]
fn the_configuration_in_force_is_shown_as_a_file() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("x.toml"), "[store]\ndone_interval = \"2s\"\npath = \"./file\"\n").unwrap();
    let mut command = dormouse(dir.path(), &["check", "--show", "--config", "x.toml", "--data", "./flag"]);
    let (code, shown, err) = outcome(&command.env("DORMOUSE_LOG_LEVEL", "debug").output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in
        ["done_interval = \"2s\"", "path = \"./flag\"", "level = \"debug\"", "bind = \"127.0.0.1:8883\""]
    {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }

    fs::write(dir.path().join("shown.toml"), &shown).unwrap();
    let (code, again, err) = run(dir.path(), &["check", "-T", "--config", "shown.toml"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let body = |text: &str| text.split_once('\n').map(|(_, body)| body.to_owned());
    assert_eq!(body(&again), body(&shown));
    assert!(again.starts_with("# shown.toml, "), "{again}");
}

/// It shows where the keys are, never what is in them; also when they are what is wrong.
#[test]
fn showing_the_configuration_shows_no_key() {
    let dir = TempDir::new().unwrap();
    assert_eq!(run(dir.path(), &["certs"]).0, Some(0));
    let (code, shown, _) = run(dir.path(), &["check", "--show"]);
    assert_eq!(code, Some(0));
    fs::copy(dir.path().join("certs/client.key"), dir.path().join("certs/server.key")).unwrap();
    let (code, wrong, err) = run(dir.path(), &["check", "--show"]);
    assert_eq!((code, &wrong), (Some(1), &shown));
    assert!(shown.contains("./certs/server.key"), "{shown}");
    assert!(err.contains("does not match"), "{err}");
    for key in ["ca.key", "server.key", "client.key"] {
        for line in fs::read_to_string(dir.path().join("certs").join(key)).unwrap().lines() {
            assert!(!shown.contains(line) && !err.contains(line), "a line of {key}");
        }
    }
}

#[test]
fn unusable_certificate_files_are_told_each() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(
        dir.path().join("x.toml"),
        "[[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:8883\"\ncertificate = \"empty\"\nkey = \"none\"\n\
         client_certificates = \"required\"\nclient_ca = \"empty\"\n",
    )
    .unwrap();
    let (code, _, err) = run(dir.path(), &["check", "--config", "x.toml"]);
    assert_eq!(code, Some(1));
    let expected = [
        "dormouse: listener tls://127.0.0.1:8883: no certificate in empty (a PEM section \"BEGIN CERTIFICATE\" is wanted)",
        "dormouse: listener tls://127.0.0.1:8883: cannot read none: there is no such file",
        "dormouse: listener tls://127.0.0.1:8883: no certificate in empty (a PEM section \"BEGIN CERTIFICATE\" is wanted)",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_port_in_use_is_told_with_1() {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, _, err) = run(dir.path(), &["--admin", "off", "--listen", &format!("tcp://{address}")]);
    assert_eq!(code, Some(1));
    assert!(
        err.lines().any(|line| line.starts_with("dormouse: ") && line.contains(&address.to_string())),
        "{err}"
    );
}

#[test]
fn serving_tells_where_and_ends_on_sigterm_with_0() {
    let dir = TempDir::new().unwrap();
    let anywhere =
        ["--listen", "tcp://127.0.0.1:0", "--listen", "tls://127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut child =
        dormouse(dir.path(), &anywhere).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    for line in out.lines() {
        said.push(line.unwrap());
        if said.last().is_some_and(|line| line.contains("mosquitto_pub")) {
            break;
        }
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = said.join("\n");
    assert!(said.starts_with("made development certificates in ./certs\ndormouse "), "{said}");
    assert!(said.contains("  mosquitto_sub --cafile certs/ca.crt -h localhost -p "), "{said}");
    assert!(!said.contains(":0 "), "the system's choice of a port is not shown: {said}");
    assert!(dir.path().join("certs/client.key").exists());
}

/// What it logs until it fails on a port that is taken.
fn logged(args: &[&str]) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", taken.local_addr().unwrap());
    let (code, _, err) = run(dir.path(), &[&["--admin", "off", "--listen", &url], args].concat());
    assert_eq!(code, Some(1));
    err.lines().filter(|line| !line.starts_with("dormouse: ")).map(str::to_owned).collect()
}

#[test]
fn the_log_is_json_when_nobody_watches_and_follows_its_flags() {
    for args in [&[][..], &["--log-format", "json"]] {
        let log = logged(args);
        assert!(log.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{log:?}");
        let log = log.concat();
        assert!(log.contains("\"durability\":\"power: what is acknowledged survives a power cut\""), "{log}");
    }
    let human = logged(&["--log-format", "human", "--durability", "relaxed"]).concat();
    assert!(human.contains(" INFO starting") && human.contains("relaxed: "), "{human}");
    assert!(!human.contains(['{', '\u{1b}']), "neither JSON nor colours belong in a pipe: {human}");
    let quiet = logged(&["--log-level", "warn"]).concat();
    assert!(!quiet.contains("starting"), "{quiet}");
}

#[test]
fn help_and_version_end_with_0_and_nonsense_with_2() {
    let dir = TempDir::new().unwrap();
    let (code, out, _) = run(dir.path(), &["--help"]);
    assert_eq!(code, Some(0));
    for word in ["serve", "check", "certs", "--listen", "DORMOUSE_LISTEN", "78"] {
        assert!(out.contains(word), "{word} is not in\n{out}");
    }
    let version = format!("dormouse {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(dir.path(), &["--version"]), (Some(0), version, String::new()));
    assert_eq!(run(dir.path(), &["--nonsense"]).0, Some(2));
}

/// When the allocator gives free memory back it is told before it begins, so the process begins twice.
#[test]
fn the_allocator_is_told_to_give_memory_back() {
    let broker = Broker::start();
    let environment = fs::read(format!("/proc/{}/environ", broker.pid())).unwrap();
    for order in ["PURGE_DELAY=10", "ARENA_MAX_OBJECT_SIZE=1024", "GENERIC_COLLECT=500"] {
        let order = format!("MIMALLOC_{order}");
        assert!(environment.split(|byte| *byte == 0).any(|variable| variable == order.as_bytes()), "{order}");
    }
}
