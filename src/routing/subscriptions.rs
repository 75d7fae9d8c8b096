//! Who subscribed to what.

use crate::{
    codec::SubscribeOptions,
    routing::{
        GroupMatch, Matches,
        matches::merge,
        trie::{Entries, Node},
    },
    topic::{TopicFilter, TopicName},
};

/// What a client asked for with one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// As granted.
    pub options: SubscribeOptions,
    /// v5: the identifier that goes with every message of this subscription.
    pub subscription_id: Option<u32>,
}

/// All subscriptions, by filter. `K` names a subscriber.
///
/// A subscriber has at most one subscription to a filter; a filter in a share group is another filter than the same
/// one without.
pub struct Subscriptions<K> {
    root: Node<K>,
    len: usize,
    generation: u64,
}

impl<K: Copy + Ord> Subscriptions<K> {
    /// None yet, at generation 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a subscription, or replaces the subscriber's own to the same filter and gives back the old one
    /// (section 3.8.4). A member of a group that subscribes again keeps its place.
    pub fn insert(
        &mut self,
        subscriber: K,
        filter: &TopicFilter,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let old = self.root.insert(subscriber, filter, subscription);
        if old.is_none() {
            self.len += 1;
        }
        // Devices subscribe again to the same on every wake: that changes nothing, and keeps what is cached.
        if old != Some(subscription) {
            self.generation += 1;
        }
        old
    }

    /// Ends a subscription. The filter is compared character by character, not by what it matches
    /// (section 3.10.4). `None` if there was none.
    pub fn remove(&mut self, subscriber: K, filter: &TopicFilter) -> Option<Subscription> {
        let old = self.root.remove(subscriber, filter, Some(filter.filter()))?;
        self.len -= 1;
        self.generation += 1;
        Some(old)
    }

    /// Everybody who gets a message published to `topic`. Good for as long as [`generation`](Self::generation) stays
    /// the same.
    pub fn resolve(&self, topic: &TopicName) -> Matches<K> {
        let mut direct = Vec::new();
        let mut groups = Vec::new();
        let mut visit = |entries: &Entries<K>| {
            direct.extend_from_slice(&entries.direct);
            groups.extend_from_slice(&entries.groups);
        };
        // [MQTT-4.7.2-1]
        if topic.is_hidden() {
            self.root.walk_hidden(topic.as_str(), &mut visit);
        } else {
            self.root.walk(Some(topic.as_str()), &mut visit);
        }
        Matches { direct: merge(direct), groups }
    }

    /// The group of a shared subscription as it is now; `None` if it has no members, or `filter` is not shared.
    pub fn group(&self, filter: &TopicFilter) -> Option<GroupMatch<K>> {
        self.root.entries(filter)?.group(filter).cloned()
    }

    /// Whether any filter begins with this level, shared or not.
    pub fn names_level(&self, level: &str) -> bool {
        self.root.has_child(level)
    }

    /// Rises with every change that can change what a topic resolves to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many subscriptions there are, over all subscribers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K> Default for Subscriptions<K> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0, generation: 0 }
    }
}

#[cfg(test)]
mod tests;
