//! The children of a trie node, by level name.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

/// From this many children on a map is worth its memory. Below, comparing a handful of short strings is faster than
/// hashing one, and most nodes have one child.
const MANY: usize = 9;
/// Going back to a list waits until this many are left, so that a node at the border does not flip with every change.
const FEW_AGAIN: usize = 4;

/// Where many children live. A `HashMap` (with its keyed hash: level names are chosen by peers) is the fastest to look
/// up; a `BTreeMap` is for tries whose children are also listed, in an order that does not change between runs.
pub(super) trait LevelMap: Default {
    /// The trie's node.
    type Node;
    fn get(&self, level: &str) -> Option<&Self::Node>;
    fn get_mut(&mut self, level: &str) -> Option<&mut Self::Node>;
    /// `level` is not there yet.
    fn insert_new(&mut self, level: Box<str>, node: Self::Node) -> &mut Self::Node;
    fn remove(&mut self, level: &str) -> Option<Self::Node>;
    fn len(&self) -> usize;
    fn into_sorted(self) -> Vec<(Box<str>, Self::Node)>;
    fn try_each<'a>(&'a self, visit: &mut Visit<'_, 'a, Self::Node>) -> ControlFlow<()>;
}

/// Called with each child and its level.
pub(super) type Visit<'v, 'a, N> = dyn FnMut(&'a str, &'a N) -> ControlFlow<()> + 'v;

/// A node's children: a short list, or a map when there are many. 24 bytes, and no allocation while empty.
pub(super) enum Children<M: LevelMap> {
    /// Sorted by level.
    Few(Vec<(Box<str>, M::Node)>),
    Many(Box<M>),
}

impl<M: LevelMap> Children<M> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(map) => map.len() == 0,
        }
    }

    pub(super) fn get(&self, level: &str) -> Option<&M::Node> {
        match self {
            Self::Few(list) => list.iter().find(|(name, _)| **name == *level).map(|(_, node)| node),
            Self::Many(map) => map.get(level),
        }
    }

    pub(super) fn get_mut(&mut self, level: &str) -> Option<&mut M::Node> {
        match self {
            Self::Few(list) => list.iter_mut().find(|(name, _)| **name == *level).map(|(_, node)| node),
            Self::Many(map) => map.get_mut(level),
        }
    }

    pub(super) fn get_or_insert(&mut self, level: &str) -> &mut M::Node
    where
        M::Node: Default,
    {
        if self.get(level).is_none() {
            self.insert_new(level);
        }
        self.get_mut(level).expect("it was there or has just been put there")
    }

    fn insert_new(&mut self, level: &str)
    where
        M::Node: Default,
    {
        if let Self::Few(list) = self
            && list.len() + 1 >= MANY
        {
            let mut map = Box::<M>::default();
            for (name, node) in list.drain(..) {
                map.insert_new(name, node);
            }
            *self = Self::Many(map);
        }
        match self {
            Self::Few(list) => {
                let at = list.partition_point(|(name, _)| **name < *level);
                if list.len() == list.capacity() {
                    // `Vec` would begin with room for four, which at a single child is mostly waste.
                    list.reserve_exact(list.len().max(1));
                }
                list.insert(at, (level.into(), M::Node::default()));
            }
            Self::Many(map) => {
                map.insert_new(level.into(), M::Node::default());
            }
        }
    }

    pub(super) fn remove(&mut self, level: &str) -> Option<M::Node> {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|(name, _)| **name == *level)?;
                let (_, node) = list.remove(at);
                if list.is_empty() {
                    *self = Self::default();
                }
                Some(node)
            }
            Self::Many(map) => {
                let node = map.remove(level)?;
                if map.len() <= FEW_AGAIN {
                    *self = Self::Few(std::mem::take(&mut **map).into_sorted());
                }
                Some(node)
            }
        }
    }

    /// Visits every child until told to stop; in the order of their names, if `M` has one.
    pub(super) fn try_each<'a>(&'a self, visit: &mut Visit<'_, 'a, M::Node>) -> ControlFlow<()> {
        match self {
            Self::Few(list) => list.iter().try_for_each(|(name, node)| visit(name, node)),
            Self::Many(map) => map.try_each(visit),
        }
    }
}

impl<M: LevelMap> Default for Children<M> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<N> LevelMap for HashMap<Box<str>, N> {
    type Node = N;

