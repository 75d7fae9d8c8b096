//! The network's side of the bargain, on the real binary: who gets in, who is shown out, and in what order.

use dormouse::codec::{Packet, QoS, ReasonCode, Version};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    harness::Broker,
    peer::{
        TlsClient,
        packets::{
            Spec, connack, connack_present, connect, disconnect, puback, pubcomp, publish, pubrec, pubrel,
            suback, subscribe, unsuback, unsubscribe,
        },
    },
};

const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[tokio::test]
async fn a_sleeping_device_gets_its_command_after_a_crash() {
    for version in ALL {
        let mut broker = Broker::start();
        let mut dev = broker.tls_peer(version).await;
        dev.send(connect("dev1").persistent()).await;
        dev.expect(connack(ReasonCode::Success)).await;
        dev.send(subscribe(1, "cmd/dev1/#", QoS::AtLeastOnce)).await;
        dev.expect(suback(1, [ReasonCode::GrantedQos1])).await;
        dev.send(disconnect()).await;
        dev.expect_closed().await;

        let mut commander = broker.peer(version).await;
        commander.send(connect("commander")).await;
        commander.expect(connack(ReasonCode::Success)).await;
        commander.send(publish("cmd/dev1/led", "on").qos1(7)).await;
        commander.expect(puback(7)).await;
        broker.kill9();
        broker.restart();

        let mut dev = broker.tls_peer(version).await;
        dev.send(connect("dev1").persistent()).await;
        let present = if version == Version::V31 { connack(ReasonCode::Success) } else { connack_present() };
        dev.expect(present).await;
        let command = dev.receive_publish().await;
        assert_eq!((command.topic.as_str(), command.payload.as_slice()), ("cmd/dev1/led", &b"on"[..]));
        dev.send(puback(command.packet_id)).await;
        dev.expect_nothing_for_one_ping().await;
    }
}

#[tokio::test]
async fn packets_in_one_write_are_answered_in_order() {
    let broker = Broker::start();
    for version in ALL {
        let mut peer = broker.peer(version).await;
        peer.send_all([
            connect("a").into(),
            subscribe(1, "x", QoS::ExactlyOnce).and("y", QoS::AtMostOnce).into(),
            publish("x", "two").qos2(2).into(),
            unsubscribe(3, "y"),
        ])
        .await;
        // The answers leave in order; the delivery of what was published finds its own place among them.
        let expected = [
            connack(ReasonCode::Success),
            suback(1, [ReasonCode::GrantedQos2, ReasonCode::Success]),
            pubrec(2),
            unsuback(3, version.is_v5().then_some(ReasonCode::Success)),
        ];
        let (mut answers, mut delivered) = (Vec::new(), None);
        while answers.len() < expected.len() || delivered.is_none() {
            match peer.receive().await {
                Spec::Publish(publish) => delivered = Some(publish),
                answer => answers.push(answer),
            }
        }
        assert_eq!(answers, expected);
        peer.send(pubrel(2)).await;
        peer.expect(pubcomp(2)).await;
        let delivered = delivered.expect("the message came");
        assert_eq!(delivered, publish("x", "two").qos2(delivered.packet_id));
        peer.send(pubrec(delivered.packet_id)).await;
        peer.expect(pubrel(delivered.packet_id)).await;
        peer.send(pubcomp(delivered.packet_id)).await;
        peer.expect_nothing_for_one_ping().await;
    }
}

#[tokio::test]
async fn tls_speaks_1_2_and_1_3_and_mqtt_or_nothing() {
    let broker = Broker::start();
    for client in [
        TlsClient::default(),
        TlsClient::default().v12(),
        TlsClient::default().alpn("mqtt"),
        TlsClient::default().alpn("x").alpn("mqtt"),
    ] {
        let mut peer = broker.try_tls_peer(Version::V5, client).await.unwrap();
        peer.send(connect("a")).await;
        peer.expect(connack(ReasonCode::Success)).await;
    }
    let refused = broker.try_tls_peer(Version::V5, TlsClient::default().alpn("http/1.1")).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("NoApplicationProtocol")));
}

