//! Chapter 4, from sessions to the order of messages: what the broker does as sender and as receiver.

use dormouse::codec::{Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, Version};

use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{AckKind, Publishing, Spec, connack, connect, puback, pubcomp, publish, pubrec, pubrel},
    },
    transcripts::scene::BOTH,
};

/// [MQTT-4.1.0-1], [MQTT3-4.1.0-1], [MQTT3-4.1.0-2]: subscriptions, packet ids and what is in flight last as long as the
/// connection of a session that has nothing else to last for.
#[tokio::test]
async fn a_session_lasts_at_least_as_long_as_its_connection() {
    let broker = Broker::start();
    for version in BOTH {
        // A clean session; in v5 its expiry is 0.
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("to/dev", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.subscribed("of/dev", QoS::AtMostOnce).await;
        dev.send(publish("of/dev", "1").qos2(7)).await;
        dev.expect(pubrec(7)).await;
        other.expect_publish(publish("of/dev", "1")).await;
        other.published(publish("to/dev", "2").qos2(1)).await;
        let id = dev.expect_message(publish("to/dev", "2").qos2(0)).await;
        broker.a_second_and_a_half_passes().await;
        dev.send(publish("of/dev", "1").qos2(7).dup()).await;
        dev.expect(pubrec(7)).await;
        dev.send(pubrel(7)).await;
        dev.expect(pubcomp(7)).await;
        dev.acknowledge(QoS::ExactlyOnce, id).await;
        other.published(publish("to/dev", "3").qos1(2)).await;
        dev.take(publish("to/dev", "3").qos1(0)).await;
        other.expect_nothing_for_one_ping().await;
        dev.leave().await;
        other.leave().await;
    }
}

/// [MQTT-4.2-1]: TCP and TLS carry the same stream of bytes, in whatever pieces it comes, in both directions.
#[tokio::test]
async fn a_stream_of_bytes_may_come_in_any_pieces() {
    let broker = Broker::start();
    for version in BOTH {
        for tls in [false, true] {
            let mut dev = if tls { broker.tls_peer(version).await } else { broker.peer(version).await };
            dev.send(connect("dev")).await;
            dev.expect(connack(ReasonCode::Success)).await;
            dev.subscribed("t", QoS::AtLeastOnce).await;
            let large = vec![b'x'; 100_000];
            let mut bytes = Vec::new();
            for n in 1..=3 {
                Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    topic: "t",
                    packet_id: PacketId::new(n),
                    properties: PublishProperties::default(),
                    payload: &large,
                })
                .encode(version, &mut bytes);
            }
            let (start, end) = bytes.split_at(40);
            for byte in start {
                dev.send_bytes(&[*byte]).await;
            }
            for part in end.chunks(7_777) {
                dev.send_bytes(part).await;
            }
            let (mut acknowledged, mut received) = (Vec::new(), 0);
            while acknowledged.len() < 3 || received < 3 {
                match dev.receive().await {
                    Spec::Publish(p) => {
                        assert_eq!(p.payload, large);
                        received += 1;
                        dev.send(puback(p.packet_id)).await;
                    }
                    ack => acknowledged.push(ack),
                }
            }
            assert_eq!(acknowledged, [puback(1), puback(2), puback(3)]);
            dev.leave().await;
        }
    }
}

/// [MQTT-4.3.1-1], [MQTT3-4.3.1-1]: whatever its publisher sent it with.
#[tokio::test]
async fn qos_0_is_sent_with_qos_0_and_without_dup() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t", QoS::AtMostOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "0")).await;
        other.published(publish("t", "1").qos1(1).dup()).await;
        other.published(publish("t", "2").qos2(1).dup()).await;
        for n in 0..=2 {
            dev.expect_publish(publish("t", n.to_string())).await;
        }
        other.leave().await;
        dev.leave().await;
    }
}

/// [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.3-1], [MQTT-4.3.3-2], [MQTT3-4.3.2-1], [MQTT3-4.3.3-1]: ids that differ, and no
/// DUP, whatever the publisher's packets had; and they are used until the exchange is over.
#[tokio::test]
async fn new_messages_have_unused_packet_ids_and_no_dup() {
    let broker = Broker::start();
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut dev = broker.client(version, connect("dev").persistent()).await;
            dev.subscribed("t", qos).await;
            let mut other = broker.client(version, connect("other")).await;
            let mut ids = Vec::new();
            for n in 1..=20_u16 {
                // `expect_message` compares DUP, too.
                other.published(with_qos(publish("t", n.to_string()), qos, n).dup()).await;
                let id = dev.expect_message(with_qos(publish("t", n.to_string()), qos, 0)).await;
                assert!(!ids.contains(&id), "{id} is in use: {ids:?}");
                // Every third stays open.
                if n % 3 == 0 {
                    ids.push(id);
                } else {
                    dev.acknowledge(qos, id).await;
                }
            }
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
            other.leave().await;
            broker.client(version, connect("dev")).await.leave().await;
        }
    }
}

