//! How many TLS handshakes are half open: begun, and not ended.
//!
//! Each holds some KiB, so there is a bound. Nobody is hurried while there is room. While somebody waits for a place, who has
//! waited for its peer longer than its patience gives it up, the oldest first: peers that begin and go silent keep nobody
//! out for long. No place is given up for a wait that another one's end is about to serve.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::sleep;

use crate::sync::lock;

/// The places, and who wants one.
pub(super) struct HalfOpen {
    room: Mutex<Room>,
}

struct Room {
    free: usize,
    next: u64,
    /// Who wants a place, in the order of coming. Not in it any more: it has one.
    waiting: BTreeMap<u64, Waker>,
    /// Who has a place and waits for its peer beyond its patience, in the order of coming. Not in it any more: it is to leave.
    stalled: BTreeMap<u64, Waker>,
    /// Who has to leave and has not left yet.
    leaving: usize,
}

/// Its place is wanted by another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Displaced;

impl HalfOpen {
    pub(super) fn new(places: usize) -> Self {
        let (waiting, stalled) = (BTreeMap::new(), BTreeMap::new());
        Self { room: Mutex::new(Room { free: places, next: 0, waiting, stalled, leaving: 0 }) }
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>, patience: Duration) -> Place {
        let mut wait = Wait { half_open: self, number: None };
        let number = poll_fn(|cx| wait.poll(cx)).await;
        Place { half_open: Arc::clone(self), number, patience, stalled: false, called: false }
    }

    /// A place has become free.
    fn leave(&self, called: bool) {
        let mut room = lock(&self.room);
        if called {
            room.leaving -= 1;
        }
        let next = room.waiting.pop_first();
        if next.is_none() {
            room.free += 1;
        }
        drop(room);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}

impl Room {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether somebody waits for whom nobody is about to leave.
    fn is_wanted(&self) -> bool {
        self.waiting.len() > self.leaving
    }
}

/// A wait for a place.
struct Wait<'a> {
    half_open: &'a HalfOpen,
    /// While it stands in line.
    number: Option<u64>,
}

impl Wait<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        let mut room = lock(&self.half_open.room);
        if let Some(number) = self.number {
            if let Some(waker) = room.waiting.get_mut(&number) {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            self.number = None;
            return Poll::Ready(number);
        }
        let number = room.number();
        if let Some(free) = room.free.checked_sub(1) {
            room.free = free;
            return Poll::Ready(number);
        }
        self.number = Some(number);
        room.waiting.insert(number, cx.waker().clone());
        let oldest = if room.is_wanted() { room.stalled.pop_first() } else { None };
        if let Some((_, waker)) = oldest {
            room.leaving += 1;
            drop(room);
            waker.wake();
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let still_waits = lock(&self.half_open.room).waiting.remove(&number).is_some();
        if !still_waits {
            self.half_open.leave(false);
        }
    }
}

/// A place among the half open ones. Given back when dropped.
pub(super) struct Place {
    half_open: Arc<HalfOpen>,
    number: u64,
    /// With each wait for its peer.
    patience: Duration,
    /// It stood among the stalled when it was last looked at.
    stalled: bool,
    /// It is to leave.
    called: bool,
}

