//! What a client that does one thing after the other has begun and finished, so that at any moment it is known which of
//! two states must be found.

use std::{ops::RangeInclusive, sync::Mutex};

use crate::crash::ledger::now_ns;

/// Steps, each after the one before was acknowledged. State 0 is before the first.
#[derive(Debug, Default)]
pub(super) struct Steps(Mutex<Vec<(u64, Option<u64>)>>);

impl Steps {
    pub(super) fn begin(&self) {
        self.0.lock().unwrap().push((now_ns(), None));
    }

    pub(super) fn acknowledged(&self) {
        self.0.lock().unwrap().last_mut().expect("it was begun").1 = Some(now_ns());
    }

    /// How many have been begun.
    pub(super) fn begun(&self) -> u64 {
        u64::try_from(self.0.lock().unwrap().len()).unwrap()
    }

    /// The states that may be found when the power went just before a moment.
    pub(super) fn possible(&self, moment_ns: u64) -> RangeInclusive<u64> {
        let steps = self.0.lock().unwrap();
        let begun = steps.iter().filter(|(begun, _)| *begun < moment_ns).count();
        let is_done = |acknowledged: &u64| *acknowledged < moment_ns;
        let done = steps.iter().filter_map(|(_, acknowledged)| *acknowledged).filter(is_done).count();
        u64::try_from(done).unwrap()..=u64::try_from(begun).unwrap()
    }
}
