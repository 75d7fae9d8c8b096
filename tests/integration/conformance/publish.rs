//! PUBLISH: section 3.3 of both versions, but for what belongs to subscriptions.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::raw::{ALL, NO_STRINGS, no_properties, packet, shown_out, string};
use crate::{
    harness::Broker,
    peer::packets::{
        Publishing, Spec, connect, puback, pubcomp, publish, pubrec, pubrel, suback, subscribe, unsuback,
        unsubscribe,
    },
    transcripts::scene::BOTH,
};

/// [MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT3-3.3.1-1], [MQTT3-3.3.1-3]: a publisher's DUP goes no further; the broker sets
/// it on what it sends again, and only there.
#[tokio::test]
async fn dup_says_that_this_sender_sends_again() {
    let broker = Broker::start();
    for version in BOTH {
        let mut publisher = broker.client(version, connect("publisher")).await;
        let mut dev = broker.client(version, connect("dev").persistent()).await;
        dev.subscribed("t", QoS::ExactlyOnce).await;
        publisher.send(publish("t", "1").qos1(1).dup()).await;
        let one = dev.expect_message(publish("t", "1").qos1(0)).await;
        publisher.expect(puback(1)).await;
        publisher.published(publish("t", "2").qos2(2).dup()).await;
        let two = dev.expect_message(publish("t", "2").qos2(0)).await;
        publisher.send(publish("t", "3").qos1(3)).await;
        let three = dev.expect_message(publish("t", "3").qos1(0)).await;
        publisher.expect(puback(3)).await;
        dev.leave().await;
        let mut dev = broker.returning(version, connect("dev").persistent()).await;
        dev.expect_publish(publish("t", "1").qos1(one).dup()).await;
        dev.expect_publish(publish("t", "2").qos2(two).dup()).await;
        dev.expect_publish(publish("t", "3").qos1(three).dup()).await;
        for (qos, id) in [(QoS::AtLeastOnce, one), (QoS::ExactlyOnce, two), (QoS::AtLeastOnce, three)] {
            dev.acknowledge(qos, id).await;
        }
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
        publisher.leave().await;
    }
}

/// [MQTT-3.3.1-2], [MQTT3-3.3.1-2]: QoS 0 has no DUP. The broker sets none, whatever the publisher's packet had and
/// however long the message waited; a client that sets it is shown out.
#[tokio::test]
async fn dup_does_not_go_with_qos_0() {
    let broker = Broker::start_configured("[sessions]\nqueue_qos0 = true\n");
    for version in BOTH {
        broker.sleeper(version, "sleeper", "t", QoS::AtMostOnce).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t", QoS::AtMostOnce).await;
        let mut publisher = broker.client(version, connect("publisher")).await;
        publisher.published(publish("t", "1").qos1(1).dup()).await;
        publisher.published(publish("t", "2")).await;
        let mut sleeper = broker.returning(version, connect("sleeper").persistent()).await;
        for reader in [&mut dev, &mut sleeper] {
            reader.expect_publish(publish("t", "1")).await;
            reader.expect_publish(publish("t", "2")).await;
        }
        let with_dup = packet(0x38, &[&string(b"t"), no_properties(version), b"3"].concat());
        shown_out(&broker, version, &with_dup, ReasonCode::ProtocolError).await;
        dev.expect_nothing_for_one_ping().await;
        for peer in [dev, sleeper, publisher] {
            peer.leave().await;
        }
        broker.client(version, connect("sleeper")).await.leave().await;
    }
}

