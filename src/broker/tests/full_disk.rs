//! A disk that is full: what would grow is refused, what makes room goes on, nothing acknowledged is lost, and no write
//! ever fails for want of room: the simulated disk fails like a real one beyond its capacity.

use super::{
    Client, World, connect, puback, publish, qos0, qos1, qos2, retained, subscribe, transient, v311, willing,
};
use crate::{
    broker::{Config, DeadLetters, Reading, Strained},
    codec::{Packet, Publish, PublishProperties, QoS},
    store::{self, medium::sim::SimDisk},
};

const NOTHING: [&str; 0] = [];
const MIB: u64 = 1 << 20;
const CAPACITY_BYTES: u64 = 16 * MIB;
/// Four of them are the reserve.
const GENERATION_BYTES: u64 = MIB / 2;

fn world() -> World {
    let disk = SimDisk::new();
    disk.set_capacity(CAPACITY_BYTES);
    let store = store::Config { generation_bytes: GENERATION_BYTES, ..store::Config::default() };
    World::on(disk, Config::default(), store)
}

/// A payload whose number can be told.
fn payload(n: usize, bytes: usize) -> String {
    format!("{n:05} {}", "x".repeat(bytes))
}

/// Publishes a message of so many bytes; what the answer is.
fn answer(world: &World, publisher: &mut Client, n: usize, bytes: usize) -> Vec<String> {
    let id = u16::try_from(n % 60_000 + 1).unwrap();
    publisher.send(&qos1(id, "a", &payload(n, bytes)));
    world.settle();
    let heard = publisher.heard();
    heard.iter().map(|line| line.replace(&format!("PUBACK {id}"), "PUBACK")).collect()
}

/// Publishes until it is refused. How many were acknowledged.
fn fill(world: &World, publisher: &mut Client, bytes: usize) -> usize {
    for n in 0..100_000 {
        match answer(world, publisher, n, bytes).as_slice() {
            [answer] if answer == "PUBACK" => {}
            [answer] if answer == "PUBACK 97" => return n,
            other => panic!("{other:?}"),
        }
    }
    panic!("never full: {} bytes", world.disk.used_bytes());
}

/// Takes and confirms what waits, at most so many. The numbers of the messages.
fn drain(world: &World, client: &mut Client, messages_max: usize) -> Vec<usize> {
    let (mut all, mut quiet) = (Vec::new(), 0);
    while quiet < 3 && all.len() < messages_max {
        world.pass(1_000);
        world.settle();
        let heard = client.heard();
        quiet = if heard.is_empty() { quiet + 1 } else { 0 };
        for line in heard {
            let (before, rest) = line.split_once('=').expect("a message");
            let (id, _topic) = before.split_once('#').unwrap().1.split_once(' ').unwrap();
            client.send(&puback(id.parse().unwrap()));
            all.push(rest[..5].parse().unwrap());
        }
    }
    world.pass(1_000);
    world.settle();
    all
}

/// Each message of a read is taken or refused by itself.
#[test]
fn a_read_of_many_messages_is_taken_as_far_as_there_is_room() {
    let world = world();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    let (mut taken, mut from, mut is_refused) = (Vec::new(), 0, false);
    while !is_refused {
        let payloads: Vec<_> = (from..from + 60).map(|n| payload(n, 4_000)).collect();
        let read: Vec<_> = (1..).zip(&payloads).map(|(id, payload)| qos1(id, "a", payload)).collect();
        publisher.send_together(&read);
        world.settle();
        let heard = publisher.heard();
        assert_eq!(heard.len(), read.len());
        for (n, line) in (from..).zip(heard) {
            let (id, refused) = (n - from + 1, line.ends_with(" 97"));
            assert!(refused || line == format!("PUBACK {id}"), "{line}");
            taken.extend((!refused).then_some(n));
            is_refused |= refused;
        }
        from += read.len();
    }
    assert!(is_full(&world));
    let used_bytes = world.disk.used_bytes();
    assert!((12 * MIB..14 * MIB).contains(&used_bytes), "{used_bytes}");
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev, usize::MAX), taken);
}

