//! Section 3.1.2: which session a CONNECT is about, how long it is kept, and what it is promised.

use dormouse::codec::{QoS, Version};

use crate::{
    harness::Broker,
    peer::packets::{connect, publish},
    transcripts::scene::BOTH,
};

/// [MQTT-3.1.2-5], [MQTT-3.1.2-6], [MQTT-3.1.2-23], [MQTT-3.1.3-2], [MQTT3-3.1.2-4], [MQTT3-3.1.2-5], [MQTT3-3.1.3-2]:
/// without a clean start a client finds the session of its very name, with what was published meanwhile, or a new one.
#[tokio::test]
async fn a_session_belongs_to_its_client_id() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let names = ["dev", "Dev", "dev ", "de", "dév"];
        for name in names {
            let mut dev = broker.client(version, connect(name).persistent()).await;
            dev.subscribed(&format!("to/{name}"), QoS::AtLeastOnce).await;
            dev.leave().await;
        }
        for (n, name) in (1..).zip(names) {
            other.published(publish(&format!("to/{name}"), name).qos1(n)).await;
            other.published(publish(&format!("to/{name}"), name).qos2(n)).await;
        }
        for name in names {
            let mut dev = broker.returning(version, connect(name).persistent()).await;
            for _ in 0..2 {
                dev.take(publish(&format!("to/{name}"), name).qos1(0)).await;
            }
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
        }
        // None of them was harmed by a client that is new.
        broker.client(version, connect("new").persistent()).await.leave().await;
        for name in names {
            broker.returning(version, connect(name).persistent()).await.leave().await;
        }
        for name in names.into_iter().chain(["new"]) {
            broker.client(version, connect(name)).await.leave().await;
        }
        other.leave().await;
    }
}

/// [MQTT-3.1.4-4], [MQTT3-3.1.4-3], [MQTT3-3.1.2-6]: clean start, or clean session, is carried out when the former
/// connection is still there, too; and what began clean in 3.1.1 ends with its connection.
#[tokio::test]
async fn a_clean_start_is_carried_out_on_a_takeover() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut first = broker.client(version, connect("dev").persistent()).await;
        first.subscribed("t", QoS::AtLeastOnce).await;
        other.published(publish("t", "1").qos1(1)).await;
        first.receive_publish().await;
        // Goes on with it.
        let mut second = broker.returning(version, connect("dev").persistent()).await;
        second.receive_publish().await;
        // Does not.
        let mut third = broker.client(version, connect("dev")).await;
        other.published(publish("t", "2").qos1(2)).await;
        third.expect_nothing_for_one_ping().await;
        third.subscribed("t", QoS::AtLeastOnce).await;
        third.hang_up().await;
        broker.until_logged(&mut other, &["\"disconnected\"", "\"dev\"", "connection lost"]).await;
        let mut fourth = broker.client(version, connect("dev").persistent()).await;
        other.published(publish("t", "3").qos1(3)).await;
        fourth.expect_nothing_for_one_ping().await;
        fourth.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// [MQTT3-3.1.2-7]: the end of the session that published it does not end a retained message.
#[tokio::test]
async fn retained_messages_outlive_sessions() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.published(publish("state/dev", "awake").qos1(1).retained()).await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("state/+", QoS::AtLeastOnce).await;
        late.take(publish("state/dev", "awake").qos1(0).retained()).await;
        late.send(publish("state/dev", "").retained()).await;
        late.expect_publish(publish("state/dev", "")).await;
    }
}

/// [MQTT-3.1.2-27]: a client that did not ask for topic aliases, or asked for none, gets each topic by name.
#[tokio::test]
async fn no_aliases_are_used_unasked() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    for asked in [connect("dev"), connect("dev").topic_alias_maximum(0)] {
        let mut dev = broker.client(Version::V5, asked).await;
        dev.subscribed("#", QoS::AtLeastOnce).await;
        for n in 1..=3 {
            other.send(publish("t", "same").qos1(n)).await;
            dev.take(publish("t", "same").qos1(0)).await;
        }
        dev.leave().await;
    }
    // With one it does.
    let mut dev = broker.client(Version::V5, connect("dev").topic_alias_maximum(1)).await;
    dev.subscribed("#", QoS::AtMostOnce).await;
    other.send_all([publish("t", "same").into(), publish("t", "same").into()]).await;
    dev.expect_publish(publish("t", "same").alias(1)).await;
    dev.expect_publish(publish("", "same").alias(1)).await;
}
