//! Messages for clients that were away.

use super::{Client, World, connect, puback, qos1, qos2, v311};
use crate::codec::{Packet, QoS};

#[test]
fn a_sleeper_gets_more_than_one_block_of_numbers_in_one_go() {
    let world = World::new();
    world.subscriber(&connect("sleeper"), "cmd", QoS::AtLeastOnce).lose();
    // All in one commit; 3.1.1 knows no receive maximum.
    let mut publisher = world.joined(&v311("publisher"), false);
    for n in 0..4_000_u16 {
        publisher.send(&qos1(1 + n, "cmd", &n.to_string()));
    }
    world.settle();
    assert_eq!(publisher.heard().len(), 4_000);
    let mut sleeper = world.joined(&connect("sleeper"), true);
    assert_eq!(take_all(&world, &mut sleeper), 4_000);
}

#[test]
fn a_queue_longer_than_the_reserved_numbers_is_sent_after_a_power_cut() {
    let mut world = World::new();
    world.subscriber(&connect("sleeper"), "cmd", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&v311("publisher"), false);
    for n in 0..2_000_u16 {
        publisher.send(&qos1(1 + n, "cmd", &n.to_string()));
    }
    world.settle();
    drop(publisher);
    world.cut(1);
    let mut sleeper = world.joined(&connect("sleeper"), true);
    assert_eq!(take_all(&world, &mut sleeper), 2_000);
}

#[test]
fn bodies_are_asked_for_once() {
    let world = World::new();
    world.subscriber(&connect("sleeper"), "cmd", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&connect("publisher"), false);
    publisher.send(&qos1(1, "cmd", "0"));
    world.settle();
    let mut sleeper = world.join(&connect("sleeper"));
    assert_eq!(sleeper.heard(), ["CONNACK 1"]);
    for _ in 0..10 {
        sleeper.send(&Packet::Pingreq);
        assert_eq!(sleeper.heard(), ["PINGRESP"]);
    }
    assert!(world.broker.journal.read_step());
    assert!(!world.broker.journal.read_step(), "one request is enough");
    assert_eq!(sleeper.heard(), ["PUBLISH q1 #1 cmd=0"]);
}

#[test]
fn a_smaller_window_does_not_forget_what_a_larger_one_sent() {
    let mut world = World::new();
    let mut dev = world.subscriber(&connect("dev"), "cmd", QoS::ExactlyOnce);
    let mut publisher = world.joined(&connect("publisher"), false);
    for n in 1..=5 {
        publisher.send(&qos2(n, "cmd", "x"));
    }
    world.settle();
    assert_eq!(dev.heard().len(), 5);
    drop((dev, publisher));
    world.config.inflight_max = 2;
    world.cut(1);
    drop(world.joined(&connect("dev"), true));
    world.settle();
    world.cut(2);
    let mut dev = world.join(&v311("dev"));
    world.settle();
    let heard = dev.heard();
    assert!(heard[1..].iter().all(|line| line.starts_with("PUBLISH!")), "{heard:?}");
    let slot = crate::sync::lock(&world.broker.registry).by_client_id("dev").unwrap();
    assert_eq!(slot.state().session.outbound.in_flight(), 5);
}

/// Confirms everything that comes until nothing comes any more, and checks that it comes in order.
fn take_all(world: &World, client: &mut Client) -> u16 {
    let mut got = 0;
    loop {
        world.settle();
        let mut heard = client.heard();
        if heard.is_empty() {
            // It may have asked the disk for something.
            world.settle();
            heard = client.heard();
        }
        if heard.is_empty() {
            return got;
        }
        for line in heard {
            assert_eq!(line.rsplit('=').next(), Some(got.to_string().as_str()), "{line}");
            got += 1;
            client.send(&puback(got));
        }
    }
}
