//! One network connection of a session, as far as the protocol goes: what was agreed in CONNECT, the bytes to send,
//! and the answers that wait for the disk. It ends with the connection.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU16,
    sync::Arc,
};

use crate::{
    codec::{Ack, Packet, PacketId, Publish, ReasonCode, ReasonProperties, Version},
    message::{Delivery, Message},
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
    /// QoS > 0 messages the client takes at once.
    pub receive_maximum: u16,
    /// Topic aliases the broker may use towards the client.
    pub alias_max_out: u16,
    /// Topic aliases the client may use.
    pub alias_max_in: u16,
    /// Bytes waiting to be written beyond which nothing more is encoded.
    pub out_bytes_max: usize,
}

/// An answer to the client, in the order of the packets it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// PUBACK with its reason.
    Puback(PacketId, ReasonCode),
    /// PUBREC with its reason.
    Pubrec(PacketId, ReasonCode),
    /// PUBCOMP with its reason.
    Pubcomp(PacketId, ReasonCode),
    /// CONNACK: nothing else may leave before it [MQTT-3.2.0-1].
    Connack(Vec<u8>),
    /// SUBACK, encoded; messages are held back until it has left.
    Suback(Vec<u8>),
    /// A QoS 0 retained message: it follows its SUBACK, and is encoded when the out-buffer has room.
    Retained(Arc<Message>, Delivery),
    /// A QoS 0 PUBLISH, encoded, that came while others were held back.
    Publish(Vec<u8>),
    /// Any other packet, encoded.
    Encoded(Vec<u8>),
}

/// Why a client's topic alias cannot be used (MQTT 5.0 section 3.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// It is above the maximum the client was told.
    AboveMaximum,
    /// It stands for no topic on this connection.
    Unset,
}

/// A live connection. `G` is the gate an answer waits behind.
pub struct Link<G> {
    /// What was agreed.
    pub terms: Terms,
    /// Bytes ready for the wire.
    pub out: Vec<u8>,
    answers: VecDeque<(G, Answer)>,
    greeted: bool,
    subacks_waiting: usize,
    /// QoS 0 messages among the answers, and the bytes of the encoded ones.
    messages_waiting: usize,
    publish_bytes: usize,
    /// QoS > 0 PUBLISH packets of the client that have no PUBACK or PUBCOMP yet.
    unanswered: usize,
    /// They end with the connection [MQTT-3.3.2-7].
    aliases_in: Vec<Option<TopicName>>,
    aliases_out: HashMap<TopicName, NonZeroU16>,
}

