//! A session's queue: the first messages at hand, the rest on the shelf if it is on disk.

use std::collections::VecDeque;

use super::{Entry, LOAD_MESSAGES_MAX};
use crate::{
    message::{Delivery, Seq},
    session::{
        keeper::Keeper,
        shelf::{Shelf, Shelved},
    },
};

/// In order: `head`, `shelf`, `tail`. With nothing on the shelf there is nothing in the tail.
pub(super) struct Queue<K: Keeper> {
    head: VecDeque<Entry<K>>,
    shelf: Shelf<K::Parked>,
    tail: VecDeque<Entry<K>>,
}

impl<K: Keeper> Queue<K> {
    pub(super) fn new() -> Self {
        Self { head: VecDeque::new(), shelf: Shelf::new(), tail: VecDeque::new() }
    }

    /// All of it on the shelf.
    pub(super) fn shelved(shelf: Shelf<K::Parked>) -> Self {
        Self { shelf, ..Self::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.shelf.len() + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.shelf.is_empty()
    }

    pub(super) fn push_back(&mut self, entry: Entry<K>) {
        if self.shelf.is_empty() { &mut self.head } else { &mut self.tail }.push_back(entry);
    }

    /// Takes from the shelf what may be sent next.
    pub(super) fn refill(&mut self, keeper: &K) {
        if self.head.len() > LOAD_MESSAGES_MAX / 2 || self.shelf.is_empty() {
            return;
        }
        let mut taken = Vec::new();
        while self.head.len() + taken.len() < LOAD_MESSAGES_MAX
            && let Some(shelved) = self.shelf.pop_front()
        {
            taken.push(shelved);
        }
        let parked: Vec<_> = taken.iter().map(|shelved| shelved.parked).collect();
        for (kept, shelved) in keeper.unpark(&parked).into_iter().zip(taken) {
            self.head.push_back(Entry { seq: shelved.seq, kept, delivery: shelved.delivery });
        }
        self.close_gap();
    }

    /// The next one; call `refill` before.
    pub(super) fn front(&self) -> Option<&Entry<K>> {
        self.head.front()
    }

    pub(super) fn pop_front(&mut self, keeper: &K) -> Option<Entry<K>> {
        self.refill(keeper);
        let entry = self.head.pop_front();
        if self.head.is_empty() && self.head.capacity() > LOAD_MESSAGES_MAX {
            self.head = VecDeque::new();
        }
        entry
    }

    /// Those at hand, the next one first.
    pub(super) fn ahead(&self) -> impl Iterator<Item = &Entry<K>> {
        self.head.iter().take(LOAD_MESSAGES_MAX)
    }

    /// How many messages are not on the shelf.
    pub(super) fn at_hand(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Puts on the shelf what can be found again on disk, but for the first `keep`.
    pub(super) fn park(&mut self, keeper: &K, keep: usize) {
        let is_parkable = |entry: &Entry<K>| keeper.is_parkable(&entry.kept);
        if self.shelf.is_empty() {
            // What cannot be parked yet is the newest, as a rule: it becomes the tail.
            let until = self.head.iter().rposition(is_parkable).map_or(0, |last| last + 1).max(keep);
            if until < self.head.len() {
                self.tail = self.head.split_off(until);
            }
        }
        let mut from = self.head.len();
        while from > keep && self.head.get(from - 1).is_some_and(is_parkable) {
            from -= 1;
        }
        let left = shelve(keeper, &mut self.shelf, self.head.drain(from..).map(parts));
        self.head.extend(left.map(entry));
        let mut until = 0;
        while self.tail.get(until).is_some_and(is_parkable) {
            until += 1;
        }
        let left = shelve(keeper, &mut self.shelf, self.tail.drain(..until).map(parts));
        left.rev().for_each(|parts| self.tail.push_front(entry(parts)));
        self.close_gap();
        for part in [&mut self.head, &mut self.tail] {
            if part.is_empty() {
                *part = VecDeque::new();
            }
        }
    }

    /// The number of the next one, at hand or on the shelf.
    pub(super) fn first(&self) -> Option<Seq> {
        self.head.front().map(|entry| entry.seq).or_else(|| self.shelf.first())
    }

    /// The number of the first one that is wanted, of those from `from` on.
    pub(super) fn find_from(&self, from: Seq, is_wanted: impl Fn(Seq) -> bool) -> Option<Seq> {
        let part = |entries| seqs_from(entries, from);
        part(&self.head).chain(self.shelf.seqs_from(from)).chain(part(&self.tail)).find(|seq| is_wanted(*seq))
    }

    /// Bytes of topic, payload and properties of the one with this number.
    pub(super) fn size_bytes(&self, keeper: &K, seq: Seq) -> Option<usize> {
        if let Some(parked) = self.shelf.get(seq) {
            return Some(keeper.parked_bytes(&[parked]));
        }
        let in_part =
            |entries: &VecDeque<Entry<K>>| Some(keeper.size_bytes(&entries.get(at(entries, seq)?)?.kept));
        in_part(&self.head).or_else(|| in_part(&self.tail))
    }

    /// Takes out the one with this number; the others stay where they are.
    pub(super) fn remove(&mut self, keeper: &K, seq: Seq) -> Option<Entry<K>> {
        if let Some(Shelved { seq, parked, delivery }) = self.shelf.remove(seq) {
            self.close_gap();
            let kept = keeper.unpark(&[parked]).pop()?;
            return Some(Entry { seq, kept, delivery });
        }
        let part = if at(&self.head, seq).is_some() { &mut self.head } else { &mut self.tail };
        part.remove(at(part, seq)?)
    }

    /// Takes out those with these numbers, in order.
    pub(super) fn take(&mut self, keeper: &K, is_wanted: impl Fn(Seq) -> bool) -> Vec<Entry<K>> {
        let split = |entries: &mut VecDeque<Entry<K>>| {
            let (wanted, rest) = std::mem::take(entries).into_iter().partition(|entry| is_wanted(entry.seq));
            *entries = rest;
            wanted
        };
        let mut taken: Vec<Entry<K>> = split(&mut self.head).into();
        let shelved = self.shelf.take(&is_wanted);
        let parked: Vec<_> = shelved.iter().map(|shelved| shelved.parked).collect();
        let kept = keeper.unpark(&parked).into_iter().zip(shelved);
        taken.extend(kept.map(|(kept, Shelved { seq, delivery, .. })| Entry { seq, kept, delivery }));
        taken.extend(split(&mut self.tail));
        self.close_gap();
        taken
    }

    /// With nothing on the shelf there is nothing behind it.
    fn close_gap(&mut self) {
        if self.shelf.is_empty() {
            self.head.append(&mut self.tail);
            self.tail = VecDeque::new();
        }
    }
}

fn seqs_from<K: Keeper>(entries: &VecDeque<Entry<K>>, from: Seq) -> impl Iterator<Item = Seq> {
    let at = entries.partition_point(|entry| entry.seq < from);
    entries.iter().skip(at).map(|entry| entry.seq)
}

fn at<K: Keeper>(entries: &VecDeque<Entry<K>>, seq: Seq) -> Option<usize> {
    entries.binary_search_by_key(&seq, |entry| entry.seq).ok()
}

/// What stands on a shelf, and what does not fit there.
pub(super) type Parts<K> = (Seq, <K as Keeper>::Kept, Delivery);

fn parts<K: Keeper>(entry: Entry<K>) -> Parts<K> {
    (entry.seq, entry.kept, entry.delivery)
}

fn entry<K: Keeper>((seq, kept, delivery): Parts<K>) -> Entry<K> {
    Entry { seq, kept, delivery }
}

/// Parks messages that can be and puts them on a shelf. Gives back those whose numbers are too far from the others'.
pub(super) fn shelve<K: Keeper>(
    keeper: &K,
    shelf: &mut Shelf<K::Parked>,
    messages: impl Iterator<Item = Parts<K>>,
) -> std::vec::IntoIter<Parts<K>> {
    let (kept, ways): (Vec<_>, Vec<_>) =
        messages.map(|(seq, kept, delivery)| (kept, (seq, delivery))).unzip();
    let mut left = Vec::new();
    if !kept.is_empty() {
        for (parked, (seq, delivery)) in keeper.park(kept).into_iter().zip(ways) {
            if let Err(parked) = shelf.insert(seq, parked, &delivery) {
                left.push((parked, (seq, delivery)));
            }
        }
    }
    let parked: Vec<_> = left.iter().map(|(parked, _)| *parked).collect();
    let kept = keeper.unpark(&parked).into_iter().zip(left);
    kept.map(|(kept, (_, (seq, delivery)))| (seq, kept, delivery)).collect::<Vec<_>>().into_iter()
}
