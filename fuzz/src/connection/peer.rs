//! A client's end of one connection: it drives the broker's end as the network would, and checks all it is sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use dormouse::{
    broker::{CloseReason, Connection, Greeting, Handshake, Reading, Transmit},
    codec::{Ack, Packet, PacketId, Publish, QoS, SubscribeOptions, Version, decode},
    topic::TopicName,
};

use super::{
    ledger::{Claim, Ledger},
    packets::ack,
    world::World,
};

/// Answers that one commit may set free, in bytes.
const ANSWERS_BYTES_MAX: usize = 256 << 10;

/// A message the broker has sent on this connection, and how far it is.
struct Open {
    qos: QoS,
    body: Option<u32>,
    is_released: bool,
}

/// What an answer is awaited for.
enum Asked {
    Publish(Option<Claim>),
    Release,
    Subscribe(Vec<(String, SubscribeOptions)>, u64),
    Unsubscribe(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Puback,
    Pubrec,
    Pubcomp,
    Suback,
    Unsuback,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How far the connection is, by what it has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    /// CONNACK came.
    Greeted,
    /// A refusing CONNACK, or DISCONNECT: nothing may follow.
    ToldToGo,
}

pub struct Peer {
    pub version: Version,
    /// Something was sent: it need not begin with CONNECT any more.
    pub has_said_hello: bool,
    /// Whether it takes what it is sent.
    pub is_reading: bool,
    handshake: Handshake,
    connection: Option<Connection>,
    client_id: String,
    /// Numbers the connections, for the ledger.
    number: u64,
    receive_maximum: usize,
    packet_bytes_max: usize,
    alias_max: u16,
    /// Sent, and not yet taken by the broker.
    input: Vec<u8>,
    woken: Arc<Woken>,
    reading: Reading,
    stage: Stage,
    open: BTreeMap<u16, Open>,
    /// Acknowledgements it has to send, in order.
    due: Vec<Packet<'static>>,
    releases: BTreeSet<PacketId>,
    aliases: HashMap<u16, String>,
    asked: HashMap<Kind, VecDeque<(u16, Asked)>>,
    pings: usize,
}

impl Peer {
    pub fn new() -> Self {
        Self {
            version: Version::V5,
            has_said_hello: false,
            is_reading: true,
            handshake: Handshake::default(),
            connection: None,
            client_id: String::new(),
            number: 0,
            receive_maximum: usize::MAX,
            packet_bytes_max: usize::MAX,
            alias_max: 0,
            input: Vec::new(),
            woken: Arc::new(Woken(AtomicBool::new(true))),
            reading: Reading::Continue,
            stage: Stage::New,
            open: BTreeMap::new(),
            due: Vec::new(),
            releases: BTreeSet::new(),
            aliases: HashMap::new(),
            asked: HashMap::new(),
            pings: 0,
        }
    }

    /// What has to be acknowledged.
    pub fn due(&self) -> &[Packet<'static>] {
        &self.due
    }

    /// What has to be released.
    pub fn releases(&self) -> &BTreeSet<PacketId> {
        &self.releases
    }

    /// Puts bytes on the connection; false when it was refused.
    pub fn send(&mut self, bytes: &[u8], world: &World, ledger: &mut Ledger) -> bool {
        self.has_said_hello |= !bytes.is_empty();
        self.input.extend_from_slice(bytes);
        if self.connection.is_none() && !self.input.is_empty() && !self.connect(world, ledger) {
            return false;
        }
        self.hand_over(world, ledger);
        true
    }

