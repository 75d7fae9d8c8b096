//! Write elision: messages held back because their confirmations are likely to come first.
//!
//! A message is held for four times the time confirmations have taken lately, at least `WAIT_MIN` and at most the
//! configured wait. When nearly none is confirmed in time, holding only makes acknowledgements late: then one in
//! `PROBE_EVERY` is held, to notice when that changes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::stored::{Phase, Stored};
use crate::{message::SessionNo, time::Timestamp};

const WAIT_FIRST_MS: u64 = 25;
/// Longer than a busy gateway lets a thread wait for its turn: a message written for a hiccup of 5 ms costs a commit.
const WAIT_MIN_MS: u64 = 25;
const PROBE_EVERY: u32 = 16;
/// A new sample's share of the moving average is one in this many.
const AVERAGE_OVER: u64 = 16;
/// The average counts in this share of a millisecond.
const FINE: u64 = 64;

/// The messages held back. Entries of messages no longer held are passed over and dropped when they reach the front.
#[derive(Debug)]
pub(super) struct Hold {
    wait_max_ms: u64,
    bytes_max: usize,
    bytes: usize,
    messages: usize,
    /// In the order they were held, with the time each is let go.
    queue: VecDeque<(Timestamp, Arc<Stored>)>,
    by_publisher: HashMap<SessionNo, VecDeque<Arc<Stored>>>,
    /// The time confirmations take, in 1/64 ms.
    average: u64,
    passed_over: u32,
}

/// Why a message is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// All have confirmed it; the last took so long.
    Confirmed(Duration),
    /// The confirmations did not come in time.
    TimedOut,
    /// It had to be written for another reason.
    Forced,
}

impl Hold {
    pub(super) fn new(wait_max: Duration, bytes_max: usize) -> Self {
        let wait_max_ms = u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX).min(60_000);
        Self {
            wait_max_ms,
            bytes_max,
            bytes: 0,
            messages: 0,
            queue: VecDeque::new(),
            by_publisher: HashMap::new(),
            average: WAIT_FIRST_MS.min(wait_max_ms) * FINE / 4,
            passed_over: 0,
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages held.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Whether a message of this size should be held.
    pub(super) fn admits(&mut self, size: usize) -> bool {
        if self.wait_max_ms == 0 || self.bytes.saturating_add(size) > self.bytes_max {
            return false;
        }
        if self.average < self.wait_max_ms * FINE * 3 / 4 {
            return true;
        }
        self.passed_over = (self.passed_over + 1) % PROBE_EVERY;
        self.passed_over == 0
    }

    /// Holds a message whose phase says so.
    pub(super) fn add(&mut self, stored: &Arc<Stored>, publisher: Option<SessionNo>, now: Timestamp) {
        let wait = (4 * self.average / FINE).max(WAIT_MIN_MS).min(self.wait_max_ms);
        self.bytes += stored.size_bytes();
        self.messages += 1;
        self.queue.push_back((now.after(Duration::from_millis(wait)), Arc::clone(stored)));
        if let Some(publisher) = publisher {
            self.by_publisher.entry(publisher).or_default().push_back(Arc::clone(stored));
        }
    }

    /// A message is held no longer; its phase says so already.
    pub(super) fn left(&mut self, stored: &Stored, publisher: Option<SessionNo>, why: Left) {
        self.bytes = self.bytes.saturating_sub(stored.size_bytes());
        self.messages = self.messages.saturating_sub(1);
        let sample_ms = match why {
            Left::Confirmed(took) => Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            Left::TimedOut => Some(self.wait_max_ms),
            Left::Forced => None,
        };
        if let Some(ms) = sample_ms {
            let sample = ms.min(self.wait_max_ms) * FINE;
            self.average = (self.average * (AVERAGE_OVER - 1) + sample) / AVERAGE_OVER;
        }
        while self.queue.front().is_some_and(|(_, first)| !is_held(first)) {
            self.queue.pop_front();
        }
        if let Some(publisher) = publisher
            && let Some(own) = self.by_publisher.get_mut(&publisher)
        {
            while own.front().is_some_and(|first| !is_held(first)) {
                own.pop_front();
            }
            if own.is_empty() {
                self.by_publisher.remove(&publisher);
            }
        }
    }

    /// When the next message is let go.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.queue.front().map(|(deadline, _)| *deadline)
    }

    /// Takes out a message that has been held long enough.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Arc<Stored>> {
        while let Some((deadline, stored)) = self.queue.front() {
            if !is_held(stored) {
                self.queue.pop_front();
            } else if *deadline <= now {
                return self.queue.pop_front().map(|(_, stored)| stored);
            } else {
                return None;
            }
        }
        None
    }

    /// Takes out what this publisher has in hold, in order.
    pub(super) fn take_of(&mut self, publisher: SessionNo) -> VecDeque<Arc<Stored>> {
        self.by_publisher.remove(&publisher).unwrap_or_default()
    }

    /// Puts back what `take_of` gave and was not released.
    pub(super) fn give_back(&mut self, publisher: SessionNo, held: VecDeque<Arc<Stored>>) {
        if !held.is_empty() {
            self.by_publisher.insert(publisher, held);
        }
    }
}

fn is_held(stored: &Stored) -> bool {
    matches!(&stored.lock().phase, Phase::Early(early) if early.held.is_some())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Hold, Left, PROBE_EVERY};
    use crate::store::stored::Stored;

    fn hold() -> Hold {
        Hold::new(Duration::from_millis(100), 1_000)
    }

    fn stored() -> Stored {
        Stored::new(
            1,
            std::sync::Arc::new(crate::store::tests::message("a", b"x")),
            crate::topic::Label::default(),
        )
    }

    #[test]
    fn late_confirmations_end_holding_but_for_a_probe() {
        let mut hold = hold();
        assert!(hold.admits(10));
        for _ in 0..200 {
            hold.left(&stored(), None, Left::TimedOut);
        }
        let probes = (0..PROBE_EVERY * 10).filter(|_| hold.admits(10)).count();
        assert_eq!(probes, 10);
        for _ in 0..200 {
            hold.left(&stored(), None, Left::Confirmed(Duration::from_millis(2)));
        }
        assert!((0..100).all(|_| hold.admits(10)));
    }

    #[test]
    fn held_bytes_are_bounded() {
        let mut hold = hold();
        hold.bytes = 995;
        assert!(hold.admits(5));
        assert!(!hold.admits(6));
        assert!(!Hold::new(Duration::ZERO, 1_000).admits(1));
    }
}
