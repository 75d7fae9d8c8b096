//! What a subscription asks for besides a filter.

use dormouse::codec::{QoS, ReasonCode, RetainHandling, SubscribeOptions, Version};

use super::scene::{BOTH, options};
use crate::{
    harness::Broker,
    peer::packets::{
        Subscribing, connect, puback, publish, suback, subscribe, subscribe_with, unsuback, unsubscribe,
    },
};

/// A SUBSCRIBE with one filter and these options, for which the packet id is 1.
fn asking(filter: &str, options: SubscribeOptions) -> Subscribing {
    subscribe_with(1, filter, options)
}

/// [MQTT-3.3.4-3], [MQTT-3.3.4-4]: a message that matches several subscriptions carries all their identifiers.
#[tokio::test]
async fn a_delivery_names_every_subscription_it_matched() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut dev = broker.client(Version::V5, connect("dev").persistent()).await;
        dev.send(subscribe(1, "a/#", qos).subscription_id(7)).await;
        dev.expect(suback(1, [ReasonCode::granted(qos)])).await;
        dev.send(subscribe(2, "a/+", qos).subscription_id(268_435_455)).await;
        dev.expect(suback(2, [ReasonCode::granted(qos)])).await;
        dev.send(subscribe(3, "+/b", qos)).await;
        dev.expect(suback(3, [ReasonCode::granted(qos)])).await;
        other.send(publish("a/b", "1").qos1(1)).await;
        let mut both = dev.receive_publish().await;
        both.subscription_ids.sort_unstable();
        let id = both.packet_id;
        let expected = publish("a/b", "1").ids(&[7, 268_435_455]);
        assert_eq!(both, if qos == QoS::AtMostOnce { expected } else { expected.qos1(id) });
        dev.acknowledge(qos, id).await;
        other.expect(puback(1)).await;
        // Without one where the subscription has none, with the new one where it was replaced.
        other.published(publish("x/b", "2")).await;
        dev.expect_publish(publish("x/b", "2")).await;
        dev.send(subscribe(4, "a/#", qos).subscription_id(8)).await;
        dev.expect(suback(4, [ReasonCode::granted(qos)])).await;
        other.published(publish("a/c/d", "3")).await;
        dev.expect_publish(publish("a/c/d", "3").ids(&[8])).await;
        dev.leave().await;
        broker.client(Version::V5, connect("dev")).await.leave().await;
    }
}

/// [MQTT-3.3.4-6]: the identifier is the subscriber's and the broker's, not the publisher's.
#[tokio::test]
async fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.send(publish("t", "1").ids(&[1])).await;
    dev.expect_shown_out(Version::V5, ReasonCode::ProtocolError).await;
}

/// [MQTT-3.8.3-3]: and another subscription of the same client that is not "no local" still hears it.
#[tokio::test]
async fn no_local_does_not_hear_its_own_client() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.send(asking("t/#", SubscribeOptions { no_local: true, ..options(QoS::AtLeastOnce) })).await;
    dev.expect(suback(1, [ReasonCode::GrantedQos1])).await;
    dev.published(publish("t/1", "mine").qos1(1)).await;
    dev.expect_nothing_for_one_ping().await;
    other.published(publish("t/1", "theirs")).await;
    dev.expect_publish(publish("t/1", "theirs")).await;
    dev.subscribed("+/1", QoS::AtMostOnce).await;
    dev.send(publish("t/1", "mine")).await;
    dev.expect_publish(publish("t/1", "mine")).await;
    dev.expect_nothing_for_one_ping().await;
    // [MQTT-3.8.3-4]
    dev.send(asking("$share/g/t", SubscribeOptions { no_local: true, ..options(QoS::AtMostOnce) })).await;
    dev.expect_shown_out(Version::V5, ReasonCode::ProtocolError).await;
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]
#[tokio::test]
async fn the_retain_flag_is_kept_only_where_asked() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    for (published, expected) in [(false, publish("t", "1")), (true, publish("t", "1").retained())] {
        let mut dev = broker.client(Version::V5, connect("dev")).await;
        let retain_handling = RetainHandling::DoNotSend;
        let asked =
            SubscribeOptions { retain_as_published: published, retain_handling, ..options(QoS::AtLeastOnce) };
        dev.send(asking("t", asked)).await;
        dev.expect(suback(1, [ReasonCode::GrantedQos1])).await;
        other.published(publish("t", "1").retained()).await;
        dev.take(expected.clone()).await;
        other.published(publish("t", "1").qos1(1).retained()).await;
        dev.take(expected.qos1(0)).await;
        other.published(publish("t", "2")).await;
        dev.take(publish("t", "2")).await;
        dev.leave().await;
    }
    let mut old = broker.client(Version::V311, connect("old")).await;
    old.subscribed("u", QoS::AtMostOnce).await;
    other.published(publish("u", "1").retained()).await;
    old.expect_publish(publish("u", "1")).await;
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]; v3 gets them with every SUBSCRIBE [MQTT3-3.8.4-3].
#[tokio::test]
async fn retained_messages_come_as_retain_handling_says() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("t", "kept").qos1(1).retained()).await;
    let cases = [
        (RetainHandling::Send, [true, true]),
        (RetainHandling::SendIfNew, [true, false]),
        (RetainHandling::DoNotSend, [false, false]),
    ];
    for (retain_handling, comes) in cases {
        let mut dev = broker.client(Version::V5, connect("dev")).await;
        for comes in comes {
            dev.send(asking("t", SubscribeOptions { retain_handling, ..options(QoS::AtLeastOnce) })).await;
            dev.expect(suback(1, [ReasonCode::GrantedQos1])).await;
            if comes {
                dev.take(publish("t", "kept").qos1(0).retained()).await;
            }
            dev.expect_nothing_for_one_ping().await;
        }
        dev.leave().await;
    }
    let mut old = broker.client(Version::V311, connect("old")).await;
    for _ in 0..2 {
        old.subscribed("#", QoS::AtMostOnce).await;
        old.expect_publish(publish("t", "kept").retained()).await;
        old.expect_nothing_for_one_ping().await;
    }
}