impl<G: Clone> Link<G> {
    /// A connection whose first bytes will be `connack`, once `gate` opens.
    pub fn new(terms: Terms, connack: Vec<u8>, gate: G) -> Self {
        Self {
            terms,
            out: Vec::new(),
            answers: VecDeque::from([(gate, Answer::Connack(connack))]),
            greeted: false,
            subacks_waiting: 0,
            messages_waiting: 0,
            publish_bytes: 0,
            unanswered: 0,
            aliases_in: Vec::new(),
            aliases_out: HashMap::new(),
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

    /// Queues an answer behind `gate` and behind all earlier answers.
    pub fn answer(&mut self, gate: G, answer: Answer) {
        match &answer {
            Answer::Suback(_) => self.subacks_waiting += 1,
            Answer::Retained(..) => self.messages_waiting += 1,
            Answer::Publish(bytes) => {
                self.messages_waiting += 1;
                self.publish_bytes += bytes.len();
            }
            _ => {}
        }
        self.answers.push_back((gate, answer));
    }

    /// A QoS 0 message of now: into the out-buffer, or behind those that are held back, so that no older one of its
    /// topic comes after it. `false`: the client reads too slowly, or takes no packet that large.
    pub fn publish_at_most_once(&mut self, publish: &mut Publish<'_>, topic: &TopicName, open: G) -> bool {
        let room = self.terms.out_bytes_max.saturating_sub(self.out.len() + self.publish_bytes);
        if room == 0 {
            return false;
        }
        if !self.holds_messages() && self.messages_waiting == 0 {
            return self.publish(publish, topic);
        }
        // Without an alias: packets that leave before it could use that.
        let bytes = publish.encoded_len(self.terms.version);
        if bytes > self.terms.packet_bytes_max {
            return false;
        }
        let mut encoded = Vec::with_capacity(bytes);
        publish.encode(self.terms.version, &mut encoded);
        self.answer(open, Answer::Publish(encoded));
        true
    }

    /// Counts a QoS > 0 PUBLISH; the number of them that have no PUBACK or PUBCOMP yet.
    pub fn count_publish(&mut self) -> usize {
        self.unanswered += 1;
        self.unanswered
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
        if self.answers.capacity() > 1_024 {
            self.answers = VecDeque::new();
        }
        None
    }

    fn encode_answer(&mut self, answer: Answer, now: Timestamp) {
        let ack = |packet_id, reason| Ack { packet_id, reason, properties: ReasonProperties::default() };
        let ends = match &answer {
            Answer::Puback(..) | Answer::Pubcomp(..) => true,
            Answer::Pubrec(_, reason) => reason.is_error(),
            _ => false,
        };
        self.unanswered = self.unanswered.saturating_sub(usize::from(ends));
        let packet = match answer {
            Answer::Puback(id, reason) => Packet::Puback(ack(id, reason)),
            Answer::Pubrec(id, reason) => Packet::Pubrec(ack(id, reason)),
            Answer::Pubcomp(id, reason) => Packet::Pubcomp(ack(id, reason)),
            Answer::Connack(bytes) => {
                self.greeted = true;
                self.out.extend_from_slice(&bytes);
                return;
            }
            Answer::Suback(bytes) => {
                self.subacks_waiting -= 1;
                self.out.extend_from_slice(&bytes);
                return;
            }
            Answer::Publish(bytes) => {
                self.messages_waiting -= 1;
                self.publish_bytes -= bytes.len();
                self.out.extend_from_slice(&bytes);
                return;
            }
            Answer::Retained(message, delivery) => {
                self.messages_waiting -= 1;
                if message.expires_at > now {
                    // What the client cannot take was left out before.
                    self.publish(&mut message.to_packet(&delivery, now), &message.topic);
                }
                return;
            }
            Answer::Encoded(bytes) => {
                self.out.extend_from_slice(&bytes);
                return;
            }
        };
        self.send(&packet);
    }

    /// Encodes a small packet at once; before CONNACK has left, behind it [MQTT-3.2.0-1].
    pub fn send(&mut self, packet: &Packet<'_>) {
        if let Some((gate, _)) = self.answers.back().filter(|_| !self.greeted) {
            let mut bytes = Vec::new();
            packet.encode(self.terms.version, &mut bytes);
            self.answers.push_back((gate.clone(), Answer::Encoded(bytes)));
        } else {
            packet.encode(self.terms.version, &mut self.out);
        }
    }

    /// Encodes a PUBLISH, with a topic alias where the client takes them. `false`: it is larger than the client's
    /// maximum packet size, and nothing was encoded [MQTT-3.1.2-24].
    pub fn publish(&mut self, publish: &mut Publish<'_>, topic: &TopicName) -> bool {
        let known = self.alias(publish, topic);
        let fits = |p: &Publish<'_>| p.encoded_len(self.terms.version) <= self.terms.packet_bytes_max;
        if !fits(publish) {
            if known || publish.properties.topic_alias.take().is_none() {
                return false;
            }
            // Setting the alias may have been what made it too large.
            self.aliases_out.remove(topic);
            if publish.encoded_len(self.terms.version) > self.terms.packet_bytes_max {
                return false;
            }
        }
        publish.encode(self.terms.version, &mut self.out);
        true
    }

    /// Gives the packet its alias; `true` if the client knew it before.
    fn alias(&mut self, publish: &mut Publish<'_>, topic: &TopicName) -> bool {
        if self.terms.alias_max_out == 0 {
            return true;
        }
        if let Some(&alias) = self.aliases_out.get(topic) {
            publish.properties.topic_alias = Some(alias);
            publish.topic = "";
            return true;
        }
        // [MQTT-3.1.2-26], [MQTT-3.3.2-11]: never above the client's maximum. The first topics keep theirs: a device has few.
        let next = u16::try_from(self.aliases_out.len() + 1).ok().filter(|&n| n <= self.terms.alias_max_out);
        if let Some(alias) = next.and_then(NonZeroU16::new) {
            self.aliases_out.insert(topic.clone(), alias);
            publish.properties.topic_alias = Some(alias);
        }
        false
    }

    /// Resolves an alias the client used without a topic.
    pub fn aliased(&self, alias: NonZeroU16) -> Result<&TopicName, AliasError> {
        let index = self.alias_index(alias)?;
        self.aliases_in.get(index).and_then(Option::as_ref).ok_or(AliasError::Unset)
    }

    /// Notes an alias the client sets.
    pub fn set_alias(&mut self, alias: NonZeroU16, topic: TopicName) -> Result<(), AliasError> {
        let index = self.alias_index(alias)?;
        if self.aliases_in.len() <= index {
            self.aliases_in.resize(index + 1, None);
        }
        if let Some(slot) = self.aliases_in.get_mut(index) {
            *slot = Some(topic);
        }
        Ok(())
    }

    /// [MQTT-3.3.2-9], [MQTT-3.3.2-12]: exactly those up to the maximum are valid.
    fn alias_index(&self, alias: NonZeroU16) -> Result<usize, AliasError> {
        if alias.get() > self.terms.alias_max_in {
            return Err(AliasError::AboveMaximum);
        }
        Ok(usize::from(alias.get()) - 1)
    }
}
