//! One kept message: on its way to the disk, held back, on the disk, or done with.
//!
//! ```text
//!                complete             commit durable
//!   Early ─────────────────► Queued ───────────────► Written
//!     │  complete, may elide   ▲
//!     ├────────► (held) ───────┘ deadline, write_now
//!     │             │ confirmed by all
//!     └─────────────┴─────────► Settled
//! ```
//!
//! Its lock is taken under the journal's lock or alone, and nothing is locked under it.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
};

use super::{
    gate::CommitNo,
    record::Target,
    slab::{Asleep, Parked, SlotNo},
};
use crate::{
    message::{Message, SessionNo},
    sync::lock,
    time::Timestamp,
    topic::Label,
};

/// A kept message. In memory it is its state and one bit per target; the body only while somebody needs it.
///
/// A holder that is not a target (a connection that sends it once, the retained store) keeps the `Arc<Message>`, not
/// this: the body leaves memory when the last target has confirmed.
#[derive(Debug)]
pub struct Stored {
    id: u64,
    size_bytes: u32,
    expires_at: Timestamp,
    /// Of its topic, which is not in memory when the body is not.
    label: Label,
    state: Mutex<StoredState>,
}

#[derive(Debug)]
pub(super) struct StoredState {
    pub(super) body: Option<Arc<Message>>,
    /// Somebody is about to send it: do not drop the body when it is on disk.
    pub(super) keep_body: bool,
    /// It cannot be read back any more.
    pub(super) lost: bool,
    /// It is its topic's retained value.
    pub(super) retained: bool,
    /// Targets that have not confirmed.
    pub(super) left: Bits,
    pub(super) phase: Phase,
    /// Where it stands in the slab, from the moment it is on disk until nobody needs it.
    pub(super) slot: Option<SlotNo>,
}

/// Where a message is on its way.
/// The first is the largest by far, and lasts until the commit; a message that is kept for longer sleeps in the slab.
#[derive(Debug)]
pub(super) enum Phase {
    /// Not in a batch yet: incomplete, or held back.
    Early(Early),
    /// In this commit.
    Queued(CommitNo),
    /// On disk, durably.
    Written(Place),
    /// Never written, and nobody needs it.
    Settled,
}

/// What is known of a message that is in no batch yet.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// It lost its claim to be the retained value before it was complete.
    pub(super) unretained: bool,
    /// A target was taken off by a record that may not be durable (its session is gone, it sent PUBREC): then the
    /// message is settled only when that record is.
    pub(super) rests_on_record: bool,
    /// Complete, and held back.
    pub(super) held: Option<Held>,
    rare: Option<Box<Rare>>,
}

/// What hardly any message has that is in no batch yet: without it a message is three cache lines.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Targets that confirmed before they were all known.
    pub(super) confirmed: Vec<u32>,
    /// Targets that another session has taken over before they were all known.
    pub(super) handed_on: Vec<(u32, Target)>,
    /// Who waits for it to be durable or settled.
    pub(super) wakers: Vec<Waker>,
}

impl Early {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Targets that confirmed, and those that were taken over, before they were all known.
    pub(super) fn take_changes(&mut self) -> (Vec<u32>, Vec<(u32, Target)>) {
        let rare = self.rare.as_mut();
        rare.map(|rare| (mem::take(&mut rare.confirmed), mem::take(&mut rare.handed_on))).unwrap_or_default()
    }

    /// Whether this target confirmed before they were all known.
    pub(super) fn has_confirmed(&self, target: u32) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.confirmed.contains(&target))
    }

    /// Who waits for it to be durable or settled.
    pub(super) fn into_wakers(self) -> Vec<Waker> {
        self.rare.map(|rare| rare.wakers).unwrap_or_default()
    }
}

/// A message held back in the hope that it need never be written.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) targets: Vec<Target>,
    pub(super) publisher: Option<SessionNo>,
    pub(super) since: Timestamp,
}

/// Where an entry stands. Ordered as entries are: those of one frame come together, and a frame is read once for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) generation: u32,
    /// The frame it begins in; it goes on in the frames after it.
    pub(super) frame: u64,
    /// Where in that frame's body it begins.
    pub(super) offset: u16,
    /// Bytes of the whole entry.
    pub(super) len: u32,
}

impl Stored {
    pub(super) fn new(id: u64, message: Arc<Message>, label: Label) -> Self {
        Self {
            id,
            size_bytes: u32::try_from(message.size_bytes()).unwrap_or(u32::MAX),
            expires_at: message.expires_at,
            label,
            state: Mutex::new(StoredState {
                body: Some(message),
                keep_body: false,
                lost: false,
                retained: false,
                left: Bits::default(),
                phase: Phase::Early(Early::default()),
                slot: None,
            }),
        }
    }

    /// A message on disk, where nothing but this says so yet.
    pub(super) fn recovered(
        id: u64,
        size_bytes: u32,
        expires_at: Timestamp,
        place: Place,
        left: Bits,
        retained: bool,
        label: Label,
    ) -> Self {
        let phase = Phase::Written(place);
        Self {
            id,
            size_bytes,
            expires_at,
            label,
            state: Mutex::new(StoredState {
                body: None,
                keep_body: false,
                lost: false,
                retained,
                left,
                phase,
                slot: None,
            }),
        }
    }