/// [MQTT-3.3.2-1], [MQTT3-3.3.2-1]: a topic name is the first field, and UTF-8; what is none is malformed, and what is
/// goes on byte for byte.
#[tokio::test]
async fn a_topic_name_is_utf_8() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("#", QoS::AtMostOnce).await;
        let mut publisher = broker.client(version, connect("publisher")).await;
        for topic in ["grüße/日本/\u{feff}🐭", "a b", "/"] {
            publisher.published(publish(topic, "1")).await;
            dev.expect_publish(publish(topic, "1")).await;
        }
        for topic in NO_STRINGS {
            let bytes = packet(0x30, &[&string(topic), no_properties(version), b"1"].concat());
            shown_out(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
        // No topic name, and one that is longer than the packet.
        shown_out(&broker, version, &packet(0x30, &[0]), ReasonCode::MalformedPacket).await;
        shown_out(&broker, version, &packet(0x30, &[0, 2, b't']), ReasonCode::MalformedPacket).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
        publisher.leave().await;
    }
}

/// [MQTT-3.3.4-1], [MQTT3-3.3.4-1]: nothing for QoS 0, PUBACK for QoS 1, PUBREC for QoS 2 and PUBCOMP for its PUBREL, each
/// with the packet id.
#[tokio::test]
async fn a_publish_is_answered_as_its_qos_says() {
    let broker = Broker::start();
    for version in ALL {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("t", QoS::AtMostOnce).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send(publish("t", "0")).await;
        dev.expect_nothing_for_one_ping().await;
        reader.expect_publish(publish("t", "0")).await;
        for id in [1, 0x0100, 65_535] {
            dev.send(publish("t", "1").qos1(id)).await;
            dev.expect(puback(id)).await;
            dev.send(publish("t", "2").qos2(id)).await;
            dev.expect(pubrec(id)).await;
            dev.expect_nothing_for_one_ping().await;
            dev.send(pubrel(id)).await;
            dev.expect(pubcomp(id)).await;
            reader.expect_publish(publish("t", "1")).await;
            reader.expect_publish(publish("t", "2")).await;
        }
        dev.expect_nothing_for_one_ping().await;
        reader.leave().await;
        dev.leave().await;
    }
}

/// Everything a v5 publisher can say about a message.
fn full(payload_is_utf8: bool) -> Publishing {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Publishing {
        payload_is_utf8: Some(payload_is_utf8),
        response_topic: Some("answers/grüße".to_owned()),
        correlation_data: Some(vec![0, 255, 0]),
        content_type: Some("text/plain; charset=\"utf-8\"".to_owned()),
        user: vec![pair("b", "1"), pair("a", "2"), pair("", ""), pair("b", "1"), pair("b", "0")],
        ..publish("t", "text")
    }
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]: the properties of
/// a message reach its subscribers as they were, at once, as retained, and from the disk after a crash.
#[tokio::test]
async fn the_properties_of_a_message_reach_its_subscribers_unaltered() {
    let mut broker = Broker::start();
    broker.sleeper(Version::V5, "sleeper", "t", QoS::ExactlyOnce).await;
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.subscribed("t", QoS::ExactlyOnce).await;
    let mut old = broker.client(Version::V311, connect("old")).await;
    old.subscribed("t", QoS::AtMostOnce).await;
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    let queued = [full(false).qos1(1), full(true).qos2(2), publish("t", "bare").qos1(3)];
    for message in [full(true), full(false)].iter().chain(&queued) {
        publisher.published(message.clone()).await;
        dev.take(message.clone()).await;
        // v3 has the payload and nothing beside it.
        old.expect_publish(publish("t", &message.payload)).await;
    }
    publisher.published(full(true).qos1(4).retained()).await;
    dev.take(full(true).qos1(0)).await;
    let mut late = broker.client(Version::V5, connect("late")).await;
    late.subscribed("+", QoS::AtLeastOnce).await;
    late.take(full(true).qos1(0).retained()).await;

    broker.kill9();
    broker.restart();
    let mut sleeper = broker.returning(Version::V5, connect("sleeper").persistent()).await;
    let mut taken = Vec::new();
    for message in queued.into_iter().chain([full(true).qos1(4)]) {
        let received = sleeper.receive_publish().await;
        let (dup, packet_id) = (received.dup, received.packet_id);
        taken.push((received.qos, packet_id));
        // After a crash nobody knows what was sent before.
        assert_eq!(received, Publishing { packet_id, dup, ..message });
    }
    for (qos, id) in taken {
        sleeper.acknowledge(qos, id).await;
    }
    sleeper.expect_nothing_for_one_ping().await;
    let mut late = broker.client(Version::V5, connect("late")).await;
    late.subscribed("t", QoS::AtMostOnce).await;
    late.expect_publish(full(true).retained()).await;
}

