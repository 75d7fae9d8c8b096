//! PINGREQ and DISCONNECT: sections 3.12 to 3.14 of both versions.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::raw::{ALL, flags_but, packet, shown_out};
use crate::{
    harness::Broker,
    peer::{
        Peer,
        packets::{Connecting, Spec, connect, disconnect, publish},
    },
    transcripts::scene::BOTH,
};

/// [MQTT-3.12.4-1], [MQTT3-3.12.4-1]: a PINGRESP for each, in its place among the other answers; one with flags or with a
/// body is no PINGREQ.
#[tokio::test]
async fn a_ping_is_answered() {
    let broker = Broker::start();
    for version in ALL {
        let mut dev = broker.client(version, connect("dev")).await;
        dev.send_bytes(&[0xc0, 0, 0xc0, 0, 0xc0, 0]).await;
        dev.expect_bytes(&[0xd0, 0, 0xd0, 0, 0xd0, 0]).await;
        for flags in flags_but(0) {
            shown_out(&broker, version, &packet(0xc0 | flags, &[]), ReasonCode::MalformedPacket).await;
        }
        shown_out(&broker, version, &packet(0xc0, &[0]), ReasonCode::MalformedPacket).await;
        dev.expect_nothing_for_one_ping().await;
        dev.leave().await;
    }
}

fn with_will() -> Connecting {
    connect("dev").will(publish("will/dev", "gone").qos1(0))
}

async fn watcher(broker: &Broker, version: Version) -> Peer {
    let mut watcher = broker.client(version, connect("watcher")).await;
    watcher.subscribed("will/#", QoS::AtLeastOnce).await;
    watcher
}

/// [MQTT-3.14.1-1], [MQTT3-3.14.1-1]: a DISCONNECT with reserved flags is malformed, and no goodbye: the will is published.
#[tokio::test]
async fn disconnect_with_flags_is_malformed() {
    let broker = Broker::start();
    for version in ALL {
        let mut watcher = watcher(&broker, version).await;
        for flags in flags_but(0) {
            let mut dev = broker.client(version, with_will()).await;
            dev.send_bytes(&packet(0xe0 | flags, &[])).await;
            dev.expect_shown_out(version, ReasonCode::MalformedPacket).await;
            watcher.take(publish("will/dev", "gone").qos1(0)).await;
        }
        broker.client(version, with_will()).await.leave().await;
        watcher.expect_nothing_for_one_ping().await;
        watcher.leave().await;
    }
}

/// [MQTT-3.14.4-3], [MQTT3-3.14.4-3]: DISCONNECT with 0x00, however it is written, takes the will with it. Any other reason
/// publishes it.
#[tokio::test]
async fn a_normal_disconnect_discards_the_will() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = watcher(&broker, version).await;
        let normal: &[&[u8]] = if version.is_v5() { &[&[], &[0x00], &[0x00, 0x00]] } else { &[&[]] };
        for body in normal {
            let mut dev = broker.client(version, with_will()).await;
            dev.send_bytes(&packet(0xe0, body)).await;
            dev.expect_closed().await;
        }
        watcher.expect_nothing_for_one_ping().await;
        let other: &[&[u8]] = if version.is_v5() { &[&[0x04], &[0x80, 0x00], &[0x97]] } else { &[] };
        for body in other {
            let mut dev = broker.client(version, with_will()).await;
            dev.send_bytes(&packet(0xe0, body)).await;
            dev.expect_closed().await;
            watcher.take(publish("will/dev", "gone").qos1(0)).await;
        }
        watcher.expect_nothing_for_one_ping().await;
        watcher.leave().await;
    }
}

