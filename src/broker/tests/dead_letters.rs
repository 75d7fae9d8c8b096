//! What becomes of messages that somebody does not get, also after power cuts.

use super::{Client, World, connect, puback, publish, pubrec, qos0, qos1, qos2, subscribe, transient, v311};
use crate::{
    broker::{Config, DeadLetters, DeadReason, NamePattern, QueueBound, Reading},
    codec::{Packet, PublishProperties, QoS, Will},
    session::{Overflow, QueueLimits},
};

const NOTHING: [&str; 0] = [];

fn letters() -> DeadLetters {
    DeadLetters { enabled: true, ..DeadLetters::default() }
}

/// Two messages a queue of these clients, and one in flight.
fn small_for(client: &str, overflow: Overflow) -> Config {
    let limits = QueueLimits { messages_max: 2, bytes_max: 1 << 20, overflow };
    let bound = QueueBound { filter: None, client: NamePattern::parse(client), user: None, limits };
    let queue_bounds = vec![bound];
    Config { queue_bounds, inflight_max: 1, dead_letters: letters(), ..Config::default() }
}

fn small(overflow: Overflow) -> Config {
    small_for("dev*", overflow)
}

/// Large queues.
fn large() -> Config {
    Config { dead_letters: letters(), ..Config::default() }
}

/// The disk and the clock do what they have to; a second passes a few times.
fn seconds_pass(world: &World, seconds: u64) {
    for _ in 0..seconds {
        world.settle();
        world.pass(1_000);
    }
    world.settle();
}

/// All that comes, as `topic=payload`, with each message confirmed.
fn drain(world: &World, client: &mut Client) -> Vec<String> {
    let (mut all, mut quiet) = (Vec::new(), 0);
    while quiet < 3 {
        seconds_pass(world, 1);
        let heard = client.heard();
        quiet = if heard.is_empty() { quiet + 1 } else { 0 };
        for line in heard.iter().filter(|line| line.starts_with("PUBLISH")) {
            if let Some((_, rest)) = line.split_once('#').filter(|_| line.contains(" #")) {
                client.send(&puback(rest.split(' ').next().unwrap().parse().unwrap()));
            }
            all.push(line.rsplit(' ').next().unwrap().to_owned());
        }
    }
    all
}

fn post(world: &World) -> Client {
    world.subscriber(&transient("post"), "$dead/#", QoS::AtLeastOnce)
}

fn published(world: &World, publisher: &mut Client, topic: &str, payloads: &[&str]) {
    for payload in payloads {
        publisher.send(&qos1(9, topic, payload));
        world.settle();
        assert_eq!(publisher.heard(), ["PUBACK 9"]);
    }
}

#[test]
fn the_oldest_of_a_full_queue() {
    let world = World::with(small(Overflow::DropOldest));
    world.subscriber(&connect("dev/1"), "a/+", QoS::AtLeastOnce).lose();
    let mut post = post(&world);
    let mut publisher = world.joined(&transient("pub"), false);
    published(&world, &mut publisher, "a/b", &["1", "2", "3", "4"]);
    let expected = ["$dead/queue_full/dev%2F1/a/b=1", "$dead/queue_full/dev%2F1/a/b=2"];
    assert_eq!(drain(&world, &mut post), expected);
    let mut dev = world.joined(&connect("dev/1"), true);
    assert_eq!(drain(&world, &mut dev), ["a/b=3", "a/b=4"]);
}

/// The publisher's acknowledgement waits for the letter.
#[test]
fn the_newest_of_a_full_queue() {
    let mut world = World::with(small(Overflow::DropNewest));
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut post = world.joined(&connect("post"), false);
    post.send(&subscribe("$dead/#", QoS::AtLeastOnce));
    world.settle();
    post.lose();
    let mut publisher = world.joined(&transient("pub"), false);
    published(&world, &mut publisher, "a", &["1", "2"]);
    publisher.send(&qos1(9, "a", "3"));
    assert_eq!(publisher.heard(), NOTHING, "not before the letter is on disk");
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 9"]);
    drop(publisher);
    world.cut(1);
    let mut post = world.joined(&connect("post"), true);
    assert_eq!(drain(&world, &mut post), ["$dead/queue_full/dev/a=3"]);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev), ["a=1", "a=2"]);
}