/// [MQTT-3.3.2-13], [MQTT-3.3.2-14], [MQTT-3.3.2-19]: a response topic is UTF-8 and a topic name, a content type is UTF-8.
/// What is not never reaches a subscriber.
#[tokio::test]
async fn a_response_topic_or_content_type_that_is_none_is_refused() {
    const CONTENT_TYPE: u8 = 0x03;
    const RESPONSE_TOPIC: u8 = 0x08;
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.subscribed("t", QoS::AtMostOnce).await;
    let with = |property: u8, value: &[u8]| {
        let mut properties = vec![property];
        properties.extend_from_slice(&string(value));
        packet(0x30, &[&string(b"t"), &string(&properties)[1..], b"1"].concat())
    };
    for property in [CONTENT_TYPE, RESPONSE_TOPIC] {
        for value in NO_STRINGS {
            shown_out(&broker, Version::V5, &with(property, value), ReasonCode::MalformedPacket).await;
        }
    }
    for value in [&b"a/+"[..], b"#", b""] {
        shown_out(&broker, Version::V5, &with(RESPONSE_TOPIC, value), ReasonCode::ProtocolError).await;
    }
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    publisher.send_bytes(&with(RESPONSE_TOPIC, b"a")).await;
    dev.expect_publish(Publishing { response_topic: Some("a".to_owned()), ..publish("t", "1") }).await;
    // A content type is any string, and may be empty.
    publisher.send_bytes(&with(CONTENT_TYPE, b"#")).await;
    dev.expect_publish(Publishing { content_type: Some("#".to_owned()), ..publish("t", "1") }).await;
    dev.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.3.2-7], [MQTT-3.3.2-8], [MQTT-3.3.2-12]: the aliases from 1 to the maximum that CONNACK tells are taken, for as
/// long as the connection lives; 0 and the next one are not.
#[tokio::test]
async fn every_topic_alias_up_to_the_maximum_is_taken() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.subscribed("#", QoS::AtMostOnce).await;
    let mut publisher = broker.peer(Version::V5).await;
    publisher.send(connect("publisher").persistent()).await;
    let max = publisher
        .receive_with(|packet| match packet {
            Packet::Connack(connack) => connack.properties.topic_alias_maximum,
            other => panic!("{other:?}"),
        })
        .await
        .expect("the broker takes aliases");
    for alias in 1..=max {
        publisher.published(publish(&format!("t/{alias}"), "set").alias(alias)).await;
        dev.expect_publish(publish(&format!("t/{alias}"), "set")).await;
    }
    for alias in (1..=max).rev() {
        publisher.published(publish("", "used").alias(alias)).await;
        dev.expect_publish(publish(&format!("t/{alias}"), "used")).await;
    }
    publisher.send(publish("t", "1").alias(max + 1)).await;
    publisher.expect_shown_out(Version::V5, ReasonCode::TopicAliasInvalid).await;
    // The session is continued, its aliases are not.
    let mut publisher = broker.returning(Version::V5, connect("publisher").persistent()).await;
    publisher.send(publish("", "1").alias(1)).await;
    publisher.expect_shown_out(Version::V5, ReasonCode::ProtocolError).await;
    let zero = packet(0x30, &[&string(b"t")[..], &[3, 0x23, 0, 0], b"1"].concat());
    shown_out(&broker, Version::V5, &zero, ReasonCode::TopicAliasInvalid).await;
    dev.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.3.4-10]: a client that acknowledges nothing is answered all the same; only its messages wait.
