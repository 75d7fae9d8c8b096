//! A scripted client that speaks whole packets, so that a test reads as a transcript.
//!
//! ```ignore
//! let mut dev = broker.peer(Version::V311).await;
//! dev.send(connect("dev1").persistent()).await;
//! dev.expect(connack(ReasonCode::Success)).await;
//! dev.send(subscribe(1, "cmd/dev1/#", QoS::AtLeastOnce)).await;
//! dev.expect(suback(1, [ReasonCode::GrantedQos1])).await;
//! ```
//!
//! It never waits without a limit, and never sleeps: that nothing comes is shown by a PINGRESP that comes first.

mod link;
pub(crate) mod packets;
mod web;

use std::{future::Future, io, net::SocketAddr, path::Path};

use dormouse::codec::{Packet, Version, decode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use self::{
    link::Link,
    packets::{Publishing, Spec, reason_string},
};
use crate::harness::{Broker, LIMIT};

pub(crate) use self::link::TlsClient;

/// One connection, at the client's end.
pub(crate) struct Peer {
    link: Link,
    version: Version,
    /// What has been read and not yet looked at.
    input: Vec<u8>,
}

impl Broker {
    /// A connection to the plain listener, before CONNECT.
    pub(crate) async fn peer(&self, version: Version) -> Peer {
        let link = within("connecting", Link::plain(self.plain())).await;
        Peer { link: link.unwrap(), version, input: Vec::new() }
    }

    /// Plain TCP to the TLS listener.
    pub(crate) async fn plain_peer_on_tls(&self) -> Peer {
        let link = within("connecting", Link::plain(self.tls())).await;
        Peer { link: link.unwrap(), version: Version::V311, input: Vec::new() }
    }

    /// The first message of a client that could go on, for a peer that does not.
    pub(crate) fn tls_hello(&self) -> Vec<u8> {
        TlsClient::default().hello(&self.certs_dir(), self.tls())
    }

    /// A connection to the TLS listener that trusts the development CA, before CONNECT.
    pub(crate) async fn tls_peer(&self, version: Version) -> Peer {
        self.try_tls_peer(version, TlsClient::default()).await.unwrap()
    }

    /// The same with settings of its own; the handshake may fail.
    pub(crate) async fn try_tls_peer(&self, version: Version, client: TlsClient) -> io::Result<Peer> {
        let link = within("the TLS handshake", Link::tls(self.tls(), &[], &self.certs_dir(), client)).await?;
        Ok(Peer { link, version, input: Vec::new() })
    }
}

/// By what way a client comes. The numbers tell listeners of the same scheme apart: so many are before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Tls,
    Unix,
    Ws,
    Wss,
    /// Plain TCP with this header before it.
    Proxied(usize, &'static [u8]),
    /// TLS with this header before it.
    ProxiedTls(usize, &'static [u8]),
}

impl Broker {
    /// A connection by that way, before CONNECT.
    pub(crate) async fn peer_over(&self, over: Over, version: Version) -> Peer {
        let certs = self.certs_dir();
        let connecting = async {
            match over {
                Over::Tcp => Link::plain(self.plain()).await,
                Over::Tls => Link::tls(self.tls(), &[], &certs, TlsClient::default()).await,
                Over::Unix => Link::unix(Path::new(self.place("unix", 0))).await,
                Over::Ws => Link::plain(self.address("ws", 0)).await?.web(self.place("ws", 0)).await,
                Over::Wss => {
                    let http = TlsClient::default().alpn("http/1.1");
                    let link = Link::tls(self.address("wss", 0), &[], &certs, http).await?;
                    link.web(self.place("wss", 0)).await
                }
                Over::Proxied(before, header) => Link::proxied(self.address("tcp", before), header).await,
                Over::ProxiedTls(before, header) => {
                    let address = self.address("tls", before);
                    Link::tls(address, header, &certs, TlsClient::default()).await
                }
            }
        };
        let link = within("connecting", connecting).await;
        Peer { link: link.unwrap(), version, input: Vec::new() }
    }
}

impl Peer {
    /// A connection to a broker within this process, before CONNECT.
    pub(crate) async fn at(address: SocketAddr, version: Version) -> Self {
        let link = within("connecting", Link::plain(address)).await;
        Self { link: link.unwrap(), version, input: Vec::new() }
    }

    /// Sends a packet.
    pub(crate) async fn send(&mut self, packet: impl Into<Spec>) {
        let mut bytes = Vec::new();
        packet.into().with_packet(self.version, |packet| packet.encode(self.version, &mut bytes));
        self.send_bytes(&bytes).await;
    }

    /// Sends packets in one write.
    pub(crate) async fn send_all(&mut self, packets: impl IntoIterator<Item = Spec>) {
        let mut bytes = Vec::new();
        for packet in packets {
            packet.with_packet(self.version, |packet| packet.encode(self.version, &mut bytes));
        }
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes, packets or not.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        within("sending", self.try_send_bytes(bytes)).await.unwrap();
    }

    async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.link.write_all(bytes).await?;
        self.link.flush().await
    }

    /// The next packet has to be this one. Properties of a CONNACK, an acknowledgement or a DISCONNECT are not looked
    /// at; `receive_with` sees them.
    #[track_caller]
    pub(crate) fn expect(&mut self, packet: impl Into<Spec>) -> impl Future<Output = ()> {
        let (expected, place) = (packet.into(), std::panic::Location::caller());
        async move {
            let received = within(&format!("{expected:?} ({place})"), self.try_receive()).await;
            assert_eq!(received.as_ref().ok(), Some(&expected), "at {place}: {received:?}");
        }
    }

    /// The same for an answer, and this is what it says to people: a part of its reason string, or `None` at all.
    pub(crate) async fn expect_saying(&mut self, packet: impl Into<Spec>, why: Option<&str>) {
        let (received, said) = self.receive_saying().await;
        assert_eq!(received, packet.into(), "{said:?}");
        match why {
            Some(why) => assert!(said.as_ref().is_some_and(|said| said.contains(why)), "{why:?}: {said:?}"),
            None => assert_eq!(said, None),
        }
    }

    /// The next packet, which has to be an answer, with its reason string.
    pub(crate) async fn receive_saying(&mut self) -> (Spec, Option<String>) {
        self.receive_with(|packet| (Spec::from(packet), reason_string(packet))).await
    }

    /// The next packet has to be this PUBLISH, property for property.
    pub(crate) async fn expect_publish(&mut self, publish: Publishing) {
        self.expect(publish).await;
    }

    /// The next packet, which has to be a PUBLISH.
    pub(crate) async fn receive_publish(&mut self) -> Publishing {
        match self.receive().await {
            Spec::Publish(publish) => publish,
            other => panic!("a PUBLISH was wanted: {other:?}"),
        }
    }

    /// The next packet.
    pub(crate) async fn receive(&mut self) -> Spec {
        within("a packet", self.try_receive()).await.unwrap()
    }

    /// The next packet as the codec has it, with all its properties.
    pub(crate) async fn receive_with<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> T {
        within("a packet", self.try_receive_with(look)).await.unwrap()
    }

    /// The next bytes, whatever they mean.
    pub(crate) async fn receive_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            let read = within("bytes", self.link.read_buf(&mut self.input)).await.unwrap();
            assert!(read > 0, "closed after {:x?}, of {count}", self.input);
        }
        self.input.drain(..count).collect()
    }

    /// What comes next is these bytes.
    pub(crate) async fn expect_bytes(&mut self, expected: &[u8]) {
        assert_eq!(self.receive_bytes(expected.len()).await, expected);
    }

    /// Nothing is on its way: a ping is answered first.
    pub(crate) async fn expect_nothing_for_one_ping(&mut self) {
        self.send(Spec::Pingreq).await;
        self.expect(Spec::Pingresp).await;
    }

    /// The broker closes, orderly, without sending another byte.
    pub(crate) async fn expect_closed(&mut self) {
        match within("the end of the connection", self.try_receive()).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("not an orderly close: {error}"),
            Ok(packet) => panic!("closed was expected: {packet:?}"),
        }
    }

    /// The connection ends, in whatever way; returns the bytes that came before.
    pub(crate) async fn expect_ended(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.input);
        // A reset is an end as well.
        let _ = within("the end of the connection", self.link.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Sends a packet to a broker that may have closed; whether the next packet is this one.
    pub(crate) async fn try_exchange(&mut self, packet: impl Into<Spec>, expected: impl Into<Spec>) -> bool {
        let mut bytes = Vec::new();
        packet.into().with_packet(self.version, |packet| packet.encode(self.version, &mut bytes));
        let sent = within("sending", self.try_send_bytes(&bytes)).await;
        let received = within("a packet or the end", self.try_receive()).await;
        sent.is_ok() && received.is_ok_and(|packet| packet == expected.into())
    }

    /// The next packet, or `None` when the connection has ended in whatever way.
    pub(crate) async fn try_next(&mut self) -> Option<Spec> {
        within("a packet or the end", self.try_receive()).await.ok()
    }

    /// Sends a packet to a broker that may have closed; the next packet, or `None` when the connection has ended.
    pub(crate) async fn ask(&mut self, packet: impl Into<Spec>) -> Option<Spec> {
        let mut bytes = Vec::new();
        packet.into().with_packet(self.version, |packet| packet.encode(self.version, &mut bytes));
        // Whether it could be sent is seen by what comes.
        let _ = within("sending", self.try_send_bytes(&bytes)).await;
        self.try_next().await
    }

    /// Sends bytes to a broker that may have closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("sending", self.try_send_bytes(bytes)).await
    }

    /// The code of the WebSocket's Close, if it has come.
    pub(crate) fn close_code(&self) -> Option<u16> {
        self.link.close_code()
    }

    /// Closes without DISCONNECT, orderly as far as TCP is concerned.
    pub(crate) async fn hang_up(mut self) {
        within("hanging up", self.link.shutdown()).await.unwrap();
    }

    /// Sends no more, and goes on reading.
    pub(crate) async fn close_its_side(&mut self) {
        within("closing one side", self.link.shutdown()).await.unwrap();
    }

    async fn try_receive(&mut self) -> io::Result<Spec> {
        self.try_receive_with(|packet| Spec::from(packet)).await
    }

    async fn try_receive_with<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> io::Result<T> {
        loop {
            if let Some((packet, used)) =
                decode(&self.input, self.version, u32::MAX).map_err(io::Error::other)?
            {
                let seen = look(&packet);
                self.input.drain(..used);
                return Ok(seen);
            }
            let read = self.link.read_buf(&mut self.input).await?;
            if read == 0 && !self.input.is_empty() {
                return Err(io::Error::other(format!("closed within a packet: {:?}", self.input)));
            }
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Fails the test when it takes too long.
async fn within<F: Future>(what: &str, work: F) -> F::Output {
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("waited {LIMIT:?} for {what}"))
}
