use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Subscription, Subscriptions};
use crate::{
    codec::{QoS, RetainHandling, SubscribeOptions},
    routing::{Match, Matches},
    topic::{TopicFilter, TopicName, levels},
};

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn at(qos: QoS) -> Subscription {
    let options = SubscribeOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Subscription { options, subscription_id: None }
}

fn with_id(qos: QoS, id: u32) -> Subscription {
    Subscription { subscription_id: Some(id), ..at(qos) }
}

fn no_local(mut subscription: Subscription) -> Subscription {
    subscription.options.no_local = true;
    subscription
}

/// The subscribers a topic resolves to, one subscription for each filter, subscribers being numbered from 0.
fn resolved(filters: &[&str], topic: &str) -> Vec<usize> {
    let mut subscriptions = Subscriptions::new();
    for (subscriber, text) in filters.iter().enumerate() {
        subscriptions.insert(subscriber, &filter(text), at(QoS::AtLeastOnce));
    }
    subscriptions.resolve(&name(topic)).direct.into_iter().map(|m| m.subscriber).collect()
}

/// The only match there is.
fn only(subscriptions: &Subscriptions<u8>, topic: &str) -> Match<u8> {
    let mut matches = subscriptions.resolve(&name(topic));
    assert_eq!(matches.direct.len(), 1, "{matches:?}");
    matches.direct.remove(0)
}

/// Sections 4.7.1.2 and 4.7.1.3, with their examples.
#[test]
fn wildcards_match_as_in_the_standard() {
    let filters = [
        "sport/tennis/player1/#", // 0
        "sport/#",                // 1
        "#",                      // 2
        "sport/tennis/+",         // 3
        "sport/+",                // 4
        "+",                      // 5
        "+/tennis/#",             // 6
        "sport/+/player1",        // 7
        "+/+",                    // 8
        "/+",                     // 9
    ];
    for (topic, subscribers) in [
        ("sport/tennis/player1", &[0, 1, 2, 3, 6, 7][..]),
        ("sport/tennis/player1/ranking", &[0, 1, 2, 6]),
        ("sport/tennis/player1/score/wimbledon", &[0, 1, 2, 6]),
        ("sport/tennis/player2", &[1, 2, 3, 6]),
        ("sport/tennis", &[1, 2, 4, 6, 8]),
        ("sport", &[1, 2, 5]),
        ("sport/", &[1, 2, 4, 8]),
        ("/finance", &[2, 8, 9]),
        ("finance", &[2, 5]),
    ] {
        assert_eq!(resolved(&filters, topic), subscribers, "{topic}");
    }
}

