//! Nothing is acknowledged before it is durable, and what was acknowledged is there after a power cut.

use std::sync::Arc;

use super::{
    Client, World, connect, puback, pubcomp, publish, pubrec, pubrel, qos0, qos1, qos2, retained, subscribe,
    transient,
};
use crate::{
    codec::{Packet, Publish, QoS, ReasonCode},
    message::Message,
    store::{Completion, Gate},
    topic::TopicName,
};

const NOTHING: [&str; 0] = [];

#[test]
fn no_answer_leaves_before_its_commit() {
    let world = World::new();
    let mut client = world.join(&connect("dev"));
    assert_eq!(client.heard(), NOTHING, "the new session is not durable");
    world.settle();
    assert_eq!(client.heard(), ["CONNACK 0"]);
    client.send(&subscribe("a", QoS::AtLeastOnce));
    assert_eq!(client.heard(), NOTHING);
    world.settle();
    assert_eq!(client.heard(), ["SUBACK 1"]);
    world.subscriber(&connect("sleeper"), "b", QoS::AtLeastOnce).lose();
    client.send(&qos1(1, "b", "x"));
    assert_eq!(client.heard(), NOTHING);
    world.settle();
    assert_eq!(client.heard(), ["PUBACK 1"]);
    client.send(&qos2(2, "nobody", "x"));
    assert_eq!(client.heard(), NOTHING, "its packet id has to be remembered");
    world.settle();
    assert_eq!(client.heard(), ["PUBREC 2"]);
    client.send(&pubrel(2));
    assert_eq!(client.heard(), NOTHING);
    world.settle();
    assert_eq!(client.heard(), ["PUBCOMP 2"]);
}

/// [MQTT-4.3.3-10]
#[test]
fn a_qos_2_message_sent_again_before_its_commit_is_answered_by_that_commit() {
    let world = World::new();
    let mut subscriber = world.subscriber(&transient("sub"), "a", QoS::ExactlyOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(7, "a", "x"));
    publisher.lose();
    let mut publisher = world.join(&connect("pub"));
    publisher.heard();
    publisher.send(&again(qos2(7, "a", "x")));
    assert_eq!((publisher.heard(), subscriber.heard()), (vec![], vec![]));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBREC 7"]);
    assert_eq!(subscriber.heard(), ["PUBLISH q2 #1 a=x"]);
}

#[test]
fn both_halves_of_qos_2_survive_a_power_cut_at_every_step() {
    let mut world = World::new();
    world.subscriber(&connect("sub"), "a", QoS::ExactlyOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(7, "a", "x"));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBREC 7"]);
    drop(publisher);
    world.cut(1);

    // The publisher has not seen PUBREC.
    let mut publisher = world.joined(&connect("pub"), true);
    publisher.send(&again(qos2(7, "a", "x")));
    assert_eq!(publisher.heard(), ["PUBREC 7"]);
    publisher.send(&pubrel(7));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBCOMP 7"]);

    let mut subscriber = world.join(&connect("sub"));
    let heard = wait(&world, &mut subscriber);
    assert_eq!(heard, ["CONNACK 1", "PUBLISH! q2 #1 a=x"], "once; it counts as sent before the cut");
    subscriber.send(&pubrec(1));
    assert_eq!(subscriber.heard(), NOTHING);
    world.settle();
    assert_eq!(subscriber.heard(), ["PUBREL 1"]);
    drop((publisher, subscriber));
    world.cut(2);

    // The subscriber has not seen PUBREL; the publisher uses its id anew.
    let mut subscriber = world.joined(&connect("sub"), true);
    assert_eq!(subscriber.heard(), ["PUBREL 1"]);
    let mut publisher = world.joined(&connect("pub"), true);
    publisher.send(&qos2(7, "a", "y"));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBREC 7"]);
    assert_eq!(subscriber.heard().len(), 1);
}

#[test]
fn pubrel_is_sent_again_after_a_power_cut() {
    let mut world = World::new();
    let mut subscriber = world.subscriber(&connect("sub"), "a", QoS::ExactlyOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(7, "a", "x"));
    world.settle();
    assert_eq!(subscriber.heard(), ["PUBLISH q2 #1 a=x"]);
    subscriber.send(&pubrec(1));
    world.settle();
    drop((publisher, subscriber));
    world.cut(1);
    let mut subscriber = world.join(&connect("sub"));
    assert_eq!(subscriber.heard(), ["CONNACK 1", "PUBREL 1"]);
    subscriber.send(&pubcomp(1));
    world.pass(1_000);
    world.settle();
    drop(subscriber);
    world.cut(2);
    let mut subscriber = world.join(&connect("sub"));
    assert_eq!(subscriber.heard(), ["CONNACK 1"]);
}

