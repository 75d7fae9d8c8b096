//! What the wall clock says at a start, and what expires by it: the real binary under a shifted clock.
//!
//! The journal of each has what happened before the kill: an acknowledgement that came later than what matters says so,
//! as commits are in order.

use std::time::{SystemTime, UNIX_EPOCH};

use dormouse::codec::{QoS, ReasonCode, Version};

use super::{
    disk::{Disk, Field},
    model::Image,
};
use crate::{
    crash::process::Process,
    peer::{
        Peer,
        packets::{Connecting, Publishing, connack, connack_present, connect, disconnect, publish},
    },
};

const HOUR_S: u32 = 3_600;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A machine that is very busy.
const SLACK_S: u32 = 300;

/// A broker on a disk of its own, that is started again under another clock.
struct Scene {
    disk: Disk,
    broker: Process,
}

impl Scene {
    fn new() -> Self {
        let disk = Disk::holding(&Image::new());
        let broker = disk.start(false).unwrap();
        Self { disk, broker }
    }

    /// Kills the broker and starts it again; its clock is so far from the right time then.
    fn again(&mut self, clock_ms: i64) {
        self.broker.kill();
        self.set_clock(clock_ms);
        self.broker = self.disk.start(false).unwrap();
    }

    fn set_clock(&self, clock_ms: i64) {
        self.disk.set(Field::ClockOffsetMs, clock_ms.cast_unsigned());
    }

    async fn client(&self, version: Version, connecting: Connecting) -> Peer {
        self.connected(version, connecting, false).await
    }

    async fn returning(&self, version: Version, connecting: Connecting) -> Peer {
        self.connected(version, connecting, true).await
    }

    async fn connected(&self, version: Version, connecting: Connecting, present: bool) -> Peer {
        let mut peer = Peer::at(self.broker.address, version).await;
        peer.send(connecting).await;
        peer.expect(if present { connack_present() } else { connack(ReasonCode::Success) }).await;
        peer
    }

    /// A session with one subscription, asleep.
    async fn sleeper(&self, version: Version, connecting: Connecting, filter: &str) {
        let mut peer = self.client(version, connecting).await;
        peer.subscribed(filter, QoS::AtLeastOnce).await;
        peer.leave().await;
    }

    async fn published(&self, messages: impl IntoIterator<Item = Publishing>) {
        let mut peer = self.client(Version::V5, connect("publisher")).await;
        for message in messages {
            peer.published(message).await;
        }
        peer.leave().await;
    }

    /// The seconds left of the one retained message.
    async fn seconds_left(&self) -> Option<u32> {
        let mut peer = self.client(Version::V5, connect("looks")).await;
        peer.subscribed("kept/+", QoS::AtMostOnce).await;
        let kept = peer.receive_publish().await;
        peer.expect_nothing_for_one_ping().await;
        peer.leave().await;
        kept.message_expiry
    }
}

fn within(left: Option<u32>, of: u32) -> bool {
    left.is_some_and(|left| (of - SLACK_S..=of).contains(&left))
}

