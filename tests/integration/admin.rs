//! The admin listener of the real binary: what it counts, what it says of the broker's health, what it lets nobody do.
#![expect(clippy::float_cmp, reason = "counts are whole numbers, in the format's floats")]
#![expect(clippy::disallowed_methods, reason = "what is waited for has a limit")]

mod exposition;
pub(crate) mod http;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use dormouse::codec::{QoS, ReasonCode, Version};

use self::{
    exposition::Exposition,
    http::{get, request},
};
use crate::{
    harness::{Broker, LIMIT},
    peer::packets::{connack, connect, publish},
};

fn scrape(admin: SocketAddr) -> Exposition {
    let answer = get(admin, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    Exposition::parse(&answer.body).unwrap_or_else(|why| panic!("{why}\n{}", answer.body))
}

/// Sessions are gone through once a second: scrapes until what came last is seen.
fn scrape_until(admin: SocketAddr, seen: impl Fn(&Exposition) -> bool) -> Exposition {
    let until = Instant::now() + LIMIT;
    loop {
        let scraped = scrape(admin);
        if seen(&scraped) {
            return scraped;
        }
        assert!(Instant::now() < until, "it is not seen: {scraped:#?}");
    }
}

/// A device that sleeps and wakes, somebody who publishes, somebody who is refused: every packet of it is counted once.
#[tokio::test]
async fn a_known_pattern_of_traffic_is_counted_exactly() {
    let broker = Broker::start();
    let admin = broker.admin();
    let before = scrape(admin);
    for name in ["dormouse_received_packets_total", "dormouse_sent_packets_total", "dormouse_queued_messages"]
    {
        assert_eq!(before.value(name, &[]), 0.0, "{name}");
    }

    let mut dev = broker.client(Version::V311, connect("dev").persistent()).await;
    dev.subscribed("a/#", QoS::AtLeastOnce).await;
    dev.leave().await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("a/0", "for nobody awake")).await;
    for (packet_id, payload) in [(1, "x"), (2, "yy"), (3, "zzz")] {
        other.published(publish("a/1", payload).qos1(packet_id)).await;
    }
    other.published(publish("b", "for nobody").qos2(4)).await;
    other.published(publish("r", "12345").qos1(5).retained()).await;
    let mut nameless = broker.peer(Version::V311).await;
    nameless.send(connect("").persistent()).await;
    nameless.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;

    let asleep =
        scrape_until(admin, |scraped| scraped.value("dormouse_sessions", &[("state", "offline")]) == 1.0);
    let expect = |scraped: &Exposition, name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(scraped.value(name, labels), value, "{name} {labels:?}");
    };
    // CONNECT, SUBSCRIBE, DISCONNECT; CONNECT, PUBLISH x 6, PINGREQ, PUBREL; CONNECT.
    expect(&asleep, "dormouse_received_packets_total", &[], 13.0);
    // CONNACK, SUBACK; CONNACK, PINGRESP, PUBACK x 4, PUBREC, PUBCOMP; CONNACK.
    expect(&asleep, "dormouse_sent_packets_total", &[], 11.0);
    for (qos, received) in [("0", 1.0), ("1", 4.0), ("2", 1.0)] {
        expect(&asleep, "dormouse_received_messages_total", &[("qos", qos)], received);
        expect(&asleep, "dormouse_sent_messages_total", &[("qos", qos)], 0.0);
    }
    expect(&asleep, "dormouse_dropped_messages_total", &[("reason", "asleep")], 1.0);
    expect(&asleep, "dormouse_dropped_messages_total", &[("reason", "queue_full")], 0.0);
    expect(&asleep, "dormouse_connects_accepted_total", &[], 2.0);
    expect(&asleep, "dormouse_connects_refused_total", &[("reason", "client_identifier_not_valid")], 1.0);
    expect(&asleep, "dormouse_sessions", &[("state", "online")], 1.0);
    expect(&asleep, "dormouse_sessions", &[("state", "offline")], 1.0);
    expect(&asleep, "dormouse_subscriptions", &[], 1.0);
    expect(&asleep, "dormouse_queued_messages", &[], 3.0);
    expect(&asleep, "dormouse_queued_bytes", &[], 3.0 * 3.0 + 6.0);
    expect(&asleep, "dormouse_retained_messages", &[], 1.0);
    expect(&asleep, "dormouse_retained_bytes", &[], 6.0);
    expect(&asleep, "dormouse_journal_written_messages_total", &[], 4.0);
    expect(&asleep, "dormouse_journal_elided_messages_total", &[], 0.0);
    expect(&asleep, "dormouse_journal_kept_bytes_total", &[], 15.0 + 6.0);
    expect(&asleep, "dormouse_ready", &[], 1.0);
    // The port was chosen by the system: the listener's name is from before that.
    let plain = [("listener", "tcp://127.0.0.1:0"), ("transport", "tcp")];
    expect(&asleep, "dormouse_connections_accepted_total", &plain, 3.0);
    let commits = asleep.value("dormouse_journal_commits_total", &[]);
    assert!(commits >= 5.0, "{commits}");
    assert_eq!(asleep.value("dormouse_journal_commit_duration_seconds_count", &[]), commits);
    assert_eq!(asleep.value("dormouse_journal_commit_messages_sum", &[]), 4.0);

    let mut dev = broker.returning(Version::V311, connect("dev").persistent()).await;
    for payload in ["x", "yy", "zzz"] {
        dev.take(publish("a/1", payload).qos1(0)).await;
    }
    dev.expect_nothing_for_one_ping().await;
    let awake =
        scrape_until(admin, |scraped| scraped.value("dormouse_sessions", &[("state", "online")]) == 2.0);
    expect(&awake, "dormouse_sent_messages_total", &[("qos", "1")], 3.0);
    expect(&awake, "dormouse_received_packets_total", &[], 13.0 + 5.0);
    expect(&awake, "dormouse_sent_packets_total", &[], 11.0 + 5.0);
    expect(&awake, "dormouse_queued_messages", &[], 0.0);
    expect(&awake, "dormouse_queued_bytes", &[], 0.0);
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(awake.value(name, &[]) > 0.0, "{name}");
    }
    assert!(
        awake.value("dormouse_disk_sync_median_seconds", &[])
            <= awake.value("dormouse_disk_sync_max_seconds", &[])
    );
}

