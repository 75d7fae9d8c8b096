//! What a session still has to deliver: the queue and the in-flight window.
//!
//! ```text
//!  deliver()      transmit()                PUBACK                       gate opens
//!  ---------> queue ---------> AwaitPuback ----------------------------> Confirmed -----------> gone
//!                   \--------> AwaitPubrec --PUBREC--> AwaitRelease --gate, PUBREL--> AwaitPubcomp --PUBCOMP--^
//! ```
//!
//! Invariants:
//! - `inflight` then `queue` hold ascending sequence numbers; messages are sent strictly in that order.
//! - At most `inflight_max` messages are sent and not *durably* confirmed, so that after a crash the oldest
//!   `inflight_max` unconfirmed ones include every message that was sent.
//! - No two messages in flight share a packet id: their sequence numbers span less than 65,535.
//! - PUBREL leaves only when the PUBREC it answers is durable.

mod acknowledge;
mod shared;
mod transmit;

use std::collections::VecDeque;

pub use acknowledge::Acknowledged;
pub use shared::{Leaving, Remains};
pub(crate) use transmit::Next;

use super::keeper::{DropReason, Keeper};
use crate::{
    codec::QoS,
    message::{Delivery, Seq},
    time::Timestamp,
    topic::TopicFilter,
};

/// A message waiting for its turn.
pub struct Entry<K: Keeper> {
    /// Its place in the session's order.
    pub seq: Seq,
    /// The message.
    pub kept: K::Kept,
    /// How this session gets it.
    pub delivery: Delivery,
}

/// One message on its way to the client.
struct InFlight<K: Keeper> {
    seq: Seq,
    /// When it was sent last; the beginning of time for one of an earlier connection.
    sent_at: Timestamp,
    state: State<K>,
}

enum State<K: Keeper> {
    AwaitPuback(K::Kept, Delivery),
    AwaitPubrec(K::Kept, Delivery),
    /// PUBREC came; PUBREL waits in `releases` until that is durable.
    AwaitRelease,
    AwaitPubcomp,
    /// Confirmed by the client; counted in the window until that is durable.
    Confirmed(K::Gate),
}

/// Bounds of one session's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages waiting; the oldest makes room for a new one beyond it.
    pub messages_max: usize,
    /// Their bytes of topic and payload.
    pub bytes_max: usize,
}

/// The delivering half of a session.
pub struct Outbound<K: Keeper> {
    inflight: VecDeque<InFlight<K>>,
    queue: VecDeque<Entry<K>>,
    queue_bytes: usize,
    /// QoS 0 messages in the queue.
    at_most_once: usize,
    /// The in-flight entries in `AwaitRelease`, in the order their PUBRECs came.
    releases: VecDeque<(Seq, K::Gate)>,
    /// In-flight entries before this index have been sent on the present connection.
    resent: usize,
    /// Exchanges that are open on this connection: PUBLISH sent, or PUBREL due, and not finished by the client.
    open: usize,
    /// How many of them there may be for another PUBLISH to be sent (MQTT 5.0 section 4.9).
    open_max: usize,
    next: Seq,
    /// Numbers below this are reserved durably.
    reserved: Seq,
    reservation: Option<(Seq, K::Gate)>,
    inflight_max: usize,
    limits: QueueLimits,
    /// Where the latest message given up is durably gone. Before that a crash would bring it back and count it among
    /// the sent ones in the place of a later one.
    dropped: Option<K::Gate>,
    /// Which messages came by a shared subscription, and by which; ascending, some of them gone by now.
    shared: VecDeque<(Seq, TopicFilter)>,
    /// Messages that were taken out of the queue are on their way to other sessions.
    handing_on: bool,
}

/// Messages read back from disk in one request, at most.
const LOAD_MESSAGES_MAX: usize = 64;
/// Sequence numbers reserved at a time. A reservation is a commit, and for messages that never touch the disk it is the
/// only one; a crash skips what is left of a block, of a packet id space that is 65,535 wide.
pub const SEQ_BLOCK: u64 = 8_192;

