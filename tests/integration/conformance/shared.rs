//! Section 4.8.2: what the members of a shared subscription get. What becomes of their messages when they end stands in
//! `transcripts::shared` as well.

use dormouse::codec::{QoS, ReasonCode, Version};

use crate::{
    harness::Broker,
    peer::packets::{connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe},
};

const GROUP: &str = "$share/g/t";

/// [MQTT-4.8.2-1], [MQTT-4.8.2-2]: a share name of at least one character, without wildcards, then a topic filter.
#[tokio::test]
async fn a_share_has_a_name_and_a_filter() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    for filter in ["$share//t", "$share/g", "$share/g/", "$share/g+/t", "$share/#/t", "$share/+/t"] {
        dev.send(subscribe(1, filter, QoS::AtMostOnce).and("$share/g/+/#", QoS::AtMostOnce)).await;
        dev.expect(suback(1, [ReasonCode::TopicFilterInvalid, ReasonCode::granted(QoS::AtMostOnce)])).await;
    }
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("a/b", "1").qos1(1)).await;
    dev.take(publish("a/b", "1")).await;
}

/// [MQTT-4.8.2-3]: no member gets a message with more than the quality of service it was granted.
#[tokio::test]
async fn a_member_gets_no_more_than_its_quality() {
    let broker = Broker::start();
    for granted in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut dev = broker.client(Version::V5, connect("dev")).await;
        dev.subscribed(GROUP, granted).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        for (n, sent) in [(1, QoS::AtMostOnce), (2, QoS::AtLeastOnce), (3, QoS::ExactlyOnce)] {
            let message = publish("t", n.to_string());
            let of = |qos, id| match qos {
                QoS::AtMostOnce => message.clone(),
                QoS::AtLeastOnce => message.clone().qos1(id),
                QoS::ExactlyOnce => message.clone().qos2(id),
            };
            other.published(of(sent, n)).await;
            dev.take(of(sent.min(granted), 0)).await;
        }
        dev.leave().await;
        other.leave().await;
    }
}

/// [MQTT-4.8.2-4]: a QoS 2 delivery is completed with the member it began with, when that comes back.
#[tokio::test]
async fn a_delivery_is_completed_with_the_member_it_began_with() {
    for is_received in [false, true] {
        let mut broker = Broker::start();
        let mut one = broker.client(Version::V5, connect("one").persistent()).await;
        one.subscribed(GROUP, QoS::ExactlyOnce).await;
        let mut other = broker.client(Version::V5, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        let id = one.expect_message(publish("t", "1").qos2(0)).await;
        if is_received {
            one.send(pubrec(id)).await;
            one.expect(pubrel(id)).await;
        }
        let mut two = broker.client(Version::V5, connect("two").persistent()).await;
        two.subscribed(GROUP, QoS::ExactlyOnce).await;
        one.hang_up().await;
        two.expect_nothing_for_one_ping().await;
        broker.restart();

        let mut one = broker.returning(Version::V5, connect("one").persistent()).await;
        if !is_received {
            one.expect_publish(publish("t", "1").qos2(id).dup()).await;
            one.send(pubrec(id)).await;
        }
        one.expect(pubrel(id)).await;
        one.send(pubcomp(id)).await;
        one.expect_nothing_for_one_ping().await;
        let mut two = broker.returning(Version::V5, connect("two").persistent()).await;
        two.expect_nothing_for_one_ping().await;
    }
}

/// [MQTT-4.8.2-5]: once begun with a member whose session ends, it goes to nobody else.
#[tokio::test]
async fn a_delivery_that_had_begun_goes_to_nobody_else() {
    let broker = Broker::start();
    let mut one = broker.client(Version::V5, connect("one").persistent()).await;
    one.subscribed(GROUP, QoS::ExactlyOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("t", "begun").qos2(1)).await;
    one.expect_message(publish("t", "begun").qos2(0)).await;
    let mut two = broker.client(Version::V5, connect("two")).await;
    two.subscribed(GROUP, QoS::ExactlyOnce).await;
    one.hang_up().await;
    // Beginning anew ends its session.
    broker.client(Version::V5, connect("one")).await.leave().await;
    two.expect_nothing_for_one_ping().await;
    other.published(publish("t", "next").qos2(2)).await;
    two.take(publish("t", "next").qos2(0)).await;
}

/// [MQTT-4.8.2-6]: what a member refuses is discarded.
#[tokio::test]
async fn what_a_member_refuses_goes_to_nobody_else() {
    let broker = Broker::start();
    let mut one = broker.client(Version::V5, connect("one").persistent()).await;
    one.subscribed(GROUP, QoS::ExactlyOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("t", "1").qos1(1)).await;
    other.published(publish("t", "2").qos2(2)).await;
    let first = one.expect_message(publish("t", "1").qos1(0)).await;
    let second = one.expect_message(publish("t", "2").qos2(0)).await;
    let mut two = broker.client(Version::V5, connect("two")).await;
    two.subscribed(GROUP, QoS::ExactlyOnce).await;
    one.send(puback(first).because(ReasonCode::QuotaExceeded)).await;
    one.send(pubrec(second).because(ReasonCode::QuotaExceeded)).await;
    one.expect_nothing_for_one_ping().await;
    two.expect_nothing_for_one_ping().await;
    one.leave().await;
    let mut one = broker.returning(Version::V5, connect("one").persistent()).await;
    one.expect_nothing_for_one_ping().await;
    two.expect_nothing_for_one_ping().await;
}
