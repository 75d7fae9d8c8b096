//! Section 3.1: what a CONNECT has to look like, and who is let in.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::raw::{self, ALL, string};
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{connack, connect, publish},
    },
    transcripts::scene::BOTH,
};

const CLEAN: u8 = 0b10;
const WILL: u8 = 0b100;
const WILL_QOS_1: u8 = 0b1000;
const WILL_RETAIN: u8 = 0b10_0000;
const PASSWORD: u8 = 0b100_0000;
const USER_NAME: u8 = 0b1000_0000;

/// What a client identifier may always be made of.
const PLAIN: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The fields of a will.
fn will(version: Version) -> Vec<u8> {
    [raw::properties(version, &[]), string("will/dev"), string("gone")].concat()
}

/// Served, and gone again.
async fn accepted(broker: &Broker, version: Version, bytes: &[u8]) {
    let mut peer = broker.peer(version).await;
    peer.send_bytes(bytes).await;
    peer.expect(connack(ReasonCode::Success)).await;
    peer.leave().await;
}

/// Closed: v5 is told that it is malformed (or what else `reason` says), the others hear nothing.
async fn refused(broker: &Broker, version: Version, bytes: &[u8], reason: ReasonCode) {
    eprintln!("{version:?}: {bytes:x?}");
    let mut peer = broker.peer(version).await;
    peer.send_bytes(bytes).await;
    if version.is_v5() {
        peer.expect(connack(reason)).await;
    }
    peer.expect_closed().await;
}

