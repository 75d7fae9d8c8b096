//! A client that ends its connection before it is answered: what it had asked for is answered, and what the end means for
//! its session does not wait for that.

use super::{CloseReason, World, connect, puback, publish, qos1, qos2, subscribe, transient, v311};
use crate::codec::{
    Disconnect, DisconnectProperties, Packet, PublishProperties, QoS, ReasonCode, Version, Will,
};

const NOTHING: [&str; 0] = [];

fn disconnect() -> Packet<'static> {
    let properties = DisconnectProperties::default();
    Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties })
}

/// [MQTT-3.1.4-5], [MQTT3-3.1.4-4]: also behind a DISCONNECT, and only when the disk has the session.
#[test]
fn a_connect_with_its_good_bye_is_answered() {
    for hello in [connect("dev"), v311("dev")] {
        let mut world = World::new();
        for present in ["CONNACK 0", "CONNACK 1"] {
            let mut client = world.join(&hello);
            client.send(&disconnect());
            if present == "CONNACK 0" {
                assert_eq!(client.heard(), NOTHING);
                assert!(!client.closing, "it is not on disk yet");
                world.settle();
            }
            assert_eq!(client.heard(), [present]);
            assert!(client.closing);
            drop(client);
        }
        world.cut(1);
        world.joined(&hello, true);
    }
}

/// [MQTT-3.3.4-1], [MQTT-3.8.4-1], [MQTT-3.10.4-4]
#[test]
fn all_that_came_before_the_good_bye_is_answered_in_order() {
    for half_closed in [false, true] {
        let world = World::new();
        world.subscriber(&connect("sleeper"), "t", QoS::AtLeastOnce).lose();
        let mut client = world.joined(&connect("dev"), false);
        client.send(&subscribe("a", QoS::AtLeastOnce));
        client.send(&qos1(2, "t", "one"));
        client.send(&qos2(3, "t", "two"));
        client.send(&super::unsubscribe("a"));
        if half_closed {
            let now = client.now();
            client.connection.as_mut().unwrap().input_ended(now);
        } else {
            client.send(&disconnect());
        }
        assert_eq!(client.heard(), NOTHING);
        assert!(!client.closing);
        world.settle();
        assert_eq!(client.heard(), ["SUBACK 1", "PUBACK 2", "PUBREC 3", "UNSUBACK"]);
        assert!(client.closing);
    }
}

/// [MQTT-3.14.4-3]: for its session the connection ends with the DISCONNECT, not with the last answer.
#[test]
fn the_session_sleeps_from_its_good_bye_on() {
    let mut world = World::new();
    let mut watcher = world.subscriber(&transient("watcher"), "wills", QoS::AtMostOnce);
    let properties = PublishProperties::default();
    let (topic, qos, delay) = ("wills", QoS::AtMostOnce, None);
    let will = Some(Will { topic, payload: b"gone", qos, retain: false, delay, properties });
    let mut client = world.join(&super::Connect { will, ..connect("dev") });
    client.send(&subscribe("t", QoS::AtLeastOnce));
    client.send(&disconnect());
    watcher.send(&qos1(1, "t", "late"));
    world.settle();
    assert_eq!(watcher.heard(), ["PUBACK 1"], "and no will");
    assert_eq!(client.heard(), ["CONNACK 0", "SUBACK 1"], "and no message");
    drop((client, watcher));
    world.cut(1);
    let mut client = world.joined(&connect("dev"), true);
    world.settle();
    assert_eq!(client.heard(), ["PUBLISH! q1 #1 t=late"]);
    client.send(&puback(1));
}

/// A client that closes its side without a good-bye is missed, and gets its answers all the same.
#[test]
fn a_half_closed_connection_is_lost_at_once() {
    let world = World::new();
    let mut watcher = world.subscriber(&transient("watcher"), "wills", QoS::AtMostOnce);
    let properties = PublishProperties::default();
    let (topic, qos, delay) = ("wills", QoS::AtMostOnce, None);
    let will = Some(Will { topic, payload: b"gone", qos, retain: false, delay, properties });
    let mut client = world.join(&super::Connect { will, ..connect("dev") });
    let now = client.now();
    client.connection.as_mut().unwrap().input_ended(now);
    assert_eq!(watcher.heard(), ["PUBLISH q0 wills=gone"]);
    world.settle();
    assert_eq!(client.heard(), ["CONNACK 0"]);
    assert!(client.closing);
}

/// Who breaks the protocol is told so behind the answers to what was in order, and sleeps at once as well.
#[test]
fn an_error_is_told_behind_the_answers() {
    let world = World::new();
    let mut client = world.join(&connect("dev"));
    client.send(&qos1(1, "t", "x"));
    client.send(&Packet::Publish(publish(QoS::AtMostOnce, 0, "a/#", "x")));
    assert_eq!(client.heard(), NOTHING);
    let mut again = world.join(&connect("dev"));
    world.settle();
    assert_eq!(client.heard(), ["CONNACK 0", "PUBACK 1", "DISCONNECT 90"]);
    assert_eq!(again.heard(), ["CONNACK 1"]);
}

/// Retained messages of QoS 0 for a client that has left are not sent after it.
#[test]
fn no_message_leaves_behind_a_good_bye() {
    let world = World::new();
    let mut other = world.joined(&connect("other"), false);
    other.send(&super::retained(QoS::AtLeastOnce, 1, "t", "kept"));
    world.settle();
    let mut client = world.join(&transient("dev"));
    client.send(&subscribe("t", QoS::AtMostOnce));
    client.send(&disconnect());
    world.settle();
    assert_eq!(client.heard(), ["CONNACK 0", "SUBACK 0"]);
    assert!(client.closing);
}

/// A disk that fails meanwhile ends the wait: nothing is promised, and a client without CONNACK is told why.
#[test]
fn a_store_that_fails_ends_the_wait() {
    for version in [Version::V5, Version::V311] {
        let world = World::new();
        let hello = if version == Version::V5 { connect("dev") } else { v311("dev") };
        let mut client = world.join(&hello);
        client.send(&qos1(1, "t", "x"));
        client.send(&disconnect());
        world.disk.fail_after(0);
        world.settle();
        assert_eq!(client.heard(), ["CONNACK 0 88"]);
        assert!(client.closing);
        let now = client.now();
        client.connection.take().unwrap().close(CloseReason::Closed, now);
    }
}
