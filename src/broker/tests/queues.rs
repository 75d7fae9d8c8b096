//! What becomes of messages whose queue is full, by its policy, also after a power cut.

use super::{
    Client, World, connect, puback, publish, qos0, qos1, qos2, retained, subscribe, transient, v311, willing,
};
use crate::{
    broker::{Config, NamePattern, QueueBound},
    codec::{Connect, Packet, QoS},
    session::{Overflow, QueueLimits},
    topic::TopicFilter,
};

const NOTHING: [&str; 0] = [];

fn limits(messages_max: usize, overflow: Overflow) -> QueueLimits {
    QueueLimits { messages_max, bytes_max: 1 << 20, overflow }
}

/// Two messages a queue for `cmd/#`. One more may be in flight: after a power cut, the oldest one counts as that.
fn commands(overflow: Overflow) -> Config {
    let filter = Some(TopicFilter::parse("cmd/#").unwrap());
    let bound = QueueBound { filter, client: None, user: None, limits: limits(2, overflow) };
    Config { queue_bounds: vec![bound], inflight_max: 1, ..Config::default() }
}

fn sleeper(world: &World, client_id: &str, filter: &str) {
    world.subscriber(&connect(client_id), filter, QoS::ExactlyOnce).lose();
}

/// What a publisher is answered, when the disk has done its part.
fn answered(world: &World, client: &mut Client) -> Vec<String> {
    world.settle();
    client.heard()
}

/// All that comes, with each message confirmed.
fn drain(world: &World, client: &mut Client) -> Vec<String> {
    let (mut all, mut quiet) = (Vec::new(), 0);
    while quiet < 3 {
        // A confirmation rides a later commit, and the next message waits for that.
        world.pass(1_000);
        world.settle();
        let heard = client.heard();
        quiet = if heard.is_empty() { quiet + 1 } else { 0 };
        for line in &heard {
            let id = line.split_once('#').and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            client.send(&puback(id.expect("a QoS 1 message")));
        }
        all.extend(heard.iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()));
    }
    all
}

/// Nobody gets what was refused, it is not retained, and its id is free; what waits is what was taken.
#[test]
fn a_refused_publish_reaches_nobody() {
    let mut world = World::with(commands(Overflow::Reject));
    world.subscriber(&connect("dev"), "cmd/#", QoS::AtLeastOnce).lose();
    let mut live = world.subscriber(&transient("live"), "cmd/#", QoS::AtMostOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos1(1, "cmd/a", "1"));
    publisher.send(&qos2(2, "cmd/a", "2"));
    assert_eq!(answered(&world, &mut publisher), ["PUBACK 1", "PUBREC 2"]);
    assert_eq!(live.heard().len(), 2);
    publisher.send(&retained(QoS::AtLeastOnce, 3, "cmd/a", "3"));
    publisher.send(&qos2(4, "cmd/a", "4"));
    publisher.send(&qos1(5, "data", "5"));
    assert_eq!(answered(&world, &mut publisher), ["PUBACK 3 97", "PUBREC 4 97", "PUBACK 5"]);
    assert_eq!(live.heard(), NOTHING);
    assert_eq!(world.broker.dropped().rejected, 2);
    drop((live, publisher));
    world.cut(1);
    // The bound knows after the restart what waits under it.
    let mut publisher = world.joined(&connect("pub"), true);
    publisher.send(&qos1(6, "cmd/a", "6"));
    publisher.send(&qos1(7, "cmd/a", "x"));
    let heard = answered(&world, &mut publisher);
    assert_eq!(heard[heard.len() - 2..], ["PUBACK 6", "PUBACK 7 97"]);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev), ["cmd/a=1", "cmd/a=2", "cmd/a=6"]);
    publisher.send(&qos1(8, "cmd/a", "8"));
    assert_eq!(drain(&world, &mut dev), ["cmd/a=8"]);
    assert_eq!(answered(&world, &mut publisher), ["PUBACK 8"]);
    assert_eq!(world.broker.dropped().queue_full, 0);
    let mut late = world.joined(&transient("late"), false);
    late.send(&subscribe("cmd/#", QoS::AtMostOnce));
    world.settle();
    assert_eq!(late.heard(), ["SUBACK 0"], "nothing was retained");
}

