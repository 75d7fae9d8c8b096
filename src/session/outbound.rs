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
mod bounds;
mod direct;
mod dormant;
mod queue;
mod seldom;
mod shared;
mod transmit;
mod waking;

use std::collections::VecDeque;

pub use acknowledge::Acknowledged;
use bounds::Books;
pub use bounds::{Overflow, QueueRule};
pub use dormant::Dormant;
use queue::Queue;
use seldom::Seldom;
pub use shared::{Leaving, Remains};
pub(crate) use transmit::Next;
use waking::{Waking, first_unsent};

use super::{
    keeper::{DropReason, Keeper},
    shelf::{Shelf, Shelved},
};
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
    /// Messages waiting.
    pub messages_max: usize,
    /// Their bytes of topic, payload and properties.
    pub bytes_max: usize,
    /// What happens beyond it. A session's own part is dropping the oldest; whoever gives it messages asks for room
    /// before, under the other policies.
    pub overflow: Overflow,
}

/// The delivering half of a session.
pub struct Outbound<K: Keeper> {
    inflight: VecDeque<InFlight<K>>,
    /// Messages sent on an earlier connection that are on disk, while the session sleeps. They count as in flight.
    resting: Shelf<K::Parked>,
    queue: Queue<K>,
    queue_bytes: usize,
    /// QoS 0 messages in the queue.
    at_most_once: u32,
    /// The in-flight entries in `AwaitRelease`, in the order their PUBRECs came.
    releases: Seldom<(Seq, K::Gate)>,
    /// In-flight entries before this index have been sent on the present connection.
    resent: usize,
    /// Exchanges that are open on this connection: PUBLISH sent, or PUBREL due, and not finished by the client.
    open: u32,
    /// How many of them there may be for another PUBLISH to be sent (MQTT 5.0 section 4.9).
    open_max: u16,
    next: Seq,
    /// Numbers below this are reserved durably.
    reserved: Seq,
    /// On the heap: there is one for a moment, every so many messages.
    reservation: Option<Box<(Seq, K::Gate)>>,
    inflight_max: u16,
    limits: QueueLimits,
    /// What of the queue is under bounds of its own.
    books: Books,
    /// Where the latest message given up is durably gone. Before that a crash would bring it back and count it among
    /// the sent ones in the place of a later one.
    dropped: Option<K::Gate>,
    /// Which messages came by a shared subscription, and by which; ascending, some of them gone by now.
    shared: Seldom<(Seq, TopicFilter)>,
    /// Messages that were taken out of the queue are on their way to other sessions.
    handing_on: bool,
    /// The journal may not know that the client is there.
    waking: Option<Waking<K::Gate>>,
}

/// Messages read back from disk in one request, at most.
const LOAD_MESSAGES_MAX: usize = 64;
/// With so many messages at hand, those that will not be sent next are looked at whether they are on disk by now.
const AT_HAND_MAX: usize = 2 * LOAD_MESSAGES_MAX;
/// Every so many messages a sleeping session looks which of them are on disk by now.
const REST_EVERY: usize = 8;
/// Sequence numbers reserved at a time. A reservation is a commit, and for messages that never touch the disk it is the
/// only one; a crash skips what is left of a block, of a packet id space that is 65,535 wide.
pub const SEQ_BLOCK: u64 = 8_192;

impl<K: Keeper> Outbound<K> {
    /// An empty queue whose numbers begin at `next`; `reserved` is the first number that is not reserved.
    pub fn new(next: Seq, reserved: Seq, inflight_max: u16, limits: QueueLimits) -> Self {
        Self {
            inflight: VecDeque::new(),
            resting: Shelf::new(),
            queue: Queue::new(),
            queue_bytes: 0,
            at_most_once: 0,
            releases: Seldom::new(),
            resent: 0,
            open: 0,
            open_max: 0,
            next,
            reserved,
            reservation: None,
            inflight_max: inflight_max.max(1),
            limits,
            books: Books::new(),
            dropped: None,
            shared: Seldom::new(),
            handing_on: false,
            waking: None,
        }
    }

