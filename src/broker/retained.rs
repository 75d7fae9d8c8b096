//! Retained messages: one per topic, bounded, each with a version that tells the journal which is the latest.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use super::{
    Broker, Config,
    dispatch::Refused,
    keep::Kept,
    slot::{Slot, State},
};
use crate::{
    codec::QoS,
    message::{Delivery, Message},
    routing::Retained,
    session::{Answer, Overflow},
    store::{Completion, Gate, Journal, Record, RecoveredRetained, Stored, Target, Urgency},
    sync::lock,
    time::Timestamp,
    topic::{TopicFilter, TopicName},
};

/// One topic's retained message.
#[derive(Clone)]
pub(super) struct RetainedValue {
    pub(super) message: Arc<Message>,
    pub(super) stored: Arc<Stored>,
}

/// All of them.
pub(super) struct RetainedMessages {
    by_topic: Retained<RetainedValue>,
    /// The topics whose value expires, by when.
    expiring: BTreeSet<(Timestamp, TopicName)>,
    bytes: usize,
    next_version: u64,
    /// The latest clearing: who clears a topic that is clear already waits for it too.
    last_cleared: Gate,
    /// Some value has come to its end by time, of which the journal was not told.
    has_expired: bool,
}

/// A topic's value has changed in memory.
pub(super) struct Replaced {
    /// Of the new value; `None` when the topic was cleared.
    pub(super) version: Option<u64>,
    /// The value before: the journal forgets it once its successor is handed over.
    old: Option<RetainedValue>,
}

impl RetainedMessages {
    pub(super) fn recover(recovered: Vec<RecoveredRetained>, next_version: u64) -> Self {
        let mut all = Self {
            by_topic: Retained::new(),
            expiring: BTreeSet::new(),
            bytes: 0,
            next_version,
            last_cleared: Gate::Open,
            has_expired: false,
        };
        for RecoveredRetained { stored, message, .. } in recovered {
            all.put(RetainedValue { message, stored });
        }
        all
    }

    /// Sets a topic's value, whatever its QoS [MQTT-3.3.1-5], [MQTT3-3.3.1-5], [MQTT3-3.3.1-7]. The version is taken under the same lock: memory and journal agree on the order.
    fn set(&mut self, value: RetainedValue, config: &Config) -> Result<Replaced, Refused> {
        let old_bytes = self.by_topic.get(&value.message.topic).map(|v| v.message.size_bytes());
        let bytes = self.bytes - old_bytes.unwrap_or(0) + value.message.size_bytes();
        let count = self.by_topic.len() + usize::from(old_bytes.is_none());
        if bytes > config.retained_bytes_max || count > config.retained_messages_max {
            return Err(Refused::RetainedFull);
        }
        let version = self.take_version();
        Ok(Replaced { version: Some(version), old: self.put(value) })
    }

    fn put(&mut self, value: RetainedValue) -> Option<RetainedValue> {
        let message = Arc::clone(&value.message);
        let old = self.by_topic.set(&message.topic, value);
        if let Some(old) = &old {
            self.took_out(&old.message);
        }
        self.bytes += message.size_bytes();
        if message.expires_at != Timestamp::NEVER {
            self.expiring.insert((message.expires_at, message.topic.clone()));
        }
        old
    }

    fn remove(&mut self, topic: &TopicName) -> Option<RetainedValue> {
        let old = self.by_topic.remove(topic)?;
        self.took_out(&old.message);
        Some(old)
    }

    fn took_out(&mut self, message: &Message) {
        self.bytes -= message.size_bytes();
        if message.expires_at != Timestamp::NEVER {
            self.expiring.remove(&(message.expires_at, message.topic.clone()));
        }
    }

    /// Takes out a value whose time has passed.
    fn pop_expired(&mut self, now: Timestamp) -> Option<RetainedValue> {
        let (_, topic) = self.expiring.first().filter(|(at, _)| *at <= now)?.clone();
        self.has_expired = true;
        self.remove(&topic)
    }

    /// [MQTT-3.3.1-6], [MQTT3-3.3.1-10]
    fn clear(&mut self, topic: &TopicName, journal: &Journal) -> Replaced {
        if let Some(old) = self.remove(topic) {
            let version = self.take_version();
            self.last_cleared = journal.unretain(&old.stored, Some((topic.clone(), version)));
        } else if self.has_expired {
            // The journal may have one whose end by time it was not told: a crash takes time back, where the clock is
            // not believed.
            let cleared = Record::RetainedCleared(topic.clone(), self.take_version());
            self.last_cleared = journal.append(cleared, Urgency::Now);
        }
        Replaced { version: None, old: None }
    }

    /// How many there are, and their bytes of topic, payload and properties.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.by_topic.len(), self.bytes)
    }

    fn take_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version - 1
    }
}

