//! What waits on disk for one session, in 16 bytes a message.

use std::collections::VecDeque;

use crate::message::{Delivery, Seq};

/// So many ways of delivering are looked through for one that is known; beyond it a way may be listed twice.
const LOOKED_THROUGH: usize = 64;
/// Room below the first number, for those that come back later.
const BELOW: u64 = 1 << 31;
/// A shelf grows by one part in this many: doubling wastes a third on average.
const GROW_BY: usize = 8;
const GROW_MIN: usize = 8;

/// Messages in the order of their numbers. `P` is how the keeper finds one.
///
/// Invariant: it has no rows rather than empty ones. Every session has two shelves, and most are empty.
#[derive(Clone, Debug)]
pub struct Shelf<P> {
    rows: Option<Box<Rows<P>>>,
}

#[derive(Clone, Debug)]
struct Rows<P> {
    /// What the items' numbers are counted from.
    base: u64,
    items: VecDeque<Item<P>>,
    /// The ways the messages are delivered, which are few as a rule: an item has the index of its own.
    deliveries: Vec<Delivery>,
}

#[derive(Clone, Copy, Debug)]
struct Item<P> {
    seq: u32,
    delivery: u32,
    parked: P,
}

/// One message of a shelf.
#[derive(Clone, Debug)]
pub struct Shelved<P> {
    /// Its place in the session's order.
    pub seq: Seq,
    /// How the keeper finds it.
    pub parked: P,
    /// How the session gets it.
    pub delivery: Delivery,
}

impl<P: Copy> Shelf<P> {
    /// An empty one.
    pub fn new() -> Self {
        Self { rows: None }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.rows.as_ref().map_or(0, |rows| rows.items.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_none()
    }

    /// The lowest number.
    pub fn first(&self) -> Option<Seq> {
        self.rows.as_ref()?.first()
    }

    /// The highest number.
    pub fn last(&self) -> Option<Seq> {
        self.rows.as_ref()?.last()
    }

    /// All messages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Shelved<P>> + '_ {
        self.rows.iter().flat_map(|rows| rows.items.iter().filter_map(|item| rows.show(item)))
    }

    /// Puts a message in its place, instead of one with the same number; gives it back if its number is 2^32 away from
    /// another's.
    pub fn insert(&mut self, seq: Seq, parked: P, delivery: &Delivery) -> Result<(), P> {
        self.rows.get_or_insert_default().insert(seq, parked, delivery)
    }

    /// Takes the first message.
    pub fn pop_front(&mut self) -> Option<Shelved<P>> {
        let first = self.rows.as_mut()?.pop_front();
        self.clear_away();
        first
    }

    /// Takes out the messages with these numbers.
    pub fn take(&mut self, is_wanted: impl Fn(Seq) -> bool) -> Vec<Shelved<P>> {
        let taken = self.rows.as_mut().map(|rows| rows.take(is_wanted));
        self.clear_away();
        taken.unwrap_or_default()
    }

    /// The message with this number.
    pub fn get(&self, seq: Seq) -> Option<P> {
        let rows = self.rows.as_ref()?;
        rows.items.get(rows.at(seq)?).map(|item| item.parked)
    }

    /// Takes out the message with this number.
    pub fn remove(&mut self, seq: Seq) -> Option<Shelved<P>> {
        let removed = self.rows.as_mut()?.remove(seq);
        self.clear_away();
        removed
    }

    /// The numbers from this one on, ascending.
    pub fn seqs_from(&self, seq: Seq) -> impl Iterator<Item = Seq> + '_ {
        self.rows.iter().flat_map(move |rows| {
            let from = rows.items.partition_point(|item| rows.seq(item) < seq);
            rows.items.iter().skip(from).map(|item| rows.seq(item))
        })
    }

    fn clear_away(&mut self) {
        self.rows.take_if(|rows| rows.items.is_empty());
    }
}

impl<P: Copy> Rows<P> {
    fn first(&self) -> Option<Seq> {
        self.items.front().map(|item| self.seq(item))
    }

    fn last(&self) -> Option<Seq> {
        self.items.back().map(|item| self.seq(item))
    }

