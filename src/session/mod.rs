//! One client's protocol state, without sockets, clocks or files.
//!
//! A session outlives its connections. It has two halves, [`Outbound`] (what the client still has to get) and
//! [`Inbound`] (what it has sent and may send again), its subscriptions, and, while the client is connected, a
//! [`Link`]. Calls go in by `handle_*` and `deliver`; bytes come out by [`Session::transmit`] into the link's buffer.
//! What must be written down goes to the [`Keeper`], which answers with gates: a packet that promises something leaves
//! only behind its gate.

mod aliases;
mod answer;
mod frames;
mod inbound;
mod keeper;
mod link;
mod outbound;
mod shelf;
mod subscribed;
#[cfg(test)]
mod tests;

pub use aliases::{AliasError, Aliases};
pub use answer::{Answer, Verdict};
pub use frames::Frames;
pub use inbound::{Arrival, Inbound};
pub use keeper::{Body, DropReason, Keeper};
pub use link::{Fate, Link, Tally, Terms};
use outbound::Next;
pub use outbound::{
    Acknowledged, Dormant, Entry, Leaving, Outbound, Overflow, QueueLimits, QueueRule, Remains, SEQ_BLOCK,
};
pub use shelf::{Shelf, Shelved};
pub use subscribed::Subscribed;

use crate::{
    codec::{PacketId, PacketType, QoS, ReasonCode, SubscribeOptions, Version},
    message::{Manner, Seq},
    time::Timestamp,
};

/// Options of one subscription (MQTT 5.0 section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionTerms {
    /// QoS, no local, retain as published, retain handling.
    pub options: SubscribeOptions,
    /// v5 subscription identifier.
    pub id: Option<u32>,
}

/// One client's state.
pub struct Session<K: Keeper> {
    /// What the client still has to get.
    pub outbound: Outbound<K>,
    /// QoS 2 ids the client has not released.
    pub inbound: Inbound<K::Gate>,
    /// What the client has subscribed to.
    pub subscriptions: Subscribed,
    /// The connection, while there is one. On the heap: most sessions sleep.
    pub link: Option<Box<Link<K::Gate>>>,
}

/// What keeps `transmit` from encoding more. Whoever drives the session comes back when any of it has changed.
pub struct Pending<K: Keeper> {
    /// The oldest answer waits for the disk.
    pub answer: Option<K::Gate>,
    /// Why the next message waits.
    pub delivery: Waiting<K>,
}

/// Why the next message waits.
pub enum Waiting<K: Keeper> {
    /// There is none, or the client owes an acknowledgement.
    Nothing,
    /// The out-buffer is full.
    Output,
    /// The disk.
    Gate(K::Gate),
    /// Bodies to be read back.
    Load(Vec<K::Kept>),
}

impl<K: Keeper> Session<K> {
    /// A session without subscriptions.
    pub fn new(outbound: Outbound<K>) -> Self {
        Self { outbound, inbound: Inbound::new(), subscriptions: Subscribed::default(), link: None }
    }

    /// What has to be kept of its outbound half while it sleeps and nothing waits, if nothing but that and its
    /// subscriptions is to be kept.
    pub fn dormant(&self, keeper: &K) -> Option<Dormant> {
        let nothing_else = self.link.is_none() && self.inbound.is_done(|gate| keeper.is_open(gate));
        if nothing_else { self.outbound.dormant(keeper) } else { None }
    }

    /// Whether a sleeping session may need less memory before long: messages or confirmations are not on disk yet.
    pub fn is_restless(&self, keeper: &K) -> bool {
        self.outbound.is_restless(keeper) || self.inbound.is_releasing(|gate| keeper.is_open(gate))
    }

    /// A client has connected.
    pub fn attach(&mut self, keeper: &K, link: Link<K::Gate>) {
        self.outbound.begin_connection(keeper, link.terms.receive_maximum);
        self.link = Some(Box::new(link));
    }

