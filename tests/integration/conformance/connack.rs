//! Section 3.2: CONNACK, its place, its flags and its reasons.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};

use super::raw;
use crate::{
    harness::Broker,
    peer::packets::{Spec, connack, connack_present, connect, disconnect, publish},
    transcripts::scene::{BOTH, Stopwatch},
};

/// [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT3-3.1.4-4], [MQTT3-3.2.0-1]: whatever waits for the client, and whatever it asks
/// before it is answered, CONNACK comes first.
#[tokio::test]
async fn connack_comes_first() {
    let broker = Broker::start();
    for version in BOTH {
        broker.sleeper(version, "dev", "t", QoS::AtLeastOnce).await;
        let mut other = broker.client(version, connect("other")).await;
        other.published(publish("t", "queued").qos1(1)).await;
        let mut dev = broker.peer(version).await;
        dev.send_all([connect("dev").persistent().into(), publish("t", "live").into(), Spec::Pingreq]).await;
        dev.expect(connack_present()).await;
        let mut rest = Vec::new();
        for _ in 0..3 {
            rest.push(dev.receive().await);
        }
        assert!(rest.contains(&Spec::Pingresp), "{rest:?}");
        drop(dev);
        broker.client(version, connect("dev")).await.leave().await;
        other.leave().await;
    }
}

/// [MQTT-3.2.0-2]: a second CONNECT gets no second CONNACK, nor does anything else.
#[tokio::test]
async fn there_is_one_connack() {
    let broker = Broker::start();
    for version in BOTH {
        let mut dev = broker.peer(version).await;
        dev.send_all([connect("dev").into(), connect("dev").into()]).await;
        dev.expect(connack(ReasonCode::Success)).await;
        dev.expect_shown_out(version, ReasonCode::ProtocolError).await;
        // Refused in the words of 3.1.1, whose version it does not know.
        let mut refused = broker.peer(Version::V311).await;
        let twice = [refused_connect(version), refused_connect(version)].concat();
        refused.send_bytes(&twice).await;
        refused.expect(connack(ReasonCode::UnsupportedProtocolVersion)).await;
        refused.expect_closed().await;
    }
}

/// A CONNECT that is refused for its version, with the client id of `dev` and without a clean start.
fn refused_connect(version: Version) -> Vec<u8> {
    let mut bytes = raw::connect(version, 0, &[raw::string("dev")]);
    bytes[8] = 77;
    bytes
}

/// [MQTT-3.2.2-1], [MQTT-3.2.2-6], [MQTT3-3.2.2-4]: of the flags' byte only the lowest bit is ever used, and a refusal
/// does not use it even if there is a session.
#[tokio::test]
async fn the_acknowledge_flags_are_0_but_for_session_present() {
    let broker = Broker::start();
    for version in BOTH {
        // New, there, refused, and still there.
        for (connect, expected) in [
            (raw::connect_with(version, 0, &[0x11, 0, 0, 1, 0], &[raw::string("dev")]), [0, 0]),
            (raw::connect_with(version, 0, &[0x11, 0, 0, 1, 0], &[raw::string("dev")]), [1, 0]),
            (refused_connect(version), [0, 1]),
            (raw::connect_with(version, 0, &[0x11, 0, 0, 1, 0], &[raw::string("dev")]), [1, 0]),
            (raw::connect(version, 2, &[raw::string("dev")]), [0, 0]),
        ] {
            let mut peer = broker.peer(version).await;
            peer.send_bytes(&connect).await;
            let head = peer.receive_bytes(4).await;
            assert_eq!((head[0], &head[2..]), (0x20, &expected[..]), "{version:?}: {connect:x?}");
            if expected[1] == 0 {
                peer.send(disconnect()).await;
            }
            peer.expect_ended().await;
        }
    }
    // A v5 refusal, to a session's own client.
    broker.client(Version::V5, connect("dev").persistent()).await.leave().await;
    let mut peer = broker.peer(Version::V5).await;
    let method = [&[0x15][..], &raw::string("no such method")].concat();
    peer.send_bytes(&raw::connect_with(Version::V5, 0, &method, &[raw::string("dev")])).await;
    let connack = peer.expect_ended().await;
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0x8c));
    broker.returning(Version::V5, connect("dev").persistent()).await.leave().await;
}

