//! A simulated device: what it says and hears, and a connection that may lose both.
//!
//! Bytes to the broker come in pieces cut anywhere. What the broker has sent is judged when it leaves the broker, and
//! heard by the device later or never. The device keeps what it must of a session, and sends again what it must.

mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) use self::wire::Wire;
use crate::codec::{QoS, Version};

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
    Suback { id: u16, refused: bool },
    Unsuback(u16),
    Disconnect,
}

/// What a device makes of a packet.
pub(super) enum Outcome {
    /// Nothing for its application.
    Nothing,
    /// A message for the application.
    Message { body: Body, topic: String, qos: QoS, retain: bool, dup: bool },
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
    /// Packet ids of what it has given up, not knowing whether its session is the one that has them.
    burnt: BTreeSet<u16>,
    /// QoS 2 received and not released.
    known: BTreeMap<u16, Body>,
    /// Answers it has not sent yet.
    pub(super) owed: VecDeque<Said>,
    /// It takes the lowest packet id that is free, else the next one.
    pub(super) reuses_ids: bool,
    /// It takes no larger packets.
    pub(super) packet_bytes_max: Option<u32>,
    /// Which of its sessions it knows.
    incarnation: u32,
}

impl Message {
    /// Larger than some take.
    pub(super) fn is_large(&self) -> bool {
        self.pad > 0
    }
}

impl Device {
    pub(super) fn new(name: &'static str, version: Version) -> Self {
        let (open, known, owed) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Self {
            name,
            version,
            wire: None,
            open,
            next_id: 1,
            burnt: BTreeSet::new(),
            known,
            owed,
            reuses_ids: false,
            packet_bytes_max: None,
            incarnation: 0,
        }
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.greeted && !wire.closing)
    }

    /// Begins a connection: CONNECT is on its way.
    pub(super) fn dial(&mut self, hello: Hello) {
        self.owed.clear();
        let is_v5 = self.version == Version::V5;
        let receive_maximum = if is_v5 { hello.receive_maximum } else { u16::MAX };
        let mut wire = Wire::new(self.version, receive_maximum);
        wire.packet_bytes_max = self.packet_bytes_max.filter(|_| is_v5);
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
            self.next_id = if self.reuses_ids { 1 } else { self.next_id };
            let ids = 12 + u16::try_from(self.burnt.len()).unwrap();
            while id == 0 || self.burnt.contains(&id) || self.open.iter().any(|o| o.id == id) {
                id = self.next_id;
                self.next_id = self.next_id % ids + 1;
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
            Heard::Publish { id, body, topic, qos, dup, retain } => {
                self.got(id, qos, (body, topic), dup, retain)
            }
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
            Heard::Suback { .. } | Heard::Unsuback(_) | Heard::Disconnect => Outcome::Nothing,
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
            let given_up = self.open.drain(..).map(|open| open.id);
            if present {
                self.burnt.extend(given_up);
            } else {
                drop(given_up);
                self.burnt.clear();
            }
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

    /// The broker has closed the connection, and has no word for why: it may have refused any of these.
    pub(super) fn give_up(&mut self) {
        self.burnt.extend(self.open.drain(..).map(|open| open.id));
    }

    fn got(&mut self, id: u16, qos: QoS, (body, topic): (Body, String), dup: bool, retain: bool) -> Outcome {
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
        Outcome::Message { body, topic, qos, retain, dup }
    }
}
