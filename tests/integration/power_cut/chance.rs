//! Chance, named by a seed.

/// A small generator (xorshift64*).
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // Seeds that follow each other shall not lead to similar runs.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// How many in 16 of the things that are not sure are kept: often none or all.
    pub(super) fn fate(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => 16,
            _ => self.below(17),
        }
    }
}