/// [MQTT-4.3.2-3], [MQTT-4.3.3-3], [MQTT3-4.3.2-1]: until PUBACK or PUBREC a message counts, and comes again; after it no more.
#[tokio::test]
async fn a_message_is_unacknowledged_until_its_answer() {
    let broker = Broker::start_configured("[sessions]\ninflight_max = 1\n");
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let dev = || connect("dev").persistent();
            broker.sleeper(version, "dev", "t", qos).await;
            let mut other = broker.client(version, connect("other")).await;
            other.published(with_qos(publish("t", "1"), qos, 1)).await;
            other.published(with_qos(publish("t", "2"), qos, 2)).await;
            let mut first = broker.returning(version, dev()).await;
            let id = first.expect_message(with_qos(publish("t", "1"), qos, 0)).await;
            // There is room for one, and it is taken.
            first.expect_nothing_for_one_ping().await;
            first.hang_up().await;
            let mut second = broker.returning(version, dev()).await;
            second.expect_publish(with_qos(publish("t", "1"), qos, id).dup()).await;
            second.expect_nothing_for_one_ping().await;
            second.acknowledge(qos, id).await;
            let next = second.expect_message(with_qos(publish("t", "2"), qos, 0)).await;
            second.hang_up().await;
            let mut third = broker.returning(version, dev()).await;
            third.expect_publish(with_qos(publish("t", "2"), qos, next).dup()).await;
            third.acknowledge(qos, next).await;
            third.expect_nothing_for_one_ping().await;
            third.leave().await;
            other.leave().await;
            broker.client(version, connect("dev")).await.leave().await;
        }
    }
}

/// [MQTT-4.3.2-4], [MQTT-4.3.2-5], [MQTT3-4.3.2-2]: PUBACK has the packet's id, which is free then: with DUP as well as
/// without, the next packet that has it is another message.
#[tokio::test]
async fn after_puback_the_same_id_is_a_new_message() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t", QoS::AtMostOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        for packet in [publish("t", "1").qos1(65_535), publish("t", "1").qos1(65_535).dup()] {
            other.published(packet).await;
            dev.expect_publish(publish("t", "1")).await;
        }
        other.published(publish("t", "2").qos1(65_535)).await;
        dev.expect_publish(publish("t", "2")).await;
        dev.expect_nothing_for_one_ping().await;
        other.leave().await;
        dev.leave().await;
    }
}

