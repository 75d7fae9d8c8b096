//! One network connection of a session, as far as the protocol goes: what was agreed in CONNECT, the bytes to send,
//! and the answers that wait for the disk. It ends with the connection.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU16,
    ops::RangeInclusive,
};

use super::{
    answer::{Answer, Verdict, acknowledgement},
    frames::Frames,
};
use crate::{
    codec::{Ack, Disconnect, DisconnectProperties, Forwarded, Packet, PacketId, PacketType, QoS, Version},
    message::{Manner, expires_at},
    time::Timestamp,
    topic::TopicName,
};

/// What the client's CONNECT and the broker's limits agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Protocol version.
    pub version: Version,
    /// Largest packet the client takes, in bytes.
    pub packet_bytes_max: usize,
    /// Whether the client wants reason strings in other packets than CONNACK and DISCONNECT (request problem
    /// information).
    pub wants_reasons: bool,
    /// QoS > 0 messages the client takes at once.
    pub receive_maximum: u16,
    /// Topic aliases the broker may use towards the client.
    pub alias_max_out: u16,
    /// Bytes waiting to be written beyond which nothing more is encoded.
    pub out_bytes_max: usize,
}

/// What became of a QoS 0 message for an online client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way.
    Sent,
    /// The client reads too slowly: as much waits for it as may.
    NoRoom,
    /// The client takes no packet that large [MQTT-3.1.2-25].
    TooLarge,
}

/// Packets that were encoded for the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of all kinds.
    pub packets: u32,
    /// PUBLISH packets, by QoS.
    pub messages: [u32; 3],
}

impl Tally {
    fn packet(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    fn message(&mut self, qos: QoS) {
        self.packet();
        if let Some(messages) = self.messages.get_mut(usize::from(u8::from(qos))) {
            *messages = messages.saturating_add(1);
        }
    }
}

/// A connection that waits keeps no larger out-buffer than this: there are thousands of them.
const KEPT_BYTES_MAX: usize = 8 * 1024;
/// No more than this is copied rather than handed over with its buffer.
const COPIED_BYTES_MAX: usize = 512;
/// Nor does it keep room for more answers than this; and for a few it is not worth keeping.
const ANSWERS_KEPT: RangeInclusive<usize> = 5..=64;

/// A live connection. `G` is the gate an answer waits behind.
pub struct Link<G> {
    /// What was agreed.
    pub terms: Terms,
    /// Bytes ready for the wire.
    pub out: Vec<u8>,
    /// What is in `out`.
    pub tally: Tally,
    answers: VecDeque<(G, Answer)>,
    greeted: bool,
    subacks_waiting: u32,
    /// QoS 0 messages among the answers.
    messages_waiting: u32,
    /// Bytes of the encoded ones: less than `Terms::out_bytes_max` and one message.
    publish_bytes: u32,
    /// QoS > 0 PUBLISH packets of the client whose PUBACK or PUBCOMP has not been taken from `out` yet.
    unanswered: u32,
    /// Of these, those whose last answer is in `out`.
    answered: u32,
    #[expect(clippy::box_collection, reason = "most clients take none, and the map is 48 bytes when empty")]
    aliases_out: Option<Box<HashMap<TopicName, NonZeroU16>>>,
}

impl<G: Clone> Link<G> {
    /// A connection whose first bytes will be `connack`, once `gate` opens.
    pub fn new(terms: Terms, connack: Vec<u8>, gate: G) -> Self {
        Self {
            terms,
            out: Vec::new(),
            tally: Tally::default(),
            answers: VecDeque::from([(gate, Answer::Connack(connack))]),
            greeted: false,
            subacks_waiting: 0,
            messages_waiting: 0,
            publish_bytes: 0,
            unanswered: 0,
            answered: 0,
            aliases_out: None,
        }
    }

    /// Whether CONNACK is on its way, so that other packets may follow.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether no message may leave yet.
    pub fn holds_messages(&self) -> bool {
        !self.greeted || self.subacks_waiting > 0
    }

