//! What the broker says of itself: counts, sizes, whether it lives, and what keeps it from keeping its promises.

use std::{sync::PoisonError, sync::atomic::Ordering, time::Duration};

use super::{Broker, DeadReason, Dropped};
use crate::{
    codec::{Packet, QoS, ReasonCode},
    store,
    sync::lock,
    time::Timestamp,
};

/// Packets in one direction, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// MQTT packets of all kinds.
    pub packets: u64,
    /// Their bytes, without what TLS and WebSocket add.
    pub bytes: u64,
    /// PUBLISH packets, by QoS; one that is sent again counts again.
    pub messages: [u64; 3],
}

impl Traffic {
    /// Counts a packet of so many bytes that is no PUBLISH.
    pub(super) fn count_small(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Counts a packet of so many bytes.
    pub(super) fn count(&mut self, packet: &Packet<'_>, bytes: usize) {
        match packet {
            Packet::Publish(publish) => self.count_publishes(publish.qos, 1, bytes),
            _ => self.count_small(bytes),
        }
    }

    /// Counts so many PUBLISH packets, which have so many bytes together.
    pub(super) fn count_publishes(&mut self, qos: QoS, count: usize, bytes: usize) {
        self.packets += count as u64;
        self.bytes += bytes as u64;
        if let Some(messages) = self.messages.get_mut(usize::from(u8::from(qos))) {
            *messages += count as u64;
        }
    }
}

/// Counts since the start, and sizes as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// From clients.
    pub received: Traffic,
    /// To clients.
    pub sent: Traffic,
    /// CONNECTs that were accepted.
    pub connects_accepted: u64,
    /// CONNECTs, and first packets that were none, that were refused, by reason code. 3.1 and 3.1.1 clients are told less.
    pub connects_refused: Vec<(ReasonCode, u64)>,
    /// Messages given up before their receiver had them, by reason, one for each receiver; and those that were not
    /// retained as they should have been.
    pub dropped: Dropped,
    /// Dead letters published, by reason.
    pub dead_letters: Vec<(DeadReason, u64)>,
    /// Messages that are to become dead letters.
    pub dead_letters_waiting: u64,
    /// Publishes refused because the bound on retained messages is reached.
    pub refused_retained_full: u64,
    /// Publishes refused because the queue of a subscriber is full under the policy `reject`.
    pub refused_queue_full: u64,
    /// Publishes refused because the disk is full.
    pub refused_disk_full: u64,
    /// Publishes refused because the store has failed.
    pub refused_store_failed: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Retained messages now.
    pub retained_messages: u64,
    /// Their bytes of topic, payload and properties.
    pub retained_bytes: u64,
    /// The journal's own.
    pub store: store::Stats,
}

/// The sessions at one moment, more or less: each was looked at by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// With a client connected.
    pub online: u64,
    /// Without.
    pub offline: u64,
    /// Messages that wait for their turn to be sent, one for each receiver.
    pub queued_messages: u64,
    /// Their bytes of topic, payload and properties. A message for many sessions is on disk once.
    pub queued_bytes: u64,
    /// Messages sent and not durably confirmed.
    pub in_flight_messages: u64,
}

/// Why not everything that is promised can be kept at present. Whoever finds another reason adds it here and in
/// [`Broker::unready`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The journal is poisoned.
    #[error("store_failed: writing the journal failed, and nothing is acknowledged any more until a restart")]
    StoreFailed,
    /// The broker ends.
    #[error("shutting_down: clients are being asked to leave")]
    ShuttingDown,
}

/// Every promise is kept, and something is wrong all the same: not all of what clients want can be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Strained {
    /// There is no room to store anything more.
    #[error("disk_full: what would have to be stored is refused until there is room; deliveries go on")]
    DiskFull,
}

impl Broker {
    /// Counts and sizes, without those of the sessions.
    pub fn stats(&self) -> Stats {
        let (retained_messages, retained_bytes) = lock(&self.retained).size();
        let counters = &self.counters;
        let dropped = self.drops.read();
        Stats {
            received: counters.received_so_far(),
            sent: counters.sent_so_far(),
            connects_accepted: counters.accepted_so_far(),
            connects_refused: counters.refused_so_far(),
            dropped,
            dead_letters: self.letters.sent_so_far(),
            dead_letters_waiting: self.letters.waiting() as u64,
            refused_retained_full: counters.retained_full.total(),
            refused_queue_full: dropped.rejected,
            refused_disk_full: counters.disk_full.total(),
            refused_store_failed: counters.store_failed.total(),
            subscriptions: self.subscriptions.read().unwrap_or_else(PoisonError::into_inner).len() as u64,
            retained_messages: retained_messages as u64,
            retained_bytes: retained_bytes as u64,
            store: self.journal.stats(),
        }
    }

    /// Looks at every session: a few hundred nanoseconds each, so not to be asked for many times a second.
    pub fn session_stats(&self) -> SessionStats {
        let slots = lock(&self.registry).all();
        let mut sum = SessionStats::default();
        for slot in slots {
            if slot.is_dozing() {
                sum.offline += 1;
                continue;
            }
            let state = slot.state();
            if state.ended {
                continue;
            }
            let online = state.connection.is_some();
            *(if online { &mut sum.online } else { &mut sum.offline }) += 1;
            let (messages, bytes) = state.session.outbound.waiting();
            sum.queued_messages += messages as u64;
            sum.queued_bytes += bytes as u64;
            sum.in_flight_messages += state.session.outbound.in_flight() as u64;
        }
        sum
    }

    /// What keeps the broker from keeping all it promises; nothing: it is ready.
    pub fn unready(&self) -> Vec<Unready> {
        let store_failed = self.journal.poisoned().then_some(Unready::StoreFailed);
        let shutting_down = self.is_shutting_down().then_some(Unready::ShuttingDown);
        store_failed.into_iter().chain(shutting_down).collect()
    }

    /// What it can do less than usual, ready or not.
    pub fn strained(&self) -> Vec<Strained> {
        (!self.journal.has_room(0)).then_some(Strained::DiskFull).into_iter().collect()
    }

    /// Whether the broker makes progress: its clock work was looked after within `limit`, and the journal's threads
    /// serve. A journal that has failed serves still, in that it says so.
    pub fn is_alive(&self, limit: Duration) -> bool {
        let looked_after = Timestamp(self.looked_after_at.load(Ordering::Relaxed));
        self.now().since(looked_after) <= limit && self.journal.is_alive(limit)
    }
}
