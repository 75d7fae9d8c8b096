//! One coarse wheel of alarms for every connection: keep alive, connect, handshake and write timeouts.
//!
//! A connection owns one `Alarm` and moves its deadline with an atomic store for each read; no timer is started or
//! stopped. One ticker looks at the slots that have come due and wakes the tasks in them, which then compare their own
//! deadlines with the clock: the wheel wakes, the task decides. The wheel also carries the word that the server stops,
//! since it is the one place that can reach every connection task.
//!
//! Invariants: an alarm is never early, and at most one tick late. A living alarm always stands in a slot at or before
//! its deadline. Nothing ticks while there are no alarms. Wakers are called without the lock.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use tokio::sync::Notify;

use crate::sync::lock;
use crate::time::Timestamp;

/// How late an alarm may be: fine enough for deadlines of seconds, coarse enough to cost nothing.
pub(super) const TICK: Duration = Duration::from_millis(250);
const TICK_MS: u64 = 250;
/// 64 s ahead. A later deadline waits in the last slot and is looked at again there.
const SLOTS: u64 = 256;

/// How far the server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Serving.
    No,
    /// What has not become an MQTT connection ends; the broker closes the others.
    Drain,
    /// Everything ends, now.
    Now,
}

/// The shared wheel; clones are the same wheel.
#[derive(Clone)]
pub(super) struct Wheel {
    core: Arc<Core>,
}

/// One task's alarm. It rings, once a tick, from its deadline on until it is set to a later one.
pub(super) struct Alarm {
    shared: Arc<Shared>,
    core: Arc<Core>,
    /// What `shared.deadline` holds, without reading it back.
    deadline: Timestamp,
    /// The data of what `shared.waker` holds, so that an unchanged waker needs no lock. While that is held nothing else is
    /// there.
    waker: usize,
}

struct Core {
    slots: Mutex<Slots>,
    /// Living alarms; the ticker rests at zero.
    alarms: AtomicUsize,
    /// When the wheel was last advanced, in milliseconds: never ahead of the clock.
    advanced_ms: AtomicU64,
    stop: AtomicU8,
    /// Tells the ticker that the first alarm has come.
    first_alarm: Notify,
}

struct Slots {
    /// The tick that was last advanced to. Its slot is looked at again, since it may hold later milliseconds of it.
    current: u64,
    /// `SLOTS` of them; tick `t` has slot `t % SLOTS`.
    ring: Vec<Vec<Entry>>,
}

/// An alarm's place in a slot; out of date when the alarm has since been placed elsewhere.
struct Entry {
    alarm: Weak<Shared>,
    placement: u64,
}

struct Shared {
    deadline: AtomicU64,
    /// The tick of the slot it stands in. Written under the lock of `Slots`.
    tick: AtomicU64,
    /// Counts its placements. Written under the lock of `Slots`.
    placement: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let ring = (0..SLOTS).map(|_| Vec::new()).collect();
        Self {
            core: Arc::new(Core {
                slots: Mutex::new(Slots { current: 0, ring }),
                alarms: AtomicUsize::new(0),
                advanced_ms: AtomicU64::new(0),
                stop: AtomicU8::new(0),
                first_alarm: Notify::new(),
            }),
        }
    }

    /// A new alarm for `deadline`.
    pub(super) fn alarm(&self, deadline: Timestamp) -> Alarm {
        let shared = Arc::new(Shared {
            deadline: AtomicU64::new(deadline.0),
            tick: AtomicU64::new(0),
            placement: AtomicU64::new(0),
            waker: Mutex::new(None),
        });
        lock(&self.core.slots).place(&shared);
        if self.core.alarms.fetch_add(1, Ordering::AcqRel) == 0 {
            self.core.first_alarm.notify_one();
        }
        Alarm { shared, core: Arc::clone(&self.core), deadline, waker: usize::MAX }
    }

    /// Wakes every task whose deadline is `now` or earlier; returns how many.
    pub(super) fn advance(&self, now: Timestamp) -> usize {
        self.core.advanced_ms.fetch_max(now.0, Ordering::AcqRel);
        let due = lock(&self.core.slots).advance(now);
        let count = due.len();
        due.into_iter().for_each(Waker::wake);
        count
    }

    /// Ticks for ever; resting while there are no alarms.
    pub(super) async fn tick(self, clock: impl Fn() -> Timestamp) {
        loop {
            while self.core.alarms.load(Ordering::Acquire) == 0 {
                lock(&self.core.slots).clear();
                self.core.first_alarm.notified().await;
            }
            tokio::time::sleep(TICK).await;
            self.advance(clock());
        }
    }

    /// Tells every task how far the server stops, and wakes them all.
    pub(super) fn stop(&self, stop: Stop) {
        self.core.stop.fetch_max(stop as u8, Ordering::AcqRel);
        let wakers = lock(&self.core.slots).all_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Core {
    fn stopped(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::No,
            1 => Stop::Drain,
            _ => Stop::Now,
        }
    }
}

