//! What expires undelivered, and how far a crash remembers that a session was sent its messages [MQTT-3.3.2-5].

use super::{Client, World, connect, puback, pubcomp, publish, pubrec, qos1, qos2, receiving, transient};
use crate::{
    broker::{Config, DeadLetters},
    codec::{Connect, Packet, PublishProperties, QoS, ReasonCode, Will},
    store::{self, SnapshotSource},
};

/// Seconds; of each message here that expires.
const BRIEF: u32 = 5;

fn brief(packet_id: u16, payload: &str) -> Packet<'_> {
    of_qos(QoS::AtLeastOnce, packet_id, payload)
}

fn of_qos(qos: QoS, packet_id: u16, payload: &str) -> Packet<'_> {
    let mut packet = publish(qos, packet_id, "a", payload);
    packet.properties.message_expiry = Some(BRIEF);
    Packet::Publish(packet)
}

/// The disk and the clock do what they have to; longer than a brief message lives.
fn too_long_passes(world: &World) {
    for _ in 0..=BRIEF {
        world.settle();
        world.pass(1_000);
    }
    world.settle();
}

/// What comes by itself, and what is read from the disk first.
fn all_heard(world: &World, client: &mut Client) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..4 {
        world.settle();
        heard.append(&mut client.heard());
    }
    heard
}

/// The same of what waits for no commit.
fn heard_before_a_commit(world: &World, client: &mut Client) -> Vec<String> {
    let mut heard = client.heard();
    while world.broker.journal.read_step() {
        heard.append(&mut client.heard());
    }
    heard
}

/// A publisher, and a sleeper that was sent two messages and has confirmed neither.
fn two_on_the_way(world: &World, qos: QoS) -> Client {
    let mut dev = world.subscriber(&connect("dev"), "a", qos);
    let mut publisher = world.joined(&transient("publisher"), false);
    for n in 1..=2 {
        publisher.send(&of_qos(qos, n, &n.to_string()));
        publisher.heard();
    }
    assert_eq!(all_heard(world, &mut dev).len(), 2);
    dev.lose();
    publisher
}

/// A client whose session lasts so many seconds.
fn lasting(expiry_s: u32, with_will: bool) -> Connect<'static> {
    let mut connect = connect("dev");
    connect.properties.session_expiry = Some(expiry_s);
    connect.will = with_will.then(|| Will {
        topic: "will",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: None,
        properties: PublishProperties::default(),
    });
    connect
}

fn expired(world: &World) -> u64 {
    world.broker.stats().dropped.expired
}

#[test]
fn what_came_for_a_sleeper_expires_after_a_power_cut_and_what_it_was_sent_comes_again() {
    for seed in 0..4 {
        let mut world = World::new();
        let mut publisher = two_on_the_way(&world, QoS::AtLeastOnce);
        for n in 3..=40 {
            publisher.send(&brief(n, &n.to_string()));
        }
        publisher.send(&qos1(41, "a", "for ever"));
        world.settle();
        assert_eq!(publisher.heard().iter().filter(|line| line.starts_with("PUBACK")).count(), 41);
        drop(publisher);
        world.cut(seed);
        too_long_passes(&world);
        let mut dev = world.join(&connect("dev"));
        let heard = all_heard(&world, &mut dev);
        assert_eq!(heard[..3], ["CONNACK 1", "PUBLISH! q1 #1 a=1", "PUBLISH! q1 #2 a=2"]);
        assert_eq!(heard[3..], ["PUBLISH q1 #41 a=for ever"]);
        assert_eq!(expired(&world), 38);
    }
}

