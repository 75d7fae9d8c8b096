//! What the broker says of itself.

use std::{sync::atomic::Ordering, time::Duration};

use super::*;
use crate::broker::Unready;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_broker_that_ends_or_whose_store_has_failed_is_not_ready() {
    let world = World::new();
    assert_eq!(world.broker.unready(), []);
    world.broker.begin_shutdown(world.now());
    assert_eq!(world.broker.unready(), [Unready::ShuttingDown]);

    let world = World::new();
    let mut client = world.joined(&connect("c"), false);
    world.disk.fail_after(0);
    client.send(&retained(QoS::AtLeastOnce, 1, "a", "x"));
    world.settle();
    assert_eq!(world.broker.unready(), [Unready::StoreFailed]);
    assert!(world.broker.is_alive(LIMIT), "it still says so");
    world.broker.begin_shutdown(world.now());
    assert_eq!(world.broker.unready(), [Unready::StoreFailed, Unready::ShuttingDown]);
}

#[test]
fn a_broker_whose_clock_work_is_not_looked_after_stands_still() {
    let world = World::new();
    world.pass(1_000_000);
    assert!(world.broker.is_alive(LIMIT));
    world.ms.fetch_add(30_000, Ordering::Relaxed);
    assert!(world.broker.is_alive(LIMIT));
    world.ms.fetch_add(1, Ordering::Relaxed);
    assert!(!world.broker.is_alive(LIMIT));
    world.pass(0);
    assert!(world.broker.is_alive(LIMIT));
}

#[test]
fn packets_are_counted_in_both_directions_and_drops_by_reason() {
    let world = World::with(Config { retained_messages_max: 1, ..Config::default() });
    let mut dev = world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce);
    let mut small = transient("small");
    small.properties.packet_bytes_max = Some(60);
    let mut small = world.subscriber(&small, "a", QoS::AtMostOnce);
    let mut pub_ = world.joined(&transient("pub"), false);
    pub_.send(&qos1(1, "a", &"x".repeat(100)));
    world.settle();
    assert_eq!(dev.heard().len(), 1);
    assert!(small.heard().is_empty());
    dev.send(&puback(1));
    dev.lose();
    pub_.send(&qos1(2, "a", "y"));
    world.settle();
    pub_.send(&retained(QoS::AtLeastOnce, 3, "r", "1"));
    pub_.send(&retained(QoS::AtLeastOnce, 4, "s", "1"));
    world.settle();
    assert_eq!(pub_.heard().len(), 4);
    let stats = world.broker.stats();
    // CONNECT, SUBSCRIBE, PUBACK; CONNECT, SUBSCRIBE; CONNECT, PUBLISH x 4.
    assert_eq!((stats.received.packets, stats.received.messages), (10, [0, 4, 0]));
    // CONNACK, SUBACK, PUBLISH; CONNACK, SUBACK, PUBLISH "y"; CONNACK, PUBACK x 4.
    assert_eq!(small.heard(), ["PUBLISH q0 a=y"]);
    let sent = world.broker.stats().sent;
    assert_eq!((sent.packets, sent.messages), (11, [1, 1, 0]));
    let dropped: Vec<_> = stats.dropped.by_reason().into_iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(dropped, [("too_large", 1)]);
    assert_eq!((stats.refused_retained_full, stats.refused_store_failed), (1, 0));
    assert_eq!((stats.retained_messages, stats.retained_bytes, stats.subscriptions), (1, 2, 2));
    let sessions = world.broker.session_stats();
    assert_eq!((sessions.online, sessions.offline), (2, 1));
    assert_eq!((sessions.queued_messages, sessions.queued_bytes), (1, 2));
}
