//! A queue that most sessions never put anything in.

use std::collections::VecDeque;

/// One word, until something is put in: there is one for each session.
pub(super) struct Seldom<T>(
    #[expect(clippy::box_collection, reason = "a deque is 32 bytes when empty")] Option<Box<VecDeque<T>>>,
);

impl<T> Seldom<T> {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|items| items.is_empty())
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    pub(super) fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        self.0.as_mut()?.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Gives back room for more than there is.
    pub(super) fn shrink(&mut self) {
        match &mut self.0 {
            Some(items) if !items.is_empty() => items.shrink_to_fit(),
            _ => self.0 = None,
        }
    }

    /// How many there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |items| items.capacity())
    }

    /// The one with this key, by which they ascend.
    pub(super) fn get<K: Ord>(&self, key: &K, key_of: impl Fn(&T) -> K) -> Option<&T> {
        let items = self.0.as_ref()?;
        items.get(items.binary_search_by_key(key, key_of).ok()?)
    }
}

impl<T> From<Vec<T>> for Seldom<T> {
    fn from(items: Vec<T>) -> Self {
        if items.is_empty() { Self::new() } else { Self(Some(Box::new(items.into()))) }
    }
}
