//! Extended authentication (MQTT 5.0 section 4.12), on a broker embedded with a method of its own: the server asks for a
//! nonce to be sent back reversed, which whoever knows the secret can do.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use dormouse::{
    auth::{Claim, Exchange, Method, Methods, Refusal, Step},
    codec::{Auth, Packet, QoS, ReasonCode, ReasonProperties, Version},
    config::{Config, Overrides},
    net::listener::Bind,
    server::Server,
};
use tempfile::TempDir;

use crate::peer::{
    Peer,
    packets::{Connecting, Spec, connack, connect, disconnect, puback, publish},
};

const METHOD: &str = "REVERSE";
const NONCE: &[u8] = b"nonce";
const PROOF: &[u8] = b"ecnon";
const WRONG: &[u8] = b"nonce";

struct Reverse;

/// Where one client stands.
struct Asked {
    /// What is asked next; `None` before the first step.
    expects: Option<Vec<u8>>,
    identity: Arc<str>,
}

impl Method for Reverse {
    fn name(&self) -> &str {
        METHOD
    }

    fn begin(&self, claim: &Claim<'_>) -> Box<dyn Exchange> {
        let name = claim.user_name.or(claim.identity).unwrap_or("nobody");
        Box::new(Asked { expects: None, identity: name.into() })
    }
}

impl Exchange for Asked {
    /// A client may name somebody in its first data.
    fn step(&mut self, data: Option<&[u8]>) -> Step {
        let Some(expected) = &self.expects else {
            if let Some(name) = data {
                self.identity = String::from_utf8_lossy(name).into();
            }
            self.expects = Some(NONCE.iter().rev().copied().collect());
            return Step::Continue(NONCE.to_vec());
        };
        if data != Some(expected.as_slice()) {
            return Step::Refused(Refusal::Credentials);
        }
        Step::Success { identity: Some(Arc::clone(&self.identity)), data: Some(b"welcome".to_vec()) }
    }
}

struct Embedded {
    server: Server,
    address: SocketAddr,
    _folder: TempDir,
}

impl Embedded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[store]\npath = \"{}\"\n[admin]\nenabled = false\n[limits]\nconnect_timeout = \"500ms\"\n\
             [[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n",
            folder.path().join("data").display()
        );
        let config = Config::from_toml(Path::new("embedded.toml"), &text, &Overrides::default()).unwrap();
        let server = Server::open_with(&config, Methods::new().with(Reverse)).unwrap();
        let Bind::Tcp(address) = server.local_addresses()[0].address.clone() else { panic!("a Unix socket") };
        Self { server, address, _folder: folder }
    }

    async fn peer(&self) -> Peer {
        Peer::at(self.address, Version::V5).await
    }

    /// A client that has been asked.
    async fn asked(&self, connecting: Connecting) -> Peer {
        let mut peer = self.peer().await;
        peer.send(connecting).await;
        peer.expect_auth(ReasonCode::ContinueAuthentication, Some(NONCE)).await;
        peer
    }

    /// A client that has answered.
    async fn client(&self, client_id: &str) -> Peer {
        let mut peer = self.asked(named(client_id)).await;
        peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(PROOF)).await;
        peer.expect(connack(ReasonCode::Success)).await;
        peer
    }

    async fn end(self) {
        self.server.shutdown(Duration::ZERO).await;
    }
}

impl Peer {
    async fn send_auth(&mut self, reason: ReasonCode, method: &str, data: Option<&[u8]>) {
        let properties = ReasonProperties::default();
        let mut bytes = Vec::new();
        Packet::Auth(Auth { reason, method: Some(method), data, properties }).encode(Version::V5, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    /// An AUTH of the method, with nothing in it but this.
    async fn expect_auth(&mut self, reason: ReasonCode, data: Option<&[u8]>) {
        self.receive_with(|packet| {
            let properties = ReasonProperties::default();
            let expected = Packet::Auth(Auth { reason, method: Some(METHOD), data, properties });
            assert_eq!(*packet, expected);
        })
        .await;
    }

    async fn expect_refused(&mut self, reason: ReasonCode) {
        self.expect(connack(reason)).await;
        self.expect_closed().await;
    }

    async fn expect_cut(&mut self, reason: ReasonCode) {
        self.expect(disconnect().because(reason)).await;
        self.expect_closed().await;
    }
}

fn named(client_id: &str) -> Connecting {
    connect(client_id).authentication(METHOD, None)
}

/// [MQTT-4.12.0-2], [MQTT-4.12.0-3], [MQTT-4.12.0-5]: asked and answered before CONNACK, which has the method's last word.
#[tokio::test]
async fn a_client_answers_and_is_let_in() {
    let broker = Embedded::start();
    let mut peer = broker.asked(named("dev")).await;
    // What it sends behind its answer belongs to the connection.
    peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(PROOF)).await;
    peer.send(Spec::Pingreq).await;
    peer.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.reason, ReasonCode::Success);
        assert_eq!(connack.properties.authentication_method, Some(METHOD));
        assert_eq!(connack.properties.authentication_data, Some(&b"welcome"[..]));
    })
    .await;
    peer.expect(Spec::Pingresp).await;
    peer.send(publish("t", "x").qos1(1)).await;
    peer.expect(puback(1).because(ReasonCode::NoMatchingSubscribers)).await;
    broker.end().await;
}

