//! Sections 3.1.2.5 to 3.1.2.7 and 3.1.3.2: the will.

use dormouse::codec::{QoS, ReasonCode, RetainHandling, Version};

use crate::{
    harness::Broker,
    peer::packets::{Connecting, Publishing, connect, publish, suback, subscribe_with},
    transcripts::scene::{BOTH, options},
};

fn will() -> Publishing {
    publish("will/dev", "gone").qos1(0)
}

fn dev() -> Connecting {
    connect("dev").persistent()
}

/// [MQTT-3.1.2-7], [MQTT-3.1.2-10], [MQTT3-3.1.2-8], [MQTT3-3.1.2-10], [MQTT3-3.1.2-12]: a will is of the connection that
/// brought it: once published or taken back it is gone, and the next connection has the one it brings, or none.
#[tokio::test]
async fn a_will_is_used_up() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = broker.client(version, connect("watcher")).await;
        watcher.subscribed("will/#", QoS::AtLeastOnce).await;
        broker.client(version, dev().will(will())).await.hang_up().await;
        watcher.take(will()).await;
        // Published: a loss without a will has none.
        lost(&broker, version, dev()).await;
        watcher.expect_nothing_for_one_ping().await;
        // Taken back: nor has that.
        broker.returning(version, dev().will(will())).await.leave().await;
        lost(&broker, version, dev()).await;
        watcher.expect_nothing_for_one_ping().await;
        // The end of the session brings nothing back.
        broker.client(version, connect("dev")).await.leave().await;
        watcher.expect_nothing_for_one_ping().await;
        // And another will is another will.
        let other = publish("will/other", "changed");
        broker.client(version, dev().will(other.clone())).await.hang_up().await;
        watcher.take(other).await;
        broker.client(version, connect("dev")).await.leave().await;
        watcher.expect_nothing_for_one_ping().await;
        watcher.leave().await;
    }
}

/// A connection of a session that is there, lost, and noticed.
async fn lost(broker: &Broker, version: Version, connecting: Connecting) {
    let mut first = broker.returning(version, connecting.clone()).await;
    // Taken over rather than hung up, so that it is known to be over.
    let second = broker.returning(version, connecting).await;
    first.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
    second.leave().await;
}

/// [MQTT-3.1.2-14], [MQTT3-3.1.2-16]: published as not retained, it is heard by who is there, with RETAIN 0 whatever the
/// subscriber asked for, and leaves what is retained as it was.
#[tokio::test]
async fn a_will_without_retain_is_not_retained() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = broker.client(version, connect("watcher")).await;
        watcher.published(publish("will/dev", "before").qos1(1).retained()).await;
        watcher.subscribed("will/#", QoS::AtLeastOnce).await;
        watcher.take(publish("will/dev", "before").qos1(0).retained()).await;
        if version.is_v5() {
            let mut options = options(QoS::AtLeastOnce);
            options.retain_as_published = true;
            options.retain_handling = RetainHandling::DoNotSend;
            watcher.send(subscribe_with(2, "will/#", options)).await;
            watcher.expect(suback(2, [ReasonCode::GrantedQos1])).await;
        }
        broker.client(version, connect("dev").will(will())).await.hang_up().await;
        watcher.take(will()).await;
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("will/#", QoS::AtLeastOnce).await;
        late.take(publish("will/dev", "before").qos1(0).retained()).await;
        late.expect_nothing_for_one_ping().await;
        late.leave().await;
        watcher.leave().await;
        let mut tidy = broker.client(version, connect("tidy")).await;
        tidy.published(publish("will/dev", "").qos1(1).retained()).await;
        tidy.leave().await;
    }
}

/// [MQTT-3.1.3-10]: user properties of a will in their order, also those of the same name.
#[tokio::test]
async fn user_properties_of_a_will_keep_their_order() {
    let broker = Broker::start();
    let mut watcher = broker.client(Version::V5, connect("watcher")).await;
    watcher.subscribed("will/#", QoS::AtLeastOnce).await;
    let user = [("b", "1"), ("a", "2"), ("b", "0"), ("", ""), ("b", "1")];
    let user = user.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let will = Publishing { user, ..will() };
    broker.client(Version::V5, connect("dev").will(will.clone())).await.hang_up().await;
    watcher.take(will).await;
}
