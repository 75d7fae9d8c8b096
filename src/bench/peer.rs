//! A client: MQTT 5.0 on one connection, without any comfort.

use std::{
    io,
    num::NonZeroU16,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{BenchError, Result, Target};
use crate::codec::{
    self, Ack, Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode,
    Subscribe, SubscribeFilter, SubscribeOptions, Version,
};

/// Sender, sequence number and time stand at the beginning of every payload.
pub const PAYLOAD_BYTES_MIN: usize = 20;
/// As large as MQTT has them.
const PACKET_BYTES_MAX: u32 = 256 << 20;
const READ_BYTES: usize = 32 << 10;
/// No client of a run is silent for longer.
const KEEP_ALIVE_S: u16 = 3_600;
const EXPIRY_S: u32 = 86_400;

/// Whether a session outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It does not.
    Transient,
    /// It does, for a day.
    Persistent,
}

/// A connection to the broker.
pub struct Peer {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// Bytes of `input` that are done with.
    read: usize,
    output: Vec<u8>,
    resumed: bool,
    receive_maximum: u16,
}

/// A packet from the broker, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The connection is accepted.
    Connack {
        /// Whether the session was there.
        session_present: bool,
        /// Messages of `QoS` 1 and 2 that the broker takes before it has answered one.
        receive_maximum: u16,
    },
    /// A message.
    Publish {
        /// What its sender has written into it.
        stamp: Stamp,
        /// For `QoS` 1 and 2.
        id: Option<PacketId>,
        /// As it was delivered.
        qos: QoS,
    },
    /// An answer to a message of `QoS` 1.
    Puback(PacketId),
    /// The first answer to one of `QoS` 2.
    Pubrec(PacketId),
    /// What releases a message of `QoS` 2.
    Pubrel(PacketId),
    /// The last answer to a message of `QoS` 2.
    Pubcomp(PacketId),
    /// All filters are granted.
    Suback,
    /// The broker lives.
    Pingresp,
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which publisher.
    pub sender: u32,
    /// 0, 1, 2 .. for each sender and topic.
    pub seq: u64,
    /// When it was sent, in microseconds of this process's own time.
    pub sent_us: u64,
}

/// Whatever bytes go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// The time of this process, in microseconds.
pub(super) fn now_us() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGUN.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Stamp {
    /// One that is sent now.
    pub fn now(sender: u32, seq: u64) -> Self {
        Self { sender, seq, sent_us: now_us() }
    }

    /// How old it is at `now_us`.
    pub(super) fn age(self, now_us: u64) -> Duration {
        Duration::from_micros(now_us.saturating_sub(self.sent_us))
    }

    fn write(self, payload: &mut [u8]) {
        let bytes = self.sender.to_be_bytes().into_iter().chain(self.seq.to_be_bytes());
        for (to, from) in payload.iter_mut().zip(bytes.chain(self.sent_us.to_be_bytes())) {
            *to = from;
        }
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (sender, rest) = payload.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let sent_us = rest.first_chunk()?;
        Some(Self {
            sender: u32::from_be_bytes(*sender),
            seq: u64::from_be_bytes(*seq),
            sent_us: u64::from_be_bytes(*sent_us),
        })
    }
}

impl Peer {
    /// Connects. Also tells whether the session was there.
    pub async fn connect(target: &Target, client_id: &str, session: Session) -> Result<(Self, bool)> {
        let (stream, resumed) = target.connect().await?;
        let (input, output) = (Vec::new(), Vec::new());
        let mut peer = Self { stream, input, read: 0, output, resumed, receive_maximum: u16::MAX };
        let persistent = session == Session::Persistent;
        peer.say(&Packet::from(Connect {
            clean_start: !persistent,
            keep_alive: KEEP_ALIVE_S,
            user_name: target.login.as_ref().map(|login| login.user_name.as_str()),
            password: target.login.as_ref().map(|login| login.password.as_bytes()),
            properties: ConnectProperties {
                session_expiry: persistent.then_some(EXPIRY_S),
                ..ConnectProperties::default()
            },
            ..Connect::new(Version::V5, client_id)
        }));
        match peer.answer().await? {
            Heard::Connack { session_present, receive_maximum } => {
                peer.receive_maximum = receive_maximum;
                Ok((peer, session_present))
            }
            other => Err(BenchError::Protocol(format!("{other:?} instead of CONNACK"))),
        }
    }

    /// Whether the connection resumed a TLS session instead of beginning one.
    pub fn has_resumed(&self) -> bool {
        self.resumed
    }

    /// How many unanswered messages of this `QoS` may be on the way to the broker, of those that are wanted: no more than it
    /// has said it takes (receive maximum).
    pub fn window(&self, qos: QoS, wanted: u64) -> u64 {
        if qos == QoS::AtMostOnce { wanted } else { wanted.min(self.receive_maximum.into()) }
    }

    /// Subscribes and waits for the answer.
    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<()> {
        self.subscribe_all(&[filter], qos).await
    }

