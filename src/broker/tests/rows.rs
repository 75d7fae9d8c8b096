//! What comes in one read is given to subscribers, and told to the journal, in rows: that changes nothing of what clients see,
//! and of what is kept.

use super::{
    Client, Config, World, connect, id, puback, publish, pubrec, pubrel, qos0, qos1, qos2, receiving,
    retained, subscribe, transient, v311,
};
use crate::codec::{
    Disconnect, DisconnectProperties, Packet, Publish, QoS, ReasonCode, Subscribe, SubscribeFilter,
    SubscribeOptions, Version, decode,
};

const NOTHING: [&str; 0] = [];

impl Client {
    pub(super) fn send_together(&mut self, packets: &[Packet<'_>]) {
        let bytes = together(packets);
        assert_eq!(self.send_bytes(&bytes), bytes.len());
    }
}

fn together(packets: &[Packet<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        packet.encode(Version::V5, &mut bytes);
    }
    bytes
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

/// A world with subscribers of every kind, all online; the last one is the publisher, which hears its own messages but for `a`.
fn company() -> (World, Vec<Client>) {
    let world = World::with(Config { receive_maximum: 200, ..Config::default() });
    let slow = receiving(transient("slow"), 3);
    let mut clients: Vec<_> = [
        (transient("one"), "a", QoS::AtLeastOnce),
        (transient("two"), "+", QoS::ExactlyOnce),
        (transient("least"), "#", QoS::AtMostOnce),
        (slow, "a", QoS::AtLeastOnce),
        (v311("older"), "b", QoS::AtLeastOnce),
        (connect("kept"), "c", QoS::AtLeastOnce),
        (transient("member"), "$share/group/d", QoS::AtLeastOnce),
        (transient("pub"), "b", QoS::AtLeastOnce),
    ]
    .iter()
    .map(|(connect, filter, qos)| world.subscriber(connect, filter, *qos))
    .collect();
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, no_local: true, ..SubscribeOptions::default() };
    let filters = vec![SubscribeFilter { filter: "a", options }];
    let own = Subscribe { packet_id: id(7), subscription_id: Some(9), user: Vec::new(), filters };
    let publisher = clients.last_mut().unwrap();
    publisher.send(&Packet::Subscribe(own));
    world.settle();
    publisher.heard();
    (world, clients)
}

/// What each of them hears of these packets of the publisher, which come in reads of so many, until all have answered.
fn heard_of(packets: &[Packet<'_>], per_read: usize) -> Vec<Vec<String>> {
    let (world, mut clients) = company();
    world.subscriber(&connect("sleeper"), "c", QoS::ExactlyOnce).lose();
    for read in packets.chunks(per_read) {
        clients.last_mut().unwrap().send_together(read);
    }
    let mut heard = vec![Vec::new(); clients.len()];
    let mut is_quiet = false;
    while !is_quiet {
        is_quiet = true;
        world.settle();
        for (client, heard) in clients.iter_mut().zip(&mut heard) {
            let bytes = client.heard_bytes();
            let mut rest = &bytes[..];
            while let Some((packet, used)) = decode(rest, client.version, u32::MAX).unwrap() {
                heard.push(super::line(&packet));
                rest = &rest[used..];
                let Packet::Publish(Publish { packet_id: Some(id), qos, .. }) = packet else { continue };
                client.send(&if qos == QoS::AtLeastOnce { puback(id.get()) } else { pubrec(id.get()) });
                is_quiet = false;
            }
        }
    }
    assert_eq!(world.broker.dropped().slow_reader, 0);
    let mut sleeper = world.joined(&connect("sleeper"), true);
    world.settle();
    heard.push(sleeper.heard());
    heard
}

/// Topics, qualities of service, retained messages and messages that come again in every mixture; each client is sent the same,
/// in the same order.
#[test]
fn what_comes_together_is_what_comes_one_by_one() {
    let topics = ["a", "a", "a", "b", "b", "c", "d", "nobody/hears"];
    let mut chance = 7_u64;
    let mut below = |n: usize| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((chance >> 33) % n as u64).unwrap()
    };
    for round in 0..40 {
        let mut topic = "a";
        let payloads: Vec<_> = (0..=below(150)).map(|n| format!("{n}")).collect();
        let mut packets = Vec::new();
        for (n, payload) in (1..).zip(&payloads) {
            if below(6) == 0 {
                topic = topics[below(topics.len())];
            }
            // With QoS 2 the same message again, with DUP and without.
            let id = if below(12) == 0 { 1 + u16::try_from(below(usize::from(n))).unwrap() } else { n };
            let again =
                Packet::Publish(Publish { dup: true, ..publish(QoS::ExactlyOnce, id, topic, payload) });
            packets.push(match (below(40), round % 2) {
                (0, _) => again,
                (1, _) => retained(QoS::AtLeastOnce, n, topic, payload),
                (2..10, 0) | (2..4, _) => qos0(topic, payload),
                (_, 0) | (4..8, _) => qos1(n, topic, payload),
                _ => qos2(id, topic, payload),
            });
        }
        let one_by_one = heard_of(&packets, 1);
        for per_read in [7, 64, 150] {
            assert_eq!(heard_of(&packets, per_read), one_by_one, "{per_read} in a read");
        }
    }
}

/// They have been taken, and are acknowledged before the client is told what is wrong.
#[test]
fn what_stands_before_a_wrong_packet_in_one_read_is_delivered() {
    let world = World::new();
    let mut subscriber = world.subscriber(&transient("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    let wildcard = publish(QoS::AtLeastOnce, 4, "a/+", "x");
    let good = [qos1(1, "a", "x"), qos1(2, "a", "y"), qos1(3, "a", "z")];
    let mut bytes = together(&good);
    bytes.extend(together(&[Packet::Publish(wildcard), qos1(5, "a", "never")]));
    publisher.send_bytes(&bytes);
    assert_eq!(publisher.heard(), ["PUBACK 1", "PUBACK 2", "PUBACK 3", "DISCONNECT 90"]);
    assert_eq!(subscriber.heard(), ["PUBLISH q1 #1 a=x", "PUBLISH q1 #2 a=y", "PUBLISH q1 #3 a=z"]);
}

/// Up to the one that comes a second time, which is not taken again [MQTT-4.3.3-10]; and afresh when the id is free.
#[test]
fn a_row_of_qos_2_takes_each_packet_id_once() {
    let world = World::new();
    let mut subscriber = world.subscriber(&transient("sub"), "a", QoS::AtMostOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send_together(&[1, 2, 3, 2, 4, 4, 5].map(|id| qos2(id, "a", "x")));
    assert_eq!(publisher.heard(), [1, 2, 3, 2, 4, 4, 5].map(|id| format!("PUBREC {id}")));
    assert_eq!(subscriber.heard().len(), 5);
    publisher.send(&pubrel(2));
    publisher.send_together(&[1, 2, 3].map(|id| qos2(id, "a", "y")));
    assert_eq!(publisher.heard(), ["PUBCOMP 2", "PUBREC 1", "PUBREC 2", "PUBREC 3"]);
    assert_eq!(subscriber.heard(), ["PUBLISH q0 a=y"]);
}

/// The publisher's share of the broker's memory is what it was told, in one read as well [MQTT-3.3.4-7].
#[test]
fn a_row_is_no_longer_than_the_receive_maximum() {
    let world = World::with(Config { receive_maximum: 3, ..Config::default() });
    let mut subscriber = world.subscriber(&transient("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send_bytes(&together(&(1..=4).map(|id| qos1(id, "a", "x")).collect::<Vec<_>>()));
    assert_eq!(publisher.heard(), ["PUBACK 1", "PUBACK 2", "PUBACK 3", "DISCONNECT 93"]);
    assert_eq!(subscriber.heard().len(), 3);
}