    fn connect(&mut self, world: &World, ledger: &mut Ledger) -> bool {
        match world.broker.connect(&mut self.handshake, &self.input, &peer(), world.now()) {
            Greeting::Incomplete => {
                assert!(self.input.len() <= world.config.packet_bytes_max as usize + 5, "unbounded");
                true
            }
            Greeting::Challenged { .. } => panic!("this broker has no authentication methods"),
            Greeting::Refused { reply } => {
                // Its version may be one that cannot be told.
                let version = dormouse::codec::connect_version(&self.input).unwrap_or(Version::V311);
                let answer = decode(&reply, version, u32::MAX).unwrap();
                assert!(
                    reply.is_empty()
                        || matches!(answer, Some((Packet::Connack(c), _)) if c.reason.is_error())
                );
                false
            }
            Greeting::Connected { connection, used_bytes } => {
                let packet = decode(&self.input, Version::V5, world.config.packet_bytes_max);
                let Ok(Some((Packet::Connect(packet), used))) = packet else { panic!("{packet:?}") };
                assert_eq!(used, used_bytes);
                self.version = packet.version;
                connection.client_id().clone_into(&mut self.client_id);
                let p = &packet.properties;
                self.receive_maximum = p.receive_maximum.map_or(usize::MAX, |n| usize::from(n.get()));
                self.packet_bytes_max = p.packet_bytes_max.map_or(usize::MAX, |n| n as usize);
                self.alias_max = p.topic_alias_maximum.unwrap_or(0);
                self.number = ledger.connected(&self.client_id, &packet);
                self.connection = Some(connection);
                self.input.drain(..used_bytes);
                true
            }
        }
    }

    /// The broker takes what it will.
    fn hand_over(&mut self, world: &World, ledger: &mut Ledger) {
        let Some(connection) = &mut self.connection else { return };
        let (used, reading) = connection.receive(&self.input, world.now());
        self.reading = reading;
        self.woken.0.store(true, Ordering::Relaxed);
        let taken: Vec<u8> = self.input.drain(..used).collect();
        let mut rest = &taken[..];
        while let Ok(Some((packet, used))) = decode(rest, self.version, u32::MAX) {
            self.sent(&packet, ledger);
            rest = &rest[used..];
        }
        match reading {
            Reading::Continue => {
                assert!(
                    self.input.len() < world.config.packet_bytes_max as usize,
                    "more than a packet waits"
                );
            }
            Reading::Pause => {}
            Reading::Stop => self.input.clear(),
        }
    }

    /// The broker has taken this packet.
    fn sent(&mut self, packet: &Packet<'_>, ledger: &mut Ledger) {
        match packet {
            Packet::Publish(p) => {
                let claim = ledger.published(&self.client_id, p);
                if let Some(id) = p.packet_id {
                    let kind = if p.qos == QoS::ExactlyOnce { Kind::Pubrec } else { Kind::Puback };
                    self.ask(kind, id.get(), Asked::Publish(claim));
                }
            }
            Packet::Puback(a) => self.acknowledged(packet, a, QoS::AtLeastOnce, ledger),
            Packet::Pubrec(a) => self.acknowledged(packet, a, QoS::ExactlyOnce, ledger),
            Packet::Pubcomp(a) => {
                self.due.retain(|due| !same(due, packet));
                match self.open.get(&a.packet_id.get()) {
                    Some(open) if open.is_released => drop(self.open.remove(&a.packet_id.get())),
                    _ => self.acknowledged_blindly(ledger),
                }
            }
            Packet::Pubrel(a) => self.ask(Kind::Pubcomp, a.packet_id.get(), Asked::Release),
            Packet::Subscribe(s) => {
                let filters: Vec<_> = s.filters.iter().map(|f| (f.filter.to_owned(), f.options)).collect();
                let number = ledger.subscribing(&self.client_id, filters.iter().map(|(f, _)| &**f));
                self.ask(Kind::Suback, s.packet_id.get(), Asked::Subscribe(filters, number));
            }
            Packet::Unsubscribe(u) => {
                ledger.subscribing(&self.client_id, u.filters.iter().copied());
                self.ask(Kind::Unsuback, u.packet_id.get(), Asked::Unsubscribe(u.filters.len()));
            }
            Packet::Pingreq => self.pings += 1,
            Packet::Disconnect(d) if d.properties.session_expiry.is_some() => ledger.taint(&self.client_id),
            _ => {}
        }
    }

    /// PUBACK or PUBREC was sent.
    fn acknowledged(&mut self, packet: &Packet<'_>, ack: &Ack<'_>, qos: QoS, ledger: &mut Ledger) {
        let id = ack.packet_id.get();
        self.due.retain(|due| !same(due, packet));
        match self.open.get(&id) {
            Some(open) if open.qos == qos => {
                if qos == QoS::AtLeastOnce || ack.reason.is_error() {
                    self.open.remove(&id);
                }
            }
            _ => self.acknowledged_blindly(ledger),
        }
    }

