//! Wills: when, how often, and across a power cut.

use super::{World, connect, transient};
use crate::{
    broker::dispatch::Touched,
    codec::{Connect, PublishProperties, QoS, ReasonCode, Will},
    store::SnapshotSource,
    sync::lock,
};

const NOTHING: [&str; 0] = [];

fn with_will(connect: Connect<'_>, delay: u32) -> Connect<'_> {
    let will = Will {
        topic: "wills",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: Some(delay),
        properties: PublishProperties::default(),
    };
    Connect { will: Some(will), ..connect }
}

/// [MQTT-3.1.2-8], [MQTT-3.14.4-3]
#[test]
fn a_will_is_sent_when_the_connection_is_lost_and_not_when_the_client_leaves() {
    let world = World::new();
    let mut watcher = world.subscriber(&transient("watcher"), "wills", QoS::AtMostOnce);
    world.joined(&with_will(transient("dev"), 0), false).lose();
    assert_eq!(watcher.heard(), ["PUBLISH q0 wills=gone"]);
    world.joined(&with_will(transient("dev"), 0), false).leave(ReasonCode::Success, None);
    assert_eq!(watcher.heard(), NOTHING);
    world.joined(&with_will(transient("dev"), 0), false).leave(ReasonCode::DisconnectWithWill, None);
    assert_eq!(watcher.heard(), ["PUBLISH q0 wills=gone"]);
}

/// [MQTT-3.1.3-9]
#[test]
fn a_delayed_will_waits_for_its_delay_or_the_end_of_the_session() {
    let world = World::new();
    let mut watcher = world.subscriber(&transient("watcher"), "wills", QoS::AtMostOnce);
    world.joined(&with_will(connect("dev"), 10), false).lose();
    world.pass(9_999);
    world.joined(&with_will(connect("dev"), 10), true).lose();
    world.pass(9_999);
    assert_eq!(watcher.heard(), NOTHING);
    world.pass(1);
    assert_eq!(watcher.heard(), ["PUBLISH q0 wills=gone"]);
    world.pass(20_000);
    assert_eq!(watcher.heard(), NOTHING, "once");
    world.joined(&with_will(connect("dev"), 10), true).lose();
    world.joined(&transient("dev"), false).leave(ReasonCode::Success, None);
    assert_eq!(watcher.heard(), ["PUBLISH q0 wills=gone"], "its session was ended by a clean start");
}

#[test]
fn a_will_survives_a_power_cut_and_its_delay_goes_on() {
    let mut world = World::new();
    world.subscriber(&connect("watcher"), "wills", QoS::AtLeastOnce).lose();
    world.joined(&with_will(connect("dev"), 10), false).lose();
    world.pass(5_000);
    world.settle();
    world.cut(1);
    world.pass(4_000);
    assert_eq!(queued(&world), 0);
    world.pass(1_000);
    assert_eq!(queued(&world), 1);
}

/// While a will is being published, its session's lock is free and the journal may ask for a snapshot.
#[test]
fn a_will_on_its_way_is_still_in_the_journal() {
    let mut world = World::new();
    world.subscriber(&connect("watcher"), "wills", QoS::AtLeastOnce).lose();
    world.joined(&with_will(connect("dev"), 10), false).lose();
    let slot = lock(&world.broker.registry).by_client_id("dev").unwrap();
    let will = slot.state().lend_will();
    assert!(will.is_some());
    assert!(slot.state().lend_will().is_none(), "once");
    world.broker.snapshot(slot.no);
    world.pass(1_000);
    world.settle();
    drop(slot);
    world.cut(1);
    world.pass(10_000);
    assert_eq!(queued(&world), 1);
}

/// The same for QoS 2 that is on disk and was sent at once, before its session has said that it has no will any more.
#[test]
fn a_will_that_was_sent_exactly_once_is_not_published_again() {
    let mut world = World::new();
    let mut watcher = world.subscriber(&connect("watcher"), "wills", QoS::ExactlyOnce);
    let mut dev = with_will(connect("dev"), 10);
    if let Some(will) = &mut dev.will {
        will.qos = QoS::ExactlyOnce;
    }
    world.joined(&dev, false).lose();
    let slot = lock(&world.broker.registry).by_client_id("dev").unwrap();
    let will = slot.state().lend_will().unwrap();
    world.broker.publish_will(&slot, will, world.now(), &mut Touched::default());
    world.settle();
    assert_eq!(watcher.heard(), ["PUBLISH q2 #1 wills=gone"]);
    drop((slot, watcher));
    world.cut(1);
    let mut watcher = world.joined(&connect("watcher"), true);
    world.pass(10_000);
    world.settle();
    assert_eq!(watcher.heard(), ["PUBLISH! q2 #1 wills=gone"], "the same one");
    assert_eq!(queued(&world), 1);
}

fn queued(world: &World) -> usize {
    let slot = lock(&world.broker.registry).by_client_id("watcher").unwrap();
    let state = slot.state();
    state.session.outbound.len()
}

/// [MQTT-3.14.4-3]: a crash does not undo a good-bye for an hour, even if sleeping and waking may be told the journal
/// so late.
#[test]
fn a_will_that_was_discarded_is_not_sent_after_a_power_cut() {
    let mut world = World::new();
    world.subscriber(&connect("watcher"), "wills", QoS::AtLeastOnce).lose();
    let mut long = connect("dev");
    long.properties.session_expiry = Some(86_400 * 20);
    world.joined(&with_will(long, 0), false).leave(ReasonCode::Success, None);
    world.pass(1_000);
    world.settle();
    world.cut(1);
    world.pass(1_000);
    assert_eq!(queued(&world), 0);
}

fn long_sleeper() -> Connect<'static> {
    let mut connect = connect("dev");
    connect.properties.session_expiry = Some(86_400 * 20);
    with_will(connect, 0)
}

