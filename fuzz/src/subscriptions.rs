//! The trie of subscriptions against a list: what a topic resolves to, what is replaced and removed, whose turn it is in a
//! group; and that what was resolved holds as long as the generation stays the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dormouse::{
    codec::QoS,
    routing::{Matches, Subscription, Subscriptions},
    topic::{TopicFilter, TopicName},
};

use super::{
    input::Input,
    topics::{filter, matches, options, topic},
};

const SUBSCRIBERS: usize = 5;
const OPS_MAX: usize = 300;

/// What a resolve gives, in a form the list can give too.
type Direct = Vec<(u8, QoS, bool, bool, Vec<u32>)>;
type Groups = BTreeMap<TopicFilter, Vec<(u8, Subscription)>>;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (mut trie, mut list) = (Subscriptions::new(), List::default());
    let mut cache: HashMap<TopicName, (u64, Direct, Groups)> = HashMap::new();
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=3 => insert(&mut input, &mut trie, &mut list),
            4 => remove(&mut input, &mut trie, &mut list),
            5 => take_turns(&mut input, &trie),
            _ => look(&mut input, &trie, &list, &mut cache),
        }
        assert_eq!((trie.len(), trie.is_empty()), (list.0.len(), list.0.is_empty()));
    }
    // Everything can be taken out again, and nothing is left.
    for (subscriber, filter, subscription) in std::mem::take(&mut list.0) {
        assert_eq!(trie.remove(subscriber, &filter), Some(subscription));
    }
    assert!(trie.is_empty());
    for topic in cache.keys() {
        let Matches { direct, groups } = trie.resolve(topic);
        assert!(direct.is_empty() && groups.is_empty());
    }
}

fn insert(input: &mut Input<'_>, trie: &mut Subscriptions<u8>, list: &mut List) {
    let subscriber = subscriber(input);
    let Some(filter) = filter(input) else { return };
    let subscription_id = input.once_in(2).then(|| u32::from(input.byte()) + 1);
    let subscription = Subscription { options: options(input), subscription_id };
    let before = trie.generation();
    let old = trie.insert(subscriber, &filter, subscription);
    assert_eq!(old, list.insert(subscriber, &filter, subscription));
    assert_eq!(trie.generation() > before, old != Some(subscription), "the generation tells of changes");
}

fn remove(input: &mut Input<'_>, trie: &mut Subscriptions<u8>, list: &mut List) {
    let before = trie.generation();
    let (subscriber, filter) = match list.0.len() {
        // Of what there is, so that removing succeeds often.
        n @ 1.. if input.once_in(2) => {
            let (subscriber, filter, _) = &list.0[input.below(n)];
            (*subscriber, filter.clone())
        }
        _ => {
            let Some(filter) = filter(input) else { return };
            (subscriber(input), filter)
        }
    };
    let old = trie.remove(subscriber, &filter);
    assert_eq!(old, list.remove(subscriber, &filter));
    assert_eq!(trie.generation() > before, old.is_some());
}

fn subscriber(input: &mut Input<'_>) -> u8 {
    u8::try_from(input.below(SUBSCRIBERS)).unwrap()
}

/// As many turns as a group has members go round once; with some left out, the others have them all.
fn take_turns(input: &mut Input<'_>, trie: &Subscriptions<u8>) {
    let Some(filter) = filter(input) else { return };
    let Some(group) = trie.group(&filter) else { return };
    let members: BTreeSet<u8> = group.members.iter().map(|(k, _)| *k).collect();
    assert_eq!(members.len(), group.members.len(), "each member once");
    let left_out = subscriber(input);
    for suits in [|_: u8, _: u8| true, |k: u8, left_out: u8| k != left_out] {
        let able: BTreeSet<u8> = members.iter().copied().filter(|k| suits(*k, left_out)).collect();
        let turns: Vec<u8> =
            able.iter().filter_map(|_| group.next_where(|k| suits(k, left_out))).map(|(k, _)| k).collect();
        assert_eq!(turns.iter().copied().collect::<BTreeSet<_>>(), able, "{turns:?}");
        assert_eq!(turns.len(), able.len());
    }
    assert_eq!(group.next_where(|_| false), None);
}

