//! Counters, histograms, and log lines that do not flood.
//!
//! Plain values: who counts does not know who reads, or in which format it is shown.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

    /// Counts `n` more. `Some(total)` when a power of two was reached or passed.
    pub fn count_many(&self, n: u64) -> Option<u64> {
        let before = self.0.fetch_add(n, Ordering::Relaxed);
        let total = before.saturating_add(n);
        (total.checked_ilog2() != before.checked_ilog2()).then_some(total)
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

/// Cells of a `Sharded`. Gateways have two to four cores, and a few threads more than that share cells without harm.
const SHARDS: usize = 8;

/// `N` sums that many threads add to all the time. Each thread has cells of its own, in a cache line of its own, so that
/// adding costs a few nanoseconds whatever the others do; reading goes through all of them.
#[derive(Debug)]
pub struct Sharded<const N: usize> {
    shards: [Shard<N>; SHARDS],
}

#[derive(Debug)]
#[repr(align(64))]
struct Shard<const N: usize>([AtomicU64; N]);

impl<const N: usize> Sharded<N> {
    /// Adds to each sum what stands at its place.
    pub fn add(&self, amounts: [u64; N]) {
        thread_local! {
            static SHARD: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
            };
        }
        let Some(Shard(cells)) = self.shards.get(SHARD.with(|shard| *shard)) else { return };
        for (cell, amount) in cells.iter().zip(amounts).filter(|(_, amount)| *amount > 0) {
            cell.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// The sums; each is exact, all together are no snapshot of one moment.
    pub fn totals(&self) -> [u64; N] {
        let mut totals = [0; N];
        for Shard(cells) in &self.shards {
            for (total, cell) in totals.iter_mut().zip(cells) {
                *total += cell.load(Ordering::Relaxed);
            }
        }
        totals
    }
}

impl<const N: usize> Default for Sharded<N> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0)))) }
    }
}

/// How often values fell into each of some ranges, and their sum. Adding takes no lock; for what happens once a commit,
/// not for what happens once a message.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A reading of a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramReading {
    /// The largest value of each range, ascending; what is above the last one has a range of its own.
    pub bounds: &'static [u64],
    /// Values in each range: one more than there are bounds.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: u64,
}

impl Histogram {
    /// An empty one with ranges that end at `bounds`, ascending.
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted(), "bounds ascend");
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Adds a value.
    pub fn record(&self, value: u64) {
        let range = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(range) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was added so far.
    pub fn read(&self) -> HistogramReading {
        HistogramReading {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counter, Histogram, Sharded};

    #[test]
    fn a_flood_is_logged_at_each_doubling() {
        let counter = Counter::default();
        let logged: Vec<u64> = (0..100).filter_map(|_| counter.count()).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(counter.total(), 100);
    }

    #[test]
    fn many_at_once_are_logged_when_they_pass_a_power_of_two() {
        let counter = Counter::default();
        let logged: Vec<Option<u64>> = [1, 4, 2, 1, 100].map(|n| counter.count_many(n)).into();
        assert_eq!(logged, [Some(1), Some(5), None, Some(8), Some(108)]);
    }

    #[test]
    fn sums_of_many_threads_are_exact() {
        let sums = Sharded::<2>::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1_000).for_each(|_| sums.add([1, 3])));
            }
        });
        assert_eq!(sums.totals(), [20_000, 60_000]);
    }

    #[test]
    fn a_bound_belongs_to_the_range_it_ends() {
        let histogram = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 100, 101, 5_000] {
            histogram.record(value);
        }
        let reading = histogram.read();
        assert_eq!(reading.counts, [2, 2, 2, 2]);
        assert_eq!(reading.sum, 5_225);
        assert_eq!(reading.bounds.len() + 1, reading.counts.len());
    }
}