impl Place {
    /// What the peer is to do next, unless its place is wanted when its patience is at its end.
    pub(super) async fn wait_for_peer<F>(&mut self, mut peer: F) -> Result<F::Output, Displaced>
    where
        F: Future + Unpin,
    {
        let mut patience = pin!(sleep(self.patience));
        poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut peer).poll(cx) {
                self.go_on();
                return Poll::Ready(Ok(done));
            }
            ready!(patience.as_mut().poll(cx));
            self.poll_called(cx).map(|()| Err(Displaced))
        })
        .await
    }

    fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = lock(&self.half_open.room);
        if self.stalled {
            if let Some(waker) = room.stalled.get_mut(&self.number) {
                waker.clone_from(cx.waker());
            } else {
                (self.stalled, self.called) = (false, true);
            }
        } else if !self.called && room.is_wanted() {
            room.leaving += 1;
            self.called = true;
        } else if !self.called {
            room.stalled.insert(self.number, cx.waker().clone());
            self.stalled = true;
        }
        if self.called { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Stalled no more. Who has been called already leaves when it stalls again, or ends.
    fn go_on(&mut self) {
        if std::mem::take(&mut self.stalled) {
            self.called |= lock(&self.half_open.room).stalled.remove(&self.number).is_none();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.go_on();
        self.half_open.leave(self.called);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    const NONE: Duration = Duration::ZERO;
    const AN_HOUR: Duration = Duration::from_secs(3600);

    /// Takes a place and hears no more of its peer; what comes of it.
    fn silent(places: &Arc<HalfOpen>, patience: Duration) -> JoinHandle<Displaced> {
        let places = Arc::clone(places);
        tokio::spawn(async move {
            let mut place = places.enter(patience).await;
            place.wait_for_peer(pending::<()>()).await.unwrap_err()
        })
    }

    /// Until so many are past their patience, or so many wait.
    async fn until(places: &HalfOpen, is_so: impl Fn(&Room) -> bool) {
        while !is_so(&lock(&places.room)) {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn nobody_is_hurried_while_there_is_room() {
        let places = Arc::new(HalfOpen::new(2));
        let first = silent(&places, NONE);
        until(&places, |room| room.stalled.len() == 1).await;
        drop(places.enter(NONE).await);
        assert!(!first.is_finished());
    }

    #[tokio::test]
    async fn for_each_who_waits_the_oldest_whose_patience_is_over_goes() {
        let places = Arc::new(HalfOpen::new(4));
        let tasks = [AN_HOUR, NONE, NONE, NONE].map(|patience| silent(&places, patience));
        until(&places, |room| room.stalled.len() == 3).await;
        let gone = || tasks.each_ref().map(JoinHandle::is_finished);
        let new = places.enter(NONE).await;
        assert_eq!(gone(), [false, true, false, false]);
        let newer = places.enter(NONE).await;
        assert_eq!(gone(), [false, true, true, false]);
        drop((new, newer));
        drop((places.enter(NONE).await, places.enter(NONE).await));
        assert_eq!(gone(), [false, true, true, false], "no other place was wanted");
    }

    #[tokio::test]
    async fn who_comes_into_a_full_room_waits_for_the_end_of_somebodys_patience() {
        let places = Arc::new(HalfOpen::new(1));
        for patience in [AN_HOUR, Duration::from_millis(10)] {
            let first = silent(&places, patience);
            until(&places, |room| room.free == 0).await;
            let entering = tokio::spawn({
                let places = Arc::clone(&places);
                async move { places.enter(NONE).await }
            });
            until(&places, |room| room.waiting.len() == 1).await;
            if patience == AN_HOUR {
                assert!(!first.is_finished() && !entering.is_finished());
                first.abort();
                drop(entering.await.unwrap());
                continue;
            }
            let mut place = entering.await.unwrap();
            assert_eq!(first.await.unwrap(), Displaced);
            assert_eq!(place.wait_for_peer(ready(7)).await, Ok(7), "its peer goes on, and nobody waits");
        }
    }

    #[tokio::test]
    async fn a_peer_that_goes_on_when_its_place_is_wanted_is_served_and_the_next_one_goes() {
        let places = Arc::new(HalfOpen::new(2));
        let mut older = places.enter(NONE).await;
        let mut younger = places.enter(NONE).await;
        let (speak, mut spoken) = tokio::sync::oneshot::channel::<()>();
        let goes_on = tokio::spawn(async move {
            older.wait_for_peer(&mut spoken).await.map(Result::unwrap)?;
            older.wait_for_peer(pending::<()>()).await
        });
        until(&places, |room| room.stalled.len() == 1).await;
        // Called, and in the same moment its peer goes on.
        let new = tokio::spawn({
            let places = Arc::clone(&places);
            async move { drop(places.enter(NONE).await) }
        });
        speak.send(()).unwrap();
        assert_eq!(goes_on.await.unwrap(), Err(Displaced), "by its next silence it was wanted");
        new.await.unwrap();
        assert_eq!(younger.wait_for_peer(ready(())).await, Ok(()));
        drop(younger);
        let room = lock(&places.room);
        assert_eq!((room.free, room.leaving), (2, 0));
    }

    #[tokio::test]
    async fn places_are_neither_lost_nor_made_up() {
        let places = Arc::new(HalfOpen::new(2));
        for round in 0..512_u32 {
            let tasks = [NONE, AN_HOUR, NONE, AN_HOUR, NONE].map(|patience| silent(&places, patience));
            // Cut off in some order: before their first moment, while they wait, with a place, between being given one and
            // taking it.
            for (number, task) in tasks.iter().enumerate() {
                if (round >> number) & 1 == 1 {
                    yield_now().await;
                }
                if (round >> (number + 4)) & 1 == 1 {
                    task.abort();
                }
            }
            for task in tasks {
                task.abort();
                // Cancelled, or displaced before.
                let _ = task.await;
            }
            let room = lock(&places.room);
            assert_eq!((room.free, room.leaving), (2, 0), "round {round}");
            assert!(room.waiting.is_empty() && room.stalled.is_empty(), "round {round}");
        }
    }
}
