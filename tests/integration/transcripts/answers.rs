//! What a refusing answer says: a reason code for the client's program, and a sentence for the person behind it where
//! the client wants it and takes it.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{
            Connecting, Spec, connack, connect, disconnect, puback, pubcomp, publish, pubrec, pubrel, suback,
            subscribe, unsuback, unsubscribe,
        },
    },
};

const BOUNDS: &str = "[limits]\nsubscriptions_per_session_max = 1\nclient_id_bytes_max = \"23B\"\n\
                      [retained]\nmessages_max = 0\n";

/// Every answer of the broker that refuses something and leaves the connection open.
async fn refusals(peer: &mut Peer) -> Vec<(Spec, &'static str)> {
    peer.subscribed("taken", QoS::AtMostOnce).await;
    peer.send(subscribe(2, "another", QoS::AtMostOnce).and("a#", QoS::AtMostOnce)).await;
    peer.send(unsubscribe(3, "a#")).await;
    peer.send(publish("t", "x").qos1(4).retained()).await;
    peer.send(publish("t", "x").qos2(5).retained()).await;
    peer.send(pubrel(6)).await;
    peer.send(pubrec(7)).await;
    vec![
        (
            suback(2, [ReasonCode::QuotaExceeded, ReasonCode::TopicFilterInvalid]),
            "the maximum number of subscriptions is reached",
        ),
        (unsuback(3, [ReasonCode::TopicFilterInvalid]), "not a valid topic filter"),
        (puback(4).because(ReasonCode::QuotaExceeded), "the bound on retained messages is reached"),
        (pubrec(5).because(ReasonCode::QuotaExceeded), "the bound on retained messages is reached"),
        (pubcomp(6).because(ReasonCode::PacketIdentifierNotFound), "waits for its release"),
        (pubrel(7).because(ReasonCode::PacketIdentifierNotFound), "is in flight"),
    ]
}

/// The answers may leave in another order than they were asked for: PUBREL waits for nothing.
async fn expect_refusals(peer: &mut Peer, are_told: bool) {
    let mut expected = refusals(peer).await;
    while !expected.is_empty() {
        let (received, said) = peer.receive_saying().await;
        let at = expected.iter().position(|(spec, _)| *spec == received);
        let (spec, why) = expected.swap_remove(at.unwrap_or_else(|| panic!("{received:?}: {said:?}")));
        if are_told {
            assert!(said.as_ref().is_some_and(|said| said.contains(why)), "{spec:?}: {said:?}");
        } else {
            assert_eq!(said, None, "{spec:?}");
        }
    }
}

/// Section 3.1.2.11.7: request problem information is 1 unless the client says otherwise.
#[tokio::test]
async fn a_refusal_says_why() {
    let broker = Broker::start_configured(BOUNDS);
    for asked in [connect("dev"), connect("dev").problem_information(true)] {
        let mut dev = broker.client(Version::V5, asked).await;
        expect_refusals(&mut dev, true).await;
        dev.send(publish("a", "x").alias(17)).await;
        let shown_out = disconnect().because(ReasonCode::TopicAliasInvalid);
        dev.expect_saying(shown_out, Some("a topic alias above the maximum")).await;
        dev.expect_closed().await;
    }
}

/// [MQTT-3.1.2-29]: what a client does not want to read is not sent, but in CONNACK and DISCONNECT, the last it hears.
#[tokio::test]
async fn who_wants_no_reasons_gets_none() {
    let broker = Broker::start_configured(BOUNDS);
    let mut dev = broker.client(Version::V5, connect("dev").problem_information(false)).await;
    expect_refusals(&mut dev, false).await;
    // A message's own properties travel all the same.
    let mut other = broker.client(Version::V5, connect("other")).await;
    let mut message = publish("taken", "x");
    message.user = vec![("unit".to_owned(), "K".to_owned()), ("unit".to_owned(), "C".to_owned())];
    other.published(message.clone()).await;
    dev.expect_publish(message).await;
    dev.send(publish("a", "x").alias(17)).await;
    dev.expect_saying(disconnect().because(ReasonCode::TopicAliasInvalid), Some("topic alias")).await;
    refused(&broker, connect("a-name-of-24-characters.").problem_information(false), Some("too long")).await;
}

async fn refused(broker: &Broker, connecting: Connecting, why: Option<&str>) {
    let mut peer = broker.peer(Version::V5).await;
    peer.send(connecting).await;
    peer.expect_saying(connack(ReasonCode::ClientIdentifierNotValid), why).await;
    peer.expect_closed().await;
}

