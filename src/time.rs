//! The broker's own time line.
//!
//! Everything below `net` is given `Timestamp`s and never reads a clock. A `Timestamp` counts milliseconds on a time
//! line that belongs to the data folder: it advances with the monotonic clock while the broker runs, and at start by
//! the downtime, but only when the wall clock can be believed (`Timeline::resume`). So a deadline stored in the journal
//! keeps its meaning across restarts, and a clock that jumps expires nothing.

use std::time::Duration;

/// Milliseconds on the broker's time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// `self + d`, saturating at `NEVER`.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to `self`; zero if `self` is the earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A reading of the wall clock in milliseconds since 1970, or `UNKNOWN` when it cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WallClock(pub u64);

impl WallClock {
    /// Stored when the clock read a date before 2024: a gateway without a battery boots in 1970.
    pub const UNKNOWN: Self = Self(0);
    const EARLIEST_BELIEVED: u64 = 1_704_067_200_000;

    /// Takes a reading, dropping one that cannot be true.
    pub fn believed(millis_since_1970: u64) -> Self {
        if millis_since_1970 < Self::EARLIEST_BELIEVED { Self::UNKNOWN } else { Self(millis_since_1970) }
    }
}

/// Tells the time. Nothing below `net` reads a clock by itself: it is handed the time, or, where it has threads of its
/// own, one of these.
pub trait Clock: Send + Sync {
    /// The broker's time. Cheap: asked several times a message.
    fn now(&self) -> Timestamp;
    /// What the wall clock reads.
    fn wall(&self) -> WallClock;
    /// Time since some moment that stays the same, as fine as the machine tells it: for measuring how long things take.
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now().0)
    }
}

/// Any function that tells both is a clock.
impl<F: Fn() -> (Timestamp, WallClock) + Send + Sync> Clock for F {
    fn now(&self) -> Timestamp {
        self().0
    }

    fn wall(&self) -> WallClock {
        self().1
    }
}

/// Where the time line stood at the last commit, and where it goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timeline {
    /// The broker's time at the last commit.
    pub at: Timestamp,
    /// The wall clock at that moment.
    pub wall: WallClock,
}

impl Timeline {
    /// The longest downtime that is believed. A clock that is further ahead is broken (one that lost its battery can
    /// show any year), and what it would expire is still wanted. A broker that was in fact off for longer than a year keeps
    /// things for as long again as they had left: late is harmless, early is lost.
    pub const DOWNTIME_MAX: Duration = Duration::from_secs(365 * 86_400);

    /// The time to start from when the wall clock now reads `wall`. Downtime counts only when both readings are
    /// believed, the clock did not run backwards, and not by more than [`Self::DOWNTIME_MAX`]; else the time line goes
    /// on where it stopped.
    pub fn resume(self, wall: WallClock) -> Timestamp {
        if self.wall == WallClock::UNKNOWN || wall == WallClock::UNKNOWN {
            return self.at;
        }
        let downtime = Duration::from_millis(wall.0.saturating_sub(self.wall.0));
        if downtime > Self::DOWNTIME_MAX { self.at } else { self.at.after(downtime) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const Y2026: u64 = 1_767_225_600_000;

    #[test]
    fn downtime_counts_when_both_readings_are_believed() {
        let line = Timeline { at: Timestamp(5_000), wall: WallClock::believed(Y2026) };
        assert_eq!(line.resume(WallClock::believed(Y2026 + DAY)), Timestamp(5_000 + DAY));
    }

    #[test]
    fn a_clock_that_ran_backwards_or_boots_in_1970_counts_no_downtime() {
        let line = Timeline { at: Timestamp(5_000), wall: WallClock::believed(Y2026) };
        assert_eq!(line.resume(WallClock::believed(Y2026 - DAY)), Timestamp(5_000));
        assert_eq!(line.resume(WallClock::believed(3_600_000)), Timestamp(5_000));
        let born_in_1970 = Timeline { at: Timestamp(5_000), wall: WallClock::believed(3_600_000) };
        assert_eq!(born_in_1970.resume(WallClock::believed(Y2026)), Timestamp(5_000));
    }

    #[test]
    fn a_clock_far_ahead_counts_no_downtime() {
        let line = Timeline { at: Timestamp(5_000), wall: WallClock::believed(Y2026) };
        assert_eq!(line.resume(WallClock::believed(Y2026 + 73 * 365 * DAY)), Timestamp(5_000));
        assert_eq!(line.resume(WallClock::believed(Y2026 + 365 * DAY)), Timestamp(5_000 + 365 * DAY));
        assert_eq!(line.resume(WallClock::believed(Y2026 + 366 * DAY)), Timestamp(5_000));
        let in_2099 = Timeline { at: Timestamp(5_000), wall: WallClock::believed(Y2026 + 73 * 365 * DAY) };
        assert_eq!(in_2099.resume(WallClock::believed(Y2026)), Timestamp(5_000), "set right later");
    }

    #[test]
    fn time_saturates() {
        assert_eq!(Timestamp(u64::MAX - 1).after(Duration::from_secs(1)), Timestamp::NEVER);
        assert_eq!(Timestamp(1).since(Timestamp(5)), Duration::ZERO);
    }
}
