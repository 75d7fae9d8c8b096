//! A publisher and a subscriber that do exactly what the standard asks of them, and remember all they must.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    broker::tests::{Client, ack, publish},
    codec::{Packet, Publish, QoS, Version, decode},
};

/// A packet on its way, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Connect,
    Connack { present: bool },
    Publish { qos: QoS, id: u16, dup: bool, body: String },
    Puback(u16),
    Pubrec(u16),
    Pubrel(u16),
    Pubcomp(u16),
    Disconnect(u8),
}

impl Wire {
    /// Puts it on a connection.
    pub(super) fn send_on(&self, client: &mut Client) {
        let packet = match self {
            Self::Publish { qos, id, dup, body } => {
                Packet::Publish(Publish { dup: *dup, ..publish(*qos, *id, "t", body) })
            }
            Self::Puback(id) => Packet::Puback(ack(*id)),
            Self::Pubrec(id) => Packet::Pubrec(ack(*id)),
            Self::Pubrel(id) => Packet::Pubrel(ack(*id)),
            Self::Pubcomp(id) => Packet::Pubcomp(ack(*id)),
            Self::Connect | Self::Connack { .. } | Self::Disconnect(_) => {
                unreachable!("not sent on a connection")
            }
        };
        client.send(&packet);
    }

    /// What a broker has written: whole packets, which a client may be sent.
    pub(super) fn read(bytes: &[u8], version: Version) -> Vec<Self> {
        let (mut rest, mut all) = (bytes, Vec::new());
        while let Some((packet, used)) = decode(rest, version, 1 << 28).unwrap() {
            all.push(Self::from(&packet));
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "whole packets");
        all
    }
}

impl From<&Packet<'_>> for Wire {
    fn from(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::Connack(c) => {
                assert!(!c.reason.is_error(), "{c:?}");
                Self::Connack { present: c.session_present }
            }
            Packet::Publish(p) => Self::Publish {
                qos: p.qos,
                id: p.packet_id.map_or(0, crate::codec::PacketId::get),
                dup: p.dup,
                body: std::str::from_utf8(p.payload).unwrap().to_owned(),
            },
            Packet::Puback(a) => Self::Puback(a.packet_id.get()),
            Packet::Pubrec(a) => Self::Pubrec(a.packet_id.get()),
            Packet::Pubrel(a) => Self::Pubrel(a.packet_id.get()),
            Packet::Pubcomp(a) => Self::Pubcomp(a.packet_id.get()),
            Packet::Disconnect(d) => Self::Disconnect(d.reason.into()),
            other => panic!("not part of the exchange: {other:?}"),
        }
    }
}

/// A client. What it has to send stands in `out`, and is lost with the connection.
#[derive(Debug)]
pub(super) enum Device {
    Publisher(Publisher),
    Subscriber(Subscriber),
}

impl Device {
    pub(super) fn hear(&mut self, wire: &Wire) {
        match self {
            Self::Publisher(p) => p.hear(wire),
            Self::Subscriber(s) => s.hear(wire),
        }
    }

    /// The next packet to send, once CONNACK has come.
    pub(super) fn next(&mut self) -> Option<Wire> {
        match self {
            Self::Publisher(p) => p.next(),
            Self::Subscriber(s) => s.out.pop_front(),
        }
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        match self {
            Self::Publisher(p) => p.out.clear(),
            Self::Subscriber(s) => s.out.clear(),
        }
    }
}

/// Sends its messages in order, at most `window` at once, each under the lowest packet id that is free.
#[derive(Debug)]
pub(super) struct Publisher {
    /// What it has not begun to send.
    waiting: VecDeque<(QoS, String)>,
    window: usize,
    /// Begun and not finished, in the order of the first sending.
    open: Vec<Exchange>,
    out: VecDeque<Wire>,
}

#[derive(Debug)]
struct Exchange {
    id: u16,
    qos: QoS,
    body: String,
    /// PUBREC has come: from now on only PUBREL is sent.
    released: bool,
}

