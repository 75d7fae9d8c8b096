//! Section 4.3 over the wire: the connection is lost at each packet of the exchange, on both sides, and the message arrives
//! once, or with QoS 1 at least once. `broker/tests/exactly_once` has the rest: crashes, takeovers, two faults.

use dormouse::codec::{QoS, Version};

use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{Publishing, connect, puback, pubcomp, publish, pubrec, pubrel},
    },
    transcripts::scene::BOTH,
};

/// A packet of an exchange, which is sent on its way and does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

const OF_QOS_1: [Lost; 2] = [Lost::Publish, Lost::Puback];
const OF_QOS_2: [Lost; 4] = [Lost::Publish, Lost::Pubrec, Lost::Pubrel, Lost::Pubcomp];

/// The publisher's half. Its client sends again what the standard says, and `reader`, who hears everything live, counts.
async fn publisher_loses(broker: &Broker, version: Version, qos: QoS, lost: Lost) {
    let client = || connect("publisher").persistent();
    let mut reader = broker.client(version, connect("reader")).await;
    reader.subscribed("t", QoS::AtMostOnce).await;
    let message = || with_qos("x", qos, 5);
    let mut first = broker.client(version, client()).await;
    // What the client knows: has PUBREC come?
    let mut received = false;
    if lost != Lost::Publish {
        first.send(message()).await;
        // Until the broker has done its part; its answer is lost when the connection is.
        reader.expect_publish(publish("t", "x")).await;
    }
    if qos == QoS::ExactlyOnce && matches!(lost, Lost::Pubrel | Lost::Pubcomp) {
        first.expect(pubrec(5)).await;
        received = true;
        if lost == Lost::Pubcomp {
            first.send(pubrel(5)).await;
        }
    }
    first.hang_up().await;
    let mut second = broker.returning(version, client()).await;
    match (qos, received) {
        (QoS::ExactlyOnce, true) => {
            second.send(pubrel(5)).await;
            // v5 may say that it had been released before.
            second.receive().await;
        }
        _ => second.published(message().dup()).await,
    }
    // With QoS 1 and the PUBACK lost the broker cannot know that it is the same.
    if matches!(lost, Lost::Publish | Lost::Puback) {
        reader.expect_publish(publish("t", "x")).await;
    }
    // The id is free, and what it carries next is a message of its own.
    second.published(with_qos("y", qos, 5)).await;
    reader.expect_publish(publish("t", "y")).await;
    reader.expect_nothing_for_one_ping().await;
    second.leave().await;
    reader.leave().await;
    broker.client(version, connect("publisher")).await.leave().await;
}

/// The subscriber's half. Its client takes a QoS 2 message by its packet id, once.
async fn subscriber_loses(broker: &Broker, version: Version, qos: QoS, lost: Lost) {
    let client = || connect("subscriber").persistent();
    broker.sleeper(version, "subscriber", "t", qos).await;
    let mut other = broker.client(version, connect("other")).await;
    other.published(with_qos("x", qos, 1)).await;
    let mut first = broker.returning(version, client()).await;
    // PUBLISH itself is lost when it is not read; the broker has sent it.
    let mut sent = 0;
    if lost != Lost::Publish {
        sent = first.expect_message(with_qos("x", qos, 0)).await;
    }
    if matches!(lost, Lost::Pubrel | Lost::Pubcomp) {
        first.send(pubrec(sent)).await;
        // Whether it is on its way or has come: the broker has the PUBREC.
        first.expect(pubrel(sent)).await;
    }
    first.hang_up().await;
    let mut second = broker.returning(version, client()).await;
    if matches!(lost, Lost::Pubrel | Lost::Pubcomp) {
        second.expect(pubrel(sent)).await;
        second.send(pubcomp(sent)).await;
    } else {
        let again = second.receive_publish().await;
        assert_eq!(again.payload, b"x");
        if sent != 0 {
            assert_eq!((again.packet_id, again.dup), (sent, true));
        }
        second.acknowledge(qos, again.packet_id).await;
    }
    finish(&mut second, &mut other, qos).await;
    second.leave().await;
    other.leave().await;
    broker.client(version, connect("subscriber")).await.leave().await;
}

/// Nothing is left of the first message, and the next one comes.
async fn finish(subscriber: &mut Peer, other: &mut Peer, qos: QoS) {
    subscriber.expect_nothing_for_one_ping().await;
    other.send(with_qos("y", qos, 2)).await;
    subscriber.take(with_qos("y", qos, 0)).await;
    if qos == QoS::ExactlyOnce {
        other.expect(pubrec(2)).await;
        other.send(pubrel(2)).await;
        other.expect(pubcomp(2)).await;
    } else {
        other.expect(puback(2)).await;
    }
    subscriber.expect_nothing_for_one_ping().await;
}

fn with_qos(payload: &str, qos: QoS, packet_id: u16) -> Publishing {
    let message = publish("t", payload);
    if qos == QoS::ExactlyOnce { message.qos2(packet_id) } else { message.qos1(packet_id) }
}

/// [MQTT-4.4.0-1], [MQTT3-4.4.0-1], [MQTT-4.3.3-10], [MQTT3-4.3.3-2]
#[tokio::test]
async fn a_message_survives_each_lost_packet_of_its_publisher() {
    let broker = Broker::start();
    for version in BOTH {
        for lost in OF_QOS_1 {
            publisher_loses(&broker, version, QoS::AtLeastOnce, lost).await;
        }
        for lost in OF_QOS_2 {
            publisher_loses(&broker, version, QoS::ExactlyOnce, lost).await;
        }
    }
}

/// [MQTT-4.4.0-1], [MQTT3-4.4.0-1], [MQTT-4.3.3-5], [MQTT3-4.3.3-1]
#[tokio::test]
async fn a_message_survives_each_lost_packet_of_its_subscriber() {
    let broker = Broker::start();
    for version in BOTH {
        for lost in OF_QOS_1 {
            subscriber_loses(&broker, version, QoS::AtLeastOnce, lost).await;
        }
        for lost in OF_QOS_2 {
            subscriber_loses(&broker, version, QoS::ExactlyOnce, lost).await;
        }
    }
}
