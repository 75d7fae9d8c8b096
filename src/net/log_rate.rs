//! Keeps a line that anybody on the network can provoke from filling the log.

use std::time::Duration;

use crate::time::Timestamp;

/// Lets one line through per period and counts the others.
#[derive(Debug)]
pub(super) struct LogRate {
    period: Duration,
    next: Timestamp,
    held_back: u64,
}

impl LogRate {
    /// One line per `period`; the first at once.
    pub(super) const fn new(period: Duration) -> Self {
        Self { period, next: Timestamp(0), held_back: 0 }
    }

    /// `Some(n)`: log it now, for `n` occurrences including this one. `None`: too soon, counted.
    pub(super) fn ripe(&mut self, now: Timestamp) -> Option<u64> {
        self.held_back = self.held_back.saturating_add(1);
        if now < self.next {
            return None;
        }
        self.next = now.after(self.period);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_period_that_counts_the_others() {
        let mut rate = LogRate::new(Duration::from_secs(10));
        assert_eq!(rate.ripe(Timestamp(500)), Some(1));
        assert_eq!(rate.ripe(Timestamp(600)), None);
        assert_eq!(rate.ripe(Timestamp(10_499)), None);
        assert_eq!(rate.ripe(Timestamp(10_500)), Some(3));
        assert_eq!(rate.ripe(Timestamp(10_501)), None);
    }
}