impl Alarm {
    /// Moves the deadline.
    pub(super) fn set(&mut self, deadline: Timestamp) {
        let earlier = deadline < self.deadline;
        self.deadline = deadline;
        self.shared.deadline.store(deadline.0, Ordering::Release);
        // A later deadline is found when the slot of the former one comes up. Only an earlier one has to move.
        if earlier {
            let mut slots = lock(&self.core.slots);
            if tick_of(deadline) < self.shared.tick.load(Ordering::Relaxed) {
                slots.place(&self.shared);
            }
        }
    }

    /// The task to wake; cheap when it is the one of the last call.
    pub(super) fn register(&mut self, waker: &Waker) {
        if self.waker == waker.data() as usize {
            return;
        }
        self.waker = waker.data() as usize;
        *lock(&self.shared.waker) = Some(waker.clone());
    }

    /// How far the server has stopped. Ask after `register`.
    pub(super) fn stopped(&self) -> Stop {
        self.core.stopped()
    }

    /// Runs `work` until it is done, the deadline has passed (by the wheel's own reckoning, so without reading a
    /// clock), or the server stops.
    pub(super) async fn limit<F: Future>(&mut self, work: F) -> Limited<F::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.register(cx.waker());
            if self.stopped() != Stop::No {
                return Poll::Ready(Limited::Stopped);
            }
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Limited::Done(output));
            }
            if self.core.advanced_ms.load(Ordering::Acquire) >= self.deadline.0 {
                return Poll::Ready(Limited::TimedOut);
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.core.alarms.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How `Alarm::limit` ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Limited<T> {
    Done(T),
    TimedOut,
    Stopped,
}

impl Slots {
    /// Puts an alarm into the slot of its deadline, or the last one there is before it.
    fn place(&mut self, alarm: &Arc<Shared>) {
        let wanted = tick_of(Timestamp(alarm.deadline.load(Ordering::Acquire)));
        let tick = wanted.clamp(self.current, self.current.saturating_add(SLOTS - 1));
        alarm.tick.store(tick, Ordering::Relaxed);
        let placement = alarm.placement.load(Ordering::Relaxed) + 1;
        alarm.placement.store(placement, Ordering::Relaxed);
        let entry = Entry { alarm: Arc::downgrade(alarm), placement };
        if let Some(slot) = usize::try_from(tick % SLOTS).ok().and_then(|i| self.ring.get_mut(i)) {
            slot.push(entry);
        }
    }

    /// Moves on to `now`; returns the wakers of the alarms that are due.
    fn advance(&mut self, now: Timestamp) -> Vec<Waker> {
        let target = tick_of(now).max(self.current);
        let last = target.min(self.current.saturating_add(SLOTS - 1));
        let mut passed = Vec::new();
        for tick in self.current..=last {
            if let Some(slot) = usize::try_from(tick % SLOTS).ok().and_then(|i| self.ring.get_mut(i)) {
                passed.append(&mut mem::take(slot));
            }
        }
        self.current = target;
        let mut due = Vec::new();
        for entry in passed {
            let Some(alarm) = entry.alarm.upgrade() else { continue };
            if alarm.placement.load(Ordering::Relaxed) != entry.placement {
                continue;
            }
            if alarm.deadline.load(Ordering::Acquire) <= now.0 {
                due.extend(lock(&alarm.waker).clone());
            }
            self.place(&alarm);
        }
        due
    }

    fn all_wakers(&self) -> Vec<Waker> {
        let living = self.ring.iter().flatten().filter_map(|entry| entry.alarm.upgrade());
        living.filter_map(|alarm| lock(&alarm.waker).clone()).collect()
    }

    /// Forgets the places of alarms that are gone.
    fn clear(&mut self) {
        for slot in &mut self.ring {
            slot.retain(|entry| entry.alarm.strong_count() > 0);
            slot.shrink_to_fit();
        }
    }
}

fn tick_of(at: Timestamp) -> u64 {
    at.0 / TICK_MS
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[derive(Default)]
    struct Rings(AtomicUsize);

    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn armed(wheel: &Wheel, deadline_ms: u64) -> (Alarm, Arc<Rings>) {
        let rings = Arc::new(Rings::default());
        let mut alarm = wheel.alarm(Timestamp(deadline_ms));
        alarm.register(&Waker::from(Arc::clone(&rings)));
        (alarm, rings)
    }

    fn count(rings: &Rings) -> usize {
        rings.0.load(Ordering::Relaxed)
    }

    #[test]
    fn an_alarm_rings_at_its_millisecond_and_not_before() {
        let wheel = Wheel::new();
        let (_alarm, rings) = armed(&wheel, 1_630);
        for now in [0, 1_000, 1_500, 1_629] {
            assert_eq!(wheel.advance(Timestamp(now)), 0, "rang at {now}");
        }
        assert_eq!(wheel.advance(Timestamp(1_630)), 1);
        assert_eq!(count(&rings), 1);
    }

    #[test]
    fn it_goes_on_ringing_until_it_is_set_later() {
        let wheel = Wheel::new();
        let (mut alarm, rings) = armed(&wheel, 1_000);
        wheel.advance(Timestamp(1_000));
        wheel.advance(Timestamp(1_250));
        assert_eq!(count(&rings), 2);
        alarm.set(Timestamp(2_000));
        wheel.advance(Timestamp(1_500));
        wheel.advance(Timestamp(1_999));
        assert_eq!(count(&rings), 2);
        wheel.advance(Timestamp(2_000));
        assert_eq!(count(&rings), 3);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_is_met() {
        let wheel = Wheel::new();
        let two_hours = 7_200_000;
        let (_alarm, rings) = armed(&wheel, two_hours);
        for now in (0..two_hours).step_by(250) {
            assert_eq!(wheel.advance(Timestamp(now)), 0, "rang at {now}");
        }
        wheel.advance(Timestamp(two_hours));
        assert_eq!(count(&rings), 1);
    }

    #[test]
    fn an_alarm_set_from_never_to_soon_rings_soon() {
        let wheel = Wheel::new();
        wheel.advance(Timestamp(1_000_000));
        let (mut alarm, rings) = armed(&wheel, u64::MAX);
        wheel.advance(Timestamp(1_000_250));
        alarm.set(Timestamp(1_000_600));
        wheel.advance(Timestamp(1_000_500));
        assert_eq!(count(&rings), 0);
        wheel.advance(Timestamp(1_000_750));
        assert_eq!(count(&rings), 1);
    }

    #[test]
    fn a_wheel_that_stood_still_for_an_hour_catches_up() {
        let wheel = Wheel::new();
        let hour = 3_600_000;
        let (_due, due) = armed(&wheel, hour - 1);
        let (_later, later) = armed(&wheel, hour + 1_000);
        wheel.advance(Timestamp(hour));
        assert_eq!((count(&due), count(&later)), (1, 0));
        wheel.advance(Timestamp(hour + 1_000));
        assert_eq!(count(&later), 1);
    }

    #[test]
    fn moving_to_and_fro_leaves_no_pile_of_places_behind() {
        let wheel = Wheel::new();
        let (mut alarm, _rings) = armed(&wheel, 90_000);
        for _ in 0..10_000 {
            alarm.set(Timestamp(30_000));
            alarm.set(Timestamp(90_000));
        }
        assert!(lock(&wheel.core.slots).ring.iter().map(Vec::len).sum::<usize>() <= 2);
        drop(alarm);
        lock(&wheel.core.slots).clear();
        assert_eq!(lock(&wheel.core.slots).ring.iter().map(Vec::len).sum::<usize>(), 0);
    }

    #[test]
    fn stopping_wakes_everybody_and_is_never_taken_back() {
        let wheel = Wheel::new();
        let (soon, first) = armed(&wheel, 10);
        let (_never, second) = armed(&wheel, u64::MAX);
        assert_eq!(soon.stopped(), Stop::No);
        wheel.stop(Stop::Now);
        wheel.stop(Stop::Drain);
        assert_eq!((count(&first), count(&second)), (2, 2));
        assert_eq!(soon.stopped(), Stop::Now);
    }

    #[tokio::test]
    async fn limited_work_ends_by_itself_by_time_or_by_stopping() {
        let wheel = Wheel::new();
        let mut alarm = wheel.alarm(Timestamp(1_000));
        assert_eq!(alarm.limit(async { 7 }).await, Limited::Done(7));
        wheel.advance(Timestamp(999));
        let waiting = async {
            wheel.advance(Timestamp(1_000));
            std::future::pending::<()>().await;
        };
        assert_eq!(alarm.limit(waiting).await, Limited::TimedOut);
        wheel.stop(Stop::Drain);
        assert_eq!(alarm.limit(async { 7 }).await, Limited::Stopped);
    }

    proptest! {
        /// Against the obvious oracle: an alarm rings at an advance exactly when its deadline has come.
        #[test]
        fn rings_exactly_when_due(
            steps in proptest::collection::vec((1_u64..70_000, (0_usize..4, 0_u64..200_000)), 1..200)
                .prop_map(|s| s.into_iter().scan(0, |now, (d, set)| { *now += d; Some((*now, set)) }).collect::<Vec<_>>())
        ) {
            let wheel = Wheel::new();
            let mut alarms: Vec<_> = (0..4_u64).map(|i| (armed(&wheel, i * 40_000), i * 40_000)).collect();
            for (now, (which, ahead)) in steps {
                let before: Vec<_> = alarms.iter().map(|((_, rings), _)| count(rings)).collect();
                wheel.advance(Timestamp(now));
                for (((_, rings), deadline), before) in alarms.iter().zip(before) {
                    prop_assert_eq!(count(rings) - before, usize::from(*deadline <= now));
                }
                if let Some(((alarm, _), deadline)) = alarms.get_mut(which) {
                    *deadline = now + ahead;
                    alarm.set(Timestamp(*deadline));
                }
            }
            prop_assert!(alarms.len() == 4);
        }
    }
}