#[tokio::test]
async fn a_client_certificate_can_be_required() {
    let broker = Broker::start_configured(
        "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:0\"\nclient_certificates = \"required\"\n",
    );
    for client in [TlsClient::default(), TlsClient::default().v12()] {
        let mut known = broker.try_tls_peer(Version::V5, client.clone().certificate()).await.unwrap();
        known.send(connect("known")).await;
        known.expect(connack(ReasonCode::Success)).await;
        // A TLS 1.3 client learns of the refusal only after its handshake.
        if let Ok(mut unknown) = broker.try_tls_peer(Version::V5, client).await {
            assert!(!unknown.try_exchange(connect("unknown"), connack(ReasonCode::Success)).await);
        }
    }
    broker.expect_logged(1, &["TLS handshakes failed", "\"times\":1"]).await;
}

/// Listeners whose handshakes may take so long, and these limits.
fn handshakes(timeout: &str, limits: &str) -> String {
    format!(
        "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:0\"\nhandshake_timeout = \"{timeout}\"\n\
         [limits]\nconnect_timeout = \"{timeout}\"\n{limits}\n"
    )
}

/// As many as have turns, each with the broker's answer to its hello and silent since; and as many with half a hello.
#[tokio::test]
async fn peers_that_go_silent_in_their_handshake_keep_nobody_out() {
    let broker = Broker::start_configured(&handshakes("5m", "handshakes_max = 8"));
    let mut silent = Vec::new();
    for whole in [true, false].repeat(8) {
        let hello = broker.tls_hello();
        let mut peer = broker.plain_peer_on_tls().await;
        peer.send_bytes(if whole { &hello } else { &hello[..hello.len() / 2] }).await;
        if whole {
            peer.receive_bytes(1).await;
        }
        silent.push(peer);
    }
    for client in [TlsClient::default(), TlsClient::default().v12()] {
        let mut honest = broker.try_tls_peer(Version::V5, client).await.unwrap();
        honest.send(connect("honest")).await;
        honest.expect(connack(ReasonCode::Success)).await;
    }
    drop(silent);
}

#[tokio::test]
async fn a_silent_handshake_ends_when_its_place_is_wanted_the_oldest_first() {
    let broker = Broker::start_configured(&handshakes("4s", "open_handshakes_max = 2"));
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut peer = broker.plain_peer_on_tls().await;
        peer.send_bytes(&broker.tls_hello()).await;
        peer.receive_bytes(1).await;
        silent.push(peer);
    }
    let mut honest = broker.tls_peer(Version::V5).await;
    honest.send(connect("honest")).await;
    honest.expect(connack(ReasonCode::Success)).await;
    broker
        .expect_logged(1, &["stalled TLS handshakes closed", "\"open_handshakes_max\":2", "\"times\":1"])
        .await;
    assert!(!broker.log().contains("it took too long"), "before the timeout");
    silent.remove(0).expect_ended().await;
}

#[tokio::test]
async fn garbage_is_shown_out_and_disturbs_nobody() {
    let broker = Broker::start();
    let mut dev = broker.peer(Version::V311).await;
    dev.send(connect("dev1")).await;
    dev.expect(connack(ReasonCode::Success)).await;

    let http = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".to_vec();
    for garbage in [http, vec![0xff; 70_000], vec![0x10, 0x00], vec![0x00]] {
        let mut stranger = broker.peer(Version::V311).await;
        stranger.send_bytes(&garbage).await;
        stranger.expect_closed().await;
    }
    // Plain MQTT on the TLS port.
    let mut lost = broker.plain_peer_on_tls().await;
    lost.send(connect("lost")).await;
    let tls_alert = 0x15;
    assert_eq!(lost.expect_ended().await.first(), Some(&tls_alert));

    dev.expect_nothing_for_one_ping().await;
}

