//! Wills: when, how often, and across a power cut.

use super::{World, connect, transient};
use crate::{
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
