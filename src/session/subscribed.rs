//! What one client has subscribed to.

use super::SubscriptionTerms;
use crate::topic::TopicFilter;

/// A session's subscriptions by filter, `$share/...` included.
///
/// A sorted list without room to spare: a device has one subscription or a few, and sleeps with them. A `BTreeMap` takes room
/// for eleven at the first.
#[derive(Debug, Default)]
pub struct Subscribed {
    list: Vec<(TopicFilter, SubscriptionTerms)>,
}

/// Beyond this many the list grows by doubling.
const EXACT_MAX: usize = 4;

impl Subscribed {
    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there is one to exactly this filter.
    pub fn contains(&self, filter: &TopicFilter) -> bool {
        self.find(filter).is_ok()
    }

    /// What was agreed for this filter.
    pub fn get(&self, filter: &TopicFilter) -> Option<SubscriptionTerms> {
        self.list.get(self.find(filter).ok()?).map(|(_, terms)| *terms)
    }

    /// Adds a subscription, or replaces the one there is.
    pub fn insert(&mut self, filter: TopicFilter, terms: SubscriptionTerms) {
        match self.find(&filter) {
            Ok(at) => {
                if let Some((_, old)) = self.list.get_mut(at) {
                    *old = terms;
                }
            }
            Err(at) => {
                if self.list.len() < EXACT_MAX {
                    self.list.reserve_exact(1);
                }
                self.list.insert(at, (filter, terms));
            }
        }
    }

    /// Ends a subscription. `None` if there was none.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<SubscriptionTerms> {
        let (_, terms) = self.list.remove(self.find(filter).ok()?);
        if self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to_fit();
        }
        Some(terms)
    }

    /// All of them, in the order of their filters.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicFilter, SubscriptionTerms)> {
        self.list.iter().map(|(filter, terms)| (filter, *terms))
    }

    fn find(&self, filter: &TopicFilter) -> Result<usize, usize> {
        self.list.binary_search_by(|(known, _)| known.cmp(filter))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::codec::SubscribeOptions;

    fn filter(number: u8) -> TopicFilter {
        TopicFilter::parse(&format!("a/{number}/#")).unwrap()
    }

    fn terms(id: u32) -> SubscriptionTerms {
        SubscriptionTerms { options: SubscribeOptions::default(), id: Some(id) }
    }

    #[test]
    fn one_subscription_takes_room_for_one() {
        let mut subscribed = Subscribed::default();
        subscribed.insert(filter(0), terms(1));
        assert_eq!(subscribed.list.capacity(), 1);
    }

    proptest! {
        /// Against a map.
        #[test]
        fn it_is_a_map(changes in proptest::collection::vec((0_u8..20, proptest::bool::ANY), 0..200)) {
            let (mut map, mut subscribed) = (BTreeMap::new(), Subscribed::default());
            for (id, (number, insert)) in (1..).zip(changes) {
                let (filter, terms) = (filter(number), terms(id));
                if insert {
                    map.insert(filter.clone(), terms);
                    subscribed.insert(filter.clone(), terms);
                } else {
                    prop_assert_eq!(subscribed.remove(&filter), map.remove(&filter));
                }
                prop_assert_eq!(subscribed.get(&filter), map.get(&filter).copied());
                prop_assert_eq!(subscribed.contains(&filter), map.contains_key(&filter));
                prop_assert!(subscribed.iter().eq(map.iter().map(|(filter, terms)| (filter, *terms))));
                prop_assert_eq!((subscribed.len(), subscribed.is_empty()), (map.len(), map.is_empty()));
            }
        }
    }
}