    /// Gives an answer that waits for nothing but those before it: into the out-buffer, if there are none.
    pub fn answer_now(&mut self, open: G, answer: Answer, now: Timestamp) {
        if self.greeted && self.answers.is_empty() {
            self.encode_answer(answer, now);
        } else {
            self.answer(open, answer);
        }
    }

    /// Queues an answer behind `gate` and behind all earlier answers.
    pub fn answer(&mut self, gate: G, answer: Answer) {
        match &answer {
            Answer::Suback(_) => self.subacks_waiting += 1,
            Answer::Retained(..) => self.messages_waiting += 1,
            Answer::Publish(bytes, _) => {
                self.messages_waiting += 1;
                self.publish_bytes = self.publish_bytes.saturating_add(counted(bytes));
            }
            _ => {}
        }
        self.answers.push_back((gate, answer));
    }

    /// A QoS 0 message of now: into the out-buffer, or behind those that are held back, so that no older one of its
    /// topic comes after it.
    pub fn publish_at_most_once(
        &mut self,
        frames: &mut Frames<'_>,
        manner: Manner<'_>,
        open: G,
        now: Timestamp,
    ) -> Fate {
        let room = self.terms.out_bytes_max.saturating_sub(self.out.len() + self.publish_bytes as usize);
        if room == 0 {
            return Fate::NoRoom;
        }
        if !self.holds_messages() && self.messages_waiting == 0 {
            return if self.publish_frame(frames, manner, None) { Fate::Sent } else { Fate::TooLarge };
        }
        // Without an alias: packets that leave before it could use that.
        let until = expires_at(frames.message_expiry(), now);
        let mut encoded = Vec::new();
        if !frames.append(manner, None, &self.terms, &mut encoded) {
            return Fate::TooLarge;
        }
        self.answer(open, Answer::Publish(encoded, until));
        Fate::Sent
    }

    /// Whether a message may leave at once: nothing is held back, and there is room.
    pub fn takes_messages(&self) -> bool {
        !self.holds_messages() && self.messages_waiting == 0 && self.out.len() < self.terms.out_bytes_max
    }

    /// So many bytes are about to be encoded, if they may leave at once: the buffer grows for all of them together.
    pub fn expect(&mut self, bytes: usize) {
        if self.takes_messages() {
            self.out.reserve(bytes);
        }
    }

    /// A message that is passed on as it came, as `forward` does it.
    pub fn publish_frame(
        &mut self,
        frames: &mut Frames<'_>,
        manner: Manner<'_>,
        id: Option<PacketId>,
    ) -> bool {
        if self.terms.alias_max_out > 0 {
            let topic = frames.topic();
            return self.forward(frames.packet(manner, id), topic);
        }
        let fits = frames.append(manner, id, &self.terms, &mut self.out);
        if fits {
            self.tally.message(manner.qos);
        }
        fits
    }

    /// Counts a QoS > 0 PUBLISH that is about to be answered.
    pub fn count_publish(&mut self) {
        self.unanswered += 1;
    }

    /// QoS > 0 PUBLISH packets whose PUBACK or PUBCOMP has not been handed over for writing yet.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether there is anything to hand over, or a buffer that a burst has left behind.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || self.out.capacity() > COPIED_BYTES_MAX
    }

