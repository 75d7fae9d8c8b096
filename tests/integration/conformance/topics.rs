//! Section 4.7: topic names and topic filters.

use dormouse::codec::{Packet, QoS, ReasonCode, Suback};

use crate::{
    harness::Broker,
    peer::packets::{connect, publish, suback, subscribe},
    transcripts::scene::BOTH,
};

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT3-4.7.1-2], [MQTT3-4.7.1-3], [MQTT3-4.7.3-1]: a filter that breaks the
/// rules is refused, alone; those of the standard's own examples that keep them are granted.
#[tokio::test]
async fn filters_keep_the_rules_of_wildcards() {
    let broker = Broker::start();
    for version in BOTH {
        let refused =
            if version.is_v5() { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
        let mut dev = broker.client(version, connect("dev")).await;
        for bad in
            ["", "sport/tennis#", "sport/tennis/#/ranking", "#/a", "##", "sport+", "+a/b", "a/b+/c", "++"]
        {
            dev.send(subscribe(1, bad, QoS::AtMostOnce).and("good", QoS::AtMostOnce)).await;
            let reasons = dev.receive_with(reasons).await;
            assert_eq!(reasons, [refused, ReasonCode::Success], "{bad:?}");
        }
        for good in ["#", "+", "sport/tennis/#", "+/tennis/#", "sport/+/player1", "/+", "/", "+/+", "a//b"] {
            dev.send(subscribe(2, good, QoS::AtMostOnce)).await;
            dev.expect(suback(2, [ReasonCode::Success])).await;
        }
        dev.leave().await;
    }
}

fn reasons(packet: &Packet<'_>) -> Vec<ReasonCode> {
    let Packet::Suback(Suback { reasons, .. }) = packet else { panic!("{packet:?}") };
    reasons.clone()
}

/// [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT3-4.7.1-1], [MQTT3-4.7.3-1]: a topic name has no wildcard, and is not empty.
#[tokio::test]
async fn topic_names_have_no_wildcards_and_are_not_empty() {
    let broker = Broker::start();
    for version in BOTH {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("#", QoS::AtMostOnce).await;
        for bad in ["", "#", "+", "a/#", "a/+/b", "a+", "b#c"] {
            let mut dev = broker.client(version, connect("dev")).await;
            dev.send(publish(bad, "x")).await;
            // An empty name without an alias is a protocol error of v5 (section 3.3.2.1).
            let reason =
                if bad.is_empty() { ReasonCode::ProtocolError } else { ReasonCode::TopicNameInvalid };
            dev.expect_shown_out(version, reason).await;
        }
        reader.expect_nothing_for_one_ping().await;
        reader.leave().await;
    }
}

/// [MQTT-4.7.3-2], [MQTT3-4.7.3-2]: U+0000 in a name or a filter ends the connection.
#[tokio::test]
async fn topics_have_no_null_character() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send(publish("a\0b", "x")).await;
        dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send(subscribe(1, "a\0b", QoS::AtMostOnce)).await;
        dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
    }
}

/// [MQTT-4.7.3-3], [MQTT3-4.7.3-3]: 65,535 bytes are taken and given on whole, in names and filters; more has no encoding.
#[tokio::test]
async fn the_longest_topic_is_65_535_bytes() {
    let broker = Broker::start();
    let longest = "é".repeat(32_767) + "x";
    assert_eq!(longest.len(), 65_535);
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed(&longest, QoS::AtLeastOnce).await;
        dev.send(publish(&longest, "1")).await;
        dev.expect_publish(publish(&longest, "1")).await;
        dev.leave().await;
    }
}

/// [MQTT-4.7.3-4], [MQTT3-4.7.3-4]: byte by byte. Neither case, nor the two ways to write a letter, nor slashes and blanks are
/// made the same.
#[tokio::test]
async fn topics_are_compared_without_normalisation() {
    let broker = Broker::start();
    let topics = [
        "ACCOUNTS",
        "Accounts",
        "accounts",
        "accounts/",
        "/accounts",
        "ac counts",
        "\u{e9}",
        "e\u{301}",
        "\u{212b}",
        "\u{c5}",
    ];
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        for filter in topics {
            let mut dev = broker.client(version, connect("dev")).await;
            dev.subscribed(filter, QoS::AtMostOnce).await;
            for topic in topics {
                other.published(publish(topic, "x")).await;
            }
            dev.expect_publish(publish(filter, "x")).await;
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
        }
        other.leave().await;
    }
}
