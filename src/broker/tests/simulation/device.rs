//! A simulated device: what it says and hears, and a connection that may lose both.
//!
//! Bytes to the broker come in pieces cut anywhere. What the broker has sent is judged when it leaves the broker, and
//! heard by the device later or never. The device keeps what it must of a session, and sends again what it must.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use super::super::{Woken, id, peer, puback, pubcomp, publish, pubrec, pubrel};
use crate::{
    broker::{Broker, CloseReason, Connection, Greeting, Handshake, Reading, Transmit},
    codec::{
        Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, Publish,
        PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe,
        Version, Will, decode,
    },
    time::Timestamp,
};

/// Who a device is.
pub(super) type Who = usize;
/// Numbers messages; the payload says it.
pub(super) type Body = usize;
/// That of an empty payload.
pub(super) const NOBODY: Body = usize::MAX;

/// How a device connects.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) clean: bool,
    /// Seconds.
    pub(super) expiry: u32,
    pub(super) receive_maximum: u16,
    pub(super) will: Option<WillWish>,
}

#[derive(Clone, Debug)]
pub(super) struct WillWish {
    pub(super) body: Body,
    pub(super) topic: &'static str,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Seconds.
    pub(super) delay: u32,
}

/// A message, as its publisher sends it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) body: Body,
    pub(super) topic: &'static str,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Seconds.
    pub(super) expiry: Option<u32>,
    pub(super) pad: usize,
    /// Empty: it clears the topic's retained value.
    pub(super) clears: bool,
    pub(super) will: bool,
}

/// A packet to the broker.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Connect(Hello),
    Publish { id: u16, message: Message, dup: bool },
    Puback(u16),
    Pubrec(u16),
    Pubrel(u16),
    Pubcomp(u16),
    Subscribe { id: u16, filter: &'static str, qos: QoS },
    Unsubscribe { id: u16, filter: &'static str },
    Disconnect { with_will: bool, ends_session: bool },
}

/// A packet from the broker.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Connack { present: bool, refused: bool },
    Publish { id: u16, body: Body, topic: String, qos: QoS, dup: bool, retain: bool },
    Puback { id: u16, refused: bool },
    Pubrec { id: u16, refused: bool },
    Pubrel(u16),
    Pubcomp(u16),
    Suback(u16),
    Unsuback(u16),
    Disconnect,
}

/// What a device makes of a packet.
pub(super) enum Outcome {
    /// Nothing for its application.
    Nothing,
    /// A message for the application.
    Message { body: Body, qos: QoS, retain: bool, dup: bool },
    /// The broker has broken its word.
    Wrong(String),
}

/// A publish that is not finished.
pub(super) struct Open {
    pub(super) id: u16,
    pub(super) message: Message,
    pub(super) released: bool,
}

pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) version: Version,
    pub(super) wire: Option<Wire>,
    pub(super) open: VecDeque<Open>,
    next_id: u16,
    /// QoS 2 received and not released.
    known: BTreeMap<u16, Body>,
    /// Answers it has not sent yet.
    pub(super) owed: VecDeque<Said>,
    /// Which of its sessions it knows.
    incarnation: u32,
}

/// A network connection.
pub(super) struct Wire {
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
    pub(super) heard: VecDeque<Heard>,
    pub(super) greeted: bool,
    pub(super) closing: bool,
    reading: Reading,
    woken: Arc<Woken>,
    refusal: Vec<Heard>,
    /// Messages that left the broker and whose acknowledgement has not come there.
    pub(super) unanswered: BTreeSet<u16>,
    pub(super) receive_maximum: u16,
    /// When the broker was asked for output last, on its time line.
    pub(super) looked_at: u64,
}