#[test]
fn what_expires_undelivered() {
    let world = World::with(large());
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut post = post(&world);
    let mut publisher = world.joined(&transient("pub"), false);
    let mut packet = publish(QoS::AtLeastOnce, 1, "a", "1");
    packet.properties.message_expiry = Some(5);
    publisher.send(&Packet::Publish(packet));
    seconds_pass(&world, 6);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev), NOTHING);
    assert_eq!(drain(&world, &mut post), ["$dead/expired/dev/a=1"]);
}

/// Of any QoS, queued or not.
#[test]
fn what_is_too_large() {
    let world = World::with(large());
    let mut narrow = connect("dev");
    narrow.properties.packet_bytes_max = Some(60);
    let mut dev = world.joined(&narrow, false);
    dev.send(&subscribe("a", QoS::ExactlyOnce));
    world.settle();
    dev.heard();
    let mut post = post(&world);
    let mut publisher = world.joined(&transient("pub"), false);
    let large = "x".repeat(100);
    publisher.send(&qos0("a", &large));
    publisher.send(&qos1(1, "a", &large));
    publisher.send(&qos2(2, "a", &large));
    for _ in 0..3 {
        seconds_pass(&world, 1);
        assert_eq!(dev.heard(), NOTHING);
    }
    let expected = format!("$dead/too_large/dev/a={large}");
    assert_eq!(drain(&world, &mut post), [expected.as_str(); 3]);
    assert_eq!(dev.heard(), NOTHING);
    assert_eq!(world.broker.stats().dead_letters.iter().map(|(_, n)| n).sum::<u64>(), 3);
}

#[test]
fn what_an_ended_session_leaves() {
    let mut config = large();
    config.inflight_max = 1;
    let world = World::with(config);
    let mut post = post(&world);
    let mut publisher = world.joined(&transient("pub"), false);
    // Of each, one may have been sent and one was not.
    let mut closed = world.subscriber(&transient("closed"), "a", QoS::AtLeastOnce);
    let mut cleaned = world.subscriber(&connect("cleaned"), "a", QoS::AtLeastOnce);
    let mut expired = world.subscriber(&connect("expired"), "a", QoS::AtLeastOnce);
    published_by(&world, &mut publisher, &["1", "2"]);
    for client in [&mut closed, &mut cleaned, &mut expired] {
        assert_eq!(client.heard().len(), 1);
    }
    closed.lose();
    cleaned.lose();
    expired.lose();
    let expected = ["$dead/session_closed/closed/a=1", "$dead/session_closed/closed/a=2"];
    assert_eq!(drain(&world, &mut post), expected);
    let mut anew = connect("cleaned");
    anew.clean_start = true;
    world.joined(&anew, false).lose();
    let expected = ["$dead/session_cleaned/cleaned/a=1", "$dead/session_cleaned/cleaned/a=2"];
    assert_eq!(drain(&world, &mut post), expected);
    world.pass(3_600_000);
    let expected = ["$dead/session_expired/expired/a=1", "$dead/session_expired/expired/a=2"];
    assert_eq!(drain(&world, &mut post), expected);
}

/// Not waiting for the acknowledgement, which waits for the disk.
fn published_by(world: &World, publisher: &mut Client, payloads: &[&str]) {
    for payload in payloads {
        publisher.send(&qos1(9, "a", payload));
        seconds_pass(world, 1);
        publisher.heard();
    }
}

#[test]
fn what_no_member_is_left_for() {
    let world = World::with(large());
    let mut post = post(&world);
    let dev = world.subscriber(&connect("dev"), "$share/g/a", QoS::AtLeastOnce);
    dev.lose();
    let mut publisher = world.joined(&transient("pub"), false);
    published(&world, &mut publisher, "a", &["1"]);
    world.pass(3_600_000);
    assert_eq!(drain(&world, &mut post), ["$dead/no_member/dev/a=1"]);
}

