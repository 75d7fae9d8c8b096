//! Whether a drain will soon be through with what there is.

use std::time::Duration;

use crate::time::Timestamp;

/// What would be gone in so much time, at the pace of the last moment, is not worth a copy.
const SOON: Duration = Duration::from_secs(10);
/// A pace is seen over so much time at least.
pub(super) const SEEN_OVER: Duration = Duration::from_millis(250);

/// How fast there is less of what is wanted.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    seen_at: Timestamp,
    seen_bytes: u64,
    is_fast: bool,
}

impl Ebb {
    /// Takes note of how much is wanted now. True if at this pace nothing will be before long.
    pub(super) fn is_fast(&mut self, bytes: u64, now: Timestamp) -> bool {
        let passed = now.since(self.seen_at);
        if passed >= SEEN_OVER {
            let gone = u128::from(self.seen_bytes.saturating_sub(bytes));
            self.is_fast = gone > 0 && u128::from(bytes) * passed.as_millis() <= gone * SOON.as_millis();
            (self.seen_at, self.seen_bytes) = (now, bytes);
        }
        self.is_fast
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
        assert!(ebb.is_fast(951, Timestamp(5_500)), "951 left, 49 go in 500 ms");
        assert!(ebb.is_fast(951, Timestamp(5_600)), "too early to tell");
        assert!(!ebb.is_fast(920, Timestamp(6_000)), "920 left, 31 go in 500 ms");
        assert!(ebb.is_fast(0, Timestamp(6_500)));
        assert!(!ebb.is_fast(0, Timestamp(7_000)), "nothing goes any more");
        assert!(!ebb.is_fast(1_000, Timestamp(7_500)));
    }
}
