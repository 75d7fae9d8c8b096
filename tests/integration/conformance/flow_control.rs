//! Section 4.9, and what ends a message of the broker's besides its acknowledgement (section 4.4).

use dormouse::codec::{QoS, ReasonCode, Version};

use crate::{
    harness::Broker,
    peer::packets::{
        Publishing, connack_present, connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe,
        unsuback, unsubscribe,
    },
};

/// [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-4.9.0-3]: so many messages as the client takes, and not one more; at none left
/// everything else is done and answered; each end of an exchange makes room for one, and a new connection begins anew.
#[tokio::test]
async fn the_send_quota_is_kept_and_stops_nothing_else() {
    let broker = Broker::start();
    for maximum in [1, 3] {
        let dev = || connect("dev").persistent().receive_maximum(maximum);
        let mut first = broker.client(Version::V5, dev()).await;
        first.subscribed("t", QoS::ExactlyOnce).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        for n in 1..=8 {
            let message = publish("t", n.to_string());
            other.published(if n % 2 == 1 { message.qos2(n) } else { message.qos1(n) }).await;
        }
        let mut ids = Vec::new();
        for n in 1..=maximum {
            let message = publish("t", n.to_string());
            ids.push(first.expect_message(if n % 2 == 1 { message.qos2(0) } else { message.qos1(0) }).await);
        }
        first.expect_nothing_for_one_ping().await;
        // The quota is used up; what follows is none of its business.
        first.send(subscribe(5, "u", QoS::AtMostOnce)).await;
        first.expect(suback(5, [ReasonCode::Success])).await;
        other.published(publish("u", "0")).await;
        first.expect_publish(publish("u", "0")).await;
        first.send(publish("v", "1").qos2(1)).await;
        first.expect(pubrec(1).because(ReasonCode::NoMatchingSubscribers)).await;
        first.send(pubrel(1)).await;
        first.expect(pubcomp(1)).await;
        first.send(publish("v", "2").qos1(2)).await;
        first.expect(puback(2).because(ReasonCode::NoMatchingSubscribers)).await;
        first.send(unsubscribe(6, "u")).await;
        first.expect(unsuback(6, [ReasonCode::Success])).await;
        first.send(pubrec(ids[0])).await;
        first.expect(pubrel(ids[0])).await;
        // PUBREC makes no room, PUBCOMP does.
        first.expect_nothing_for_one_ping().await;
        first.send(pubcomp(ids[0])).await;
        let next = publish("t", (maximum + 1).to_string());
        let next = if maximum % 2 == 0 { next.qos2(0) } else { next.qos1(0) };
        let next_id = first.expect_message(next.clone()).await;
        first.expect_nothing_for_one_ping().await;
        first.hang_up().await;
        // The next connection may take one more than is in flight, and gets it.
        let mut second = broker.peer(Version::V5).await;
        second.send(dev().receive_maximum(maximum + 1)).await;
        second.expect(connack_present()).await;
        for n in 2..=maximum {
            let message = publish("t", n.to_string()).dup();
            let id = ids[usize::from(n) - 1];
            second.expect_publish(if n % 2 == 1 { message.qos2(id) } else { message.qos1(id) }).await;
        }
        second.expect_publish(Publishing { packet_id: next_id, dup: true, ..next }).await;
        let after = publish("t", (maximum + 2).to_string());
        second.expect_message(if maximum % 2 == 1 { after.qos2(0) } else { after.qos1(0) }).await;
        second.expect_nothing_for_one_ping().await;
        second.leave().await;
        other.leave().await;
        broker.client(Version::V5, connect("dev")).await.leave().await;
    }
}

/// [MQTT-4.4.0-2]: a PUBACK or PUBREC of 0x80 or above ends the message; it does not come again, awake or after a sleep.
#[tokio::test]
async fn a_refused_message_is_not_sent_again() {
    let broker = Broker::start();
    let dev = || connect("dev").persistent();
    broker.sleeper(Version::V5, "dev", "t", QoS::ExactlyOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("t", "1").qos1(1)).await;
    other.published(publish("t", "2").qos2(2)).await;
    other.published(publish("t", "3").qos1(3)).await;
    let mut first = broker.returning(Version::V5, dev()).await;
    let one = first.expect_message(publish("t", "1").qos1(0)).await;
    let two = first.expect_message(publish("t", "2").qos2(0)).await;
    let three = first.expect_message(publish("t", "3").qos1(0)).await;
    first.send(puback(one).because(ReasonCode::ImplementationSpecificError)).await;
    first.send(pubrec(two).because(ReasonCode::QuotaExceeded)).await;
    first.expect_nothing_for_one_ping().await;
    first.hang_up().await;
    let mut second = broker.returning(Version::V5, dev()).await;
    // Only what was not answered at all.
    second.take(publish("t", "3").qos1(three).dup()).await;
    second.expect_nothing_for_one_ping().await;
}
