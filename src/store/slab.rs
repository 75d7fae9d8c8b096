//! Every message on disk that somebody needs, in 48 bytes while nobody looks at it.
//!
//! A message that is being sent, moved or shared by many sessions stands here *awake*, as a `Stored`; otherwise *asleep*,
//! with no more than it takes to find it on disk and to know who needs it. A slot keeps its number from the moment the
//! message is on disk until nobody needs it any more; then the number is used again.

use std::{collections::BTreeSet, sync::Arc};

use super::stored::{Bits, Place, Stored};
use crate::{time::Timestamp, topic::Label};

/// Slots of a chunk. A chunk goes back to the allocator when all of its slots are free.
const CHUNK_SLOTS: usize = 4_096;

/// The number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SlotNo(u32);

/// One target's claim on a message on disk. Good until that target is taken off.
///
/// The target's index stands in the upper bits. Below it is the end of the message's id, which is never given twice: a
/// claim that has outlived its message is told from one on the message that has the slot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    slot: SlotNo,
    claim: u32,
}

const ID_BITS: u32 = 8;
const ID_MASK: u32 = (1 << ID_BITS) - 1;

impl Parked {
    /// `None`: the message has more targets than can be told apart.
    pub(super) fn new(slot: SlotNo, id: u64, target: u32) -> Option<Self> {
        Self::can_name(target).then(|| Self { slot, claim: target << ID_BITS | end_of(id) })
    }

    pub(super) fn can_name(target: u32) -> bool {
        target >> (u32::BITS - ID_BITS) == 0
    }

    pub(super) fn slot(self) -> SlotNo {
        self.slot
    }

    /// Index among the message's targets.
    pub(super) fn target(self) -> u32 {
        self.claim >> ID_BITS
    }

    fn is_on(self, id: u64) -> bool {
        self.claim & ID_MASK == end_of(id)
    }
}

fn end_of(id: u64) -> u32 {
    u32::from(id.to_le_bytes()[0])
}

/// The slots.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Chunk>,
    /// Chunks with a free slot.
    open: BTreeSet<usize>,
    /// Awake messages that may sleep when their last holder has let go of them: those told of since the last commit, and
    /// before.
    drowsy: Vec<SlotNo>,
    drowsy_before: Vec<SlotNo>,
}

#[derive(Debug, Default)]
struct Chunk {
    slots: Vec<Slot>,
    /// The first free slot, from which the others are reached.
    free: Option<u16>,
    used: usize,
}

#[derive(Debug)]
enum Slot {
    Free(Option<u16>),
    Awake(Arc<Stored>),
    Asleep(Asleep),
}

/// A message on disk, at its shortest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asleep {
    id: u64,
    expires_at: Timestamp,
    frame_low: u32,
    generation: u32,
    len: u32,
    size_bytes: u32,
    /// Targets that have not confirmed: only a message with few of them sleeps.
    left: u32,
    frame_high: u16,
    offset: u16,
    retained: bool,
    label: Label,
}

impl Asleep {
    /// `None`: it has too many targets, or stands at no place of this world.
    pub(super) fn new(
        id: u64,
        size_bytes: u32,
        expires_at: Timestamp,
        place: Place,
        left: &Bits,
        retained: bool,
        label: Label,
    ) -> Option<Self> {
        Some(Self {
            id,
            expires_at,
            frame_low: u32::try_from(place.frame & 0xffff_ffff).ok()?,
            generation: place.generation,
            len: place.len,
            size_bytes,
            left: left.few()?,
            frame_high: u16::try_from(place.frame >> 32).ok()?,
            offset: place.offset,
            retained,
            label,
        })
    }

    fn place(&self) -> Place {
        Place {
            generation: self.generation,
            offset: self.offset,
            frame: u64::from(self.frame_low) | u64::from(self.frame_high) << 32,
            len: self.len,
        }
    }
}

impl Slab {
    /// Gives a message on disk its slot.
    pub(super) fn insert(&mut self, stored: &Arc<Stored>) -> SlotNo {
        self.put(Slot::Awake(Arc::clone(stored)))
    }