/// [MQTT-3.2.2-7], [MQTT-3.2.2-8], [MQTT-3.1.4-2], [MQTT3-3.2.2-5]: why a client is refused has a reason of the table, and
/// then the connection is closed.
#[tokio::test]
async fn refusals_have_a_reason_of_the_table_and_close() {
    let broker = Broker::start_configured("[limits]\nclient_id_bytes_max = \"23B\"\n[sessions]\nmax = 1\n");
    let one = broker.client(Version::V5, connect("one")).await;
    let method = [&[0x15][..], &raw::string("no such method")].concat();
    let id = |id: &str| [raw::string(id)];
    let v311 = [
        (refused_connect(Version::V311), 1),
        (raw::connect(Version::V311, 2, &id("a client identifier too long")), 2),
        (raw::connect(Version::V311, 0, &id("")), 2),
        (raw::connect(Version::V311, 2, &id("two")), 3),
    ];
    let v5 = [
        (raw::connect(Version::V5, 3, &id("dev")), 0x81),
        // Receive maximum 0.
        (raw::connect_with(Version::V5, 2, &[0x21, 0, 0], &id("dev")), 0x82),
        (raw::connect(Version::V5, 2, &id("a client identifier too long")), 0x85),
        (raw::connect_with(Version::V5, 2, &method, &id("dev")), 0x8c),
        (raw::connect(Version::V5, 2, &id("two")), 0x97),
    ];
    for (version, (connect, code)) in
        v311.map(|case| (Version::V311, case)).into_iter().chain(v5.map(|case| (Version::V5, case)))
    {
        let mut peer = broker.peer(version).await;
        peer.send_bytes(&connect).await;
        let reply = peer.expect_ended().await;
        assert_eq!((reply[0], reply[2], reply[3]), (0x20, 0, code), "{version:?}: {connect:x?}: {reply:x?}");
        assert_eq!(reply.len(), usize::from(reply[1]) + 2, "nothing follows it");
    }
    one.leave().await;
    broker.client(Version::V311, connect("two")).await.leave().await;
}

/// [MQTT3-3.2.2-6]: 3.1.1 has no word for a CONNECT that is too large, or makes no sense; it is closed without one.
#[tokio::test]
async fn what_no_return_code_fits_is_closed_without_one() {
    let broker = Broker::start_configured("[limits]\npacket_bytes_max = \"2KiB\"\n");
    for version in [Version::V31, Version::V311] {
        let large = raw::connect(version, 2, &[raw::string("x".repeat(3_000))]);
        for bytes in [large, raw::connect(version, 3, &[raw::string("dev")])] {
            let mut peer = broker.peer(version).await;
            peer.send_bytes(&bytes).await;
            assert_eq!(peer.expect_ended().await, [0_u8; 0]);
        }
        broker.client(version, connect("dev")).await.leave().await;
    }
}

/// [MQTT-3.2.2-22], [MQTT-3.1.2-22], [MQTT3-3.1.2-24]: with no word of the server about it, the client's own keep alive
/// is in force, and without one there is none.
#[tokio::test]
async fn without_a_server_keep_alive_the_clients_own_is_in_force() {
    let broker = Broker::start();
    for version in BOTH {
        let mut quiet = broker.peer(version).await;
        let mut without = broker.client(version, connect("without")).await;
        let mut long = broker.client(version, connect("long").keep_alive(60)).await;
        let watch = Stopwatch::start();
        quiet.send(connect("quiet").keep_alive(1)).await;
        quiet
            .receive_with(|packet| {
                let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
                assert_eq!(connack.properties.server_keep_alive, None);
            })
            .await;
        quiet.expect_ended().await;
        assert!(watch.elapsed().as_millis() >= 1_500, "{:?}", watch.elapsed());
        without.expect_nothing_for_one_ping().await;
        long.expect_nothing_for_one_ping().await;
        without.leave().await;
        long.leave().await;
    }
}
