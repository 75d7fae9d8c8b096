//! Corners of the protocol.

use super::{CloseReason, World, connect, publish, qos0, qos1, subscribe, transient};
use crate::codec::{Packet, Publish, QoS, ReasonCode};

const NOTHING: [&str; 0] = [];

/// [MQTT-3.14.0-1]: DISCONNECT is never a server's first packet.
#[test]
fn a_client_that_is_taken_over_before_its_connack_hears_nothing() {
    let world = World::new();
    let mut first = world.join(&connect("dev"));
    let mut second = world.join(&connect("dev"));
    assert_eq!(first.heard(), NOTHING);
    assert!(first.closing);
    world.settle();
    assert_eq!(second.heard(), ["CONNACK 1"]);
}

/// [MQTT-3.14.0-1]: also when the disk is so slow that the keep alive ends before CONNACK may leave.
#[test]
fn a_client_whose_keep_alive_ends_before_its_connack_hears_nothing() {
    let world = World::new();
    let mut client = world.join(&connect("dev"));
    assert_eq!(client.heard(), NOTHING);
    let now = client.now();
    let last = client.connection.take().unwrap().close(CloseReason::KeepAliveTimeout, now);
    assert!(last.is_empty(), "{last:x?}");
    let mut client = world.joined(&connect("dev"), true);
    let last = client.connection.take().unwrap().close(CloseReason::KeepAliveTimeout, now);
    assert_eq!(super::lines(&last, client.version), ["DISCONNECT 8d"]);
}

/// [MQTT-3.14.4-1]: neither a message that comes in the moment before the DISCONNECT is written, nor the DISCONNECT of
/// a takeover.
#[test]
fn nothing_follows_the_brokers_disconnect() {
    for taken_over in [false, true] {
        let world = World::new();
        let mut other = world.joined(&transient("other"), false);
        let mut bad = world.subscriber(&connect("bad"), "#", QoS::AtLeastOnce);
        bad.send(&Packet::Pingreq);
        bad.send_bytes(&[0xc1, 0]);
        other.send(&qos0("t", "late"));
        other.send(&qos1(1, "t", "kept"));
        let again = taken_over.then(|| world.join(&connect("bad")));
        world.settle();
        assert_eq!(bad.heard(), ["PINGRESP", "DISCONNECT 81"]);
        assert!(bad.closing);
        let now = bad.now();
        bad.connection.take().unwrap().close(CloseReason::Closed, now);
        assert_eq!(other.heard(), ["PUBACK 1"]);
        let mut again = again.unwrap_or_else(|| world.join(&connect("bad")));
        world.settle();
        assert_eq!(again.heard(), ["CONNACK 1"]);
        world.settle();
        assert_eq!(again.heard(), ["PUBLISH q1 #1 t=kept"]);
    }
}

/// [MQTT-3.14.2-1]: 0x84 answers a first CONNECT, in CONNACK; a second one is a protocol error whatever is in it.
#[test]
fn a_second_connect_of_an_unknown_version_is_a_protocol_error() {
    for name_and_level in [&b"MQTT\x06"[..], b"AMQP\x05"] {
        let world = World::new();
        let mut client = world.joined(&transient("c"), false);
        let mut bytes = vec![0x10, 13, 0, 4];
        bytes.extend_from_slice(name_and_level);
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 1, b'c']);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        client.send_bytes(&bytes);
        assert_eq!(client.heard(), ["DISCONNECT 82"]);
    }
}

#[test]
fn a_connection_that_is_dropped_unseen_ends_at_its_time() {
    let world = World::new();
    world.pass(86_400_000);
    drop(world.join(&connect("dev")));
    world.settle();
    world.pass(3_599_000);
    world.joined(&connect("dev"), true);
}

/// [MQTT-3.3.4-6]
#[test]
fn a_publish_with_a_subscription_identifier_is_a_protocol_error() {
    let world = World::new();
    let mut client = world.joined(&transient("c"), false);
    let mut packet: Publish<'_> = publish(QoS::AtMostOnce, 0, "a", "x");
    packet.properties.subscription_ids = vec![1];
    client.send(&Packet::Publish(packet));
    assert_eq!(client.heard(), ["DISCONNECT 82"]);
}

