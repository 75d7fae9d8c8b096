//! What the client's acknowledgements do to the messages in flight.

use super::{InFlight, Outbound, State};
use crate::{codec::PacketId, message::Seq, session::keeper::Keeper};

/// What an acknowledgement from the client led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It fits a message in flight.
    Yes,
    /// The same, and the PUBREL that answers it is due.
    Release,
    /// No message in flight has that packet id.
    UnknownId,
    /// The message is of another quality of service.
    WrongKind,
}

impl<K: Keeper> Outbound<K> {
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

    /// Several PUBACKs that came together. Those behind one of the wrong kind are not looked at.
    pub fn handle_pubacks(&mut self, keeper: &K, ids: &[PacketId]) -> Acknowledged {
        let ids = ids.get(self.forget_in_order(keeper, ids)..).unwrap_or_default();
        match *ids {
            [] => return Acknowledged::Yes,
            [id] => return self.handle_puback(keeper, id),
            _ => {}
        }
        let mut result = Acknowledged::Yes;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match self.find(*id) {
                Some((i, InFlight { state: State::AwaitPuback(..), .. })) => found.push(i),
                None | Some((_, InFlight { state: State::Confirmed(_), .. })) => {}
                Some(_) => {
                    result = Acknowledged::WrongKind;
                    break;
                }
            }
        }
        let claim = |i: &usize| {
            let f = self.inflight.get(*i)?;
            f.kept().map(|kept| (f.seq, kept))
        };
        let row: Vec<_> = found.iter().filter_map(claim).collect();
        let gates = keeper.confirm_all(&row);
        let confirmed: Vec<_> = row.into_iter().map(|(seq, _)| seq).zip(gates).collect();
        for (seq, gate) in confirmed {
            // Said twice in a row, it counts once.
            if let Some(i) = self.position(seq)
                && self.inflight.get(i).is_some_and(|f| matches!(f.state, State::AwaitPuback(..)))
            {
                self.confirmed(keeper, i, gate, i < self.resent);
            }
        }
        result
    }

    /// Lets go of messages that nobody keeps track of, as long as they are acknowledged in the order they were sent in:
    /// so many of them.
    fn forget_in_order(&mut self, keeper: &K, ids: &[PacketId]) -> usize {
        let is_next = |f: &InFlight<K>, id: &PacketId| {
            f.seq.packet_id() == *id
                && matches!(&f.state, State::AwaitPuback(kept, _) if keeper.is_untracked(kept))
        };
        let sent = self.inflight.iter().take(self.resent);
        let count = sent.zip(ids).take_while(|(f, id)| is_next(f, id)).count();
        if count > 0 {
            self.inflight.drain(..count);
            self.resent -= count;
            self.open = self.open.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
            self.trim(keeper);
        }
        count
    }

    /// PUBREC. With `refused` (reason code 0x80 or above) it ends the message [MQTT-4.4.0-2]. Its PUBREL leaves at once, or
    /// through `poll_release`.
    pub(crate) fn handle_pubrec(&mut self, keeper: &K, id: PacketId, refused: bool) -> Acknowledged {
        let (resent, in_order) = (self.resent, self.releases.is_empty());
        let Some((i, f)) = self.find(id) else { return Acknowledged::UnknownId };
        let seq = f.seq;
        match &f.state {
            State::AwaitPubrec(kept, _) if refused => {
                let gate = keeper.confirm(seq, kept);
                self.confirmed(keeper, i, gate, i < self.resent);
            }
            State::AwaitPubrec(kept, _) => {
                let gate = keeper.received(seq, kept);
                // Behind the resend mark it is sent when the mark gets there.
                if in_order && i < resent && keeper.is_open(&gate) {
                    f.state = State::AwaitPubcomp;
                    return Acknowledged::Release;
                }
                f.state = State::AwaitRelease;
                self.releases.push_back((seq, gate));
                // One that answers an earlier connection's PUBLISH opens the exchange here.
                self.open += u32::from(i >= resent);
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
            // The oldest first, as a rule, which costs less.
            let _ = if i == 0 { self.inflight.pop_front() } else { self.inflight.remove(i) };
            self.resent -= usize::from(i < self.resent);
        } else if let Some(f) = self.inflight.get_mut(i) {
            f.state = State::Confirmed(gate);
        }
        self.open = self.open.saturating_sub(u32::from(was_open));
        self.trim(keeper);
        // Confirmations ride the next commit; only a window nearly full of them asks for one, if somebody waits behind it.
        let nearly_full = !self.queue.is_empty() && self.inflight.len() * 4 >= self.inflight_max() * 3;
        if nearly_full && self.inflight.front().is_some_and(|f| matches!(f.state, State::Confirmed(_))) {
            keeper.hurry();
        }
    }
}