/// What a watcher of the store sees.
fn is_full(world: &World) -> bool {
    let stats = world.broker.stats().store;
    assert!(!stats.is_poisoned);
    assert_eq!(world.broker.unready(), [], "it keeps all it promises");
    assert_eq!(world.broker.strained() == [Strained::DiskFull], stats.is_full);
    stats.is_full
}

#[test]
fn a_full_disk_takes_no_more_until_there_is_room() {
    let mut world = world();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    let taken = fill(&world, &mut publisher, 4_000);
    assert!(is_full(&world));
    let used_bytes = world.disk.used_bytes();
    // The reserve of 2 MiB, and 1 MiB so as not to come near it.
    assert!((12 * MIB..14 * MIB).contains(&used_bytes), "{used_bytes}");
    let mut live = world.subscriber(&transient("live"), "#", QoS::AtMostOnce);
    assert_eq!(answer(&world, &mut publisher, taken, 1), ["PUBACK 97"]);
    assert_eq!(live.heard(), NOTHING, "refused for everybody");
    publisher.send(&qos0("a", "live"));
    publisher.send(&qos1(60_001, "nobody", "needs no disk"));
    publisher.send(&retained(QoS::AtLeastOnce, 60_002, "r", "x"));
    assert_eq!(live.heard(), ["PUBLISH q0 a=live", "PUBLISH q0 nobody=needs no disk"]);
    assert_eq!(publisher.heard(), ["PUBACK 60001", "PUBACK 60002 97"]);
    assert_eq!(world.broker.stats().refused_disk_full, 3);
    drop((live, publisher));

    // It knows before it has written anything, and comes up all the same.
    world.cut(1);
    assert!(is_full(&world));
    let mut publisher = world.joined(&transient("pub"), false);
    assert_eq!(answer(&world, &mut publisher, taken, 1), ["PUBACK 97"]);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev, usize::MAX), (0..taken).collect::<Vec<_>>());
    assert!(!is_full(&world));
    dev.lose();
    let more = fill(&world, &mut publisher, 4_000);
    assert!(more > taken * 9 / 10, "{more} after {taken}: the space has come back");
    drop(publisher);
    world.cut(2);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev, usize::MAX), (0..more).collect::<Vec<_>>());
    assert!(!is_full(&world));
}

/// What one message more costs is a confirmation more; all of them have to fit into the reserve, or into what they free.
#[test]
fn the_confirmations_of_many_small_messages_find_room() {
    let mut world = world();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    let taken = fill(&world, &mut publisher, 600);
    assert!(taken > 15_000, "{taken}");
    let mut dev = world.joined(&connect("dev"), true);
    let (mut got, mut cuts) = (0, 0);
    while got < taken {
        let some = drain(&world, &mut dev, 2_000);
        assert_eq!(some.first(), Some(&got));
        got += some.len();
        is_full(&world);
        // Now and then in the middle of it.
        if got > (cuts + 1) * taken / 4 {
            cuts += 1;
            drop(dev);
            world.cut(u64::try_from(cuts).unwrap());
            dev = world.joined(&connect("dev"), true);
            // What was confirmed is on disk by now.
        }
    }
    assert!(cuts >= 2);
    assert!(!is_full(&world));
}

/// What is dead stands between what is alive: all of it has to be copied to come by the room.
#[test]
fn space_comes_back_from_between_what_is_kept() {
    let mut world = world();
    world.subscriber(&connect("stays"), "stays", QoS::AtLeastOnce).lose();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    let mut n = 0;
    let kept = loop {
        publisher.send(&qos1(1, "stays", &payload(n, 9_000)));
        world.settle();
        if publisher.heard() == ["PUBACK 1 97"] || answer(&world, &mut publisher, n, 1_000) == ["PUBACK 97"] {
            break n;
        }
        n += 1;
    };
    assert!(is_full(&world));
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev, usize::MAX), (0..kept).collect::<Vec<_>>());
    for _ in 0..50 {
        world.pass(1_000);
        world.settle();
    }
    assert!(!is_full(&world), "{:?}", world.broker.stats().store);
    assert_eq!(
        answer(&world, &mut publisher, 0, 1_000),
        NOTHING,
        "sent to the subscriber, who has not confirmed it"
    );
    drop((dev, publisher));
    world.cut(3);
    let slot = crate::sync::lock(&world.broker.registry).by_client_id("stays").unwrap();
    let (waiting, _) = slot.state().session.outbound.waiting();
    let in_flight = slot.state().session.outbound.in_flight();
    assert!((kept..=kept + 1).contains(&(waiting + in_flight)), "{waiting} and {in_flight} of {kept}");
}

