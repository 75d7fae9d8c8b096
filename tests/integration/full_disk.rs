//! The real binary on a disk of 32 MB: filled, refused, restarted, drained, and in service again without anybody's help.
//!
//! The disk is a tmpfs, which takes root to mount. Where that is not allowed the journal is bounded by `max_disk_bytes`
//! instead, and the test says so.

use std::{
    fs::{self, OpenOptions, read_dir},
    io::Write as _,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::Command,
};

use dormouse::codec::{QoS, ReasonCode, Version};
use tempfile::TempDir;

use crate::{
    admin::http::get,
    harness::Broker,
    peer::{
        Peer,
        packets::{AckKind, Spec, connack, connect, puback, publish, pubrec, suback, subscribe},
    },
    transcripts::scene::BOTH,
};

const DISK_BYTES: u64 = 32 << 20;
/// A quarter of it.
const RESERVE_BYTES: u64 = 8 << 20;
/// More than fit.
const MESSAGES_MAX: usize = 3_000;

/// A folder on a disk of its own, if that can be had.
struct SmallDisk {
    folder: TempDir,
    is_mounted: bool,
}

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "dormouse-test"])
            .arg(folder.path())
            .output();
        let is_mounted = mount.as_ref().is_ok_and(|output| output.status.success());
        if !is_mounted {
            eprintln!(
                "NOT TESTED HERE: the reserve on a full file system. No tmpfs can be mounted ({mount:?});"
            );
            eprintln!("the journal is bounded by max_disk_bytes instead.");
        }
        Self { folder, is_mounted }
    }

    fn start(&self) -> Broker {
        let folder = tempfile::tempdir().unwrap();
        symlink(self.folder.path(), folder.path().join("data")).unwrap();
        let bound = if self.is_mounted { "" } else { "max_disk_bytes = \"32MiB\"\n" };
        let file = folder.path().join("dormouse.toml");
        fs::write(&file, format!("[store]\n{bound}")).unwrap();
        Broker::start_in(folder, &["--config", file.to_str().unwrap()])
    }

    /// What its files take.
    fn used_bytes(&self) -> u64 {
        bytes_in(self.folder.path())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            // The broker may be on its way out still.
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        }
    }
}

