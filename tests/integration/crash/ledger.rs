//! What was acknowledged and what arrived, and the verdict on the two.
//!
//! Every entry bears the monotonic clock of its moment, so that a ledger can be asked what it said at an earlier one.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Mutex,
};

use dormouse::codec::PacketId;
use rustix::time::{ClockId, clock_gettime};

/// A message's name: its publisher and its number there, counted from 1.
pub(crate) type Name = (String, u64);

/// Something that a client saw or did. It is entered before the client answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// CONNACK has come.
    Connected { client: String },
    /// SUBACK has come.
    Subscribed { client: String },
    /// The message is about to be sent for the first time.
    Sent { name: Name },
    /// The broker has taken the message over.
    Acknowledged { name: Name },
    /// Nothing is left to be done for the message.
    Completed { name: Name },
    /// A message has come, and is not one that has come before. One of QoS 2 has an id until it is released.
    Delivered { subscriber: String, name: Name, id: Option<PacketId> },
    /// PUBREL has come.
    Released { subscriber: String, id: PacketId },
    /// A promise was broken at once: a session that was not there, and the like.
    Broken { what: String },
}

/// Whether a subscriber is to get what a publisher publishes.
pub(crate) type Wants = fn(subscriber: &str, publisher: &str) -> bool;

pub(crate) struct Ledger {
    wants: Wants,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    history: Vec<(u64, Event)>,
    connected: HashSet<String>,
    subscribed: HashSet<String>,
    /// By publisher: how far each message has come, the first one first.
    published: HashMap<String, Vec<Progress>>,
    /// By subscriber: what arrived, in order.
    delivered: HashMap<String, Vec<Name>>,
    /// By subscriber: what it has received and not seen released.
    unreleased: HashMap<String, HashSet<PacketId>>,
    broken: Vec<String>,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    Sent,
    Acknowledged,
    Completed,
}

/// The sums of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) delivered: usize,
    pub(crate) lost: Vec<(String, Name)>,
    pub(crate) duplicates_qos2: Vec<(String, Name)>,
    pub(crate) duplicates_qos1: usize,
    pub(crate) reordered: Vec<(String, Name)>,
    /// Came, and was never sent.
    pub(crate) invented: Vec<(String, Name)>,
    pub(crate) broken: Vec<String>,
}

/// The monotonic clock, which the whole machine shares.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

impl Ledger {
    pub(crate) fn new(wants: Wants) -> Self {
        Self { wants, entries: Mutex::default() }
    }

    /// The ledger as it was just before a moment.
    pub(crate) fn before(&self, moment_ns: u64) -> Self {
        let mut entries = Entries::default();
        for (at_ns, event) in &self.entries.lock().unwrap().history {
            if *at_ns < moment_ns {
                entries.apply(*at_ns, event.clone());
            }
        }
        Self { wants: self.wants, entries: Mutex::new(entries) }
    }

    pub(crate) fn enter(&self, event: Event) {
        let mut entries = self.entries.lock().unwrap();
        entries.apply(now_ns(), event);
    }

    pub(crate) fn broken(&self, what: String) {
        self.enter(Event::Broken { what });
    }

    /// When the first message was acknowledged; never is late.
    pub(crate) fn first_acknowledged_ns(&self) -> u64 {
        let entries = self.entries.lock().unwrap();
        let is_one = |(_, event): &&(u64, Event)| matches!(event, Event::Acknowledged { .. });
        entries.history.iter().find(is_one).map_or(u64::MAX, |(at_ns, _)| *at_ns)
    }

    /// How many entries it has.
    pub(crate) fn events(&self) -> usize {
        self.entries.lock().unwrap().history.len()
    }

    /// How many messages the broker has taken over.
    pub(crate) fn acknowledged(&self) -> usize {
        self.entries.lock().unwrap().acknowledged().count()
    }

    pub(crate) fn is_connected(&self, client: &str) -> bool {
        self.entries.lock().unwrap().connected.contains(client)
    }

    pub(crate) fn is_subscribed(&self, client: &str) -> bool {
        self.entries.lock().unwrap().subscribed.contains(client)
    }

    /// How far a publisher's messages have come, the first one first.
    pub(crate) fn published(&self, publisher: &str) -> Vec<Progress> {
        self.entries.lock().unwrap().published.get(publisher).cloned().unwrap_or_default()
    }

    pub(crate) fn unreleased(&self, subscriber: &str) -> HashSet<PacketId> {
        self.entries.lock().unwrap().unreleased.get(subscriber).cloned().unwrap_or_default()
    }

    /// Whether `subscriber` has every acknowledged message that it wants.
    pub(crate) fn is_complete(&self, subscriber: &str) -> bool {
        let entries = self.entries.lock().unwrap();
        let mut have: HashMap<&str, HashSet<u64>> = HashMap::new();
        for (publisher, number) in entries.delivered.get(subscriber).into_iter().flatten() {
            have.entry(publisher).or_default().insert(*number);
        }
        entries
            .acknowledged()
            .filter(|(publisher, _)| (self.wants)(subscriber, publisher))
            .all(|(publisher, number)| have.get(publisher).is_some_and(|have| have.contains(&number)))
    }

