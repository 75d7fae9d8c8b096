//! What is switched off is announced, and its use is answered with its reason code.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::scene::{BOTH, options};
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{
            Connecting, Spec, connack, connect, disconnect, puback, publish, pubrec, suback, subscribe,
            subscribe_with,
        },
    },
};

/// What CONNACK says of features, in the order maximum QoS, retain, wildcard, subscription identifiers, shared.
type Announced = (Option<QoS>, [Option<bool>; 4]);

async fn announced(broker: &Broker) -> Announced {
    let mut peer = broker.peer(Version::V5).await;
    peer.send(connect("curious")).await;
    peer.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        let p = &connack.properties;
        let flags =
            [p.retain_available, p.wildcard_available, p.subscription_ids_available, p.shared_available];
        (p.maximum_qos, flags)
    })
    .await
}

/// A client that does this is shown out with `reason`, which v5 alone is told.
async fn shown_out(broker: &Broker, version: Version, packet: impl Into<Spec>, reason: ReasonCode) {
    let mut peer = broker.client(version, connect("c")).await;
    peer.send(packet).await;
    peer.expect_shown_out(version, reason).await;
}

async fn refused(broker: &Broker, version: Version, connecting: Connecting, reason: ReasonCode) {
    let mut peer = broker.peer(version).await;
    peer.send(connecting).await;
    // 3.1.1 has no return code for this: it is "server unavailable".
    let told = if version.is_v5() { reason } else { ReasonCode::ServerUnavailable };
    peer.expect(connack(told)).await;
    peer.expect_closed().await;
}

/// Section 3.2.2.3: nothing is said of what is there.
#[tokio::test]
async fn a_whole_broker_announces_no_gaps() {
    assert_eq!(announced(&Broker::start()).await, (None, [None; 4]));
}

/// [MQTT-3.2.2-9], [MQTT-3.2.2-10], [MQTT-3.2.2-11], [MQTT-3.2.2-12]
#[tokio::test]
async fn the_maximum_qos_is_told_and_kept() {
    let broker = Broker::start_configured("[mqtt]\nmax_qos = 1\n");
    assert_eq!(announced(&broker).await, (Some(QoS::AtLeastOnce), [None; 4]));
    for version in BOTH {
        shown_out(&broker, version, publish("t", "x").qos2(1), ReasonCode::QosNotSupported).await;
        let will = connect("c").will(publish("t", "x").qos2(0));
        refused(&broker, version, will, ReasonCode::QosNotSupported).await;
        let mut peer = broker.client(version, connect("c")).await;
        peer.send(subscribe(1, "a", QoS::ExactlyOnce).and("b", QoS::AtMostOnce)).await;
        peer.expect(suback(1, [ReasonCode::GrantedQos1, ReasonCode::Success])).await;
        peer.send(publish("a", "x").qos1(1)).await;
        peer.take(publish("a", "x").qos1(0)).await;
        peer.expect(puback(1)).await;
        peer.leave().await;
    }
    let broker = Broker::start_configured("[mqtt]\nmax_qos = 0\n");
    assert_eq!(announced(&broker).await, (Some(QoS::AtMostOnce), [None; 4]));
    shown_out(&broker, Version::V5, publish("t", "x").qos1(1), ReasonCode::QosNotSupported).await;
}

/// [MQTT-3.2.2-13], [MQTT-3.2.2-14]
#[tokio::test]
async fn a_broker_without_retained_messages_says_so() {
    let broker = Broker::start_configured("[mqtt]\nretain_available = false\n");
    assert_eq!(announced(&broker).await, (None, [Some(false), None, None, None]));
    for version in BOTH {
        shown_out(&broker, version, publish("t", "x").retained(), ReasonCode::RetainNotSupported).await;
        let will = connect("c").will(publish("t", "x").retained());
        refused(&broker, version, will, ReasonCode::RetainNotSupported).await;
    }
}

