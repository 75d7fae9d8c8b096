//! Disks that fail and clocks that lie, under the real binary.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dormouse::codec::{Packet, PacketId, Publish, PublishProperties, QoS, Version};

use super::{
    chance::Chance,
    disk::{Disk, Field},
    model::Image,
    session::{self, Kept, Start},
};
use crate::crash::{
    ledger::{Event, Ledger, now_ns},
    process::Process,
    subscriber::Subscriber,
    wire::Wire,
};

const EIO: u64 = 5;
const EROFS: u64 = 30;
const PUBLISHER: &str = "publisher";
const SLEEPER: &str = "sleeper";
/// Acknowledged before the fault.
const MESSAGES_BEFORE: usize = 50;
const MESSAGES_MAX: u64 = 5_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// A sleeper that is awake until it has what it waits for.
fn wake(broker: &Process, ledger: &Arc<Ledger>, done: impl Fn(&Ledger) -> bool) -> bool {
    let stop = Arc::default();
    let subscriber = Subscriber {
        name: SLEEPER,
        version: Version::V5,
        qos: QoS::AtLeastOnce,
        filter: "load/#",
        nap_every: 0,
        address: Arc::new(Mutex::new(broker.address)),
        ledger: Arc::clone(ledger),
        stop: Arc::clone(&stop),
    };
    let thread = thread::spawn(move || subscriber.run());
    let until = Instant::now() + PATIENCE;
    while !done(ledger) && Instant::now() < until {
        thread::park_timeout(Duration::from_millis(2));
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    thread.join().unwrap();
    done(ledger)
}

fn message(payload: &str, number: Option<u64>) -> Packet<'_> {
    let properties = PublishProperties { message_expiry: Some(3_600), ..PublishProperties::default() };
    Packet::Publish(Publish {
        dup: false,
        qos: if number.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: false,
        topic: if number.is_some() { "load/x" } else { "aside" },
        packet_id: number.and_then(|number| PacketId::new(u16::try_from(number).unwrap())),
        properties,
        payload: payload.as_bytes(),
    })
}

/// Publishes until `done` or refused; true if refused.
fn publish(broker: &Process, ledger: &Ledger, done: impl Fn() -> bool) -> bool {
    let mut wire = Wire::connect(broker.address, Version::V5).unwrap();
    session::connect(&mut wire, PUBLISHER, Start::Clean, Kept::No, None).unwrap();
    let sent = u64::try_from(ledger.published(PUBLISHER).len()).unwrap();
    let mut refused = false;
    for number in sent + 1..MESSAGES_MAX {
        ledger.enter(Event::Sent { name: (PUBLISHER.to_owned(), number) });
        let payload = format!("{PUBLISHER} {number} {}", "x".repeat(1_000));
        if wire.send(&[message(&payload, Some(number))]).is_err() {
            return true;
        }
        let received = wire.receive(|packet| {
            match packet {
                Packet::Puback(ack) if ack.reason.is_error() => refused = true,
                Packet::Disconnect(goodbye) if goodbye.reason.is_error() => refused = true,
                Packet::Puback(ack) => {
                    assert!(!refused, "a positive answer after a negative one");
                    let name = (PUBLISHER.to_owned(), u64::from(ack.packet_id.get()));
                    ledger.enter(Event::Acknowledged { name });
                }
                other => panic!("{other:?}"),
            }
            ControlFlow::Continue(())
        });
        if refused || received.is_err() {
            return true;
        }
        if done() {
            return false;
        }
    }
    panic!("{MESSAGES_MAX} messages, and nothing was refused")
}

/// The store fails while messages are published: from then on nothing is promised, what needs no disk goes on, and
/// after a power cut everything is there that was promised before.
fn survives(fail: impl Fn(&Disk)) {
    let disk = Disk::holding(&Image::new());
    let mut broker = disk.start(false).unwrap();
    let ledger = Arc::new(Ledger::default());
    assert!(wake(&broker, &ledger, |ledger| ledger.is_subscribed(SLEEPER)));
    let mut live = Wire::connect(broker.address, Version::V5).unwrap();
    session::connect(&mut live, "live", Start::Clean, Kept::No, None).unwrap();
    live.send(&[session::subscribe("aside")]).unwrap();

    assert!(!publish(&broker, &ledger, || ledger.acknowledged() >= MESSAGES_BEFORE), "refused too early");
    fail(&disk);
    assert!(publish(&broker, &ledger, || false), "not refused");
    let acknowledged = ledger.acknowledged();
    assert!(publish(&broker, &ledger, || false), "not refused on a new connection");
    assert_eq!(ledger.acknowledged(), acknowledged);

    let mut other = Wire::connect(broker.address, Version::V5).unwrap();
    session::connect(&mut other, "other", Start::Clean, Kept::No, None).unwrap();
    other.send(&[message("on", None)]).unwrap();
    let came = |packet: &Packet<'_>| matches!(packet, Packet::Publish(p) if p.payload == b"on").then_some(());
    session::wait(&mut live, came).expect("QoS 0 goes on");
    assert!(broker.is_running(), "{}", broker.log());

    let (mut model, records) = disk.end(broker);
    for record in &records {
        model.play(record);
    }
    for seed in 1..=5 {
        let disk = Disk::holding(&model.after_a_cut(&mut Chance::new(seed)));
        let broker = disk.start_plain(false).unwrap();
        let ledger = Arc::new(ledger.before(now_ns()));
        wake(&broker, &ledger, |ledger| ledger.is_complete(SLEEPER));
        let verdict = ledger.verdict(&[SLEEPER], |_, _| false);
        assert!(verdict.is_clean(), "seed {seed}: {verdict}\n{}", broker.log());
        assert!(!disk.log().contains("ERROR"), "{}", disk.log());
    }
}