    /// Rebuilds the state after a restart. `received` are the numbers awaiting PUBCOMP, in any order, `waiting` the
    /// unconfirmed messages. The oldest `inflight_max` of all may have been sent, and all that are older than a received
    /// one were; but of those from `sent_below` on none that expires, nor any behind one.
    pub fn recover(&mut self, keeper: &K, received: &[Seq], waiting: &Shelf<K::Parked>, sent_below: Seq) {
        let unsent_from = first_unsent(keeper, waiting, sent_below, self.inflight_max());
        let mut received = received.to_vec();
        received.sort_unstable();
        let mut received = received.into_iter().peekable();
        let mut last = waiting.last();
        let mut queue = Shelf::new();
        let await_release = |seq| InFlight { seq, sent_at: Timestamp(0), state: State::AwaitPubcomp };
        for Shelved { seq, parked, delivery } in waiting.iter() {
            while let Some(before) = received.next_if(|r| *r < seq) {
                self.inflight.push_back(await_release(before));
            }
            let in_window = self.in_flight() < self.inflight_max() && seq < unsent_from;
            let in_window = in_window || received.peek().is_some();
            // One whose packet id stands for an older one too was not: it is not sent before that is durably confirmed.
            let oldest = self.inflight.front().map(|f| f.seq).into_iter().chain(self.resting.first()).min();
            let ids_repeat = oldest.is_some_and(|oldest| seq.0.saturating_sub(oldest.0) >= Seq::PACKET_IDS);
            let is_sent = in_window && !ids_repeat && delivery.qos != QoS::AtMostOnce;
            self.at_most_once += u32::from(delivery.qos == QoS::AtMostOnce);
            let place = if is_sent { &mut self.resting } else { &mut queue };
            let fits = place.insert(seq, parked, &delivery).is_ok();
            assert!(fits, "what is on one shelf fits on another");
        }
        last = last.max(received.clone().last());
        self.inflight.extend(received.map(await_release));
        let parked: Vec<_> = queue.iter().map(|shelved| shelved.parked).collect();
        self.queue_bytes = keeper.parked_bytes(&parked);
        self.queue = Queue::shelved(queue);
        last = last.max(self.inflight.back().map(|f| f.seq));
        if let Some(last) = last {
            self.next = self.next.max(Seq(last.0 + 1));
        }
    }

    /// The session sleeps: what is on disk needs no more memory than it takes to find it.
    pub fn rest(&mut self, keeper: &K) {
        self.trim(keeper);
        self.queue.park(keeper, 0);
        self.rest_in_flight(keeper);
        // A window was filled and emptied; as many sessions as there are sleep with theirs.
        if self.inflight.capacity() > 2 * self.inflight.len() {
            self.inflight.shrink_to_fit();
        }
        self.releases.shrink();
    }

    fn rest_in_flight(&mut self, keeper: &K) {
        let is_parkable = |f: &InFlight<K>| f.kept().is_none_or(|kept| keeper.is_parkable(kept));
        let claims = self.inflight.iter().any(|f| f.kept().is_some());
        if !claims || !self.inflight.iter().all(is_parkable) {
            return;
        }
        let mut messages = Vec::new();
        let mut others = VecDeque::new();
        for f in std::mem::take(&mut self.inflight) {
            match f.state {
                State::AwaitPuback(kept, delivery) | State::AwaitPubrec(kept, delivery) => {
                    messages.push((f.seq, kept, delivery));
                }
                state => others.push_back(InFlight { state, ..f }),
            }
        }
        self.inflight = others;
        let left = queue::shelve(keeper, &mut self.resting, messages.into_iter());
        self.take_in_flight(left);
    }

    /// The same after each message for a session that sleeps, which looks only now and then which of them are on disk.
    pub fn rest_now_and_then(&mut self, keeper: &K) {
        if is_look_due(self.at_hand(), REST_EVERY) {
            self.rest(keeper);
        }
    }

