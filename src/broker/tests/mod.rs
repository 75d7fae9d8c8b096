//! The broker and its journal in virtual time: clients of bytes, commits by hand, power cuts.
//!
//! A test reads as a transcript. `send` is what a client's socket delivers, `heard` what reached it: as in production
//! a connection is polled only after it was read from, was woken, or wrote something and had more, so a lost wake-up shows.

mod acknowledged;
mod bounds;
mod dead_letters;
mod exactly_once;
mod expiry;
mod full_disk;
mod health;
mod last_answers;
mod order;
mod protocol;
mod queues;
mod rows;
mod shared;
mod simulation;
mod sleepers;
mod wills;

use std::{
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use super::{Broker, CloseReason, Config, Connection, Greeting, Handshake, Peer, Reading, Transmit};
use crate::{
    codec::{
        Ack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, Publish,
        PublishProperties, QoS, ReasonCode, ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions,
        Unsubscribe, Version, Will, decode,
    },
    store::{self, medium::sim::SimDisk},
    time::{Clock, Timestamp, WallClock},
};

/// A broker on a simulated disk.
struct World {
    disk: SimDisk,
    ms: Arc<AtomicU64>,
    config: Config,
    store: store::Config,
    broker: Arc<Broker>,
}

impl World {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self::on(SimDisk::new(), config, store::Config::default())
    }

    fn on(disk: SimDisk, config: Config, store: store::Config) -> Self {
        let ms = Arc::default();
        let broker = open(&disk, &ms, &config, &store);
        Self { disk, ms, config, store, broker }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.ms.load(Ordering::Relaxed))
    }

    /// Lets time pass, and does what is due in the broker; the disk does nothing.
    fn pass(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
        self.broker.handle_timeout(self.now());
    }

    /// The disk does all it has to do now.
    fn settle(&self) {
        while self.broker.step() {}
    }

    /// Pulls the plug, and starts anew from what the disk kept. Connections of before are to be dropped first.
    fn cut(&mut self, seed: u64) {
        self.disk.cut(seed);
        self.broker = open(&self.disk, &self.ms, &self.config, &self.store);
    }

    fn join(&self, connect: &Connect<'_>) -> Client {
        let mut bytes = Vec::new();
        Packet::Connect(Box::new(connect.clone())).encode(connect.version, &mut bytes);
        match self.broker.connect(&mut Handshake::default(), &bytes, &peer(), self.now()) {
            Greeting::Connected { connection, used_bytes } => {
                assert_eq!(used_bytes, bytes.len());
                Client::new(connection, connect.version, Arc::clone(&self.ms))
            }
            _ => panic!("refused"),
        }
    }

    /// What a CONNECT that is refused is answered.
    fn refused(&self, connect: &Connect<'_>) -> Vec<String> {
        let mut bytes = Vec::new();
        Packet::Connect(Box::new(connect.clone())).encode(connect.version, &mut bytes);
        let Greeting::Refused { reply } =
            self.broker.connect(&mut Handshake::default(), &bytes, &peer(), self.now())
        else {
            panic!("not refused")
        };
        lines(&reply, connect.version)
    }

    /// Connects and waits for CONNACK, which it checks.
    fn joined(&self, connect: &Connect<'_>, present: bool) -> Client {
        let mut client = self.join(connect);
        self.settle();
        let mut heard = client.heard();
        assert_eq!(heard.first(), Some(&format!("CONNACK {}", u8::from(present))));
        client.unheard = heard.split_off(1);
        client
    }

    /// A client that subscribes, and waits for the answer.
    fn subscriber(&self, connect: &Connect<'_>, filter: &str, qos: QoS) -> Client {
        let mut client = self.joined(connect, false);
        client.send(&subscribe(filter, qos));
        self.settle();
        assert_eq!(client.heard(), [format!("SUBACK {}", u8::from(qos))]);
        client
    }
}