impl Broker {
    /// Sets (`message` and `stored`) or clears (neither) the retained message of `topic` in memory.
    pub(super) fn set_retained(
        &self,
        topic: &TopicName,
        message: Option<&Arc<Message>>,
        stored: Option<&Arc<Stored>>,
    ) -> Result<Replaced, Refused> {
        let mut retained = lock(&self.retained);
        match message.zip(stored) {
            Some((message, stored)) => {
                let value = RetainedValue { message: Arc::clone(message), stored: Arc::clone(stored) };
                retained.set(value, &self.config)
            }
            None => Ok(retained.clear(topic, &self.journal)),
        }
    }

    /// Opens when the topic's value of now is durable, or a cleared topic stays cleared after a crash. A publisher whose
    /// value was replaced before it was complete waits for the one that replaced it: its own is never written, and
    /// until the other is, a crash would bring back the one before both.
    pub(super) fn retained_gate(&self, topic: &TopicName) -> Gate {
        let retained = lock(&self.retained);
        match retained.by_topic.get(topic) {
            Some(value) => Gate::Message(Arc::clone(&value.stored)),
            None => retained.last_cleared.clone(),
        }
    }

    /// The new value is in the journal: the one before may go.
    pub(super) fn let_go_of_replaced(&self, replaced: &Replaced) {
        if let Some(old) = &replaced.old {
            self.journal.unretain(&old.stored, None);
        }
    }

    /// Lets go of what has expired. The journal needs no word of it: after a restart it has expired again.
    pub(super) fn expire_retained(&self, now: Timestamp) {
        loop {
            let expired = lock(&self.retained).pop_expired(now);
            let Some(expired) = expired else { return };
            self.journal.unretain(&expired.stored, None);
        }
    }

    /// How many retained messages match; `None` if more than `messages_max`.
    pub(super) fn count_retained(&self, filter: &TopicFilter, messages_max: usize) -> Option<usize> {
        let mut count = 0;
        lock(&self.retained).by_topic.lookup(filter, &mut |_| {
            count += 1;
            if count > messages_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (count <= messages_max).then_some(count)
    }

    /// The retained messages that match, unexpired.
    pub(super) fn retained_for(&self, filter: &TopicFilter, now: Timestamp) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        lock(&self.retained).by_topic.lookup(filter, &mut |value| {
            if value.message.expires_at > now {
                found.push(Arc::clone(&value.message));
            }
            ControlFlow::Continue(())
        });
        found
    }

    /// Gives the session a retained message for a new subscription. What a persistent session has to keep of it is
    /// returned, to be completed when the session's lock is free.
    pub(super) fn deliver_retained(
        &self,
        slot: &Slot,
        state: &mut State,
        message: Arc<Message>,
        delivery: Delivery,
        now: Timestamp,
    ) -> Option<(Arc<Stored>, Target)> {
        if delivery.qos == QoS::AtMostOnce {
            let link = state.session.link.as_mut()?;
            let packet = message.to_packet(now);
            let bytes = message.forwarded(&packet, &delivery).encoded_len(link.terms.version);
            if bytes > link.terms.packet_bytes_max {
                self.drops.too_large(&slot.keep.client_id, &message.topic);
            } else {
                link.answer(Gate::Open, Answer::Retained(message, delivery));
            }
            return None;
        }
        let rule = self.queues.rule(self.queues.labels().of(&message.topic), slot.queue_rules());
        // It stays what the topic retains, but for this session it is a message like any other.
        if self.queues.overflow(rule) != Overflow::DropOldest
            && !state.session.outbound.has_room(message.size_bytes(), rule)
        {
            self.drops.newest(&slot.keep.client_id, &message.topic);
            return None;
        }
        // Promised by nothing but its topic: on a full disk memory has to do.
        if !slot.keep.persistent || !self.journal.has_room(message.size_bytes()) {
            let kept = Kept::Memory { message, after: Gate::Open };
            state.session.outbound.deliver(&slot.keep, kept, delivery, rule);
            return None;
        }
        let stored = self.journal.message(message);
        let kept = Kept::Journal { stored: Arc::clone(&stored), target: 0 };
        let seq = state.session.outbound.deliver(&slot.keep, kept, delivery.clone(), rule);
        self.reserve_numbers(slot, state);
        Some((stored, Target { session: slot.no, seq, delivery, group: None }))
    }

    /// Hands to the journal what `deliver_retained` returned.
    pub(super) fn complete_retained(&self, stored: &Arc<Stored>, target: Target) {
        let may_elide = target.delivery.qos != QoS::ExactlyOnce;
        let completion = Completion { may_elide, keep_body: true, ..Completion::default() };
        self.journal.complete(stored, vec![target], completion);
    }
}