/// Section 4.7.2, with its examples. [MQTT-4.7.2-1]
#[test]
fn leading_wildcards_do_not_see_dollar_topics() {
    let filters = ["#", "+/monitor/Clients", "$SYS/#", "$SYS/monitor/+", "+/#", "+/+/+"];
    assert_eq!(resolved(&filters, "$SYS/monitor/Clients"), [2, 3]);
    assert_eq!(resolved(&filters, "$SYS"), [2]);
    assert_eq!(resolved(&filters, "x/monitor/Clients"), [0, 1, 4, 5]);
    assert_eq!(resolved(&["a/#", "a/+", "+/+", "#"], "a/$b"), [0, 1, 2, 3]);
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]
#[test]
fn overlapping_subscriptions_are_one_delivery_with_the_highest_qos_and_all_identifiers() {
    let mut subscriptions = Subscriptions::new();
    let mut as_published = with_id(QoS::AtLeastOnce, 9);
    as_published.options.retain_as_published = true;
    subscriptions.insert(7, &filter("a/#"), with_id(QoS::AtMostOnce, 30));
    subscriptions.insert(7, &filter("a/+"), at(QoS::ExactlyOnce));
    subscriptions.insert(7, &filter("a/b"), as_published);
    subscriptions.insert(7, &filter("+/b"), with_id(QoS::AtMostOnce, 9));
    subscriptions.insert(7, &filter("a/c"), with_id(QoS::AtMostOnce, 1));

    let found = only(&subscriptions, "a/b");
    assert_eq!((found.subscriber, found.qos, found.no_local), (7, QoS::ExactlyOnce, false));
    assert!(found.retain_as_published);
    // Identical identifiers are all sent (section 3.3.4).
    assert_eq!(found.subscription_ids, [9, 9, 30]);
    assert_eq!(found.for_publisher(), Some(&found));
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_takes_its_subscription_out_of_what_the_publisher_gets() {
    let mut subscriptions = Subscriptions::new();
    subscriptions.insert(1, &filter("a"), no_local(with_id(QoS::ExactlyOnce, 5)));
    let all_no_local = only(&subscriptions, "a");
    assert!(all_no_local.no_local);
    assert_eq!((all_no_local.qos, &all_no_local.subscription_ids[..]), (QoS::ExactlyOnce, &[5][..]));
    assert_eq!(all_no_local.for_publisher(), None);

    subscriptions.insert(1, &filter("+"), with_id(QoS::AtLeastOnce, 6));
    let mixed = only(&subscriptions, "a");
    assert!(!mixed.no_local);
    assert_eq!((mixed.qos, &mixed.subscription_ids[..]), (QoS::ExactlyOnce, &[5, 6][..]));
    let own = mixed.for_publisher().unwrap();
    assert_eq!((own.subscriber, own.qos, &own.subscription_ids[..]), (1, QoS::AtLeastOnce, &[6][..]));
}

#[test]
fn subscribing_again_replaces_and_only_a_change_counts() {
    let mut subscriptions = Subscriptions::new();
    assert_eq!(subscriptions.generation(), 0);
    assert_eq!(subscriptions.insert(1, &filter("a/+"), at(QoS::AtMostOnce)), None);
    assert_eq!((subscriptions.len(), subscriptions.generation()), (1, 1));
    assert_eq!(subscriptions.insert(1, &filter("a/+"), at(QoS::AtMostOnce)), Some(at(QoS::AtMostOnce)));
    assert_eq!((subscriptions.len(), subscriptions.generation()), (1, 1));
    assert_eq!(subscriptions.insert(1, &filter("a/+"), at(QoS::ExactlyOnce)), Some(at(QoS::AtMostOnce)));
    assert_eq!((subscriptions.len(), subscriptions.generation()), (1, 2));

    // Compared character by character, not by what it matches.
    assert_eq!(subscriptions.remove(1, &filter("a/b")), None);
    assert_eq!(subscriptions.remove(1, &filter("a/#")), None);
    assert_eq!(subscriptions.remove(2, &filter("a/+")), None);
    assert_eq!(subscriptions.remove(1, &filter("$share/g/a/+")), None);
    assert_eq!((subscriptions.len(), subscriptions.generation()), (1, 2));
    assert_eq!(subscriptions.remove(1, &filter("a/+")), Some(at(QoS::ExactlyOnce)));
    assert_eq!((subscriptions.len(), subscriptions.generation()), (0, 3));
    assert!(subscriptions.is_empty());
    assert_eq!(subscriptions.root.count(), 1);
}

/// Section 4.8.2: a group is a share name and a filter.
#[test]
fn members_of_a_group_take_turns() {
    let mut subscriptions = Subscriptions::new();
    for subscriber in [3, 1, 2] {
        subscriptions.insert(
            subscriber,
            &filter("$share/g/a/+"),
            with_id(QoS::AtLeastOnce, u32::from(subscriber)),
        );
    }
    subscriptions.insert(9, &filter("$share/h/a/+"), at(QoS::AtMostOnce));
    subscriptions.insert(9, &filter("$share/g/a/#"), at(QoS::AtMostOnce));
    subscriptions.insert(1, &filter("a/b"), at(QoS::ExactlyOnce));
    assert_eq!(subscriptions.len(), 6);

    let Matches { direct, groups } = subscriptions.resolve(&name("a/b"));
    assert_eq!(direct.iter().map(|m| (m.subscriber, m.qos)).collect::<Vec<_>>(), [(1, QoS::ExactlyOnce)]);
    let mut names: Vec<_> = groups.iter().map(|g| g.group.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["$share/g/a/#", "$share/g/a/+", "$share/h/a/+"]);

    let group = subscriptions.group(&filter("$share/g/a/+")).unwrap();
    assert_eq!(group.members.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [3, 1, 2]);
    let next = |suits: fn(u8) -> bool| {
        // Each time resolved anew: the turn belongs to the group, not to one look at it.
        let groups = subscriptions.resolve(&name("a/b")).groups;
        let group = groups.into_iter().find(|g| g.group == group.group).unwrap();
        group.next_where(suits).map(|(k, s)| (k, s.subscription_id))
    };
    assert_eq!(next(|_| true), Some((3, Some(3))));
    assert_eq!(next(|_| true), Some((1, Some(1))));
    assert_eq!(next(|_| false), None);
    assert_eq!(next(|_| true), Some((2, Some(2))));
    assert_eq!(next(|_| true), Some((3, Some(3))));
    // Two that suit share evenly, whoever stands between them.
    let evenly: Vec<_> = (0..4).filter_map(|_| next(|k| k != 1)).map(|(k, _)| k).collect();
    assert_eq!(evenly, [2, 3, 2, 3]);
}

#[test]
fn a_member_keeps_its_place_and_a_group_ends_with_its_last() {
    let mut subscriptions = Subscriptions::new();
    let shared = filter("$share/g/a");
    for subscriber in [1, 2, 3] {
        subscriptions.insert(subscriber, &shared, at(QoS::AtMostOnce));
    }
    let members = |subscriptions: &Subscriptions<u8>| subscriptions.group(&shared).map(|g| g.members);
    subscriptions.insert(1, &shared, at(QoS::AtLeastOnce));
    assert_eq!(
        members(&subscriptions).unwrap(),
        [(1, at(QoS::AtLeastOnce)), (2, at(QoS::AtMostOnce)), (3, at(QoS::AtMostOnce))]
    );
    // The cursor stands behind the last member; after it left, the turn goes round.
    let group = subscriptions.group(&shared).unwrap();
    assert_eq!(group.next_where(|k| k == 3).map(|(k, _)| k), Some(3));
    assert_eq!(subscriptions.remove(3, &shared), Some(at(QoS::AtMostOnce)));
    assert_eq!(subscriptions.group(&shared).unwrap().next_where(|_| true).map(|(k, _)| k), Some(2));

    subscriptions.remove(1, &shared);
    subscriptions.remove(2, &shared);
    assert_eq!(members(&subscriptions), None);
    assert!(subscriptions.resolve(&name("a")).groups.is_empty());
    assert_eq!((subscriptions.len(), subscriptions.root.count()), (0, 1));
}

/// What a resolve gives, in a form the oracle can give too.
type Direct = Vec<(u8, QoS, bool, bool, Vec<u32>)>;
type Groups = Vec<(TopicFilter, Vec<(u8, Subscription)>)>;

/// Linear matching over a list.
#[derive(Default)]
struct Oracle {
    /// In the order of subscribing.
    list: Vec<(u8, TopicFilter, Subscription)>,
    changes: u64,
}

impl Oracle {
    fn insert(&mut self, subscriber: u8, filter: &TopicFilter, new: Subscription) -> Option<Subscription> {
        if let Some((.., old)) = self.list.iter_mut().find(|(k, f, _)| *k == subscriber && f == filter) {
            let old = std::mem::replace(old, new);
            self.changes += u64::from(old != new);
            return Some(old);
        }
        self.changes += 1;
        self.list.push((subscriber, filter.clone(), new));
        None
    }

    fn remove(&mut self, subscriber: u8, filter: &TopicFilter) -> Option<Subscription> {
        let at = self.list.iter().position(|(k, f, _)| (*k, f) == (subscriber, filter))?;
        self.changes += 1;
        Some(self.list.remove(at).2)
    }

    fn matching(&self, topic: &TopicName) -> impl Iterator<Item = &(u8, TopicFilter, Subscription)> {
        self.list.iter().filter(|(_, f, _)| f.matches(topic))
    }

    /// What each subscriber gets, without the "no local" subscriptions of `publisher`.
    fn direct(&self, topic: &TopicName, publisher: Option<u8>) -> Direct {
        let subscribers: BTreeSet<u8> = self.list.iter().map(|(k, ..)| *k).collect();
        let one = |k: u8| {
            let own: Vec<Subscription> = self
                .matching(topic)
                .filter(|(of, f, s)| {
                    *of == k && f.share_name().is_none() && !(publisher == Some(k) && s.options.no_local)
                })
                .map(|(.., s)| *s)
                .collect();
            let mut ids: Vec<u32> = own.iter().filter_map(|s| s.subscription_id).collect();
            ids.sort_unstable();
            let qos = own.iter().map(|s| s.options.qos).max()?;
            let no_local = own.iter().all(|s| s.options.no_local);
            Some((k, qos, no_local, own.iter().any(|s| s.options.retain_as_published), ids))
        };
        subscribers.into_iter().filter_map(one).collect()
    }

    fn groups(&self, topic: &TopicName) -> Groups {
        let mut groups = Groups::new();
        for (k, f, s) in self.matching(topic).filter(|(_, f, _)| f.share_name().is_some()) {
            match groups.iter_mut().find(|(group, _)| group == f) {
                Some((_, members)) => members.push((*k, *s)),
                None => groups.push((f.clone(), vec![(*k, *s)])),
            }
        }
        groups.sort_by(|(a, _), (b, _)| a.cmp(b));
        groups
    }

    /// The root, and a node for each beginning of a filter; `#` has none.
    fn nodes(&self) -> usize {
        let mut nodes = BTreeSet::from([Vec::new()]);
        for (_, f, _) in &self.list {
            let mut path = Vec::new();
            for level in levels(f.filter()).take_while(|level| *level != "#") {
                path.push(level);
                nodes.insert(path.clone());
            }
        }
        nodes.len()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, TopicFilter, Subscription),
    Remove(u8, TopicFilter),
    /// Of what there is, so that removing succeeds often.
    RemoveNth(usize),
}

/// Few names, so that they meet; and once in a while one of a dozen, so that a node gets many children.
fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["", "a", "b", "$x"]).prop_map(str::to_owned),
        2 => (0..12u8).prop_map(|n| format!("n{n}")),
    ]
}

