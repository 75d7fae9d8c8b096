//! What comes in one read is told to the journal in rows: that changes nothing of what clients see, and of what is kept.

use super::{Client, World, connect, puback, qos1, subscribe, transient};
use crate::codec::{Disconnect, DisconnectProperties, Packet, QoS, ReasonCode, Version};

const NOTHING: [&str; 0] = [];

impl Client {
    fn send_together(&mut self, packets: &[Packet<'_>]) {
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(Version::V5, &mut bytes);
        }
        assert_eq!(self.send_bytes(&bytes), bytes.len());
    }
}

/// More than one row of them.
#[test]
fn messages_confirmed_together_are_acknowledged_and_never_written() {
    let world = World::new();
    let mut subscriber = world.subscriber(&connect("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send_together(&(1..=90).map(|id| qos1(id, "a", "x")).collect::<Vec<_>>());
    assert_eq!(publisher.heard(), NOTHING);
    assert_eq!(subscriber.heard().len(), 90);
    subscriber.send_together(&(1..=90).map(puback).collect::<Vec<_>>());
    assert_eq!(publisher.heard(), (1..=90).map(|id| format!("PUBACK {id}")).collect::<Vec<_>>());
    let store = world.broker.stats().store;
    assert_eq!((store.messages_elided, store.messages_written, store.held_messages), (90, 0, 0));
}

/// Some of them twice, one that was never sent.
#[test]
fn a_row_of_acknowledgements_counts_each_once() {
    let world = World::new();
    let mut subscriber = world.subscriber(&connect("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send_together(&[qos1(1, "a", "1"), qos1(2, "a", "2"), qos1(3, "a", "3")]);
    assert_eq!(subscriber.heard().len(), 3);
    subscriber.send_together(&[puback(2), puback(2), puback(77), puback(1), puback(2)]);
    assert_eq!(publisher.heard(), ["PUBACK 1", "PUBACK 2"]);
    subscriber.lose();
    let mut subscriber = world.joined(&connect("sub"), true);
    assert_eq!(subscriber.heard(), NOTHING);
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 3"], "written, since its subscriber was gone");
}

/// The client subscribes to what it publishes: its messages are known to the journal before its session is let go of.
#[test]
fn what_stands_before_a_goodbye_in_one_read_is_kept() {
    let mut world = World::new();
    let mut client = world.joined(&connect("dev"), false);
    client.send(&subscribe("a", QoS::AtLeastOnce));
    world.settle();
    client.heard();
    let goodbye = Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
    client.send_together(&[qos1(1, "a", "x"), qos1(2, "a", "y"), Packet::Disconnect(goodbye)]);
    world.settle();
    assert_eq!(client.heard().last().map(String::as_str), Some("PUBACK 2"));
    drop(client);
    world.cut(1);
    let mut client = world.joined(&connect("dev"), true);
    world.settle();
    assert_eq!(client.heard(), ["PUBLISH! q1 #1 a=x", "PUBLISH! q1 #2 a=y"]);
}

/// A message that is written takes with it those of its publisher before it that are held back.
#[test]
fn a_row_keeps_the_order_of_what_is_written() {
    let world = World::new();
    let mut online = world.subscriber(&connect("online"), "a", QoS::AtLeastOnce);
    world.subscriber(&connect("sleeper"), "b", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send_together(&[qos1(1, "a", "x"), qos1(2, "b", "y"), qos1(3, "a", "z")]);
    assert_eq!(publisher.heard(), NOTHING);
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1", "PUBACK 2"]);
    assert_eq!(online.heard().len(), 2);
    online.send_together(&[puback(1), puback(2)]);
    assert_eq!(publisher.heard(), ["PUBACK 3"]);
}
