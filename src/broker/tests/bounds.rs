//! What a client can make the broker hold has an end.

use std::sync::atomic::Ordering;

use super::{
    Client, Config, Reading, World, connect, id, puback, qos0, qos1, retained, subscribe, transient,
};
use crate::codec::{
    Connect, Packet, PublishProperties, QoS, Subscribe, SubscribeFilter, SubscribeOptions, Will,
};

const NOTHING: [&str; 0] = [];

fn bytes(packet: &Packet<'_>, times: usize) -> Vec<u8> {
    let mut one = Vec::new();
    packet.encode(crate::codec::Version::V5, &mut one);
    one.repeat(times)
}

/// Bytes that wait for a client that does not read.
fn waiting(client: &Client) -> usize {
    let connection = client.connection.as_ref().unwrap();
    let state = connection.slot.state();
    state.session.link.as_ref().unwrap().out.len()
}

#[test]
fn a_client_that_asks_and_never_reads_is_not_heard_for_ever() {
    let config = Config { out_bytes_max: 1_000, ..Config::default() };
    let world = World::with(config);
    let mut client = world.joined(&transient("flood"), false);
    let flood = bytes(&Packet::Pingreq, 10_000);
    let used = client.send_bytes(&flood);
    assert_eq!(client.reading, Reading::Pause);
    assert!((2_000..2_010).contains(&waiting(&client)), "{}", waiting(&client));
    assert_eq!(client.send_bytes(&flood[used..]), 0, "still");
    assert_eq!(client.heard_bytes().len(), used, "PINGREQ and PINGRESP are both two bytes");
    assert!(client.connection.as_ref().unwrap().may_read());
    assert!(client.send_bytes(&flood[used..]) > 0);
    client.heard_bytes();
    assert_eq!(client.heard(), NOTHING);
}

#[test]
fn retained_messages_are_encoded_as_the_client_takes_them() {
    let world = World::with(Config { out_bytes_max: 1_000, ..Config::default() });
    let mut client = world.joined(&transient("c"), false);
    for n in 0..500 {
        client.send(&retained(QoS::AtMostOnce, 0, &format!("t/{n:03}"), &"x".repeat(90)));
    }
    client.send(&subscribe("t/#", QoS::AtMostOnce));
    client.send(&qos0("t/000", "live"));
    assert!(waiting(&client) <= 1_110, "{}", waiting(&client));
    let heard = client.heard();
    assert_eq!(heard.len(), 502);
    assert_eq!(heard.first().unwrap(), "SUBACK 0");
    assert_eq!(heard.last().unwrap(), "PUBLISH q0 t/000=live", "not overtaken by the retained one");
}

#[test]
fn a_subscribe_that_asks_for_everything_again_and_again_is_refused() {
    let world = World::with(Config { retained_messages_max: 100, ..Config::default() });
    let mut client = world.joined(&transient("c"), false);
    for n in 0..60 {
        client.send(&retained(QoS::AtMostOnce, 0, &format!("t/{n}"), "x"));
    }
    let options = SubscribeOptions::default();
    let filters = vec![SubscribeFilter { filter: "#", options }; 10_000];
    client.send(&Packet::Subscribe(Subscribe {
        packet_id: id(1),
        subscription_id: None,
        user: Vec::new(),
        filters,
    }));
    let heard = client.heard();
    assert!(heard[0].starts_with("SUBACK 0 97 97 97"), "{}", &heard[0][..40]);
    assert_eq!(heard.len(), 1 + 60);
}

/// [MQTT-3.1.2-25]: delivered as far as the broker is concerned, also after a power cut.
#[test]
fn a_message_that_is_too_large_for_its_subscriber_does_not_come_back() {
    let mut world = World::new();
    let mut small = connect("dev");
    small.properties.packet_bytes_max = Some(50);
    let mut dev = world.subscriber(&small, "a", QoS::AtLeastOnce);
    let mut other = world.joined(&transient("other"), false);
    other.send(&qos1(1, "a", &"x".repeat(100)));
    other.send(&qos1(2, "a", "y"));
    assert_eq!(dev.heard(), ["PUBLISH q1 #2 a=y"]);
    world.settle();
    assert_eq!(world.broker.dropped().too_large, 1);
    assert_eq!(other.heard(), ["PUBACK 1"]);
    world.pass(2_000);
    world.settle();
    assert_eq!(other.heard(), ["PUBACK 2"]);
    drop((dev, other));
    world.cut(1);
    let mut dev = world.joined(&connect("dev"), true);
    world.settle();
    assert_eq!(dev.heard(), ["PUBLISH! q1 #2 a=y"], "read back from disk");
}

#[test]
fn a_live_message_waits_for_connack_within_bounds() {
    let world = World::with(Config { out_bytes_max: 1_000, ..Config::default() });
    world.subscriber(&connect("dev"), "a", QoS::AtMostOnce).lose();
    let mut other = world.joined(&transient("other"), false);
    let mut changed = connect("dev");
    changed.properties.session_expiry = Some(60);
    let mut dev = world.join(&changed);
    for n in 0..200 {
        other.send(&qos0("a", &n.to_string()));
    }
    assert_eq!(dev.heard(), NOTHING);
    world.settle();
    let heard = dev.heard();
    assert_eq!(heard[..3], ["CONNACK 1", "PUBLISH q0 a=0", "PUBLISH q0 a=1"]);
    assert!(heard.len() < 200, "bounded");
    other.send(&qos0("a", "now"));
    assert_eq!(dev.heard(), ["PUBLISH q0 a=now"]);
}