    /// Whether a sleeping session may need less memory before long: it has messages that are not on disk yet, or
    /// confirmations that are not, or waits for that alone.
    pub fn is_restless(&self, keeper: &K) -> bool {
        self.at_hand() > 0
            || self.inflight.iter().any(|f| matches!(f.state, State::Confirmed(_)))
            || (self.is_empty() && self.is_settling(keeper))
    }

    /// Messages that are not on the shelf: none, when a sleeping session could `rest`.
    pub fn at_hand(&self) -> usize {
        self.queue.at_hand() + self.inflight.iter().filter(|f| f.kept().is_some()).count()
    }

    /// Takes from the shelf what was sent before the session slept.
    fn stop_resting(&mut self, keeper: &K) {
        let resting: Vec<_> = std::mem::take(&mut self.resting).iter().collect();
        let parked: Vec<_> = resting.iter().map(|shelved| shelved.parked).collect();
        let kept = keeper.unpark(&parked).into_iter().zip(resting);
        self.take_in_flight(kept.map(|(kept, Shelved { seq, delivery, .. })| (seq, kept, delivery)));
    }

    /// Puts messages of an earlier connection among those in flight.
    fn take_in_flight(&mut self, messages: impl Iterator<Item = queue::Parts<K>>) {
        let sent_at = Timestamp(0);
        self.inflight.extend(messages.map(|(seq, kept, delivery)| InFlight {
            seq,
            sent_at,
            state: awaiting(kept, delivery),
        }));
        self.inflight.make_contiguous().sort_unstable_by_key(|f| f.seq);
    }

    /// Messages not yet confirmed: waiting and in flight.
    pub fn len(&self) -> usize {
        self.queue.len() + self.in_flight()
    }