#[tokio::test]
async fn a_full_window_holds_up_nothing_but_messages() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V5, connect("other")).await;
    let mut dev = broker.client(Version::V5, connect("dev").receive_maximum(1)).await;
    dev.subscribed("t", QoS::ExactlyOnce).await;
    other.published(publish("t", "1").qos2(1)).await;
    let one = dev.expect_message(publish("t", "1").qos2(0)).await;
    other.published(publish("t", "2").qos1(2)).await;
    dev.send(subscribe(2, "u", QoS::AtLeastOnce)).await;
    dev.expect(suback(2, [ReasonCode::GrantedQos1])).await;
    dev.send(publish("u", "3").qos1(3)).await;
    dev.expect(puback(3)).await;
    dev.send(publish("u", "4").qos2(4)).await;
    dev.expect(pubrec(4)).await;
    dev.send(pubrel(4)).await;
    dev.expect(pubcomp(4)).await;
    dev.send(unsubscribe(5, "t")).await;
    dev.expect(unsuback(5, [ReasonCode::Success])).await;
    dev.send(Spec::Pingreq).await;
    dev.expect(Spec::Pingresp).await;
    dev.send(pubrec(one)).await;
    dev.expect(pubrel(one)).await;
    dev.expect_nothing_for_one_ping().await;
    dev.send(pubcomp(one)).await;
    dev.take(publish("t", "2").qos1(0)).await;
    dev.take(publish("u", "3").qos1(0)).await;
    dev.take(publish("u", "4").qos1(0)).await;
    dev.expect_nothing_for_one_ping().await;
}

/// [MQTT-3.3.1-5], [MQTT3-3.3.1-5], [MQTT3-3.3.1-6], [MQTT3-3.3.1-7], [MQTT3-3.3.1-8]: the last retained message replaces
/// the one before, of whatever quality of service, keeps its own, and is sent with RETAIN to who subscribes.
#[tokio::test]
async fn a_retained_message_is_kept_with_its_qos() {
    let broker = Broker::start();
    for version in BOTH {
        let mut other = broker.client(version, connect("other")).await;
        let messages = [publish("t", "1").qos2(1), publish("t", "2"), publish("t", "3").qos1(3)];
        for message in messages {
            other.published(message.clone().retained()).await;
            let mut late = broker.client(version, connect("late")).await;
            late.subscribed("t", QoS::ExactlyOnce).await;
            late.take(message.retained()).await;
            late.expect_nothing_for_one_ping().await;
            late.leave().await;
        }
        other.leave().await;
    }
}

/// [MQTT-3.3.1-8], [MQTT3-3.3.1-12], [MQTT3-3.3.1-9]: what comes without RETAIN is neither kept nor takes the place of what
/// is, not even when it is empty; and v3 subscribers of before get RETAIN 0 in any case.
#[tokio::test]
async fn a_message_without_retain_leaves_the_retained_one_alone() {
    for version in BOTH {
        let broker = Broker::start();
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("#", QoS::AtMostOnce).await;
        for message in [publish("t", "kept").retained(), publish("t", "passing"), publish("t", "")] {
            other.published(message.clone().qos1(1)).await;
            dev.expect_publish(Publishing { retain: false, ..message }).await;
        }
        other.published(publish("u", "never kept")).await;
        dev.expect_publish(publish("u", "never kept")).await;
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("#", QoS::AtMostOnce).await;
        late.expect_publish(publish("t", "kept").retained()).await;
        late.expect_nothing_for_one_ping().await;
        for peer in [other, dev, late] {
            peer.leave().await;
        }
    }
}

