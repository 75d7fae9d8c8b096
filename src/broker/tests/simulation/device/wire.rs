//! A device's network connection, with the manners of the broker's driver at its other end.

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU16,
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use super::{
    super::super::{Woken, id, peer, puback, pubcomp, publish, pubrec, pubrel},
    Heard, Hello, NOBODY, Said,
};
use crate::{
    broker::{Broker, CloseReason, Connection, Greeting, Handshake, Reading, Transmit},
    codec::{
        Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, Publish,
        PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe,
        Version, Will, decode,
    },
    time::Timestamp,
};

/// A network connection.
pub(in super::super) struct Wire {
    handshake: Handshake,
    connection: Option<Connection>,
    version: Version,
    bytes: Vec<u8>,
    /// The packets in `bytes`, with their ends, counted from the beginning of the connection.
    packets: VecDeque<(usize, Said)>,
    taken_bytes: usize,
    said_bytes: usize,
    /// How many of `bytes` have arrived.
    arrived: usize,
    pub(in super::super) heard: VecDeque<Heard>,
    pub(in super::super) greeted: bool,
    pub(in super::super) closing: bool,
    reading: Reading,
    woken: Arc<Woken>,
    refusal: Vec<Heard>,
    /// Messages that left the broker and whose acknowledgement has not come there.
    pub(in super::super) unanswered: BTreeSet<u16>,
    pub(in super::super) receive_maximum: u16,
    pub(super) packet_bytes_max: Option<u32>,
    /// When the broker was asked for output last, on its time line.
    pub(in super::super) looked_at: u64,
}

impl Wire {
    pub(super) fn new(version: Version, receive_maximum: u16) -> Self {
        Self {
            handshake: Handshake::default(),
            connection: None,
            version,
            bytes: Vec::new(),
            packets: VecDeque::new(),
            taken_bytes: 0,
            said_bytes: 0,
            arrived: 0,
            heard: VecDeque::new(),
            greeted: false,
            closing: false,
            reading: Reading::Continue,
            woken: Arc::default(),
            refusal: Vec::new(),
            looked_at: 0,
            unanswered: BTreeSet::new(),
            receive_maximum,
            packet_bytes_max: None,
        }
    }

    pub(super) fn say(&mut self, name: &str, said: Said) {
        let before = self.bytes.len();
        encode(name, &said, self.version, self.packet_bytes_max, &mut self.bytes);
        self.said_bytes += self.bytes.len() - before;
        self.packets.push_back((self.said_bytes, said));
    }

