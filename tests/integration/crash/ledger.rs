//! What was acknowledged and what arrived, and the verdict on the two.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Mutex,
};

/// A message's name: its publisher and its number there.
pub(super) type Name = (String, u64);

#[derive(Default)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// By publisher: the numbers the broker has taken over.
    acknowledged: HashMap<String, HashSet<u64>>,
    /// By subscriber: what arrived, in order.
    delivered: HashMap<String, Vec<Name>>,
    /// Promises broken at once: a session that was not there, and the like.
    broken: Vec<String>,
}

/// The sums of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) acknowledged: usize,
    pub(super) delivered: usize,
    pub(super) lost: Vec<(String, Name)>,
    pub(super) duplicates_qos2: Vec<(String, Name)>,
    pub(super) duplicates_qos1: usize,
    pub(super) reordered: Vec<(String, Name)>,
    pub(super) broken: Vec<String>,
}

impl Ledger {
    pub(super) fn acknowledge(&self, publisher: &str, number: u64) {
        self.entries.lock().unwrap().acknowledged.entry(publisher.to_owned()).or_default().insert(number);
    }

    pub(super) fn deliver(&self, subscriber: &str, name: Name) {
        self.entries.lock().unwrap().delivered.entry(subscriber.to_owned()).or_default().push(name);
    }

    pub(super) fn broken(&self, what: String) {
        self.entries.lock().unwrap().broken.push(what);
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.entries.lock().unwrap().acknowledged.values().map(HashSet::len).sum()
    }

    /// Whether `subscriber` has every acknowledged message.
    pub(super) fn is_complete(&self, subscriber: &str) -> bool {
        let entries = self.entries.lock().unwrap();
        let have: HashSet<&Name> = entries.delivered.get(subscriber).into_iter().flatten().collect();
        entries.acknowledged.iter().all(|(p, ns)| ns.iter().all(|n| have.contains(&(p.clone(), *n))))
    }

    /// Judges the run. `exactly_once` tells for a subscriber and a publisher whether both ends speak QoS 2.
    pub(super) fn verdict(&self, subscribers: &[&str], exactly_once: impl Fn(&str, &str) -> bool) -> Verdict {
        let entries = self.entries.lock().unwrap();
        let mut verdict = Verdict {
            acknowledged: entries.acknowledged.values().map(HashSet::len).sum(),
            broken: entries.broken.clone(),
            ..Verdict::default()
        };
        for &subscriber in subscribers {
            let mut seen: HashSet<&Name> = HashSet::new();
            let mut last: HashMap<&str, u64> = HashMap::new();
            for name in entries.delivered.get(subscriber).into_iter().flatten() {
                verdict.delivered += 1;
                if !seen.insert(name) {
                    if exactly_once(subscriber, &name.0) {
                        verdict.duplicates_qos2.push((subscriber.to_owned(), name.clone()));
                    } else {
                        verdict.duplicates_qos1 += 1;
                    }
                    continue;
                }
                // Order is judged by first arrivals: a QoS 1 message may come again.
                let before = last.insert(&name.0, name.1);
                if before.is_some_and(|b| b > name.1) {
                    verdict.reordered.push((subscriber.to_owned(), name.clone()));
                }
            }
            for (publisher, numbers) in &entries.acknowledged {
                let missing =
                    numbers.iter().map(|n| (publisher.clone(), *n)).filter(|name| !seen.contains(name));
                verdict.lost.extend(missing.map(|name| (subscriber.to_owned(), name)));
            }
        }
        verdict
    }
}

impl Verdict {
    /// Every promise was kept.
    pub(super) fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.duplicates_qos2.is_empty()
            && self.reordered.is_empty()
            && self.broken.is_empty()
            && self.acknowledged > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, delivered {} (QoS 1 again {}), lost {}, QoS 2 duplicates {}, reordered {}, broken promises {}",
            self.acknowledged,
            self.delivered,
            self.duplicates_qos1,
            self.lost.len(),
            self.duplicates_qos2.len(),
            self.reordered.len(),
            self.broken.len()
        )
    }
}

/// The judge must be able to find fault.
#[test]
fn the_ledger_finds_every_kind_of_fault() {
    let ledger = Ledger::default();
    for n in 1..=4 {
        ledger.acknowledge("p", n);
    }
    for n in [1, 3, 2, 2] {
        ledger.deliver("s", ("p".to_owned(), n));
    }
    assert!(!ledger.is_complete("s"));
    let verdict = ledger.verdict(&["s"], |_, _| true);
    assert_eq!(verdict.lost, [("s".to_owned(), ("p".to_owned(), 4))]);
    assert_eq!(verdict.duplicates_qos2, [("s".to_owned(), ("p".to_owned(), 2))]);
    assert_eq!(verdict.reordered, [("s".to_owned(), ("p".to_owned(), 2))]);
    assert_eq!(ledger.verdict(&["s"], |_, _| false).duplicates_qos1, 1);
}