/// [MQTT-3.3.1-6], [MQTT-3.3.1-7], [MQTT3-3.3.1-10], [MQTT3-3.3.1-11]: an empty retained message is a message like others
/// for who is subscribed, ends the one that was retained, and is itself not kept, across a restart too.
#[tokio::test]
async fn an_empty_retained_message_clears_and_is_not_kept() {
    for version in BOTH {
        let mut broker = Broker::start();
        let mut other = broker.client(version, connect("other")).await;
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("#", QoS::ExactlyOnce).await;
        for message in [publish("t", "1").qos1(1), publish("t", "").qos2(2), publish("new", "").qos1(3)] {
            other.published(message.clone().retained()).await;
            dev.take(message).await;
        }
        other.published(publish("stays", "4").qos1(4).retained()).await;
        for restart in [false, true] {
            if restart {
                broker.kill9();
                broker.restart();
            }
            let mut late = broker.client(version, connect("late")).await;
            late.subscribed("#", QoS::AtMostOnce).await;
            late.expect_publish(publish("stays", "4").retained()).await;
            late.expect_nothing_for_one_ping().await;
        }
    }
}

/// Any order of properties is allowed, and there are clients that lose what stands behind a subscription identifier: see
/// docs/interop.md.
#[tokio::test]
async fn subscription_identifiers_are_the_last_properties() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.send(subscribe(1, "t", QoS::AtMostOnce).subscription_id(200)).await;
    dev.expect(suback(1, [ReasonCode::Success])).await;
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    let user = vec![("name".to_owned(), "value".to_owned())];
    publisher.published(Publishing { content_type: Some("x".to_owned()), user, ..publish("t", "1") }).await;
    let content_type = [&[0x03][..], &string(b"x")].concat();
    let user = [&[0x26][..], &string(b"name"), &string(b"value")].concat();
    let properties = [&content_type[..], &user, &[0x0b, 0xc8, 0x01]].concat();
    let length = [u8::try_from(properties.len()).unwrap()];
    dev.expect_bytes(&packet(0x30, &[&string(b"t")[..], &length, &properties, b"1"].concat())).await;
}

/// A retained message for which there is no room is refused, and the one that was retained stays: v5 is told, v3 has no
/// word for it but a closed connection without an acknowledgement.
#[tokio::test]
async fn a_retained_message_without_room_is_refused() {
    for version in BOTH {
        let broker = Broker::start_configured("[retained]\nmessages_max = 1\n");
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("a", "1").qos1(1).retained()).await;
        other.send(publish("b", "2").qos1(2).retained()).await;
        if version.is_v5() {
            other.expect(puback(2).because(ReasonCode::QuotaExceeded)).await;
            other.leave().await;
        } else {
            other.expect_closed().await;
        }
        let mut late = broker.client(version, connect("late")).await;
        late.subscribed("#", QoS::AtMostOnce).await;
        late.expect_publish(publish("a", "1").retained()).await;
        late.expect_nothing_for_one_ping().await;
        // To replace what is there takes no more room.
        late.send(publish("a", "3").retained()).await;
        late.expect_publish(publish("a", "3")).await;
        late.subscribed("a", QoS::AtMostOnce).await;
        late.expect_publish(publish("a", "3").retained()).await;
    }
}

/// [MQTT-3.3.4-5]: a client that gets a message twice, for itself and as a member of a group, is told of each copy which
/// subscription it is for.
#[tokio::test]
async fn each_copy_of_a_message_names_its_own_subscription() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    for (id, filter) in [(5, "t"), (6, "$share/g/t"), (7, "$share/h/+")] {
        dev.send(subscribe(1, filter, QoS::AtMostOnce).subscription_id(id)).await;
        dev.expect(suback(1, [ReasonCode::Success])).await;
    }
    let mut publisher = broker.client(Version::V5, connect("publisher")).await;
    publisher.published(publish("t", "1")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let copy = dev.receive_publish().await;
        ids.push(copy.subscription_ids.clone());
        assert_eq!(copy, Publishing { subscription_ids: copy.subscription_ids.clone(), ..publish("t", "1") });
    }
    ids.sort();
    assert_eq!(ids, [[5], [6], [7]]);
    dev.expect_nothing_for_one_ping().await;
}