/// A world with a sleeping watcher of wills, and a device that was there once and left with a good-bye.
fn world_with_a_long_sleeper() -> World {
    let world = World::new();
    world.subscriber(&connect("watcher"), "wills", QoS::AtLeastOnce).lose();
    world.joined(&long_sleeper(), false).leave(ReasonCode::Success, None);
    world.pass(2_000);
    world.settle();
    world
}

/// An SD card wears out by commits: a device that wakes a thousand times a day must not cost one each.
#[test]
fn a_wake_with_the_same_will_and_a_good_bye_costs_no_commit() {
    let mut world = world_with_a_long_sleeper();
    let before = world.broker.journal.stats().commits;
    for _ in 0..20 {
        let mut dev = world.join(&long_sleeper());
        assert_eq!(dev.heard(), ["CONNACK 1"], "nothing to wait for");
        world.pass(2_000);
        world.settle();
        dev.leave(ReasonCode::Success, None);
        world.pass(60_000);
        world.settle();
    }
    assert_eq!(world.broker.journal.stats().commits, before);
    assert_eq!(queued(&world), 0);
    world.cut(1);
    world.pass(60_000);
    assert_eq!(queued(&world), 0, "all good-byes hold");
    world.joined(&long_sleeper(), true).lose();
    assert_eq!(queued(&world), 1, "and a lost connection is told");
}

/// A commit that other things need, in the middle of a short wake, does not make its good-bye uncertain.
#[test]
fn a_good_bye_holds_after_a_commit_in_the_middle_of_the_wake() {
    let mut world = world_with_a_long_sleeper();
    let mut dev = world.joined(&long_sleeper(), true);
    world.subscriber(&connect("other"), "x", QoS::AtLeastOnce).lose();
    world.settle();
    assert_eq!(dev.heard(), NOTHING);
    dev.leave(ReasonCode::Success, None);
    world.cut(1);
    world.pass(1_000);
    assert_eq!(queued(&world), 0);
}

/// Who stays longer counts as connected after a crash, and is missed.
#[test]
fn a_will_is_armed_on_disk_when_its_client_stays() {
    let mut world = world_with_a_long_sleeper();
    let dev = world.joined(&long_sleeper(), true);
    world.pass(10_000);
    world.pass(1_000);
    world.settle();
    drop(dev);
    world.cut(1);
    world.pass(1);
    assert_eq!(queued(&world), 1);
}

/// One that is changed is armed before CONNACK.
#[test]
fn another_will_is_armed_at_once() {
    let mut world = world_with_a_long_sleeper();
    let mut changed = long_sleeper();
    changed.will.as_mut().unwrap().payload = b"other";
    let mut dev = world.join(&changed);
    assert_eq!(dev.heard(), NOTHING);
    world.settle();
    assert_eq!(dev.heard(), ["CONNACK 1"]);
    drop(dev);
    world.cut(1);
    world.pass(1);
    assert_eq!(queued(&world), 1);
}

/// A session's end does not publish a will that was taken back [MQTT-3.14.4-3].
#[test]
fn a_good_bye_holds_at_the_end_of_the_session() {
    let world = world_with_a_long_sleeper();
    world.joined(&transient("dev"), false).leave(ReasonCode::Success, None);
    assert_eq!(queued(&world), 0);
}

/// Nobody waits for the acknowledgement of a will, and the record of its session goes without it: held back until its
/// subscribers have confirmed it, it would be lost in a crash.
#[test]
fn wills_are_never_held_back_by_elision() {
    for delay in [0, 10] {
        let mut world = World::new();
        let mut watcher = world.subscriber(&connect("watcher"), "wills", QoS::AtLeastOnce);
        world.joined(&with_will(connect("dev"), delay), false).lose();
        world.pass(u64::from(delay) * 1_000);
        assert_eq!(watcher.heard(), ["PUBLISH q1 #1 wills=gone"]);
        world.settle();
        drop(watcher);
        world.cut(1);
        world.pass(20_000);
        assert_eq!(queued(&world), 1, "once, with a delay of {delay} s");
    }
}

/// The record of the new connection has no such will: in the journal before the will's message, it would lose both in a
/// crash.
#[test]
fn a_client_that_comes_back_waits_until_its_will_is_published() {
    let world = World::new();
    world.joined(&with_will(connect("dev"), 10), false).lose();
    let slot = lock(&world.broker.registry).by_client_id("dev").unwrap();
    let will = slot.state().lend_will();
    assert!(will.is_some());
    std::thread::scope(|scope| {
        let back = scope.spawn(|| world.join(&with_will(connect("dev"), 20)));
        for _ in 0..10_000 {
            std::thread::yield_now();
            assert!(slot.state().connection.is_none(), "its will is on its way still");
        }
        slot.state().will_left();
        back.join().unwrap();
    });
    assert_eq!(slot.state().record.will.as_ref().unwrap().delay.as_secs(), 20, "the new one");
}
