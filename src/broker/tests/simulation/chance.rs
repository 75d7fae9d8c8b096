//! Choices by a seed.

use crate::store::tests::truth;

/// The same numbers for a seed as the store's tests have, for places in lists.
pub(super) struct Chance(truth::Chance);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(truth::Chance(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