/// Files may go while they are looked at.
fn bytes_in(folder: &Path) -> u64 {
    let entries = read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

fn payload(n: usize) -> String {
    format!("{n:05}{}", "x".repeat(16 << 10))
}

/// Publishes one after the other, from this number on, until one is refused; its number.
async fn fill(publisher: &mut Peer, from: usize) -> usize {
    for n in from..MESSAGES_MAX {
        publisher.send(publish("a", payload(n)).qos1(1)).await;
        match publisher.receive().await {
            Spec::Ack(AckKind::Puback, 1, ReasonCode::Success) => {}
            Spec::Ack(AckKind::Puback, 1, ReasonCode::QuotaExceeded) => return n,
            other => panic!("{other:?}"),
        }
    }
    panic!("{MESSAGES_MAX} messages fit");
}

/// The same until nothing more can be had by compaction.
async fn fill_up(broker: &Broker, publisher: &mut Peer, from: usize) -> usize {
    let mut next = fill(publisher, from).await;
    loop {
        broker.a_second_and_a_half_passes().await;
        let before = next;
        next = fill(publisher, before).await;
        if next == before {
            return next;
        }
    }
}

/// Takes and confirms so many, in their order.
async fn drain(dev: &mut Peer, messages: usize) {
    for n in 0..messages {
        let message = dev.receive_publish().await;
        assert_eq!(&message.payload[..5], format!("{n:05}").as_bytes());
        dev.send(puback(message.packet_id)).await;
    }
    dev.expect_nothing_for_one_ping().await;
}

/// What is refused on the full disk, and what goes on.
async fn refused(broker: &Broker, version: Version) {
    let mut live = broker.client(version, connect("live")).await;
    live.subscribed("+", QoS::AtMostOnce).await;
    let mut other = broker.client(version, connect("other")).await;
    other.send(publish("a", "qos 0 goes on")).await;
    live.take(publish("a", "qos 0 goes on")).await;
    if version == Version::V5 {
        other.send(publish("a", "not kept").qos1(1)).await;
        let (received, said) = other.receive_saying().await;
        assert_eq!(received, puback(1).because(ReasonCode::QuotaExceeded));
        assert_eq!(said.as_deref(), Some("the disk is full"));
        other.send(publish("a", "not kept").qos2(2)).await;
        other.expect(pubrec(2).because(ReasonCode::QuotaExceeded)).await;
        other.send(publish("a", "not kept").qos1(3).retained()).await;
        other.expect(puback(3).because(ReasonCode::QuotaExceeded)).await;
    } else {
        other.send(publish("a", "not kept").qos1(1)).await;
        other.expect_closed().await;
    }
    live.expect_nothing_for_one_ping().await;
    let mut new = broker.peer(version).await;
    new.send(connect("new").persistent()).await;
    let no_room =
        if version == Version::V5 { ReasonCode::QuotaExceeded } else { ReasonCode::ServerUnavailable };
    new.expect(connack(no_room)).await;
    new.expect_closed().await;
    let mut old = broker.returning(version, connect("old").persistent()).await;
    old.send(subscribe(1, "b", QoS::AtMostOnce)).await;
    let no_room =
        if version == Version::V5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
    old.expect(suback(1, [no_room])).await;
    old.leave().await;
}

/// Publishes until it is taken again; without a restart, or anything else.
async fn resumed(broker: &Broker, publisher: &mut Peer, n: usize) -> bool {
    for _ in 0..10 {
        publisher.send(publish("a", payload(n)).qos1(1)).await;
        // Acknowledged when the subscriber has confirmed it, or when it is written.
        if publisher.receive().await == Spec::Ack(AckKind::Puback, 1, ReasonCode::Success) {
            return true;
        }
        broker.a_second_and_a_half_passes().await;
    }
    false
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    let disk = SmallDisk::new();
    let mut broker = disk.start();
    let mut admin = broker.admin();
    for version in BOTH {
        let mut old = broker.client(version, connect("old").persistent()).await;
        old.subscribed("elsewhere", QoS::AtMostOnce).await;
        old.leave().await;
        broker.sleeper(version, "dev", "a", QoS::AtLeastOnce).await;
        let mut publisher = broker.client(Version::V5, connect("publisher")).await;
        let taken = fill_up(&broker, &mut publisher, 0).await;
        let full_bytes = disk.used_bytes();
        assert!(taken > 700 && full_bytes <= DISK_BYTES - RESERVE_BYTES, "{taken} in {full_bytes} bytes");
        broker.until_logged(&mut publisher, &["the disk is full: what would"]).await;
        refused(&broker, version).await;
        let ready = get(admin, "/readyz");
        assert_eq!(ready.status, 200, "what is promised is kept");
        assert!(ready.body.starts_with("ok\ndisk_full: "), "{}", ready.body);
        assert!(get(admin, "/metrics").body.contains("\ndormouse_journal_full 1.0\n"));

        broker.kill9();
        broker.restart();
        admin = broker.admin();
        let mut publisher = broker.client(Version::V5, connect("publisher")).await;
        // It has kept some room for the start, more than that took.
        let taken = fill_up(&broker, &mut publisher, taken).await;
        refused(&broker, version).await;

        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        drain(&mut dev, taken).await;
        dev.leave().await;
        assert!(resumed(&broker, &mut publisher, 0).await, "never again: {} bytes in use", disk.used_bytes());
        for _ in 0..10 {
            if disk.used_bytes() < full_bytes / 2 {
                break;
            }
            broker.a_second_and_a_half_passes().await;
        }
        let drained_bytes = disk.used_bytes();
        assert!(drained_bytes < full_bytes / 2, "{drained_bytes} of {full_bytes} bytes are still in use");
        println!(
            "{version:?}: {taken} messages of 16 KiB in {full_bytes} bytes; {drained_bytes} after the drain"
        );
        assert_eq!(get(admin, "/readyz").said(), (200, "ok\n"));
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        drain(&mut dev, 1).await;
        for client_id in ["dev", "old"] {
            broker.client(version, connect(client_id)).await.leave().await;
        }
    }
    assert!(broker.terminate().success());
    assert!(!broker.log().contains("writing the journal failed"));
    assert!(broker.logged(&["there is room on the disk again"]) >= BOTH.len());
}

/// The reserve keeps Dormouse from filling the disk, and not others; a broker that is killed then has to come back.
#[tokio::test]
async fn a_start_needs_no_room_on_a_disk_that_others_have_filled() {
    let disk = SmallDisk::new();
    if !disk.is_mounted {
        return;
    }
    let mut broker = disk.start();
    broker.sleeper(Version::V5, "dev", "a", QoS::AtLeastOnce).await;
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    for n in 0..100 {
        publisher.send(publish("a", payload(n)).qos1(1)).await;
        publisher.expect(puback(1)).await;
    }
    let others = disk.folder.path().join("others");
    for start in 0..3 {
        broker.kill9();
        let left = fill_with_zeros(&others);
        assert!(left < 4_096, "{left} bytes are free");
        broker.restart();
        let mut publisher = broker.client(Version::V5, connect("publisher")).await;
        publisher.send(publish("a", payload(0)).qos1(1)).await;
        publisher.expect(puback(1).because(ReasonCode::QuotaExceeded)).await;
        let mut dev = broker.returning(Version::V5, connect("dev").persistent()).await;
        // Before that it goes without a word: what it is sent may come at any moment.
        if start == 2 {
            drain(&mut dev, 100).await;
            dev.leave().await;
        }
    }
    fs::remove_file(&others).unwrap();
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    assert!(resumed(&broker, &mut publisher, 0).await, "never again");
    let mut dev = broker.returning(Version::V5, connect("dev").persistent()).await;
    drain(&mut dev, 1).await;
    assert!(broker.terminate().success());
    assert_eq!(broker.logged(&["the room that was kept for a start is used"]), 3);
}

/// Writes until nothing fits; the bytes that are free then.
fn fill_with_zeros(path: &Path) -> u64 {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}
