//! Whether a drain will soon be through with what there is.

use std::time::Duration;

use crate::time::Timestamp;

/// What would be gone in so much time, at the pace of the last moment, is not worth a copy.
const SOON: Duration = Duration::from_secs(10);
/// A pace is seen over so much time at least.
pub(super) const SEEN_OVER: Duration = Duration::from_millis(250);

/// A drain that stalls for no longer than this goes on.
const STALLED_MAX: Duration = Duration::from_secs(2);

/// How fast there is less of what is wanted.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    seen_at: Timestamp,
    seen_bytes: u64,
    /// When it was fast last.
    fast_at: Option<Timestamp>,
}

impl Ebb {
    /// Takes note of how much is wanted now. True if at this pace nothing will be before long.
    pub(super) fn is_fast(&mut self, bytes: u64, now: Timestamp) -> bool {
        let passed = now.since(self.seen_at);
        if passed >= SEEN_OVER {
            let gone = u128::from(self.seen_bytes.saturating_sub(bytes));
            if gone > 0 && u128::from(bytes) * passed.as_millis() <= gone * SOON.as_millis() {
                self.fast_at = Some(now);
            }
            (self.seen_at, self.seen_bytes) = (now, bytes);
        }
        self.fast_at.is_some_and(|at| now.since(at) <= STALLED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Ebb;
    use crate::time::Timestamp;

    #[test]
    fn a_drain_is_fast_that_will_be_through_in_ten_seconds() {
        let mut ebb = Ebb::default();
        assert!(!ebb.is_fast(1_000, Timestamp(5_000)));
        assert!(!ebb.is_fast(500, Timestamp(5_249)), "too early to tell");
        assert!(!ebb.is_fast(960, Timestamp(5_500)), "960 left, 40 go in 500 ms");
        assert!(ebb.is_fast(904, Timestamp(6_000)), "904 left, 56 go in 500 ms");
        assert!(ebb.is_fast(904, Timestamp(7_500)), "it stalls");
        assert!(ebb.is_fast(800, Timestamp(8_000)));
        assert!(ebb.is_fast(799, Timestamp(10_000)), "it hardly goes on");
        assert!(!ebb.is_fast(798, Timestamp(10_001)));
        assert!(ebb.is_fast(0, Timestamp(10_500)));
        assert!(!ebb.is_fast(1_000, Timestamp(13_000)));
    }
}
