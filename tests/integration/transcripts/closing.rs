//! The last word reaches the client: a refusal, a DISCONNECT or an answer is sent, and then the connection is closed, in
//! such a way that no reset overtakes it, whatever the client is doing at that moment.

use dormouse::codec::{QoS, ReasonCode, Version};

use super::scene::BOTH;
use crate::{
    harness::Broker,
    peer::{
        Over, Peer,
        packets::{
            Spec, connack, connack_present, connect, disconnect, puback, publish, pubrec, suback, subscribe,
            unsuback, unsubscribe,
        },
    },
};

/// More than the socket buffers of both sides hold together when the broker does not read.
const FLOOD_BYTES: usize = 12 * 1024 * 1024;

const LISTENERS: &str = "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
                         [[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:0\"\n\
                         [[listeners]]\ntype = \"ws\"\nbind = \"127.0.0.1:0\"\n\
                         [[listeners]]\ntype = \"wss\"\nbind = \"127.0.0.1:0\"\n\
                         [[listeners]]\ntype = \"unix\"\nbind = \"{folder}/mqtt.sock\"\n";
const EVERY_WAY: [Over; 5] = [Over::Tcp, Over::Tls, Over::Ws, Over::Wss, Over::Unix];

/// A PUBLISH that nobody may send, and then everything the client had in mind to say, before it listens again.
fn flood(version: Version, first: &[u8]) -> Vec<u8> {
    let mut bytes = first.to_vec();
    let mut body = vec![0, 1, b't'];
    body.extend(version.is_v5().then_some(0));
    body.resize(127, b'x');
    while bytes.len() < FLOOD_BYTES {
        bytes.extend_from_slice(&[0x30, 127]);
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// All of it is taken from the client; but a WebSocket client reads as it writes, and says no more after a Close.
async fn send_flood(peer: &mut Peer, over: Over, flood: &[u8]) {
    let sent = peer.try_send(flood).await;
    assert!(sent.is_ok() || matches!(over, Over::Ws | Over::Wss), "{over:?}: {sent:?}");
}

async fn is_told_while_flooding(mut peer: Peer, over: Over, version: Version) {
    peer.send(connect("flood")).await;
    peer.expect(connack(ReasonCode::Success)).await;
    // A wildcard in a topic name [MQTT-3.3.2-2].
    let wildcard: &[u8] = if version.is_v5() { &[0x30, 4, 0, 1, b'#', 0] } else { &[0x30, 3, 0, 1, b'#'] };
    send_flood(&mut peer, over, &flood(version, wildcard)).await;
    if version.is_v5() {
        peer.expect(disconnect().because(ReasonCode::TopicNameInvalid)).await;
    }
    peer.expect_closed().await;
    let is_web = matches!(over, Over::Ws | Over::Wss);
    assert_eq!(peer.close_code(), is_web.then_some(1000), "{over:?}");
}

/// [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT3-4.8.0-1]: the connection is closed, and the reason comes first.
#[tokio::test]
async fn a_disconnect_reaches_a_client_that_writes_before_it_reads() {
    let broker = Broker::start_configured(LISTENERS);
    for version in BOTH {
        for over in EVERY_WAY {
            is_told_while_flooding(broker.peer_over(over, version).await, over, version).await;
        }
    }
}

/// [MQTT-3.2.2-7] [MQTT3-3.2.2-5]: a CONNACK with its reason, and then the end.
#[tokio::test]
async fn a_refusal_reaches_a_client_that_writes_before_it_reads() {
    let broker = Broker::start_configured(&format!("[limits]\nclient_id_bytes_max = \"23B\"\n{LISTENERS}"));
    for version in BOTH {
        for over in EVERY_WAY {
            let mut peer = broker.peer_over(over, version).await;
            peer.send(connect("a client identifier that is too long")).await;
            send_flood(&mut peer, over, &flood(version, &[])).await;
            peer.expect(connack(ReasonCode::ClientIdentifierNotValid)).await;
            peer.expect_closed().await;
        }
    }
}

/// The client has not taken what was sent to it before, and goes on writing: it is read, and so comes to read itself.
#[tokio::test]
async fn a_disconnect_reaches_a_client_that_is_behind_with_reading() {
    let broker = Broker::start();
    let version = Version::V5;
    let mut peer = broker.client(version, connect("behind")).await;
    peer.subscribed("big", QoS::AtMostOnce).await;
    let mut publisher = broker.client(version, connect("publisher")).await;
    let payload = vec![b'y'; 100_000];
    for _ in 0..100 {
        publisher.send(publish("big", &payload)).await;
    }
    publisher.expect_nothing_for_one_ping().await;
    peer.send_bytes(&flood(version, &[0x30, 4, 0, 1, b'#', 0])).await;
    let mut taken = 0;
    loop {
        match peer.receive().await {
            Spec::Publish(_) => taken += 1,
            other => {
                assert_eq!(other, disconnect().because(ReasonCode::TopicNameInvalid));
                break;
            }
        }
    }
    assert!(taken > 0, "there was something in the way");
    peer.expect_closed().await;
}

/// A CONNECT is anybody's: it has a bound of its own, below that of packets, and the header alone decides.
#[tokio::test]
async fn a_connect_may_have_so_many_bytes_and_no_more() {
    let broker = Broker::start();
    let will = |bytes: usize| publish("gone", vec![b'w'; bytes]);
    for version in BOTH {
        let mut whole = broker.peer(version).await;
        whole.send(connect("whole").will(will(60_000))).await;
        whole.expect(connack(ReasonCode::Success)).await;

        // 65,537 bytes with the header. What matters stands in the first fourteen, of which v5 is told apart by ten.
        let level = if version.is_v5() { 5 } else { 4 };
        let mut large = broker.peer(version).await;
        large.send_bytes(&[0x10, 0xfd, 0xff, 0x03, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0]).await;
        if version.is_v5() {
            large.expect(connack(ReasonCode::PacketTooLarge)).await;
        }
        large.expect_closed().await;
        // Connected, the bound is that of packets.
        whole.send(publish("t", vec![b'x'; 200_000])).await;
        whole.expect_nothing_for_one_ping().await;
    }
    broker.expect_logged(BOTH.len(), &["\"refused\"", "packet is larger"]).await;
}

/// [MQTT-3.1.4-5], [MQTT3-3.1.4-4]: a client that has nothing to say is answered, as soon as the disk has its session.
#[tokio::test]
async fn a_connect_with_its_good_bye_is_answered() {
    let broker = Broker::start_configured(LISTENERS);
    for version in BOTH {
        for over in EVERY_WAY {
            let name = format!("{version:?} {over:?}");
            let hello = || connect(&name).persistent().will(publish("wills", "gone"));
            let mut peer = broker.peer_over(over, version).await;
            peer.send_all([hello().into(), disconnect()]).await;
            peer.expect(connack(ReasonCode::Success)).await;
            peer.expect_closed().await;
            let mut peer = broker.peer_over(over, version).await;
            peer.send_all([hello().into(), disconnect()]).await;
            peer.expect(connack_present()).await;
            peer.expect_closed().await;
        }
    }
    assert_eq!(broker.logged(&["will published"]), 0);
    let ends = 2 * BOTH.len() * EVERY_WAY.len();
    broker.expect_logged(ends, &["\"disconnected\"", "by the client"]).await;
}

/// [MQTT-3.3.4-1], [MQTT-3.8.4-1], [MQTT-3.10.4-4], [MQTT3-3.3.4-1], [MQTT3-3.8.4-1], [MQTT3-3.10.4-4]: what came before
/// the DISCONNECT is done and answered, and is there for others.
#[tokio::test]
async fn what_came_before_a_good_bye_is_answered() {
    let broker = Broker::start_configured(LISTENERS);
    for version in BOTH {
        for over in EVERY_WAY {
            broker.sleeper(version, "sleeper", "t", QoS::ExactlyOnce).await;
            let mut peer = broker.peer_over(over, version).await;
            peer.send_all([
                connect("brief").into(),
                subscribe(1, "a", QoS::AtLeastOnce).into(),
                publish("t", "one").qos1(2).into(),
                publish("t", "two").qos2(3).into(),
                unsubscribe(4, "a"),
                disconnect(),
            ])
            .await;
            peer.expect(connack(ReasonCode::Success)).await;
            peer.expect(suback(1, [ReasonCode::GrantedQos1])).await;
            peer.expect(puback(2)).await;
            peer.expect(pubrec(3)).await;
            peer.expect(unsuback(4, version.is_v5().then_some(ReasonCode::Success))).await;
            peer.expect_closed().await;
            let mut sleeper = broker.returning(version, connect("sleeper").persistent()).await;
            sleeper.take(publish("t", "one").qos1(0)).await;
            sleeper.take(publish("t", "two").qos2(0)).await;
            sleeper.leave().await;
            broker.client(version, connect("sleeper")).await.leave().await;
        }
    }
}

/// A client that closes its side and says no good-bye is answered as well, and missed at once.
#[tokio::test]
async fn a_half_closed_connection_is_answered() {
    let broker = Broker::start_configured(LISTENERS);
    for version in BOTH {
        let mut watcher = broker.client(version, connect("watcher")).await;
        watcher.subscribed("wills", QoS::AtMostOnce).await;
        for over in [Over::Tcp, Over::Tls, Over::Unix] {
            let mut peer = broker.peer_over(over, version).await;
            let hello = connect("brief").persistent().will(publish("wills", "gone"));
            peer.send_all([hello.into(), publish("t", "one").qos1(2).into()]).await;
            peer.close_its_side().await;
            watcher.expect_publish(publish("wills", "gone")).await;
            peer.expect(connack(ReasonCode::Success)).await;
            let answer = puback(2);
            let nobody = puback(2).because(ReasonCode::NoMatchingSubscribers);
            peer.expect(if version.is_v5() { nobody } else { answer }).await;
            peer.expect_closed().await;
            broker.client(version, connect("brief")).await.leave().await;
        }
        watcher.leave().await;
    }
    broker.expect_logged(3 * BOTH.len(), &["\"disconnected\"", "\"brief\"", "connection lost"]).await;
}

/// [MQTT-4.13.2-1]: an error ends the connection behind the answers to what was in order.
#[tokio::test]
async fn an_error_right_behind_the_connect_is_told_behind_the_connack() {
    let broker = Broker::start();
    for version in BOTH {
        let mut peer = broker.peer(version).await;
        let name = format!("{version:?}");
        peer.send_all([connect(&name).persistent().into(), publish("a/#", "x").into()]).await;
        peer.expect(connack(ReasonCode::Success)).await;
        peer.expect_shown_out(version, ReasonCode::TopicNameInvalid).await;
    }
}
