//! WebSocket frame by frame, written by hand: what a client may do with them, and what it may not.

use dormouse::codec::Version;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{Broker, LIMIT},
    peer::{
        Over,
        packets::{connack, connect},
    },
};

const LISTENERS: &str = r#"
[log]
level = "debug"
[[listeners]]
type = "tcp"
bind = "127.0.0.1:0"
[[listeners]]
type = "ws"
bind = "127.0.0.1:0"
allowed_origins = ["https://panel.example"]
"#;

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// CONNECT in 3.1.1 as `ab`, clean, without a keep alive; and what it is answered with.
const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab";
const CONNACK: &[u8] = b"\x20\x02\0\0";
const PINGREQ: &[u8] = b"\xc0\0";
const PINGRESP: &[u8] = b"\xd0\0";

const MASK: [u8; 4] = [0x5a, 0x01, 0xf0, 0x33];

/// A client's frame: first byte, payload, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A server's frame of less than 126 bytes.
fn served(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
}

struct Raw(TcpStream);

impl Raw {
    async fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.address("ws", 0)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// With a WebSocket, before CONNECT.
    async fn open(broker: &Broker) -> Self {
        let mut raw = Self::connect(broker).await;
        raw.send(REQUEST.as_bytes()).await;
        let answer = raw.answer().await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        timeout(LIMIT, self.0.write_all(bytes)).await.unwrap().unwrap();
    }

    /// The head of an HTTP answer.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(LIMIT, self.0.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(answer).unwrap()
    }

    async fn expect(&mut self, bytes: &[u8]) {
        let mut found = vec![0; bytes.len()];
        timeout(LIMIT, self.0.read_exact(&mut found)).await.expect("it comes").unwrap();
        assert_eq!(found, bytes);
    }

    /// A Close with this code, and the end, without a reset.
    async fn expect_close(&mut self, code: u16) {
        self.expect(&served(0x88, &code.to_be_bytes())).await;
        let mut rest = Vec::new();
        timeout(LIMIT, self.0.read_to_end(&mut rest)).await.expect("it ends").unwrap();
        assert_eq!(rest, b"");
    }
}

/// [MQTT-6.0.0-2] [MQTT3-6.0.0-2]: packets need not keep to frames.
#[tokio::test]
async fn packets_are_split_and_joined_across_frames() {
    let broker = Broker::start_configured(LISTENERS);
    // One frame for each byte; each byte of each frame in a write of its own.
    let mut raw = Raw::open(&broker).await;
    for byte in CONNECT {
        for piece in frame(0x82, &[*byte]) {
            raw.send(&[piece]).await;
        }
    }
    raw.expect(&served(0x82, CONNACK)).await;

    // Several packets in one frame; one message of fragments, cut within packets, with an empty one, and a Ping between.
    let pings = PINGREQ.repeat(3);
    raw.send(&frame(0x82, &pings)).await;
    raw.expect(&served(0x82, &PINGRESP.repeat(3))).await;
    let fragments =
        [frame(0x02, &pings[..1]), frame(0x00, &[]), frame(0x89, b"hello"), frame(0x80, &pings[1..])]
            .concat();
    raw.send(&fragments[..fragments.len() - 3]).await;
    raw.expect(&served(0x8a, b"hello")).await;
    raw.expect(&served(0x82, PINGRESP)).await;
    raw.send(&fragments[fragments.len() - 3..]).await;
    raw.expect(&served(0x82, &PINGRESP.repeat(2))).await;

    // Everything at once, without waiting for an answer.
    let mut hasty = Raw::connect(&broker).await;
    hasty.send(&[REQUEST.as_bytes(), &frame(0x82, &[CONNECT, PINGREQ].concat())].concat()).await;
    assert!(hasty.answer().await.starts_with("HTTP/1.1 101 "));
    hasty.expect(&served(0x82, &[CONNACK, PINGRESP].concat())).await;
}