/// 3.1.1 has no word for it: no acknowledgement, and a closed connection. When there is room the same message is taken.
#[test]
fn an_older_publisher_that_is_refused_is_not_acknowledged() {
    let world = World::with(commands(Overflow::Reject));
    sleeper(&world, "dev", "cmd/#");
    let mut publisher = world.joined(&v311("pub"), false);
    publisher.send(&qos1(1, "cmd/a", "1"));
    publisher.send(&qos1(2, "cmd/a", "2"));
    assert_eq!(answered(&world, &mut publisher), ["PUBACK 1", "PUBACK 2"]);
    publisher.send(&qos1(3, "cmd/a", "3"));
    assert_eq!(answered(&world, &mut publisher), NOTHING);
    assert!(publisher.closing);
}

/// Who cannot be told does not lose what others can take.
#[test]
fn qos_0_and_wills_reach_those_with_room() {
    let config = Config { queue_qos0: true, inflight_max: 100, ..commands(Overflow::Reject) };
    let world = World::with(config);
    sleeper(&world, "dev", "cmd/#");
    let mut live = world.subscriber(&transient("live"), "cmd/#", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send(&qos1(1, "cmd/a", "1"));
    publisher.send(&qos1(2, "cmd/a", "2"));
    let dying = willing(transient("dying"), "cmd/will", QoS::AtLeastOnce, false);
    let dying = world.joined(&dying, false);
    publisher.send(&qos0("cmd/a", "0"));
    dying.lose();
    let heard = live.heard();
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert_eq!(heard[2..], ["PUBLISH q0 cmd/a=0", "PUBLISH q1 #3 cmd/will=w"]);
    assert_eq!(world.broker.dropped().queue_full, 2, "for the sleeper");
    assert_eq!(world.broker.dropped().rejected, 0);
}

/// A member with room gets it; only when there is none its publisher is refused.
#[test]
fn a_shared_subscription_is_full_when_all_its_members_are() {
    let world = World::with(commands(Overflow::Reject));
    sleeper(&world, "one", "$share/g/cmd/#");
    sleeper(&world, "two", "$share/g/cmd/#");
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=5 {
        publisher.send(&qos1(n, "cmd/a", &n.to_string()));
    }
    let expected = ["PUBACK 1", "PUBACK 2", "PUBACK 3", "PUBACK 4", "PUBACK 5 97"];
    assert_eq!(answered(&world, &mut publisher), expected);
}

#[test]
fn the_newest_goes_where_the_policy_says_so() {
    let mut world = World::with(commands(Overflow::DropNewest));
    world.subscriber(&connect("dev"), "cmd/#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=4 {
        publisher.send(&qos1(n, "cmd/a", &n.to_string()));
    }
    assert_eq!(answered(&world, &mut publisher).len(), 4);
    assert_eq!(world.broker.dropped().queue_full, 2);
    drop(publisher);
    world.cut(2);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev), ["cmd/a=1", "cmd/a=2"]);
}

/// A flood of readings pushes out no command, and the other way round, before and after a power cut.
#[test]
fn what_is_under_another_bound_makes_no_room() {
    let config = Config { queue: limits(3, Overflow::DropOldest), ..commands(Overflow::DropOldest) };
    let mut world = World::with(config);
    world.subscriber(&connect("dev"), "#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&connect("pub"), false);
    for n in 1..=5 {
        publisher.send(&qos1(n, "cmd/a", &n.to_string()));
        publisher.send(&qos1(10 + n, "data", &n.to_string()));
    }
    assert_eq!(answered(&world, &mut publisher).len(), 10);
    assert_eq!(world.broker.dropped().queue_full, 3 + 2);
    drop(publisher);
    world.cut(3);
    let mut publisher = world.joined(&connect("pub"), true);
    for n in 6..=7 {
        publisher.send(&qos1(n, "data", &n.to_string()));
    }
    answered(&world, &mut publisher);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev), ["data=3", "cmd/a=4", "cmd/a=5", "data=5", "data=6", "data=7"]);
}

