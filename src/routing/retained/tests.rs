use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use proptest::prelude::*;

use super::Retained;
use crate::topic::{LEVELS_MAX, TopicFilter, TopicName, levels};

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

/// Each topic with its own name as value.
fn retained(topics: &[&str]) -> Retained<String> {
    let mut retained = Retained::new();
    for topic in topics {
        assert_eq!(retained.set(&name(topic), (*topic).to_owned()), None);
    }
    retained
}

fn found<V: Clone>(retained: &Retained<V>, filter: &TopicFilter) -> Vec<V> {
    let mut found = Vec::new();
    retained.lookup(filter, &mut |value| {
        found.push(value.clone());
        ControlFlow::Continue(())
    });
    found
}

/// Sections 4.7.1.2, 4.7.1.3 and 4.7.2, with their examples. [MQTT-4.7.2-1]
#[test]
fn filters_find_topics_as_in_the_standard() {
    let retained = retained(&[
        "sport",
        "sport/",
        "sport/tennis",
        "sport/tennis/player1",
        "sport/tennis/player1/ranking",
        "sport/tennis/player2",
        "/finance",
        "finance",
        "$SYS",
        "$SYS/monitor/Clients",
        "a/$b",
    ]);
    for (text, topics) in [
        ("sport/tennis/player1/#", &["sport/tennis/player1", "sport/tennis/player1/ranking"][..]),
        ("sport/tennis/+", &["sport/tennis/player1", "sport/tennis/player2"]),
        ("sport/+", &["sport/", "sport/tennis"]),
        ("+", &["finance", "sport"]),
        ("+/+", &["/finance", "a/$b", "sport/", "sport/tennis"]),
        ("/+", &["/finance"]),
        (
            "+/tennis/#",
            &["sport/tennis", "sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player2"],
        ),
        ("sport", &["sport"]),
        ("Sport", &[]),
        ("$SYS/#", &["$SYS", "$SYS/monitor/Clients"]),
        ("$SYS/monitor/+", &["$SYS/monitor/Clients"]),
        ("+/monitor/Clients", &[]),
        ("a/#", &["a/$b"]),
        ("$share/g/sport", &["sport"]),
    ] {
        assert_eq!(found(&retained, &filter(text)), topics, "{text}");
    }
    assert_eq!(found(&retained, &filter("#")).len(), 9);
}

#[test]
fn setting_replaces_and_removing_leaves_nothing_behind() {
    let mut retained = Retained::new();
    assert!(retained.is_empty());
    assert_eq!(retained.set(&name("a/b/c"), 1), None);
    assert_eq!(retained.set(&name("a/b"), 2), None);
    assert_eq!(retained.set(&name("a/b"), 3), Some(2));
    assert_eq!((retained.len(), retained.get(&name("a/b")), retained.get(&name("a"))), (2, Some(&3), None));

    // A path is no value, and a value no path.
    assert_eq!(retained.remove(&name("a")), None);
    assert_eq!(retained.remove(&name("a/b/c/d")), None);
    assert_eq!(retained.remove(&name("a/b")), Some(3));
    assert_eq!(retained.remove(&name("a/b")), None);
    assert_eq!((retained.len(), retained.get(&name("a/b/c")), retained.root.count()), (1, Some(&1), 4));
    assert_eq!(retained.remove(&name("a/b/c")), Some(1));
    assert_eq!((retained.len(), retained.root.count()), (0, 1));
}

