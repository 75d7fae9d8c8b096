//! Messages that came by a shared subscription, and what becomes of them when this session is its member no more.
//!
//! What has not been sent goes to another member, and sent QoS 1 too when the session ends. QoS 2 that may have been
//! sent stays: it would come twice.

use super::{Entry, InFlight, Outbound, State, seldom::Seldom};
use crate::{codec::QoS, message::Seq, session::keeper::Keeper, topic::TopicFilter};

/// A message on its way to another member of its shared subscription.
pub struct Leaving<K: Keeper> {
    /// The message, with its number here.
    pub entry: Entry<K>,
    /// The shared subscription.
    pub group: TopicFilter,
}

/// What an ended session leaves behind.
pub struct Remains<K: Keeper> {
    /// To be given to others.
    pub leaving: Vec<Leaving<K>>,
    /// Nobody else's.
    pub unconfirmed: Vec<(Seq, K::Kept)>,
}

impl<K: Keeper> Outbound<K> {
    /// Notes by which shared subscription the message just delivered came.
    pub fn mark_shared(&mut self, seq: Seq, group: TopicFilter) {
        // What is done with goes from the front: no more is remembered than the queue and the window span.
        let in_flight = self.inflight.front().map(|f| f.seq);
        let oldest = in_flight.into_iter().chain(self.resting.first()).chain(self.queue.first()).min();
        let oldest = oldest.unwrap_or(seq);
        while self.shared.front().is_some_and(|(first, _)| *first < oldest) {
            self.shared.pop_front();
        }
        if self.shared.is_empty() && self.shared.capacity() > 1_024 {
            self.shared.clear();
        }
        self.shared.push_back((seq, group));
    }

    /// The same for the messages of before a restart, by ascending number.
    pub fn recover_shared(&mut self, groups: Vec<(Seq, TopicFilter)>) {
        self.shared = groups.into();
    }

    /// Takes out what waits for the client by a shared subscription it has ended. What was sent stays: its delivery is
    /// completed [MQTT-3.10.4-3]. Until `handed_on` no QoS 2 message is sent: after a crash one of those taken out
    /// would count as sent in its place.
    pub fn take_waiting(&mut self, keeper: &K, group: &TopicFilter) -> Vec<Leaving<K>> {
        let shared = &self.shared;
        let taken = self.queue.take(keeper, |seq| group_of(shared, seq) == Some(group));
        let leave = |entry: Entry<K>| {
            let bytes = keeper.size_bytes(&entry.kept);
            self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
            self.books.remove(entry.seq, bytes);
            self.at_most_once -= u32::from(entry.delivery.qos == QoS::AtMostOnce);
            Leaving { entry, group: group.clone() }
        };
        let leaving: Vec<_> = taken.into_iter().map(leave).collect();
        self.handing_on = !leaving.is_empty();
        leaving
    }

    /// What was taken out is somebody else's once `gate` is open.
    pub fn handed_on(&mut self, keeper: &K, gate: K::Gate) {
        self.handing_on = false;
        self.hold_exactly_once(keeper, gate);
    }

    /// Sends no QoS 2 message before this gate is open.
    pub fn hold_exactly_once(&mut self, keeper: &K, gate: K::Gate) {
        if !keeper.is_open(&gate) {
            self.dropped = Some(gate);
        }
    }

    /// Every message still held, for a session that ends.
    pub fn dissolve(&mut self, keeper: &K) -> Remains<K> {
        self.stop_resting(keeper);
        self.queue_bytes = 0;
        self.books.clear();
        self.at_most_once = 0;
        self.releases.clear();
        let mut remains = Remains { leaving: Vec::new(), unconfirmed: Vec::new() };
        for InFlight { seq, state, .. } in std::mem::take(&mut self.inflight) {
            match (state, group_of(&self.shared, seq).cloned()) {
                (State::AwaitPuback(kept, delivery), Some(group)) => {
                    let entry = Entry { seq, kept, delivery };
                    remains.leaving.push(Leaving { entry, group });
                }
                (State::AwaitPuback(kept, _) | State::AwaitPubrec(kept, _), _) => {
                    remains.unconfirmed.push((seq, kept));
                }
                _ => {}
            }
        }
        for entry in self.queue.take(keeper, |_| true) {
            match group_of(&self.shared, entry.seq).cloned() {
                Some(group) => remains.leaving.push(Leaving { entry, group }),
                None => remains.unconfirmed.push((entry.seq, entry.kept)),
            }
        }
        self.shared.clear();
        remains
    }
}

fn group_of(shared: &Seldom<(Seq, TopicFilter)>, seq: Seq) -> Option<&TopicFilter> {
    shared.get(&seq, |(seq, _)| *seq).map(|(_, group)| group)
}
