//! Which clients get a message, and how often.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::packets::{Spec, connect, puback, publish, suback, subscribe},
};

/// [MQTT-3.3.4-2], [MQTT3-3.3.5-1]: overlapping subscriptions deliver once, with the highest quality of service.
#[tokio::test]
async fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send(
            subscribe(1, "a/#", QoS::AtMostOnce)
                .and("a/+/c", QoS::ExactlyOnce)
                .and("a/b/c", QoS::AtLeastOnce)
                .and("#", QoS::AtLeastOnce),
        )
        .await;
        let granted =
            [ReasonCode::Success, ReasonCode::GrantedQos2, ReasonCode::GrantedQos1, ReasonCode::GrantedQos1];
        dev.expect(suback(1, granted)).await;
        other.published(publish("a/b/c", "1").qos2(1)).await;
        dev.take(publish("a/b/c", "1").qos2(0)).await;
        other.published(publish("a/b/c", "2").qos1(2)).await;
        dev.take(publish("a/b/c", "2").qos1(0)).await;
        other.published(publish("a/b/c", "3")).await;
        dev.take(publish("a/b/c", "3")).await;
        other.published(publish("a", "4").qos2(4)).await;
        dev.take(publish("a", "4").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        // [MQTT-3.8.4-3], [MQTT3-3.8.4-3]: the same filter again replaces the subscription.
        dev.subscribed("a/+/c", QoS::AtMostOnce).await;
        other.published(publish("a/b/c", "5").qos2(5)).await;
        dev.take(publish("a/b/c", "5").qos1(0)).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// [MQTT-4.7.1-2], [MQTT3-4.7.1-3]: levels, empty ones too. What is sent to a subscriber has a topic that its filter matches
/// [MQTT-3.3.2-3], [MQTT3-3.3.2-3].
#[tokio::test]
async fn wildcards_match_whole_levels() {
    let broker = Broker::start();
    let matching: [(&str, &[&str]); 6] = [
        ("sport/#", &["sport", "sport/tennis", "sport/tennis/1"]),
        ("sport/+", &["sport/", "sport/tennis"]),
        ("+", &["sport"]),
        ("/+", &["/finance"]),
        ("+/+", &["/finance", "sport/", "sport/tennis"]),
        ("+/tennis/#", &["sport/tennis", "sport/tennis/1", "/tennis"]),
    ];
    let topics =
        ["sport", "sport/", "sport/tennis", "sport/tennis/1", "/finance", "/tennis", "Sport/tenni", "sports"];
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    for version in BOTH {
        for (filter, expected) in matching {
            let mut dev = broker.client(version, connect("dev")).await;
            dev.subscribed(filter, QoS::AtMostOnce).await;
            for topic in topics {
                publisher.published(publish(topic, "")).await;
                let also = filter == "+" && topic == "sports"
                    || filter == "+/+" && ["/tennis", "Sport/tenni"].contains(&topic)
                    || filter == "/+" && topic == "/tennis"
                    || filter == "sport/#" && topic == "sport/";
                if also || expected.contains(&topic) {
                    dev.expect_publish(publish(topic, "")).await;
                }
            }
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
        }
    }
}

/// [MQTT-4.7.2-1], [MQTT3-4.7.2-1]: live and retained.
#[tokio::test]
async fn dollar_topics_are_hidden_from_leading_wildcards() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("$app/a", "kept").qos1(1).retained()).await;
        let mut all = broker.client(version, connect("all")).await;
        all.send(subscribe(1, "#", QoS::AtMostOnce).and("+/a", QoS::AtMostOnce).and("+/#", QoS::AtMostOnce))
            .await;
        all.expect(suback(1, [ReasonCode::Success; 3])).await;
        let mut app = broker.client(version, connect("app")).await;
        app.subscribed("$app/#", QoS::AtMostOnce).await;
        app.expect_publish(publish("$app/a", "kept").retained()).await;
        app.subscribed("$app/+", QoS::AtMostOnce).await;
        app.expect_publish(publish("$app/a", "kept").retained()).await;
        other.published(publish("$app/a", "1")).await;
        app.expect_publish(publish("$app/a", "1")).await;
        // A dollar elsewhere hides nothing.
        other.published(publish("a/$app", "2")).await;
        all.expect_publish(publish("a/$app", "2")).await;
        all.expect_nothing_for_one_ping().await;
        app.expect_nothing_for_one_ping().await;
        for peer in [other, all, app] {
            peer.leave().await;
        }
    }
}