    /// The same for one that was just found on disk.
    pub(super) fn insert_found(
        &mut self,
        id: u64,
        size_bytes: u32,
        expires_at: Timestamp,
        place: Place,
        left: Bits,
        label: Label,
    ) -> SlotNo {
        if let Some(asleep) = Asleep::new(id, size_bytes, expires_at, place, &left, false, label) {
            return self.put(Slot::Asleep(asleep));
        }
        let stored = Arc::new(Stored::recovered(id, size_bytes, expires_at, place, left, false, label));
        let no = self.insert(&stored);
        stored.lock().slot = Some(no);
        no
    }

    fn put(&mut self, slot: Slot) -> SlotNo {
        let at = self.open.first().copied().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.open.insert(self.chunks.len() - 1);
            self.chunks.len() - 1
        });
        let chunk = self.chunks.get_mut(at).expect("an open chunk is there");
        let index = chunk.put(slot);
        if chunk.is_full() {
            self.open.remove(&at);
        }
        SlotNo(u32::try_from(at * CHUNK_SLOTS + index).expect("memory ends before 2^32 slots"))
    }

    /// Nobody needs the message any more.
    pub(super) fn remove(&mut self, no: SlotNo) {
        let (at, index) = split(no);
        if let Some(chunk) = self.chunks.get_mut(at) {
            let was_full = chunk.is_full();
            chunk.remove(index);
            if was_full {
                self.open.insert(at);
            }
        }
    }

    /// The message for somebody to work with.
    pub(super) fn wake(&mut self, no: SlotNo) -> Option<Arc<Stored>> {
        let slot = self.slot_mut(no)?;
        match slot {
            Slot::Free(_) => None,
            Slot::Awake(stored) => Some(Arc::clone(stored)),
            Slot::Asleep(asleep) => {
                let Asleep { id, size_bytes, expires_at, left, retained, label, .. } = *asleep;
                let place = asleep.place();
                let left = Bits::Few(u64::from(left));
                let stored =
                    Arc::new(Stored::recovered(id, size_bytes, expires_at, place, left, retained, label));
                stored.lock().slot = Some(no);
                *slot = Slot::Awake(Arc::clone(&stored));
                Some(stored)
            }
        }
    }

    /// The message that somebody has a claim on; `None` if it is not there any more.
    pub(super) fn claimed(&mut self, parked: Parked) -> Option<Arc<Stored>> {
        self.id(parked.slot).filter(|id| parked.is_on(*id))?;
        self.wake(parked.slot)
    }

    /// Somebody has let go of the message, or is about to.
    pub(super) fn let_go(&mut self, no: SlotNo) {
        if !self.sleep(no) {
            self.drowsy.push(no);
        }
    }

    /// How many messages there are, and how many of them are awake.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let slots = || self.chunks.iter().flat_map(|chunk| &chunk.slots);
        let awake = slots().filter(|slot| matches!(slot, Slot::Awake(_))).count();
        (self.chunks.iter().map(|chunk| chunk.used).sum(), awake)
    }

    /// Puts to sleep whom nobody holds by now. To be called now and then.
    pub(super) fn doze(&mut self) {
        for no in std::mem::take(&mut self.drowsy_before) {
            self.sleep(no);
        }
        std::mem::swap(&mut self.drowsy, &mut self.drowsy_before);
    }

    /// Whether the message sleeps now.
    fn sleep(&mut self, no: SlotNo) -> bool {
        let Some(slot) = self.slot_mut(no) else { return true };
        let Slot::Awake(stored) = slot else { return true };
        // Only this slot holds it, so nobody can take hold of it meanwhile.
        if Arc::strong_count(stored) > 1 {
            return false;
        }
        match stored.asleep() {
            Some(asleep) => *slot = Slot::Asleep(asleep),
            None => return false,
        }
        true
    }

    /// Id and place of a message, if it is on disk and somebody needs it.
    pub(super) fn live(&self, no: SlotNo) -> Option<(u64, Place)> {
        match self.slot(no)? {
            Slot::Free(_) => None,
            Slot::Awake(stored) => {
                let state = stored.lock();
                (!state.is_dead() && !state.lost).then_some((stored.id(), state.place()?))
            }
            Slot::Asleep(asleep) => Some((asleep.id, asleep.place())),
        }
    }

    pub(super) fn id(&self, no: SlotNo) -> Option<u64> {
        match self.slot(no)? {
            Slot::Free(_) => None,
            Slot::Awake(stored) => Some(stored.id()),
            Slot::Asleep(asleep) => Some(asleep.id),
        }
    }

    /// Whether this target has not confirmed.
    pub(super) fn is_left(&self, no: SlotNo, target: u32) -> bool {
        match self.slot(no) {
            Some(Slot::Awake(stored)) => stored.lock().left.contains(target),
            Some(Slot::Asleep(asleep)) => asleep.left.checked_shr(target).is_some_and(|left| left & 1 == 1),
            _ => false,
        }
    }

    /// Bytes of its topic and payload.
    pub(super) fn size_bytes(&self, no: SlotNo) -> usize {
        match self.slot(no) {
            Some(Slot::Awake(stored)) => stored.size_bytes(),
            Some(Slot::Asleep(asleep)) => asleep.size_bytes as usize,
            _ => 0,
        }
    }

    /// When it expires.
    pub(super) fn expires_at(&self, no: SlotNo) -> Timestamp {
        match self.slot(no) {
            Some(Slot::Awake(stored)) => stored.expires_at(),
            Some(Slot::Asleep(asleep)) => asleep.expires_at,
            _ => Timestamp::NEVER,
        }
    }

    /// Whether nobody needs it.
    pub(super) fn is_dead(&self, no: SlotNo) -> bool {
        match self.slot(no) {
            Some(Slot::Awake(stored)) => stored.lock().is_dead(),
            Some(Slot::Asleep(asleep)) => asleep.left == 0 && !asleep.retained,
            _ => true,
        }
    }

    /// It stands here now: for recovery, which finds copies.
    pub(super) fn found_again(&mut self, no: SlotNo, place: Place) {
        if let Some(stored) = self.awake(no) {
            stored.lock().phase = super::stored::Phase::Written(place);
        } else if let Some(Slot::Asleep(asleep)) = self.slot_mut(no) {
            let Asleep { id, size_bytes, expires_at, left, retained, label, .. } = *asleep;
            let left = Bits::Few(u64::from(left));
            if let Some(moved) = Asleep::new(id, size_bytes, expires_at, place, &left, retained, label) {
                *asleep = moved;
            }
        }
    }

    /// A target needs it no more: for recovery, which keeps the books later.
    pub(super) fn clear(&mut self, no: SlotNo, target: u32) {
        if let Some(stored) = self.awake(no) {
            stored.lock().left.remove(target);
        } else if let Some(Slot::Asleep(asleep)) = self.slot_mut(no)
            && let Some(bit) = 1_u32.checked_shl(target)
        {
            asleep.left &= !bit;
        }
    }

    fn awake(&self, no: SlotNo) -> Option<&Arc<Stored>> {
        match self.slot(no)? {
            Slot::Awake(stored) => Some(stored),
            _ => None,
        }
    }

    fn slot(&self, no: SlotNo) -> Option<&Slot> {
        let (at, index) = split(no);
        self.chunks.get(at)?.slots.get(index)
    }

    fn slot_mut(&mut self, no: SlotNo) -> Option<&mut Slot> {
        let (at, index) = split(no);
        self.chunks.get_mut(at)?.slots.get_mut(index)
    }
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.free.is_none() && self.slots.len() == CHUNK_SLOTS
    }

    fn put(&mut self, slot: Slot) -> usize {
        self.used += 1;
        if let Some(free) = self.free
            && let Some(there) = self.slots.get_mut(usize::from(free))
        {
            if let Slot::Free(next) = std::mem::replace(there, slot) {
                self.free = next;
            }
            return usize::from(free);
        }
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(CHUNK_SLOTS);
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index).filter(|slot| !matches!(slot, Slot::Free(_))) else {
            return;
        };
        *slot = Slot::Free(self.free);
        self.free = u16::try_from(index).ok();
        self.used -= 1;
        if self.used == 0 {
            *self = Self::default();
        }
    }
}

