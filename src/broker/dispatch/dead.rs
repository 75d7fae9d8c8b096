//! Dead letters on their way to their subscribers, by the same way as every message.

use std::sync::Arc;

use super::{
    super::{
        Broker,
        dead_letters::{DeadReason, Loss},
        slot::Slot,
    },
    Batch, Outgoing, Route, Shares, Touched,
};
use crate::{
    codec::{Publish, QoS},
    message::Message,
    store::{Claim, Completion, Gate},
    time::Timestamp,
};

impl Broker {
    /// Publishes a dead letter. The claim it stands for, if there is one, ends with it.
    pub(in crate::broker) fn dispatch_letter(
        &self,
        route: &Route,
        message: &Arc<Message>,
        claim: Option<&Claim>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Gate {
        let publish = Publish { retain: false, ..message.to_packet(now) };
        let shares = Shares::new(route, &publish, None);
        let must_keep = shares.iter().any(|share| share.slot.keep.persistent && self.keeps(&share));
        let may_pass_on = publish.qos != QoS::AtMostOnce && !route.groups.is_empty();
        let stored = if must_keep && claim.is_none() {
            self.journal.message_if_room(message)
        } else {
            // On a full disk too: what it stands for makes room for it.
            (must_keep || may_pass_on).then(|| self.journal.message(Arc::clone(message)))
        };
        let mut outgoing = Outgoing::new(route, &publish, now).with_copy(message);
        outgoing.may_store = stored.is_some() || !must_keep;
        outgoing.stored = stored.as_ref();
        let mut room = Vec::new();
        let mut batch = Batch::new(&outgoing, shares.len_max(), &mut room);
        self.deliver_all(&shares, &outgoing, &mut batch, touched);
        let Some(stored) = &stored else {
            return claim.map_or(Gate::Open, |claim| self.journal.give_up(claim));
        };
        let completion = Completion { keep_body: batch.is_awaited, ..Completion::default() };
        self.journal.complete_instead(stored, batch.targets, &completion, claim);
        Gate::Message(Arc::clone(stored))
    }

    /// Publishes the letters of those whose queues keep what they have.
    pub(super) fn send_newest(
        &self,
        batch: &mut Batch<'_>,
        outgoing: &Outgoing<'_>,
        touched: &mut Touched,
    ) -> Gate {
        let mut gate = Gate::Open;
        if batch.newest.is_empty() {
            return gate;
        }
        for loss in std::mem::take(&mut batch.newest) {
            let message = outgoing.copy();
            gate = self.send_letter(&message, &loss, None, outgoing.now, touched);
            // Held back, it could be acknowledged before the letter is safe.
            batch.may_elide = false;
        }
        gate
    }

    /// Makes a letter of what one subscriber does not get, where a session's lock is held.
    pub(super) fn note_dead(&self, reason: DeadReason, slot: &Slot, outgoing: &Outgoing<'_>) {
        if self.letters.wants(reason) {
            self.letters.keep(outgoing.copy(), Loss { reason, client_id: Arc::clone(&slot.keep.client_id) });
        }
    }
}