/// [MQTT-4.12.0-1], [MQTT-4.12.0-4]
#[tokio::test]
async fn a_client_that_cannot_answer_is_refused() {
    let broker = Embedded::start();
    let mut peer = broker.asked(named("dev")).await;
    peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(WRONG)).await;
    peer.expect_refused(ReasonCode::BadUserNameOrPassword).await;
    let mut peer = broker.peer().await;
    peer.send(connect("dev").authentication("SCRAM-SHA-1", None)).await;
    peer.expect_refused(ReasonCode::BadAuthenticationMethod).await;
    broker.end().await;
}

/// [MQTT-3.1.2-30], [MQTT-3.1.4-6]: between CONNECT and CONNACK there is nothing but AUTH, of the same method, and DISCONNECT.
#[tokio::test]
async fn nothing_else_is_taken_meanwhile() {
    let broker = Embedded::start();
    let mut watcher = broker.client("watcher").await;
    watcher.subscribed("t", QoS::AtMostOnce).await;
    let mut peer = broker.asked(named("dev")).await;
    peer.send(publish("t", "x")).await;
    peer.expect_refused(ReasonCode::ProtocolError).await;
    let mut peer = broker.asked(named("dev")).await;
    peer.send_auth(ReasonCode::ContinueAuthentication, "OTHER", Some(PROOF)).await;
    peer.expect_refused(ReasonCode::BadAuthenticationMethod).await;
    for reason in [ReasonCode::ReAuthenticate, ReasonCode::Success] {
        let mut peer = broker.asked(named("dev")).await;
        peer.send_auth(reason, METHOD, Some(PROOF)).await;
        peer.expect_refused(ReasonCode::ProtocolError).await;
    }
    // The short form, and [MQTT-3.15.1-1], [MQTT-3.15.2-1]: reserved flags, and a reason code that is not AUTH's.
    let bad: [(&[u8], ReasonCode); 3] = [
        (&[0xf0, 0], ReasonCode::ProtocolError),
        (&[0xf1, 0], ReasonCode::MalformedPacket),
        (&[0xf0, 2, 0x87, 0], ReasonCode::ProtocolError),
    ];
    for (bytes, reason) in bad {
        let mut peer = broker.asked(named("dev")).await;
        peer.send_bytes(bytes).await;
        peer.expect_refused(reason).await;
    }
    let mut peer = broker.asked(named("dev")).await;
    peer.send(disconnect()).await;
    peer.expect_closed().await;
    watcher.expect_nothing_for_one_ping().await;
    broker.end().await;
}

/// The connection that is there is not disturbed by somebody who has only said its name.
#[tokio::test]
async fn a_session_is_taken_over_only_by_who_has_answered() {
    let broker = Embedded::start();
    let mut first = broker.client("dev").await;
    let mut second = broker.asked(named("dev")).await;
    first.expect_nothing_for_one_ping().await;
    second.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(WRONG)).await;
    second.expect_refused(ReasonCode::BadUserNameOrPassword).await;
    first.expect_nothing_for_one_ping().await;
    let _third = broker.client("dev").await;
    first.expect_cut(ReasonCode::SessionTakenOver).await;
    broker.end().await;
}

/// Who is asked and says nothing runs out of the time for CONNECT.
#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let broker = Embedded::start();
    let mut peer = broker.asked(named("dev")).await;
    peer.expect_ended().await;
    assert_eq!(broker.server.counters().connect_timeouts, 1);
    broker.end().await;
}

