//! `rumqttc` as a client, for MQTT 3.1.1 and 5.0, over TCP and TLS: what a device's program in Rust sees of the broker.

mod client;

use self::client::{Dial, EVERY_WAY, Heard, message};
use crate::harness::Broker;

#[tokio::test]
async fn messages_of_each_quality_come_through_wildcards() {
    let broker = Broker::start();
    for way in EVERY_WAY {
        let mut sub = Dial::new("sub", way, &broker).connect().await;
        sub.subscribe("site/+/temp", 2).await;
        sub.subscribe("alarm/#", 1).await;
        let mut publisher = Dial::new("pub", way, &broker).connect().await;
        for qos in [0, 1, 2] {
            publisher.publish("site/a/wind", qos, "not asked for").await;
            publisher.publish("site/a/temp", qos, "21").await;
            assert_eq!(sub.next().await, message("site/a/temp", qos, "21"), "{way:?}");
            publisher.publish("alarm", qos, "fire").await;
            assert_eq!(sub.next().await, message("alarm", qos.min(1), "fire"), "{way:?}");
        }
        sub.unsubscribe("alarm/#").await;
        publisher.publish("alarm", 1, "unheard").await;
        publisher.publish("site/a/temp", 1, "end").await;
        assert_eq!(sub.next().await, message("site/a/temp", 1, "end"), "{way:?}");
    }
}

#[tokio::test]
async fn retained_messages_wait_for_newcomers() {
    let broker = Broker::start();
    for way in EVERY_WAY {
        let mut publisher = Dial::new("pub", way, &broker).connect().await;
        for (topic, qos) in [("state/a", 0), ("state/b", 1), ("state/c", 2)] {
            publisher.retain(topic, qos, "on").await;
        }
        publisher.retain("state/b", 1, "").await;
        let mut newcomer = Dial::new("newcomer", way, &broker).connect().await;
        newcomer.subscribe("state/#", 2).await;
        let mut got = [newcomer.next().await, newcomer.next().await];
        got.sort();
        let expected =
            [("state/a", 0), ("state/c", 2)].map(|(topic, qos)| message(topic, qos, "on").retained());
        assert_eq!(got, expected, "{way:?}");
        publisher.publish("state/b", 1, "live").await;
        assert_eq!(newcomer.next().await, message("state/b", 1, "live"), "{way:?}");
    }
}

#[tokio::test]
async fn a_will_is_published_for_who_is_lost_not_for_who_leaves() {
    let broker = Broker::start();
    for way in EVERY_WAY {
        let mut watcher = Dial::new("watcher", way, &broker).connect().await;
        watcher.subscribe("gone/#", 1).await;
        let leaves = Dial::new("leaves", way, &broker).will("gone/leaves", "lost").connect().await;
        leaves.disconnect().await;
        let is_lost = Dial::new("is-lost", way, &broker).will("gone/is-lost", "lost").connect().await;
        drop(is_lost);
        assert_eq!(watcher.next().await, message("gone/is-lost", 1, "lost"), "{way:?}");
        let mut publisher = Dial::new("pub", way, &broker).connect().await;
        publisher.publish("gone/end", 1, "end").await;
        assert_eq!(watcher.next().await, message("gone/end", 1, "end"), "{way:?}");
    }
}

#[tokio::test]
async fn a_sleeper_gets_its_queue_and_clients_reconnect_after_kill_9() {
    const MESSAGES: u32 = 300;
    for way in EVERY_WAY {
        let mut broker = Broker::start();
        let dial = Dial::new("sleeper", way, &broker).persistent();
        let mut sleeper = dial.connect().await;
        assert!(!sleeper.session_present);
        sleeper.subscribe("cmd/sleeper/#", 2).await;
        sleeper.disconnect().await;
        let mut publisher = Dial::new("pub", way, &broker).connect().await;
        let expected: Vec<Heard> = (0..MESSAGES)
            .map(|n| message("cmd/sleeper/do", if n % 3 == 0 { 2 } else { 1 }, &n.to_string()))
            .collect();
        for Heard { topic, qos, payload, .. } in &expected {
            publisher.publish(topic, *qos, payload).await;
        }
        broker.kill9();
        broker.restart();

        let mut sleeper = dial.connect().await;
        assert!(sleeper.session_present, "{way:?}");
        for expected in &expected {
            assert_eq!(sleeper.next().await, *expected, "{way:?}");
        }
        assert!(!publisher.reconnected().await, "its session was a clean one");
        publisher.publish("cmd/sleeper/do", 1, "awake").await;
        assert_eq!(sleeper.next().await, message("cmd/sleeper/do", 1, "awake"), "{way:?}");

        // Now both are connected when the broker falls.
        sleeper.settle().await;
        broker.restart();
        assert!(sleeper.reconnected().await, "{way:?}");
        publisher.reconnected().await;
        publisher.publish("cmd/sleeper/do", 2, "again").await;
        assert_eq!(sleeper.next().await, message("cmd/sleeper/do", 2, "again"), "{way:?}");
    }
}

#[tokio::test]
async fn ten_megabytes_come_through() {
    let broker = Broker::start_configured("[limits]\npacket_bytes_max = '16MiB'\n");
    let payload = "0123456789abcdef".repeat(640 << 10);
    for way in EVERY_WAY {
        let mut sub = Dial::new("sub", way, &broker).connect().await;
        let mut publisher = Dial::new("pub", way, &broker).connect().await;
        for qos in [1, 2] {
            sub.subscribe("firmware", qos).await;
            publisher.publish("firmware", qos, &payload).await;
            let got = sub.next().await;
            assert!(got == message("firmware", qos, &payload), "{way:?}: {} bytes came", got.payload.len());
        }
    }
}

#[tokio::test]
async fn a_group_shares_its_messages() {
    const MESSAGES: usize = 30;
    let broker = Broker::start();
    for way in EVERY_WAY {
        let mut workers = Vec::new();
        for n in 0..3 {
            let mut worker = Dial::new(&format!("worker-{n}"), way, &broker).connect().await;
            worker.subscribe("$share/workers/job/#", 1).await;
            worker.subscribe("end", 1).await;
            workers.push(worker);
        }
        let mut publisher = Dial::new("pub", way, &broker).connect().await;
        for n in 0..MESSAGES {
            publisher.publish("job/one", 1, &format!("{n:02}")).await;
        }
        publisher.publish("end", 1, "").await;
        let mut got = Vec::new();
        for worker in &mut workers {
            let before = got.len();
            loop {
                let heard = worker.next().await;
                if heard.topic == "end" {
                    break;
                }
                got.push(heard.payload);
            }
            assert!(got.len() > before, "{way:?}: each gets something");
        }
        got.sort();
        assert_eq!(got, (0..MESSAGES).map(|n| format!("{n:02}")).collect::<Vec<_>>(), "{way:?}");
    }
}
