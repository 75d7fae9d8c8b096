//! The end of sessions and of messages by time.

use std::time::Duration;

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::scene::{BOTH, Stopwatch};
use crate::{
    harness::Broker,
    peer::packets::{connect, disconnect, puback, publish},
};

/// The broker counts whole milliseconds, and the one under way when the session ends counts as whole.
const SECOND: Duration = Duration::from_millis(999);

/// [MQTT-3.1.2-23], [MQTT-4.1.0-2]: not before, and not never.
#[tokio::test]
async fn a_session_ends_when_its_expiry_has_passed() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let mut dev = broker.client(Version::V5, connect("dev").session_expiry(1)).await;
    dev.subscribed("t", QoS::AtLeastOnce).await;
    let watch = Stopwatch::start();
    dev.leave().await;
    broker.until_logged(&mut other, &["session expired", "\"dev\""]).await;
    assert!(watch.elapsed() >= SECOND);
    let mut dev = broker.client(Version::V5, connect("dev").persistent()).await;
    other.published(publish("t", "1").qos1(1)).await;
    dev.expect_nothing_for_one_ping().await;
}

/// Section 3.14.2.2.2: DISCONNECT sets another expiry.
#[tokio::test]
async fn disconnect_changes_the_expiry() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let long = || connect("dev").persistent();
    broker.client(Version::V5, long()).await.leave_with_expiry(ReasonCode::Success, 1).await;
    broker.until_logged(&mut other, &["session expired", "\"dev\""]).await;
    // From a second to an hour: it is there after its second.
    let short = broker.client(Version::V5, connect("dev").session_expiry(1)).await;
    short.leave_with_expiry(ReasonCode::Success, 3_600).await;
    broker.a_second_and_a_half_passes().await;
    // To nothing: it ends at once.
    let back = broker.returning(Version::V5, long()).await;
    back.leave_with_expiry(ReasonCode::Success, 0).await;
    broker.client(Version::V5, long()).await.leave().await;
}

/// Section 3.14.2.2.2: a session that ends with its connection cannot be prolonged by DISCONNECT.
#[tokio::test]
async fn disconnect_cannot_prolong_a_session_without_expiry() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.send_bytes(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 60]).await;
    dev.expect_shown_out(Version::V5, ReasonCode::ProtocolError).await;
    broker.client(Version::V5, connect("dev").persistent()).await.leave().await;
}

/// The broker's own maximum ends v3's persistent sessions, and caps v5's, which is told (section 3.2.2.3.2).
#[tokio::test]
async fn the_longest_expiry_is_the_brokers_to_choose() {
    let broker = Broker::start_configured("[sessions]\nsession_expiry_max = \"1s\"\n");
    let mut other = broker.client(Version::V5, connect("other")).await;
    broker.client(Version::V311, connect("three").persistent()).await.leave().await;
    let mut five = broker.peer(Version::V5).await;
    five.send(connect("five").persistent()).await;
    five.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.properties.session_expiry, Some(1));
    })
    .await;
    five.leave().await;
    for name in ["three", "five"] {
        broker.until_logged(&mut other, &["session expired", name]).await;
    }
    broker.client(Version::V311, connect("three").persistent()).await.leave().await;
}

/// An expiry that passes while the broker is down has passed when it is up.
#[tokio::test]
async fn a_session_expires_across_a_restart() {
    let mut broker = Broker::start();
    let dev = broker.client(Version::V5, connect("dev").session_expiry(1)).await;
    broker.kill9();
    drop(dev);
    broker.restart();
    let mut other = broker.client(Version::V5, connect("other")).await;
    broker.until_logged(&mut other, &["session expired", "\"dev\""]).await;
    broker.client(Version::V5, connect("dev").persistent()).await.leave().await;
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6]: what expired in the queue is gone, what is left has less time.
#[tokio::test]
async fn messages_expire_in_the_queue() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        let watch = Stopwatch::start();
        other.published(publish("t", "1").qos1(1).expiring(1)).await;
        other.published(publish("t", "2").qos2(2).expiring(1)).await;
        other.published(publish("t", "3").qos1(3).expiring(100)).await;
        other.published(publish("t", "4").qos1(4)).await;
        broker.a_second_and_a_half_passes().await;
        let mut back = broker.returning(version, connect("dev").persistent()).await;
        let three = back.receive_publish().await;
        assert_eq!((three.payload.as_slice(), three.dup), (&b"3"[..], false));
        if version.is_v5() {
            let left = three.message_expiry.map(u64::from).expect("an expiry");
            assert!(left < 100 && left + watch.elapsed().as_secs() + 1 >= 100, "{left}");
        }
        back.acknowledge(QoS::AtLeastOnce, three.packet_id).await;
        back.take(publish("t", "4").qos1(0)).await;
        back.expect_nothing_for_one_ping().await;
        back.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
    assert!(broker.logged(&["\"dev\"", "message expiry interval has passed"]) >= 1);
}