fn open(disk: &SimDisk, ms: &Arc<AtomicU64>, config: &Config, store: &store::Config) -> Arc<Broker> {
    let medium = Box::new(disk.medium());
    let (broker, from) = Broker::open_on(config.clone(), medium, store.clone(), WallClock::UNKNOWN).unwrap();
    ms.store(from.0, Ordering::Relaxed);
    let ms = Arc::clone(ms);
    let clock: Arc<dyn Clock> = Arc::new(move || (Timestamp(ms.load(Ordering::Relaxed)), WallClock::UNKNOWN));
    broker.set_clock(clock);
    broker
}

fn peer() -> Peer {
    Peer {
        address: crate::broker::Address::Net(([127, 0, 0, 1], 1).into()),
        listener: "test".into(),
        certificate_name: None,
    }
}

/// One client's connection, with the driver's manners.
struct Client {
    connection: Option<Connection>,
    version: Version,
    ms: Arc<AtomicU64>,
    woken: Arc<Woken>,
    reading: Reading,
    closing: bool,
    /// Came with CONNACK, to who waited for that alone.
    unheard: Vec<String>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Client {
    fn new(connection: Connection, version: Version, ms: Arc<AtomicU64>) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Self {
            connection: Some(connection),
            version,
            ms,
            woken,
            reading: Reading::Continue,
            closing: false,
            unheard: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.ms.load(Ordering::Relaxed))
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_bytes(&bytes);
    }

    /// Returns how many bytes were taken.
    fn send_bytes(&mut self, bytes: &[u8]) -> usize {
        let now = self.now();
        let (used, reading) = self.connection.as_mut().unwrap().receive(bytes, now);
        self.reading = reading;
        self.woken.0.store(true, Ordering::Relaxed);
        used
    }

    /// The bytes that reach the client, if its connection has a reason to be looked at.
    fn heard_bytes(&mut self) -> Vec<u8> {
        let (now, mut all) = (self.now(), Vec::new());
        let waker = Waker::from(Arc::clone(&self.woken));
        while !self.closing && self.woken.0.swap(false, Ordering::Relaxed) {
            let mut out = Vec::new();
            let transmit = self.connection.as_mut().unwrap().poll_transmit(&waker, now, &mut out);
            self.closing = transmit == Transmit::Closing;
            if transmit == Transmit::More && !out.is_empty() {
                self.woken.0.store(true, Ordering::Relaxed);
            }
            all.append(&mut out);
        }
        all
    }

    /// What reached the client, a line a packet.
    fn heard(&mut self) -> Vec<String> {
        let bytes = self.heard_bytes();
        let mut heard = std::mem::take(&mut self.unheard);
        heard.extend(lines(&bytes, self.version));
        heard
    }

    fn lose(mut self) {
        let now = self.now();
        self.connection.take().unwrap().close(CloseReason::Lost, now);
    }

    /// Sends DISCONNECT and closes, as the driver would when the last answers take too long.
    fn leave(mut self, reason: ReasonCode, session_expiry: Option<u32>) {
        let properties = DisconnectProperties { session_expiry, ..DisconnectProperties::default() };
        self.send(&Packet::Disconnect(Disconnect { reason, properties }));
        self.heard();
        let now = self.now();
        self.connection.take().unwrap().close(CloseReason::Closed, now);
    }
}

fn lines(bytes: &[u8], version: Version) -> Vec<String> {
    let (mut rest, mut lines) = (bytes, Vec::new());
    while let Some((packet, used)) = decode(rest, version, 1 << 28).unwrap() {
        lines.push(line(&packet));
        rest = &rest[used..];
    }
    assert!(rest.is_empty(), "whole packets");
    lines
}

fn line(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connack(c) if c.reason.is_error() => format!("CONNACK 0 {:x}", u8::from(c.reason)),
        Packet::Connack(c) => format!("CONNACK {}", u8::from(c.session_present)),
        Packet::Publish(p) => {
            let dup = if p.dup { "!" } else { "" };
            let id = p.packet_id.map(|id| format!(" #{}", id.get())).unwrap_or_default();
            let retain = if p.retain { " retained" } else { "" };
            let payload = std::str::from_utf8(p.payload).unwrap();
            format!("PUBLISH{dup} q{}{id} {}={payload}{retain}", u8::from(p.qos), p.topic)
        }
        Packet::Puback(a) => acknowledged("PUBACK", a),
        Packet::Pubrec(a) => acknowledged("PUBREC", a),
        Packet::Pubrel(a) => acknowledged("PUBREL", a),
        Packet::Pubcomp(a) => acknowledged("PUBCOMP", a),
        Packet::Suback(s) => {
            let reasons: Vec<String> = s.reasons.iter().map(|r| format!("{:x}", u8::from(*r))).collect();
            format!("SUBACK {}", reasons.join(" "))
        }
        Packet::Unsuback(_) => "UNSUBACK".to_owned(),
        Packet::Pingresp => "PINGRESP".to_owned(),
        Packet::Disconnect(d) => format!("DISCONNECT {:x}", u8::from(d.reason)),
        other => format!("{other:?}"),
    }
}