#[test]
fn a_packet_that_fits_only_without_an_alias_is_sent_without_one() {
    let world = World::new();
    let mut with_aliases = transient("c");
    with_aliases.properties.topic_alias_maximum = Some(10);
    with_aliases.properties.packet_bytes_max = Some(20);
    let mut client = world.subscriber(&with_aliases, "a", QoS::AtMostOnce);
    // 2 of fixed header, 3 of topic, 1 of properties, 3 more with an alias.
    for payload in ["12345678901234", "123456789012345", "12345678901", "12345678901"] {
        client.send(&qos0("a", payload));
    }
    assert_eq!(
        client.heard(),
        ["PUBLISH q0 a=12345678901234", "PUBLISH q0 a=12345678901", "PUBLISH q0 =12345678901"]
    );
}

#[test]
fn a_client_hears_its_own_messages() {
    let world = World::new();
    let mut client = world.joined(&connect("c"), false);
    client.send(&subscribe("#", QoS::AtLeastOnce));
    client.send(&qos1(1, "a", "x"));
    client.send(&qos0("a", "y"));
    assert_eq!(client.heard(), NOTHING, "SUBACK comes first");
    world.settle();
    let heard = client.heard();
    assert_eq!(heard, ["SUBACK 1", "PUBACK 1", "PUBLISH q0 a=y", "PUBLISH q1 #1 a=x"]);
}

/// [MQTT-3.3.2-5]: what came while SUBACK waited for the disk leaves behind it, unless it has expired meanwhile.
#[test]
fn a_live_message_that_waits_for_suback_can_expire() {
    let world = World::new();
    let mut publisher = world.joined(&connect("pub"), false);
    let mut client = world.joined(&connect("c"), false);
    client.send(&subscribe("#", QoS::AtMostOnce));
    for (payload, expiry) in [("brief", Some(1)), ("long", Some(2)), ("for ever", None)] {
        let mut packet = publish(QoS::AtMostOnce, 0, "a", payload);
        packet.properties.message_expiry = expiry;
        publisher.send(&Packet::Publish(packet));
    }
    world.pass(1_000);
    assert_eq!(client.heard(), NOTHING);
    world.settle();
    assert_eq!(client.heard(), ["SUBACK 0", "PUBLISH q0 a=long", "PUBLISH q0 a=for ever"]);
}

/// [MQTT-3.1.3-8]
#[test]
fn a_client_identifier_longer_than_the_limit_is_refused() {
    let world = World::new();
    let (fits, too_long) = ("x".repeat(1_024), "x".repeat(1_025));
    world.joined(&connect(&fits), false);
    assert_eq!(world.refused(&connect(&too_long)), ["CONNACK 0 85"]);
}

/// [MQTT-3.2.2-8]: CONNACK has no "server shutting down".
#[test]
fn who_comes_while_the_broker_ends_is_told_that_it_is_not_there() {
    let world = World::new();
    world.broker.begin_shutdown(world.now());
    assert_eq!(world.refused(&connect("c")), ["CONNACK 0 88"]);
}

/// What a connection is told at last waits in a place that all share: nobody's stays there.
#[test]
fn a_farewell_is_fetched_or_forgotten() {
    let world = World::new();
    let mut old = world.joined(&connect("dev"), false);
    let new = world.joined(&connect("dev"), true);
    assert_eq!(world.broker.farewells.count(), 1);
    assert_eq!(old.heard(), ["DISCONNECT 8e"]);
    assert_eq!(world.broker.farewells.count(), 0);
    drop(old);
    // It breaks before it has looked.
    let newest = world.joined(&connect("dev"), true);
    assert_eq!(world.broker.farewells.count(), 1);
    new.woken.0.store(false, std::sync::atomic::Ordering::Relaxed);
    new.lose();
    assert_eq!(world.broker.farewells.count(), 0);
    newest.leave(ReasonCode::Success, None);
    assert_eq!(world.broker.farewells.count(), 0);
}
