//! `dormouse bench`, against a real broker.

use std::process::{Command, Output, Stdio};

use dormouse::bench::{Peer, Session, Target};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Duration, timeout},
};

use crate::harness::Broker;

fn bench(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_")) {
        command.env_remove(name);
    }
    command.arg("bench").args(words).stdin(Stdio::null()).output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

/// Every shape and QoS, live, paced, persistent and asleep: all that is sent arrives, and the JSON says so.
#[test]
fn everything_arrives_and_is_measured() {
    let broker = Broker::start();
    let (url, pid) = (format!("mqtt://{}", broker.plain()), broker.pid().to_string());
    let output = bench(&[
        &url,
        "--pid",
        &pid,
        "--disk",
        broker.folder().to_str().unwrap(),
        "--json",
        "--seconds",
        "1",
        "--clients",
        "2",
        "--sleepers",
        "8",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["broker"], url.as_str());
    assert!(report["sync_us"].as_f64().unwrap() > 0.0);
    let rows = report["results"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["scenario"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "qos0-fan-in",
            "qos0-fan-out",
            "qos0-pairs",
            "qos1-fan-in",
            "qos1-fan-out",
            "qos1-pairs",
            "qos2-pairs",
            "qos1-paced",
            "online",
            "sleepers, asleep",
            "sleepers, waking"
        ]
    );
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"));
        assert!(number("sent") > 0.0 && number("rate") > 0.0 && number("cpu_us_per_message") > 0.0, "{row}");
        for fault in ["lost", "duplicated", "reordered"] {
            assert_eq!(row[fault], 0, "{row}");
        }
        let receivers = match row["scenario"].as_str().unwrap() {
            "sleepers, asleep" => 0,
            "qos0-fan-out" | "qos1-fan-out" => 20,
            _ => 1,
        };
        assert_eq!(row["delivered"], row["sent"].as_u64().unwrap() * receivers, "{row}");
    }
    // 1,000 messages a second for a second, as far as a busy machine lets it.
    let paced = rows.iter().find(|row| row["scenario"] == "qos1-paced").unwrap();
    assert!((1..=1_001).contains(&paced["sent"].as_u64().unwrap()), "{paced}");
}

/// Readings at a pace, to sleepers, and to subscribers who take their time to confirm: the acknowledgement waits for them,
/// and nothing is written; what sleepers are sent is.
#[test]
fn slow_confirmations_cost_time_and_sleepers_cost_writes() {
    let broker = Broker::start();
    let (url, pid) = (format!("mqtt://{}", broker.plain()), broker.pid().to_string());
    let words = "--scenario online,sleepers --content readings --payload 150 --pace 40 --confirm-after 30 --clients 2";
    let mut all =
        vec![url.as_str(), "--pid", &pid, "--json", "--seconds", "2", "--sleepers", "4", "--each", "5"];
    all.extend(words.split(' '));
    let output = bench(&all);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [online, asleep, waking] = &report["results"].as_array().unwrap()[..] else { panic!("{report}") };
    // 80 in two seconds, as far as a busy machine lets it.
    assert!((1..=81).contains(&online["sent"].as_u64().unwrap()), "{online}");
    assert!(online["acknowledgement"]["p50_us"].as_f64().unwrap() >= 30_000.0, "{online}");
    assert_eq!((&asleep["sent"], &waking["delivered"]), (&20.into(), &20.into()), "{report}");
    // The last of 20 is sent at 475 ms.
    assert!(asleep["seconds"].as_f64().unwrap() >= 0.4, "{asleep}");
    assert!(asleep["disk_bytes_per_byte"].as_f64().unwrap() >= 0.0, "{asleep}");
}

#[test]
fn what_a_broker_drops_is_counted_and_an_error() {
    let broker = Broker::start_configured("[sessions]\nqueue_messages_max = 30\n");
    let url = format!("mqtt://{}", broker.plain());
    let output = bench(&[&url, "--scenario", "sleepers", "--sleepers", "4", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(complaint(&output), "dormouse: messages were lost, doubled, or out of order: see the table");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Ten of forty, for each of the four.
    assert_eq!(report["results"][1]["lost"], 40, "{report}");
    assert_eq!(report["results"][1]["delivered"], 120, "{report}");
}

#[test]
fn tls_and_a_table() {
    let broker = Broker::start();
    let ca = broker.certs_dir().join("ca.crt");
    let url = format!("mqtts://localhost:{}", broker.tls().port());
    let output = bench(&[&url, "--ca", ca.to_str().unwrap(), "--scenario", "qos1-pairs", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    let row = table.lines().find(|line| line.starts_with("qos1-pairs")).unwrap();
    assert!(table.starts_with(&url) && row.ends_with("  0/0/0"), "{table}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = bench(&[&format!("mqtt://{free}"), "--scenario", "qos0-pairs"]);
    assert_eq!(output.status.code(), Some(1));
    let said = complaint(&output);
    assert!(said.starts_with(&format!("dormouse: qos0-pairs: connecting to mqtt://{free}: ")), "{said}");
    let output = bench(&["mqtts://localhost"]);
    assert_eq!(
        complaint(&output),
        "dormouse: mqtts://localhost:8883 needs the certificate of its authority (--ca FILE)"
    );
    assert_eq!(bench(&["http://localhost"]).status.code(), Some(2));
}

/// A broker that takes fewer unanswered messages than the window has is not sent more.
#[test]
fn the_receive_maximum_of_the_broker_bounds_the_window() {
    let broker = Broker::start_configured("[limits]\nreceive_maximum = 3\n");
    let url = format!("mqtt://{}", broker.plain());
    let scenarios = "qos1-pairs,qos2-pairs,online,sleepers";
    let output =
        bench(&[&url, "--scenario", scenarios, "--seconds", "1", "--clients", "2", "--sleepers", "8"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
}

/// A broker may leave it to the client to close the connection behind its DISCONNECT: the client has to [MQTT-3.14.4-2].
#[tokio::test]
async fn who_says_good_bye_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let target = Target::new(url.parse().unwrap(), None, None).unwrap();
    let broker = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut packet = [0; 1024];
        assert!(client.read(&mut packet).await.unwrap() > 0, "CONNECT");
        client.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let (peer, _) = Peer::connect(&target, "a", Session::Transient).await.unwrap();
    timeout(Duration::from_secs(20), peer.disconnect()).await.expect("it waits for the broker").unwrap();
    assert_eq!(broker.await.unwrap(), [0xe0, 0], "DISCONNECT, and the end");
}