#[test]
fn a_sync_that_fails_ends_all_promises_and_breaks_none() {
    survives(|disk| {
        disk.set(Field::FailSyncsErrno, EIO);
        disk.set(Field::FailSyncsTo, u64::MAX);
        disk.set(Field::FailSyncsFrom, disk.get(Field::Syncs) + 3);
    });
}

#[test]
fn a_single_write_that_fails_ends_all_promises_and_breaks_none() {
    survives(|disk| {
        let next = disk.get(Field::Changes) + 3;
        disk.set(Field::FailChangesErrno, EIO);
        disk.set(Field::FailChangesTo, next);
        disk.set(Field::FailChangesFrom, next);
    });
}

#[test]
fn a_disk_that_is_full_ends_all_promises_and_breaks_none() {
    survives(|disk| disk.set(Field::QuotaBytes, disk.get(Field::UsedBytes) + 30_000));
}

/// A filesystem that was mounted read-only after an error: the broker says so and ends, and changes nothing.
#[test]
fn a_read_only_filesystem_is_told() {
    let disk = Disk::holding(&Image::new());
    disk.start_plain(false).unwrap().kill();
    disk.set(Field::FailChangesErrno, EROFS);
    disk.set(Field::FailChangesTo, u64::MAX);
    disk.set(Field::FailChangesFrom, 1);
    let words = disk.start(false).err().expect("it cannot serve");
    let data = disk.root().join("data");
    let expected = format!(
        "dormouse: the data folder {} cannot be written to (Read-only file system (os error 30)): \
         check its owner, its mount and the space left",
        data.display()
    );
    assert!(words.contains(&expected), "{words}");
    assert!(!words.contains("set aside") && !data.join("damaged").exists(), "{words}");
    disk.start_plain(false).expect("it starts when the disk can be written to").kill();
}

/// What may not be changed can be looked at all the same: on a filesystem that an error has made read-only.
#[test]
fn a_store_on_a_read_only_filesystem_can_be_checked_and_exported() {
    let disk = Disk::holding(&Image::new());
    let ledger = Arc::new(Ledger::default());
    let mut broker = disk.start(false).unwrap();
    assert!(wake(&broker, &ledger, |ledger| ledger.is_subscribed(SLEEPER)));
    assert!(!publish(&broker, &ledger, || ledger.acknowledged() >= 5));
    broker.kill();
    disk.set(Field::FailChangesErrno, EROFS);
    disk.set(Field::FailChangesTo, u64::MAX);
    disk.set(Field::FailChangesFrom, 1);
    for command in ["check", "stats", "export"] {
        let output = disk.run(&["store", command]);
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}: {said}{wrong}");
        assert!(command != "export" || said.contains(SLEEPER), "{said}");
    }
}

/// A gateway without a battery boots in 1970, and learns the time later.
#[test]
fn a_boot_in_1970_and_a_jump_to_now_expire_nothing() {
    let ledger = Arc::new(Ledger::default());
    let disk = Disk::holding(&Image::new());
    let broker = disk.start(false).unwrap();
    assert!(wake(&broker, &ledger, |ledger| ledger.is_subscribed(SLEEPER)));
    assert!(!publish(&broker, &ledger, || ledger.acknowledged() >= 5));
    let (mut model, records) = disk.end(broker);
    for record in &records {
        model.play(record);
    }

    let disk = Disk::holding(&model.now());
    let since_1970 =
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    disk.set(Field::ClockOffsetMs, (-since_1970).cast_unsigned());
    let broker = disk.start(false).unwrap();
    assert!(!publish(&broker, &ledger, || ledger.acknowledged() >= 10));
    disk.set(Field::ClockOffsetMs, 0);
    assert!(!publish(&broker, &ledger, || ledger.acknowledged() >= 15));
    assert!(wake(&broker, &ledger, |ledger| ledger.is_complete(SLEEPER)), "{}", broker.log());
    let verdict = ledger.verdict(&[SLEEPER], |_, _| false);
    assert!(verdict.is_clean(), "{verdict}");
}
