//! What arrived, judged against what was sent.

use std::fmt;

use crate::Result;

/// The sequence numbers 0, 1, 2 .. of one sender at one receiver.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seen: Vec<bool>,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
}

/// What went wrong, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
}

impl Ledger {
    pub(crate) fn deliver(&mut self, seq: u64) -> Result<()> {
        let at = usize::try_from(seq)?;
        if self.seen.get(at) == Some(&true) {
            self.duplicated += 1;
            return Ok(());
        }
        if at < self.seen.len() {
            self.reordered += 1;
        } else {
            self.seen.resize(at + 1, false);
        }
        if let Some(seen) = self.seen.get_mut(at) {
            *seen = true;
        }
        self.delivered += 1;
        Ok(())
    }

    /// Different messages that arrived.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn judge(&self, sent: u64) -> Faults {
        Faults {
            lost: sent.saturating_sub(self.delivered),
            duplicated: self.duplicated,
            reordered: self.reordered,
        }
    }
}

impl Faults {
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }

    pub(crate) fn check(self) -> Result<()> {
        if self == Self::default() { Ok(()) } else { Err(self.to_string().into()) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lost, {} duplicated, {} reordered", self.lost, self.duplicated, self.reordered)
    }
}