#[tokio::test]
async fn silence_and_half_a_connect_end_at_the_connect_timeout() {
    let broker = Broker::start_configured("[limits]\nconnect_timeout = \"1s\"\n");
    let mut silent = broker.peer(Version::V311).await;
    let mut half = broker.peer(Version::V5).await;
    half.send_bytes(&[0x10, 0x20, 0x00, 0x04, b'M', b'Q']).await;
    let mut silent_tls = broker.plain_peer_on_tls().await;
    let mut shaken = broker.tls_peer(Version::V311).await;
    silent.expect_closed().await;
    half.expect_closed().await;
    shaken.expect_ended().await;
    silent_tls.expect_ended().await;
    broker.expect_logged(1, &["no CONNECT in time", "\"times\":1"]).await;
}

#[tokio::test]
async fn who_keeps_quiet_for_one_and_a_half_keep_alives_is_shown_out() {
    let broker = Broker::start();
    for version in ALL {
        let mut dev = broker.peer(version).await;
        dev.send(connect("dev1").keep_alive(1)).await;
        dev.expect(connack(ReasonCode::Success)).await;
        dev.expect_nothing_for_one_ping().await;
        // A v5 client may be told why; the closing is what the standard asks for [MQTT-3.1.2-22], [MQTT3-3.1.2-24].
        let farewell = dev.expect_ended().await;
        assert!(farewell.is_empty() || (version.is_v5() && farewell.starts_with(&[0xe0])), "{farewell:x?}");
    }
    broker.expect_logged(ALL.len(), &["keep alive timed out"]).await;
}

#[tokio::test]
async fn sigterm_says_goodbye_and_ends_with_0() {
    let mut broker = Broker::start();
    let mut v5 = broker.tls_peer(Version::V5).await;
    v5.send(connect("five")).await;
    v5.expect(connack(ReasonCode::Success)).await;
    let mut v3 = broker.peer(Version::V311).await;
    v3.send(connect("three")).await;
    v3.expect(connack(ReasonCode::Success)).await;
    let mut stranger = broker.peer(Version::V311).await;
    let mut stranger_tls = broker.plain_peer_on_tls().await;

    assert_eq!(broker.terminate().code(), Some(0));
    v5.expect(disconnect().because(ReasonCode::ServerShuttingDown)).await;
    v5.expect_closed().await;
    v3.expect_closed().await;
    // They may have stood in the listener's backlog still, which the system resets.
    assert_eq!(stranger.expect_ended().await, b"");
    assert_eq!(stranger_tls.expect_ended().await, b"");

    broker.restart();
    let mut back = broker.peer(Version::V5).await;
    back.send(connect("five")).await;
    back.expect(connack(ReasonCode::Success)).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_one_leaves() {
    let broker = Broker::start_configured("[limits]\nconnections_max = 2\n");
    let mut first = broker.peer(Version::V311).await;
    first.send(connect("first")).await;
    first.expect(connack(ReasonCode::Success)).await;
    let mut second = broker.tls_peer(Version::V311).await;
    second.send(connect("second")).await;
    second.expect(connack(ReasonCode::Success)).await;

    let mut third = broker.peer(Version::V311).await;
    assert_eq!(third.expect_ended().await, b"");
    first.send(disconnect()).await;
    first.expect_closed().await;
    first.hang_up().await;
    // The seat is free when the broker has seen the end of the first, which nobody is told.
    let mut tries = 0;
    while !broker.peer(Version::V311).await.try_exchange(connect("third"), connack(ReasonCode::Success)).await
    {
        tries += 1;
        assert!(tries < 10_000, "the seat is never given back");
    }
    second.expect_nothing_for_one_ping().await;
}

#[tokio::test]
async fn running_out_of_file_descriptors_is_survived() {
    let broker = Broker::start();
    let mut dev = broker.peer(Version::V311).await;
    dev.send(connect("dev1")).await;
    dev.expect(connack(ReasonCode::Success)).await;

    let pid = i32::try_from(broker.pid()).ok().and_then(Pid::from_raw);
    let open = std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count() as u64;
    let few = Rlimit { current: Some(open + 3), maximum: Some(open + 3) };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(broker.peer(Version::V311).await);
    }
    // Some of them are in the backlog. The broker may be between two tries, but it is there for whom it has.
    dev.expect_nothing_for_one_ping().await;
    // One after the other, those that wait get in as others leave.
    for mut peer in waiting {
        peer.send(connect("")).await;
        peer.expect(connack(ReasonCode::Success)).await;
        peer.send(disconnect()).await;
        peer.expect_closed().await;
        peer.hang_up().await;
    }
    let log = broker.log();
    assert_eq!(log.matches("cannot accept connections").count(), 1, "told once");
    assert!(log.contains("accepting connections again"));
}