/// Others fill the disk too, and empty it: nobody has to write anything for that to be noticed.
#[test]
fn what_others_take_is_noticed() {
    let world = world();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    assert_eq!(answer(&world, &mut publisher, 0, 10), ["PUBACK"]);
    world.disk.set_capacity(MIB);
    world.pass(1_000);
    world.settle();
    assert_eq!(answer(&world, &mut publisher, 1, 10), ["PUBACK 97"]);
    world.disk.set_capacity(CAPACITY_BYTES);
    world.pass(1_000);
    world.settle();
    assert_eq!(answer(&world, &mut publisher, 1, 10), ["PUBACK"]);
}

/// A message that is larger than the room there is, however much that is for others.
#[test]
fn what_does_not_fit_is_refused_by_its_size() {
    let world =
        World::on(SimDisk::new(), Config { packet_bytes_max: 1 << 28, ..Config::default() }, world().store);
    world.disk.set_capacity(CAPACITY_BYTES);
    world.pass(1_000);
    world.settle();
    world.subscriber(&connect("dev"), "#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    let huge = payload(0, 20 << 20);
    publisher.send(&qos1(1, "a", &huge));
    // The payload is not all there is to a message.
    let user = vec![("key", huge.get(..60_000).unwrap()); 300];
    let properties = PublishProperties { user, ..PublishProperties::default() };
    publisher.send(&Packet::Publish(Publish { properties, ..publish(QoS::AtLeastOnce, 2, "a", "x") }));
    publisher.send(&qos1(3, "a", "x"));
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1 97", "PUBACK 2 97", "PUBACK 3"]);
    assert!(!is_full(&world));
}

#[test]
fn what_grows_otherwise_is_refused_too() {
    let world = world();
    let mut dev = world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce);
    let mut publisher = world.joined(&connect("pub"), false);
    dev.lose();
    fill(&world, &mut publisher, 4_000);
    assert_eq!(world.refused(&connect("new")), ["CONNACK 0 97"]);
    assert_eq!(world.refused(&v311("new")), ["CONNACK 0 88"]);
    // In the place of the one it had, and what asks nothing of the disk.
    let mut anew = connect("pub");
    anew.clean_start = true;
    drop(publisher);
    publisher = world.joined(&anew, false);
    let mut passing = world.joined(&transient("passing"), false);
    passing.send(&subscribe("b", QoS::AtMostOnce));
    world.settle();
    assert_eq!(passing.heard(), ["SUBACK 0"]);
    publisher.send(&subscribe("b", QoS::AtMostOnce));
    publisher.send(&qos2(7, "b", "its id would be stored"));
    world.settle();
    assert_eq!(publisher.heard(), ["SUBACK 97", "PUBREC 7 97"]);
    dev = world.joined(&connect("dev"), true);
    dev.send(&subscribe("a", QoS::AtLeastOnce));
    world.settle();
    assert!(dev.heard().iter().any(|line| line == "SUBACK 1"), "the one it has");
}

/// QoS 0 and wills: who is there, or needs no disk, gets them.
#[test]
fn who_cannot_be_told_is_not_refused() {
    let mut world = world();
    world.subscriber(&connect("dev"), "#", QoS::AtLeastOnce).lose();
    let mut live = world.subscriber(&transient("live"), "+", QoS::AtLeastOnce);
    let mut controller = world.subscriber(&connect("controller"), "will", QoS::AtLeastOnce);
    let dying = willing(transient("dying"), "will", QoS::AtLeastOnce, true);
    let dying = world.joined(&dying, false);
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 0.. {
        publisher.send(&qos1(1, "a/b", &payload(n, 4_000)));
        world.settle();
        if publisher.heard() == ["PUBACK 1 97"] {
            break;
        }
    }
    publisher.send(&retained(QoS::AtMostOnce, 0, "r", "0"));
    dying.lose();
    assert_eq!(live.heard(), ["PUBLISH q0 r=0", "PUBLISH q1 #1 will=w"]);
    assert_eq!(controller.heard(), ["PUBLISH q1 #1 will=w"], "it is there");
    let dropped = world.broker.dropped();
    assert_eq!((dropped.disk_full, dropped.not_retained), (1, 2), "the will, for the sleeper");
    drop((live, publisher, controller));
    world.cut(3);
    let mut late = world.joined(&transient("late"), false);
    late.send(&subscribe("+", QoS::AtMostOnce));
    world.settle();
    assert_eq!(late.heard(), ["SUBACK 0"], "nothing was retained");
}