    /// It may have been sent to it, and not have reached it: then the broker counts it as confirmed, and sends another.
    fn acknowledged_blindly(&mut self, ledger: &mut Ledger) {
        ledger.taint(&self.client_id);
        self.receive_maximum = usize::MAX;
    }

    fn ask(&mut self, kind: Kind, id: u16, asked: Asked) {
        self.asked.entry(kind).or_default().push_back((id, asked));
    }

    /// Takes what there is; false when the broker has closed.
    pub fn listen(&mut self, world: &World, ledger: &mut Ledger) -> bool {
        let waker = Waker::from(Arc::clone(&self.woken));
        while self.woken.0.swap(false, Ordering::Relaxed) {
            let Some(connection) = &mut self.connection else { return true };
            let mut out = Vec::new();
            let transmit = connection.poll_transmit(&waker, world.now(), &mut out);
            let bound = 2 * world.config.out_bytes_max + world.config.packet_bytes_max as usize;
            assert!(out.len() <= bound + ANSWERS_BYTES_MAX, "{} bytes waited for one client", out.len());
            self.hear_all(&out, ledger);
            if transmit == Transmit::Closing {
                return false;
            }
            // As in production, a connection that has written, and may have more, is looked at again.
            if transmit == Transmit::More && !out.is_empty() {
                self.woken.0.store(true, Ordering::Relaxed);
            }
            if self.reading == Reading::Pause && self.connection.as_ref().is_some_and(Connection::may_read) {
                self.hand_over(world, ledger);
            }
        }
        true
    }

    fn hear_all(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let mut rest = bytes;
        while let Some((packet, used)) =
            decode(rest, self.version, u32::MAX).expect("the broker's packets decode")
        {
            assert!(self.stage != Stage::ToldToGo, "{packet:?} after DISCONNECT");
            self.hear(&packet, used, ledger);
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "the broker writes whole packets");
    }

    fn hear(&mut self, packet: &Packet<'_>, bytes: usize, ledger: &mut Ledger) {
        // [MQTT-3.2.0-1], [MQTT-3.2.0-2]
        assert_eq!(matches!(packet, Packet::Connack(_)), self.stage == Stage::New, "{packet:?}");
        match packet {
            Packet::Connack(c) => {
                self.stage = if c.reason.is_error() { Stage::ToldToGo } else { Stage::Greeted };
                // 3.1 has no word for whether the session was there.
                if !c.reason.is_error() && self.version != Version::V31 {
                    ledger.greeted(&self.client_id, self.number, c.session_present);
                }
            }
            Packet::Publish(p) => self.hear_publish(p, bytes, ledger),
            Packet::Puback(a) => self.answered(Kind::Puback, a, ledger),
            Packet::Pubrec(a) => {
                self.answered(Kind::Pubrec, a, ledger);
                if !a.reason.is_error() {
                    self.releases.insert(a.packet_id);
                }
            }
            Packet::Pubcomp(a) => {
                self.answered(Kind::Pubcomp, a, ledger);
                self.releases.remove(&a.packet_id);
            }
            Packet::Pubrel(a) => {
                if let Some(open) = self.open.get_mut(&a.packet_id.get()) {
                    open.is_released = true;
                    ledger.released(&self.client_id, open.body);
                }
                self.due.push(Packet::Pubcomp(ack(a.packet_id)));
            }
            Packet::Suback(s) => {
                let Asked::Subscribe(filters, number) = self.take(Kind::Suback, s.packet_id.get()) else {
                    panic!("{s:?}")
                };
                assert_eq!(s.reasons.len(), filters.len(), "{s:?}");
                ledger.granted(&self.client_id, &filters, &s.reasons, number);
            }
            Packet::Unsuback(s) => {
                let Asked::Unsubscribe(filters) = self.take(Kind::Unsuback, s.packet_id.get()) else {
                    panic!("{s:?}")
                };
                assert_eq!(s.reasons.len(), if self.version.is_v5() { filters } else { 0 }, "{s:?}");
            }
            Packet::Pingresp => self.pings = self.pings.checked_sub(1).expect("a PINGRESP to no PINGREQ"),
            Packet::Disconnect(_) => {
                assert!(self.version.is_v5(), "only v5 is told");
                self.stage = Stage::ToldToGo;
            }
            other => panic!("no packet of a server's: {other:?}"),
        }
    }