/// Section 4.8.2: one member gets each message, and all have their turn; beside them whoever
/// subscribed for himself gets them all, and a second group one each.
#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let broker = Broker::start();
    for version in BOTH {
        let mut publisher = broker.client(version, connect("publisher")).await;
        let mut members = Vec::new();
        for name in ["one", "two", "three"] {
            let mut member = broker.client(version, connect(name)).await;
            member.subscribed("$share/g/t", QoS::AtMostOnce).await;
            member.subscribed("mark", QoS::AtMostOnce).await;
            members.push(member);
        }
        let mut beside = broker.client(version, connect("beside")).await;
        beside.send(subscribe(1, "t", QoS::AtMostOnce).and("$share/h/t", QoS::AtMostOnce)).await;
        beside.expect(suback(1, [ReasonCode::Success; 2])).await;
        for n in 1..=9 {
            publisher.published(publish("t", n.to_string())).await;
            // Its own, and as the only member of the other group: twice.
            beside.expect_publish(publish("t", n.to_string())).await;
            beside.expect_publish(publish("t", n.to_string())).await;
        }
        beside.expect_nothing_for_one_ping().await;
        publisher.published(publish("mark", "")).await;
        for member in &mut members {
            for _ in 0..3 {
                member.receive_publish().await;
            }
            member.expect_publish(publish("mark", "")).await;
        }
        for peer in members {
            peer.leave().await;
        }
        beside.leave().await;
        publisher.leave().await;
    }
}

/// An online member is preferred to one that sleeps.
#[tokio::test]
async fn an_online_member_of_a_group_is_preferred() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "sleeper", "$share/g/t", QoS::AtLeastOnce).await;
        let mut online = broker.client(version, connect("online")).await;
        online.subscribed("$share/g/t", QoS::AtLeastOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        for n in 1..=10 {
            other.send(publish("t", n.to_string()).qos1(n)).await;
            online.take(publish("t", n.to_string()).qos1(0)).await;
            other.expect(puback(n)).await;
        }
        let mut sleeper = broker.returning(version, connect("sleeper").persistent()).await;
        sleeper.expect_nothing_for_one_ping().await;
        // When the other has gone it is the sleeper's turn.
        online.leave().await;
        other.send(publish("t", "11").qos1(11)).await;
        sleeper.take(publish("t", "11").qos1(0)).await;
        other.expect(puback(11)).await;
        sleeper.leave().await;
        broker.client(version, connect("sleeper")).await.leave().await;
        other.leave().await;
    }
}

/// A group of sleepers keeps each message for one of them, across a crash.
#[tokio::test]
async fn a_sleeping_group_queues_for_one_of_its_members() {
    for version in BOTH {
        let mut broker = Broker::start();
        broker.sleeper(version, "one", "$share/g/t", QoS::AtLeastOnce).await;
        broker.sleeper(version, "two", "$share/g/t", QoS::AtLeastOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        for n in 1..=10 {
            other.published(publish("t", n.to_string()).qos1(n)).await;
        }
        broker.kill9();
        broker.restart();
        let mut seen = Vec::new();
        for name in ["one", "two"] {
            let mut member = broker.returning(version, connect(name).persistent()).await;
            // What it publishes to itself is the last in its queue.
            member.send(subscribe(1, name, QoS::AtLeastOnce)).await;
            member.send(publish(name, "end").qos1(1)).await;
            let before = seen.len();
            loop {
                let Spec::Publish(received) = member.receive().await else { continue };
                member.acknowledge(QoS::AtLeastOnce, received.packet_id).await;
                if received.topic == name {
                    break;
                }
                seen.push(String::from_utf8(received.payload).unwrap().parse::<u16>().unwrap());
            }
            assert!(seen.len() > before, "each has its turn");
            member.hang_up().await;
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=10).collect::<Vec<_>>(), "each exactly once");
    }
}

/// Retained messages are not for groups (section 4.8.2).
#[tokio::test]
async fn a_shared_subscription_gets_no_retained_messages() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.published(publish("t", "kept").qos1(1).retained()).await;
        dev.subscribed("$share/g/t", QoS::AtLeastOnce).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
    }
}

/// A client hears itself, in the order it spoke (section 4.6), whatever the quality of service between.
#[tokio::test]
async fn messages_of_one_publisher_and_topic_stay_in_order() {
    let broker = Broker::start();
    for version in BOTH {
        let mut reader = broker.client(version, connect("reader").persistent()).await;
        reader.subscribed("t", QoS::AtLeastOnce).await;
        let mut publisher = broker.client(version, connect("publisher")).await;
        publisher.send_all((1..=200_u16).map(|n| publish("t", n.to_string()).qos1(n).into())).await;
        for n in 1..=200_u16 {
            reader.take(publish("t", n.to_string()).qos1(0)).await;
        }
        for n in 1..=200 {
            publisher.expect(puback(n)).await;
        }
        reader.leave().await;
        publisher.leave().await;
        broker.client(version, connect("reader")).await.leave().await;
    }
}