/// A reason that is not asked for, a wildcard that does not name `$dead`, and nobody at all.
#[test]
fn there_are_only_those_that_are_wanted() {
    let mut config = small(Overflow::DropOldest);
    config.dead_letters.reasons = [DeadReason::Expired].into_iter().collect();
    for config in [config, Config { dead_letters: DeadLetters::default(), ..small(Overflow::DropOldest) }] {
        let world = World::with(config);
        world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
        let mut post = post(&world);
        let mut publisher = world.joined(&transient("pub"), false);
        published(&world, &mut publisher, "a", &["1", "2", "3", "4"]);
        assert_eq!(drain(&world, &mut post), NOTHING);
        assert_eq!(world.broker.dropped().queue_full, 2);
    }
    let mut world = World::with(small(Overflow::DropOldest));
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut all = world.subscriber(&transient("all"), "#", QoS::AtLeastOnce);
    let mut some = world.subscriber(&transient("some"), "+/queue_full/#", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    for payload in ["1", "2", "3", "4"] {
        publisher.send(&qos1(9, "a", payload));
        world.settle();
    }
    assert_eq!(drain(&world, &mut all), ["a=1", "a=2", "a=3", "a=4"]);
    assert_eq!(some.heard(), NOTHING);
    assert!(world.broker.stats().dead_letters.iter().all(|(_, sent)| *sent == 0));
    drop((all, some, publisher));
    world.cut(1);
    let mut post = post(&world);
    assert_eq!(drain(&world, &mut post), NOTHING);
}

#[test]
fn nobody_else_publishes_there() {
    let world = World::with(Config::default());
    let mut post = post(&world);
    let mut publisher = world.joined(&connect("pub"), false);
    publisher.send(&qos1(1, "$dead/queue_full/dev/a", "forged"));
    publisher.send(&qos2(2, "$dead", "forged"));
    publisher.send(&qos1(3, "$deadly", "another topic"));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1 87", "PUBREC 2 87", "PUBACK 3"]);
    publisher.send(&qos0("$dead/x", "forged"));
    assert_eq!(publisher.heard(), ["DISCONNECT 87"]);
    let mut older = world.joined(&v311("older"), false);
    older.send(&qos1(1, "$dead/x", "forged"));
    assert_eq!(older.heard(), NOTHING);
    assert!(older.closing);
    let mut dying = transient("dying");
    let properties = PublishProperties::default();
    let (topic, payload) = ("$dead/x", &b"w"[..]);
    dying.will = Some(Will { qos: QoS::AtMostOnce, retain: false, topic, payload, properties, delay: None });
    assert_eq!(world.refused(&dying), ["CONNACK 0 87"]);
    assert_eq!(post.heard(), NOTHING);
}

/// A letter that is not delivered itself makes none, whatever its reason.
#[test]
fn there_is_no_loop() {
    let mut world = World::with(small_for("*", Overflow::DropOldest));
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    world.subscriber(&connect("post"), "$dead/#", QoS::AtLeastOnce).lose();
    let mut narrow = transient("narrow");
    narrow.properties.packet_bytes_max = Some(20);
    let mut narrow = world.joined(&narrow, false);
    narrow.send(&subscribe("$dead/#", QoS::AtLeastOnce));
    world.settle();
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 0..200 {
        publisher.send(&qos1(9, "a", &n.to_string()));
        seconds_pass(&world, 1);
    }
    // Those that were pushed out themselves are looked at too.
    seconds_pass(&world, 3);
    let stats = world.broker.stats();
    let sent: u64 = stats.dead_letters.iter().map(|(_, sent)| *sent).sum();
    assert_eq!(sent, 198, "{stats:?}");
    assert_eq!(stats.dead_letters_waiting, 0);
    drop((narrow, publisher));
    world.cut(7);
    world.pass(3_600_000);
    seconds_pass(&world, 5);
    let sent: u64 = world.broker.stats().dead_letters.iter().map(|(_, sent)| *sent).sum();
    assert_eq!(sent, 0, "those of the sessions that expired together were for nobody");
}

/// What is given up at once, as when a session expires, waits on disk, and nobody publishes more meanwhile.
#[test]
fn a_flood_is_bounded() {
    const MESSAGES: usize = 12_000;
    let world = World::with(large());
    let mut short = connect("dev");
    short.properties.session_expiry = Some(60);
    world.subscriber(&short, "a", QoS::AtLeastOnce).lose();
    let mut next = connect("next");
    next.properties.session_expiry = Some(60);
    world.subscriber(&next, "b", QoS::AtLeastOnce).lose();
    world.subscriber(&connect("post"), "$dead/#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send(&qos1(9, "b", "late"));
    for n in 0..MESSAGES {
        publisher.send(&qos1(9, "a", &n.to_string()));
        if n % 500 == 0 {
            world.settle();
            publisher.heard();
        }
    }
    world.settle();
    publisher.heard();
    world.pass(60_000);
    let waiting = world.broker.stats().dead_letters_waiting;
    assert_eq!(
        waiting, MESSAGES as u64,
        "their messages are on disk; the other session is not looked at yet"
    );
    publisher.send(&qos1(9, "c", "waits"));
    assert_eq!(publisher.reading, Reading::Pause);
    assert_eq!(publisher.heard(), NOTHING);
    seconds_pass(&world, 60);
    assert_eq!(world.broker.stats().dead_letters_waiting, 0);
    assert!(
        publisher.connection.as_ref().unwrap().may_read() || {
            publisher.heard();
            publisher.connection.as_ref().unwrap().may_read()
        }
    );
    let mut post = world.joined(&connect("post"), true);
    let all = drain(&world, &mut post);
    assert_eq!(all.len(), MESSAGES + 1);
    assert_eq!(all.first().unwrap(), "$dead/session_expired/dev/a=0");
    assert_eq!(all.last().unwrap(), "$dead/session_expired/next/b=late");
}

/// What was acknowledged is in its queue, or there is a letter of it: whatever the disk was doing when the power went.
#[test]
fn no_power_cut_takes_a_letter() {
    let (mut letters_found, mut twice) = (0, 0);
    for operations in 0..60 {
        for seed in [1, 2, 3] {
            let mut world = World::with(small(Overflow::DropOldest));
            world.subscriber(&connect("dev"), "a", QoS::ExactlyOnce).lose();
            world.subscriber(&connect("post"), "$dead/#", QoS::AtLeastOnce).lose();
            let mut publisher = world.joined(&transient("pub"), false);
            published(&world, &mut publisher, "a", &["01", "02", "03"]);
            world.disk.fail_after(operations);
            let mut acknowledged = vec!["01".to_owned(), "02".to_owned(), "03".to_owned()];
            for n in 4..12 {
                let payload = format!("{n:02}");
                let packet = if n % 2 == 0 { qos1(9, "a", &payload) } else { qos2(100 + n, "a", &payload) };
                publisher.send(&packet);
                world.pass(300);
                world.settle();
                if publisher
                    .heard()
                    .iter()
                    .any(|line| line == "PUBACK 9" || line == &format!("PUBREC {}", 100 + n))
                {
                    acknowledged.push(payload);
                }
            }
            drop(publisher);
            world.cut(seed * 1_000 + operations);
            seconds_pass(&world, 3);
            // Again, before anybody has looked.
            world.cut(seed);
            seconds_pass(&world, 3);
            let mut post = world.joined(&connect("post"), true);
            let letters = drain(&world, &mut post);
            let mut dev = world.joined(&connect("dev"), true);
            let queued = drain_exactly_once(&world, &mut dev);
            for payload in &acknowledged {
                let letter = format!("$dead/queue_full/dev/a={payload}");
                let found = letters.iter().filter(|found| **found == letter).count();
                let kept = queued.iter().filter(|found| *found == payload).count();
                assert!(found + kept > 0, "{payload} is lost, {operations} {seed}: {letters:?} {queued:?}");
                letters_found += found;
                twice += usize::from(found + kept > 1);
            }
        }
    }
    assert!(letters_found > 200, "{letters_found}");
    println!(
        "{letters_found} letters, {twice} of messages that came twice, as letter and letter or letter and message"
    );
}

/// The payloads that come, each exchange completed.
fn drain_exactly_once(world: &World, client: &mut Client) -> Vec<String> {
    let (mut all, mut quiet) = (Vec::new(), 0);
    while quiet < 3 {
        seconds_pass(world, 1);
        let heard = client.heard();
        quiet = if heard.is_empty() { quiet + 1 } else { 0 };
        for line in heard {
            let id = || line.split(['#', ' ']).find_map(|word| word.parse().ok()).unwrap();
            if line.starts_with("PUBREL") {
                client.send(&super::pubcomp(id()));
            } else if line.contains(" q2 ") {
                client.send(&pubrec(id()));
                all.push(line.rsplit('=').next().unwrap().to_owned());
            } else if line.contains(" q1 ") {
                client.send(&puback(id()));
                all.push(line.rsplit('=').next().unwrap().to_owned());
            }
        }
    }
    all
}