#[tokio::test]
async fn a_client_that_never_reads_disturbs_nobody() {
    let broker = Broker::start();
    let mut sloth = broker.peer(Version::V311).await;
    sloth.send(connect("sloth")).await;
    sloth.expect(connack(ReasonCode::Success)).await;
    sloth.send(subscribe(1, "flood", QoS::AtMostOnce)).await;
    sloth.expect(suback(1, [ReasonCode::Success])).await;
    let mut reader = broker.peer(Version::V311).await;
    reader.send(connect("reader")).await;
    reader.expect(connack(ReasonCode::Success)).await;
    reader.send(subscribe(1, "flood", QoS::AtMostOnce)).await;
    reader.expect(suback(1, [ReasonCode::Success])).await;
    let mut publisher = broker.peer(Version::V311).await;
    publisher.send(connect("publisher")).await;
    publisher.expect(connack(ReasonCode::Success)).await;
    let payload = vec![b'x'; 16 * 1024];
    for _ in 0..1_000 {
        publisher.send(publish("flood", &payload)).await;
        reader.expect_publish(publish("flood", &payload)).await;
    }
}

#[tokio::test]
async fn a_v5_exchange_with_all_the_trimmings() {
    let broker = Broker::start();
    let mut dev = broker.tls_peer(Version::V5).await;
    let will = publish("gone/dev1", "lost").qos1(0).retained();
    let asked =
        connect("").session_expiry(60).receive_maximum(10).packet_bytes_max(1_000).topic_alias_maximum(0);
    dev.send(asked.login("dev1", "secret").will(will).will_delay(0)).await;
    dev.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.reason, ReasonCode::Success);
        assert!(connack.properties.assigned_client_id.is_some(), "[MQTT-3.1.3-6]");
    })
    .await;
    dev.send(publish("state/dev1", "awake").qos1(1).retained().dup()).await;
    dev.expect(puback(1).because(ReasonCode::NoMatchingSubscribers)).await;

    let mut watcher = broker.peer(Version::V5).await;
    watcher.send(connect("watcher")).await;
    watcher.expect(connack(ReasonCode::Success)).await;
    watcher.send(subscribe(1, "+/dev1", QoS::AtLeastOnce).subscription_id(42)).await;
    watcher.expect(suback(1, [ReasonCode::GrantedQos1])).await;
    let state = watcher.receive_publish().await;
    let mut expected = publish("state/dev1", "awake").qos1(state.packet_id).retained();
    expected.subscription_ids = vec![42];
    assert_eq!(state, expected);
    watcher.send(puback(state.packet_id)).await;
    dev.hang_up().await;
    let lost = watcher.receive_publish().await;
    assert_eq!(
        (lost.topic.as_str(), lost.payload.as_slice(), lost.qos),
        ("gone/dev1", &b"lost"[..], QoS::AtLeastOnce)
    );
    assert!(!broker.log().contains("secret"), "no secrets in the log");
}
