//! What the journal must hold: a list of facts with the commit each is in, and the state they add up to.

use super::queued;
use crate::store::{Journal, Recovered};
use std::collections::{BTreeMap, BTreeSet};

/// The state a broker would recover.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Truth {
    pub(super) sessions: BTreeMap<u64, SessionTruth>,
    /// Topic to version and body.
    pub(super) retained: BTreeMap<String, (u64, Option<u64>)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SessionTruth {
    pub(super) filters: BTreeSet<String>,
    pub(super) inbound: Vec<u16>,
    pub(super) received: Vec<u64>,
    pub(super) expires_at: u64,
    /// Sequence number to body.
    pub(super) queue: BTreeMap<u64, u64>,
}

/// One fact.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    Created(u64),
    Changed(u64, u64),
    Gone(u64),
    Subscribed(u64, String),
    Unsubscribed(u64, String),
    Inbound(u64, u16),
    Released(u64, u16),
    Message { body: u64, targets: Vec<(u64, u64)>, retained: Option<(String, u64)> },
    Done(u64, u64),
    Received(u64, u64),
    Cleared(String, u64),
    HandedOn((u64, u64), (u64, u64)),
}

impl Truth {
    /// The state after all facts in commits up to `last`.
    pub(super) fn after(&self, facts: &[(u64, Fact)], last: u64) -> Self {
        let mut truth = self.clone();
        let mut facts: Vec<_> = facts.iter().filter(|(commit, _)| *commit <= last).collect();
        facts.sort_by_key(|(commit, _)| *commit);
        for (_, fact) in facts {
            truth.apply(fact);
        }
        truth.retained.retain(|_, (_, body)| body.is_some());
        truth
    }

    fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Created(s) => drop(self.sessions.insert(*s, SessionTruth::default())),
            Fact::Gone(s) => drop(self.sessions.remove(s)),
            Fact::Message { body, targets, retained } => {
                for (s, seq) in targets {
                    self.with(*s, |session| {
                        session.queue.insert(*seq, *body);
                    });
                }
                if let Some((topic, version)) = retained {
                    self.retain(topic, *version, Some(*body));
                }
            }
            Fact::HandedOn((s, seq), (to, to_seq)) => {
                let body = self.sessions.get_mut(s).and_then(|session| session.queue.remove(seq));
                if let Some(body) = body {
                    self.with(*to, |session| {
                        session.queue.insert(*to_seq, body);
                    });
                }
            }
            Fact::Cleared(topic, version) => self.retain(topic, *version, None),
            Fact::Changed(s, at) => self.with(*s, |session| session.expires_at = *at),
            Fact::Subscribed(s, f) => self.with(*s, |session| {
                session.filters.insert(f.clone());
            }),
            Fact::Unsubscribed(s, f) => self.with(*s, |session| {
                session.filters.remove(f);
            }),
            Fact::Inbound(s, id) => self.with(*s, |session| session.inbound.push(*id)),
            Fact::Released(s, id) => self.with(*s, |session| session.inbound.retain(|x| x != id)),
            Fact::Done(s, seq) => self.with(*s, |session| {
                session.queue.remove(seq);
                session.received.retain(|x| x != seq);
            }),
            Fact::Received(s, seq) => self.with(*s, |session| {
                session.queue.remove(seq);
                session.received.push(*seq);
            }),
        }
    }

    fn retain(&mut self, topic: &str, version: u64, body: Option<u64>) {
        let value = self.retained.entry(topic.to_owned()).or_insert((version, body));
        if value.0 <= version {
            *value = (version, body);
        }
    }

    fn with(&mut self, s: u64, f: impl FnOnce(&mut SessionTruth)) {
        if let Some(session) = self.sessions.get_mut(&s) {
            f(session);
        }
    }

    /// What was recovered, with every queued body in memory already.
    pub(super) fn of(journal: &Journal, recovered: &Recovered) -> Result<Self, String> {
        let mut truth = Self::default();
        for found in &recovered.sessions {
            let mut session = SessionTruth {
                filters: found.snapshot.subscriptions.iter().map(|s| s.filter.as_str().to_owned()).collect(),
                inbound: found.snapshot.inbound_qos2.iter().map(|id| id.get()).collect(),
                received: found.snapshot.received.iter().map(|seq| seq.0).collect(),
                expires_at: found.snapshot.record.expires_at.0,
                queue: BTreeMap::new(),
            };
            for queued in queued(journal, found) {
                let body = queued.message.body().ok_or_else(|| format!("{queued:?} cannot be read"))?;
                session.queue.insert(queued.seq.0, body_no(&body.payload)?);
            }
            truth.sessions.insert(found.snapshot.record.session.0.get(), session);
        }
        for found in &recovered.retained {
            let body = body_no(&found.message.payload)?;
            truth.retained.insert(found.message.topic.as_str().to_owned(), (found.version, Some(body)));
        }
        Ok(truth)
    }
}

/// A payload that says which body it is, all through.
pub(super) fn payload(no: u64, len: usize) -> Vec<u8> {
    no.to_be_bytes().into_iter().cycle().take(len.max(8)).collect()
}

fn body_no(payload: &[u8]) -> Result<u64, String> {
    let no = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or("a short payload")?;
    if payload == super::truth::payload(no, payload.len()) { Ok(no) } else { Err(format!("{no} is garbled")) }
}

/// A small random number generator (splitmix64), so that a seed means the same for ever.
#[derive(Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these, if there is one.
    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(of.len() as u64)).ok()?;
        of.get(at).cloned()
    }
}