impl Device {
    pub(super) fn new(name: &'static str, version: Version) -> Self {
        let (open, known, owed) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Self { name, version, wire: None, open, next_id: 1, known, owed, incarnation: 0 }
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.greeted && !wire.closing)
    }

    /// Begins a connection: CONNECT is on its way.
    pub(super) fn dial(&mut self, hello: Hello) {
        self.owed.clear();
        let mut wire = Wire {
            handshake: Handshake::default(),
            connection: None,
            version: self.version,
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
            receive_maximum: if self.version == Version::V5 { hello.receive_maximum } else { u16::MAX },
        };
        wire.say(self.name, Said::Connect(hello));
        self.wire = Some(wire);
    }

    pub(super) fn say(&mut self, said: Said) {
        if let Some(wire) = &mut self.wire {
            wire.say(self.name, said);
        }
    }

    /// Publishes something new. Few packet ids, that are soon used again.
    pub(super) fn publish(&mut self, message: Message) {
        let mut id = 0;
        if message.qos != QoS::AtMostOnce {
            while id == 0 || self.open.iter().any(|o| o.id == id) {
                id = self.next_id;
                self.next_id = self.next_id % 12 + 1;
            }
            self.open.push_back(Open { id, message: message.clone(), released: false });
        }
        self.say(Said::Publish { id, message, dup: false });
    }

    /// Takes the next packet that has reached the device.
    pub(super) fn hear(&mut self, incarnation: u32) -> Option<Outcome> {
        let heard = self.wire.as_mut()?.heard.pop_front()?;
        Some(match heard {
            Heard::Connack { present, refused } => {
                self.greeted(present, refused, incarnation);
                Outcome::Nothing
            }
            Heard::Publish { id, body, qos, dup, retain, .. } => self.got(id, body, qos, dup, retain),
            Heard::Puback { id, .. } | Heard::Pubrec { id, refused: true } | Heard::Pubcomp(id) => {
                self.open.retain(|open| open.id != id);
                Outcome::Nothing
            }
            Heard::Pubrec { id, refused: false } => {
                if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
                    open.released = true;
                    self.say(Said::Pubrel(id));
                }
                Outcome::Nothing
            }
            Heard::Pubrel(id) => {
                self.known.remove(&id);
                self.owed.push_back(Said::Pubcomp(id));
                Outcome::Nothing
            }
            Heard::Suback(_) | Heard::Unsuback(_) | Heard::Disconnect => Outcome::Nothing,
        })
    }

    fn greeted(&mut self, present: bool, refused: bool, incarnation: u32) {
        if refused {
            return;
        }
        if let Some(wire) = &mut self.wire {
            wire.greeted = true;
        }
        if !present || self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.open.clear();
            self.known.clear();
        }
        let again = self.open.iter().map(|open| {
            let (id, message) = (open.id, open.message.clone());
            if open.released { Said::Pubrel(id) } else { Said::Publish { id, message, dup: true } }
        });
        for said in again.collect::<Vec<_>>() {
            self.say(said);
        }
    }

    fn got(&mut self, id: u16, body: Body, qos: QoS, dup: bool, retain: bool) -> Outcome {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.owed.push_back(Said::Puback(id)),
            QoS::ExactlyOnce => {
                self.owed.push_back(Said::Pubrec(id));
                match self.known.insert(id, body) {
                    Some(known) if known == body && dup => return Outcome::Nothing,
                    Some(known) => {
                        let name = self.name;
                        return Outcome::Wrong(format!(
                            "{name}: #{id} is {known}, not released, and {body} (dup {dup})"
                        ));
                    }
                    None => {}
                }
            }
        }
        Outcome::Message { body, qos, retain, dup }
    }
}

impl Wire {
    fn say(&mut self, name: &str, said: Said) {
        let before = self.bytes.len();
        encode(name, &said, self.version, &mut self.bytes);
        self.said_bytes += self.bytes.len() - before;
        self.packets.push_back((self.said_bytes, said));
    }

    /// How many bytes are on their way.
    pub(super) fn on_the_way(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// The next `bytes` arrive. Returns the packets that the broker has taken.
    pub(super) fn arrive(&mut self, bytes: usize, broker: &Arc<Broker>, now: Timestamp) -> Vec<Said> {
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
    pub(super) fn leave(&mut self, now: Timestamp) -> Vec<Heard> {
        self.looked_at = now.0;
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut all = Vec::new();
        while let Some(connection) = self.connection.as_mut().filter(|_| !self.closing) {
            if !self.woken.0.swap(false, Ordering::Relaxed) {
                break;
            }
            let mut out = Vec::new();
            self.closing = connection.poll_transmit(&waker, now, &mut out) == Transmit::Closing;
            if !out.is_empty() {
                self.woken.0.store(true, Ordering::Relaxed);
            }
            all.append(&mut out);
        }
        let mut heard = std::mem::take(&mut self.refusal);
        heard.extend(packets(&all, self.version));
        heard
    }

    /// Ends the connection as its driver would.
    pub(super) fn end(mut self, now: Timestamp) {
        if let Some(connection) = self.connection.take() {
            let reason = if self.closing { CloseReason::Closed } else { CloseReason::Lost };
            connection.close(reason, now);
        }
    }
}

fn encode(name: &str, said: &Said, version: Version, bytes: &mut Vec<u8>) {
    let payload;
    let packet = match said {
        Said::Connect(hello) => {
            let will_payload = hello.will.as_ref().map(|will| will.body.to_string());
            return encode_connect(name, hello, will_payload.as_deref(), version, bytes);
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

fn encode_connect(name: &str, hello: &Hello, will: Option<&str>, version: Version, bytes: &mut Vec<u8>) {
    let v5 = version == Version::V5;
    let will = hello.will.as_ref().zip(will).map(|(wish, payload)| Will {
        topic: wish.topic,
        payload: payload.as_bytes(),
        qos: wish.qos,
        retain: wish.retain,
        delay: (v5 && wish.delay > 0).then_some(wish.delay),
        properties: PublishProperties::default(),
    });
    let mut properties = ConnectProperties::default();
    if v5 {
        properties.session_expiry = Some(hello.expiry);
        properties.receive_maximum = std::num::NonZeroU16::new(hello.receive_maximum);
    }
    let connect = Connect {
        version,
        client_id: name,
        clean_start: hello.clean,
        keep_alive: 0,
        will,
        user_name: None,
        password: None,
        properties,
    };
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
            Packet::Suback(s) => Heard::Suback(s.packet_id.get()),
            Packet::Unsuback(s) => Heard::Unsuback(s.packet_id.get()),
            Packet::Disconnect(_) => Heard::Disconnect,
            other => panic!("{other:?} from a server"),
        });
    }
    assert!(rest.is_empty(), "whole packets leave the broker");
    all
}
