//! Dead letters over the wire: what becomes of a message that somebody does not get.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{Publishing, connack, connect, puback, publish, pubrec},
    },
};

const CONFIG: &str = "[dead_letters]\nenabled = true\n\
    [[queue_limits]]\nclient = \"oldest\"\nmessages_max = 1\n\
    [[queue_limits]]\nclient = \"newest\"\nmessages_max = 1\npolicy = \"drop-newest\"\n";

/// The letter of a message with this payload.
fn letter(version: Version, reason: &str, client_id: &str, topic: &str, payload: &str) -> Publishing {
    let level = client_id.replace('/', "%2F");
    let letter = publish(&format!("$dead/{reason}/{level}/{topic}"), payload).qos1(0);
    let told = [("reason", reason), ("client_id", client_id), ("topic", topic), ("qos", "1")];
    let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Publishing { user: if version.is_v5() { told.into() } else { Vec::new() }, ..letter }
}

/// A subscriber to letters, and a publisher.
async fn start(version: Version) -> (Broker, Peer, Peer) {
    let broker = Broker::start_configured(CONFIG);
    let mut post = broker.client(version, connect("post")).await;
    post.subscribed("$dead/#", QoS::AtLeastOnce).await;
    let publisher = broker.client(version, connect("publisher")).await;
    (broker, post, publisher)
}

#[tokio::test]
async fn the_oldest_and_the_newest_of_full_queues() {
    for version in BOTH {
        let (broker, mut post, mut publisher) = start(version).await;
        broker.sleeper(version, "oldest", "a/#", QoS::AtLeastOnce).await;
        broker.sleeper(version, "newest", "a/#", QoS::AtLeastOnce).await;
        publisher.published(publish("a/b", "1").qos1(1)).await;
        publisher.published(publish("a/b", "2").qos1(2)).await;
        // The new one's is published with it, the old one's is read back first.
        post.take(letter(version, "queue_full", "newest", "a/b", "2")).await;
        post.take(letter(version, "queue_full", "oldest", "a/b", "1")).await;
        let mut newest = broker.returning(version, connect("newest").persistent()).await;
        newest.take(publish("a/b", "1").qos1(0)).await;
        let mut oldest = broker.returning(version, connect("oldest").persistent()).await;
        oldest.take(publish("a/b", "2").qos1(0)).await;
        post.expect_nothing_for_one_ping().await;
    }
}

#[tokio::test]
async fn what_expires_undelivered() {
    let version = Version::V5;
    let (broker, mut post, mut publisher) = start(version).await;
    broker.sleeper(version, "dev", "a", QoS::AtLeastOnce).await;
    publisher.published(publish("a", "1").qos1(1).expiring(1)).await;
    broker.a_second_and_a_half_passes().await;
    let mut dev = broker.returning(version, connect("dev").persistent()).await;
    dev.expect_nothing_for_one_ping().await;
    post.take(letter(version, "expired", "dev", "a", "1")).await;
}

#[tokio::test]
async fn what_is_too_large() {
    let version = Version::V5;
    let (broker, mut post, mut publisher) = start(version).await;
    let mut dev = broker.client(version, connect("dev").packet_bytes_max(100)).await;
    dev.subscribed("a", QoS::AtLeastOnce).await;
    let large = "x".repeat(200);
    publisher.published(publish("a", &*large).qos1(1)).await;
    post.take(letter(version, "too_large", "dev", "a", &large)).await;
    dev.expect_nothing_for_one_ping().await;
}

/// One that ends with its connection, one that is begun anew, one that expires; the letters survive a killed broker.
#[tokio::test]
async fn what_ended_sessions_leave() {
    let version = Version::V5;
    let (mut broker, mut post, mut publisher) = start(version).await;
    let mut closed = broker.client(version, connect("in/closed")).await;
    closed.subscribed("a", QoS::AtLeastOnce).await;
    broker.sleeper(version, "cleaned", "a", QoS::AtLeastOnce).await;
    let mut expired = broker.client(version, connect("expired").persistent().session_expiry(1)).await;
    expired.subscribed("a", QoS::AtLeastOnce).await;
    expired.hang_up().await;
    publisher.published(publish("a", "1").qos1(1)).await;
    closed.expect_message(publish("a", "1").qos1(0)).await;
    closed.hang_up().await;
    post.take(letter(version, "session_closed", "in/closed", "a", "1")).await;
    post.take(letter(version, "session_expired", "expired", "a", "1")).await;

    // A sleeper's letters wait for it.
    broker.sleeper(version, "archive", "$dead/session_cleaned/#", QoS::AtLeastOnce).await;
    broker.client(version, connect("cleaned")).await.leave().await;
    post.take(letter(version, "session_cleaned", "cleaned", "a", "1")).await;
    broker.kill9();
    broker.restart();
    let mut archive = broker.returning(version, connect("archive").persistent()).await;
    // The letter of before, which may have been sent, or one made of what the broker found.
    let found = archive.receive_publish().await;
    let (dup, packet_id) = (found.dup, found.packet_id);
    archive.acknowledge(QoS::AtLeastOnce, packet_id).await;
    let expected = letter(version, "session_cleaned", "cleaned", "a", "1");
    assert_eq!(found, Publishing { packet_id, dup, ..expected });
    archive.expect_nothing_for_one_ping().await;
}

/// Topics under `$dead` are the broker's own, whether it publishes there or not [MQTT3-3.3.5-2].
#[tokio::test]
async fn nobody_else_publishes_there() {
    let broker = Broker::start();
    let mut post = broker.client(Version::V5, connect("post")).await;
    post.subscribed("$dead/#", QoS::AtLeastOnce).await;
    let mut forger = broker.client(Version::V5, connect("forger")).await;
    forger.send(publish("$dead/expired/dev/a", "x").qos1(1)).await;
    forger.expect(puback(1).because(ReasonCode::NotAuthorized)).await;
    forger.send(publish("$dead", "x").qos2(2)).await;
    forger.expect(pubrec(2).because(ReasonCode::NotAuthorized)).await;
    forger.send(publish("$dead/x", "x")).await;
    forger.expect_shown_out(Version::V5, ReasonCode::NotAuthorized).await;
    for version in BOTH {
        let mut dying = broker.peer(version).await;
        dying.send(connect("dying").will(publish("$dead/x", "x"))).await;
        dying.expect(connack(ReasonCode::NotAuthorized)).await;
        dying.expect_closed().await;
    }
    let mut older = broker.client(Version::V311, connect("older")).await;
    older.send(publish("$dead/x", "x").qos1(1)).await;
    older.expect_closed().await;
    post.expect_nothing_for_one_ping().await;
}
