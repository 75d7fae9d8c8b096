//! What the members of a shared subscription leave to each other (MQTT 5.0 section 4.8.2).

use dormouse::codec::{QoS, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{connect, publish},
};

const GROUP: &str = "$share/g/t";

/// What waits for a member goes to another one when its session ends, and a crash does not lose it.
#[tokio::test]
async fn a_members_queue_goes_to_another_one_when_its_session_ends() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "one", GROUP, QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        broker.sleeper(version, "two", GROUP, QoS::ExactlyOnce).await;
        // Beginning anew ends its session.
        broker.client(version, connect("one")).await.leave().await;
        broker.kill9();
        broker.restart();
        let mut two = broker.returning(version, connect("two").persistent()).await;
        let received = two.receive_publish().await;
        assert_eq!(received.payload, b"1");
        two.acknowledge(QoS::ExactlyOnce, received.packet_id).await;
        two.expect_nothing_for_one_ping().await;
    }
}

/// [MQTT-3.10.4-3]: what was sent to a member that unsubscribes is its own to finish; what was not goes to another one.
#[tokio::test]
async fn an_unsubscribed_member_finishes_what_it_was_sent() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other").persistent()).await;
    let mut one = broker.client(Version::V5, connect("one").persistent().receive_maximum(1)).await;
    one.subscribed(GROUP, QoS::AtLeastOnce).await;
    other.send(publish("t", "1").qos1(1)).await;
    let first = one.receive_publish().await;
    other.send(publish("t", "2").qos1(2)).await;
    one.expect_nothing_for_one_ping().await;
    let mut two = broker.client(Version::V5, connect("two").persistent()).await;
    two.subscribed(GROUP, QoS::AtLeastOnce).await;
    one.unsubscribed(Version::V5, GROUP).await;
    two.take(publish("t", "2").qos1(0)).await;
    one.acknowledge(QoS::AtLeastOnce, first.packet_id).await;
    one.expect_nothing_for_one_ping().await;
}
