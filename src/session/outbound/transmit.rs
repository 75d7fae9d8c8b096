//! What to send next: first what a lost connection left unfinished, then PUBRELs, then the queue.

use std::sync::Arc;

use super::{Entry, InFlight, LOAD_MESSAGES_MAX, Outbound, State, awaiting, waking::rests_on_wake};
use crate::{
    codec::{PacketId, QoS},
    message::{Delivery, Message, Seq},
    session::keeper::{Body, DropReason, Keeper},
    time::Timestamp,
    topic::TopicName,
};

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

/// Their bytes, at most (a single larger message is read alone).
const LOAD_BYTES_MAX: usize = 256 * 1024;

impl<K: Keeper> Outbound<K> {
    /// What to send next. Each `Publish` and `Release` returned counts as sent.
    pub(crate) fn poll_next(&mut self, keeper: &K, now: Timestamp) -> Next<K> {
        self.trim(keeper);
        // A PUBREL first: it needs no quota, and what is before the resend mark may wait for nothing but its PUBCOMP.
        if let Some(id) = self.poll_release(keeper) {
            return Next::Release(id);
        }
        if let Some(next) = self.poll_resend(keeper, now) {
            return next;
        }
        self.poll_queue(keeper, now)
    }

    fn poll_resend(&mut self, keeper: &K, now: Timestamp) -> Option<Next<K>> {
        while let Some(entry) = self.inflight.get_mut(self.resent) {
            match &entry.state {
                State::AwaitPuback(kept, delivery) | State::AwaitPubrec(kept, delivery) => {
                    if self.open >= u32::from(self.open_max) {
                        return Some(self.waiting_release());
                    }
                    match keeper.body(kept) {
                        Body::Loaded(body) => {
                            // [MQTT-3.3.1-1], [MQTT3-3.3.1-1]
                            let next =
                                Next::Publish { body, delivery: delivery.clone(), seq: entry.seq, dup: true };
                            keeper.unload(kept);
                            entry.sent_at = now;
                            self.open += 1;
                            self.resent += 1;
                            return Some(next);
                        }
                        Body::Unloaded => {
                            let wanted = self.inflight.iter().skip(self.resent).filter_map(InFlight::kept);
                            return Some(Next::Load(batch(keeper, wanted)));
                        }
                        Body::Lost => {
                            self.dropped = Some(keeper.dropped(entry.seq, kept, DropReason::Damaged, None));
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

    /// PUBRELs leave in the order of the PUBRECs [MQTT3-4.6.0-4].
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
            self.queue.refill(keeper);
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
            if let Some(waking) = &mut self.waking
                && rests_on_wake(keeper, front, self.handing_on, self.dropped.as_ref())
                && let Some(blocked) = waking.hold_back(keeper)
            {
                return blocked;
            }
            match keeper.body(&front.kept) {
                Body::Loaded(body) => return self.send_front(keeper, body, now),
                Body::Unloaded => return Next::Load(batch(keeper, self.queue.ahead().map(|e| &e.kept))),
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
            if self.handing_on {
                return Some(self.waiting_release());
            }
            if let Some(gate) = self.dropped.as_ref().filter(|gate| !keeper.is_open(gate)) {
                keeper.hurry();
                return Some(Next::Wait(gate.clone()));
            }
        }
        if front.seq >= self.reserved {
            return Some(self.reservation.as_deref().map_or(Next::Nothing, |(_, gate)| {
                keeper.hurry();
                Next::Wait(gate.clone())
            }));
        }
        let oldest = self.inflight.front();
        let ids_repeat = oldest.is_some_and(|o| front.seq.0.saturating_sub(o.seq.0) >= Seq::PACKET_IDS);
        if self.inflight.len() >= self.inflight_max() || ids_repeat {
            if let Some(InFlight { state: State::Confirmed(gate), .. }) = oldest {
                keeper.hurry();
                return Some(Next::Wait(gate.clone()));
            }
            return Some(self.waiting_release());
        }
        (!self.client_takes_one()).then(|| self.waiting_release())
    }

    /// Nothing to send, unless a PUBREL waits for the disk.
    fn waiting_release(&self) -> Next<K> {
        self.releases.front().map_or(Next::Nothing, |(_, gate)| Next::Wait(gate.clone()))
    }

    fn send_front(&mut self, keeper: &K, body: Arc<Message>, now: Timestamp) -> Next<K> {
        let Some(Entry { seq, kept, delivery }) = self.take_front(keeper) else { return Next::Nothing };
        keeper.unload(&kept);
        if delivery.qos == QoS::AtMostOnce {
            keeper.confirm(seq, &kept);
        } else {
            self.open += 1;
            // Everything older has been resent by now, so the new one stands behind the resend mark.
            let state = awaiting(kept, delivery.clone());
            self.inflight.push_back(InFlight { seq, sent_at: now, state });
            self.resent = self.inflight.len();
        }
        Next::Publish { body, delivery, seq, dup: false }
    }

    /// The message just polled is larger than this client takes: it counts as delivered [MQTT-3.1.2-25].
    pub(crate) fn skip_too_large(&mut self, keeper: &K, seq: Seq, topic: &TopicName) {
        if let Some(i) = self.position(seq)
            && let Some(f) = self.inflight.get_mut(i)
        {
            if let State::AwaitPuback(kept, _) | State::AwaitPubrec(kept, _) = &f.state {
                self.dropped = Some(keeper.dropped(seq, kept, DropReason::TooLarge, Some(topic)));
            }
            self.inflight.remove(i);
            self.resent = self.resent.saturating_sub(1);
            self.open = self.open.saturating_sub(1);
        }
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
