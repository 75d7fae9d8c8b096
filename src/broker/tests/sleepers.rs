//! Messages for clients that were away.

use super::{Client, World, ack, connect, puback, pubcomp, qos0, qos1, qos2, transient, v311};
use crate::{
    codec::{Packet, QoS},
    store::SnapshotSource,
};

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

/// No session has a number left after a restart. Ten thousand devices that come back are no reason for as many commits; the
/// first message that needs a number is one.
#[test]
fn a_wake_after_a_restart_costs_no_commit_until_a_number_is_needed() {
    let kept_for = |days: u32| {
        let mut connect = connect("sleeper");
        connect.properties.session_expiry = Some(days * 86_400);
        connect
    };
    for (days, connected_ms) in [(2, 60_000), (1, 999)] {
        let mut world = World::new();
        world.subscriber(&kept_for(days), "cmd", QoS::ExactlyOnce).lose();
        let mut publisher = world.joined(&v311("publisher"), false);
        publisher.send(&qos1(1, "cmd", "waits"));
        world.settle();
        drop(publisher);
        world.cut(1);
        let mut publisher = world.joined(&transient("other"), false);
        world.settle();
        let commits = world.broker.journal.stats().commits;
        let mut sleeper = world.join(&kept_for(days));
        assert_eq!(sleeper.heard(), ["CONNACK 1"]);
        assert!(world.broker.journal.read_step());
        let heard = sleeper.heard();
        assert!(heard.len() == 1 && heard[0].starts_with("PUBLISH! q1"), "{heard:?}");
        world.pass(connected_ms);
        world.settle();
        assert_eq!(world.broker.journal.stats().commits, commits, "nobody waits for anything");
        publisher.send(&qos1(2, "cmd", "needs a number"));
        assert_eq!(sleeper.heard(), [""; 0], "which is not reserved yet");
        world.settle();
        assert_eq!(world.broker.journal.stats().commits, commits + 1);
        let heard = sleeper.heard();
        assert!(heard.len() == 1 && heard[0].ends_with("cmd=needs a number"), "{heard:?}");
        assert_eq!(publisher.heard(), ["PUBACK 2"]);
        // From then on it has some.
        publisher.send(&qos1(3, "cmd", "at once"));
        assert!(sleeper.heard().iter().any(|line| line.ends_with("cmd=at once")));
    }
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

/// A device is awake for a moment: what the system has in memory is not worth the way to another thread and back.
#[test]
fn bodies_that_are_in_memory_are_sent_at_once_and_the_others_in_their_turn() {
    for eighths in 0..=8_u64 {
        let world = World::new();
        world.disk.set_in_memory(eighths);
        world.subscriber(&connect("sleeper"), "cmd", QoS::AtLeastOnce).lose();
        let mut publisher = world.joined(&connect("publisher"), false);
        for n in 0..300_u16 {
            publisher.send(&qos1(1 + n, "cmd", &n.to_string()));
            if n % 2 == 0 {
                world.settle();
            }
        }
        world.settle();
        let mut sleeper = world.join(&connect("sleeper"));
        let mut heard = sleeper.heard();
        assert_eq!(heard.len() == 301, eighths == 8, "{eighths}: {}", heard.len());
        let mut asked = 0;
        while world.broker.journal.read_step() {
            asked += 1;
            heard.extend(sleeper.heard());
        }
        assert_eq!(asked == 0, eighths == 8, "{eighths}: asked {asked} times");
        let came: Vec<_> = heard.iter().skip(1).map(|line| line.rsplit('=').next().unwrap()).collect();
        assert_eq!(came, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    }
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

/// A publisher was told that the message is kept, and the sleeper that its session is there: the crash of a broker that
/// had not written down yet that it woke takes neither back.
#[test]
fn a_session_that_was_awake_in_a_crash_lives_on_for_its_whole_expiry() {
    for (slept_s, expiry_s) in
        [(3_590, 3_600), (1_000, 3_600), (800, 3_600), (100, 864_000), (863_900, 864_000)]
    {
        let mut world = World::new();
        let long = || {
            let mut connect = connect("sleeper");
            connect.properties.session_expiry = Some(expiry_s);
            connect
        };
        world.subscriber(&long(), "cmd", QoS::AtLeastOnce).lose();
        world.pass(2_000);
        world.settle();
        world.pass(slept_s * 1_000);
        // The journal's time stands at this moment.
        drop(world.subscriber(&connect("other"), "other", QoS::AtLeastOnce));
        let mut sleeper = world.join(&long());
        world.broker.journal.step();
        assert_eq!(sleeper.heard(), ["CONNACK 1"], "told after {slept_s} s of {expiry_s}");
        drop(sleeper);
        world.cut(1);
        world.pass((u64::from(expiry_s) - slept_s / 2) * 1_000);
        world.joined(&long(), true).lose();
    }
}

/// As long as nobody comes, restarts add no more than once to a session's life.
#[test]
fn a_broker_that_crashes_every_hour_does_not_keep_a_session_for_ever() {
    let mut world = World::new();
    world.subscriber(&connect("sleeper"), "cmd", QoS::AtLeastOnce).lose();
    world.pass(2_000);
    world.settle();
    for hour in 0..3 {
        world.pass(1_900_000);
        let slot = crate::sync::lock(&world.broker.registry).by_client_id("sleeper");
        assert_eq!(slot.is_some(), hour < 2, "after {} s", (hour + 1) * 1_900);
        if let Some(slot) = slot {
            world.broker.snapshot(slot.no);
            world.pass(1_000);
            world.settle();
        }
        world.cut(hour);
    }
}

/// It is put away while nothing waits for its client, on its own and after a restart; what it does not get does not wake
/// it, and it comes back with all it had.
#[test]
fn a_session_without_messages_dozes() {
    let mut world = World::new();
    let mut sleeper = world.subscriber(&connect("sleeper"), "cmd", QoS::ExactlyOnce);
    let mut publisher = world.joined(&connect("publisher"), false);
    let dozes = |world: &World| {
        let slot = crate::sync::lock(&world.broker.registry).by_client_id("sleeper").unwrap();
        slot.is_dozing()
    };
    assert!(!dozes(&world));
    publisher.send(&qos2(1, "cmd", "0"));
    world.settle();
    assert_eq!(sleeper.heard(), ["PUBLISH q2 #1 cmd=0"]);
    sleeper.send(&Packet::Pubrec(ack(1)));
    sleeper.lose();
    world.settle();
    world.pass(2_000);
    assert!(!dozes(&world), "a PUBCOMP is awaited");
    let mut sleeper = world.join(&connect("sleeper"));
    world.settle();
    assert_eq!(sleeper.heard(), ["CONNACK 1", "PUBREL 1"]);
    sleeper.send(&pubcomp(1));
    sleeper.lose();
    assert!(!dozes(&world), "the end of the exchange is not on disk yet");
    world.pass(2_000);
    world.settle();
    world.pass(2_000);
    assert!(dozes(&world));

    publisher.send(&qos0("cmd", "not kept"));
    assert!(dozes(&world));
    assert_eq!(world.broker.session_stats().offline, 1);
    assert!(dozes(&world));
    publisher.send(&qos1(2, "cmd", "1"));
    world.settle();
    assert!(!dozes(&world));
    let mut sleeper = world.join(&connect("sleeper"));
    assert_eq!(all_heard(&world, &mut sleeper), ["CONNACK 1", "PUBLISH q1 #2 cmd=1"]);
    sleeper.send(&puback(2));
    sleeper.lose();
    world.pass(2_000);
    world.settle();
    world.pass(2_000);
    assert!(dozes(&world));

    drop(publisher);
    world.cut(1);
    assert!(dozes(&world));
    let mut publisher = world.joined(&connect("publisher"), true);
    publisher.send(&qos1(1, "cmd", "2"));
    world.settle();
    let mut sleeper = world.join(&connect("sleeper"));
    let heard = all_heard(&world, &mut sleeper);
    assert!(heard.len() == 2 && heard[1].ends_with("cmd=2"), "{heard:?}");
}

/// What comes by itself, and what is read from the disk first.
fn all_heard(world: &World, client: &mut Client) -> Vec<String> {
    world.settle();
    let mut heard = client.heard();
    world.settle();
    heard.append(&mut client.heard());
    heard
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