#[test]
fn a_sleeper_is_in_the_timetable_once() {
    let world = World::new();
    for n in 0..50 {
        world.joined(&connect("dev"), n > 0).lose();
        world.pass(1_000);
    }
    let registry = crate::sync::lock(&world.broker.registry);
    assert_eq!(registry.due_len(), 1);
}

/// Its end has not been attended to: nobody has looked what is due since a start.
#[test]
fn a_session_whose_time_is_over_is_not_given_to_a_client_that_comes_first() {
    let world = World::new();
    world.joined(&connect("dev"), false).lose();
    world.settle();
    world.ms.fetch_add(3_599_999, Ordering::Relaxed);
    world.joined(&connect("dev"), true).lose();
    world.ms.fetch_add(3_600_000, Ordering::Relaxed);
    world.joined(&connect("dev"), false);
}

#[test]
fn a_session_ends_when_its_last_expiry_has_passed() {
    let world = World::new();
    world.joined(&connect("dev"), false).lose();
    world.pass(3_599_999);
    world.joined(&connect("dev"), true).lose();
    world.pass(3_599_999);
    world.joined(&connect("dev"), true).leave(crate::codec::ReasonCode::Success, Some(5));
    world.pass(5_000);
    world.joined(&connect("dev"), false);
}

/// Bodies of messages for this client that are in memory.
fn loaded(world: &World, client_id: &str) -> usize {
    let slot = crate::sync::lock(&world.broker.registry).by_client_id(client_id).unwrap();
    let state = slot.state();
    state.session.outbound.loaded(&slot.keep)
}

#[test]
fn what_waits_for_a_sleeper_is_not_in_memory() {
    let world = World::new();
    world.subscriber(&connect("sleeper"), "a", QoS::AtLeastOnce).lose();
    let mut awake = world.subscriber(&connect("awake"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=50 {
        publisher.send(&qos1(n, "a", "x"));
    }
    assert_eq!(awake.heard().len(), 50);
    for n in 1..=50 {
        awake.send(&puback(n));
    }
    world.settle();
    assert_eq!(loaded(&world, "sleeper"), 0);
    // It wakes, takes one, and sleeps again.
    let mut sleeper = world.joined(&super::receiving(connect("sleeper"), 1), true);
    world.settle();
    assert_eq!(sleeper.heard().len(), 1);
    assert!(loaded(&world, "sleeper") > 1, "read ahead");
    sleeper.lose();
    assert_eq!(loaded(&world, "sleeper"), 0);
}

#[test]
fn an_expired_retained_message_takes_no_room() {
    let mut world = World::with(Config { retained_messages_max: 2, ..Config::default() });
    let mut client = world.joined(&transient("c"), false);
    for (id, topic) in [(1, "a"), (2, "b")] {
        let Packet::Publish(mut packet) = retained(QoS::AtLeastOnce, id, topic, "x") else { unreachable!() };
        packet.properties.message_expiry = Some(10);
        client.send(&Packet::Publish(packet));
    }
    client.send(&retained(QoS::AtLeastOnce, 3, "c", "x"));
    world.settle();
    assert_eq!(client.heard(), ["PUBACK 1", "PUBACK 2", "PUBACK 3 97"]);
    client.send(&retained(QoS::AtLeastOnce, 4, "b", "for ever"));
    world.settle();
    assert_eq!(client.heard(), ["PUBACK 4"]);
    world.pass(10_000);
    client.send(&retained(QoS::AtLeastOnce, 5, "c", "x"));
    world.settle();
    assert_eq!(client.heard(), ["PUBACK 5"]);
    drop(client);
    world.cut(1);
    world.pass(1);
    let mut client = world.joined(&transient("c"), false);
    client.send(&subscribe("#", QoS::AtMostOnce));
    assert_eq!(client.heard(), ["SUBACK 0", "PUBLISH q0 b=for ever retained", "PUBLISH q0 c=x retained"]);
    client.send(&retained(QoS::AtLeastOnce, 6, "b", ""));
    client.send(&retained(QoS::AtLeastOnce, 7, "d", "x"));
    world.settle();
    assert_eq!(client.heard().last().unwrap(), "PUBACK 7");
}

/// Who is told of a refusal sends again; who is not would lose the message for those who are there.
#[test]
fn what_cannot_be_retained_is_refused_only_to_who_is_told() {
    let world = World::with(Config { retained_messages_max: 1, ..Config::default() });
    let mut watcher = world.subscriber(&transient("watcher"), "#", QoS::AtMostOnce);
    let mut client = world.joined(&transient("dev"), false);
    client.send(&retained(QoS::AtMostOnce, 0, "a", "1"));
    client.send(&retained(QoS::AtMostOnce, 0, "b", "2"));
    assert_eq!(watcher.heard(), ["PUBLISH q0 a=1", "PUBLISH q0 b=2"]);
    assert_eq!(world.broker.drops.total(), 1, "not in silence");
    client.send(&retained(QoS::AtLeastOnce, 7, "b", "3"));
    assert_eq!((client.heard(), watcher.heard()), (vec!["PUBACK 7 97".to_owned()], vec![]));
    let will = Will {
        topic: "b",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: true,
        delay: None,
        properties: PublishProperties::default(),
    };
    world.joined(&Connect { will: Some(will), ..transient("mortal") }, false).lose();
    assert_eq!(watcher.heard(), ["PUBLISH q0 b=gone"]);
    world.settle();
    let mut late = world.joined(&transient("late"), false);
    late.send(&subscribe("#", QoS::AtMostOnce));
    assert_eq!(late.heard(), ["SUBACK 0", "PUBLISH q0 a=1 retained"]);
}