/// Both halves of QoS 2: what was sent, and what was received and not completed.
#[test]
fn exactly_once_exchanges_go_on_after_a_power_cut_and_what_was_not_begun_expires() {
    let mut world = World::new();
    let mut publisher = two_on_the_way(&world, QoS::ExactlyOnce);
    let mut dev = world.join(&connect("dev"));
    assert_eq!(all_heard(&world, &mut dev), ["CONNACK 1", "PUBLISH! q2 #1 a=1", "PUBLISH! q2 #2 a=2"]);
    dev.send(&pubrec(2));
    world.settle();
    dev.lose();
    publisher.send(&of_qos(QoS::ExactlyOnce, 3, "3"));
    publisher.send(&qos2(4, "a", "4"));
    world.settle();
    drop(publisher);
    world.cut(1);
    too_long_passes(&world);
    let mut dev = world.join(&connect("dev"));
    let heard = all_heard(&world, &mut dev);
    assert_eq!(heard, ["CONNACK 1", "PUBLISH! q2 #1 a=1", "PUBREL 2", "PUBLISH q2 #4 a=4"]);
    assert_eq!(expired(&world), 1);
    for id in [1, 4] {
        dev.send(&pubrec(id));
    }
    assert_eq!(all_heard(&world, &mut dev), ["PUBREL 1", "PUBREL 4"]);
    for id in [1, 2, 4] {
        dev.send(&pubcomp(id));
    }
    dev.lose();
    too_long_passes(&world);
    world.cut(2);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(all_heard(&world, &mut dev), [""; 0]);
}

/// Nothing is written for each message: while its client is there, whatever the window holds may have been sent.
#[test]
fn what_a_client_that_was_connected_may_have_been_sent_does_not_expire() {
    let mut world = World::with(Config { inflight_max: 4, ..Config::default() });
    let mut dev = world.subscriber(&receiving(connect("dev"), 1), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("publisher"), false);
    for n in 1..=6 {
        publisher.send(&brief(n, &n.to_string()));
    }
    assert_eq!(all_heard(&world, &mut dev), ["PUBLISH q1 #1 a=1"]);
    too_long_passes(&world);
    drop((dev, publisher));
    world.cut(1);
    let mut dev = world.join(&connect("dev"));
    let heard = all_heard(&world, &mut dev);
    let expected = [1, 2, 3, 4].map(|n| format!("PUBLISH! q1 #{n} a={n}"));
    assert_eq!((heard[0].as_str(), &heard[1..]), ("CONNACK 1", &expected[..]));
}

/// A device wakes, is told so, and the power goes before the journal knows: it has been sent nothing that expires. Once it
/// has, it counts.
#[test]
fn what_expires_is_sent_to_who_has_woken_when_the_journal_knows() {
    for is_known in [false, true] {
        let mut world = World::new();
        let mut publisher = two_on_the_way(&world, QoS::AtLeastOnce);
        publisher.send(&qos1(3, "a", "3"));
        publisher.send(&brief(4, "4"));
        publisher.send(&qos1(5, "a", "5"));
        world.pass(2_000);
        world.settle();
        let commits = world.broker.journal.stats().commits;
        let mut dev = world.join(&connect("dev"));
        let sent = ["CONNACK 1", "PUBLISH! q1 #1 a=1", "PUBLISH! q1 #2 a=2", "PUBLISH q1 #3 a=3"];
        assert_eq!(heard_before_a_commit(&world, &mut dev), sent, "what never expires waits for nothing");
        assert_eq!(world.broker.journal.stats().commits, commits);
        if is_known {
            assert_eq!(all_heard(&world, &mut dev), ["PUBLISH q1 #4 a=4", "PUBLISH q1 #5 a=5"]);
            assert_eq!(world.broker.journal.stats().commits, commits + 1);
        }
        drop((dev, publisher));
        world.cut(1);
        too_long_passes(&world);
        let mut dev = world.join(&connect("dev"));
        let heard = all_heard(&world, &mut dev);
        assert_eq!(heard[..3], sent[..3]);
        let again = if is_known { vec![3, 4, 5] } else { vec![3] };
        let again = again.into_iter().map(|n| format!("PUBLISH! q1 #{n} a={n}"));
        let never_sent = (!is_known).then(|| "PUBLISH q1 #5 a=5".to_owned());
        assert_eq!(heard[3..], again.chain(never_sent).collect::<Vec<_>>());
        assert_eq!(expired(&world), u64::from(!is_known));
    }
}