#[test]
fn a_bound_may_be_for_some_clients_only() {
    let client = Some(NamePattern::parse("pump-*").unwrap());
    let bound = QueueBound { filter: None, client, user: None, limits: limits(1, Overflow::Reject) };
    let world = World::with(Config { queue_bounds: vec![bound], ..Config::default() });
    sleeper(&world, "pump-1", "a");
    sleeper(&world, "dev", "b");
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=2 {
        publisher.send(&qos1(n, "a", "x"));
        publisher.send(&qos1(10 + n, "b", "x"));
    }
    let expected = ["PUBACK 1", "PUBACK 11", "PUBACK 2 97", "PUBACK 12"];
    assert_eq!(answered(&world, &mut publisher), expected);
}

/// The session remembers its user through a power cut, and follows its client to another one.
#[test]
fn a_bound_may_be_for_some_users_only() {
    let user = Some(NamePattern::parse("fleet-*").unwrap());
    let bound = QueueBound { filter: None, client: None, user, limits: limits(2, Overflow::Reject) };
    let config = Config { queue_bounds: vec![bound], inflight_max: 1, ..Config::default() };
    let mut world = World::with(config);
    let named = |client_id, user_name| Connect { user_name, ..connect(client_id) };
    for (connect, filter) in [(named("pump", Some("fleet-7")), "a"), (named("dev", Some("guest")), "b")] {
        world.subscriber(&connect, filter, QoS::AtLeastOnce).lose();
    }
    sleeper(&world, "nobody", "c");
    let mut publisher = world.joined(&transient("pub"), false);
    let send = |world: &World, publisher: &mut Client, ids: std::ops::RangeInclusive<u16>| {
        for id in ids {
            for (n, topic) in [(100, "a"), (200, "b"), (300, "c")] {
                publisher.send(&qos1(n + id, topic, "x"));
            }
        }
        answered(world, publisher)
    };
    let first = send(&world, &mut publisher, 1..=2);
    assert_eq!(first, ["PUBACK 101", "PUBACK 201", "PUBACK 301", "PUBACK 102", "PUBACK 202", "PUBACK 302"]);
    publisher.lose();

    // One of two counts as in flight now.
    world.cut(1);
    let mut publisher = world.joined(&transient("pub"), false);
    let after_cut = send(&world, &mut publisher, 3..=4);
    assert_eq!(
        after_cut,
        ["PUBACK 103", "PUBACK 203", "PUBACK 303", "PUBACK 104 97", "PUBACK 204", "PUBACK 304"]
    );

    world.joined(&named("pump", None), true).lose();
    world.joined(&named("nobody", Some("fleet-8")), true).lose();
    let other_users = send(&world, &mut publisher, 5..=7);
    let expected = ["PUBACK 105", "PUBACK 205", "PUBACK 305", "PUBACK 106", "PUBACK 206", "PUBACK 306"];
    assert_eq!(other_users, [&expected[..], &["PUBACK 107", "PUBACK 207", "PUBACK 307 97"]].concat());
}

/// What a topic retains is not lost by that.
#[test]
fn a_retained_message_for_a_full_queue_is_not_queued() {
    let world = World::with(commands(Overflow::Reject));
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 1..=3 {
        publisher.send(&retained(QoS::AtLeastOnce, n, &format!("cmd/{n}"), "x"));
    }
    answered(&world, &mut publisher);
    let mut slow = connect("dev");
    slow.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let mut dev = world.joined(&slow, false);
    dev.send(&subscribe("cmd/#", QoS::AtLeastOnce));
    let heard = drain_after_suback(&world, &mut dev);
    assert_eq!(heard, ["cmd/1=x", "cmd/2=x"]);
    assert_eq!(world.broker.dropped().queue_full, 1);
}

fn drain_after_suback(world: &World, dev: &mut Client) -> Vec<String> {
    world.settle();
    let mut heard = dev.heard();
    assert_eq!(heard.remove(0), "SUBACK 1");
    let mut all: Vec<String> = Vec::new();
    for line in heard {
        let (rest, payload) = line.trim_end_matches(" retained").rsplit_once(' ').unwrap();
        dev.send(&puback(rest.rsplit_once('#').unwrap().1.parse().unwrap()));
        all.push(payload.to_owned());
    }
    world.settle();
    for line in dev.heard() {
        all.push(line.trim_end_matches(" retained").rsplit(' ').next().unwrap().to_owned());
    }
    all
}

