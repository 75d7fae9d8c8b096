//! The trie of topic filters.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
};

use crate::{
    routing::{
        GroupMatch, Subscription,
        children::{Children, split_level},
    },
    topic::TopicFilter,
};

/// Where the filters meet that begin with the same levels.
///
/// Invariant: below the root no node is empty, and no `Entries` are.
pub(super) struct Node<K> {
    /// Literal levels.
    children: Children<HashMap<Box<str>, Node<K>>>,
    /// The level `+`.
    any: Option<Box<Node<K>>>,
    /// Filters that end here.
    here: Option<Box<Entries<K>>>,
    /// Filters that end in `#` after this. They match here too (section 4.7.1.2).
    below: Option<Box<Entries<K>>>,
}

/// The subscriptions to one filter.
pub(super) struct Entries<K> {
    /// The ordinary ones, in the order of `K`, each subscriber once.
    pub(super) direct: Vec<(K, Subscription)>,
    /// The shared ones, in the order of their share names.
    pub(super) groups: Vec<GroupMatch<K>>,
}

impl<K: Copy + Ord> Entries<K> {
    /// Adds or replaces; gives back what it replaced.
    fn insert(&mut self, subscriber: K, filter: &TopicFilter, new: Subscription) -> Option<Subscription> {
        if filter.share_name().is_some() {
            return self.insert_shared(subscriber, filter, new);
        }
        match self.direct.binary_search_by_key(&subscriber, |(k, _)| *k) {
            Ok(at) => self.direct.get_mut(at).map(|(_, old)| std::mem::replace(old, new)),
            Err(at) => {
                if self.direct.is_empty() {
                    // Most filters have one subscriber; `Vec` would begin with room for four.
                    self.direct.reserve_exact(1);
                }
                self.direct.insert(at, (subscriber, new));
                None
            }
        }
    }

    fn insert_shared(
        &mut self,
        subscriber: K,
        filter: &TopicFilter,
        new: Subscription,
    ) -> Option<Subscription> {
        match self.find_group(filter) {
            Ok(at) => {
                let members = &mut self.groups.get_mut(at)?.members;
                if let Some((_, old)) = members.iter_mut().find(|(k, _)| *k == subscriber) {
                    return Some(std::mem::replace(old, new));
                }
                members.push((subscriber, new));
            }
            Err(at) => {
                let group = GroupMatch {
                    group: filter.clone(),
                    members: vec![(subscriber, new)],
                    cursor: Arc::new(AtomicUsize::new(0)),
                };
                self.groups.insert(at, group);
            }
        }
        None
    }

    fn remove(&mut self, subscriber: K, filter: &TopicFilter) -> Option<Subscription> {
        if filter.share_name().is_none() {
            let at = self.direct.binary_search_by_key(&subscriber, |(k, _)| *k).ok()?;
            return Some(self.direct.remove(at).1);
        }
        let at = self.find_group(filter).ok()?;
        let members = &mut self.groups.get_mut(at)?.members;
        let place = members.iter().position(|(k, _)| *k == subscriber)?;
        let (_, old) = members.remove(place);
        if members.is_empty() {
            self.groups.remove(at);
        }
        Some(old)
    }

    /// The group, if there is one, of the shared subscription `filter`, which is this filter under a share name.
    pub(super) fn group(&self, filter: &TopicFilter) -> Option<&GroupMatch<K>> {
        self.groups.get(self.find_group(filter).ok()?)
    }

    fn find_group(&self, filter: &TopicFilter) -> Result<usize, usize> {
        self.groups.binary_search_by(|g| g.group.share_name().cmp(&filter.share_name()))
    }

    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }
}

impl<K: Copy + Ord> Node<K> {
    pub(super) fn has_child(&self, level: &str) -> bool {
        self.children.get(level).is_some()
    }

