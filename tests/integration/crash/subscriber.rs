//! A subscriber that judges exactly-once: it keeps the packet ids it has received and not seen released across
//! connections, as the standard asks of a receiver, and a ledger beside them.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dormouse::codec::{
    Ack, Disconnect, DisconnectProperties, Packet, PacketId, Publish, QoS, ReasonCode, ReasonProperties,
    RetainHandling, Subscribe, SubscribeFilter, SubscribeOptions, Version,
};

use super::{
    client,
    ledger::{Event, Ledger},
    wire::Wire,
};

pub(crate) struct Subscriber {
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) qos: QoS,
    pub(crate) filter: &'static str,
    /// Messages after which it goes to sleep for a moment; 0: it stays.
    pub(crate) nap_every: usize,
    pub(crate) address: Arc<Mutex<SocketAddr>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// What outlives a connection.
struct Memory {
    unreleased: HashSet<PacketId>,
    since_nap: usize,
}

impl Subscriber {
    /// Runs until told to stop; goes on from where the ledger has it.
    pub(crate) fn run(self) {
        let mut memory = Memory { unreleased: self.ledger.unreleased(self.name), since_nap: 0 };
        while !self.stop.load(Ordering::Relaxed) {
            // A broken connection is what this test is about.
            let _ = self.session(&mut memory);
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn session(&self, memory: &mut Memory) -> io::Result<()> {
        let address = *self.address.lock().unwrap();
        let mut wire = Wire::connect(address, self.version)?;
        client::connect(&mut wire, self.name, self.version, &self.ledger)?;
        if !self.ledger.is_subscribed(self.name) {
            wire.send(&[self.subscribe()])?;
        }
        while !self.stop.load(Ordering::Relaxed) {
            let mut answers = Vec::new();
            wire.receive(|packet| {
                answers.extend(self.handle(&packet, memory));
                ControlFlow::Continue(())
            })?;
            wire.send(&answers)?;
            if self.nap_every > 0 && memory.since_nap >= self.nap_every {
                memory.since_nap = 0;
                let goodbye =
                    Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
                wire.send(&[Packet::Disconnect(goodbye)])?;
                std::thread::park_timeout(Duration::from_millis(60));
                return Ok(());
            }
        }
        Ok(())
    }

    fn subscribe(&self) -> Packet<'static> {
        let options = SubscribeOptions {
            qos: self.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user: Vec::new(),
            filters: vec![SubscribeFilter { filter: self.filter, options }],
        })
    }

    fn handle(&self, packet: &Packet<'_>, memory: &mut Memory) -> Option<Packet<'static>> {
        let ack = |packet_id| Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: ReasonProperties::default(),
        };
        match packet {
            Packet::Suback(_) => {
                self.ledger.enter(Event::Subscribed { client: self.name.to_owned() });
                None
            }
            Packet::Publish(publish) => {
                let id = publish.packet_id.expect("QoS 1 or 2");
                if publish.qos == QoS::AtLeastOnce {
                    self.deliver(publish, None, memory);
                    return Some(Packet::Puback(ack(id)));
                }
                if memory.unreleased.insert(id) {
                    self.deliver(publish, Some(id), memory);
                } else if !publish.dup {
                    self.ledger.broken(format!(
                        "{}: packet id {} used again without DUP",
                        self.name,
                        id.get()
                    ));
                }
                Some(Packet::Pubrec(ack(id)))
            }
            Packet::Pubrel(rel) => {
                memory.unreleased.remove(&rel.packet_id);
                self.ledger.enter(Event::Released { subscriber: self.name.to_owned(), id: rel.packet_id });
                Some(Packet::Pubcomp(ack(rel.packet_id)))
            }
            other => panic!("{}: did not expect {other:?}", self.name),
        }
    }

    fn deliver(&self, publish: &Publish<'_>, id: Option<PacketId>, memory: &mut Memory) {
        let text = std::str::from_utf8(publish.payload).unwrap();
        let mut words = text.split(' ');
        let (publisher, number) = (words.next().unwrap(), words.next().unwrap());
        let name = (publisher.to_owned(), number.parse().unwrap());
        self.ledger.enter(Event::Delivered { subscriber: self.name.to_owned(), name, id });
        memory.since_nap += 1;
    }
}