fn since_1970_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The downtime counts for sessions, for messages that wait, for retained ones and for wills [MQTT-3.3.2-5],
/// [MQTT-3.3.2-6], [MQTT-3.1.2-8].
#[tokio::test]
async fn an_hour_of_downtime_counts_when_the_clock_says_so() {
    let mut scene = Scene::new();
    scene.sleeper(Version::V5, connect("ten minutes").session_expiry(600), "t").await;
    scene.sleeper(Version::V5, connect("two hours").session_expiry(2 * HOUR_S), "t").await;
    scene.sleeper(Version::V311, connect("a month").persistent(), "wills/+").await;
    for (minutes, topic) in [(30, "wills/due"), (90, "wills/not-due")] {
        let will = publish(topic, "gone").qos1(0);
        let hello = connect(topic).session_expiry(2 * HOUR_S).will(will).will_delay(minutes * 60);
        let mut dev = scene.client(Version::V5, hello).await;
        dev.send(disconnect().because(ReasonCode::DisconnectWithWill)).await;
        dev.expect_closed().await;
    }
    scene
        .published([
            publish("t", "half an hour").qos1(1).expiring(HOUR_S / 2),
            publish("t", "two hours").qos1(2).expiring(2 * HOUR_S),
            publish("t", "for ever").qos1(3),
            publish("kept/short", "x").qos1(4).retained().expiring(HOUR_S / 2),
            publish("kept/long", "x").qos1(5).retained().expiring(2 * HOUR_S),
        ])
        .await;

    scene.again(HOUR_MS);
    scene.client(Version::V5, connect("ten minutes").persistent()).await.leave().await;
    let mut dev = scene.returning(Version::V5, connect("two hours").persistent()).await;
    let message = dev.receive_publish().await;
    assert_eq!(message.payload, b"two hours");
    assert!(within(message.message_expiry, HOUR_S), "{message:?}");
    dev.acknowledge(QoS::AtLeastOnce, message.packet_id).await;
    dev.take(publish("t", "for ever").qos1(0)).await;
    dev.expect_nothing_for_one_ping().await;
    let left = scene.seconds_left().await;
    assert!(within(left, HOUR_S), "{left:?}");
    let mut watcher = scene.returning(Version::V311, connect("a month").persistent()).await;
    watcher.take(publish("wills/due", "gone").qos1(0)).await;
    watcher.expect_nothing_for_one_ping().await;
    watcher.leave().await;
    // What it confirmed is on disk with this.
    scene.published([publish("kept/short", "").qos1(1).retained()]).await;
    // The other half hour.
    scene.again(HOUR_MS + HOUR_MS / 2);
    let mut watcher = scene.returning(Version::V311, connect("a month").persistent()).await;
    watcher.take(publish("wills/not-due", "gone").qos1(0)).await;
    watcher.expect_nothing_for_one_ping().await;
}

/// A gateway without a battery: it boots in 1970 and learns the time later. Its downtime is not known, and what passes
/// after that counts once.
#[tokio::test]
async fn after_a_boot_in_1970_nothing_expires_early_and_nothing_twice() {
    let mut scene = Scene::new();
    scene.sleeper(Version::V5, connect("dev").session_expiry(HOUR_S), "t").await;
    scene.published([publish("kept/x", "x").qos1(1).retained().expiring(2 * HOUR_S)]).await;
    scene.again(-since_1970_ms());
    let left = scene.seconds_left().await;
    assert!(within(left, 2 * HOUR_S), "{left:?} in 1970");
    // What is written from now on has the right time.
    scene.set_clock(DAY_MS);
    let left = scene.seconds_left().await;
    assert!(within(left, 2 * HOUR_S), "{left:?} after the jump to now");
    scene.published([publish("t", "after the jump").qos1(1)]).await;
    for _ in 0..2 {
        scene.again(DAY_MS + HOUR_MS / 2);
        let left = scene.seconds_left().await;
        assert!(within(left, 3 * HOUR_S / 2), "{left:?} after half an hour, counted once");
    }
    let mut dev = scene.returning(Version::V5, connect("dev").persistent()).await;
    let message = dev.receive_publish().await;
    assert_eq!(message.payload, b"after the jump");
}

/// A clock that is ahead by more than a year is not believed. One that is ahead by less is: what ends by that has ended,
/// and when the clock is set right again, nothing else does.
#[tokio::test]
async fn a_clock_that_runs_ahead_costs_what_would_have_ended_by_then() {
    let mut scene = Scene::new();
    scene.sleeper(Version::V311, connect("a month").persistent(), "t").await;
    scene.published([publish("kept/x", "x").qos1(1).retained().expiring(3 * HOUR_S)]).await;
    scene.again(400 * DAY_MS);
    let left = scene.seconds_left().await;
    assert!(within(left, 3 * HOUR_S), "{left:?} when 400 days ahead");
    scene.set_clock(0);
    scene.published([publish("t", "one").qos1(1)]).await;
    scene.again(HOUR_MS);
    let left = scene.seconds_left().await;
    assert!(within(left, 2 * HOUR_S), "{left:?} when an hour ahead");
    for _ in 0..2 {
        scene.again(0);
        let left = scene.seconds_left().await;
        assert!(within(left, 2 * HOUR_S), "{left:?} when set right again");
    }
    scene.again(30 * 60 * 1_000);
    let left = scene.seconds_left().await;
    assert!(within(left, 3 * HOUR_S / 2), "{left:?}, half an hour later");
    let mut dev = scene.returning(Version::V311, connect("a month").persistent()).await;
    let message = dev.receive_publish().await;
    assert_eq!(message.payload, b"one");
}