    fn insert(&mut self, seq: Seq, parked: P, delivery: &Delivery) -> Result<(), P> {
        let Some(offset) = self.offset(seq) else { return Err(parked) };
        let item = Item { seq: offset, delivery: self.index_of(delivery), parked };
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact((self.items.len() / GROW_BY).max(GROW_MIN));
        }
        if self.items.back().is_none_or(|last| last.seq < offset) {
            self.items.push_back(item);
            return Ok(());
        }
        match self.items.binary_search_by_key(&offset, |item| item.seq) {
            Ok(at) => {
                if let Some(there) = self.items.get_mut(at) {
                    *there = item;
                }
            }
            Err(at) => self.items.insert(at, item),
        }
        Ok(())
    }

    fn pop_front(&mut self) -> Option<Shelved<P>> {
        let item = self.items.pop_front()?;
        let shown = self.show(&item);
        self.shrink();
        shown
    }

    fn take(&mut self, is_wanted: impl Fn(Seq) -> bool) -> Vec<Shelved<P>> {
        let base = self.base;
        let is_wanted = |item: &Item<P>| is_wanted(Seq(base + u64::from(item.seq)));
        let taken =
            self.items.iter().filter(|item| is_wanted(item)).filter_map(|item| self.show(item)).collect();
        self.items.retain(|item| !is_wanted(item));
        self.shrink();
        taken
    }

    fn remove(&mut self, seq: Seq) -> Option<Shelved<P>> {
        let item = self.items.remove(self.at(seq)?)?;
        let shown = self.show(&item);
        self.shrink();
        shown
    }

    fn at(&self, seq: Seq) -> Option<usize> {
        let offset = u32::try_from(seq.0.checked_sub(self.base)?).ok()?;
        self.items.binary_search_by_key(&offset, |item| item.seq).ok()
    }

    fn show(&self, item: &Item<P>) -> Option<Shelved<P>> {
        let delivery = self.deliveries.get(item.delivery as usize)?.clone();
        Some(Shelved { seq: self.seq(item), parked: item.parked, delivery })
    }

    fn seq(&self, item: &Item<P>) -> Seq {
        Seq(self.base + u64::from(item.seq))
    }

    /// The short form of a number; `None` if it is too far from the others.
    fn offset(&mut self, seq: Seq) -> Option<u32> {
        if self.items.is_empty() {
            self.base = seq.0.saturating_sub(BELOW);
        }
        if let Some(offset) = seq.0.checked_sub(self.base).and_then(|n| u32::try_from(n).ok()) {
            return Some(offset);
        }
        // The numbers have wandered away from where they were counted from.
        let first = self.items.front().map_or(seq, |item| self.seq(item)).min(seq);
        let last = self.last().unwrap_or(seq).max(seq);
        let bases = [first.0.saturating_sub(BELOW), first.0];
        let base = bases.into_iter().find(|base| u32::try_from(last.0 - base).is_ok())?;
        let old = std::mem::replace(&mut self.base, base);
        for item in &mut self.items {
            item.seq = u32::try_from(old + u64::from(item.seq) - base).unwrap_or(u32::MAX);
        }
        u32::try_from(seq.0 - base).ok()
    }

    fn index_of(&mut self, delivery: &Delivery) -> u32 {
        let recent = self.deliveries.iter().enumerate().rev().take(LOOKED_THROUGH);
        let known = recent.filter(|(_, known)| *known == delivery).map(|(at, _)| at).next();
        let at = known.unwrap_or_else(|| {
            if self.deliveries.len() > LOOKED_THROUGH.max(2 * self.items.len()) {
                self.forget_unused();
            }
            self.deliveries.push(delivery.clone());
            self.deliveries.len() - 1
        });
        u32::try_from(at).expect("a shelf has far less than 2^32 messages")
    }

    fn forget_unused(&mut self) {
        let all = std::mem::take(&mut self.deliveries);
        for item in &mut self.items {
            if let Some(delivery) = all.get(item.delivery as usize) {
                item.delivery = u32::try_from(self.deliveries.len()).unwrap_or(u32::MAX);
                self.deliveries.push(delivery.clone());
            }
        }
    }

    fn shrink(&mut self) {
        if self.items.capacity() > 64 && self.items.len() * 4 < self.items.capacity() {
            self.items.shrink_to(self.items.len() * 2);
        }
    }
}

