//! The retained message of each topic.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    routing::children::{Children, split_level},
    topic::{TopicFilter, TopicName},
};

/// One value for each topic, found by filter.
pub struct Retained<V> {
    root: Node<V>,
    len: usize,
}

/// Where the topics meet that begin with the same levels.
///
/// Invariant: below the root a node has a value, or a child.
struct Node<V> {
    value: Option<V>,
    /// Listed by wildcards, so in an order: a simulation must be able to repeat itself.
    children: Children<BTreeMap<Box<str>, Node<V>>>,
}

impl<V> Retained<V> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a topic's value and gives back the one before.
    pub fn set(&mut self, topic: &TopicName, value: V) -> Option<V> {
        let mut node = &mut self.root;
        let mut rest = Some(topic.as_str());
        while let Some(text) = rest {
            let (level, after) = split_level(text);
            node = node.children.get_or_insert(level);
            rest = after;
        }
        let old = node.value.replace(value);
        if old.is_none() {
            self.len += 1;
        }
        old
    }

    /// Takes a topic's value out.
    pub fn remove(&mut self, topic: &TopicName) -> Option<V> {
        let old = self.root.remove(Some(topic.as_str()))?;
        self.len -= 1;
        Some(old)
    }

    /// A topic's value.
    pub fn get(&self, topic: &TopicName) -> Option<&V> {
        let mut node = &self.root;
        let mut rest = Some(topic.as_str());
        while let Some(text) = rest {
            let (level, after) = split_level(text);
            node = node.children.get(level)?;
            rest = after;
        }
        node.value.as_ref()
    }

    /// Visits the value of every topic that matches `filter` until told to stop, in the order of the topics' levels.
    /// Looks only at branches that can match: a filter without wildcards costs one path.
    pub fn lookup(&self, filter: &TopicFilter, visit: &mut dyn FnMut(&V) -> ControlFlow<()>) {
        let filter = filter.filter();
        // [MQTT-4.7.2-1]: at the root, and only there, a wildcard does not see `$`.
        let _ = match split_level(filter) {
            ("#", _) => self.root.each_visible(&mut |node| node.walk_all(visit)),
            ("+", after) => self.root.each_visible(&mut |node| node.walk(after, visit)),
            _ => self.root.walk(Some(filter), visit),
        };
    }

    /// Visits every value, `$` topics included, in the order of the topics' levels.
    pub fn for_each(&self, visit: &mut dyn FnMut(&V)) {
        let _ = self.root.walk_all(&mut |value| {
            visit(value);
            ControlFlow::Continue(())
        });
    }

    /// How many topics have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<V> Default for Retained<V> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<V> Node<V> {
    /// `rest` is what follows this node in the topic. Leaves no empty node behind.
    fn remove(&mut self, rest: Option<&str>) -> Option<V> {
        let Some(rest) = rest else {
            return self.value.take();
        };
        let (level, after) = split_level(rest);
        let node = self.children.get_mut(level)?;
        let old = node.remove(after)?;
        if node.value.is_none() && node.children.is_empty() {
            self.children.remove(level);
        }
        Some(old)
    }

    /// Visits what matches a filter, of which `rest` follows this node.
    fn walk(&self, rest: Option<&str>, visit: &mut dyn FnMut(&V) -> ControlFlow<()>) -> ControlFlow<()> {
        match rest.map(split_level) {
            None => self.value.as_ref().map_or(ControlFlow::Continue(()), visit),
            // This level too: `sport/#` matches `sport` (section 4.7.1.2).
            Some(("#", _)) => self.walk_all(visit),
            Some(("+", after)) => self.children.try_each(&mut |_, node| node.walk(after, visit)),
            Some((level, after)) => {
                self.children.get(level).map_or(ControlFlow::Continue(()), |node| node.walk(after, visit))
            }
        }
    }

    /// Visits this node's value and all below it.
    fn walk_all(&self, visit: &mut dyn FnMut(&V) -> ControlFlow<()>) -> ControlFlow<()> {
        if let Some(value) = &self.value {
            visit(value)?;
        }
        self.children.try_each(&mut |_, node| node.walk_all(visit))
    }

    /// Visits the children that do not begin with `$`.
    fn each_visible(&self, visit: &mut dyn FnMut(&Self) -> ControlFlow<()>) -> ControlFlow<()> {
        self.children.try_each(&mut |level, node| {
            if level.starts_with('$') { ControlFlow::Continue(()) } else { visit(node) }
        })
    }

    /// How many nodes there are, with this one.
    #[cfg(test)]
    fn count(&self) -> usize {
        let mut nodes = 1;
        let _ = self.children.try_each(&mut |_, node| {
            nodes += node.count();
            ControlFlow::Continue(())
        });
        nodes
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { value: None, children: Children::default() }
    }
}

#[cfg(test)]
mod tests;