#[test]
fn a_lookup_stops_when_told() {
    let retained = retained(&["a/1", "a/2", "a/3", "a/3/x", "b"]);
    for text in ["#", "+/+", "a/#"] {
        let mut seen = Vec::new();
        retained.lookup(&filter(text), &mut |value| {
            seen.push(value.clone());
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(seen, ["a/1", "a/2"], "{text}");
    }
}

#[test]
fn every_value_is_visited_dollar_topics_too() {
    let retained = retained(&["b/c", "$SYS/x", "b", "a//", "/"]);
    let mut seen = Vec::new();
    retained.for_each(&mut |value| seen.push(value.clone()));
    assert_eq!(seen, ["/", "$SYS/x", "a//", "b", "b/c"]);
}

#[test]
fn the_deepest_topic_is_found() {
    let deepest = vec!["d"; LEVELS_MAX].join("/");
    let mut retained = retained(&[&deepest]);
    for text in ["#", &deepest, &vec!["+"; LEVELS_MAX].join("/")] {
        assert_eq!(found(&retained, &filter(text)), [deepest.as_str()]);
    }
    assert!(found(&retained, &filter(&vec!["+"; LEVELS_MAX - 1].join("/"))).is_empty());
    assert_eq!(retained.remove(&name(&deepest)), Some(deepest));
    assert_eq!(retained.root.count(), 1);
}

/// Linear matching over a map that is sorted as the trie is: by levels, not by bytes.
#[derive(Default)]
struct Oracle(BTreeMap<Vec<String>, (TopicName, u32)>);

impl Oracle {
    fn key(topic: &TopicName) -> Vec<String> {
        levels(topic.as_str()).map(str::to_owned).collect()
    }

    fn found(&self, filter: &TopicFilter) -> Vec<u32> {
        self.0.values().filter(|(topic, _)| filter.matches(topic)).map(|(_, value)| *value).collect()
    }

    /// The root, and a node for each beginning of a topic.
    fn nodes(&self) -> usize {
        let beginnings = self.0.keys().flat_map(|path| (0..=path.len()).filter_map(|n| path.get(..n)));
        beginnings.chain([&[][..]]).collect::<BTreeSet<_>>().len()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Set(TopicName, u32),
    Remove(TopicName),
    /// Of what there is, so that removing succeeds often.
    RemoveNth(usize),
}

/// Few names, so that they meet; and once in a while one of a dozen, so that a node gets many children.
fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["", "a", "b", "$x"]).prop_map(str::to_owned),
        3 => (0..12u8).prop_map(|n| format!("n{n}")),
    ]
}

fn any_topic() -> impl Strategy<Value = TopicName> {
    prop::collection::vec(level(), 1..=4)
        .prop_filter_map("empty", |levels| TopicName::parse(&levels.join("/")).ok())
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![2 => level(), 2 => Just("+".to_owned())];
    (prop::collection::vec(level, 0..=4), any::<bool>()).prop_filter_map(
        "empty",
        |(mut levels, multi_level)| {
            levels.extend(multi_level.then(|| "#".to_owned()));
            TopicFilter::parse(&levels.join("/")).ok()
        },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any_topic(), any::<u32>()).prop_map(|(topic, value)| Op::Set(topic, value)),
        1 => any_topic().prop_map(Op::Remove),
        2 => any::<usize>().prop_map(Op::RemoveNth),
    ]
}

fn remove(topic: &TopicName, retained: &mut Retained<u32>, oracle: &mut Oracle) {
    assert_eq!(retained.remove(topic), oracle.0.remove(&Oracle::key(topic)).map(|(_, value)| value));
}

fn apply(op: &Op, retained: &mut Retained<u32>, oracle: &mut Oracle) {
    match op {
        Op::Set(topic, value) => {
            let old = oracle.0.insert(Oracle::key(topic), (topic.clone(), *value));
            assert_eq!(retained.set(topic, *value), old.map(|(_, value)| value));
            assert_eq!(retained.get(topic), Some(value));
        }
        Op::Remove(topic) => remove(topic, retained, oracle),
        Op::RemoveNth(n) => {
            let nth = n.checked_rem(oracle.0.len()).and_then(|n| oracle.0.values().nth(n));
            if let Some((topic, _)) = nth.cloned() {
                remove(&topic, retained, oracle);
                assert_eq!(retained.get(&topic), None);
            }
        }
    }
    assert_eq!(retained.len(), oracle.0.len());
    assert_eq!(retained.root.count(), oracle.nodes());
}

proptest! {
    #[test]
    fn finds_what_linear_matching_finds_in_order(
        ops in prop::collection::vec(any_op(), 1..80),
        filters in prop::collection::vec(any_filter(), 1..12),
    ) {
        let mut retained = Retained::new();
        let mut oracle = Oracle::default();
        for op in &ops {
            apply(op, &mut retained, &mut oracle);
            for filter in filters.iter().take(3) {
                prop_assert_eq!(found(&retained, filter), oracle.found(filter), "{}", filter);
            }
        }
        for filter in &filters {
            prop_assert_eq!(found(&retained, filter), oracle.found(filter), "{}", filter);
        }
        let mut all = Vec::new();
        retained.for_each(&mut |value| all.push(*value));
        prop_assert_eq!(all, oracle.0.values().map(|(_, value)| *value).collect::<Vec<_>>());
        while !oracle.0.is_empty() {
            apply(&Op::RemoveNth(0), &mut retained, &mut oracle);
        }
        prop_assert_eq!(retained.root.count(), 1);
    }
}