/// [MQTT-3.1.4-1], [MQTT3-3.1.4-1], in particular [MQTT-3.1.2-3], [MQTT-3.1.2-9], [MQTT-3.1.2-11], [MQTT-3.1.2-12],
/// [MQTT-3.1.2-13], [MQTT-3.1.2-16], [MQTT-3.1.2-17], [MQTT-3.1.2-18], [MQTT-3.1.2-19], [MQTT-3.1.3-3] and
/// [MQTT3-3.1.2-3], [MQTT3-3.1.2-9], [MQTT3-3.1.2-11], [MQTT3-3.1.2-13], [MQTT3-3.1.2-14], [MQTT3-3.1.2-15],
/// [MQTT3-3.1.2-18], [MQTT3-3.1.2-19], [MQTT3-3.1.2-20], [MQTT3-3.1.2-21], [MQTT3-3.1.3-3]: flags and fields that belong
/// together are both there, or the connection is closed.
#[tokio::test]
async fn flags_and_payload_have_to_fit() {
    let broker = Broker::start();
    for version in BOTH {
        let (id, will, name) = (string("dev"), will(version), string("somebody"));
        let good: [(u8, &[&Vec<u8>]); 7] = [
            (CLEAN, &[&id]),
            (CLEAN | WILL, &[&id, &will]),
            (CLEAN | WILL | WILL_QOS_1 | WILL_RETAIN, &[&id, &will]),
            (CLEAN | WILL | WILL_QOS_1 << 1, &[&id, &will]),
            (CLEAN | USER_NAME, &[&id, &name]),
            (CLEAN | USER_NAME | PASSWORD, &[&id, &name, &name]),
            (CLEAN | USER_NAME | PASSWORD | WILL, &[&id, &will, &name, &name]),
        ];
        for (flags, fields) in good {
            let fields: Vec<Vec<u8>> = fields.iter().copied().cloned().collect();
            accepted(&broker, version, &raw::connect(version, flags, &fields)).await;
            // A field less, half a field less, a field more, and the reserved flag.
            let whole = fields.concat();
            for short in [whole.len() - fields.last().map_or(0, Vec::len), whole.len() - 1] {
                let bytes = raw::connect(version, flags, &[whole[..short].to_vec()]);
                refused(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
            }
            let more = raw::connect(version, flags, &[whole.clone(), name.clone()]);
            refused(&broker, version, &more, ReasonCode::MalformedPacket).await;
            let reserved = raw::connect(version, flags | 1, &fields);
            refused(&broker, version, &reserved, ReasonCode::MalformedPacket).await;
        }
        let bad: [(u8, &[&Vec<u8>]); 4] = [
            (CLEAN | WILL_QOS_1, &[&id]),
            (CLEAN | WILL_QOS_1 << 1, &[&id]),
            (CLEAN | WILL_RETAIN, &[&id]),
            // QoS 3.
            (CLEAN | WILL | WILL_QOS_1 | WILL_QOS_1 << 1, &[&id, &will]),
        ];
        for (flags, fields) in bad {
            let fields: Vec<Vec<u8>> = fields.iter().copied().cloned().collect();
            let bytes = raw::connect(version, flags, &fields);
            refused(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
}

/// 3.1 says that user name and password may be missing in spite of their flags: its section 3.1, "Payload".
#[tokio::test]
async fn a_login_may_be_missing_in_3_1() {
    let broker = Broker::start();
    for (flags, fields) in [(USER_NAME, 1), (USER_NAME | PASSWORD, 1), (USER_NAME | PASSWORD, 2)] {
        let fields = &[string("dev"), string("somebody")][..fields];
        accepted(&broker, Version::V31, &raw::connect(Version::V31, CLEAN | flags, fields)).await;
        refused(
            &broker,
            Version::V311,
            &raw::connect(Version::V311, CLEAN | flags, &[string("dev")]),
            ReasonCode::MalformedPacket,
        )
        .await;
    }
}

/// [MQTT3-3.1.2-22]: a password without a user name; 5.0 allows it.
#[tokio::test]
async fn a_password_needs_a_user_name_in_v3() {
    let broker = Broker::start();
    for version in ALL {
        let bytes = raw::connect(version, CLEAN | PASSWORD, &[string("dev"), string("secret")]);
        if version.is_v5() {
            accepted(&broker, version, &bytes).await;
        } else {
            refused(&broker, version, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-3.1.3-1], [MQTT3-3.1.3-1]: client id, will, user name, password, in this order: the will is what was sent as the
/// will, and the session is that of the first field.
#[tokio::test]
async fn the_fields_are_read_in_their_order() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = broker.client(version, connect("watcher")).await;
        watcher.subscribed("will/#", QoS::AtMostOnce).await;
        let fields = [string("first"), will(version), string("third"), string("fourth")];
        let mut dev = broker.peer(version).await;
        dev.send_bytes(&raw::connect(version, CLEAN | WILL | USER_NAME | PASSWORD, &fields)).await;
        dev.expect(connack(ReasonCode::Success)).await;
        let taker = broker.client(version, connect("first")).await;
        dev.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
        watcher.expect_publish(publish("will/dev", "gone")).await;
        watcher.expect_nothing_for_one_ping().await;
        taker.leave().await;
        watcher.leave().await;
    }
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2], [MQTT3-3.1.2-1], [MQTT3-3.1.2-2]: another name is closed, an unknown version of ours is
/// told so in the words of 3.1.1, and each known one needs its own name.
#[tokio::test]
async fn protocol_names_and_levels_are_known_or_refused() {
    let broker = Broker::start();
    let connect = |name: &str, level: u8| {
        let rest: &[u8] = if level == 5 { &[CLEAN, 0, 0, 0] } else { &[CLEAN, 0, 0] };
        raw::packet(0x10, &[&string(name), &[level][..], rest, &string("dev")].concat())
    };
    for (name, level, version) in
        [("MQIsdp", 3, Version::V31), ("MQTT", 4, Version::V311), ("MQTT", 5, Version::V5)]
    {
        accepted(&broker, version, &connect(name, level)).await;
    }
    for (name, level) in [("MQTT", 0), ("MQTT", 3), ("MQTT", 6), ("MQTT", 255), ("MQIsdp", 4), ("MQIsdp", 5)]
    {
        let mut peer = broker.peer(Version::V311).await;
        peer.send_bytes(&connect(name, level)).await;
        peer.expect_bytes(&[0x20, 2, 0, 1]).await;
        peer.expect_closed().await;
    }
    for name in ["", "mqtt", "MQTTs", "MQT", "HTTP", "MQisdp"] {
        for level in [3, 4, 5] {
            let mut peer = broker.peer(Version::V311).await;
            peer.send_bytes(&connect(name, level)).await;
            // That it is no version known here may be said, and nothing else.
            assert_eq!(peer.expect_ended().await, [0x20, 2, 0, 1], "{name} {level}");
        }
    }
}

/// [MQTT-3.1.0-1], [MQTT3-3.1.0-1]: who begins with anything else is closed, unheard.
#[tokio::test]
async fn the_first_packet_is_connect() {
    let broker = Broker::start();
    for version in BOTH {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("#", QoS::AtMostOnce).await;
        let subscribe = [&[0, 1][..], &raw::properties(version, &[]), &string("t"), &[0]].concat();
        for first in [
            raw::publish(version, 0x30, "t", &[]),
            raw::publish(version, 0x32, "t", &[]),
            raw::packet(0x82, &subscribe),
            vec![0xc0, 0],
            vec![0xe0, 0],
        ] {
            let mut stranger = broker.peer(version).await;
            stranger.send_bytes(&[first, raw::connect(version, CLEAN, &[string("dev")])].concat()).await;
            stranger.expect_closed().await;
        }
        reader.expect_nothing_for_one_ping().await;
        reader.leave().await;
    }
}

/// [MQTT-3.1.3-5], [MQTT3-3.1.3-5]: from one to 23 of the standard's 62 characters.
#[tokio::test]
async fn every_plain_client_id_is_allowed() {
    let broker = Broker::start_configured("[limits]\nclient_id_bytes_max = \"23B\"\n");
    for version in ALL {
        for start in (0..PLAIN.len() - 22).step_by(13) {
            accepted(&broker, version, &raw::connect(version, CLEAN, &[string(&PLAIN[start..start + 23])]))
                .await;
        }
        for length in 1..=23 {
            let id = &PLAIN[PLAIN.len() - length..];
            accepted(&broker, version, &raw::connect(version, CLEAN, &[string(id)])).await;
        }
    }
}

/// [MQTT-3.1.3-8], [MQTT3-3.1.3-9]: one that is too long for this broker is refused with the code for it, and closed.
#[tokio::test]
async fn a_client_id_that_is_refused_is_told_so() {
    let broker = Broker::start_configured("[limits]\nclient_id_bytes_max = \"23B\"\n");
    for version in ALL {
        let mut long = broker.peer(version).await;
        long.send(connect("a-device-with-24-letters")).await;
        long.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;
        long.expect_closed().await;
        broker.client(version, connect("a-device-with-23-letter")).await.leave().await;
    }
}

/// The name that v5 is told.
async fn assigned(dev: &mut Peer) -> Option<String> {
    dev.receive_with(|packet| match packet {
        Packet::Connack(connack) if connack.reason == ReasonCode::Success => {
            connack.properties.assigned_client_id.map(str::to_owned)
        }
        other => panic!("{other:?}"),
    })
    .await
}

/// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16], [MQTT3-3.1.3-6]: clients without a name are different clients, each
/// served like any other; v5 is told its name, under which its session is found. [MQTT3-3.1.3-7], [MQTT3-3.1.3-8]: 3.1.1
/// cannot leave a session behind that it has no name for.
#[tokio::test]
async fn a_client_without_a_name_is_given_one() {
    let broker = Broker::start();
    for version in BOTH {
        let asked = || if version.is_v5() { connect("").session_expiry(60) } else { connect("") };
        let (mut one, mut two) = (broker.peer(version).await, broker.peer(version).await);
        one.send(asked()).await;
        let name = assigned(&mut one).await;
        two.send(asked()).await;
        let other_name = assigned(&mut two).await;
        assert_eq!((name.is_some(), other_name.is_some()), (version.is_v5(), version.is_v5()));
        assert!(!version.is_v5() || name != other_name);
        // Neither has taken the other over, and each has a session.
        one.subscribed("t", QoS::AtLeastOnce).await;
        two.send(publish("t", "1")).await;
        one.expect_publish(publish("t", "1")).await;
        two.expect_nothing_for_one_ping().await;
        one.leave().await;
        if let Some(name) = name {
            two.published(publish("t", "2").qos1(2)).await;
            let mut back = broker.returning(version, connect(&name).persistent()).await;
            back.take(publish("t", "2").qos1(0)).await;
        }
    }
    let mut persistent = broker.peer(Version::V311).await;
    persistent.send(connect("").persistent()).await;
    persistent.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;
    persistent.expect_closed().await;
    // 3.1 has no clients without a name at all.
    let mut old = broker.peer(Version::V31).await;
    old.send(connect("")).await;
    old.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;
    old.expect_closed().await;
}

/// [MQTT-3.1.4-6], [MQTT3-3.1.4-5]: what a refused client has sent after its CONNECT is not looked at.
#[tokio::test]
async fn nothing_is_handled_after_a_refused_connect() {
    let broker = Broker::start_configured("[limits]\nclient_id_bytes_max = \"23B\"\n");
    for version in BOTH {
        let mut reader = broker.client(version, connect("reader")).await;
        reader.subscribed("#", QoS::AtMostOnce).await;
        let after = [
            raw::publish(version, 0x31, "t", &[]),
            raw::publish(version, 0x33, "t", &[]),
            raw::connect(version, CLEAN, &[string("dev")]),
            raw::publish(version, 0x30, "t", &[]),
        ]
        .concat();
        let long = raw::connect(version, CLEAN, &[string("a client identifier too long")]);
        let reserved = raw::connect(version, CLEAN | 1, &[string("dev")]);
        let unknown = raw::packet(0x10, &[&string("MQTT"), &[77, CLEAN, 0, 0][..], &string("dev")].concat());
        for connect in [long, reserved, unknown] {
            let mut refused = broker.peer(version).await;
            refused.send_bytes(&[connect, after.clone()].concat()).await;
            let said = refused.expect_ended().await;
            assert!(
                said.is_empty() || said.len() == usize::from(said[1]) + 2,
                "one CONNACK at most: {said:x?}"
            );
            reader.expect_nothing_for_one_ping().await;
        }
        // The same, accepted, is heard: it is the refusal that made the difference.
        let mut welcome = broker.peer(version).await;
        let good = raw::connect(version, CLEAN, &[string("dev")]);
        welcome.send_bytes(&[good, raw::publish(version, 0x30, "t", &[])].concat()).await;
        reader.expect_publish(publish("t", "payload")).await;
        reader.leave().await;
    }
}
