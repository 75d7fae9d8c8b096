//! Whether a message may be kept at all, decided before the first session gets it.
//!
//! Under the policy `reject` a publish finds room in every queue it would have to wait in, or it is refused as a whole:
//! no session has it, no topic retains it, and its publisher knows. The rooms are looked at one after the other, without
//! holding them: messages that several threads are dispatching at this moment may each find the last one, so a queue can
//! exceed its bound by one message for each of the broker's threads. None of them is lost by that.
//!
//! The same goes for what would have to be stored on a full disk. There the journal has the last word, under its lock: not
//! one message more is taken than there is room for.
//!
//! Who cannot be told is not refused (QoS 0, wills): the sessions that have room get it, and the others' share is
//! dropped and counted.

use super::{
    Broker,
    dispatch::{Refused, Route, Share, Shares, group_share},
};
use crate::{
    codec::{Publish, ReasonCode},
    message::size_bytes,
    session::{Overflow, Verdict},
};

/// The verdict on what would have to be stored on a full disk.
pub(super) const DISK_FULL: Verdict = Verdict { reason: ReasonCode::QuotaExceeded, why: "the disk is full" };

/// The verdict on a message from a client where only the broker publishes.
pub(super) const RESERVED: Verdict =
    Verdict { reason: ReasonCode::NotAuthorized, why: "topics under $dead are the broker's own" };

/// What has to be found for a message.
struct Wanted<'a> {
    route: &'a Route,
    bytes: usize,
    /// There is no room on the disk for that.
    is_disk_full: bool,
}

impl Broker {
    /// Refuses the message if a session is full that may refuse it, or would keep it on a full disk. A shared subscription's
    /// share goes to a member with room, if there is one.
    pub(super) fn find_room<'a>(
        &self,
        shares: &mut Shares<'a>,
        route: &'a Route,
        publish: &Publish<'_>,
    ) -> Result<(), Refused> {
        let bytes = size_bytes(&route.topic, publish);
        let wanted = Wanted { route, bytes, is_disk_full: !self.journal.has_room(bytes) };
        if !wanted.is_disk_full && !self.queues.may_reject() {
            return Ok(());
        }
        for share in shares.direct() {
            if let Some(refused) = self.why_not(&share, &wanted) {
                return Err(self.count_refused(refused, &share, route));
            }
        }
        for share in &mut shares.members {
            let mut passed_over = Vec::new();
            while let Some(refused) = self.why_not(share, &wanted) {
                passed_over.push(share.slot.no);
                let group = share.group.and_then(|name| route.groups.iter().find(|g| g.name() == name));
                let other = group.and_then(|group| Some((group.choose(&passed_over)?, group)));
                let Some(((slot, subscription), group)) = other else {
                    return Err(self.count_refused(refused, share, route));
                };
                *share = group_share(slot, subscription, group.name(), publish);
            }
        }
        Ok(())
    }

    fn count_refused(&self, refused: Refused, share: &Share<'_>, route: &Route) -> Refused {
        if refused == Refused::QueueFull {
            self.drops.rejected(&share.slot.keep.client_id, &route.topic);
        }
        refused
    }

    /// Why this subscriber cannot be given its share.
    fn why_not(&self, share: &Share<'_>, wanted: &Wanted<'_>) -> Option<Refused> {
        if !self.keeps(share) {
            return None;
        }
        if wanted.is_disk_full && share.slot.keep.persistent {
            return Some(Refused::DiskFull);
        }
        let rule = self.queues.rule(wanted.route.label, share.slot.queue_rules());
        if self.queues.overflow(rule) != Overflow::Reject {
            return None;
        }
        let state = share.slot.state();
        let has_room = state.ended || state.session.outbound.has_room(wanted.bytes, rule);
        (!has_room).then_some(Refused::QueueFull)
    }
}