    /// Encodes into the link's out-buffer everything that may be sent now: first answers, which no window holds up
    /// [MQTT-3.3.4-10], then messages.
    pub fn transmit(&mut self, keeper: &K, now: Timestamp) -> Pending<K> {
        let Some(link) = &mut self.link else { return Pending { answer: None, delivery: Waiting::Nothing } };
        let answer = link.poll_answers(|gate| keeper.is_open(gate), now);
        // Messages wait for CONNACK as they must, and for SUBACK as every client expects.
        let delivery =
            if link.holds_messages() { Waiting::Nothing } else { self.transmit_messages(keeper, now) };
        Pending { answer, delivery }
    }

    fn transmit_messages(&mut self, keeper: &K, now: Timestamp) -> Waiting<K> {
        let Some(link) = &mut self.link else { return Waiting::Nothing };
        loop {
            if link.out.len() >= link.terms.out_bytes_max {
                return Waiting::Output;
            }
            match self.outbound.poll_next(keeper, now) {
                Next::Publish { body, delivery, seq, dup } => {
                    let packet = body.to_packet(now);
                    let mut packet = body.forwarded(&packet, &delivery);
                    packet.dup = dup;
                    packet.packet_id = (delivery.qos != QoS::AtMostOnce).then(|| seq.packet_id());
                    if !link.forward(packet, &body.topic) {
                        self.outbound.skip_too_large(keeper, seq, &body.topic);
                    }
                }
                Next::Release(id) => link.acknowledge(PacketType::Pubrel, id, Verdict::SUCCESS),
                Next::Load(kept) => return Waiting::Load(kept),
                Next::Wait(gate) => return Waiting::Gate(gate),
                Next::Nothing => return Waiting::Nothing,
            }
        }
    }

    /// A QoS 0 message for an online client, straight into the out-buffer if nothing is held back.
    pub fn deliver_at_most_once(
        &mut self,
        keeper: &K,
        frames: &mut Frames<'_>,
        manner: Manner<'_>,
        now: Timestamp,
    ) -> Fate {
        let Some(link) = &mut self.link else { return Fate::NoRoom };
        link.publish_at_most_once(frames, manner, keeper.open_gate(), now)
    }

    /// A QoS 1 or 2 message for an online client, straight into the out-buffer: its number. `None`, and nothing is done, if it
    /// has to stand in line. `kept` makes what is kept of it until the client has answered.
    pub fn deliver_at_once(
        &mut self,
        frames: &mut Frames<'_>,
        manner: Manner<'_>,
        now: Timestamp,
        kept: impl FnOnce() -> K::Kept,
    ) -> Option<Seq> {
        let link = self.link.as_mut()?;
        let expiry = frames.message_expiry();
        if !link.takes_messages() || expiry == Some(0) {
            return None;
        }
        let seq = self.outbound.number_at_once(manner.qos, expiry.is_some())?;
        if !link.publish_frame(frames, manner, Some(seq.packet_id())) {
            return None;
        }
        self.outbound.sent_at_once(kept(), manner.to_delivery(), now);
        Some(seq)
    }

    /// PUBREC for an id that is not in flight: the client must be able to finish (MQTT 5.0 section 3.6.2.1).
    pub fn answer_unknown_pubrec(&mut self, id: PacketId) {
        if let Some(link) = &mut self.link {
            let unknown = Verdict::refused(
                ReasonCode::PacketIdentifierNotFound,
                "no message with this packet identifier is in flight",
            );
            link.acknowledge(PacketType::Pubrel, id, unknown);
        }
    }

    /// Numbers the client has received and not completed, and inbound ids: the QoS 2 part of a snapshot.
    pub fn qos2_state(&self) -> (Vec<PacketId>, Vec<Seq>) {
        (self.inbound.ids().collect(), self.outbound.received())
    }

    /// Protocol version of the present connection.
    pub fn version(&self) -> Option<Version> {
        self.link.as_ref().map(|l| l.terms.version)
    }
}