/// [MQTT-3.3.1-5], [MQTT-3.3.1-6]: the latest is kept, and an empty one clears it.
#[tokio::test]
async fn the_latest_retained_message_is_kept_until_it_is_cleared() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut watcher = broker.client(version, connect("watcher")).await;
        watcher.subscribed("t", QoS::AtMostOnce).await;
        for payload in ["1", "2"] {
            other.published(publish("t", payload).qos2(1).retained()).await;
            watcher.expect_publish(publish("t", payload)).await;
        }
        // Not retained: it passes by.
        other.published(publish("t", "3")).await;
        watcher.expect_publish(publish("t", "3")).await;
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("+", QoS::ExactlyOnce).await;
        late.take(publish("t", "2").qos2(0).retained()).await;
        other.published(publish("t", "").qos1(1).retained()).await;
        watcher.expect_publish(publish("t", "")).await;
        let mut later = broker.client(version, connect("later")).await;
        later.subscribed("#", QoS::AtMostOnce).await;
        later.expect_nothing_for_one_ping().await;
        for peer in [other, watcher, later] {
            peer.leave().await;
        }
    }
}

/// One filter is refused without the others; v3 has one word for it [MQTT3-3.8.4-5].
#[tokio::test]
async fn a_bad_filter_is_refused_alone() {
    let broker = Broker::start_configured("[limits]\nsubscriptions_per_session_max = 2\n");
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send(
            subscribe(1, "a/#/b", QoS::AtMostOnce).and("a/b+", QoS::AtMostOnce).and("ok", QoS::AtLeastOnce),
        )
        .await;
        let refused =
            if version.is_v5() { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
        dev.expect(suback(1, [refused, refused, ReasonCode::GrantedQos1])).await;
        dev.send(subscribe(2, "2", QoS::AtMostOnce).and("3", QoS::AtMostOnce)).await;
        let full = if version.is_v5() { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        dev.expect(suback(2, [ReasonCode::Success, full])).await;
        dev.send(publish("ok", "1")).await;
        dev.expect_publish(publish("ok", "1")).await;
        dev.leave().await;
    }
}

/// [MQTT-3.10.4-1]; an unsubscribed filter ends, the other stays, and one that was not there is told in v5.
#[tokio::test]
async fn unsubscribing_ends_one_subscription() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("a", QoS::AtMostOnce).await;
        dev.subscribed("b", QoS::AtMostOnce).await;
        dev.unsubscribed(version, "a").await;
        dev.send(publish("a", "1")).await;
        dev.send(publish("b", "2")).await;
        dev.expect_publish(publish("b", "2")).await;
        dev.send(unsubscribe(3, "a")).await;
        let reason = version.is_v5().then_some(ReasonCode::NoSubscriptionExisted);
        dev.expect(unsuback(3, reason)).await;
        dev.leave().await;
    }
}
