//! Clients that take without giving: they cost themselves, not the broker and not the others.

use dormouse::codec::{QoS, Version};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{connect, puback, publish},
};

const SILENT: usize = 1_000;

/// A thousand connections that say nothing are closed by the connect timeout, while another client works.
#[tokio::test]
async fn silent_connections_are_closed_while_others_work() {
    // Of this process, which the broker inherits: a thousand sockets are a file each.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).unwrap();
    let broker = Broker::start_configured("[limits]\nconnect_timeout = \"2s\"\n");
    let mut reader = broker.client(Version::V5, connect("reader")).await;
    reader.subscribed("t", QoS::AtLeastOnce).await;
    let mut publisher = broker.client(Version::V311, connect("publisher")).await;
    let mut silent = Vec::new();
    for i in 0..SILENT {
        silent.push(broker.peer(Version::V311).await);
        if i % 100 == 0 {
            publisher.send(publish("t", "1").qos1(1)).await;
            reader.take(publish("t", "1").qos1(0)).await;
            publisher.expect(puback(1)).await;
        }
    }
    for mut peer in silent {
        assert_eq!(peer.expect_ended().await, b"");
        publisher.expect_nothing_for_one_ping().await;
    }
    publisher.send(publish("t", "2").qos1(2)).await;
    reader.take(publish("t", "2").qos1(0)).await;
    publisher.expect(puback(2)).await;
    let lines = broker.logged(&["no CONNECT in time"]);
    assert!((1..=3).contains(&lines), "one line in ten seconds, with a count: {lines}");
}

/// 100 MB at clients that never read: what they cannot take is dropped (QoS 0) or pushed out of a bounded queue (QoS 1).
#[tokio::test]
async fn a_client_that_never_reads_costs_bounded_memory() {
    const PAYLOAD: usize = 64 << 10;
    const TOGETHER: usize = 16;
    const ROUNDS: usize = (100 << 20) / PAYLOAD / TOGETHER;
    const GROWTH_MAX: usize = 48 << 20;
    let broker = Broker::start_configured("[sessions]\nqueue_bytes_max = \"4MiB\"\n");
    let mut sloths = Vec::new();
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut sloth = broker.client(version, connect(&format!("{qos:?}-{version:?}"))).await;
            sloth.subscribed("flood", qos).await;
            sloths.push(sloth);
        }
    }
    let mut reader = broker.client(Version::V5, connect("reader")).await;
    reader.subscribed("flood", QoS::AtMostOnce).await;
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    let payload = vec![b'x'; PAYLOAD];
    let before = broker.resident_bytes();
    let mut most = 0;
    for _ in 0..ROUNDS {
        for _ in 0..TOGETHER {
            publisher.send(publish("flood", &payload).qos1(1)).await;
            reader.expect_publish(publish("flood", &payload)).await;
        }
        for _ in 0..TOGETHER {
            publisher.expect(puback(1)).await;
        }
        most = most.max(broker.resident_bytes());
    }
    assert!(most < before + GROWTH_MAX, "grew from {before} to {most} bytes");
    // Which of them is named is chance: such lines are counted, and not written for every message.
    assert!(broker.logged(&["\"WARN\"", "AtMostOnce-", "reads too slowly"]) >= 1);
    assert!(broker.logged(&["\"WARN\"", "AtLeastOnce-", "its queue is full"]) >= 1);
    assert!(broker.log().lines().count() < 100, "not a line a message");
    reader.expect_nothing_for_one_ping().await;
}
