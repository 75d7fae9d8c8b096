//! What arrived, judged against what was sent.

use std::fmt;

use serde::Serialize;

/// Numbers kept below the highest one seen. What comes later than that counts as lost, then as a duplicate.
const WINDOW: u64 = 1 << 16;

/// The sequence numbers 0, 1, 2 .. of one sender at one receiver, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// One beyond the highest number seen.
    next: u64,
    /// Numbers below `next` that have not come, within the window.
    missing: std::collections::BTreeSet<u64>,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
}

/// What went wrong, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Sent, and never seen.
    pub lost: u64,
    /// Seen again.
    pub duplicated: u64,
    /// Seen after one that was sent later.
    pub reordered: u64,
}

impl Ledger {
    /// Takes note of a message. `false` if it has been seen before.
    pub(super) fn deliver(&mut self, seq: u64) -> bool {
        if seq == self.next {
            self.next += 1;
        } else if seq > self.next {
            let from = self.next.max(seq.saturating_sub(WINDOW));
            self.missing.extend(from..seq);
            self.next = seq + 1;
            self.missing = self.missing.split_off(&self.next.saturating_sub(WINDOW));
        } else if self.missing.remove(&seq) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
            return false;
        }
        self.delivered += 1;
        true
    }

    /// Different messages that arrived.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn judge(&self, sent: u64) -> Faults {
        Faults {
            lost: sent.saturating_sub(self.delivered),
            duplicated: self.duplicated,
            reordered: self.reordered,
        }
    }
}

impl Faults {
    /// Counts those of another connection too.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }

    /// Whether nothing went wrong.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lost, {} duplicated, {} reordered", self.lost, self.duplicated, self.reordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(seqs: impl IntoIterator<Item = u64>, sent: u64) -> Faults {
        let mut ledger = Ledger::default();
        for seq in seqs {
            ledger.deliver(seq);
        }
        ledger.judge(sent)
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        assert!(judged(0..10, 10).is_none());
        assert_eq!(judged([0, 1, 3], 4), Faults { lost: 1, ..Faults::default() });
        assert_eq!(judged([0, 1], 4), Faults { lost: 2, ..Faults::default() });
        assert_eq!(judged([0, 1, 1, 0, 2], 3), Faults { duplicated: 2, ..Faults::default() });
        assert_eq!(judged([0, 2, 1, 3], 4), Faults { reordered: 1, ..Faults::default() });
    }

    /// A number that nobody has sent costs no memory to speak of.
    #[test]
    fn memory_is_bounded() {
        let mut ledger = Ledger::default();
        ledger.deliver(u64::MAX - 1);
        assert!(ledger.missing.len() as u64 <= WINDOW);
        assert_eq!(ledger.delivered(), 1);
    }
}
