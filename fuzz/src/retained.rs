//! The trie of retained messages against a map: what a filter finds, and in which order; what is set, replaced and
//! removed; that a lookup stops when told.

use std::{collections::BTreeMap, ops::ControlFlow};

use dormouse::{
    routing::Retained,
    topic::{TopicFilter, TopicName},
};

use super::{
    input::Input,
    topics::{filter, matches, topic},
};

const OPS_MAX: usize = 300;

/// By levels, as the trie is.
type Map = BTreeMap<Vec<String>, (TopicName, u16)>;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (mut trie, mut map) = (Retained::new(), Map::new());
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(6) {
            0..=2 => {
                let Some(topic) = topic(&mut input) else { continue };
                let value = input.u16();
                let old = map.insert(levels(&topic), (topic.clone(), value));
                assert_eq!(trie.set(&topic, value), old.map(|(_, value)| value));
                assert_eq!(trie.get(&topic), Some(&value));
            }
            3 => {
                let Some(topic) = topic(&mut input) else { continue };
                assert_eq!(trie.get(&topic), map.get(&levels(&topic)).map(|(_, value)| value));
                let old = map.remove(&levels(&topic)).map(|(_, value)| value);
                assert_eq!(trie.remove(&topic), old);
                assert_eq!(trie.get(&topic), None);
            }
            _ => {
                let Some(filter) = filter(&mut input) else { continue };
                let stop_at = if input.once_in(4) { 1 + input.below(8) } else { usize::MAX };
                let wanted: Vec<u16> = map
                    .values()
                    .filter(|(t, _)| matches(&filter, t))
                    .map(|(_, v)| *v)
                    .take(stop_at)
                    .collect();
                assert_eq!(found(&trie, &filter, stop_at), wanted, "{filter}");
            }
        }
        assert_eq!((trie.len(), trie.is_empty()), (map.len(), map.is_empty()));
    }
    let mut all = Vec::new();
    trie.for_each(&mut |value| all.push(*value));
    assert_eq!(all, map.values().map(|(_, value)| *value).collect::<Vec<_>>());
    for (topic, value) in map.values() {
        assert_eq!(trie.remove(topic), Some(*value));
    }
    assert!(trie.is_empty());
}

fn levels(topic: &TopicName) -> Vec<String> {
    topic.as_str().split('/').map(str::to_owned).collect()
}

fn found(trie: &Retained<u16>, filter: &TopicFilter, stop_at: usize) -> Vec<u16> {
    let mut found = Vec::new();
    trie.lookup(filter, &mut |value| {
        found.push(*value);
        if found.len() == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}