fn split(no: SlotNo) -> (usize, usize) {
    (no.0 as usize / CHUNK_SLOTS, no.0 as usize % CHUNK_SLOTS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{CHUNK_SLOTS, Parked, Slab, Slot};
    use crate::{
        store::stored::{Bits, Place},
        time::Timestamp,
        topic::Label,
    };

    const PLACE: Place = Place { generation: 7, offset: 3_999, frame: (1 << 48) - 2, len: 300 };

    fn found(slab: &mut Slab, id: u64, targets: u32) -> super::SlotNo {
        slab.insert_found(id, 200, Timestamp::NEVER, PLACE, Bits::of(0..targets), Label::default())
    }

    #[test]
    fn a_sleeping_message_takes_forty_eight_bytes_and_wakes_as_it_was() {
        assert_eq!(std::mem::size_of::<Slot>(), 48);
        let mut slab = Slab::default();
        let no = found(&mut slab, 5, 3);
        slab.clear(no, 1);
        let stored = slab.wake(no).unwrap();
        assert_eq!(slab.live(no), Some((5, PLACE)));
        assert_eq!(stored.lock().left, Bits::Few(0b101));
        assert!(stored.lock().left.remove(0));
        slab.let_go(no);
        slab.doze();
        assert!(Arc::ptr_eq(&stored, &slab.wake(no).unwrap()), "somebody holds it");
        drop(stored);
        slab.let_go(no);
        assert!(matches!(slab.slot(no), Some(Slot::Asleep(_))));
        assert_eq!(slab.wake(no).unwrap().lock().left, Bits::Few(0b100));
        assert_eq!(slab.size_bytes(no), 200);
        assert!(!slab.is_dead(no));
    }

    #[test]
    fn a_claim_is_on_its_message_and_on_no_later_one_in_the_same_slot() {
        let mut slab = Slab::default();
        let no = found(&mut slab, 5, 3);
        let claim = Parked::new(no, 5, 2).unwrap();
        assert_eq!((claim.slot(), claim.target()), (no, 2));
        assert_eq!(slab.claimed(claim).unwrap().id(), 5);
        assert!(slab.is_left(no, 2) && !slab.is_left(no, 3));
        slab.clear(no, 2);
        assert!(!slab.is_left(no, 2));
        slab.remove(no);
        assert!(slab.claimed(claim).is_none(), "the slot is free");
        assert_eq!(found(&mut slab, 6, 3), no);
        assert!(slab.claimed(claim).is_none(), "the slot is another's");
        assert!(slab.is_left(no, 2));
        assert_eq!(Parked::new(no, 5, (1 << 24) - 1).unwrap().target(), (1 << 24) - 1);
        assert_eq!(Parked::new(no, 5, 1 << 24), None);
    }

    #[test]
    fn one_for_many_stays_awake() {
        let mut slab = Slab::default();
        let no = found(&mut slab, 5, 1_000);
        slab.let_go(no);
        for target in 0..1_000 {
            assert!(!slab.is_dead(no));
            slab.clear(no, target);
        }
        assert!(slab.is_dead(no));
    }

    #[test]
    fn slots_are_used_again_and_empty_chunks_go() {
        let mut slab = Slab::default();
        let all: Vec<_> = (0..CHUNK_SLOTS as u64 * 2 + 10).map(|id| found(&mut slab, id, 1)).collect();
        assert_eq!(slab.chunks.len(), 3);
        for no in &all[..CHUNK_SLOTS] {
            slab.remove(*no);
            slab.remove(*no);
        }
        assert_eq!(slab.chunks[0].slots.capacity(), 0);
        assert_eq!(slab.wake(all[0]).map(|stored| stored.id()), None);
        let again: Vec<_> = (0..CHUNK_SLOTS as u64).map(|id| found(&mut slab, id, 1)).collect();
        assert_eq!((slab.chunks.len(), again.len()), (3, CHUNK_SLOTS));
        slab.remove(all[CHUNK_SLOTS + 5]);
        assert_eq!(found(&mut slab, 99, 1), all[CHUNK_SLOTS + 5]);
        assert_eq!(slab.live(all[CHUNK_SLOTS + 6]), Some((CHUNK_SLOTS as u64 + 6, PLACE)));
    }
}