/// Sections 3.2.2.3.11 to 3.2.2.3.13; an older client, which has not been told, is refused the filter alone.
#[tokio::test]
async fn kinds_of_subscriptions_that_are_off_are_refused() {
    let wildcard = ("wildcard_subscriptions", "a/+", ReasonCode::WildcardSubscriptionsNotSupported, 1);
    let shared = ("shared_subscriptions", "$share/g/a", ReasonCode::SharedSubscriptionsNotSupported, 3);
    for (key, filter, reason, place) in [wildcard, shared] {
        let broker = Broker::start_configured(&format!("[mqtt]\n{key} = false\n"));
        let mut flags = [None; 4];
        flags[place] = Some(false);
        assert_eq!(announced(&broker).await, (None, flags));
        let both = || subscribe(1, "plain", QoS::AtLeastOnce).and(filter, QoS::AtMostOnce);
        shown_out(&broker, Version::V5, both(), reason).await;
        let mut peer = broker.client(Version::V311, connect("c")).await;
        peer.send(both()).await;
        peer.expect(suback(1, [ReasonCode::GrantedQos1, ReasonCode::UnspecifiedError])).await;
        peer.send(publish("plain", "x")).await;
        peer.expect_publish(publish("plain", "x")).await;
    }
    let broker = Broker::start_configured("[mqtt]\nsubscription_ids = false\n");
    assert_eq!(announced(&broker).await, (None, [None, None, Some(false), None]));
    let with_id = subscribe_with(1, "a", options(QoS::AtMostOnce)).subscription_id(7);
    shown_out(&broker, Version::V5, with_id, ReasonCode::SubscriptionIdentifiersNotSupported).await;
}

/// Section 3.3.2.3.2: looked at where that is asked for, and for v5 alone, which can declare it.
#[tokio::test]
async fn a_payload_that_is_not_what_it_is_declared_to_be_is_refused() {
    let broker = Broker::start_configured("[mqtt]\ncheck_payload_format = true\n");
    let declared = |payload: &[u8], is_utf8| {
        let mut message = publish("t", payload);
        message.payload_is_utf8 = Some(is_utf8);
        message
    };
    let bad = b"half \xc3";
    let mut reader = broker.client(Version::V5, connect("reader")).await;
    reader.subscribed("t", QoS::AtMostOnce).await;
    let mut peer = broker.client(Version::V5, connect("c")).await;
    let why = Some("the payload is not the UTF-8");
    peer.send(declared(bad, true).qos1(1)).await;
    peer.expect_saying(puback(1).because(ReasonCode::PayloadFormatInvalid), why).await;
    // [MQTT-4.3.3-9]: a PUBREC that refuses ends the exchange, and the id is free.
    peer.send(declared(bad, true).qos2(2)).await;
    peer.expect_saying(pubrec(2).because(ReasonCode::PayloadFormatInvalid), why).await;
    peer.published(declared("whole é".as_bytes(), true).qos2(2)).await;
    peer.published(declared(bad, false)).await;
    reader.expect_publish(declared("whole é".as_bytes(), true)).await;
    reader.expect_publish(declared(bad, false)).await;
    peer.send(declared(bad, true)).await;
    peer.expect_saying(disconnect().because(ReasonCode::PayloadFormatInvalid), why).await;
    peer.expect_closed().await;
    let will = connect("c").will(declared(bad, true));
    refused(&broker, Version::V5, will, ReasonCode::PayloadFormatInvalid).await;
    reader.expect_nothing_for_one_ping().await;
    // By default a payload is nobody's business.
    let broker = Broker::start();
    let mut peer = broker.client(Version::V5, connect("c").will(declared(bad, true))).await;
    peer.published(declared(bad, true).qos1(1)).await;
}

async fn response_information(broker: &Broker, connecting: Connecting) -> Option<String> {
    let mut peer: Peer = broker.peer(Version::V5).await;
    peer.send(connecting).await;
    peer.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.reason, ReasonCode::Success);
        connack.properties.response_information.map(str::to_owned)
    })
    .await
}

/// [MQTT-3.1.2-28]
#[tokio::test]
async fn response_information_is_told_to_those_who_ask() {
    let broker = Broker::start_configured("[mqtt]\nresponse_topic_prefix = \"replies/%c\"\n");
    let asking = |id: &str| connect(id).response_information(true);
    assert_eq!(response_information(&broker, asking("dev")).await.as_deref(), Some("replies/dev"));
    assert_eq!(response_information(&broker, connect("dev")).await, None);
    assert_eq!(response_information(&broker, connect("dev").response_information(false)).await, None);
    // No topic name has a wildcard.
    assert_eq!(response_information(&broker, asking("dev+")).await, None);
    assert_eq!(response_information(&Broker::start(), asking("dev")).await, None);
}