/// [MQTT-4.3.3-4], [MQTT-4.3.3-5], [MQTT-4.3.3-6], [MQTT-4.4.0-1], [MQTT3-4.3.3-1], [MQTT3-4.4.0-1]: a PUBREC is answered by
/// PUBREL, which is sent again until PUBCOMP; the PUBLISH is not.
#[tokio::test]
async fn pubrel_follows_pubrec_and_stands_in_for_the_message() {
    let broker = Broker::start();
    for version in BOTH {
        let dev = || connect("dev").persistent();
        broker.sleeper(version, "dev", "t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "1").qos2(1)).await;
        let mut first = broker.returning(version, dev()).await;
        let id = first.expect_message(publish("t", "1").qos2(0)).await;
        first.send(pubrec(id)).await;
        first.expect(pubrel(id)).await;
        // PUBREC again is answered again.
        first.send(pubrec(id)).await;
        first.expect(pubrel(id)).await;
        first.hang_up().await;
        for _ in 0..2 {
            let mut again = broker.returning(version, dev()).await;
            again.expect(pubrel(id)).await;
            again.expect_nothing_for_one_ping().await;
            again.hang_up().await;
        }
        let mut last = broker.returning(version, dev()).await;
        last.expect(pubrel(id)).await;
        last.send(pubcomp(id)).await;
        last.expect_nothing_for_one_ping().await;
        last.leave().await;
        let mut back = broker.returning(version, dev()).await;
        back.expect_nothing_for_one_ping().await;
        back.leave().await;
        other.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// [MQTT-4.3.3-7], [MQTT-4.3.3-13]: on both sides the exchange goes on, and ends, when its message has expired meanwhile.
#[tokio::test]
async fn a_qos_2_exchange_that_has_begun_outlives_its_message() {
    let broker = Broker::start();
    let (dev, pubr) = (|| connect("dev").persistent(), || connect("pub").persistent());
    broker.sleeper(Version::V5, "dev", "t", QoS::ExactlyOnce).await;
    let mut publisher = broker.client(Version::V5, pubr()).await;
    publisher.send(publish("t", "1").qos2(1).expiring(1)).await;
    publisher.expect(pubrec(1)).await;
    let mut first = broker.returning(Version::V5, dev()).await;
    let sent = first.receive_publish().await;
    first.hang_up().await;
    publisher.hang_up().await;
    broker.a_second_and_a_half_passes().await;

    let mut publisher = broker.returning(Version::V5, pubr()).await;
    publisher.send(publish("t", "1").qos2(1).expiring(1).dup()).await;
    publisher.expect(pubrec(1)).await;
    publisher.send(pubrel(1)).await;
    publisher.expect(pubcomp(1)).await;
    let mut second = broker.returning(Version::V5, dev()).await;
    let again = second.receive_publish().await;
    assert_eq!((again.packet_id, again.dup, &again.payload), (sent.packet_id, true, &sent.payload));
    second.acknowledge(QoS::ExactlyOnce, again.packet_id).await;
    second.expect_nothing_for_one_ping().await;
}

/// [MQTT-4.3.3-8], [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12], [MQTT3-4.3.3-2]: the broker as receiver. PUBREC, as often
/// as the packet comes, and one delivery; PUBCOMP, as often as PUBREL comes; and then the id is a new message's.
#[tokio::test]
async fn the_broker_takes_a_qos_2_message_once() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.subscribed("t", QoS::AtMostOnce).await;
        let publisher = || connect("publisher").persistent();
        let mut first = broker.client(version, publisher()).await;
        first.send(publish("t", "1").qos2(9)).await;
        first.expect(pubrec(9)).await;
        dev.expect_publish(publish("t", "1")).await;
        first.send(publish("t", "1").qos2(9).dup()).await;
        first.expect(pubrec(9)).await;
        first.hang_up().await;
        let mut second = broker.returning(version, publisher()).await;
        second.send(publish("t", "1").qos2(9).dup()).await;
        second.expect(pubrec(9)).await;
        second.send(pubrel(9)).await;
        second.expect(pubcomp(9)).await;
        second.send(pubrel(9)).await;
        let again = if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        second.expect(pubcomp(9).because(again)).await;
        dev.expect_nothing_for_one_ping().await;
        second.published(publish("t", "2").qos2(9).dup()).await;
        dev.expect_publish(publish("t", "2")).await;
        dev.expect_nothing_for_one_ping().await;
        second.leave().await;
        dev.leave().await;
        broker.client(version, connect("publisher")).await.leave().await;
    }
}

/// [MQTT-4.3.3-9]: a PUBREC of 0x80 or above ends the exchange at once, and its id is a new message's.
#[tokio::test]
async fn after_a_refusing_pubrec_the_same_id_is_a_new_message() {
    let broker = Broker::start_configured("[retained]\nmessages_max = 1\n");
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.subscribed("#", QoS::AtMostOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("a", "1").qos2(1).retained()).await;
    dev.expect_publish(publish("a", "1")).await;
    other.send(publish("b", "2").qos2(1).retained()).await;
    other.expect(pubrec(1).because(ReasonCode::QuotaExceeded)).await;
    other.published(publish("b", "3").qos2(1)).await;
    dev.expect_publish(publish("b", "3")).await;
    dev.expect_nothing_for_one_ping().await;
}

/// [MQTT3-4.8.0-2]: what cannot be kept at this time is not acknowledged, and 3.1.1 is told by the end of its connection.
#[tokio::test]
async fn a_transient_error_closes_the_connection_of_v3() {
    let broker = Broker::start_configured("[retained]\nmessages_max = 1\n");
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut other = broker.client(Version::V311, connect("other")).await;
        other.published(publish("a", "1").qos1(1).retained()).await;
        other.send(with_qos(publish("b", "2").retained(), qos, 2)).await;
        other.expect_closed().await;
        let mut next = broker.client(Version::V311, connect("other")).await;
        next.expect_nothing_for_one_ping().await;
        next.leave().await;
    }
}

/// [MQTT-4.5.0-1], [MQTT3-4.5.0-1]: awake or asleep, and by whatever filter; and not to anybody else.
#[tokio::test]
async fn a_message_goes_to_every_session_that_asked_for_it() {
    let broker = Broker::start();
    for version in BOTH {
        let filters = [("one", "a/b"), ("two", "a/+"), ("three", "#"), ("four", "+/b/#"), ("five", "a/c")];
        for (name, filter) in filters {
            broker.sleeper(version, name, filter, QoS::AtLeastOnce).await;
        }
        let mut awake = broker.returning(version, connect("one").persistent()).await;
        let mut other = broker.client(version, connect("other")).await;
        other.send(publish("a/b", "1").qos1(1)).await;
        awake.take(publish("a/b", "1").qos1(0)).await;
        other.expect(puback(1)).await;
        awake.expect_nothing_for_one_ping().await;
        awake.leave().await;
        other.leave().await;
        for (name, filter) in filters {
            let mut dev = broker.returning(version, connect(name).persistent()).await;
            if !["a/b", "a/c"].contains(&filter) {
                dev.take(publish("a/b", "1").qos1(0)).await;
            }
            dev.expect_nothing_for_one_ping().await;
            dev.leave().await;
            broker.client(version, connect(name)).await.leave().await;
        }
    }
}

