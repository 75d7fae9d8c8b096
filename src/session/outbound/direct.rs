//! Messages that are sent as they come: nothing waits before them, and the window has room. They never stand in the queue.

use super::{InFlight, Outbound, awaiting};
use crate::{
    codec::QoS,
    message::{Delivery, Seq},
    session::keeper::Keeper,
    time::Timestamp,
};

impl<K: Keeper> Outbound<K> {
    /// The number of a QoS > 0 message that may be sent at this moment; `sent_at_once` follows if it is. `None`: it has to
    /// stand in line, or whether it has to is found out there.
    pub(crate) fn number_at_once(&self, qos: QoS, expires: bool) -> Option<Seq> {
        let nothing_before =
            self.queue.is_empty() && self.releases.is_empty() && self.resent == self.inflight.len();
        if !nothing_before || !self.resting.is_empty() {
            return None;
        }
        // A crash could bring back what is on its way out or to others, and count it among the sent ones instead.
        if qos == QoS::ExactlyOnce && (self.handing_on || self.dropped.is_some()) {
            return None;
        }
        if expires && self.is_unrecorded() {
            return None;
        }
        let seq = self.next;
        let oldest = self.inflight.front();
        let ids_repeat = oldest.is_some_and(|o| seq.0.saturating_sub(o.seq.0) >= Seq::PACKET_IDS);
        let has_room = self.inflight.len() < self.inflight_max && self.open < self.open_max;
        (has_room && !ids_repeat && seq < self.reserved).then_some(seq)
    }

    /// The message with that number is on its way.
    pub(crate) fn sent_at_once(&mut self, kept: K::Kept, delivery: Delivery, now: Timestamp) {
        let seq = self.next;
        self.next = Seq(seq.0 + 1);
        self.open += 1;
        self.inflight.push_back(InFlight { seq, sent_at: now, state: awaiting(kept, delivery) });
        self.resent = self.inflight.len();
    }
}
