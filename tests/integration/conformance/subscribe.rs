//! SUBSCRIBE and SUBACK: sections 3.8 and 3.9 of both versions.

use dormouse::codec::{QoS, ReasonCode, RetainHandling, SubscribeOptions, Version};

use super::raw::{ALL, NO_STRINGS, flags_but, no_properties, packet, shown_out, string};
use crate::{
    harness::Broker,
    peer::packets::{Publishing, Spec, connect, puback, publish, suback, subscribe, subscribe_with},
    transcripts::scene::{BOTH, options},
};

const SUBSCRIBE: u8 = 0x82;
const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// The body of a SUBSCRIBE with the packet id 7 and these filters and options.
fn body(version: Version, filters: &[(&[u8], u8)]) -> Vec<u8> {
    let mut body = vec![0, 7];
    body.extend_from_slice(no_properties(version));
    for (filter, options) in filters {
        body.extend_from_slice(&string(filter));
        body.push(*options);
    }
    body
}

/// [MQTT-3.8.1-1], [MQTT3-3.8.1-1]: SUBSCRIBE has the flags 0010; any other closes the connection. 3.1 has DUP there, on
/// one that is sent again.
#[tokio::test]
async fn subscribe_with_other_flags_is_malformed() {
    let broker = Broker::start();
    for version in ALL {
        for flags in flags_but(0b0010).filter(|&flags| version != Version::V31 || flags != 0b1010) {
            let bytes = packet(0x80 | flags, &body(version, &[(b"t", 0)]));
            shown_out(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
        let mut dev = broker.client(version, connect("dev")).await;
        let flags = if version == Version::V31 { 0b1010 } else { 0b0010 };
        dev.send_bytes(&packet(0x80 | flags, &body(version, &[(b"t", 0)]))).await;
        dev.expect(suback(7, [ReasonCode::Success])).await;
        dev.leave().await;
    }
}

/// [MQTT-3.8.3-1], [MQTT3-3.8.3-1]: a topic filter is UTF-8; what is none is malformed, also behind one that is.
#[tokio::test]
async fn a_topic_filter_is_utf_8() {
    let broker = Broker::start();
    for version in BOTH {
        for filter in NO_STRINGS {
            let bytes = packet(SUBSCRIBE, &body(version, &[(b"t", 0), (filter, 0)]));
            shown_out(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("grüße/日本/🐭/+", QoS::AtMostOnce).await;
        dev.send(publish("grüße/日本/🐭/1", "1")).await;
        dev.expect_publish(publish("grüße/日本/🐭/1", "1")).await;
        dev.leave().await;
    }
}

/// [MQTT-3.8.3-2], [MQTT3-3.8.3-3]: at least one filter, and each with its options.
#[tokio::test]
async fn subscribe_has_a_filter() {
    let broker = Broker::start();
    for version in ALL {
        shown_out(&broker, version, &packet(SUBSCRIBE, &body(version, &[])), ReasonCode::ProtocolError).await;
        let mut without_options = body(version, &[(b"t", 0)]);
        without_options.pop();
        let bytes = packet(SUBSCRIBE, &without_options);
        shown_out(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send_bytes(&packet(SUBSCRIBE, &body(version, &[(b"t", 0)]))).await;
        dev.expect(suback(7, [ReasonCode::Success])).await;
        dev.leave().await;
    }
}

/// [MQTT-3.8.3-5], [MQTT3-3.8.3-4]: reserved options are malformed; QoS 3, and in v5 retain handling 3, are protocol
/// errors. v3 has nothing but the QoS.
#[tokio::test]
async fn subscribe_with_reserved_options_is_refused() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    let broker = Broker::start();
    let v5 = [(0x40, MalformedPacket), (0x80, MalformedPacket), (0x03, ProtocolError), (0x30, ProtocolError)];
    let v3 = [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80].map(|options| (options, MalformedPacket));
    for (version, refused, taken) in [(Version::V311, &v3[..], 0x02), (Version::V5, &v5, 0x2e)] {
        for &(options, reason) in refused {
            let bytes = packet(SUBSCRIBE, &body(version, &[(b"t", 0), (b"u", options)]));
            shown_out(&broker, version, &bytes, reason).await;
        }
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send_bytes(&packet(SUBSCRIBE, &body(version, &[(b"t", 0), (b"u", taken)]))).await;
        dev.expect(suback(7, [ReasonCode::Success, ReasonCode::GrantedQos2])).await;
        dev.leave().await;
    }
}

/// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT3-3.8.4-1], [MQTT3-3.8.4-2]: every SUBSCRIBE gets a SUBACK with its packet id, the
/// same filter again too, and the subscription holds from then on.
#[tokio::test]
async fn subscribe_is_answered_with_its_packet_id() {
    let broker = Broker::start();
    for version in ALL {
        let mut dev = broker.client(version, connect("dev")).await;
        for id in [1, 0x0100, 65_535, 1] {
            for qos in EVERY_QOS {
                dev.send(subscribe(id, "t", qos)).await;
                dev.expect(suback(id, [ReasonCode::granted(qos)])).await;
            }
        }
        dev.send(publish("t", "1")).await;
        dev.expect_publish(publish("t", "1")).await;
        dev.leave().await;
    }
}

/// [MQTT-3.8.4-6], [MQTT-3.8.4-7], [MQTT-3.9.3-1], [MQTT-3.9.3-2], [MQTT3-3.8.4-5], [MQTT3-3.9.3-1], [MQTT3-3.9.3-2]: a
/// reason for each filter, in their order: the QoS that was granted, or why it was refused, for which 3.1.1 has one word,
/// and 3.1 none: it gets the same.
#[tokio::test]
async fn suback_has_a_reason_for_each_filter_in_order() {
    let broker = Broker::start();
    for version in ALL {
        let refused = if version.is_v5() { 0x8f } else { 0x80 };
        let filters: [(&[u8], u8); 7] =
            [(b"2", 2), (b"a/#/b", 1), (b"0", 0), (b"a+", 0), (b"1", 1), (b"", 2), (b"$share//t", 0)];
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev").problem_information(false)).await;
        dev.send_bytes(&packet(SUBSCRIBE, &body(version, &filters))).await;
        let mut expected = vec![0, 7];
        expected.extend_from_slice(no_properties(version));
        expected.extend_from_slice(&[2, refused, 0, refused, 1, refused, refused]);
        dev.expect_bytes(&packet(0x90, &expected)).await;
        for (topic, qos) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
            other.published(publish(topic, "x").qos2(1)).await;
            dev.take(with_qos(publish(topic, "x"), qos)).await;
        }
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// [MQTT-3.8.4-5], [MQTT3-3.8.4-4]: several filters in one packet do what several packets would: the same one again
/// replaces the first, and each gets the retained messages it matches.
#[tokio::test]
async fn several_filters_are_several_subscriptions() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("a/b", "kept").qos2(1).retained()).await;
        let mut dev = broker.client(version, connect("dev")).await;
        let twice =
            subscribe(7, "a/b", QoS::ExactlyOnce).and("c", QoS::AtMostOnce).and("a/b", QoS::AtLeastOnce);
        dev.send(twice).await;
        let granted = [ReasonCode::GrantedQos2, ReasonCode::Success, ReasonCode::GrantedQos1];
        dev.expect(suback(7, granted)).await;
        let two = dev.expect_message(publish("a/b", "kept").qos2(0).retained()).await;
        let one = dev.expect_message(publish("a/b", "kept").qos1(0).retained()).await;
        dev.acknowledge(QoS::ExactlyOnce, two).await;
        dev.acknowledge(QoS::AtLeastOnce, one).await;
        other.published(publish("a/b", "1").qos2(2)).await;
        other.published(publish("c", "2").qos2(3)).await;
        dev.take(publish("a/b", "1").qos1(0)).await;
        dev.take(publish("c", "2")).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.published(publish("a/b", "").retained()).await;
        other.leave().await;
    }
}

/// [MQTT-3.8.4-3], [MQTT-3.8.4-4], [MQTT3-3.8.4-3]: the same filter again replaces the subscription, sends what is
/// retained anew, and no message that passes meanwhile is lost or doubled.
#[tokio::test]
async fn replacing_a_subscription_loses_no_message() {
    const MESSAGES: u16 = 300;
    const EACH: u16 = 10;
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t/kept", "kept").qos1(1).retained()).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t/+", QoS::AtLeastOnce).await;
        dev.take(publish("t/kept", "kept").qos1(0).retained()).await;
        let (mut kept, mut subacks, mut next) = (0, 0, 1);
        for n in 1..=MESSAGES {
            other.send(publish("t/live", n.to_string()).qos1(n)).await;
            if n % EACH == 0 {
                dev.send(subscribe(n, "t/+", QoS::AtLeastOnce)).await;
            }
        }
        while next <= MESSAGES || subacks < MESSAGES / EACH || kept < MESSAGES / EACH {
            match dev.receive().await {
                Spec::Publish(received) => {
                    dev.send(puback(received.packet_id)).await;
                    if received.retain {
                        assert_eq!(received.payload, b"kept");
                        kept += 1;
                    } else {
                        assert_eq!(received.payload, next.to_string().as_bytes());
                        next += 1;
                    }
                }
                answer => {
                    subacks += 1;
                    assert_eq!(answer, suback(subacks * EACH, [ReasonCode::GrantedQos1]));
                }
            }
        }
        for n in 1..=MESSAGES {
            other.expect(puback(n)).await;
        }
        dev.expect_nothing_for_one_ping().await;
        // What replaces may be less.
        dev.send(subscribe(1, "t/+", QoS::AtMostOnce)).await;
        dev.expect(suback(1, [ReasonCode::Success])).await;
        dev.expect_publish(publish("t/kept", "kept").retained()).await;
        other.published(publish("t/live", "1").qos1(1)).await;
        dev.expect_publish(publish("t/live", "1")).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// [MQTT-3.8.4-8], [MQTT3-3.8.4-6]: the lesser of the message's quality of service and the subscription's, for each pair,
/// live and retained.
#[tokio::test]
async fn a_message_has_the_lesser_qos_of_its_own_and_the_subscriptions() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        for granted in EVERY_QOS {
            let mut dev = broker.client(version, connect("dev")).await;
            dev.subscribed("t", granted).await;
            for published in EVERY_QOS {
                let message = with_qos(publish("t", "1"), published);
                let expected = with_qos(publish("t", "1"), published.min(granted));
                other.published(message.clone().retained()).await;
                dev.take(expected.clone()).await;
                dev.subscribed("t", granted).await;
                dev.take(expected.retained()).await;
                other.published(publish("t", "").retained()).await;
                dev.expect_publish(publish("t", "")).await;
            }
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
        }
        other.leave().await;
    }
}