fn look(
    input: &mut Input<'_>,
    trie: &Subscriptions<u8>,
    list: &List,
    cache: &mut HashMap<TopicName, (u64, Direct, Groups)>,
) {
    let Some(topic) = topic(input) else { return };
    let Matches { direct, groups } = trie.resolve(&topic);
    for matched in &direct {
        let publisher = matched.for_publisher().map(|m| (m.qos, m.subscription_ids.clone()));
        let wanted = list.direct(&topic, Some(matched.subscriber));
        let wanted = wanted.into_iter().find(|(k, ..)| *k == matched.subscriber);
        assert_eq!(publisher, wanted.map(|(_, qos, _, _, ids)| (qos, ids)), "{topic}");
    }
    let direct: Direct = direct
        .into_iter()
        .map(|m| (m.subscriber, m.qos, m.no_local, m.retain_as_published, m.subscription_ids))
        .collect();
    let count = groups.len();
    let groups: Groups = groups.into_iter().map(|g| (g.group, g.members)).collect();
    assert_eq!(groups.len(), count, "each group once");
    assert_eq!(direct, list.direct(&topic, None), "{topic}");
    assert_eq!(groups, list.groups(&topic), "{topic}");
    if let Some((generation, direct_then, groups_then)) = cache.get(&topic)
        && *generation == trie.generation()
    {
        assert_eq!((direct_then, groups_then), (&direct, &groups), "{topic} changed unannounced");
    }
    cache.insert(topic, (trie.generation(), direct, groups));
}

/// Every subscription, in the order of subscribing.
#[derive(Default)]
struct List(Vec<(u8, TopicFilter, Subscription)>);

impl List {
    fn insert(&mut self, subscriber: u8, filter: &TopicFilter, new: Subscription) -> Option<Subscription> {
        if let Some((.., old)) = self.0.iter_mut().find(|(k, f, _)| *k == subscriber && f == filter) {
            return Some(std::mem::replace(old, new));
        }
        self.0.push((subscriber, filter.clone(), new));
        None
    }

    fn remove(&mut self, subscriber: u8, filter: &TopicFilter) -> Option<Subscription> {
        let at = self.0.iter().position(|(k, f, _)| *k == subscriber && f == filter)?;
        Some(self.0.remove(at).2)
    }

    fn matching(&self, topic: &TopicName, shared: bool) -> Vec<&(u8, TopicFilter, Subscription)> {
        let is_wanted = |f: &TopicFilter| f.as_str().starts_with("$share/") == shared && matches(f, topic);
        self.0.iter().filter(|(_, f, _)| is_wanted(f)).collect()
    }

    /// What each subscriber gets; without the "no local" subscriptions of `publisher`.
    fn direct(&self, topic: &TopicName, publisher: Option<u8>) -> Direct {
        let mut direct = Direct::new();
        for subscriber in 0..u8::try_from(SUBSCRIBERS).unwrap() {
            let own: Vec<Subscription> = self
                .matching(topic, false)
                .into_iter()
                .filter(|(k, _, s)| *k == subscriber && !(publisher == Some(*k) && s.options.no_local))
                .map(|(.., s)| *s)
                .collect();
            let Some(qos) = own.iter().map(|s| s.options.qos).max() else { continue };
            let mut ids: Vec<u32> = own.iter().filter_map(|s| s.subscription_id).collect();
            ids.sort_unstable();
            let no_local = own.iter().all(|s| s.options.no_local);
            let as_published = own.iter().any(|s| s.options.retain_as_published);
            direct.push((subscriber, qos, no_local, as_published, ids));
        }
        direct
    }

    fn groups(&self, topic: &TopicName) -> Groups {
        let mut groups = Groups::new();
        for (k, f, s) in self.matching(topic, true) {
            groups.entry(f.clone()).or_default().push((*k, *s));
        }
        groups
    }
}
