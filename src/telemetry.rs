//! Counters, and log lines that do not flood.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more. `Some(total)` when this one should be logged: the first, then at each doubling, so that a
    /// flood leaves a few lines and each line tells how many there were.
    pub fn count(&self) -> Option<u64> {
        let total = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        total.is_power_of_two().then_some(total)
    }

    /// Counts several at once, and returns the total.
    pub fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed) + more
    }

    /// How many so far.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn a_flood_is_logged_at_each_doubling() {
        let counter = Counter::default();
        let logged: Vec<u64> = (0..100).filter_map(|_| counter.count()).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(counter.total(), 100);
    }
}