/// With its receiver awake a message is confirmed before it is written, and counts as kept all the same.
#[tokio::test]
async fn what_is_elided_is_counted() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev").session_expiry(3_600)).await;
    dev.subscribed("a", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.send(publish("a", "12345").qos1(1)).await;
    dev.take(publish("a", "12345").qos1(0)).await;
    other.expect(crate::peer::packets::puback(1)).await;
    let scraped = scrape(broker.admin());
    let written = scraped.value("dormouse_journal_written_messages_total", &[]);
    let elided = scraped.value("dormouse_journal_elided_messages_total", &[]);
    assert_eq!(written + elided, 1.0, "on a machine so busy that the confirmation came late it was written");
    assert_eq!(scraped.value("dormouse_journal_kept_bytes_total", &[]), 6.0);
    assert_eq!(scraped.value("dormouse_journal_held_messages", &[]), 0.0);
}

#[tokio::test]
async fn readiness_turns_red_when_the_journal_fails_and_the_process_lives_on() {
    let broker = Broker::start();
    let admin = broker.admin();
    assert_eq!(get(admin, "/readyz").said(), (200, "ok\n"));
    let mut dev = broker.client(Version::V5, connect("dev").session_expiry(3_600)).await;
    dev.subscribed("a", QoS::AtLeastOnce).await;
    dev.leave().await;
    // The folder is gone from under the journal: its next sync fails.
    let journal = broker.data_dir().join("journal");
    fs::rename(&journal, broker.data_dir().join("away")).unwrap();
    File::create(&journal).unwrap();
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.send(publish("a", "1").qos1(1)).await;

    let until = Instant::now() + LIMIT;
    let red = loop {
        let answer = get(admin, "/readyz");
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < until, "readiness stays green: {}", broker.log());
    };
    let reason =
        "store_failed: writing the journal failed, and nothing is acknowledged any more until a restart\n";
    assert_eq!(red.said(), (503, reason));
    assert_eq!(get(admin, "/livez").said(), (200, "ok\n"));
    let scraped = scrape(admin);
    assert_eq!(scraped.value("dormouse_ready", &[]), 0.0);
    assert_eq!(scraped.value("dormouse_journal_poisoned", &[]), 1.0);
}

#[test]
fn only_what_is_there_is_served_and_only_for_reading() {
    let broker = Broker::start();
    let admin = broker.admin();
    for path in ["/", "/metrics/", "/livez/x", "/../data", "/debug", "/METRICS"] {
        assert_eq!(get(admin, path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"] {
        for path in ["/metrics", "/livez", "/readyz"] {
            let answer =
                request(admin, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    let head = request(admin, "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, Some("3"), ""));
    assert_eq!(get(admin, "/livez?verbose").said(), (200, "ok\n"));
    // HTTP/1.0, as some checkers speak it.
    assert_eq!(request(admin, "GET /livez HTTP/1.0\r\n\r\n").said(), (200, "ok\n"));
}

#[test]
fn what_a_client_may_take_is_bounded() {
    let broker = Broker::start();
    let admin = broker.admin();
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(request(admin, &long).status, 431);
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert_eq!(request(admin, &many).status, 431);

    // One that says nothing is closed, and before that keeps nobody else from being served.
    let mut silent = TcpStream::connect(admin).unwrap();
    silent.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    let others: Vec<TcpStream> = (0..15).map(|_| TcpStream::connect(admin).unwrap()).collect();
    let mut beyond = TcpStream::connect(admin).unwrap();
    beyond.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    beyond.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let refused = beyond.read(&mut [0; 1]).unwrap_err();
    assert!(
        matches!(refused.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        "{refused}"
    );
    drop(others);
    beyond.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = String::new();
    beyond.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut rest = Vec::new();
    // Closed, whether with an answer or a reset, not kept.
    let _ = silent.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_taken_port_is_one_clear_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dormouse"))
        .args(["--listen", "tcp://127.0.0.1:0", "--admin", &address.to_string()])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    let expected = format!("dormouse: cannot listen on {address} for monitoring: ");
    assert!(err.lines().any(|line| line.starts_with(&expected) && line.contains("--admin off")), "{err}");
    assert!(!folder.path().join("data").exists(), "nothing was opened");
}

#[test]
fn check_asks_a_running_broker_whether_it_lives() {
    let mut broker = Broker::start();
    let admin = broker.admin().to_string();
    let ask = |more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        let output =
            command.args(["check", "--live"]).args(more).current_dir(folder.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(ask(&["--admin", &admin]), (Some(0), "ok\n".to_owned(), String::new()));
    let (code, _, err) = ask(&["--admin", "off"]);
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    assert!(broker.terminate().success());
    let (code, out, err) = ask(&["--admin", &admin]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("dormouse: no answer from http://{admin}/livez: ")), "{err}");
}