    /// Hands over what is ready for the wire, behind what is in `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) -> Tally {
        self.unanswered = self.unanswered.saturating_sub(std::mem::take(&mut self.answered));
        let bytes = self.out.len();
        if out.is_empty() && bytes > COPIED_BYTES_MAX && out.capacity() <= self.out.capacity() {
            std::mem::swap(out, &mut self.out);
        } else {
            out.append(&mut self.out);
        }
        // What a burst has left behind, at the next packet of a connection that has become quiet.
        let capacity = self.out.capacity();
        if capacity > KEPT_BYTES_MAX || (capacity > COPIED_BYTES_MAX && bytes < capacity / 8) {
            self.out = Vec::new();
        }
        std::mem::take(&mut self.tally)
    }

    /// Gives up the messages that wait among the answers: nobody is there to take them any more.
    pub fn forget_messages(&mut self) {
        self.answers.retain(|(_, answer)| !matches!(answer, Answer::Retained(..) | Answer::Publish(..)));
        (self.messages_waiting, self.publish_bytes) = (0, 0);
    }

    /// Answers that wait.
    pub fn answers_waiting(&self) -> usize {
        self.answers.len()
    }

    /// Encodes every answer whose turn has come, messages only while the out-buffer has room; returns the gate the next
    /// one waits for.
    pub fn poll_answers(&mut self, is_open: impl Fn(&G) -> bool, now: Timestamp) -> Option<G> {
        while let Some((gate, answer)) = self.answers.front() {
            if !is_open(gate) {
                return Some(gate.clone());
            }
            if matches!(answer, Answer::Retained(..)) && self.out.len() >= self.terms.out_bytes_max {
                return None;
            }
            if let Some((_, answer)) = self.answers.pop_front() {
                self.encode_answer(answer, now);
            }
        }
        if !ANSWERS_KEPT.contains(&self.answers.capacity()) {
            self.answers = VecDeque::new();
        }
        None
    }

    fn encode_answer(&mut self, answer: Answer, now: Timestamp) {
        let ends = match &answer {
            Answer::Puback(..) | Answer::Pubcomp(..) => true,
            Answer::Pubrec(_, verdict) => verdict.reason.is_error(),
            _ => false,
        };
        self.answered += u32::from(ends);
        match answer {
            Answer::Puback(id, verdict) => self.acknowledge(PacketType::Puback, id, verdict),
            Answer::Pubrec(id, verdict) => self.acknowledge(PacketType::Pubrec, id, verdict),
            Answer::Pubcomp(id, verdict) => self.acknowledge(PacketType::Pubcomp, id, verdict),
            Answer::Connack(bytes) => {
                self.greeted = true;
                self.tally.packet();
                self.out.extend_from_slice(&bytes);
            }
            Answer::Suback(bytes) => {
                self.subacks_waiting -= 1;
                self.tally.packet();
                self.out.extend_from_slice(&bytes);
            }
            Answer::Publish(bytes, until) => {
                self.messages_waiting -= 1;
                self.publish_bytes = self.publish_bytes.saturating_sub(counted(&bytes));
                // [MQTT-3.3.2-5]
                if until > now {
                    self.tally.message(QoS::AtMostOnce);
                    self.out.extend_from_slice(&bytes);
                }
            }
            Answer::Retained(message, delivery) => {
                self.messages_waiting -= 1;
                if message.expires_at > now {
                    // What the client cannot take was left out before.
                    let packet = message.to_packet(now);
                    self.forward(message.forwarded(&packet, &delivery), &message.topic);
                }
            }
            Answer::Encoded(bytes) => {
                self.tally.packet();
                self.out.extend_from_slice(&bytes);
            }
        }
    }

    /// Encodes PUBACK, PUBREC, PUBREL or PUBCOMP, with its reason where it has one.
    pub fn acknowledge(&mut self, name: PacketType, id: PacketId, verdict: Verdict) {
        let Verdict { reason, why } = verdict;
        let terms = self.terms;
        if why.is_empty() {
            return self.send_as(|out| Ack::encode_plain(name, id, reason, terms.version, out));
        }
        self.send_as(|out| terms.encode(why, |why| acknowledgement(name, id, reason, why), out));
    }

    /// DISCONNECT, to a client that knows it and that has had its CONNACK [MQTT-3.14.0-1].
    pub fn say_goodbye(&mut self, verdict: Verdict) {
        let Verdict { reason, why } = verdict;
        if self.terms.version.is_v5() && self.greeted {
            let goodbye = |reason_string| {
                let properties = DisconnectProperties { reason_string, ..DisconnectProperties::default() };
                Packet::Disconnect(Disconnect { reason, properties })
            };
            self.tally.packet();
            self.terms.encode(why, goodbye, &mut self.out);
        }
    }

    /// Encodes a small packet at once; before CONNACK has left, behind it [MQTT-3.2.0-1]. One without strings fits every
    /// client: it is no longer than the CONNACK that client has taken.
    pub fn send(&mut self, packet: &Packet<'_>) {
        let version = self.terms.version;
        self.send_as(|out| packet.encode(version, out));
    }

    /// The same for a packet that the client may not take: `false`, and nothing is sent [MQTT-3.1.2-24].
    pub fn send_fitting(&mut self, packet: &Packet<'_>) -> bool {
        let fits = packet.encoded_len(self.terms.version) <= self.terms.packet_bytes_max;
        if fits {
            self.send(packet);
        }
        fits
    }

    fn send_as<T>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> T) {
        if let Some((gate, _)) = self.answers.back().filter(|_| !self.greeted) {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            self.answers.push_back((gate.clone(), Answer::Encoded(bytes)));
        } else {
            self.tally.packet();
            encode(&mut self.out);
        }
    }

    /// Encodes a PUBLISH, with a topic alias where the client takes them. `false`: it is larger than the client's
    /// maximum packet size, and nothing was encoded [MQTT-3.1.2-24].
    pub fn forward(&mut self, mut packet: Forwarded<'_>, topic: &TopicName) -> bool {
        let known = self.alias(&mut packet, topic);
        let Terms { version, packet_bytes_max, .. } = self.terms;
        let mut fits = packet.encode_within(version, packet_bytes_max, &mut self.out);
        // Setting the alias may have been what made it too large.
        if !fits && !known && packet.topic_alias.take().is_some() {
            self.aliases_out.as_mut().and_then(|known| known.remove(topic));
            fits = packet.encode_within(version, packet_bytes_max, &mut self.out);
        }
        if fits {
            self.tally.message(packet.qos);
        }
        fits
    }

    /// Gives the packet its alias; `true` if the client knew it before.
    fn alias(&mut self, packet: &mut Forwarded<'_>, topic: &TopicName) -> bool {
        if self.terms.alias_max_out == 0 {
            return true;
        }
        let aliases = self.aliases_out.get_or_insert_default();
        if let Some(&alias) = aliases.get(topic) {
            packet.topic_alias = Some(alias);
            packet.topic = "";
            return true;
        }
        // [MQTT-3.1.2-26], [MQTT-3.3.2-11]: never above the client's maximum. The first topics keep theirs: a device has few.
        let next = u16::try_from(aliases.len() + 1).ok().filter(|&n| n <= self.terms.alias_max_out);
        if let Some(alias) = next.and_then(NonZeroU16::new) {
            aliases.insert(topic.clone(), alias);
            packet.topic_alias = Some(alias);
        }
        false
    }
}