impl<K: Keeper> Outbound<K> {
    /// An empty queue whose numbers begin at `next`; `reserved` is the first number that is not reserved.
    pub fn new(next: Seq, reserved: Seq, inflight_max: u16, limits: QueueLimits) -> Self {
        Self {
            inflight: VecDeque::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            at_most_once: 0,
            releases: VecDeque::new(),
            resent: 0,
            open: 0,
            open_max: 0,
            next,
            reserved,
            reservation: None,
            inflight_max: usize::from(inflight_max.max(1)),
            limits,
            dropped: None,
            shared: VecDeque::new(),
            handing_on: false,
        }
    }

    /// Rebuilds the state after a restart. `received` are the numbers awaiting PUBCOMP, in any order, `entries` the
    /// unconfirmed messages, ascending. The oldest `inflight_max` of all may have been sent, and all that are older
    /// than a received one were.
    pub fn recover(&mut self, keeper: &K, received: &[Seq], entries: Vec<Entry<K>>) {
        let mut received = received.to_vec();
        received.sort_unstable();
        let mut received = received.into_iter().peekable();
        let mut entries = entries.into_iter().peekable();
        loop {
            let take_received = match (received.peek(), entries.peek()) {
                (Some(r), Some(e)) => *r < e.seq,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            if take_received {
                if let Some(seq) = received.next() {
                    self.inflight.push_back(InFlight {
                        seq,
                        sent_at: Timestamp(0),
                        state: State::AwaitPubcomp,
                    });
                }
            } else if let Some(entry) = entries.next() {
                let in_window = self.inflight.len() < self.inflight_max || received.peek().is_some();
                if in_window && entry.delivery.qos != QoS::AtMostOnce {
                    self.inflight.push_back(InFlight {
                        seq: entry.seq,
                        sent_at: Timestamp(0),
                        state: awaiting(entry.kept, entry.delivery),
                    });
                } else {
                    self.queue_bytes += keeper.size_bytes(&entry.kept);
                    self.at_most_once += usize::from(entry.delivery.qos == QoS::AtMostOnce);
                    self.queue.push_back(entry);
                }
            }
        }
        let last =
            self.queue.back().map(|e| e.seq).into_iter().chain(self.inflight.back().map(|f| f.seq)).max();
        if let Some(last) = last {
            self.next = self.next.max(Seq(last.0 + 1));
        }
    }

    /// Messages not yet confirmed: waiting and in flight.
    pub fn len(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }

    /// Messages that wait for their turn, and their bytes of topic and payload.
    pub fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.queue_bytes)
    }

    /// Messages sent whose confirmation is not durable.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the client has owed the acknowledgement of its oldest message.
    pub fn awaited_since(&self) -> Option<Timestamp> {
        self.inflight.iter().find(|f| f.kept().is_some()).map(|f| f.sent_at)
    }

    /// Whether a message delivered now could be sent at once: nothing waits before it.
    pub fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether QoS 0 messages wait, which later ones must not overtake.
    pub fn holds_at_most_once(&self) -> bool {
        self.at_most_once > 0
    }

    /// Whether a message of this size can wait without pushing another one out.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.queue.len() < self.limits.messages_max
            && self.queue_bytes.saturating_add(bytes) <= self.limits.bytes_max
    }

    /// Whether what is delivered now is near enough to its turn for its body to stay in memory.
    pub fn sends_soon(&self) -> bool {
        self.queue.len() <= LOAD_MESSAGES_MAX
    }

    /// The connection is gone: bodies that were loaded to be sent may leave memory.
    pub fn unload(&self, keeper: &K) {
        let ahead = self.queue.iter().take(LOAD_MESSAGES_MAX).map(|e| &e.kept);
        self.unconfirmed().chain(ahead).for_each(|kept| keeper.unload(kept));
    }

    /// Takes a message for delivery and gives it its number. Beyond the queue's bounds its oldest waiting message goes.
    pub fn deliver(&mut self, keeper: &K, kept: K::Kept, delivery: Delivery) -> Seq {
        let seq = self.next;
        self.next = Seq(seq.0 + 1);
        self.queue_bytes += keeper.size_bytes(&kept);
        self.at_most_once += usize::from(delivery.qos == QoS::AtMostOnce);
        self.queue.push_back(Entry { seq, kept, delivery });
        while self.queue.len() > self.limits.messages_max
            || (self.queue_bytes > self.limits.bytes_max && self.queue.len() > 1)
        {
            self.drop_front(keeper, DropReason::QueueFull);
        }
        seq
    }

    fn drop_front(&mut self, keeper: &K, reason: DropReason) {
        if let Some(entry) = self.take_front(keeper) {
            self.dropped = Some(keeper.dropped(entry.seq, &entry.kept, reason, None));
        }
    }

    fn take_front(&mut self, keeper: &K) -> Option<Entry<K>> {
        let entry = self.queue.pop_front()?;
        self.queue_bytes = self.queue_bytes.saturating_sub(keeper.size_bytes(&entry.kept));
        self.at_most_once -= usize::from(entry.delivery.qos == QoS::AtMostOnce);
        if self.queue.is_empty() && self.queue.capacity() > 1_024 {
            self.queue = VecDeque::new();
        }
        Some(entry)
    }

    /// Sets the window's size. A larger one must be durable before it is used.
    pub fn set_inflight_max(&mut self, inflight_max: u16) {
        self.inflight_max = usize::from(inflight_max.max(1));
    }

    /// The block to reserve next, when the present one is half used. To be asked after each delivery, and whenever
    /// messages are sent: a sleeper's queue may be many blocks long when the first of them becomes durable.
    pub fn wanted_reservation(&mut self, keeper: &K) -> Option<Seq> {
        self.note_reserved(keeper);
        (self.reservation.is_none() && self.next.0.saturating_add(SEQ_BLOCK / 2) > self.reserved.0)
            .then(|| Seq(self.next.0 + SEQ_BLOCK))
    }

    /// Notes that numbers below `until` are reserved once `gate` opens.
    pub fn reserving(&mut self, until: Seq, gate: K::Gate) {
        self.reservation = Some((until, gate));
    }

    /// A new connection: everything in flight has to be sent again [MQTT-4.4.0-1].
    pub fn begin_connection(&mut self, receive_maximum: u16) {
        self.resent = 0;
        self.open_max = usize::from(receive_maximum);
        let released = |f: &&InFlight<K>| matches!(f.state, State::AwaitRelease | State::AwaitPubcomp);
        self.open = self.inflight.iter().filter(released).count();
    }

    /// Lets go of confirmations that are durable.
    fn trim(&mut self, keeper: &K) {
        while let Some(InFlight { state: State::Confirmed(gate), .. }) = self.inflight.front() {
            if !keeper.is_open(gate) {
                break;
            }
            self.inflight.pop_front();
            self.resent = self.resent.saturating_sub(1);
        }
        self.note_reserved(keeper);
    }

    fn note_reserved(&mut self, keeper: &K) {
        if let Some((until, gate)) = &self.reservation
            && keeper.is_open(gate)
        {
            self.reserved = self.reserved.max(*until);
            self.reservation = None;
        }
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        self.inflight.binary_search_by_key(&seq, |f| f.seq).ok()
    }

    /// Numbers awaiting PUBCOMP, ascending, for the session's snapshot.
    pub fn received(&self) -> Vec<Seq> {
        let awaiting = |f: &&InFlight<K>| matches!(f.state, State::AwaitRelease | State::AwaitPubcomp);
        self.inflight.iter().filter(awaiting).map(|f| f.seq).collect()
    }

    /// The number the next message gets.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Numbers below this are, or are about to be, reserved.
    pub fn reserved(&self) -> Seq {
        self.reservation.as_ref().map_or(self.reserved, |(until, _)| self.reserved.max(*until))
    }

    /// How many bodies are in memory.
    #[cfg(test)]
    pub(crate) fn loaded(&self, keeper: &K) -> usize {
        let all = self.unconfirmed().chain(self.queue.iter().map(|e| &e.kept));
        all.filter(|kept| matches!(keeper.body(kept), super::keeper::Body::Loaded(_))).count()
    }

    /// Unconfirmed messages in flight, oldest first: what a lost connection leaves behind.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &K::Kept> {
        self.inflight.iter().filter_map(InFlight::kept)
    }
}

impl<K: Keeper> InFlight<K> {
    fn kept(&self) -> Option<&K::Kept> {
        match &self.state {
            State::AwaitPuback(kept, _) | State::AwaitPubrec(kept, _) => Some(kept),
            _ => None,
        }
    }
}

fn awaiting<K: Keeper>(kept: K::Kept, delivery: Delivery) -> State<K> {
    if delivery.qos == QoS::ExactlyOnce {
        State::AwaitPubrec(kept, delivery)
    } else {
        State::AwaitPuback(kept, delivery)
    }
}