/// [MQTT-3.8.3-4]: no local on a shared subscription is a protocol error, wherever in the packet it stands; one without
/// the other is not.
#[tokio::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = Broker::start();
    let bytes = packet(SUBSCRIBE, &body(Version::V5, &[(b"t", 0), (b"$share/g/t", 0x04)]));
    shown_out(&broker, Version::V5, &bytes, ReasonCode::ProtocolError).await;
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    let no_local = SubscribeOptions { no_local: true, ..options(QoS::AtMostOnce) };
    let handling =
        SubscribeOptions { retain_handling: RetainHandling::DoNotSend, ..options(QoS::AtMostOnce) };
    dev.send(subscribe_with(7, "t", no_local).and_with("$share/g/u", handling)).await;
    dev.expect(suback(7, [ReasonCode::Success; 2])).await;
    dev.send(publish("t", "1")).await;
    dev.send(publish("u", "2")).await;
    dev.expect_publish(publish("u", "2")).await;
    dev.expect_nothing_for_one_ping().await;
}

/// Messages may come before the SUBACK, and there are clients that lose them: see docs/interop.md. Here they wait for it,
/// though it waits for the disk.
#[tokio::test]
async fn no_message_overtakes_the_suback() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        let own = [publish("t", "0"), publish("t", "1").qos1(8)].map(Spec::from);
        dev.send_all([subscribe(7, "t", QoS::AtLeastOnce).into()].into_iter().chain(own)).await;
        dev.expect(suback(7, [ReasonCode::GrantedQos1])).await;
        let (mut messages, mut is_answered) = (Vec::new(), false);
        while messages.len() < 2 || !is_answered {
            match dev.receive().await {
                Spec::Publish(message) => {
                    dev.acknowledge(message.qos, message.packet_id).await;
                    messages.push(message.payload);
                }
                answer => {
                    assert_eq!(answer, puback(8));
                    is_answered = true;
                }
            }
        }
        messages.sort();
        assert_eq!(messages, [b"0", b"1"]);
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// The standard is silent on it, and brokers differ: see docs/interop.md. A retained message is the topic's, and comes to
/// its publisher too; a message of its own that passes does not.
#[tokio::test]
async fn a_retained_message_of_its_own_comes_to_a_no_local_subscription() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.published(publish("t", "kept").qos1(1).retained()).await;
    let no_local = SubscribeOptions { no_local: true, ..options(QoS::AtMostOnce) };
    dev.send(subscribe_with(7, "t", no_local)).await;
    dev.expect(suback(7, [ReasonCode::Success])).await;
    dev.expect_publish(publish("t", "kept").retained()).await;
    dev.send(publish("t", "passes")).await;
    dev.expect_nothing_for_one_ping().await;
}

fn with_qos(message: Publishing, qos: QoS) -> Publishing {
    match qos {
        QoS::AtMostOnce => message,
        QoS::AtLeastOnce => message.qos1(9),
        QoS::ExactlyOnce => message.qos2(9),
    }
}
