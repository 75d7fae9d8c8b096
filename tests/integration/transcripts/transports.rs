//! The same conversation over every transport; and what each of them has of its own.

use std::{fs, os::unix::fs::MetadataExt};

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::{
        Over, Peer,
        packets::{connack, connack_present, connect, disconnect, puback, publish},
    },
};

/// Everything there is, each at its first place among those of its kind; the proxied ones come last of theirs.
const LISTENERS: &str = r#"
[limits]
client_id_bytes_max = "23B"
[[listeners]]
type = "tcp"
bind = "127.0.0.1:0"
[[listeners]]
type = "tls"
bind = "127.0.0.1:0"
[[listeners]]
type = "unix"
bind = "{folder}/mqtt.sock"
[[listeners]]
type = "ws"
bind = "127.0.0.1:0"
[[listeners]]
type = "wss"
bind = "127.0.0.1:0"
path = "/"
[[listeners]]
name = "proxied"
type = "tcp"
bind = "127.0.0.1:0"
proxy_protocol = "required"
allow_anonymous = true
[[listeners]]
name = "proxied-tls"
type = "tls"
bind = "127.0.0.1:0"
proxy_protocol = "required"
allow_anonymous = true
proxy_trusted = ["127.0.0.0/8", "2001:db8::/32"]
[[listeners]]
name = "untrusting"
type = "tcp"
bind = "127.0.0.1:0"
proxy_protocol = "required"
allow_anonymous = true
proxy_trusted = ["192.0.2.0/24"]
"#;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n";
/// `2001:db8::7`, port 443, with an additional field behind.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb\x07\x5b\x03\0\x01x";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const EVERY_WAY: [Over; 8] = [
    Over::Tcp,
    Over::Tls,
    Over::Unix,
    Over::Ws,
    Over::Wss,
    Over::Proxied(1, V1),
    Over::Proxied(1, V2),
    Over::ProxiedTls(1, V2),
];

async fn client_over(broker: &Broker, over: Over, version: Version, id: &str) -> Peer {
    let mut peer = broker.peer_over(over, version).await;
    peer.send(connect(id).persistent()).await;
    peer.expect(connack(ReasonCode::Success)).await;
    peer
}

#[tokio::test]
async fn the_same_conversation_over_every_transport() {
    let broker = Broker::start_configured(LISTENERS);
    for version in BOTH {
        for over in EVERY_WAY {
            let mut dev = client_over(&broker, over, version, "dev").await;
            let mut other = broker.client(version, connect("other")).await;
            dev.subscribed("a/#", QoS::ExactlyOnce).await;
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let message = |id| match qos {
                    QoS::AtMostOnce => publish("a/b", "in and out"),
                    QoS::AtLeastOnce => publish("a/b", "in and out").qos1(id),
                    QoS::ExactlyOnce => publish("a/b", "in and out").qos2(id),
                };
                other.published(message(1)).await;
                dev.take(message(0)).await;
            }
            let large = vec![b'l'; 900_000];
            other.published(publish("a/large", &large).qos1(2)).await;
            dev.take(publish("a/large", &large).qos1(0)).await;
            dev.published(publish("kept", &large).qos1(3).retained()).await;
            other.subscribed("kept", QoS::AtMostOnce).await;
            other.expect_publish(publish("kept", &large).retained()).await;
            dev.published(publish("kept", "").qos1(3).retained()).await;
            other.expect_publish(publish("kept", "")).await;

            // A second connection of the same client takes over, and the first one is told.
            let mut again = broker.peer_over(over, version).await;
            again.send(connect("dev").persistent()).await;
            dev.expect_shown_out(version, ReasonCode::SessionTakenOver).await;
            again.expect(connack_present()).await;
            again.leave().await;

            let mut refused = broker.peer_over(over, version).await;
            refused.send(connect("a client identifier that is too long")).await;
            refused.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;
            refused.expect_closed().await;

            // The session is not wanted any more.
            broker.client(version, connect("dev")).await.leave().await;
            other.leave().await;
        }
    }
}

