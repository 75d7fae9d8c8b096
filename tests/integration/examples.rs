//! The examples do what their first lines say, on a broker of the tests' own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{harness::Broker, program::Program};

/// Wakes until every command has come. One is enough, unless the machine is so busy that the sensor's half second of quiet
/// passes in between.
const WAKES_MAX: usize = 20;

#[test]
fn the_sensor_takes_at_its_next_wake_what_the_commander_sent_while_it_slept() {
    let mut broker = Broker::start();
    let wake = |broker: &Broker| run("sleepy_sensor", &["sensor1", "1"], broker);
    assert_eq!(wake(&broker), ["sensor1: wake 1: 0 commands taken, reading left, back to sleep"]);

    let sent = run("commander", &["sensor1", "open valve", "measure", "close valve"], &broker);
    assert_eq!(sent, [1, 2, 3].map(|n| format!("{n} of 3 commands for sensor1 are safe")));
    broker.kill9();
    broker.restart();

    let expected = ["0 open valve", "1 measure", "2 close valve"];
    let mut taken = Vec::new();
    for _ in 0..WAKES_MAX {
        let mut lines = wake(&broker);
        let last = lines.pop();
        let n = lines.len();
        let sleeps = format!("sensor1: wake 1: {n} commands taken, reading left, back to sleep");
        assert_eq!(last, Some(sleeps));
        taken.extend(lines);
        if taken.len() >= expected.len() {
            break;
        }
    }
    assert_eq!(taken, expected.map(|command| format!("sensor1: cmd/sensor1/{command}")));
}

#[test]
fn the_embedded_broker_serves_a_client_of_the_same_program() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_in(folder.path(), Command::new(example("embedded")));
    let [address, heard] = output.as_slice() else { panic!("{output:?}") };
    assert!(address.starts_with("the broker listens on 127.0.0.1:"), "{address}");
    assert_eq!(heard, "the client heard: good morning");
    assert!(folder.path().join("data-embedded").is_dir());
}

fn run(name: &str, args: &[&str], broker: &Broker) -> Vec<String> {
    let mut command = Command::new(example(name));
    command.args(args);
    command
        .env("MQTT_PORT", broker.tls().port().to_string())
        .env("MQTT_CA", broker.certs_dir().join("ca.crt"));
    run_in(&broker.certs_dir(), command)
}

/// The lines it prints, when it ends well.
fn run_in(folder: &Path, mut command: Command) -> Vec<String> {
    command.current_dir(folder);
    Program::start(command, &[]).finish()
}

/// Cargo puts examples beside the folder of the tests, and tells tests nothing about them.
fn example(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing; `cargo test` builds the examples, `cargo test --test integration` does not: `cargo build --examples` does",
        path.display()
    );
    path
}