#[test]
fn a_message_confirmed_before_it_is_due_is_never_written() {
    let world = World::new();
    let mut subscriber = world.subscriber(&connect("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    world.pass(5_000);
    world.settle();
    let before = world.broker.journal.stats().bytes_frames;
    for n in 1..=500_u16 {
        publisher.send(&qos1(n, "a", "x"));
        assert_eq!(publisher.heard(), NOTHING);
        assert_eq!(subscriber.heard(), [format!("PUBLISH q1 #{n} a=x")]);
        subscriber.send(&puback(n));
        assert_eq!(publisher.heard(), [format!("PUBACK {n}")]);
    }
    world.settle();
    assert_eq!(world.broker.journal.stats().bytes_frames, before);
}

/// A subscriber that hangs must not slow its publishers down by the time messages are held.
#[test]
fn nothing_is_held_for_a_subscriber_that_owes_an_acknowledgement() {
    let world = World::new();
    let mut subscriber = world.subscriber(&connect("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos1(1, "a", "x"));
    assert_eq!(subscriber.heard(), ["PUBLISH q1 #1 a=x"]);
    world.settle();
    assert_eq!(publisher.heard(), NOTHING, "held");
    world.pass(101);
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1"], "written when its time was over");
    publisher.send(&qos1(2, "a", "y"));
    assert_eq!(subscriber.heard(), ["PUBLISH q1 #2 a=y"]);
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 2"], "written at once");
}

#[test]
fn a_message_whose_subscriber_goes_without_confirming_is_written() {
    let mut world = World::new();
    let mut subscriber = world.subscriber(&connect("sub"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos1(1, "a", "x"));
    assert_eq!(subscriber.heard(), ["PUBLISH q1 #1 a=x"]);
    world.settle();
    assert_eq!(publisher.heard(), NOTHING);
    subscriber.lose();
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1"]);
    drop(publisher);
    world.cut(1);
    let mut subscriber = world.join(&connect("sub"));
    assert_eq!(wait(&world, &mut subscriber), ["CONNACK 1", "PUBLISH! q1 #1 a=x"]);
}

#[test]
fn a_retained_message_is_set_and_cleared_for_good() {
    let mut world = World::new();
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send(&retained(QoS::AtLeastOnce, 1, "a", "1"));
    assert_eq!(publisher.heard(), NOTHING);
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1"]);
    drop(publisher);
    world.cut(1);
    let mut subscriber = world.joined(&transient("sub"), false);
    subscriber.send(&subscribe("a", QoS::AtMostOnce));
    assert_eq!(subscriber.heard(), ["SUBACK 0", "PUBLISH q0 a=1 retained"]);
    subscriber.send(&retained(QoS::AtLeastOnce, 1, "a", ""));
    assert_eq!(subscriber.heard(), ["PUBLISH q0 a="]);
    world.settle();
    assert_eq!(subscriber.heard(), ["PUBACK 1"]);
    drop(subscriber);
    world.cut(2);
    let mut subscriber = world.joined(&transient("sub"), false);
    subscriber.send(&subscribe("a", QoS::AtMostOnce));
    assert_eq!(subscriber.heard(), ["SUBACK 0"]);
}

/// Two publishers at once: the first has set its value and not yet handed it to the journal when the second does both.
#[test]
fn a_retained_value_that_was_replaced_at_once_is_acknowledged_with_its_successor() {
    let world = World::new();
    let broker = &world.broker;
    let packet = publish(QoS::AtLeastOnce, 1, "a", "1");
    let topic = TopicName::parse("a").unwrap();
    let first = Arc::new(Message::from_packet(topic.clone(), &packet, world.now()));
    let stored = broker.journal.message(Arc::clone(&first));
    let replaced = broker.set_retained(&topic, Some(&first), Some(&stored)).unwrap();
    let mut second = world.joined(&transient("second"), false);
    second.send(&retained(QoS::AtLeastOnce, 1, "a", "2"));
    let completion = Completion { retained: replaced.version, ..Completion::default() };
    broker.journal.complete(&stored, Vec::new(), completion);
    assert!(broker.journal.is_open(&Gate::Message(stored)), "it is never written");
    assert!(!broker.journal.is_open(&broker.retained_gate(&topic)));
    world.settle();
    assert!(broker.journal.is_open(&broker.retained_gate(&topic)));
    assert_eq!(second.heard(), ["PUBACK 1"]);
}

#[test]
fn a_session_that_was_cleaned_stays_gone() {
    let mut world = World::new();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut clean = world.join(&transient("dev"));
    assert_eq!(clean.heard(), NOTHING, "the old session's end is not durable");
    world.settle();
    assert_eq!(clean.heard(), ["CONNACK 0"]);
    drop(clean);
    world.cut(1);
    let mut dev = world.join(&connect("dev"));
    world.settle();
    assert_eq!(dev.heard(), ["CONNACK 0"]);
}

#[test]
fn a_session_that_its_client_ended_is_durably_gone_before_the_next_connack() {
    let world = World::new();
    world.joined(&connect("dev"), false).leave(ReasonCode::Success, Some(0));
    let mut next = world.join(&transient("dev"));
    assert_eq!(next.heard(), NOTHING, "a crash could bring the old one back");
    let mut other = world.join(&transient("other"));
    assert_eq!(other.heard(), ["CONNACK 0"], "which is nothing to the others");
    world.settle();
    assert_eq!(next.heard(), ["CONNACK 0"]);
}

/// The publisher may use its packet id anew when it has PUBCOMP: the id's release is durable by then.
#[test]
fn a_pubrel_sent_again_is_answered_when_the_first_one_is_durable() {
    let world = World::new();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(7, "a", "x"));
    world.settle();
    publisher.send(&pubrel(7));
    publisher.lose();
    let mut publisher = world.join(&connect("pub"));
    assert_eq!(publisher.heard(), ["CONNACK 1"]);
    publisher.send(&pubrel(7));
    assert_eq!(publisher.heard(), NOTHING);
    world.settle();
    assert_eq!(publisher.heard(), ["PUBCOMP 7 92"]);
}

#[test]
fn when_the_store_fails_nobody_waits_for_an_answer_that_cannot_come() {
    let world = World::new();
    let mut subscriber = world.subscriber(&transient("sub"), "a", QoS::AtMostOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    world.subscriber(&connect("sleeper"), "a", QoS::AtLeastOnce).lose();
    world.settle();
    publisher.send(&qos1(1, "a", "x"));
    world.disk.fail_after(0);
    world.settle();
    assert!(world.broker.journal.poisoned());
    assert_eq!(publisher.heard(), ["DISCONNECT 83"]);
    assert!(publisher.closing);
    assert_eq!(world.refused(&connect("new")), ["CONNACK 0 88"]);
    let mut changed = connect("sleeper");
    changed.properties.session_expiry = Some(60);
    let mut sleeper = world.join(&changed);
    assert_eq!(sleeper.heard(), ["CONNACK 0 88"]);
    assert!(sleeper.closing);
    let mut other = world.joined(&transient("other"), false);
    other.send(&qos0("a", "y"));
    other.send(&qos1(1, "a", "z"));
    assert_eq!(other.heard(), ["PUBACK 1 83"]);
    assert_eq!(subscriber.heard(), ["PUBLISH q0 a=x", "PUBLISH q0 a=y"]);
}

/// [MQTT-3.1.4-3]
#[test]
fn a_second_connection_takes_over_and_gets_what_the_first_did_not_confirm() {
    let world = World::new();
    let mut first = world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos1(1, "a", "x"));
    assert_eq!(first.heard(), ["PUBLISH q1 #1 a=x"]);
    let mut second = world.join(&connect("dev"));
    assert_eq!(first.heard(), ["DISCONNECT 8e"]);
    first.send(&puback(1));
    first.lose();
    assert_eq!(wait(&world, &mut second), ["CONNACK 1", "PUBLISH! q1 #1 a=x"]);
    second.send(&puback(1));
    publisher.send(&qos1(2, "a", "y"));
    assert_eq!(second.heard(), ["PUBLISH q1 #2 a=y"]);
}

/// What comes until nothing comes any more.
fn wait(world: &World, client: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.append(&mut client.heard());
        world.settle();
    }
    all.append(&mut client.heard());
    all
}

fn again(packet: Packet<'_>) -> Packet<'_> {
    match packet {
        Packet::Publish(publish) => Packet::Publish(Publish { dup: true, ..publish }),
        other => other,
    }
}

/// The journal is not told when a retained message expires. A crash puts the time back to that of the last commit, where
/// the clock is not believed: a topic that was cleared meanwhile stays clear.
#[test]
fn a_topic_that_was_cleared_after_its_value_had_expired_stays_clear() {
    let mut world = World::new();
    let mut publisher = world.joined(&connect("pub"), false);
    let Packet::Publish(mut brief) = retained(QoS::AtLeastOnce, 1, "t", "brief") else { unreachable!() };
    brief.properties.message_expiry = Some(1);
    publisher.send(&Packet::Publish(brief));
    world.settle();
    world.pass(1_000);
    publisher.send(&retained(QoS::AtLeastOnce, 2, "t", ""));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1", "PUBACK 2"]);
    drop(publisher);
    world.cut(1);
    let mut reader = world.joined(&transient("reader"), false);
    reader.send(&subscribe("t", QoS::AtMostOnce));
    world.settle();
    assert_eq!(reader.heard(), ["SUBACK 0"]);
}