/// Its topic is not in memory when its body is on disk; its bound counts all the same.
#[test]
fn what_another_member_is_handed_stays_under_its_bound() {
    let mut config = commands(Overflow::DropOldest);
    config.queue = limits(1, Overflow::DropOldest);
    config.queue_bounds[0].limits = limits(5, Overflow::DropOldest);
    let mut world = World::with(config);
    let mut short = connect("short");
    short.properties.session_expiry = Some(100);
    world.subscriber(&short, "$share/g/cmd/#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    for id in 1..=4 {
        publisher.send(&qos1(id, "cmd/a", &id.to_string()));
    }
    assert_eq!(answered(&world, &mut publisher).len(), 4);
    drop(publisher);
    sleeper(&world, "long", "$share/g/cmd/#");
    world.cut(1);
    world.pass(200_000);
    assert_eq!(world.broker.dropped().queue_full, 0);
    let mut long = world.joined(&connect("long"), true);
    assert_eq!(drain(&world, &mut long), ["cmd/a=1", "cmd/a=2", "cmd/a=3", "cmd/a=4"]);
}

/// What a message carries besides its topic and payload is kept and sent like them, and counts like them: asleep and online,
/// under the common bound, a topic's and a user's, and after a power cut.
#[test]
fn properties_count() {
    let (name, value) = ("n".repeat(20_000), "v".repeat(20_000));
    let carrying = |topic, packet_id| {
        let mut publish = publish(QoS::AtLeastOnce, packet_id, topic, "x");
        publish.properties.user = vec![(&name, &value)];
        publish.properties.response_topic = Some(&name);
        Packet::Publish(publish)
    };
    let two = QueueLimits { messages_max: 100, bytes_max: 150_000, overflow: Overflow::Reject };
    let other = limits(100, Overflow::Reject);
    let filter = || Some(TopicFilter::parse("a").unwrap());
    let user = || Some(NamePattern::parse("fleet").unwrap());
    let bound = |filter, user| vec![QueueBound { filter, client: None, user, limits: two }];
    for (queue, queue_bounds) in
        [(two, Vec::new()), (other, bound(filter(), None)), (other, bound(None, user()))]
    {
        let mut world = World::with(Config { queue, queue_bounds, inflight_max: 1, ..Config::default() });
        let dev = Connect { user_name: Some("fleet"), ..connect("dev") };
        world.subscriber(&dev, "a", QoS::AtLeastOnce).lose();
        let mut publisher = world.joined(&connect("pub"), false);
        for id in 1..=3 {
            publisher.send(&carrying("a", id));
        }
        assert_eq!(answered(&world, &mut publisher), ["PUBACK 1", "PUBACK 2", "PUBACK 3 97"]);
        let queued = world.broker.session_stats().queued_bytes;
        assert!((2 * 60_000..2 * 61_000).contains(&queued), "{queued}");
        drop(publisher);

        // The older one counts as in flight now.
        world.cut(1);
        let queued = world.broker.session_stats().queued_bytes;
        assert!((60_000..61_000).contains(&queued), "{queued}");
        let mut publisher = world.joined(&connect("pub"), true);
        let mut dev = world.joined(&dev, true);
        for id in 4..=5 {
            publisher.send(&carrying("a", id));
        }
        let heard = answered(&world, &mut publisher);
        assert_eq!(heard[heard.len() - 2..], ["PUBACK 4", "PUBACK 5 97"], "{queue:?}");
        assert_eq!(drain(&world, &mut dev), ["a=x", "a=x", "a=x"]);
        assert_eq!(world.broker.session_stats().queued_bytes, 0);
    }
}

/// Of a topic's value too.
#[test]
fn the_properties_of_a_retained_message_count() {
    let world = World::with(Config { retained_bytes_max: 100_000, ..Config::default() });
    let mut publisher = world.joined(&transient("pub"), false);
    let value = "v".repeat(60_000);
    for (id, topic) in [(1, "a"), (2, "b"), (3, "a")] {
        let mut publish = publish(QoS::AtLeastOnce, id, topic, "x");
        publish.retain = true;
        publish.properties.user = vec![("n", &value)];
        publisher.send(&Packet::Publish(publish));
    }
    let heard = answered(&world, &mut publisher);
    assert_eq!(heard, ["PUBACK 1", "PUBACK 2 97", "PUBACK 3"]);
    assert_eq!(world.broker.stats().retained_bytes, 1 + 1 + 1 + 60_000 + 32);
}