    fn get(&self, level: &str) -> Option<&N> {
        self.get(level)
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut N> {
        self.get_mut(level)
    }

    fn insert_new(&mut self, level: Box<str>, node: N) -> &mut N {
        self.entry(level).or_insert(node)
    }

    fn remove(&mut self, level: &str) -> Option<N> {
        let node = self.remove(level)?;
        // Memory follows the content down, with a distance that keeps rehashing rare.
        if self.capacity() / 8 > self.len() {
            self.shrink_to(self.len() * 2);
        }
        Some(node)
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn into_sorted(self) -> Vec<(Box<str>, N)> {
        let mut list: Vec<_> = self.into_iter().collect();
        list.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    fn try_each<'a>(&'a self, visit: &mut Visit<'_, 'a, N>) -> ControlFlow<()> {
        self.iter().try_for_each(|(name, node)| visit(name, node))
    }
}

impl<N> LevelMap for BTreeMap<Box<str>, N> {
    type Node = N;

    fn get(&self, level: &str) -> Option<&N> {
        self.get(level)
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut N> {
        self.get_mut(level)
    }

    fn insert_new(&mut self, level: Box<str>, node: N) -> &mut N {
        self.entry(level).or_insert(node)
    }

    fn remove(&mut self, level: &str) -> Option<N> {
        self.remove(level)
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn into_sorted(self) -> Vec<(Box<str>, N)> {
        self.into_iter().collect()
    }

    fn try_each<'a>(&'a self, visit: &mut Visit<'_, 'a, N>) -> ControlFlow<()> {
        self.iter().try_for_each(|(name, node)| visit(name, node))
    }
}

/// The first level of `topic`, and what follows its `/`. In step with [`levels`](crate::topic::levels).
pub(super) fn split_level(topic: &str) -> (&str, Option<&str>) {
    let Some(at) = memchr::memchr(b'/', topic.as_bytes()) else { return (topic, None) };
    let (level, rest) = topic.split_at(at);
    (level, rest.strip_prefix('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::levels;

    fn names<M: LevelMap>(children: &Children<M>) -> Vec<String> {
        let mut names = Vec::new();
        let _ = children.try_each(&mut |name, _| {
            names.push(name.to_owned());
            ControlFlow::Continue(())
        });
        names
    }

    /// Up and down across the border between list and map, twice over.
    fn grows_and_shrinks<M: LevelMap<Node = u32>>() {
        let mut children = Children::<M>::default();
        let name = |n: u32| format!("n{n:02}");
        for round in 0..2 {
            for n in (0..20).rev() {
                assert_eq!(children.get(&name(n)), None);
                *children.get_or_insert(&name(n)) = n + round;
                assert_eq!(*children.get_or_insert(&name(n)), n + round);
                assert_eq!(matches!(children, Children::Many(_)), 20 - n as usize >= MANY);
            }
            for n in 0..20 {
                assert_eq!(children.get(&name(n)), Some(&(n + round)));
                assert_eq!(children.remove(&name(n)), Some(n + round));
                assert_eq!(children.remove(&name(n)), None);
                assert_eq!(matches!(children, Children::Many(_)), 19 - n as usize > FEW_AGAIN);
                let mut left = names(&children);
                left.sort();
                assert_eq!(left, (n + 1..20).map(name).collect::<Vec<_>>());
            }
            assert!(children.is_empty());
        }
    }

    #[test]
    fn list_and_map_hold_the_same_children() {
        grows_and_shrinks::<HashMap<Box<str>, u32>>();
        grows_and_shrinks::<BTreeMap<Box<str>, u32>>();
    }

    #[test]
    fn ordered_children_are_listed_in_order() {
        let mut children = Children::<BTreeMap<Box<str>, u32>>::default();
        for (n, name) in ["d", "b", "", "c", "e", "a", "k", "j", "i", "h", "g", "f"].into_iter().enumerate() {
            children.get_or_insert(name);
            let listed = names(&children);
            assert!(listed.is_sorted() && listed.len() == n + 1, "{listed:?}");
        }
    }

    #[test]
    fn an_emptied_node_owns_no_memory() {
        let mut children = Children::<HashMap<Box<str>, u32>>::default();
        children.get_or_insert("a");
        children.remove("a");
        assert!(matches!(children, Children::Few(list) if list.capacity() == 0));
    }

    #[test]
    fn splitting_is_in_step_with_levels() {
        for topic in ["a", "/", "a/b", "/a//b/", "ü/x"] {
            let mut rest = Some(topic);
            let split = std::iter::from_fn(|| {
                let (level, after) = split_level(rest?);
                rest = after;
                Some(level)
            });
            assert!(split.eq(levels(topic)), "{topic}");
        }
    }
}