/// A message's bytes: a packet has fewer than 2^28.
fn counted(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand of them, and the allocator has no size between 128 bytes and 160.
    #[test]
    fn a_connection_that_waits_is_small() {
        assert!(size_of::<Link<()>>() <= 128, "{}", size_of::<Link<()>>());
        let mut link = link();
        assert_eq!(link.poll_answers(|()| true, Timestamp(0)), None);
        assert_eq!(link.answers.capacity(), 0);
    }

    fn link() -> Link<()> {
        let terms = Terms {
            version: Version::V5,
            packet_bytes_max: usize::MAX,
            wants_reasons: true,
            receive_maximum: 100,
            alias_max_out: 0,
            out_bytes_max: 1 << 20,
        };
        Link::new(terms, Vec::new(), ())
    }

    /// There are thousands of connections, and each has had its burst once.
    #[test]
    fn a_quiet_connection_keeps_no_large_buffer() {
        let mut link = link();
        for (burst, kept) in [(100_000, 0), (4_000, KEPT_BYTES_MAX), (2, COPIED_BYTES_MAX)] {
            link.out.resize(burst, 7);
            let mut out = Vec::new();
            link.take_output(&mut out);
            assert_eq!(out, vec![7; burst]);
            assert!(link.out.is_empty() && link.out.capacity() <= kept, "{}", link.out.capacity());
        }
    }

    #[test]
    fn output_goes_behind_what_waits() {
        let mut link = link();
        let mut out = b"a".to_vec();
        link.out.extend_from_slice(&[b'b'; 1_000]);
        link.take_output(&mut out);
        assert_eq!((out.len(), out.first(), out.get(1)), (1_001, Some(&b'a'), Some(&b'b')));
    }
}