    /// Stands for a message that was on disk and of which nothing is known any more.
    pub(super) fn missing() -> Self {
        Self {
            id: 0,
            size_bytes: 0,
            expires_at: Timestamp::NEVER,
            label: Label::default(),
            state: Mutex::new(StoredState {
                body: None,
                keep_body: false,
                lost: true,
                retained: false,
                left: Bits::default(),
                phase: Phase::Settled,
                slot: None,
            }),
        }
    }

    /// The message, if it is in memory; else `Journal::load` reads it back.
    pub fn body(&self) -> Option<Arc<Message>> {
        self.lock().body.clone()
    }

    /// Bytes of topic, payload and properties, in memory or not: what quotas count.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes as usize
    }

    /// When it is of no more use; NEVER without a message expiry interval.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Which of the configured filters match its topic, body in memory or not.
    pub fn label(&self) -> Label {
        self.label
    }

    /// Drops the copy in memory, at once or as soon as it can be read back.
    pub fn unload(&self) {
        let mut state = self.lock();
        state.keep_body = false;
        if matches!(state.phase, Phase::Written(_)) {
            state.body = None;
        }
    }

    /// Whether it was on disk and cannot be read back: the disk is damaged. Its targets should drop it.
    pub fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// Whether it is on disk, and this target needs no more than a `Parked` to find it again.
    pub fn may_sleep(&self, target: u32) -> bool {
        let state = self.lock();
        Parked::can_name(target)
            && state.slot.is_some()
            && state.place().is_some()
            && !state.keep_body
            && !state.lost
    }

    /// What is left of it in memory when nobody looks at it; `None` if that is not enough.
    pub(super) fn asleep(&self) -> Option<Asleep> {
        let state = self.lock();
        if state.lost {
            return None;
        }
        let (place, left) = (state.place()?, &state.left);
        Asleep::new(self.id, self.size_bytes, self.expires_at, place, left, state.retained, self.label)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, StoredState> {
        lock(&self.state)
    }
}

impl StoredState {
    /// Nobody needs it.
    pub(super) fn is_dead(&self) -> bool {
        !self.retained && self.left.is_empty()
    }

    /// Its body is there again, for who still needs it.
    pub(super) fn read_back(&mut self, message: Message) {
        if !self.is_dead() {
            self.body = Some(Arc::new(message));
        }
    }

    /// Where it stands on disk.
    pub(super) fn place(&self) -> Option<Place> {
        match self.phase {
            Phase::Written(place) => Some(place),
            _ => None,
        }
    }
}

/// A set of target indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    Few(u64),
    Many(Box<[u64]>),
}

impl Default for Bits {
    fn default() -> Self {
        Self::Few(0)
    }
}

impl Bits {
    /// These indices.
    pub(super) fn of(indices: impl Iterator<Item = u32> + Clone) -> Self {
        let words = indices.clone().max().map_or(0, |max| max as usize / 64 + 1);
        let mut bits = if words > 1 { Self::Many(vec![0; words].into()) } else { Self::Few(0) };
        for index in indices {
            if let Some(word) = bits.word(index) {
                *word |= 1 << (index % 64);
            }
        }
        bits
    }

    /// All of them as 32 bits, if that is enough.
    pub(super) fn few(&self) -> Option<u32> {
        match self {
            Self::Few(word) => u32::try_from(*word).ok(),
            Self::Many(_) => None,
        }
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        let word = match self {
            Self::Few(word) => (index < 64).then_some(*word),
            Self::Many(words) => words.get(index as usize / 64).copied(),
        };
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Takes an index out; false if it was not in.
    pub(super) fn remove(&mut self, index: u32) -> bool {
        let there = self.contains(index);
        if let Some(word) = self.word(index) {
            *word &= !(1 << (index % 64));
        }
        there
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(word) => *word == 0,
            Self::Many(words) => words.iter().all(|word| *word == 0),
        }
    }

    fn word(&mut self, index: u32) -> Option<&mut u64> {
        match self {
            Self::Few(word) => (index < 64).then_some(word),
            Self::Many(words) => words.get_mut(index as usize / 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bits, Place, Stored};

    /// Compaction and readers keep the frame they read last: in another order they read one for each message.
    #[test]
    fn places_are_ordered_as_they_lie() {
        let place = |generation, frame, offset| Place { generation, frame, offset, len: 100 };
        let lying = [place(1, 8, 3_900), place(1, 9, 0), place(1, 9, 100), place(1, 10, 50), place(2, 1, 0)];
        assert!(lying.is_sorted());
    }

    #[test]
    fn a_message_and_who_counts_its_holders_take_three_cache_lines() {
        let counts = 2 * size_of::<usize>();
        assert!(counts + size_of::<Stored>() <= 3 * 64, "{}", size_of::<Stored>());
    }

    #[test]
    fn bits_hold_what_was_put_in() {
        for width in [1_u32, 63, 64, 65, 1_000] {
            let odd = (0..width).filter(|i| i % 2 == 1 || *i + 1 == width);
            let mut bits = Bits::of(odd.clone());
            for i in 0..width + 70 {
                assert_eq!(bits.contains(i), odd.clone().any(|x| x == i), "{i} of {width}");
            }
            for i in odd {
                assert!(!bits.is_empty());
                assert!(bits.remove(i));
                assert!(!bits.remove(i));
            }
            assert!(bits.is_empty());
            assert!(!bits.remove(width + 100));
        }
    }
}