/// A will that is QoS 2 finds no room: it is sent from memory when its session is rid of it on disk. A crash leaves it there,
/// and nobody has heard of it; or it is gone.
#[test]
fn a_will_from_memory_comes_exactly_once_across_a_power_cut() {
    for is_written in [false, true] {
        let mut world = world();
        world.subscriber(&connect("sleeper"), "a", QoS::AtLeastOnce).lose();
        let mut controller = world.subscriber(&connect("controller"), "will", QoS::ExactlyOnce);
        let dying = willing(connect("dying"), "will", QoS::ExactlyOnce, false);
        let dying = world.joined(&dying, false);
        let mut publisher = world.joined(&transient("pub"), false);
        fill(&world, &mut publisher, 4_000);
        dying.lose();
        assert_eq!(controller.heard(), NOTHING, "a crash would publish it again");
        if is_written {
            world.settle();
            assert_eq!(controller.heard(), ["PUBLISH q2 #1 will=w"]);
        }
        drop((controller, publisher));
        world.cut(3);
        let mut controller = world.joined(&connect("controller"), true);
        world.pass(10_000);
        world.settle();
        let heard = controller.heard();
        assert_eq!(heard.len(), usize::from(!is_written), "{heard:?}");
    }
}

/// A device that subscribes again at each wake gets what is retained all the same.
#[test]
fn retained_messages_are_sent_from_memory() {
    let world = world();
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send(&retained(QoS::AtLeastOnce, 9, "a/r", "kept"));
    let mut dev = world.joined(&connect("dev"), false);
    dev.send(&subscribe("a/+", QoS::AtLeastOnce));
    world.settle();
    assert_eq!(dev.heard(), ["SUBACK 1", "PUBLISH q1 #1 a/r=kept retained"]);
    dev.send(&puback(1));
    dev.lose();
    for n in 0.. {
        publisher.send(&qos1(1, "a/b", &payload(n, 4_000)));
        world.settle();
        if publisher.heard().last().is_some_and(|line| line == "PUBACK 1 97") {
            break;
        }
    }
    let mut dev = world.joined(&connect("dev"), true);
    dev.send(&subscribe("a/r", QoS::AtLeastOnce));
    dev.send(&subscribe("a/+", QoS::AtLeastOnce));
    let mut all = Vec::new();
    for _ in 0..1_000 {
        world.pass(1_000);
        world.settle();
        for line in dev.heard() {
            if let Some((before, _)) = line.split_once(" a/") {
                dev.send(&puback(before.rsplit_once('#').unwrap().1.parse().unwrap()));
            }
            all.push(line);
        }
        if all.last().is_some_and(|last| last.ends_with("a/r=kept retained")) {
            break;
        }
    }
    assert_eq!(all.last().unwrap().rsplit(' ').nth(1), Some("a/r=kept"), "behind {} packets", all.len());
    let answers: Vec<_> = all.iter().filter(|line| line.starts_with("SUBACK")).collect();
    assert_eq!(answers, ["SUBACK 97", "SUBACK 1"], "a new one, and the one it has");
}

/// A member that needs no disk takes it from one that does.
#[test]
fn a_shared_subscription_goes_to_who_needs_no_disk() {
    let world = world();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    let mut stored = world.subscriber(&connect("stored"), "$share/g/s", QoS::AtLeastOnce);
    let mut live = world.subscriber(&transient("live"), "$share/g/s", QoS::AtLeastOnce);
    let mut publisher = world.joined(&transient("pub"), false);
    fill(&world, &mut publisher, 4_000);
    for n in 1..=4 {
        publisher.send(&qos1(n, "s", "x"));
    }
    world.settle();
    assert_eq!(publisher.heard(), ["PUBACK 1", "PUBACK 2", "PUBACK 3", "PUBACK 4"]);
    assert_eq!((live.heard().len(), stored.heard().len()), (4, 0));
}

