//! A broker in virtual time on a simulated disk, with clients of bytes: everything below the sockets, on one thread.

use std::{sync::Arc, task::Waker};

use dormouse::{
    broker::{Address, Broker, Config, Connection, Greeting, Handshake, Peer},
    codec::{
        Ack, Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, Subscribe,
        SubscribeFilter, SubscribeOptions, UserProperties, Version, decode,
    },
    store::{self, medium::sim::SimDisk},
    time::{Clock, Timestamp, WallClock},
};

const NOW: Timestamp = Timestamp(1_000);
/// A client that has not yet drained what it was sent is not what is measured.
const OUT_BYTES: usize = 1 << 20;

/// A broker.
pub(crate) struct Scene {
    broker: Arc<Broker>,
}

/// A connection of a client.
pub(crate) struct Client {
    connection: Connection,
    out: Vec<u8>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let medium = Box::new(SimDisk::new().medium());
        let opened = Broker::open_on(Config::default(), medium, store::Config::default(), WallClock::UNKNOWN);
        let (broker, _) = opened.expect("an empty disk is opened");
        let clock: Arc<dyn Clock> = Arc::new(|| (NOW, WallClock::UNKNOWN));
        broker.set_clock(clock);
        Self { broker }
    }

    /// Connects, and takes the CONNACK. `expiry` is the session's, in seconds.
    pub(crate) fn connect(&self, client_id: &str, expiry: Option<u32>) -> Client {
        let mut client = self.open(client_id, expiry);
        self.settle();
        client.drain();
        client
    }

    /// Connects, and leaves what is sent to the client.
    pub(crate) fn open(&self, client_id: &str, expiry: Option<u32>) -> Client {
        let properties = ConnectProperties { session_expiry: expiry, ..ConnectProperties::default() };
        let packet = Packet::from(Connect { properties, ..Connect::new(Version::V5, client_id) });
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        let peer = Peer {
            address: Address::Net(([127, 0, 0, 1], 1).into()),
            listener: "bench".into(),
            certificate_name: None,
        };
        let greeting = self.broker.connect(&mut Handshake::default(), &bytes, &peer, NOW);
        let Greeting::Connected { connection, .. } = greeting else { panic!("{client_id} is not let in") };
        Client { connection, out: Vec::with_capacity(OUT_BYTES) }
    }

    /// Subscribes a client.
    pub(crate) fn subscribe(&self, client: &mut Client, filter: &str, qos: QoS) {
        let mut bytes = Vec::new();
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        let packet = Packet::from(Subscribe {
            packet_id: id(1),
            subscription_id: None,
            user: UserProperties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        });
        packet.encode(Version::V5, &mut bytes);
        client.receive(&bytes);
        self.settle();
        client.drain();
    }

    /// Lets the disk do all its work.
    pub(crate) fn settle(&self) {
        while self.broker.step() {}
    }
}

impl Client {
    /// What its socket delivers.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let (used, _) = self.connection.receive(bytes, NOW);
        assert_eq!(used, bytes.len(), "the broker takes all of it");
    }

    /// What is sent to it.
    pub(crate) fn drain(&mut self) -> &[u8] {
        self.out.clear();
        self.connection.poll_transmit(Waker::noop(), NOW, &mut self.out);
        &self.out
    }

    /// Its connection is lost.
    pub(crate) fn sleep(self) {
        self.connection.close(dormouse::broker::CloseReason::Lost, NOW);
    }
}

/// The answers that a device gives to what it was sent.
pub(crate) fn answers(sent: &[u8]) -> Vec<u8> {
    let (mut rest, mut bytes) = (sent, Vec::new());
    while let Ok(Some((packet, used))) = decode(rest, Version::V5, u32::MAX) {
        let answer = match &packet {
            Packet::Publish(p) => match (p.packet_id, p.qos) {
                (Some(id), QoS::AtLeastOnce) => Some(Packet::Puback(Ack::success(id))),
                (Some(id), _) => Some(Packet::Pubrec(Ack::success(id))),
                (None, _) => None,
            },
            Packet::Pubrec(ack) => Some(Packet::Pubrel(Ack::success(ack.packet_id))),
            Packet::Pubrel(ack) => Some(Packet::Pubcomp(Ack::success(ack.packet_id))),
            _ => None,
        };
        if let Some(answer) = answer {
            answer.encode(Version::V5, &mut bytes);
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    bytes
}

/// So many messages, as they come in one read.
pub(crate) fn publishes(topic: &str, qos: QoS, messages: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 1..=messages {
        put_publish(&mut bytes, topic, qos, number);
    }
    bytes
}

/// One message more in a read.
pub(crate) fn put_publish(bytes: &mut Vec<u8>, topic: &str, qos: QoS, number: u16) {
    let packet = Packet::from(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos > QoS::AtMostOnce).then(|| id(number)),
        properties: PublishProperties::default(),
        payload: &[b'.'; 64],
    });
    packet.encode(Version::V5, bytes);
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("above 0")
}