/// The client closes: it is answered, and its will is not lost for it.
#[tokio::test]
async fn a_close_is_answered() {
    let broker = Broker::start_configured(LISTENERS);
    for connected in [false, true] {
        let mut raw = Raw::open(&broker).await;
        if connected {
            raw.send(&frame(0x82, CONNECT)).await;
            raw.expect(&served(0x82, CONNACK)).await;
        }
        raw.send(&frame(0x88, &1001_u16.to_be_bytes())).await;
        raw.expect_close(1001).await;
    }
    // The broker closes: it says so, and waits for the answer.
    let mut raw = Raw::open(&broker).await;
    raw.send(&frame(0x82, CONNECT)).await;
    raw.expect(&served(0x82, CONNACK)).await;
    raw.send(&frame(0x82, b"\xe0\0")).await;
    raw.expect_close(1000).await;
}

/// [MQTT-6.0.0-1] [MQTT3-6.0.0-1]: any other data frame than a binary one closes the connection, and so does every broken
/// rule of RFC 6455; the client is told by the code, also while it goes on sending.
#[tokio::test]
async fn broken_frames_are_closed_with_their_code() {
    let broker = Broker::start_configured(LISTENERS);
    let mut unmasked = vec![0x82, 2];
    unmasked.extend_from_slice(PINGREQ);
    let cases: [(Vec<u8>, u16, &str); 9] = [
        (frame(0x81, PINGREQ), 1003, "a WebSocket text frame"),
        (unmasked, 1002, "a WebSocket frame without a mask"),
        (frame(0xc2, PINGREQ), 1002, "reserved bits"),
        (frame(0x83, PINGREQ), 1002, "a reserved kind"),
        (frame(0x80, PINGREQ), 1002, "a WebSocket continuation of nothing"),
        ([frame(0x02, b"\xc0"), frame(0x82, b"\0")].concat(), 1002, "a WebSocket message within another"),
        (frame(0x89, &[b'x'; 126]), 1002, "more than 125 bytes"),
        (frame(0x09, b"x"), 1002, "in pieces"),
        (vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1002, "malformed length"),
    ];
    for (bytes, code, why) in cases {
        for connected in [false, true] {
            let mut raw = Raw::open(&broker).await;
            if connected {
                raw.send(&frame(0x82, CONNECT)).await;
                raw.expect(&served(0x82, CONNACK)).await;
            }
            raw.send(&bytes).await;
            raw.send(&frame(0x82, &vec![b'x'; 60_000])).await;
            raw.expect_close(code).await;
        }
        broker.expect_logged(1, &["\"disconnected\"", why]).await;
    }
}