impl<P: Copy> Default for Shelf<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Default for Rows<P> {
    fn default() -> Self {
        Self { base: 0, items: VecDeque::new(), deliveries: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{BELOW, Item, LOOKED_THROUGH, Shelf};
    use crate::{
        codec::QoS,
        message::{Delivery, Seq},
    };

    fn delivery(id: u32) -> Delivery {
        Delivery { qos: QoS::AtLeastOnce, retain: false, subscription_ids: vec![id] }
    }

    #[test]
    fn an_item_takes_sixteen_bytes() {
        assert_eq!(std::mem::size_of::<Item<(u32, u32)>>(), 16);
    }

    proptest! {
        #[test]
        fn it_is_an_ordered_map(
            base in any::<u32>(),
            steps in prop::collection::vec((0..200_u64, 0..4_u32, 0..10_u32), 1..300),
        ) {
            let mut shelf = Shelf::new();
            let mut oracle = std::collections::BTreeMap::new();
            for (n, id, what) in steps {
                let seq = u64::from(base) + n;
                match what {
                    0 => {
                        prop_assert_eq!(shelf.get(Seq(seq)), oracle.get(&seq).map(|(n, _)| *n));
                        let removed = shelf.remove(Seq(seq)).map(|s| (s.seq.0, s.parked, s.delivery));
                        prop_assert_eq!(removed, oracle.remove(&seq).map(|(n, d)| (seq, n, d)));
                        let later: Vec<_> = oracle.range(seq..).map(|(seq, _)| Seq(*seq)).collect();
                        prop_assert_eq!(shelf.seqs_from(Seq(seq)).collect::<Vec<_>>(), later);
                    }
                    1 => {
                        let first = shelf.pop_front().map(|s| (s.seq.0, (s.parked, s.delivery)));
                        prop_assert_eq!(first, oracle.pop_first());
                    }
                    2 => {
                        let is_wanted = |seq: Seq| seq.0 % 4 == u64::from(id);
                        let taken: Vec<_> = shelf.take(is_wanted).into_iter().map(|s| s.seq.0).collect();
                        let wanted: Vec<_> = oracle.keys().copied().filter(|seq| is_wanted(Seq(*seq))).collect();
                        oracle.retain(|seq, _| !is_wanted(Seq(*seq)));
                        prop_assert_eq!(taken, wanted);
                    }
                    _ => {
                        shelf.insert(Seq(seq), n, &delivery(id)).unwrap();
                        oracle.insert(seq, (n, delivery(id)));
                    }
                }
                prop_assert_eq!(shelf.first(), oracle.keys().next().map(|seq| Seq(*seq)));
                prop_assert_eq!(shelf.last(), oracle.keys().last().map(|seq| Seq(*seq)));
            }
            let all: Vec<_> = shelf.iter().map(|s| (s.seq.0, (s.parked, s.delivery))).collect();
            prop_assert_eq!(all, oracle.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn numbers_that_wander_far_are_followed_and_a_span_too_wide_is_refused() {
        let mut shelf = Shelf::new();
        for n in 0..20 {
            let seq = Seq(n * (BELOW / 2));
            assert_eq!(shelf.insert(seq, n, &delivery(0)), Ok(()));
            if n > 1 {
                assert_eq!(shelf.pop_front().unwrap().seq, Seq((n - 2) * (BELOW / 2)));
            }
        }
        assert_eq!(shelf.insert(Seq(1 << 40), 7, &delivery(0)), Err(7));
        assert_eq!(shelf.len(), 2);
    }

    #[test]
    fn ways_of_delivering_that_nobody_uses_are_forgotten() {
        let mut shelf = Shelf::new();
        for n in 0..10_000 {
            shelf.insert(Seq(n), n, &delivery(u32::try_from(n).unwrap())).unwrap();
            if n >= 10 {
                let first = shelf.pop_front().unwrap();
                assert_eq!(first.delivery.subscription_ids, [u32::try_from(first.parked).unwrap()]);
            }
            let deliveries = shelf.rows.as_ref().map_or(0, |rows| rows.deliveries.len());
            assert!(deliveries <= LOOKED_THROUGH + 2);
        }
    }
}