/// One that writes dead letters, and keeps a reserve for what makes room.
fn world_with_letters() -> World {
    let disk = SimDisk::new();
    disk.set_capacity(CAPACITY_BYTES);
    let disk_reserve_bytes = Some(4 * GENERATION_BYTES);
    let store =
        store::Config { generation_bytes: GENERATION_BYTES, disk_reserve_bytes, ..store::Config::default() };
    let dead_letters = DeadLetters { enabled: true, ..DeadLetters::default() };
    World::on(disk, Config { dead_letters, ..Config::default() }, store)
}

/// Letters wait for a disk without room even for them; what clients confirm makes some, and does not wait for letters.
#[test]
fn letters_that_find_no_room_hold_nobody_up() {
    const LETTERS: usize = 10_500;
    let world = world_with_letters();
    let mut short = connect("short");
    short.properties.session_expiry = Some(60);
    world.subscriber(&short, "dies", QoS::AtLeastOnce).lose();
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    world.subscriber(&connect("post"), "$dead/#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    for n in 0..3 {
        assert_eq!(answer(&world, &mut publisher, n, 100), ["PUBACK"]);
    }
    for n in 0..LETTERS {
        publisher.send(&qos1(9, "dies", "x"));
        if n % 500 == 0 {
            world.settle();
            publisher.heard();
        }
    }
    world.settle();
    publisher.heard();
    // Less than half of the reserve.
    world.disk.set_capacity(world.disk.used_bytes() + MIB * 9 / 10);
    world.pass(1_000);
    world.settle();
    world.pass(60_000);
    world.settle();
    assert_eq!(world.broker.stats().dead_letters_waiting, LETTERS as u64);
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev, usize::MAX), [0, 1, 2]);
    assert_eq!(dev.reading, Reading::Continue);
    assert_eq!(world.broker.stats().dead_letters_waiting, LETTERS as u64);
    world.disk.set_capacity(CAPACITY_BYTES);
    for _ in 0..100 {
        world.pass(1_000);
        world.settle();
    }
    assert_eq!(world.broker.stats().dead_letters_waiting, 0);
    assert!(!is_full(&world));
}

/// The disk has one body for all who wait for a message; each of their letters has its own.
#[test]
fn the_letters_of_one_message_do_not_come_all_at_once() {
    const SESSIONS: usize = 40;
    let world = world_with_letters();
    let names: Vec<_> = (0..SESSIONS).map(|n| format!("short{n}")).collect();
    for name in &names {
        let mut short = connect(name);
        short.properties.session_expiry = Some(60);
        world.subscriber(&short, "dies", QoS::AtLeastOnce).lose();
    }
    world.subscriber(&connect("dev"), "a", QoS::AtLeastOnce).lose();
    world.subscriber(&connect("post"), "$dead/#", QoS::AtLeastOnce).lose();
    let mut publisher = world.joined(&transient("pub"), false);
    publisher.send(&qos1(9, "dies", &payload(0, 200_000)));
    world.settle();
    publisher.heard();
    let filled = fill(&world, &mut publisher, 4_000);
    world.pass(60_000);
    world.settle();
    for _ in 0..100 {
        world.pass(1_000);
        world.settle();
    }
    assert!(!world.broker.journal.poisoned());
    let waiting = world.broker.stats().dead_letters_waiting;
    assert!((1..SESSIONS as u64).contains(&waiting), "{waiting} of them wait for room");
    let mut dev = world.joined(&connect("dev"), true);
    assert_eq!(drain(&world, &mut dev, usize::MAX).len(), filled);
    for _ in 0..100 {
        world.pass(1_000);
        world.settle();
    }
    let mut post = world.joined(&connect("post"), true);
    assert_eq!(drain(&world, &mut post, usize::MAX), vec![0; SESSIONS]);
}
