//! What a topic resolves to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{codec::QoS, routing::Subscription, topic::TopicFilter};

/// Everybody who gets a message of one topic.
#[derive(Clone, Debug)]
pub struct Matches<K> {
    /// One for each subscriber with at least one matching ordinary subscription, in the order of `K`.
    pub direct: Vec<Match<K>>,
    /// One for each matching shared subscription, of whose members one gets the message.
    pub groups: Vec<GroupMatch<K>>,
}

/// A subscriber's matching subscriptions, merged into one delivery [MQTT-3.3.4-2].
///
/// For the publisher itself the merged values may differ: see [`Match::for_publisher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<K> {
    /// Who gets it.
    pub subscriber: K,
    /// The highest of the subscriptions' [MQTT-3.3.4-2].
    pub qos: QoS,
    /// Every matching subscription is "no local": the publisher itself gets nothing.
    pub no_local: bool,
    /// At least one matching subscription is "retain as published".
    pub retain_as_published: bool,
    /// Of every matching subscription that has one [MQTT-3.3.4-4], ascending; twice when two have the same.
    pub subscription_ids: Vec<u32>,
    /// The same without the "no local" subscriptions, where some are and some are not.
    without_no_local: Option<Box<Match<K>>>,
}

/// A matching shared subscription (MQTT 5.0 section 4.8.2).
#[derive(Clone, Debug)]
pub struct GroupMatch<K> {
    /// Names the group for as long as it has members, across restarts too: `$share/name/filter`.
    pub group: TopicFilter,
    /// In the order they joined; never empty.
    pub members: Vec<(K, Subscription)>,
    /// Whose turn it is: an index into `members`, modulo their number. Shared by all matches of the group.
    pub cursor: Arc<AtomicUsize>,
}

impl<K: Copy> Match<K> {
    /// One subscriber's subscriptions. `None` if there are none.
    fn merge(subscriptions: &[(K, Subscription)]) -> Option<Self> {
        let mut merged = Self::merge_where(subscriptions, |_| true)?;
        let no_local = subscriptions.iter().filter(|(_, s)| s.options.no_local).count();
        merged.no_local = no_local == subscriptions.len();
        if no_local > 0 && !merged.no_local {
            // [MQTT-3.8.3-3] takes these out of what the publisher itself gets: not only the message, but also their
            // QoS and identifiers.
            merged.without_no_local = Self::merge_where(subscriptions, |s| !s.options.no_local).map(Box::new);
        }
        Some(merged)
    }

    fn merge_where(
        subscriptions: &[(K, Subscription)],
        counts: impl Fn(&Subscription) -> bool,
    ) -> Option<Self> {
        let mut counted = subscriptions.iter().filter(|(_, s)| counts(s));
        let &(subscriber, first) = counted.next()?;
        let mut merged = Self {
            subscriber,
            qos: first.options.qos,
            no_local: false,
            retain_as_published: first.options.retain_as_published,
            subscription_ids: first.subscription_id.into_iter().collect(),
            without_no_local: None,
        };
        for (_, s) in counted {
            // [MQTT-3.3.4-2], [MQTT3-3.3.5-1]
            merged.qos = merged.qos.max(s.options.qos);
            merged.retain_as_published |= s.options.retain_as_published;
            // [MQTT-3.3.4-3], [MQTT-3.3.4-4]
            merged.subscription_ids.extend(s.subscription_id);
        }
        merged.subscription_ids.sort_unstable();
        Some(merged)
    }

    /// What the subscriber gets when it is the publisher itself: only its subscriptions without "no local" count
    /// [MQTT-3.8.3-3]. `None` if there are none.
    pub fn for_publisher(&self) -> Option<&Self> {
        if self.no_local { None } else { Some(self.without_no_local.as_deref().unwrap_or(self)) }
    }
}

impl<K: Copy> GroupMatch<K> {
    /// The next member in turn that `suits`, whose turn is then over. `None`, and nobody's turn, if none does.
    ///
    /// Two threads that ask at once may get the same member: that costs fairness, and no more.
    pub fn next_where(&self, mut suits: impl FnMut(K) -> bool) -> Option<(K, Subscription)> {
        let start = self.cursor.load(Ordering::Relaxed).checked_rem(self.members.len())?;
        let (before, from) = self.members.split_at_checked(start)?;
        let in_turn = (start..).zip(from).chain((0..).zip(before));
        let (at, &member) = in_turn.into_iter().find(|(_, (k, _))| suits(*k))?;
        self.cursor.store(at + 1, Ordering::Relaxed);
        Some(member)
    }
}

/// Merges matching subscriptions, each subscriber's into one. `matching` is in any order.
pub(super) fn merge<K: Copy + Ord>(mut matching: Vec<(K, Subscription)>) -> Vec<Match<K>> {
    // Made of a few sorted runs, one for each filter: a stable sort finds and merges them.
    matching.sort_by_key(|(k, _)| *k);
    let mut merged = Vec::with_capacity(matching.len());
    merged.extend(matching.chunk_by(|(a, _), (b, _)| a == b).filter_map(Match::merge));
    merged
}
