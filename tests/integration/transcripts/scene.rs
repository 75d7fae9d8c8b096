//! What the transcripts and the conformance tests have in common: clients that connect, subscribe, publish and take, each step checked.

use std::time::Duration;

use dormouse::codec::{
    Disconnect, DisconnectProperties, Packet, QoS, ReasonCode, RetainHandling, SubscribeOptions, Version,
};

use crate::{
    harness::{Broker, LIMIT},
    peer::{
        Peer,
        packets::{
            AckKind, Connecting, Publishing, Spec, connack, connack_present, connect, disconnect, puback,
            pubcomp, pubrec, pubrel, suback, subscribe, unsuback, unsubscribe,
        },
    },
};

/// 3.1 differs from 3.1.1 only in its CONNECT and CONNACK.
pub(crate) const BOTH: [Version; 2] = [Version::V311, Version::V5];

impl Broker {
    /// A client that has no session yet, connected.
    pub(crate) async fn client(&self, version: Version, connecting: Connecting) -> Peer {
        let mut peer = self.peer(version).await;
        peer.send(connecting).await;
        peer.expect(connack(ReasonCode::Success)).await;
        peer
    }

    /// A client whose session is there, connected.
    pub(crate) async fn returning(&self, version: Version, connecting: Connecting) -> Peer {
        let mut peer = self.peer(version).await;
        peer.send(connecting).await;
        peer.expect(connack_present()).await;
        peer
    }

    /// A persistent session with one subscription, asleep.
    pub(crate) async fn sleeper(&self, version: Version, client_id: &str, filter: &str, qos: QoS) {
        let mut dev = self.client(version, connect(client_id).persistent()).await;
        dev.subscribed(filter, qos).await;
        dev.leave().await;
    }

    /// Lets a second and a half pass by the broker's own clock, which is the keep alive of a client that asks nothing of
    /// the disk.
    pub(crate) async fn a_second_and_a_half_passes(&self) {
        let mut clock = self.client(Version::V311, connect("clock").keep_alive(1)).await;
        clock.expect_ended().await;
    }

    /// Lines of the log that have all of these in them.
    pub(crate) fn logged(&self, parts: &[&str]) -> usize {
        self.log().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// There are so many lines of the log with all of these in them, or there will be: what ends a connection is logged
    /// when it has ended, which its client may see first.
    pub(crate) async fn expect_logged(&self, times: usize, parts: &[&str]) {
        let watch = Stopwatch::start();
        while self.logged(parts) < times && watch.elapsed() < LIMIT {
            // The log is a file: there is nothing to be woken by.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.logged(parts), times, "{parts:?} in {}", self.log());
    }

    /// Waits for a line of the log with all of these in it, while `other` is being served.
    pub(crate) async fn until_logged(&self, other: &mut Peer, parts: &[&str]) {
        let watch = Stopwatch::start();
        while watch.elapsed() < LIMIT {
            other.expect_nothing_for_one_ping().await;
            if self.logged(parts) > 0 {
                return;
            }
        }
        panic!("never logged: {parts:?}");
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the process lives");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

impl Peer {
    /// One filter, granted as asked.
    pub(crate) async fn subscribed(&mut self, filter: &str, qos: QoS) {
        self.send(subscribe(1, filter, qos)).await;
        self.expect(suback(1, [ReasonCode::granted(qos)])).await;
    }

    /// One filter less.
    pub(crate) async fn unsubscribed(&mut self, version: Version, filter: &str) {
        self.send(unsubscribe(2, filter)).await;
        self.expect(unsuback(2, version.is_v5().then_some(ReasonCode::Success))).await;
    }

    /// Says goodbye.
    pub(crate) async fn leave(mut self) {
        self.send(disconnect()).await;
        self.expect_closed().await;
    }

    /// Publishes and waits until the broker has taken it for good, whether somebody is subscribed or not.
    pub(crate) async fn published(&mut self, publish: Publishing) {
        let (qos, id) = (publish.qos, publish.packet_id);
        self.send(publish).await;
        match qos {
            QoS::AtMostOnce => self.expect_nothing_for_one_ping().await,
            QoS::AtLeastOnce => self.expect_taken(AckKind::Puback, id).await,
            QoS::ExactlyOnce => {
                self.expect_taken(AckKind::Pubrec, id).await;
                self.send(pubrel(id)).await;
                self.expect(pubcomp(id)).await;
            }
        }
    }

    async fn expect_taken(&mut self, kind: AckKind, id: u16) {
        let received = self.receive().await;
        let taken = [ReasonCode::Success, ReasonCode::NoMatchingSubscribers];
        assert!(
            matches!(received, Spec::Ack(k, i, reason) if k == kind && i == id && taken.contains(&reason)),
            "{received:?}"
        );
    }

    /// The next packet is this PUBLISH, but for the packet id, which is the broker's to choose. Not acknowledged.
    pub(crate) async fn expect_message(&mut self, publish: Publishing) -> u16 {
        let received = self.receive_publish().await;
        let id = received.packet_id;
        assert_eq!(id != 0, publish.qos != QoS::AtMostOnce, "{received:?}");
        assert_eq!(received, Publishing { packet_id: id, ..publish });
        id
    }

    /// The same, and acknowledged to the end.
    pub(crate) async fn take(&mut self, publish: Publishing) -> u16 {
        let qos = publish.qos;
        let id = self.expect_message(publish).await;
        self.acknowledge(qos, id).await;
        id
    }

    /// Acknowledges a message to the end.
    pub(crate) async fn acknowledge(&mut self, qos: QoS, id: u16) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(puback(id)).await,
            QoS::ExactlyOnce => {
                self.send(pubrec(id)).await;
                self.expect(pubrel(id)).await;
                self.send(pubcomp(id)).await;
            }
        }
    }

    /// Shown out: v5 with this reason, v3 without a word.
    pub(crate) async fn expect_shown_out(&mut self, version: Version, reason: ReasonCode) {
        if version.is_v5() {
            self.expect(disconnect().because(reason)).await;
        }
        self.expect_closed().await;
    }

    /// Says goodbye with a new session expiry (v5).
    pub(crate) async fn leave_with_expiry(mut self, reason: ReasonCode, seconds: u32) {
        let properties =
            DisconnectProperties { session_expiry: Some(seconds), ..DisconnectProperties::default() };
        let mut bytes = Vec::new();
        Packet::Disconnect(Disconnect { reason, properties }).encode(Version::V5, &mut bytes);
        self.send_bytes(&bytes).await;
        self.expect_closed().await;
    }
}

impl Publishing {
    pub(crate) fn expiring(self, seconds: u32) -> Self {
        Self { message_expiry: Some(seconds), ..self }
    }

    pub(crate) fn alias(self, alias: u16) -> Self {
        Self { topic_alias: Some(alias), ..self }
    }

    pub(crate) fn ids(self, subscription_ids: &[u32]) -> Self {
        Self { subscription_ids: subscription_ids.to_vec(), ..self }
    }
}

/// The options that v3 has too; v5's are set on what this returns.
pub(crate) fn options(qos: QoS) -> SubscribeOptions {
    SubscribeOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

/// The clock of the tests, for what must not have happened too early.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "tests measure the broker's clock against their own")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
