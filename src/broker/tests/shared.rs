//! Shared subscriptions: one member gets a message, and another one when that member is gone, whatever crashes.

mod trial;

use super::{
    Client, World, connect, puback, pubcomp, publish, pubrec, qos0, qos1, qos2, receiving, subscribe,
    transient, unsubscribe,
};
use crate::{
    broker::{
        Config,
        dispatch::{Origin, Touched},
    },
    codec::{Connect, QoS, ReasonCode},
    sync::lock,
    topic::TopicName,
};

const NOTHING: [&str; 0] = [];
const GROUP: &str = "$share/g/a";

fn lasting(client_id: &str, seconds: u32) -> Connect<'_> {
    let mut connect = connect(client_id);
    connect.properties.session_expiry = Some(seconds);
    connect
}

/// Messages that a session holds.
fn held(world: &World, client_id: &str) -> usize {
    let slot = lock(&world.broker.registry).by_client_id(client_id).unwrap();
    let state = slot.state();
    state.session.outbound.len()
}

/// What comes until nothing comes any more.
fn wait(world: &World, client: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..4 {
        all.append(&mut client.heard());
        world.settle();
    }
    all.append(&mut client.heard());
    all
}

#[test]
fn each_message_goes_to_one_member_the_online_ones_in_turn() {
    let world = World::new();
    world.subscriber(&connect("asleep"), GROUP, QoS::AtLeastOnce).lose();
    let mut one = world.subscriber(&transient("one"), GROUP, QoS::AtLeastOnce);
    let mut two = world.subscriber(&connect("two"), GROUP, QoS::AtLeastOnce);
    let mut other = world.subscriber(&transient("other"), "$share/h/a", QoS::AtMostOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=4_u16 {
        publisher.send(&qos1(n, "a", &n.to_string()));
    }
    let (one, two) = (one.heard(), two.heard());
    assert_eq!((one.len(), two.len()), (2, 2), "{one:?} {two:?}");
    assert_eq!(other.heard().len(), 4, "another group of the same filter gets them all");
    assert_eq!(held(&world, "asleep"), 0);
}

#[test]
fn sleeping_members_share_when_none_is_online() {
    let world = World::new();
    world.subscriber(&connect("one"), GROUP, QoS::AtLeastOnce).lose();
    world.subscriber(&connect("two"), GROUP, QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=4_u16 {
        publisher.send(&qos1(n, "a", "x"));
    }
    assert_eq!((held(&world, "one"), held(&world, "two")), (2, 2));
}

/// A member that does not acknowledge gets no more than it takes at once while another one keeps up.
#[test]
fn a_member_that_keeps_up_is_preferred() {
    let world = World::new();
    let mut slow = world.subscriber(&receiving(connect("slow"), 1), GROUP, QoS::AtLeastOnce);
    let mut quick = world.subscriber(&connect("quick"), GROUP, QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=20_u16 {
        publisher.send(&qos1(n, "a", "x"));
        let heard = quick.heard();
        for n in packet_ids(&heard) {
            quick.send(&puback(n));
        }
    }
    assert_eq!(slow.heard().len(), 1);
    assert_eq!(held(&world, "slow"), 2, "one sent, and the one that showed that it is slow");
}

fn packet_ids(lines: &[String]) -> Vec<u16> {
    let ids = lines.iter().filter_map(|l| l.split('#').nth(1)?.split(' ').next()?.parse().ok());
    ids.collect()
}

/// A client that is a member and a subscriber gets both, each by its own subscription.
#[test]
fn a_plain_subscription_of_a_member_is_its_own() {
    let world = World::new();
    let mut both = world.subscriber(&transient("both"), GROUP, QoS::AtMostOnce);
    both.send(&subscribe("a", QoS::AtMostOnce));
    both.heard();
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send(&qos0("a", "x"));
    assert_eq!(both.heard(), ["PUBLISH q0 a=x", "PUBLISH q0 a=x"]);
}

/// What a sleeping member has waiting when its session expires goes to the others, and no power cut undoes it.
#[test]
fn an_expired_members_messages_go_to_the_others() {
    let mut world = World::new();
    world.subscriber(&lasting("short", 10), GROUP, QoS::ExactlyOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(1, "a", "one"));
    publisher.send(&qos1(2, "a", "two"));
    world.settle();
    world.subscriber(&connect("long"), GROUP, QoS::ExactlyOnce).lose();
    assert_eq!((held(&world, "short"), held(&world, "long")), (2, 0));
    world.pass(10_000);
    assert_eq!(held(&world, "long"), 2);
    world.settle();
    drop(publisher);
    world.cut(1);
    let mut long = world.join(&connect("long"));
    let heard = wait(&world, &mut long);
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard[1].ends_with("a=one") && heard[2].ends_with("a=two"), "{heard:?}");
    assert_eq!(world.broker.drops.total(), 0);
}

/// The power goes before the journal has the end of the member's session: it has its messages again, and they come once.
/// The oldest may have been sent before, as far as anybody knows then: it is not given to another.
#[test]
fn a_hand_over_that_was_not_committed_never_was() {
    let mut world = World::with(Config { inflight_max: 1, ..Config::default() });
    world.subscriber(&lasting("short", 10), GROUP, QoS::ExactlyOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(1, "a", "one"));
    publisher.send(&qos2(2, "a", "two"));
    world.settle();
    let mut long = world.subscriber(&connect("long"), GROUP, QoS::ExactlyOnce);
    world.pass(10_000);
    assert_eq!(long.heard(), NOTHING, "it would come twice after a crash now");
    drop((long, publisher));
    world.cut(1);
    let mut long = world.joined(&connect("long"), true);
    assert_eq!((held(&world, "short"), held(&world, "long")), (2, 0));
    world.pass(10_000);
    let heard = wait(&world, &mut long);
    assert!(heard.len() == 1 && heard[0].ends_with("a=two"), "{heard:?}");
    assert_eq!(world.broker.drops.total(), 1);
}

/// QoS 1 that was sent goes on with what was not; QoS 2 that was sent does not, it could come twice (MQTT 5.0 section
/// 4.8.2).
#[test]
fn a_clean_start_hands_on_all_but_qos_2_that_was_sent() {
    let world = World::new();
    let mut leaves = world.subscriber(&receiving(connect("leaves"), 2), GROUP, QoS::ExactlyOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(1, "a", "sent twice?"));
    world.settle();
    publisher.send(&qos1(2, "a", "sent"));
    publisher.send(&qos2(3, "a", "waits"));
    publisher.send(&qos1(4, "a", "waits too"));
    world.settle();
    assert_eq!(leaves.heard().len(), 2);
    let mut stays = world.subscriber(&connect("stays"), GROUP, QoS::ExactlyOnce);
    let again = Connect { clean_start: true, ..connect("leaves") };
    let mut again = world.join(&again);
    world.settle();
    assert_eq!(again.heard(), ["CONNACK 0"]);
    let heard = wait(&world, &mut stays);
    assert_eq!(heard, ["PUBLISH q1 #1 a=sent", "PUBLISH q2 #2 a=waits", "PUBLISH q1 #3 a=waits too"]);
    assert_eq!(world.broker.drops.total(), 1, "the QoS 2 message that was sent is counted");
}

/// [MQTT-3.10.4-3]: what was sent to a client that unsubscribes stays with it. The rest goes to the other members.
#[test]
fn an_unsubscribed_member_keeps_what_it_was_sent() {
    let mut world = World::new();
    let mut leaves = world.subscriber(&receiving(connect("leaves"), 1), GROUP, QoS::ExactlyOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    for n in 1..=3_u16 {
        publisher.send(&qos1(n, "a", &n.to_string()));
    }
    world.settle();
    assert_eq!(leaves.heard(), ["PUBLISH q1 #1 a=1"]);
    let mut stays = world.subscriber(&connect("stays"), GROUP, QoS::ExactlyOnce);
    leaves.send(&unsubscribe(GROUP));
    assert_eq!(leaves.heard(), NOTHING);
    world.settle();
    assert_eq!(leaves.heard(), ["UNSUBACK"]);
    assert_eq!(stays.heard(), ["PUBLISH q1 #1 a=2", "PUBLISH q1 #2 a=3"]);
    drop((leaves, stays, publisher));
    world.cut(1);
    let mut stays = world.join(&connect("stays"));
    let heard = wait(&world, &mut stays);
    assert_eq!(heard, ["CONNACK 1", "PUBLISH! q1 #1 a=2", "PUBLISH! q1 #2 a=3"]);
}

/// Without another member an unsubscribed one gets what waited for it, as by an ordinary subscription.
#[test]
fn the_last_member_keeps_all_when_it_unsubscribes_and_loses_it_with_its_session() {
    let world = World::new();
    let mut last = world.subscriber(&receiving(connect("last"), 1), GROUP, QoS::AtLeastOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos1(1, "a", "1"));
    publisher.send(&qos1(2, "a", "2"));
    world.settle();
    last.send(&unsubscribe(GROUP));
    world.settle();
    assert_eq!(last.heard(), ["PUBLISH q1 #1 a=1", "UNSUBACK"]);
    last.send(&puback(1));
    assert_eq!(last.heard(), ["PUBLISH q1 #2 a=2"]);
    last.send(&subscribe(GROUP, QoS::AtLeastOnce));
    last.leave(ReasonCode::Success, Some(0));
    assert_eq!(world.broker.drops.total(), 1, "the one that was not acknowledged");
}

/// A transient member's messages are in memory only; a persistent one that gets them has them on disk.
#[test]
fn a_lost_transient_members_messages_go_to_the_others_and_to_disk() {
    let mut world = World::new();
    let mut brief = world.subscriber(&receiving(transient("brief"), 1), GROUP, QoS::ExactlyOnce);
    world.subscriber(&connect("asleep"), GROUP, QoS::ExactlyOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(1, "a", "1"));
    publisher.send(&qos2(2, "a", "2"));
    publisher.send(&qos1(3, "a", "3"));
    world.settle();
    assert_eq!(brief.heard(), ["PUBLISH q2 #1 a=1"]);
    brief.lose();
    world.settle();
    assert_eq!(held(&world, "asleep"), 2);
    drop(publisher);
    world.cut(1);
    assert_eq!(held(&world, "asleep"), 2);
}

/// And the other way: a transient member that takes over from a persistent one reads from disk what it gets.
#[test]
fn a_transient_member_takes_over_what_stands_on_disk() {
    let mut world = World::new();
    world.subscriber(&lasting("short", 10), GROUP, QoS::ExactlyOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos2(1, "a", "1"));
    publisher.send(&qos1(2, "a", "2"));
    world.settle();
    let mut brief = world.subscriber(&transient("brief"), GROUP, QoS::ExactlyOnce);
    world.pass(10_000);
    assert_eq!(wait(&world, &mut brief), ["PUBLISH q2 #1 a=1", "PUBLISH q1 #2 a=2"]);
    brief.send(&puback(2));
    brief.send(&pubrec(1));
    world.settle();
    assert_eq!(brief.heard(), ["PUBREL 1"]);
    brief.send(&pubcomp(1));
    assert_eq!(held(&world, "brief"), 0);
    world.pass(1_000);
    world.settle();
    drop((brief, publisher));
    world.cut(1);
    assert_eq!(lock(&world.broker.registry).len(), 1, "the publisher's");
}

/// The route of a message was resolved, and its member ended or left the group before it was given the message.
#[test]
fn a_member_that_is_gone_when_its_turn_comes_is_passed_over() {
    for leaves in [false, true] {
        let world = World::new();
        let mut gone = world.subscriber(&connect("gone"), GROUP, QoS::AtLeastOnce);
        let publisher = world.joined(&connect("pub"), false);
        let route = world.broker.route(TopicName::parse("a").unwrap());
        let mut stays = world.subscriber(&connect("stays"), GROUP, QoS::AtLeastOnce);
        if leaves {
            gone.send(&unsubscribe(GROUP));
        } else {
            gone.leave(ReasonCode::Success, Some(0));
        }
        let slot = lock(&world.broker.registry).by_client_id("pub").unwrap();
        let origin = Origin { slot: &slot, inbound_qos2: None, is_answered: true, is_will: false };
        let packet = publish(QoS::AtLeastOnce, 1, "a", "x");
        let mut touched = Touched::default();
        let sent = world.broker.dispatch(&route, &packet, origin, world.now(), &mut touched).unwrap();
        drop(touched);
        assert_eq!(stays.heard(), ["PUBLISH q1 #1 a=x"]);
        stays.lose();
        assert!(
            !world.broker.journal.is_open(&sent.gate),
            "it is to be on disk for a session it was not resolved to"
        );
        world.settle();
        assert!(world.broker.journal.is_open(&sent.gate));
        drop(publisher);
    }
}