/// A frame may be as long as it likes; a packet in it may not, and its header tells.
#[tokio::test]
async fn a_packet_is_bounded_and_a_frame_holds_no_memory() {
    let broker = Broker::start_configured(LISTENERS);
    let mut raw = Raw::open(&broker).await;
    raw.send(&frame(0x82, CONNECT)).await;
    raw.expect(&served(0x82, CONNACK)).await;
    // A frame of 2^40 bytes, and in it packet after packet: 16 MiB of them are served.
    raw.send(&[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    let resident = broker.resident_bytes();
    let publish = [&[0x30, 0xff, 0xff, 0x03, 0, 1, b't'][..], &vec![b'x'; 65_532]].concat();
    for _ in 0..256 {
        raw.send(&publish).await;
    }
    raw.send(PINGREQ).await;
    raw.expect(&served(0x82, PINGRESP)).await;
    let grown = broker.resident_bytes().saturating_sub(resident);
    assert!(grown < 8 << 20, "{grown} bytes");
    // One of 16 MiB is not.
    raw.send(&[0x30, 0x80, 0x80, 0x80, 0x08]).await;
    raw.expect_close(1000).await;
}

/// [MQTT-6.0.0-4] [MQTT3-6.0.0-4]: `mqtt` is what the server chooses, of whatever is offered; without it there is no WebSocket.
#[tokio::test]
async fn a_request_that_is_not_for_mqtt_is_answered_and_closed() {
    let broker = Broker::start_configured(LISTENERS);
    for (request, status) in [
        (REQUEST.replace("/mqtt", "/"), "404 Not Found"),
        (REQUEST.replace("GET", "POST"), "405 Method Not Allowed"),
        (REQUEST.replace("Upgrade: websocket\r\n", ""), "426 Upgrade Required"),
        (REQUEST.replace("col: mqtt", "col: chat"), "400 Bad Request"),
        (REQUEST.replace("Host:", "Origin: https://evil.example\r\nHost:"), "403 Forbidden"),
        (
            REQUEST.replace("Host: ", &format!("Cookie: {}\r\nHost: ", "x".repeat(9_000))),
            "431 Request Header",
        ),
        ("\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab".to_owned(), "400 Bad Request"),
    ] {
        let mut raw = Raw::connect(&broker).await;
        raw.send(request.as_bytes()).await;
        let answer = raw.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        let mut body = String::new();
        timeout(LIMIT, raw.0.read_to_string(&mut body)).await.expect("it ends").unwrap();
        assert!(body.contains("MQTT broker"), "{body}");
    }
    // From the page that may.
    let mut raw = Raw::connect(&broker).await;
    raw.send(
        REQUEST
            .replace("Host:", "Origin: https://panel.example\r\nHost:")
            .replace("col: mqtt", "col: mqttv3.1, chat, mqtt")
            .as_bytes(),
    )
    .await;
    let answer = raw.answer().await.to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.1 101 ") && answer.contains("\r\nsec-websocket-protocol: mqtt\r\n"),
        "{answer}"
    );
    broker.expect_logged(1, &["HTTP requests refused"]).await;
}

/// A request in drips, and none at all.
#[tokio::test]
async fn a_slow_request_ends_at_the_connect_timeout() {
    let toml = LISTENERS.replace("[log]", "[limits]\nconnect_timeout = \"1s\"\n[log]");
    let broker = Broker::start_configured(&toml);
    let mut silent = Raw::connect(&broker).await;
    let mut half = Raw::connect(&broker).await;
    half.send(&REQUEST.as_bytes()[..100]).await;
    let mut mute = Raw::open(&broker).await;
    for raw in [&mut silent, &mut half, &mut mute] {
        let mut rest = Vec::new();
        // However it ends.
        let _ = timeout(LIMIT, raw.0.read_to_end(&mut rest)).await.expect("it ends");
        assert_eq!(rest, b"");
    }
    broker.expect_logged(2, &["\"no WebSocket\"", "the HTTP request took too long"]).await;
}

/// Pings keep the WebSocket alive, not the MQTT connection [MQTT-3.1.2-22].
#[tokio::test]
async fn websocket_pings_are_no_keep_alive() {
    let broker = Broker::start_configured(LISTENERS);
    let mut dev = broker.peer_over(Over::Ws, Version::V5).await;
    dev.send(connect("dev").keep_alive(1)).await;
    dev.expect(connack(dormouse::codec::ReasonCode::Success)).await;
    let mut raw = Raw::open(&broker).await;
    let mut connect_bytes = CONNECT.to_vec();
    connect_bytes[11] = 1;
    raw.send(&frame(0x82, &connect_bytes)).await;
    raw.expect(&served(0x82, CONNACK)).await;
    let mut pongs = 0;
    loop {
        raw.send(&frame(0x89, b"?")).await;
        match timeout(LIMIT, raw.0.read_u8()).await.expect("an answer").unwrap() {
            0x8a => {
                raw.expect(&[1, b'?']).await;
                pongs += 1;
            }
            first => {
                assert_eq!(first, 0x88, "after {pongs} pongs");
                break;
            }
        }
    }
    assert!(pongs > 0);
    dev.expect_ended().await;
    assert_eq!(dev.close_code(), Some(1000));
}
