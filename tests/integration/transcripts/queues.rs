//! Full queues: whom their policy spares and what publishers are told.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{connect, puback, publish, pubrec},
};

const TWO_FOR_A_FLEET: &str = "[[queue_limits]]\nuser = \"fleet-*\"\nmessages_max = 2\npolicy = \"reject\"\n";
const TWO_COMMANDS: &str = "[[queue_limits]]\nfilter = \"cmd/#\"\nmessages_max = 2\npolicy = \"reject\"\n";

/// Under `reject` a publish reaches everybody or nobody, and its publisher knows: 0x97 with a reason in 5.0, no
/// acknowledgement and a closed connection in 3.1.1. Room for one more is room for its publisher.
#[tokio::test]
async fn a_publish_is_refused_while_a_sleepers_queue_is_full() {
    for version in BOTH {
        let mut broker = Broker::start_configured(TWO_COMMANDS);
        broker.sleeper(version, "dev", "cmd/+", QoS::AtLeastOnce).await;
        let mut live = broker.client(version, connect("live")).await;
        live.subscribed("cmd/+", QoS::AtMostOnce).await;
        let mut publisher = broker.client(version, connect("pub").persistent()).await;
        for (id, payload) in [(1, "1"), (2, "2")] {
            publisher.published(publish("cmd/a", payload).qos1(id)).await;
            live.take(publish("cmd/a", payload)).await;
        }
        if version == Version::V5 {
            publisher.send(publish("cmd/a", "3").qos1(3)).await;
            let (received, said) = publisher.receive_saying().await;
            assert_eq!(received, puback(3).because(ReasonCode::QuotaExceeded));
            assert_eq!(said.as_deref(), Some("the queue of a subscriber is full"));
            publisher.send(publish("cmd/a", "3").qos2(4).retained()).await;
            publisher.expect(pubrec(4).because(ReasonCode::QuotaExceeded)).await;
        } else {
            publisher.send(publish("cmd/a", "3").qos1(3)).await;
            publisher.expect_closed().await;
            publisher = broker.returning(version, connect("pub").persistent()).await;
        }
        publisher.published(publish("data", "other topics go on").qos1(5)).await;
        live.expect_nothing_for_one_ping().await;
        broker.until_logged(&mut live, &["publish refused", "\"client_id\":\"dev\"", "cmd/a"]).await;

        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        dev.take(publish("cmd/a", "1").qos1(0)).await;
        dev.take(publish("cmd/a", "2").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        publisher.published(publish("cmd/a", "3").qos1(6)).await;
        dev.take(publish("cmd/a", "3").qos1(0)).await;
        live.take(publish("cmd/a", "3")).await;
        live.expect_nothing_for_one_ping().await;
        assert!(broker.terminate().success());
        assert_eq!(broker.logged(&["messages dropped since the start", "\"queue_full\":0"]), 1);
    }
}

/// Bounds by the user name of CONNECT, in whose sessions' queues they count, also after a `kill -9`.
#[tokio::test]
async fn a_bound_is_for_the_sessions_of_some_users() {
    let mut broker = Broker::start_configured(TWO_FOR_A_FLEET);
    for (id, user_name, filter) in [("pump", "fleet-7", "a"), ("dev", "guest", "b")] {
        let mut sleeper = broker.client(Version::V5, connect(id).login(user_name, "x").persistent()).await;
        sleeper.subscribed(filter, QoS::AtLeastOnce).await;
        sleeper.leave().await;
    }
    broker.kill9();
    broker.restart();
    let mut publisher = broker.client(Version::V5, connect("pub")).await;
    for id in 1..=2 {
        publisher.published(publish("a", "x").qos1(id)).await;
    }
    publisher.send(publish("a", "x").qos1(3)).await;
    publisher.expect(puback(3).because(ReasonCode::QuotaExceeded)).await;
    for id in 4..=9 {
        publisher.published(publish("b", "x").qos1(id)).await;
    }
    assert!(broker.terminate().success());
}