/// One that was given up a moment ago is back after a crash, and what stands behind it would count as unsent like it.
#[test]
fn what_is_behind_an_expired_message_waits_for_the_journal_too() {
    let mut world = World::new();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("publisher"), false);
    publisher.send(&brief(1, "1"));
    publisher.send(&qos1(2, "a", "2"));
    too_long_passes(&world);
    let mut dev = world.join(&connect("dev"));
    assert_eq!(heard_before_a_commit(&world, &mut dev), ["CONNACK 1"]);
    assert_eq!(all_heard(&world, &mut dev), ["PUBLISH q1 #2 a=2"]);
    drop((dev, publisher));
    world.cut(1);
    let mut dev = world.join(&connect("dev"));
    assert_eq!(all_heard(&world, &mut dev), ["CONNACK 1", "PUBLISH! q1 #2 a=2"]);
}

/// The same for a session that tells the journal of its wakes later than at once, with a will and without.
#[test]
fn a_wake_that_is_written_down_late_is_when_something_expires() {
    for with_will in [false, true] {
        let mut world = World::new();
        let dev = || lasting(20 * 86_400, with_will);
        world.subscriber(&dev(), "a", QoS::AtLeastOnce).leave(ReasonCode::Success, None);
        let mut publisher = world.joined(&transient("publisher"), false);
        publisher.send(&brief(1, "1"));
        world.pass(2_000);
        world.settle();
        let mut awake = world.join(&dev());
        assert_eq!(heard_before_a_commit(&world, &mut awake), ["CONNACK 1"]);
        assert_eq!(all_heard(&world, &mut awake), ["PUBLISH q1 #1 a=1"], "with a will {with_will}");
        drop((awake, publisher));
        world.cut(1);
        too_long_passes(&world);
        let mut awake = world.join(&dev());
        assert_eq!(all_heard(&world, &mut awake), ["CONNACK 1", "PUBLISH! q1 #1 a=1"]);
    }
}

/// A live message is in the journal, if at all, behind the record of the wake.
#[test]
fn a_live_message_to_who_has_just_woken_counts_as_sent() {
    for expiry_s in [3_600, 20 * 86_400] {
        for with_will in [false, true] {
            let mut world = World::new();
            let dev = || lasting(expiry_s, with_will);
            world.subscriber(&dev(), "a", QoS::AtLeastOnce).leave(ReasonCode::Success, None);
            let mut publisher = world.joined(&transient("publisher"), false);
            world.pass(2_000);
            world.settle();
            let commits = world.broker.journal.stats().commits;
            let mut awake = world.join(&dev());
            assert_eq!(awake.heard(), ["CONNACK 1"]);
            publisher.send(&brief(1, "1"));
            let at_once = awake.heard();
            if !with_will || expiry_s == 3_600 {
                assert_eq!(at_once, ["PUBLISH q1 #1 a=1"]);
                assert_eq!(world.broker.journal.stats().commits, commits, "it costs no commit");
            }
            let heard = [at_once, all_heard(&world, &mut awake)].concat();
            assert_eq!(heard, ["PUBLISH q1 #1 a=1"]);
            // It is held back for its confirmation, which does not come.
            world.pass(200);
            world.settle();
            drop((awake, publisher));
            world.cut(1);
            too_long_passes(&world);
            let mut awake = world.join(&dev());
            assert_eq!(all_heard(&world, &mut awake), ["CONNACK 1", "PUBLISH! q1 #1 a=1"]);
        }
    }
}

/// The power goes when some of it is on disk: whatever that is, nothing that was sent counts as unsent.
#[test]
fn what_was_sent_comes_again_with_dup_wherever_the_power_goes() {
    // How many steps the journal does between the moments below.
    for steps in 0..64_u32 {
        let mut world = World::with(Config { inflight_max: 3, ..Config::default() });
        let step = |world: &World, moment: u32| {
            world.pass(1_000);
            if steps & 1 << moment != 0 {
                world.settle();
            }
            while world.broker.journal.read_step() {}
        };
        let mut publisher = world.joined(&transient("publisher"), false);
        let mut dev = world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce);
        (1..=5).for_each(|n| publisher.send(&brief(n, &n.to_string())));
        world.settle();
        let mut sent = dev.heard();
        // All are on disk, unconfirmed.
        world.pass(200);
        world.settle();
        let mut moment = 0;
        for _ in 0..2 {
            step(&world, moment);
            dev.send(&puback(1));
            dev.lose();
            step(&world, moment + 1);
            dev = world.join(&connect("dev"));
            sent.extend(dev.heard());
            step(&world, moment + 2);
            sent.extend(dev.heard());
            moment += 3;
        }
        drop((dev, publisher));
        world.cut(steps.into());
        too_long_passes(&world);
        let was_sent = |n: &u16| sent.iter().any(|line| line.ends_with(&format!("#{n} a={n}")));
        let mut dev = world.join(&connect("dev"));
        let heard = all_heard(&world, &mut dev);
        for n in (2..=5).filter(was_sent) {
            let again = format!("PUBLISH! q1 #{n} a={n}");
            assert!(heard.contains(&again), "steps {steps:b}: of {sent:?} there is {heard:?}");
        }
        assert!(heard.iter().all(|line| !line.starts_with("PUBLISH q1")), "{heard:?}");
    }
}