    fn hear_publish(&mut self, p: &Publish<'_>, bytes: usize, ledger: &mut Ledger) {
        // [MQTT-3.1.2-24]
        assert!(
            bytes <= self.packet_bytes_max,
            "{bytes} bytes for a client that takes {}",
            self.packet_bytes_max
        );
        let topic = match p.properties.topic_alias {
            Some(alias) => {
                // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
                assert!(alias.get() <= self.alias_max, "{alias} above {}", self.alias_max);
                if !p.topic.is_empty() {
                    self.aliases.insert(alias.get(), p.topic.to_owned());
                }
                self.aliases.get(&alias.get()).expect("an alias that was set").clone()
            }
            None => p.topic.to_owned(),
        };
        let topic = TopicName::parse(&topic).expect("a topic name");
        let body = ledger.heard(&self.client_id, &topic, p);
        let Some(id) = p.packet_id else { return };
        // [MQTT-4.4.0-1]: on one connection nothing is sent twice.
        let open = Open { qos: p.qos, body, is_released: false };
        assert!(self.open.insert(id.get(), open).is_none(), "{id:?} is in flight already");
        // [MQTT-3.3.4-9]
        assert!(self.open.len() <= self.receive_maximum, "above the receive maximum");
        let due = if p.qos == QoS::ExactlyOnce { Packet::Pubrec(ack(id)) } else { Packet::Puback(ack(id)) };
        self.due.push(due);
    }

    fn answered(&mut self, kind: Kind, ack: &Ack<'_>, ledger: &mut Ledger) {
        match self.take(kind, ack.packet_id.get()) {
            Asked::Publish(claim) if !ack.reason.is_error() => ledger.acknowledged(claim),
            Asked::Release => ledger.completed(&self.client_id, self.number, ack.packet_id),
            _ => {}
        }
    }

    /// Answers of a kind come in the order of what they answer [MQTT-4.6.0-2], [MQTT-4.6.0-3].
    fn take(&mut self, kind: Kind, id: u16) -> Asked {
        let next = self.asked.entry(kind).or_default().pop_front();
        let (asked, about) = next.unwrap_or_else(|| panic!("{kind:?} {id} answers nothing"));
        assert_eq!(asked, id, "{kind:?} out of order");
        about
    }

    /// After a while without trouble nobody waits for an answer.
    pub fn owes_nothing_but_input(&self, world: &World) {
        let Some(connection) = &self.connection else { return };
        assert!(self.stage != Stage::New, "no CONNACK for {}", self.client_id);
        if self.stage == Stage::ToldToGo || self.reading != Reading::Continue {
            return;
        }
        let waiting: Vec<_> =
            self.asked.iter().filter(|(_, asked)| !asked.is_empty()).map(|(k, _)| k).collect();
        assert!(waiting.is_empty() && self.pings == 0, "no {waiting:?} at {:?}", world.now());
        assert!(connection.may_read());
    }

    pub fn close(mut self, reason: CloseReason, world: &World) {
        if let Some(connection) = self.connection.take() {
            let last = connection.close(reason, world.now());
            assert!(last.is_empty() || decode(&last, self.version, u32::MAX).is_ok());
        }
    }
}

/// Whether both acknowledge the same in the same way.
fn same(a: &Packet<'_>, b: &Packet<'_>) -> bool {
    match (a, b) {
        (Packet::Puback(a), Packet::Puback(b))
        | (Packet::Pubrec(a), Packet::Pubrec(b))
        | (Packet::Pubcomp(a), Packet::Pubcomp(b)) => a.packet_id == b.packet_id,
        _ => false,
    }
}

fn peer() -> dormouse::broker::Peer {
    dormouse::broker::Peer {
        address: dormouse::broker::Address::Net(([127, 0, 0, 1], 1).into()),
        listener: "fuzz".into(),
        certificate_name: None,
    }
}