    /// How many bytes are on their way.
    pub(in super::super) fn on_the_way(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// How many bytes of the next packet have not arrived.
    pub(in super::super) fn packet_bytes_left(&self) -> usize {
        self.packets.front().map_or(0, |(end, _)| end.saturating_sub(self.taken_bytes + self.arrived))
    }

    /// The broker takes nothing more on this connection.
    pub(in super::super) fn reads_no_more(&self) -> bool {
        self.reading == Reading::Stop
    }

    /// The next `bytes` arrive. Returns the packets that the broker has taken.
    pub(in super::super) fn arrive(
        &mut self,
        bytes: usize,
        broker: &Arc<Broker>,
        now: Timestamp,
    ) -> Vec<Said> {
        self.arrived = (self.arrived + bytes).min(self.bytes.len());
        let mut used = 0;
        if self.connection.is_none() && !self.closing {
            match broker.connect(&mut self.handshake, &self.bytes[..self.arrived], &peer(), now) {
                Greeting::Incomplete => return Vec::new(),
                Greeting::Challenged { .. } => unreachable!("no device asks for it"),
                Greeting::Refused { reply } => {
                    self.closing = true;
                    used = self.arrived;
                    self.refusal = packets(&reply, self.version);
                }
                Greeting::Connected { connection, used_bytes } => {
                    used = used_bytes;
                    self.connection = Some(connection);
                    self.woken.0.store(true, Ordering::Relaxed);
                }
            }
        } else if let Some(connection) = self.connection.as_mut().filter(|_| !self.closing)
            && (self.reading == Reading::Continue
                || (self.reading == Reading::Pause && connection.may_read()))
        {
            (used, self.reading) = connection.receive(&self.bytes[..self.arrived], now);
            self.woken.0.store(true, Ordering::Relaxed);
        }
        self.bytes.drain(..used);
        self.arrived -= used;
        self.taken_bytes += used;
        let mut taken = Vec::new();
        while self.packets.front().is_some_and(|(end, _)| *end <= self.taken_bytes) {
            taken.extend(self.packets.pop_front().map(|(_, said)| said));
        }
        taken
    }

    /// What leaves the broker now.
    pub(in super::super) fn leave(&mut self, now: Timestamp) -> Vec<Heard> {
        self.looked_at = now.0;
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut all = Vec::new();
        while let Some(connection) = self.connection.as_mut().filter(|_| !self.closing) {
            if !self.woken.0.swap(false, Ordering::Relaxed) {
                break;
            }
            let mut out = Vec::new();
            let transmit = connection.poll_transmit(&waker, now, &mut out);
            self.closing = transmit == Transmit::Closing;
            if transmit == Transmit::More && !out.is_empty() {
                self.woken.0.store(true, Ordering::Relaxed);
            }
            all.append(&mut out);
        }
        let mut heard = std::mem::take(&mut self.refusal);
        heard.extend(packets(&all, self.version));
        heard
    }

    /// The broker reads the end of what comes; `false` if it does not listen.
    pub(in super::super) fn close_side(&mut self, now: Timestamp) -> bool {
        let listens = self.reading == Reading::Continue && !self.closing;
        let Some(connection) = self.connection.as_mut().filter(|_| listens) else { return false };
        connection.input_ended(now);
        self.reading = Reading::Stop;
        self.woken.0.store(true, Ordering::Relaxed);
        true
    }

    /// Ends the connection as its driver would.
    pub(in super::super) fn end(mut self, now: Timestamp) {
        if let Some(connection) = self.connection.take() {
            let reason = if self.closing { CloseReason::Closed } else { CloseReason::Lost };
            connection.close(reason, now);
        }
    }
}

fn encode(name: &str, said: &Said, version: Version, packet_bytes_max: Option<u32>, bytes: &mut Vec<u8>) {
    let payload;
    let packet = match said {
        Said::Connect(hello) => {
            let will_payload = hello.will.as_ref().map(|will| will.body.to_string());
            let properties = ConnectProperties { packet_bytes_max, ..ConnectProperties::default() };
            return encode_connect(name, hello, will_payload.as_deref(), version, properties, bytes);
        }
        Said::Publish { id, message, dup } => {
            let filled = format!("{}{}", message.body, " ".repeat(message.pad));
            payload = if message.clears { String::new() } else { filled };
            let expiry = message.expiry.filter(|_| version == Version::V5);
            let properties = PublishProperties { message_expiry: expiry, ..PublishProperties::default() };
            let id = if message.qos == QoS::AtMostOnce { 1 } else { *id };
            let packet = publish(message.qos, id, message.topic, &payload);
            Packet::Publish(Publish { dup: *dup, retain: message.retain, properties, ..packet })
        }
        Said::Puback(id) => puback(*id),
        Said::Pubrec(id) => pubrec(*id),
        Said::Pubrel(id) => pubrel(*id),
        Said::Pubcomp(id) => pubcomp(*id),
        Said::Subscribe { id: packet_id, filter, qos } => {
            let options = SubscribeOptions { qos: *qos, ..SubscribeOptions::default() };
            let filters = vec![SubscribeFilter { filter, options }];
            Packet::Subscribe(Subscribe {
                packet_id: id(*packet_id),
                subscription_id: None,
                user: Vec::new(),
                filters,
            })
        }
        Said::Unsubscribe { id: packet_id, filter } => Packet::Unsubscribe(Unsubscribe {
            packet_id: id(*packet_id),
            user: Vec::new(),
            filters: vec![filter],
        }),
        Said::Disconnect { with_will, ends_session } => {
            let reason = if *with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
            let session_expiry = ends_session.then_some(0);
            let properties = DisconnectProperties { session_expiry, ..DisconnectProperties::default() };
            Packet::Disconnect(Disconnect { reason, properties })
        }
    };
    packet.encode(version, bytes);
}

fn encode_connect(
    name: &str,
    hello: &Hello,
    will: Option<&str>,
    version: Version,
    mut properties: ConnectProperties<'_>,
    bytes: &mut Vec<u8>,
) {
    let v5 = version == Version::V5;
    let will = hello.will.as_ref().zip(will).map(|(wish, payload)| Will {
        topic: wish.topic,
        payload: payload.as_bytes(),
        qos: wish.qos,
        retain: wish.retain,
        delay: (v5 && wish.delay > 0).then_some(wish.delay),
        properties: PublishProperties::default(),
    });
    if v5 {
        properties.session_expiry = Some(hello.expiry);
        properties.receive_maximum = NonZeroU16::new(hello.receive_maximum);
    }
    let connect = Connect { clean_start: hello.clean, will, properties, ..Connect::new(version, name) };
    Packet::Connect(Box::new(connect)).encode(version, bytes);
}

fn packets(bytes: &[u8], version: Version) -> Vec<Heard> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while let Some((packet, used)) = decode(rest, version, 1 << 28).unwrap() {
        rest = &rest[used..];
        all.push(match packet {
            Packet::Connack(c) => Heard::Connack { present: c.session_present, refused: c.reason.is_error() },
            Packet::Publish(p) => {
                let text = std::str::from_utf8(p.payload).unwrap();
                Heard::Publish {
                    id: p.packet_id.map_or(0, PacketId::get),
                    body: if text.is_empty() { NOBODY } else { text.trim_end().parse().unwrap() },
                    topic: p.topic.to_owned(),
                    qos: p.qos,
                    dup: p.dup,
                    retain: p.retain,
                }
            }
            Packet::Puback(a) => Heard::Puback { id: a.packet_id.get(), refused: a.reason.is_error() },
            Packet::Pubrec(a) => Heard::Pubrec { id: a.packet_id.get(), refused: a.reason.is_error() },
            Packet::Pubrel(a) => Heard::Pubrel(a.packet_id.get()),
            Packet::Pubcomp(a) => Heard::Pubcomp(a.packet_id.get()),
            Packet::Suback(s) => Heard::Suback {
                id: s.packet_id.get(),
                refused: s.reasons.iter().any(|reason| reason.is_error()),
            },
            Packet::Unsuback(s) => Heard::Unsuback(s.packet_id.get()),
            Packet::Disconnect(_) => Heard::Disconnect,
            other => panic!("{other:?} from a server"),
        });
    }
    assert!(rest.is_empty(), "whole packets leave the broker");
    all
}