fn any_topic() -> impl Strategy<Value = TopicName> {
    prop::collection::vec(level(), 1..=4)
        .prop_filter_map("empty", |levels| TopicName::parse(&levels.join("/")).ok())
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
    let share = prop::sample::select(vec!["", "", "", "$share/g/", "$share/h/"]);
    (prop::collection::vec(level, 0..=3), any::<bool>(), share).prop_filter_map(
        "empty",
        |(mut levels, multi_level, share)| {
            levels.extend(multi_level.then(|| "#".to_owned()));
            TopicFilter::parse(&format!("{share}{}", levels.join("/"))).ok()
        },
    )
}

fn any_subscription() -> impl Strategy<Value = Subscription> {
    let qos = prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
    (qos, any::<bool>(), any::<bool>(), prop::option::of(1..4u32)).prop_map(
        |(qos, no_local, retain_as_published, subscription_id)| {
            let retain_handling = RetainHandling::Send;
            let options = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            Subscription { options, subscription_id }
        },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4u8, any_filter(), any_subscription()).prop_map(|(k, f, s)| Op::Insert(k, f, s)),
        1 => (0..4u8, any_filter()).prop_map(|(k, f)| Op::Remove(k, f)),
        2 => any::<usize>().prop_map(Op::RemoveNth),
    ]
}