    /// Subscribes to all of them with one packet and waits for the answer.
    pub async fn subscribe_all(&mut self, filters: &[impl AsRef<str>], qos: QoS) -> Result<()> {
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        self.say(&Packet::from(Subscribe {
            packet_id: packet_id(0),
            subscription_id: None,
            user: codec::UserProperties::default(),
            filters: filters
                .iter()
                .map(|filter| SubscribeFilter { filter: filter.as_ref(), options })
                .collect(),
        }));
        match self.answer().await? {
            Heard::Suback => Ok(()),
            other => Err(BenchError::Protocol(format!("{other:?} instead of SUBACK"))),
        }
    }

    /// Queues a message. `id` is for `QoS` 1 and 2; the first bytes of the payload are overwritten with the stamp.
    pub fn publish(&mut self, topic: &str, qos: QoS, stamp: Stamp, id: PacketId, payload: &mut [u8]) {
        stamp.write(payload);
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

    /// Queues the answer to what asks for one.
    pub fn confirm(&mut self, heard: Heard) {
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

    fn say(&mut self, packet: &Packet<'_>) {
        packet.encode(Version::V5, &mut self.output);
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(sending)?;
            self.stream.flush().await.map_err(sending)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Reads once. Nothing is lost if this is dropped while it waits.
    pub async fn fill(&mut self) -> Result<()> {
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(BenchError::Protocol("nothing more: it has closed the connection".to_owned())),
            Ok(_) => Ok(()),
            Err(source) => {
                Err(BenchError::Connection { doing: "reading from the broker".to_owned(), source })
            }
        }
    }

    /// The next packet that is there in full.
    pub fn hear(&mut self) -> Result<Option<Heard>> {
        let rest = self.input.get(self.read..).unwrap_or_default();
        let decoded = codec::decode(rest, Version::V5, PACKET_BYTES_MAX)
            .map_err(|error| BenchError::Protocol(format!("what cannot be read: {error}")))?;
        let Some((packet, bytes)) = decoded else {
            self.input.drain(..self.read);
            self.read = 0;
            return Ok(None);
        };
        let heard = hear(&packet)?;
        self.read += bytes;
        Ok(Some(heard))
    }

    /// Sends what is queued and waits for one packet.
    pub async fn answer(&mut self) -> Result<Heard> {
        self.flush().await?;
        loop {
            if let Some(heard) = self.hear()? {
                return Ok(heard);
            }
            self.fill().await?;
        }
    }

    /// Asks for a PINGRESP, behind which nothing comes that was sent before, and hands over what came first.
    pub async fn ping(&mut self, mut heard: impl FnMut(&mut Self, Heard) -> Result<()>) -> Result<()> {
        self.say(&Packet::Pingreq);
        loop {
            match self.answer().await? {
                Heard::Pingresp => return Ok(()),
                other => heard(self, other)?,
            }
        }
    }

    /// Says good-bye, ends its side of the connection as it has to [MQTT-3.14.4-2], and waits until the broker has closed the
    /// other: only then has it put the session away.
    pub async fn disconnect(mut self) -> Result<()> {
        self.say(&Packet::Disconnect(codec::Disconnect {
            reason: ReasonCode::Success,
            properties: codec::DisconnectProperties::default(),
        }));
        self.flush().await?;
        // It fails if the broker was faster, which is as well.
        let _ = self.stream.shutdown().await;
        // However it ends, it has ended.
        while matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
            self.input.clear();
        }
        Ok(())
    }
}

/// The packet id of a publisher's `n`th message.
pub fn packet_id(n: u64) -> PacketId {
    let id = u16::try_from(n % 65_535 + 1).unwrap_or(1);
    PacketId::from(NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN))
}

fn sending(source: io::Error) -> BenchError {
    BenchError::Connection { doing: "sending to the broker".to_owned(), source }
}

fn hear(packet: &Packet<'_>) -> Result<Heard> {
    let unexpected = || Err(BenchError::Protocol(format!("{packet:?}")));
    let accepted = |ack: &Ack<'_>, heard: fn(PacketId) -> Heard| {
        if u8::from(ack.reason) < 0x80 { Ok(heard(ack.packet_id)) } else { unexpected() }
    };
    match packet {
        Packet::Connack(p) if p.reason == ReasonCode::Success => {
            let receive_maximum = p.properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
            Ok(Heard::Connack { session_present: p.session_present, receive_maximum })
        }
        Packet::Publish(p) => match Stamp::read(p.payload) {
            Some(stamp) => Ok(Heard::Publish { stamp, id: p.packet_id, qos: p.qos }),
            None => Err(BenchError::Protocol("a message that nobody here has sent".to_owned())),
        },
        Packet::Puback(ack) => accepted(ack, Heard::Puback),
        Packet::Pubrec(ack) => accepted(ack, Heard::Pubrec),
        Packet::Pubrel(ack) => accepted(ack, Heard::Pubrel),
        Packet::Pubcomp(ack) => accepted(ack, Heard::Pubcomp),
        Packet::Suback(p) if p.reasons.iter().all(|&reason| u8::from(reason) < 0x80) => Ok(Heard::Suback),
        Packet::Pingresp => Ok(Heard::Pingresp),
        _ => unexpected(),
    }
}
