//! A client: MQTT 5.0 on one connection, without any comfort.

use std::num::NonZeroU16;

use dormouse::codec::{
    self, Ack, Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode,
    Subscribe, SubscribeFilter, SubscribeOptions, Version,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Result, broker::Broker};

/// Sender, sequence number, and room for the rest.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// Messages that a broker may have on the way to a client: both brokers' default or setting.
const RECEIVE_MAXIMUM: u16 = 100;
const PACKET_BYTES_MAX: u32 = 1 << 20;
const READ_BYTES: usize = 32 << 10;
/// No client of a round is silent for longer.
const KEEP_ALIVE_S: u16 = 3_600;
const EXPIRY_S: u32 = 86_400;

/// Whether a session outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Transient,
    Persistent,
}

/// A connection to the broker.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// Bytes of `input` that are done with.
    read: usize,
    output: Vec<u8>,
}

/// A packet from the broker, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Connack { session_present: bool },
    Publish { seq: u64, id: Option<PacketId>, qos: QoS },
    Puback(PacketId),
    Pubrec(PacketId),
    Pubrel(PacketId),
    Pubcomp(PacketId),
    Suback,
    Pingresp,
}

/// Whatever bytes go over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl Peer {
    /// Connects over TCP. Also tells whether the session was there.
    pub(crate) async fn connect(broker: &Broker, client_id: &str, session: Session) -> Result<(Self, bool)> {
        Self::introduce(tcp(broker).await?, client_id, session).await
    }

    /// Connects over a stream that is open.
    pub(crate) async fn introduce(
        stream: impl Stream + 'static,
        client_id: &str,
        session: Session,
    ) -> Result<(Self, bool)> {
        let mut peer = Self { stream: Box::new(stream), input: Vec::new(), read: 0, output: Vec::new() };
        let persistent = session == Session::Persistent;
        peer.say(&Packet::from(Connect {
            version: Version::V5,
            client_id,
            clean_start: !persistent,
            keep_alive: KEEP_ALIVE_S,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry: persistent.then_some(EXPIRY_S),
                receive_maximum: NonZeroU16::new(RECEIVE_MAXIMUM),
                ..ConnectProperties::default()
            },
        }));
        match peer.answer().await? {
            Heard::Connack { session_present } => Ok((peer, session_present)),
            other => Err(format!("{other:?} instead of CONNACK").into()),
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<()> {
        self.say(&Packet::from(Subscribe {
            packet_id: packet_id(0),
            subscription_id: None,
            user: codec::UserProperties::default(),
            filters: vec![SubscribeFilter {
                filter,
                options: SubscribeOptions { qos, ..SubscribeOptions::default() },
            }],
        }));
        match self.answer().await? {
            Heard::Suback => Ok(()),
            other => Err(format!("{other:?} instead of SUBACK").into()),
        }
    }

    /// Queues a message; `id` is for `QoS` 1 and 2.
    pub(crate) fn publish(&mut self, topic: &str, qos: QoS, seq: u64, id: PacketId) {
        self.publish_body(topic, qos, seq, id, &mut [0; PAYLOAD_BYTES]);
    }

    /// The same with a payload of any length, whose first bytes are overwritten with the sequence number.
    pub(crate) fn publish_body(&mut self, topic: &str, qos: QoS, seq: u64, id: PacketId, payload: &mut [u8]) {
        for (to, from) in payload.iter_mut().zip(seq.to_be_bytes()) {
            *to = from;
        }
        self.say(&Packet::from(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: (qos > QoS::AtMostOnce).then_some(id),
            properties: PublishProperties::default(),
            payload,
        }));
    }

    /// Answers what asks for an answer.
    pub(crate) fn confirm(&mut self, heard: Heard) {
        match heard {
            Heard::Publish { id: Some(id), qos: QoS::AtLeastOnce, .. } => {
                self.say(&Packet::Puback(Ack::success(id)));
            }
            Heard::Publish { id: Some(id), .. } => self.say(&Packet::Pubrec(Ack::success(id))),
            Heard::Pubrec(id) => self.say(&Packet::Pubrel(Ack::success(id))),
            Heard::Pubrel(id) => self.say(&Packet::Pubcomp(Ack::success(id))),
            _ => {}
        }
    }

    /// Queues a packet.
    pub(crate) fn say(&mut self, packet: &Packet<'_>) {
        packet.encode(Version::V5, &mut self.output);
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await?;
            self.output.clear();
        }
        Ok(())
    }

    /// Reads once. Nothing is lost if this is dropped while it waits.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err("the broker closed the connection".into()),
            _ => Ok(()),
        }
    }

    /// The next packet that is there in full.
    pub(crate) fn hear(&mut self) -> Result<Option<Heard>> {
        let rest = self.input.get(self.read..).unwrap_or_default();
        let Some((packet, bytes)) = codec::decode(rest, Version::V5, PACKET_BYTES_MAX)? else {
            self.input.drain(..self.read);
            self.read = 0;
            return Ok(None);
        };
        let heard = hear(&packet)?;
        self.read += bytes;
        Ok(Some(heard))
    }

    /// Sends what is queued and waits for one packet.
    pub(crate) async fn answer(&mut self) -> Result<Heard> {
        self.flush().await?;
        loop {
            if let Some(heard) = self.hear()? {
                return Ok(heard);
            }
            self.fill().await?;
        }
    }

    /// Asks for a PINGRESP, behind which nothing comes that was sent before, and hands over what came first.
    pub(crate) async fn ping(&mut self, mut heard: impl FnMut(Heard) -> Result<()>) -> Result<()> {
        self.say(&Packet::Pingreq);
        loop {
            match self.answer().await? {
                Heard::Pingresp => return Ok(()),
                other => heard(other)?,
            }
        }
    }

    /// Says good-bye, and waits until the broker has closed the connection: only then has it put the session away.
    pub(crate) async fn disconnect(mut self) -> Result<()> {
        self.say(&Packet::Disconnect(codec::Disconnect {
            reason: ReasonCode::Success,
            properties: codec::DisconnectProperties::default(),
        }));
        self.flush().await?;
        while self.stream.read_buf(&mut self.input).await? > 0 {}
        Ok(())
    }
}