/// [MQTT3-4.6.0-1], [MQTT3-4.6.0-4]: what is sent again has its first order, and PUBRELs have that of the PUBRECs.
#[tokio::test]
async fn resends_keep_their_first_order_and_pubrels_that_of_the_pubrecs() {
    let broker = Broker::start();
    for version in BOTH {
        let dev = || connect("dev").persistent();
        let mut first = broker.client(version, dev()).await;
        first.subscribed("t", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        let mut ids = Vec::new();
        for n in 1..=5_u16 {
            other.published(publish("t", n.to_string()).qos2(n)).await;
            ids.push(first.expect_message(publish("t", n.to_string()).qos2(0)).await);
        }
        first.hang_up().await;
        let mut second = broker.returning(version, dev()).await;
        for (n, id) in (1..).zip(&ids) {
            second.expect_publish(publish("t", format!("{n}")).qos2(*id).dup()).await;
        }
        let order = [3, 0, 4, 1, 2];
        for at in order {
            second.send(pubrec(ids[at])).await;
        }
        for at in order {
            second.expect(pubrel(ids[at])).await;
        }
        for id in ids {
            second.send(pubcomp(id)).await;
        }
        second.expect_nothing_for_one_ping().await;
        second.leave().await;
        other.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// [MQTT3-4.6.0-2], [MQTT3-4.6.0-3]: acknowledgements have the order of what they acknowledge, though some of them wait for the
/// disk and others, which nobody asked for, for nothing.
#[tokio::test]
async fn answers_have_the_order_of_what_they_answer() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "dev", "kept", QoS::ExactlyOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let topic = |n: u16| if n.is_multiple_of(2) { "kept" } else { "nobody" };
            let ids = [7, 2, 9, 4, 100, 1, 8, 3];
            other.send_all(ids.map(|n| with_qos(publish(topic(n), "x"), qos, n).into())).await;
            for id in ids {
                let Spec::Ack(_, answered, _) = other.receive().await else { panic!("no acknowledgement") };
                assert_eq!(answered, id);
            }
        }
        other.leave().await;
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6], [MQTT3-4.6.0-5], [MQTT3-4.6.0-6]: each topic is ordered, for a subscriber that is awake and
/// for one that wakes in the middle, in every quality of service.
#[tokio::test]
async fn the_messages_of_a_topic_keep_their_order() {
    let broker = Broker::start();
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            broker.sleeper(version, "sleeper", "#", qos).await;
            let mut awake = broker.client(version, connect("awake")).await;
            awake.subscribed("#", qos).await;
            let mut other = broker.client(version, connect("other")).await;
            let topic = |n: u16| if n.is_multiple_of(3) { "a" } else { "b" };
            for n in 1..=10 {
                other.published(with_qos(publish(topic(n), n.to_string()), qos, n)).await;
            }
            let mut sleeper = broker.returning(version, connect("sleeper").persistent()).await;
            for n in 11..=20 {
                other.published(with_qos(publish(topic(n), n.to_string()), qos, n)).await;
            }
            assert_eq!(taken(&mut awake, 20).await, (1..=20).collect::<Vec<_>>());
            // QoS 0 is not kept for who sleeps.
            let from = if qos == QoS::AtMostOnce { 11 } else { 1 };
            assert_eq!(taken(&mut sleeper, 21 - from).await, (from..=20).collect::<Vec<_>>());
            for peer in [awake, other, sleeper] {
                peer.leave().await;
            }
            broker.client(version, connect("sleeper")).await.leave().await;
        }
    }
}

/// Takes so many messages, whose payloads are numbers, and acknowledges all that comes.
async fn taken(peer: &mut Peer, messages: usize) -> Vec<usize> {
    let (mut numbers, mut open) = (Vec::new(), 0);
    while numbers.len() < messages || open > 0 {
        match peer.receive().await {
            Spec::Publish(p) => {
                numbers.push(String::from_utf8(p.payload).unwrap().parse().unwrap());
                match p.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => peer.send(puback(p.packet_id)).await,
                    QoS::ExactlyOnce => {
                        open += 1;
                        peer.send(pubrec(p.packet_id)).await;
                    }
                }
            }
            Spec::Ack(AckKind::Pubrel, id, _) => {
                open -= 1;
                peer.send(pubcomp(id)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    numbers
}

fn with_qos(message: Publishing, qos: QoS, packet_id: u16) -> Publishing {
    match qos {
        QoS::AtMostOnce => message,
        QoS::AtLeastOnce => message.qos1(packet_id),
        QoS::ExactlyOnce => message.qos2(packet_id),
    }
}
