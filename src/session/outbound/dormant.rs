//! The outbound half of a session that sleeps while nothing waits for it.

use super::{Outbound, QueueLimits};
use crate::{message::Seq, session::keeper::Keeper};

/// All there is to remember of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dormant {
    next: Seq,
    reserved: Seq,
    limits: QueueLimits,
}

impl<K: Keeper> Outbound<K> {
    /// What has to be kept of it; `None` if there are messages, or what was done with the last ones is not durable.
    pub fn dormant(&self, keeper: &K) -> Option<Dormant> {
        let Self { next, reserved, limits, .. } = *self;
        let is_dormant =
            self.is_empty() && self.releases.is_empty() && !self.handing_on && !self.is_settling(keeper);
        is_dormant.then_some(Dormant { next, reserved, limits })
    }

    /// The same again, without messages.
    pub fn wake(dormant: Dormant, inflight_max: u16) -> Self {
        Self::new(dormant.next, dormant.reserved, inflight_max, dormant.limits)
    }

    /// Whether the end of the latest message, or the next numbers, are not durable yet.
    pub(super) fn is_settling(&self, keeper: &K) -> bool {
        self.reservation.is_some() || self.dropped.as_ref().is_some_and(|gate| !keeper.is_open(gate))
    }
}