fn apply(op: &Op, subscriptions: &mut Subscriptions<u8>, oracle: &mut Oracle) {
    match op {
        Op::Insert(k, f, s) => assert_eq!(subscriptions.insert(*k, f, *s), oracle.insert(*k, f, *s)),
        Op::Remove(k, f) => assert_eq!(subscriptions.remove(*k, f), oracle.remove(*k, f)),
        Op::RemoveNth(n) => {
            if let Some((k, f, _)) = n.checked_rem(oracle.list.len()).map(|n| oracle.list[n].clone()) {
                assert_eq!(subscriptions.remove(k, &f), oracle.remove(k, &f));
            }
        }
    }
    assert_eq!(subscriptions.len(), oracle.list.len());
    assert_eq!(subscriptions.generation(), oracle.changes);
    assert_eq!(subscriptions.root.count(), oracle.nodes());
}

fn compare(topic: &TopicName, subscriptions: &Subscriptions<u8>, oracle: &Oracle) {
    let Matches { direct, groups } = subscriptions.resolve(topic);
    let plain =
        |m: &Match<u8>| (m.subscriber, m.qos, m.no_local, m.retain_as_published, m.subscription_ids.clone());
    assert_eq!(direct.iter().map(plain).collect::<Direct>(), oracle.direct(topic, None), "{topic}");
    for publisher in 0..4 {
        let with_own = direct
            .iter()
            .filter_map(|m| if m.subscriber == publisher { m.for_publisher() } else { Some(m) })
            .map(plain)
            .collect::<Direct>();
        assert_eq!(with_own, oracle.direct(topic, Some(publisher)), "{topic} from {publisher}");
    }

    let mut groups: Groups = groups.into_iter().map(|g| (g.group, g.members)).collect();
    groups.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (group, members) in &groups {
        assert_eq!(subscriptions.group(group).map(|g| g.members).as_ref(), Some(members));
    }
    assert_eq!(groups, oracle.groups(topic), "{topic}");
}

proptest! {
    #[test]
    fn resolves_as_linear_matching_does(
        ops in prop::collection::vec(any_op(), 1..80),
        topics in prop::collection::vec(any_topic(), 1..12),
    ) {
        let mut subscriptions = Subscriptions::new();
        let mut oracle = Oracle::default();
        for op in &ops {
            apply(op, &mut subscriptions, &mut oracle);
            for topic in topics.iter().take(3) {
                compare(topic, &subscriptions, &oracle);
            }
        }
        for topic in &topics {
            compare(topic, &subscriptions, &oracle);
        }
        while !oracle.list.is_empty() {
            apply(&Op::RemoveNth(0), &mut subscriptions, &mut oracle);
        }
        prop_assert_eq!(subscriptions.root.count(), 1);
    }
}