impl Publisher {
    pub(super) fn new(messages: Vec<(QoS, String)>, window: usize) -> Self {
        Self { waiting: messages.into(), window, open: Vec::new(), out: VecDeque::new() }
    }

    /// Everything was taken by the broker for good.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    fn next(&mut self) -> Option<Wire> {
        if let Some(wire) = self.out.pop_front() {
            return Some(wire);
        }
        if self.open.len() >= self.window {
            return None;
        }
        let (qos, body) = self.waiting.pop_front()?;
        let id = (1..=u16::MAX).find(|id| self.open.iter().all(|e| e.id != *id))?;
        self.open.push(Exchange { id, qos, body: body.clone(), released: false });
        Some(Wire::Publish { qos, id, dup: false, body })
    }

    fn hear(&mut self, wire: &Wire) {
        match *wire {
            Wire::Connack { present } => {
                assert!(present, "its session is gone");
                self.resend();
            }
            Wire::Puback(id) => {
                let at = self.find(id, QoS::AtLeastOnce);
                self.open.remove(at);
            }
            Wire::Pubrec(id) => {
                let at = self.find(id, QoS::ExactlyOnce);
                self.open[at].released = true;
                self.out.push_back(Wire::Pubrel(id));
            }
            Wire::Pubcomp(id) => {
                let at = self.find(id, QoS::ExactlyOnce);
                assert!(self.open[at].released, "PUBCOMP {id} before PUBREC");
                self.open.remove(at);
            }
            ref other => panic!("the publisher was sent {other:?}"),
        }
    }

    fn find(&self, id: u16, qos: QoS) -> usize {
        let at = self.open.iter().position(|e| e.id == id && e.qos == qos);
        at.unwrap_or_else(|| panic!("an answer to {id}, of which nothing is open"))
    }

    /// Sections 4.4 and 4.6: what is open, with its packet id, in the order of the first sending.
    fn resend(&mut self) {
        let again = self.open.iter().map(|e| {
            if e.released {
                Wire::Pubrel(e.id)
            } else {
                Wire::Publish { qos: e.qos, id: e.id, dup: true, body: e.body.clone() }
            }
        });
        self.out = again.collect();
    }
}

/// Takes messages, those of QoS 2 by their packet ids, and notes them.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    /// What it has given to its application, in order.
    pub(super) taken: Vec<String>,
    /// QoS 2 packet ids it has sent PUBREC for, or was about to.
    unreleased: BTreeSet<u16>,
    /// Under which ids it has heard which body, ever.
    heard: BTreeMap<(u16, String), usize>,
    out: VecDeque<Wire>,
}

impl Subscriber {
    /// It owes nothing, and is owed no PUBREL.
    pub(super) fn is_done(&self) -> bool {
        self.unreleased.is_empty() && self.out.is_empty()
    }

    /// How often it was sent a body, for each packet id.
    pub(super) fn sent(&self, body: &str) -> Vec<usize> {
        self.heard.iter().filter(|((_, of), _)| of == body).map(|(_, times)| *times).collect()
    }

    fn hear(&mut self, wire: &Wire) {
        match wire {
            Wire::Connack { present } => assert!(present, "its session is gone"),
            Wire::Publish { qos: QoS::AtMostOnce, .. } => panic!("QoS 0 is not part of this"),
            Wire::Publish { qos, id, dup, body } => {
                let before = self.heard.entry((*id, body.clone())).or_default();
                // Section 3.3.1.1: the same message under the same id is the same packet sent again.
                assert!(*dup || *before == 0, "{body} came again as {id} without DUP");
                *before += 1;
                if *qos == QoS::AtLeastOnce {
                    self.taken.push(body.clone());
                    self.out.push_back(Wire::Puback(*id));
                } else {
                    // Section 4.3.3: by its packet id.
                    if self.unreleased.insert(*id) {
                        self.taken.push(body.clone());
                    }
                    self.out.push_back(Wire::Pubrec(*id));
                }
            }
            Wire::Pubrel(id) => {
                self.unreleased.remove(id);
                self.out.push_back(Wire::Pubcomp(*id));
            }
            other => panic!("the subscriber was sent {other:?}"),
        }
    }
}