/// [MQTT-3.14.2-1]: a client's DISCONNECT with a reason of another packet is a protocol error, with no reason code at all
/// malformed; each of its own ends the connection without an answer. v3 has no reasons.
#[tokio::test]
async fn a_clients_disconnect_has_a_reason_of_its_packet() {
    const OWN: [u8; 15] =
        [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    let broker = Broker::start();
    for reason in OWN {
        let mut dev = broker.client(Version::V5, connect("dev")).await;
        dev.send_bytes(&[0xe0, 1, reason]).await;
        dev.expect_closed().await;
    }
    for reason in [0x01, 0x10, 0x11, 0x18, 0x84, 0x91, 0x92] {
        shown_out(&broker, Version::V5, &[0xe0, 1, reason], ReasonCode::ProtocolError).await;
    }
    for reason in [0x03, 0x7f, 0xff] {
        shown_out(&broker, Version::V5, &[0xe0, 1, reason], ReasonCode::MalformedPacket).await;
    }
    shown_out(&broker, Version::V311, &[0xe0, 1, 0], ReasonCode::MalformedPacket).await;
}

/// The next packet is the broker's DISCONNECT with this reason and without a session expiry, and the last.
async fn expect_goodbye(peer: &mut Peer, reason: ReasonCode) {
    peer.receive_with(|packet| {
        let Packet::Disconnect(goodbye) = packet else { panic!("{packet:?}") };
        assert_eq!((goodbye.reason, goodbye.properties.session_expiry), (reason, None));
    })
    .await;
    peer.expect_closed().await;
}

/// [MQTT-3.14.2-1], [MQTT-3.14.2-2], [MQTT-3.14.4-1], [MQTT-3.14.4-2]: whatever the broker ends a connection for, it says one
/// of DISCONNECT's reasons, no session expiry, and nothing more, though messages keep coming, and closes. 3.1.1 has no such
/// packet: the connection is closed.
#[tokio::test]
async fn the_brokers_disconnect_is_the_last_packet() {
    let mut broker = Broker::start();
    let mut flood = broker.client(Version::V5, connect("flood")).await;
    // A second CONNECT, of a version that does not exist, whose reason would be CONNACK's 0x84.
    let unknown_version = packet(0x10, b"\0\x04MQTT\x06\x02\0\0\0\0\x01x");
    for (bytes, reason) in [
        (vec![0x00, 0], ReasonCode::MalformedPacket),
        (vec![0x20, 3, 0, 0, 0], ReasonCode::ProtocolError),
        (unknown_version, ReasonCode::ProtocolError),
        (packet(0x30, b"\0\x01#\0"), ReasonCode::TopicNameInvalid),
        (packet(0x30, b"\0\x01t\x03\x23\xff\xff"), ReasonCode::TopicAliasInvalid),
    ] {
        let mut dev = broker.client(Version::V5, connect("dev")).await;
        dev.subscribed("flood", QoS::AtMostOnce).await;
        flood.send_all((0..100).map(|n| publish("flood", [n]).into())).await;
        dev.expect_publish(publish("flood", [0])).await;
        dev.send_bytes(&bytes).await;
        let mut next = 1;
        let goodbye = loop {
            match dev.receive().await {
                Spec::Publish(message) => assert_eq!(message.payload, [next]),
                other => break other,
            }
            next += 1;
        };
        assert_eq!(goodbye, disconnect().because(reason));
        dev.expect_closed().await;
    }
    let mut old = broker.client(Version::V5, connect("dev").persistent().session_expiry(60)).await;
    let mut taken_over = broker.client(Version::V311, connect("three")).await;
    let new = broker.client(Version::V5, connect("dev")).await;
    let mut three = broker.client(Version::V311, connect("three")).await;
    expect_goodbye(&mut old, ReasonCode::SessionTakenOver).await;
    taken_over.expect_closed().await;
    let mut quiet = broker.client(Version::V5, connect("quiet").persistent().keep_alive(1)).await;
    expect_goodbye(&mut quiet, ReasonCode::KeepAliveTimeout).await;
    assert_eq!(broker.terminate().code(), Some(0));
    for mut peer in [new, flood] {
        expect_goodbye(&mut peer, ReasonCode::ServerShuttingDown).await;
    }
    three.expect_closed().await;
}

/// [MQTT-3.14.0-1]: who is refused hears so in CONNACK, and never a DISCONNECT, not even for what comes behind his CONNECT.
#[tokio::test]
async fn who_is_refused_gets_no_disconnect() {
    let broker = Broker::start();
    // An authentication method that is not known; and a packet of type 0 in the same write.
    let connecting = b"\0\x04MQTT\x05\x02\0\0\x04\x15\0\x01x\0\x01c";
    let mut dev = broker.peer(Version::V5).await;
    dev.send_bytes(&[packet(0x10, connecting), vec![0x00, 0]].concat()).await;
    dev.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.reason, ReasonCode::BadAuthenticationMethod);
    })
    .await;
    dev.expect_closed().await;
    // The same behind a CONNECT that is accepted.
    let mut dev = broker.client(Version::V5, connect("c")).await;
    dev.send_bytes(&[0x00, 0]).await;
    dev.expect_shown_out(Version::V5, ReasonCode::MalformedPacket).await;
}

/// [MQTT3-3.14.4-1], [MQTT3-3.14.4-2], and in 5.0 [MQTT-3.14.4-1], [MQTT-3.14.4-2] as far as they are the client's: the
/// broker closes behind its DISCONNECT, and what follows is not looked at.
#[tokio::test]
async fn what_follows_a_disconnect_is_not_looked_at() {
    let broker = Broker::start();
    for version in ALL {
        let mut rude = broker.client(version, with_will()).await;
        let mut watcher = broker.client(version, connect("watcher")).await;
        watcher.subscribed("#", QoS::AtMostOnce).await;
        rude.send_all([publish("t", "1").into(), disconnect(), publish("t", "2").into(), disconnect()]).await;
        rude.expect_closed().await;
        watcher.expect_publish(publish("t", "1")).await;
        watcher.expect_nothing_for_one_ping().await;
        watcher.leave().await;
    }
}

/// A reason without a property length is allowed, and there are clients that cannot read it: see docs/interop.md.
#[tokio::test]
async fn a_disconnect_always_has_its_property_length() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V5, connect("dev")).await;
    dev.send_bytes(&[0x00, 0]).await;
    let bytes = dev.expect_ended().await;
    let [0xe0, length, 0x81, properties, rest @ ..] = &bytes[..] else { panic!("{bytes:x?}") };
    assert_eq!((usize::from(*length), usize::from(*properties)), (2 + rest.len(), rest.len()));
}