/// [MQTT-3.2.2-19], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.6.2-2], [MQTT-3.7.2-2], [MQTT-3.9.2-1], [MQTT-3.11.2-1],
/// [MQTT-3.14.2-3]: a sentence that would make its packet too large is left out, and the answer comes without it. No
/// answer has user properties: [MQTT-3.2.2-20], [MQTT-3.4.2-3], [MQTT-3.5.2-3], [MQTT-3.6.2-3], [MQTT-3.7.2-3],
/// [MQTT-3.9.2-2], [MQTT-3.11.2-2], [MQTT-3.14.2-4].
#[tokio::test]
async fn a_reason_that_does_not_fit_is_left_out() {
    let broker = Broker::start_configured(BOUNDS);
    let mut dev = broker.client(Version::V5, connect("dev").packet_bytes_max(24)).await;
    expect_refusals(&mut dev, false).await;
    dev.send(publish("a", "x").alias(17)).await;
    dev.expect_saying(disconnect().because(ReasonCode::TopicAliasInvalid), None).await;
    dev.expect_closed().await;
    refused(&broker, connect("a-name-of-24-characters.").packet_bytes_max(38), None).await;
    refused(&broker, connect("a-name-of-24-characters.").packet_bytes_max(200), Some("too long")).await;
}

/// The last byte decides: header 4, property length 1, property identifier 1, length of the sentence 2, sentence 31.
#[tokio::test]
async fn a_reason_that_just_fits_is_sent() {
    let broker = Broker::start();
    for (bytes, why) in [(37, None), (38, Some("a topic alias above the maximum"))] {
        let mut dev = broker.client(Version::V5, connect("dev").packet_bytes_max(bytes)).await;
        dev.send(publish("a", "x").alias(17)).await;
        dev.expect_saying(disconnect().because(ReasonCode::TopicAliasInvalid), why).await;
        dev.expect_closed().await;
    }
}

/// [MQTT-3.1.2-24]: a client that does not take its CONNACK cannot be told its terms, and is told that if it takes so
/// much; and one that asks for more reasons than it takes is shown out.
#[tokio::test]
async fn an_answer_is_never_larger_than_the_client_takes() {
    let broker = Broker::start();
    for (bytes, is_told) in [(15, true), (5, true), (4, false)] {
        let mut peer = broker.peer(Version::V5).await;
        peer.send(connect("dev").packet_bytes_max(bytes)).await;
        if is_told {
            peer.expect_saying(connack(ReasonCode::PacketTooLarge), None).await;
        }
        peer.expect_closed().await;
    }
    // A nameless client's name counts.
    let mut peer = broker.peer(Version::V5).await;
    peer.send(connect("").packet_bytes_max(24)).await;
    peer.expect(connack(ReasonCode::PacketTooLarge)).await;
    let mut dev = broker.client(Version::V5, connect("dev").packet_bytes_max(24)).await;
    let filters =
        (2..=20).fold(subscribe(1, "1", QoS::AtMostOnce), |all, n| all.and(&n.to_string(), QoS::AtMostOnce));
    dev.send(filters).await;
    dev.expect(disconnect().because(ReasonCode::PacketTooLarge)).await;
    dev.expect_closed().await;
}

/// A connection ends with its reason also where the broker ends it by itself: takeover, silence, the broker's end.
#[tokio::test]
async fn a_connection_that_the_broker_ends_is_told_why() {
    let mut broker = Broker::start();
    let mut first = broker.client(Version::V5, connect("dev")).await;
    let second = broker.client(Version::V5, connect("dev")).await;
    let taken_over = disconnect().because(ReasonCode::SessionTakenOver);
    first.expect_saying(taken_over, Some("another connection with this client identifier")).await;
    first.expect_closed().await;
    second.leave().await;
    let mut silent = broker.client(Version::V5, connect("silent").keep_alive(1)).await;
    let timed_out = disconnect().because(ReasonCode::KeepAliveTimeout);
    silent.expect_saying(timed_out, Some("keep alive")).await;
    silent.expect_closed().await;
    let mut last = broker.client(Version::V5, connect("last")).await;
    broker.terminate();
    let shut_down = disconnect().because(ReasonCode::ServerShuttingDown);
    last.expect_saying(shut_down, Some("the broker shuts down")).await;
    last.expect_closed().await;
}

/// 3.1.1 has no room for a word: the answers are the bytes they always were.
#[tokio::test]
async fn v3_answers_have_no_reasons() {
    let broker = Broker::start_configured(BOUNDS);
    for version in BOTH {
        let mut peer = broker.peer(version).await;
        peer.send(connect("a-name-of-24-characters.")).await;
        let bytes = peer.expect_ended().await;
        if version.is_v5() {
            assert_eq!(bytes.get(..4), Some(&[0x20, 39, 0, 0x85][..]), "{bytes:x?}");
        } else {
            assert_eq!(bytes, [0x20, 2, 0, 2]);
        }
    }
}
