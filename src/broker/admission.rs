//! Whether a message may be kept at all, decided before the first session gets it.
//!
//! Under the policy `reject` a publish finds room in every queue it would have to wait in, or it is refused as a whole:
//! no session has it, no topic retains it, and its publisher knows. The rooms are looked at one after the other, without
//! holding them: messages that several threads are dispatching at this moment may each find the last one, so a queue can
//! exceed its bound by one message for each of the broker's threads. None of them is lost by that.
//!
//! Who cannot be told is not refused (QoS 0, wills): the sessions that have room get it, and the others' share is
//! dropped and counted.

use super::{
    Broker,
    dispatch::{Refused, Route, Share, group_share},
};
use crate::codec::Publish;
use crate::session::Overflow;

impl Broker {
    /// Refuses the message if a session is full that may refuse it. A shared subscription's share goes to a member with
    /// room, if there is one.
    pub(super) fn find_room<'a>(
        &self,
        shares: &mut [Share<'a>],
        route: &'a Route,
        publish: &Publish<'_>,
    ) -> Result<(), Refused> {
        if !self.queues.may_reject() {
            return Ok(());
        }
        let bytes = route.topic.as_str().len() + publish.payload.len();
        for share in shares {
            let mut passed_over = Vec::new();
            while self.keeps(share) && self.is_refused_by(share, route, bytes) {
                passed_over.push(share.slot.no);
                let group = share.group.and_then(|name| route.groups.iter().find(|g| g.name() == name));
                let other = group.and_then(|group| Some((group.choose(&passed_over)?, group)));
                let Some(((slot, subscription), group)) = other else {
                    self.drops.rejected(&share.slot.client_id, &route.topic);
                    return Err(Refused::QueueFull);
                };
                *share = group_share(slot, subscription, group.name(), publish);
            }
        }
        Ok(())
    }

    fn is_refused_by(&self, share: &Share<'_>, route: &Route, bytes: usize) -> bool {
        let rule = self.queues.rule(route.label, &share.slot.client_id);
        if self.queues.overflow(rule) != Overflow::Reject {
            return false;
        }
        let state = share.slot.state();
        !state.ended && !state.session.outbound.has_room(bytes, rule)
    }
}