/// [MQTT-4.12.0-6], [MQTT-4.12.0-7]: without a method there is no AUTH in either direction.
#[tokio::test]
async fn a_client_without_a_method_is_not_asked_and_may_not_begin() {
    let broker = Embedded::start();
    let mut peer = broker.peer().await;
    peer.send(connect("dev")).await;
    peer.receive_with(|packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!(connack.properties.authentication_method, None);
        assert_eq!(connack.properties.authentication_data, None);
    })
    .await;
    peer.send_auth(ReasonCode::ReAuthenticate, METHOD, None).await;
    peer.expect_cut(ReasonCode::ProtocolError).await;
    broker.end().await;
}

/// Section 4.12.1: as often as the client likes, and everything else goes on meanwhile.
#[tokio::test]
async fn a_client_authenticates_itself_again() {
    let broker = Embedded::start();
    let mut peer = broker.client("dev").await;
    peer.subscribed("t", QoS::AtMostOnce).await;
    for _ in 0..2 {
        peer.send_auth(ReasonCode::ReAuthenticate, METHOD, None).await;
        peer.expect_auth(ReasonCode::ContinueAuthentication, Some(NONCE)).await;
        peer.send(publish("t", "meanwhile")).await;
        peer.expect_publish(publish("t", "meanwhile")).await;
        peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(PROOF)).await;
        peer.expect_auth(ReasonCode::Success, Some(b"welcome")).await;
    }
    peer.expect_nothing_for_one_ping().await;
    broker.end().await;
}

/// [MQTT-4.12.1-1], [MQTT-4.12.1-2]
#[tokio::test]
async fn who_fails_to_authenticate_again_is_shown_out() {
    let broker = Embedded::start();
    let again = async |data: Option<&'static [u8]>| {
        let mut peer = broker.client("dev").await;
        peer.send_auth(ReasonCode::ReAuthenticate, METHOD, data).await;
        peer.expect_auth(ReasonCode::ContinueAuthentication, Some(NONCE)).await;
        peer
    };
    let mut peer = again(None).await;
    peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(WRONG)).await;
    peer.expect_cut(ReasonCode::NotAuthorized).await;
    // As somebody else.
    let mut peer = again(Some(b"root")).await;
    peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(PROOF)).await;
    peer.expect_cut(ReasonCode::NotAuthorized).await;
    // By another method, at the beginning and on the way.
    let mut peer = broker.client("dev").await;
    peer.send_auth(ReasonCode::ReAuthenticate, "OTHER", None).await;
    peer.expect_cut(ReasonCode::BadAuthenticationMethod).await;
    let mut peer = again(None).await;
    peer.send_auth(ReasonCode::ContinueAuthentication, "OTHER", Some(PROOF)).await;
    peer.expect_cut(ReasonCode::BadAuthenticationMethod).await;
    // Out of turn.
    let mut peer = again(None).await;
    peer.send_auth(ReasonCode::ReAuthenticate, METHOD, None).await;
    peer.expect_cut(ReasonCode::ProtocolError).await;
    for reason in [ReasonCode::ContinueAuthentication, ReasonCode::Success] {
        let mut peer = broker.client("dev").await;
        peer.send_auth(reason, METHOD, Some(PROOF)).await;
        peer.expect_cut(ReasonCode::ProtocolError).await;
    }
    broker.end().await;
}

/// [MQTT-3.1.2-24]: a question the client does not take ends it. [MQTT-3.15.2-2], [MQTT-3.15.2-3]: AUTH says nothing but what
/// the method does, as `expect_auth` sees each time.
#[tokio::test]
async fn a_question_is_never_larger_than_the_client_takes() {
    let broker = Embedded::start();
    // Header 2, reason 1, property length 1, method 3 + 7, data 3 + 5.
    let mut peer = broker.peer().await;
    peer.send(named("dev").packet_bytes_max(21)).await;
    peer.expect_refused(ReasonCode::PacketTooLarge).await;
    let mut peer = broker.asked(named("dev").packet_bytes_max(22)).await;
    peer.send_auth(ReasonCode::ContinueAuthentication, METHOD, Some(PROOF)).await;
    // And a CONNACK with all of it neither.
    peer.expect_refused(ReasonCode::PacketTooLarge).await;
    broker.end().await;
}