    pub(super) fn insert(
        &mut self,
        subscriber: K,
        filter: &TopicFilter,
        new: Subscription,
    ) -> Option<Subscription> {
        let mut node = self;
        let mut rest = Some(filter.filter());
        while let Some(text) = rest {
            let (level, after) = split_level(text);
            node = match level {
                "#" => return node.below.get_or_insert_default().insert(subscriber, filter, new),
                "+" => node.any.get_or_insert_default(),
                literal => node.children.get_or_insert(literal),
            };
            rest = after;
        }
        node.here.get_or_insert_default().insert(subscriber, filter, new)
    }

    /// `rest` is what follows this node in the filter part of `filter`. Leaves no empty node behind.
    pub(super) fn remove(
        &mut self,
        subscriber: K,
        filter: &TopicFilter,
        rest: Option<&str>,
    ) -> Option<Subscription> {
        match rest.map(split_level) {
            None => remove_from(&mut self.here, subscriber, filter),
            Some(("#", _)) => remove_from(&mut self.below, subscriber, filter),
            Some(("+", after)) => {
                let node = self.any.as_mut()?;
                let old = node.remove(subscriber, filter, after)?;
                if node.is_empty() {
                    self.any = None;
                }
                Some(old)
            }
            Some((level, after)) => {
                let node = self.children.get_mut(level)?;
                let old = node.remove(subscriber, filter, after)?;
                if node.is_empty() {
                    self.children.remove(level);
                }
                Some(old)
            }
        }
    }

    /// The subscriptions to exactly this filter.
    pub(super) fn entries(&self, filter: &TopicFilter) -> Option<&Entries<K>> {
        let mut node = self;
        let mut rest = Some(filter.filter());
        while let Some(text) = rest {
            let (level, after) = split_level(text);
            node = match level {
                "#" => return node.below.as_deref(),
                "+" => node.any.as_deref()?,
                literal => node.children.get(literal)?,
            };
            rest = after;
        }
        node.here.as_deref()
    }

    /// Visits what matches a topic, of which `rest` follows this node.
    pub(super) fn walk<'a>(&'a self, rest: Option<&str>, visit: &mut dyn FnMut(&'a Entries<K>)) {
        if let Some(entries) = &self.below {
            visit(entries);
        }
        let Some(rest) = rest else {
            if let Some(entries) = &self.here {
                visit(entries);
            }
            return;
        };
        let (level, after) = split_level(rest);
        if let Some(node) = &self.any {
            node.walk(after, visit);
        }
        if let Some(node) = self.children.get(level) {
            node.walk(after, visit);
        }
    }

    /// Like `walk` from the root, for a topic that begins with `$`: without the filters that begin with a wildcard.
    pub(super) fn walk_hidden<'a>(&'a self, topic: &str, visit: &mut dyn FnMut(&'a Entries<K>)) {
        let (level, after) = split_level(topic);
        if let Some(node) = self.children.get(level) {
            node.walk(after, visit);
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.any.is_none() && self.children.is_empty()
    }

    /// How many nodes there are, with this one.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let mut nodes = 1 + self.any.as_ref().map_or(0, |any| any.count());
        let _ = self.children.try_each(&mut |_, node| {
            nodes += node.count();
            std::ops::ControlFlow::Continue(())
        });
        nodes
    }
}

impl<K> Default for Node<K> {
    fn default() -> Self {
        Self { children: Children::default(), any: None, here: None, below: None }
    }
}

impl<K> Default for Entries<K> {
    fn default() -> Self {
        Self { direct: Vec::new(), groups: Vec::new() }
    }
}

fn remove_from<K: Copy + Ord>(
    slot: &mut Option<Box<Entries<K>>>,
    subscriber: K,
    filter: &TopicFilter,
) -> Option<Subscription> {
    let entries = slot.as_mut()?;
    let old = entries.remove(subscriber, filter)?;
    if entries.is_empty() {
        *slot = None;
    }
    Some(old)
}