/// Snapshots take the place of records, and one restart follows the other.
#[test]
fn compaction_and_restarts_remember_what_was_on_the_way() {
    let store = store::Config { generation_bytes: 3_000, ..store::Config::default() };
    let mut world = World::on(crate::store::medium::sim::SimDisk::new(), Config::default(), store);
    let mut publisher = two_on_the_way(&world, QoS::AtLeastOnce);
    for n in 3..=40 {
        publisher.send(&qos1(n, "other", &"x".repeat(400)));
        world.settle();
    }
    drop(publisher);
    for seed in 0..3 {
        let slot = crate::sync::lock(&world.broker.registry).by_client_id("dev").unwrap();
        world.broker.snapshot(slot.no);
        world.pass(1_000);
        world.settle();
        world.cut(seed);
    }
    let mut publisher = world.joined(&transient("publisher"), false);
    (1..=3).for_each(|n| publisher.send(&brief(n, &format!("later {n}"))));
    world.settle();
    drop(publisher);
    world.cut(9);
    too_long_passes(&world);
    let mut dev = world.join(&connect("dev"));
    let heard = all_heard(&world, &mut dev);
    assert_eq!(heard, ["CONNACK 1", "PUBLISH! q1 #1 a=1", "PUBLISH! q1 #2 a=2"]);
    assert_eq!(expired(&world), 3);
}

/// A crash ends a connection too: what comes after the restart was not sent before it.
#[test]
fn what_came_after_a_restart_expires_after_the_next_one() {
    let mut world = World::new();
    let mut dev = world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("publisher"), false);
    publisher.send(&brief(1, "1"));
    assert_eq!(all_heard(&world, &mut dev), ["PUBLISH q1 #1 a=1"]);
    world.pass(200);
    world.settle();
    drop((dev, publisher));
    world.cut(1);
    let mut publisher = world.joined(&transient("publisher"), false);
    publisher.send(&brief(2, "2"));
    world.settle();
    drop(publisher);
    world.cut(2);
    too_long_passes(&world);
    let mut dev = world.join(&connect("dev"));
    assert_eq!(all_heard(&world, &mut dev), ["CONNACK 1", "PUBLISH! q1 #1 a=1"]);
    assert_eq!(expired(&world), 1);
}

#[test]
fn what_expired_across_a_power_cut_has_its_letters() {
    let dead_letters = DeadLetters { enabled: true, ..DeadLetters::default() };
    let mut world = World::with(Config { dead_letters, ..Config::default() });
    let mut publisher = two_on_the_way(&world, QoS::AtLeastOnce);
    (3..=5).for_each(|n| publisher.send(&brief(n, &n.to_string())));
    world.settle();
    drop(publisher);
    world.cut(3);
    too_long_passes(&world);
    let mut post = world.subscriber(&transient("post"), "$dead/#", QoS::AtLeastOnce);
    let mut dev = world.join(&connect("dev"));
    assert_eq!(all_heard(&world, &mut dev), ["CONNACK 1", "PUBLISH! q1 #1 a=1", "PUBLISH! q1 #2 a=2"]);
    too_long_passes(&world);
    let letters: Vec<_> = all_heard(&world, &mut post);
    let letters: Vec<_> = letters.iter().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(letters, ["$dead/expired/dev/a=3", "$dead/expired/dev/a=4", "$dead/expired/dev/a=5"]);
}