/// [MQTT-6.0.0-2] [MQTT3-6.0.0-2]: packets are cut anywhere, and come in pieces of a byte.
#[tokio::test]
async fn packets_in_pieces_of_a_byte_are_joined_over_every_transport() {
    let broker = Broker::start_configured(LISTENERS);
    for over in EVERY_WAY {
        let mut peer = broker.peer_over(over, Version::V311).await;
        for byte in b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab" {
            peer.send_bytes(&[*byte]).await;
        }
        peer.expect(connack(ReasonCode::Success)).await;
        for byte in b"\x32\x07\0\x01t\0\x09hi" {
            peer.send_bytes(&[*byte]).await;
        }
        peer.expect(puback(9)).await;
        peer.leave().await;
    }
}

/// The file has its mode, a dead broker's file is replaced, and at the end it goes.
#[tokio::test]
async fn a_unix_socket_s_file_comes_and_goes_with_the_broker() {
    let toml = "[[listeners]]\ntype = \"unix\"\nbind = \"{folder}/mqtt.sock\"\nmode = \"0600\"\n";
    let mut broker = Broker::start_configured(toml);
    let file = broker.folder().join("mqtt.sock");
    assert_eq!(broker.place("unix", 0), file.to_str().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    client_over(&broker, Over::Unix, Version::V5, "dev").await.leave().await;
    let uid = fs::metadata(broker.folder()).unwrap().uid();
    let who = format!("unix:uid={uid}:pid={}", std::process::id());
    assert_eq!(broker.logged(&["\"connected\"", "\"dev\"", &who]), 1, "{}", broker.log());
    broker.kill9();
    assert!(file.exists(), "as it was left");
    broker.restart();
    let mut dev = broker.peer_over(Over::Unix, Version::V5).await;
    dev.send(connect("dev").persistent()).await;
    dev.expect(connack_present()).await;
    dev.leave().await;
    assert_eq!(broker.terminate().code(), Some(0));
    assert!(!file.exists());
}

/// The client's address is the one that counts in the log, and the proxy's own when it speaks for itself.
#[tokio::test]
async fn a_proxy_says_whom_it_connects() {
    let broker = Broker::start_configured(LISTENERS);
    for (id, header, address) in
        [("one", V1, "192.0.2.7:50123"), ("two", V2, "[2001:db8::7]:443"), ("own", V2_LOCAL, "127.0.0.1:")]
    {
        client_over(&broker, Over::Proxied(1, header), Version::V5, id).await.leave().await;
        let address = format!("\"address\":\"{address}");
        for message in ["\"connected\"", "\"disconnected\""] {
            broker.expect_logged(1, &[message, id, &address]).await;
        }
    }
}

/// Who does not come by a proxy is nobody here; and only whom the operator trusts is a proxy.
#[tokio::test]
async fn a_listener_for_proxies_takes_nobody_else() {
    let broker = Broker::start_configured(&format!("{LISTENERS}[log]\nlevel = \"debug\"\n"));
    let connect_bytes = b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab";
    let bad: [(usize, &'static [u8], &str); 5] = [
        (1, b"", "there is no header"),
        (1, b"PROXY TCP4 192.0.2.7 198.51.100.1 50123\r\n", "the header's line is malformed"),
        (1, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04", "the header is malformed"),
        (1, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "the header is too long"),
        (2, V1, "not a trusted proxy"),
    ];
    for (before, header, why) in bad {
        let mut stranger = broker.peer_over(Over::Proxied(before, header), Version::V311).await;
        // It may be gone already.
        let _ = stranger.try_send(connect_bytes).await;
        assert_eq!(stranger.expect_ended().await, b"", "{why}");
        let mut other = broker.client(Version::V311, connect("other")).await;
        broker.until_logged(&mut other, &["no proxy", why]).await;
        other.send(disconnect()).await;
        other.expect_closed().await;
    }
}

/// A header that does not come ends like a CONNECT that does not come.
#[tokio::test]
async fn half_a_proxy_header_ends_at_the_connect_timeout() {
    let broker =
        Broker::start_configured(&LISTENERS.replace("[limits]", "[limits]\nconnect_timeout = \"1s\""));
    let halves: [&'static [u8]; 3] = [b"", b"PROXY TCP4 192.0.2.7 198", &V2[..30]];
    let mut peers = Vec::new();
    for half in halves {
        peers.push(broker.peer_over(Over::Proxied(1, half), Version::V311).await);
    }
    for mut peer in peers {
        assert_eq!(peer.expect_ended().await, b"");
    }
    broker.expect_logged(1, &["the header does not come", "\"times\":1"]).await;
}