/// [MQTT-3.3.2-5] holds across `kill -9`: what came for a sleeper expires, however early it stands in the queue. What the
/// client was sent comes again [MQTT-4.4.0-1], with DUP [MQTT-3.3.1-1].
#[tokio::test]
async fn messages_expire_in_the_queue_across_a_restart() {
    let mut broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.subscribed("t", QoS::AtLeastOnce).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        other.send(publish("t", "sent").qos1(1).expiring(1)).await;
        let sent = dev.receive_publish().await;
        dev.leave().await;
        other.expect(puback(1)).await;
        for n in 2..=40 {
            other.published(publish("t", n.to_string()).qos1(n).expiring(1)).await;
        }
        other.published(publish("t", "last").qos1(41)).await;
        broker.kill9();
        broker.restart();
        broker.a_second_and_a_half_passes().await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        let again = dev.receive_publish().await;
        assert_eq!((again.packet_id, again.dup, &again.payload), (sent.packet_id, true, &sent.payload));
        dev.acknowledge(QoS::AtLeastOnce, again.packet_id).await;
        dev.take(publish("t", "last").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
    assert!(broker.logged(&["\"dev\"", "message expiry interval has passed"]) >= 1);
}

/// A retained message has an end as well.
#[tokio::test]
async fn retained_messages_expire() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("t/1", "1").qos1(1).retained().expiring(1)).await;
    other.published(publish("t/2", "2").qos1(2).retained().expiring(100)).await;
    broker.a_second_and_a_half_passes().await;
    for version in BOTH {
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("t/+", QoS::AtMostOnce).await;
        let two = late.receive_publish().await;
        assert_eq!((two.topic.as_str(), two.retain), ("t/2", true));
        assert_eq!(two.message_expiry.is_some_and(|left| left < 100), version.is_v5());
        late.expect_nothing_for_one_ping().await;
        late.leave().await;
    }
}

/// [MQTT-4.4.0-1] holds for what was sent before it expired: in flight is in flight.
#[tokio::test]
async fn a_message_in_flight_does_not_expire() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let mut dev = broker.client(Version::V5, connect("dev").persistent()).await;
    dev.subscribed("t", QoS::AtLeastOnce).await;
    other.send(publish("t", "1").qos1(1).expiring(1)).await;
    let id = dev.expect_message(publish("t", "1").qos1(0).expiring(1)).await;
    dev.send(disconnect()).await;
    dev.expect_closed().await;
    broker.a_second_and_a_half_passes().await;
    let mut dev = broker.returning(Version::V5, connect("dev").persistent()).await;
    let again = dev.receive_publish().await;
    assert_eq!((again.packet_id, again.dup, again.payload.as_slice()), (id, true, &b"1"[..]));
}

/// An expiry of 0 on returning: the session is there once more, and ends with this connection, also in a crash.
#[tokio::test]
async fn a_session_can_be_continued_for_the_last_time() {
    for kill in [false, true] {
        let mut broker = Broker::start();
        broker.sleeper(Version::V5, "dev", "t", QoS::AtLeastOnce).await;
        let last = broker.returning(Version::V5, connect("dev").session_expiry(0).persistent()).await;
        if kill {
            broker.kill9();
            broker.restart();
            let mut other = broker.client(Version::V5, connect("other")).await;
            broker.until_logged(&mut other, &["session expired", "\"dev\""]).await;
        } else {
            last.leave().await;
        }
        broker.client(Version::V5, connect("dev").persistent()).await.leave().await;
    }
}