/// A TCP connection that sends at once.
pub(crate) async fn tcp(broker: &Broker) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", broker.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The packet id of a publisher's `n`th message.
pub(crate) fn packet_id(n: u64) -> PacketId {
    let id = u16::try_from(n % 65_535 + 1).unwrap_or(1);
    PacketId::from(NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN))
}

fn hear(packet: &Packet<'_>) -> Result<Heard> {
    let accepted = |ack: &Ack<'_>, heard: fn(PacketId) -> Heard| {
        if u8::from(ack.reason) < 0x80 {
            Ok(heard(ack.packet_id))
        } else {
            Err(format!("refused: {ack:?}").into())
        }
    };
    match packet {
        Packet::Connack(p) if p.reason == ReasonCode::Success => {
            Ok(Heard::Connack { session_present: p.session_present })
        }
        Packet::Publish(p) => {
            let seq = p.payload.first_chunk().ok_or("a payload that nobody sent")?;
            Ok(Heard::Publish { seq: u64::from_be_bytes(*seq), id: p.packet_id, qos: p.qos })
        }
        Packet::Puback(ack) => accepted(ack, Heard::Puback),
        Packet::Pubrec(ack) => accepted(ack, Heard::Pubrec),
        Packet::Pubrel(ack) => accepted(ack, Heard::Pubrel),
        Packet::Pubcomp(ack) => accepted(ack, Heard::Pubcomp),
        Packet::Suback(p) if p.reasons.iter().all(|&reason| u8::from(reason) < 0x80) => Ok(Heard::Suback),
        Packet::Pingresp => Ok(Heard::Pingresp),
        other => Err(format!("unexpected: {other:?}").into()),
    }
}
