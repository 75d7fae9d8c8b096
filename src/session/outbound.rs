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

use std::{collections::VecDeque, sync::Arc};

use super::keeper::{Body, DropReason, Keeper};
use crate::{
    codec::{PacketId, QoS},
    message::{Delivery, Message, Seq},
    time::Timestamp,
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

/// The next thing to put on the wire, or why there is none.
pub(crate) enum Next<K: Keeper> {
    /// A PUBLISH; `dup` when it may have been sent before.
    Publish { body: Arc<Message>, delivery: Delivery, seq: Seq, dup: bool },
    /// A PUBREL.
    Release(PacketId),
    /// Bodies have to be read back first, this one and the following.
    Load(Vec<K::Kept>),
    /// Nothing may leave before this gate opens.
    Wait(K::Gate),
    /// The window is full or the queue is empty.
    Nothing,
}

/// What an acknowledgement from the client led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It fits a message in flight.
    Yes,
    /// No message in flight has that packet id.
    UnknownId,
    /// The message is of another quality of service.
    WrongKind,
}

/// The delivering half of a session.
pub struct Outbound<K: Keeper> {
    inflight: VecDeque<InFlight<K>>,
    queue: VecDeque<Entry<K>>,
    queue_bytes: usize,
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
}

/// Messages read back from disk in one request, at most.
const LOAD_MESSAGES_MAX: usize = 64;
/// Their bytes, at most (a single larger message is read alone).
const LOAD_BYTES_MAX: usize = 256 * 1024;
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
                    self.inflight.push_back(InFlight { seq, state: State::AwaitPubcomp });
                }
            } else if let Some(entry) = entries.next() {
                let in_window = self.inflight.len() < self.inflight_max || received.peek().is_some();
                if in_window && entry.delivery.qos != QoS::AtMostOnce {
                    self.inflight
                        .push_back(InFlight { seq: entry.seq, state: awaiting(entry.kept, entry.delivery) });
                } else {
                    self.queue_bytes += keeper.size_bytes(&entry.kept);
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

    /// Messages sent whose confirmation is not durable.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a message delivered now could be sent at once: nothing waits before it.
    pub fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
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
            self.dropped = Some(keeper.dropped(entry.seq, &entry.kept, reason));
        }
    }

    fn take_front(&mut self, keeper: &K) -> Option<Entry<K>> {
        let entry = self.queue.pop_front()?;
        self.queue_bytes = self.queue_bytes.saturating_sub(keeper.size_bytes(&entry.kept));
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

    /// What to send next. Each `Publish` and `Release` returned counts as sent.
    pub(crate) fn poll_next(&mut self, keeper: &K, now: Timestamp) -> Next<K> {
        self.trim(keeper);
        // A PUBREL first: it needs no quota, and what is before the resend mark may wait for nothing but its PUBCOMP.
        if let Some(id) = self.poll_release(keeper) {
            return Next::Release(id);
        }
        if let Some(next) = self.poll_resend(keeper) {
            return next;
        }
        self.poll_queue(keeper, now)
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

    fn poll_resend(&mut self, keeper: &K) -> Option<Next<K>> {
        while let Some(entry) = self.inflight.get_mut(self.resent) {
            match &entry.state {
                State::AwaitPuback(kept, delivery) | State::AwaitPubrec(kept, delivery) => {
                    if self.open >= self.open_max {
                        return Some(self.waiting_release());
                    }
                    match keeper.body(kept) {
                        Body::Loaded(body) => {
                            let next =
                                Next::Publish { body, delivery: delivery.clone(), seq: entry.seq, dup: true };
                            keeper.unload(kept);
                            self.open += 1;
                            self.resent += 1;
                            return Some(next);
                        }
                        Body::Unloaded => {
                            let wanted = self.inflight.iter().skip(self.resent).filter_map(InFlight::kept);
                            return Some(Next::Load(batch(keeper, wanted)));
                        }
                        Body::Lost => {
                            self.dropped = Some(keeper.dropped(entry.seq, kept, DropReason::Damaged));
                            self.inflight.remove(self.resent);
                        }
                    }
                }
                State::AwaitPubcomp => {
                    let id = entry.seq.packet_id();
                    self.resent += 1;
                    return Some(Next::Release(id));
                }
                // Its PUBREL leaves through `poll_release` when the gate opens.
                State::AwaitRelease | State::Confirmed(_) => self.resent += 1,
            }
        }
        None
    }

    /// PUBRELs leave in the order of the PUBRECs [MQTT-4.6.0-4].
    fn poll_release(&mut self, keeper: &K) -> Option<PacketId> {
        while let Some((seq, gate)) = self.releases.front() {
            if !keeper.is_open(gate) {
                return None;
            }
            let seq = *seq;
            self.releases.pop_front();
            let Some(i) = self.position(seq) else { continue };
            if let Some(f) = self.inflight.get_mut(i) {
                f.state = State::AwaitPubcomp;
            }
            // Behind the resend mark it is sent when the mark gets there.
            if i < self.resent {
                return Some(seq.packet_id());
            }
        }
        None
    }

    fn poll_queue(&mut self, keeper: &K, now: Timestamp) -> Next<K> {
        loop {
            let Some(front) = self.queue.front() else { return self.waiting_release() };
            if keeper.expires_at(&front.kept) <= now {
                self.drop_front(keeper, DropReason::Expired);
                continue;
            }
            if front.delivery.qos != QoS::AtMostOnce
                && let Some(blocked) = self.window(keeper, front)
            {
                return blocked;
            }
            match keeper.body(&front.kept) {
                Body::Loaded(body) => return self.send_front(keeper, body),
                Body::Unloaded => return Next::Load(batch(keeper, self.queue.iter().map(|e| &e.kept))),
                Body::Lost => self.drop_front(keeper, DropReason::Damaged),
            }
        }
    }

    /// Why `front` may not be sent yet.
    fn window(&self, keeper: &K, front: &Entry<K>) -> Option<Next<K>> {
        if front.delivery.qos == QoS::ExactlyOnce {
            let gate = keeper.sent_after(&front.kept);
            if !keeper.is_open(&gate) {
                return Some(Next::Wait(gate));
            }
            if let Some(gate) = self.dropped.as_ref().filter(|gate| !keeper.is_open(gate)) {
                keeper.hurry();
                return Some(Next::Wait(gate.clone()));
            }
        }
        if front.seq >= self.reserved {
            return Some(self.reservation.as_ref().map_or(Next::Nothing, |(_, gate)| {
                keeper.hurry();
                Next::Wait(gate.clone())
            }));
        }
        let oldest = self.inflight.front();
        let ids_repeat = oldest.is_some_and(|o| front.seq.0.saturating_sub(o.seq.0) >= Seq::PACKET_IDS);
        if self.inflight.len() >= self.inflight_max || ids_repeat {
            if let Some(InFlight { state: State::Confirmed(gate), .. }) = oldest {
                keeper.hurry();
                return Some(Next::Wait(gate.clone()));
            }
            return Some(self.waiting_release());
        }
        (self.open >= self.open_max).then(|| self.waiting_release())
    }

    /// Nothing to send, unless a PUBREL waits for the disk.
    fn waiting_release(&self) -> Next<K> {
        self.releases.front().map_or(Next::Nothing, |(_, gate)| Next::Wait(gate.clone()))
    }

    fn send_front(&mut self, keeper: &K, body: Arc<Message>) -> Next<K> {
        let Some(Entry { seq, kept, delivery }) = self.take_front(keeper) else { return Next::Nothing };
        keeper.unload(&kept);
        if delivery.qos == QoS::AtMostOnce {
            keeper.confirm(seq, &kept);
        } else {
            self.open += 1;
            // Everything older has been resent by now, so the new one stands behind the resend mark.
            self.inflight.push_back(InFlight { seq, state: awaiting(kept, delivery.clone()) });
            self.resent = self.inflight.len();
        }
        Next::Publish { body, delivery, seq, dup: false }
    }

    /// The message just polled is larger than this client takes: it counts as delivered [MQTT-3.1.2-25].
    pub(crate) fn skip_too_large(&mut self, keeper: &K, seq: Seq) {
        if let Some(i) = self.position(seq)
            && let Some(f) = self.inflight.get_mut(i)
        {
            if let State::AwaitPuback(kept, _) | State::AwaitPubrec(kept, _) = &f.state {
                self.dropped = Some(keeper.dropped(seq, kept, DropReason::TooLarge));
            }
            self.inflight.remove(i);
            self.resent = self.resent.saturating_sub(1);
            self.open = self.open.saturating_sub(1);
        }
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        self.inflight.binary_search_by_key(&seq, |f| f.seq).ok()
    }

    /// The in-flight entry with this packet id. There is one at most: the window spans less than the id space.
    fn find(&mut self, id: PacketId) -> Option<(usize, &mut InFlight<K>)> {
        let base = self.inflight.front()?.seq.0;
        let wanted = u64::from(id.get()) - 1;
        let offset = (wanted + Seq::PACKET_IDS - base % Seq::PACKET_IDS) % Seq::PACKET_IDS;
        let i = self.position(Seq(base + offset))?;
        Some((i, self.inflight.get_mut(i)?))
    }

    /// PUBACK [MQTT-4.3.2-3].
    pub fn handle_puback(&mut self, keeper: &K, id: PacketId) -> Acknowledged {
        let Some((i, f)) = self.find(id) else { return Acknowledged::UnknownId };
        match &f.state {
            State::AwaitPuback(kept, _) => {
                let gate = keeper.confirm(f.seq, kept);
                self.confirmed(keeper, i, gate, i < self.resent);
                Acknowledged::Yes
            }
            State::Confirmed(_) => Acknowledged::UnknownId,
            _ => Acknowledged::WrongKind,
        }
    }

    /// PUBREC. With `refused` (reason code 0x80 or above) it ends the message [MQTT-4.4.0-2].
    pub fn handle_pubrec(&mut self, keeper: &K, id: PacketId, refused: bool) -> Acknowledged {
        let Some((i, f)) = self.find(id) else { return Acknowledged::UnknownId };
        let seq = f.seq;
        match &f.state {
            State::AwaitPubrec(kept, _) if refused => {
                let gate = keeper.confirm(seq, kept);
                self.confirmed(keeper, i, gate, i < self.resent);
            }
            State::AwaitPubrec(kept, _) => {
                let gate = keeper.received(seq, kept);
                f.state = State::AwaitRelease;
                self.releases.push_back((seq, gate));
                // One that answers an earlier connection's PUBLISH opens the exchange here.
                self.open += usize::from(i >= self.resent);
            }
            // A PUBREC that comes again is answered again, the same way.
            State::AwaitPubcomp => {
                f.state = State::AwaitRelease;
                self.releases.push_back((seq, keeper.open_gate()));
            }
            State::AwaitRelease => {}
            State::Confirmed(_) => return Acknowledged::UnknownId,
            State::AwaitPuback(..) => return Acknowledged::WrongKind,
        }
        Acknowledged::Yes
    }

    /// PUBCOMP.
    pub fn handle_pubcomp(&mut self, keeper: &K, id: PacketId) -> Acknowledged {
        let Some((i, f)) = self.find(id) else { return Acknowledged::UnknownId };
        match &f.state {
            State::AwaitPubcomp => {
                let gate = keeper.completed(f.seq);
                self.confirmed(keeper, i, gate, true);
                Acknowledged::Yes
            }
            State::Confirmed(_) => Acknowledged::UnknownId,
            _ => Acknowledged::WrongKind,
        }
    }

    /// The message at `i` is confirmed; `gate` opens when that is durable. One that was never written is of no interest
    /// to recovery and goes at once, even if an older confirmation still waits for the disk: counted, the many that are
    /// not written would fill the window behind the few that are, and then be written themselves. `was_open`: the
    /// exchange counted against the receive maximum.
    fn confirmed(&mut self, keeper: &K, i: usize, gate: K::Gate, was_open: bool) {
        if keeper.is_open(&gate) {
            self.inflight.remove(i);
            self.resent -= usize::from(i < self.resent);
        } else if let Some(f) = self.inflight.get_mut(i) {
            f.state = State::Confirmed(gate);
        }
        self.open = self.open.saturating_sub(usize::from(was_open));
        self.trim(keeper);
        // Confirmations ride the next commit; only a window nearly full of them asks for one.
        let nearly_full = self.inflight.len() * 4 >= self.inflight_max * 3;
        if nearly_full && self.inflight.front().is_some_and(|f| matches!(f.state, State::Confirmed(_))) {
            keeper.hurry();
        }
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

    /// Every message still held, for a session that ends.
    pub fn drain(&mut self) -> Vec<K::Kept> {
        self.queue_bytes = 0;
        self.releases.clear();
        let waiting = std::mem::take(&mut self.queue).into_iter().map(|e| e.kept);
        let sent = std::mem::take(&mut self.inflight).into_iter().filter_map(|f| match f.state {
            State::AwaitPuback(kept, _) | State::AwaitPubrec(kept, _) => Some(kept),
            _ => None,
        });
        sent.chain(waiting).collect()
    }

    /// How many bodies are in memory.
    #[cfg(test)]
    pub(crate) fn loaded(&self, keeper: &K) -> usize {
        let all = self.unconfirmed().chain(self.queue.iter().map(|e| &e.kept));
        all.filter(|kept| matches!(keeper.body(kept), Body::Loaded(_))).count()
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

/// The first few unloaded messages: one bounded read request.
fn batch<'a, K: Keeper>(keeper: &K, kept: impl Iterator<Item = &'a K::Kept>) -> Vec<K::Kept>
where
    K::Kept: 'a,
{
    let mut bytes = 0;
    let unloaded = kept.take(LOAD_MESSAGES_MAX).filter(|k| matches!(keeper.body(k), Body::Unloaded));
    unloaded
        .enumerate()
        .take_while(|(i, k)| {
            bytes += keeper.size_bytes(k);
            *i == 0 || bytes <= LOAD_BYTES_MAX
        })
        .map(|(_, k)| k.clone())
        .collect()
}