fn acknowledged(name: &str, ack: &Ack<'_>) -> String {
    let reason = u8::from(ack.reason);
    // 0x10, no matching subscribers, is a success too.
    if reason < 0x80 {
        format!("{name} {}", ack.packet_id.get())
    } else {
        format!("{name} {} {reason:x}", ack.packet_id.get())
    }
}

/// A v5 CONNECT of a client whose session stays for an hour.
fn connect(client_id: &str) -> Connect<'_> {
    let properties = ConnectProperties { session_expiry: Some(3_600), ..ConnectProperties::default() };
    Connect { properties, ..Connect::new(Version::V5, client_id) }
}

/// A v5 CONNECT of a client whose session ends with the connection.
fn transient(client_id: &str) -> Connect<'_> {
    Connect { clean_start: true, properties: ConnectProperties::default(), ..connect(client_id) }
}

/// A 3.1.1 CONNECT of a client whose session stays.
fn v311(client_id: &str) -> Connect<'_> {
    Connect::new(Version::V311, client_id)
}

/// With a will that says "w" when the connection is lost.
fn willing<'a>(connect: Connect<'a>, topic: &'a str, qos: QoS, retain: bool) -> Connect<'a> {
    let properties = PublishProperties::default();
    let will = Will { qos, retain, topic, payload: b"w", properties, delay: None };
    Connect { will: Some(will), ..connect }
}

fn receiving(mut connect: Connect<'_>, receive_maximum: u16) -> Connect<'_> {
    connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
    connect
}

fn publish<'a>(qos: QoS, packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    let packet_id = (qos != QoS::AtMostOnce).then(|| id(packet_id));
    let properties = PublishProperties::default();
    Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload: payload.as_bytes() }
}

fn retained<'a>(qos: QoS, packet_id: u16, topic: &'a str, payload: &'a str) -> Packet<'a> {
    Packet::Publish(Publish { retain: true, ..publish(qos, packet_id, topic, payload) })
}

fn qos0<'a>(topic: &'a str, payload: &'a str) -> Packet<'a> {
    Packet::Publish(publish(QoS::AtMostOnce, 0, topic, payload))
}

fn qos1<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Packet<'a> {
    Packet::Publish(publish(QoS::AtLeastOnce, packet_id, topic, payload))
}

fn qos2<'a>(packet_id: u16, topic: &'a str, payload: &'a str) -> Packet<'a> {
    Packet::Publish(publish(QoS::ExactlyOnce, packet_id, topic, payload))
}

fn subscribe(filter: &str, qos: QoS) -> Packet<'_> {
    let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
    let filters = vec![SubscribeFilter { filter, options }];
    Packet::Subscribe(Subscribe { packet_id: id(1), subscription_id: None, user: Vec::new(), filters })
}

fn unsubscribe(filter: &str) -> Packet<'_> {
    Packet::Unsubscribe(Unsubscribe { packet_id: id(2), user: Vec::new(), filters: vec![filter] })
}

fn puback(packet_id: u16) -> Packet<'static> {
    Packet::Puback(ack(packet_id))
}

fn pubrec(packet_id: u16) -> Packet<'static> {
    Packet::Pubrec(ack(packet_id))
}

fn pubrel(packet_id: u16) -> Packet<'static> {
    Packet::Pubrel(ack(packet_id))
}

fn pubcomp(packet_id: u16) -> Packet<'static> {
    Packet::Pubcomp(ack(packet_id))
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack { packet_id: id(packet_id), reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}