    /// Messages that wait for their turn, and their bytes of topic, payload and properties.
    pub fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.queue_bytes)
    }

    /// Messages sent whose confirmation is not durable.
    pub fn in_flight(&self) -> usize {
        self.inflight.len() + self.resting.len()
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

    fn inflight_max(&self) -> usize {
        usize::from(self.inflight_max)
    }

    /// Whether the window has room for another message, and the client takes one.
    fn has_quota(&self) -> bool {
        self.client_takes_one() && self.inflight.len() < self.inflight_max()
    }

    /// Whether the client takes another exchange besides those that are open.
    fn client_takes_one(&self) -> bool {
        self.open < u32::from(self.open_max)
    }

    /// Whether messages wait that only the client's acknowledgements can move: as many are on the way to it as may be.
    pub fn queue_waits_for_client(&self) -> bool {
        !self.has_quota() && !self.queue.is_empty()
    }

    /// Whether QoS 0 messages wait, which later ones must not overtake.
    pub fn holds_at_most_once(&self) -> bool {
        self.at_most_once > 0
    }

    /// Whether what is delivered now is near enough to its turn for its body to stay in memory.
    pub fn sends_soon(&self) -> bool {
        self.queue.len() <= LOAD_MESSAGES_MAX
    }

    /// The connection is gone: bodies that were loaded to be sent may leave memory.
    pub fn unload(&self, keeper: &K) {
        let ahead = self.queue.ahead().map(|e| &e.kept);
        self.unconfirmed().chain(ahead).for_each(|kept| keeper.unload(kept));
    }

    /// Takes a message for delivery, under a rule or the queue's common bound, and gives it its number. Beyond the bound
    /// the oldest under the same one goes, if that is the policy; else there is room, or the message must not be lost.
    pub fn deliver(&mut self, keeper: &K, kept: K::Kept, delivery: Delivery, rule: Option<QueueRule>) -> Seq {
        let seq = self.next;
        self.next = Seq(seq.0 + 1);
        let bytes = keeper.size_bytes(&kept);
        self.queue_bytes += bytes;
        self.at_most_once += u32::from(delivery.qos == QoS::AtMostOnce);
        self.queue.push_back(Entry { seq, kept, delivery });
        if let Some(rule) = rule {
            self.books.add(rule.no, seq, bytes);
        }
        if rule.map_or(self.limits, |rule| rule.limits).overflow == Overflow::DropOldest {
            self.make_room(keeper, rule);
        }
        if self.queue.at_hand() >= AT_HAND_MAX && is_look_due(self.queue.at_hand(), LOAD_MESSAGES_MAX) {
            self.queue.park(keeper, LOAD_MESSAGES_MAX);
        }
        seq
    }

    fn drop_front(&mut self, keeper: &K, reason: DropReason) {
        if let Some(entry) = self.take_front(keeper) {
            self.dropped = Some(keeper.dropped(entry.seq, &entry.kept, reason, None));
        }
    }

    fn take_front(&mut self, keeper: &K) -> Option<Entry<K>> {
        let entry = self.queue.pop_front(keeper)?;
        let bytes = keeper.size_bytes(&entry.kept);
        self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
        self.books.remove(entry.seq, bytes);
        self.at_most_once -= u32::from(entry.delivery.qos == QoS::AtMostOnce);
        Some(entry)
    }

    /// Sets the window's size. A larger one must be durable before it is used.
    pub fn set_inflight_max(&mut self, inflight_max: u16) {
        self.inflight_max = inflight_max.max(1);
    }

    /// The block to reserve next, when the present one is half used. To be asked after each delivery, and whenever
    /// messages are sent: a sleeper's queue may be many blocks long when the first of them becomes durable.
    pub fn wanted_reservation(&mut self, keeper: &K) -> Option<Seq> {
        self.note_reserved(keeper);
        (self.reservation.is_none() && self.next.0.saturating_add(SEQ_BLOCK / 2) > self.reserved.0)
            .then(|| Seq(self.next.0 + SEQ_BLOCK))
    }

    /// Whether some of the reserved numbers have not been given: none right after a restart.
    pub fn has_numbers(&self) -> bool {
        self.next < self.reserved
    }

    /// Notes that numbers below `until` are reserved once `gate` opens.
    pub fn reserving(&mut self, until: Seq, gate: K::Gate) {
        self.reservation = Some(Box::new((until, gate)));
    }

    /// A new connection: everything in flight has to be sent again [MQTT-4.4.0-1].
    pub fn begin_connection(&mut self, keeper: &K, receive_maximum: u16) {
        self.stop_resting(keeper);
        self.resent = 0;
        self.open_max = receive_maximum;
        let released = |f: &&InFlight<K>| matches!(f.state, State::AwaitRelease | State::AwaitPubcomp);
        self.open = u32::try_from(self.inflight.iter().filter(released).count()).unwrap_or(u32::MAX);
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
        if let Some((until, gate)) = self.reservation.as_deref()
            && keeper.is_open(gate)
        {
            self.reserved = self.reserved.max(*until);
            self.reservation = None;
        }
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        // Most windows have no gaps.
        let guess = usize::try_from(seq.0.checked_sub(self.inflight.front()?.seq.0)?).ok()?;
        if self.inflight.get(guess).is_some_and(|f| f.seq == seq) {
            return Some(guess);
        }
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
        self.reservation.as_deref().map_or(self.reserved, |(until, _)| self.reserved.max(*until))
    }

    /// How many bodies are in memory.
    #[cfg(test)]
    pub(crate) fn loaded(&self, keeper: &K) -> usize {
        let all = self.unconfirmed().chain(self.queue.ahead().map(|e| &e.kept));
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

/// Whether to look at all `at_hand` messages: every so many new ones, and rarely when many wait for a slow disk.
fn is_look_due(at_hand: usize, every: usize) -> bool {
    at_hand.is_multiple_of(every.max((at_hand / 4).next_power_of_two()))
}

fn awaiting<K: Keeper>(kept: K::Kept, delivery: Delivery) -> State<K> {
    if delivery.qos == QoS::ExactlyOnce {
        State::AwaitPubrec(kept, delivery)
    } else {
        State::AwaitPuback(kept, delivery)
    }
}