    /// Judges the run. `exactly_once` tells for a subscriber and a publisher whether both ends speak QoS 2.
    pub(crate) fn verdict(&self, subscribers: &[&str], exactly_once: impl Fn(&str, &str) -> bool) -> Verdict {
        let entries = self.entries.lock().unwrap();
        let mut verdict = Verdict {
            acknowledged: entries.acknowledged().count(),
            broken: entries.broken.clone(),
            ..Verdict::default()
        };
        for &subscriber in subscribers {
            let mut seen: HashSet<&Name> = HashSet::new();
            let mut last: HashMap<&str, u64> = HashMap::new();
            for name in entries.delivered.get(subscriber).into_iter().flatten() {
                verdict.delivered += 1;
                if !entries.was_sent(name) {
                    verdict.invented.push((subscriber.to_owned(), name.clone()));
                }
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
            let wanted = entries.acknowledged().filter(|(publisher, _)| (self.wants)(subscriber, publisher));
            let missing = wanted.map(|(publisher, number)| (publisher.to_owned(), number));
            verdict.lost.extend(
                missing.filter(|name| !seen.contains(name)).map(|name| (subscriber.to_owned(), name)),
            );
        }
        verdict
    }
}

impl Default for Ledger {
    /// Every subscriber wants everything.
    fn default() -> Self {
        Self::new(|_, _| true)
    }
}

impl Entries {
    fn apply(&mut self, at_ns: u64, event: Event) {
        match event.clone() {
            Event::Connected { client } => drop(self.connected.insert(client)),
            Event::Subscribed { client } => drop(self.subscribed.insert(client)),
            Event::Sent { name: (publisher, number) } => {
                let messages = self.published.entry(publisher).or_default();
                messages.push(Progress::Sent);
                assert_eq!(u64::try_from(messages.len()).unwrap(), number, "numbers follow each other");
            }
            Event::Acknowledged { name } => self.progress(&name, Progress::Acknowledged),
            Event::Completed { name } => self.progress(&name, Progress::Completed),
            Event::Delivered { subscriber, name, id } => {
                if let Some(id) = id {
                    self.unreleased.entry(subscriber.clone()).or_default().insert(id);
                }
                self.delivered.entry(subscriber).or_default().push(name);
            }
            Event::Released { subscriber, id } => {
                self.unreleased.entry(subscriber).or_default().remove(&id);
            }
            Event::Broken { what } => self.broken.push(what),
        }
        self.history.push((at_ns, event));
    }

    fn progress(&mut self, (publisher, number): &Name, progress: Progress) {
        let messages = self.published.get_mut(publisher).expect("it was sent");
        messages[usize::try_from(number - 1).unwrap()] = progress;
    }

    fn acknowledged(&self) -> impl Iterator<Item = (&str, u64)> {
        self.published.iter().flat_map(|(publisher, messages)| {
            let numbered = (1..).zip(messages).filter(|(_, progress)| **progress >= Progress::Acknowledged);
            numbered.map(|(number, _)| (publisher.as_str(), number))
        })
    }

    fn was_sent(&self, (publisher, number): &Name) -> bool {
        let messages = self.published.get(publisher).map_or(0, Vec::len);
        (1..=u64::try_from(messages).unwrap()).contains(number)
    }
}

impl Verdict {
    /// Every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.duplicates_qos2.is_empty()
            && self.reordered.is_empty()
            && self.invented.is_empty()
            && self.broken.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, delivered {} (QoS 1 again {}), lost {}, QoS 2 duplicates {}, reordered {}, invented {}, broken promises {}",
            self.acknowledged,
            self.delivered,
            self.duplicates_qos1,
            self.lost.len(),
            self.duplicates_qos2.len(),
            self.reordered.len(),
            self.invented.len(),
            self.broken.len()
        )
    }
}

/// The judge must be able to find fault.
#[cfg(test)]
mod tests {
    use super::{Event, Ledger, now_ns};

    fn name(number: u64) -> super::Name {
        ("p".to_owned(), number)
    }

    fn deliver(ledger: &Ledger, number: u64) {
        ledger.enter(Event::Delivered { subscriber: "s".to_owned(), name: name(number), id: None });
    }

    #[test]
    fn the_ledger_finds_every_kind_of_fault() {
        let ledger = Ledger::default();
        for n in 1..=4 {
            ledger.enter(Event::Sent { name: name(n) });
            ledger.enter(Event::Acknowledged { name: name(n) });
        }
        for n in [1, 3, 2, 2, 5] {
            deliver(&ledger, n);
        }
        assert!(!ledger.is_complete("s"));
        let verdict = ledger.verdict(&["s"], |_, _| true);
        assert_eq!(verdict.lost, [("s".to_owned(), name(4))]);
        assert_eq!(verdict.duplicates_qos2, [("s".to_owned(), name(2))]);
        assert_eq!(verdict.reordered, [("s".to_owned(), name(2))]);
        assert_eq!(verdict.invented, [("s".to_owned(), name(5))]);
        assert_eq!(ledger.verdict(&["s"], |_, _| false).duplicates_qos1, 1);
    }

    #[test]
    fn the_ledger_knows_what_it_said_earlier() {
        let ledger = Ledger::default();
        ledger.enter(Event::Sent { name: name(1) });
        let moment = now_ns();
        ledger.enter(Event::Acknowledged { name: name(1) });
        deliver(&ledger, 1);
        let before = ledger.before(moment);
        assert_eq!((before.acknowledged(), before.published("p").len()), (0, 1));
        assert_eq!(ledger.before(now_ns()).acknowledged(), 1);
    }
}
