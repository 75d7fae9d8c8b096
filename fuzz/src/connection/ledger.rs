//! What the broker has promised, as far as the clients can know. Where a client does what leaves room for doubt, the ledger
//! takes its side with the broker and asks no more for that session.

use std::collections::{BTreeMap, BTreeSet};

use dormouse::{
    codec::{Connect, PacketId, Publish, QoS, ReasonCode, SubscribeOptions},
    topic::{TopicFilter, TopicName},
};

use super::{super::topics::matches, packets::EXPIRY_LONG};

/// A message on its way to the broker, and the sessions that it is for: each with its number and the filter.
pub struct Claim {
    body: u32,
    of: Vec<(String, u64, TopicFilter)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inbound {
    /// Sent, and not known to be free.
    Held,
    /// Used again while it was held: what the broker makes of it depends on what reached it.
    Unclear,
}

#[derive(Default)]
struct Session {
    /// It stays, and takes everything.
    is_sure: bool,
    /// Counts the times it began anew, or came into doubt.
    number: u64,
    /// Its latest connection. What an earlier one hears late says nothing of now.
    connection: u64,
    granted: BTreeSet<TopicFilter>,
    /// The last SUBSCRIBE or UNSUBSCRIBE about each filter.
    latest: BTreeMap<String, u64>,
    /// What it ever asked for.
    asked: BTreeSet<String>,
    owed: BTreeSet<u32>,
    heard: BTreeSet<u32>,
    /// QoS 2 messages it has been sent the PUBREL of.
    released: BTreeSet<u32>,
    /// And on which connection it was sent last.
    inbound: BTreeMap<PacketId, (Inbound, u64)>,
}

impl Session {
    fn begin_anew(&mut self, is_sure: bool) {
        self.is_sure = is_sure;
        self.number += 1;
        self.granted.clear();
        self.owed.clear();
        self.heard.clear();
        self.released.clear();
    }
}

pub struct Ledger {
    /// Whether the broker's bounds are so wide that nothing may be dropped for them.
    judges: bool,
    bodies: u32,
    numbers: u64,
    /// How often each body came to the broker.
    published: BTreeMap<u32, usize>,
    sessions: BTreeMap<String, Session>,
    /// The disk was written to by somebody else: there may be anything on it.
    is_forged: bool,
}

impl Ledger {
    pub fn new(judges: bool) -> Self {
        Self {
            judges,
            bodies: 0,
            numbers: 0,
            published: BTreeMap::new(),
            sessions: BTreeMap::new(),
            is_forged: false,
        }
    }

    /// A payload that says which message it is.
    pub fn next_body(&mut self) -> Vec<u8> {
        self.bodies += 1;
        format!("message {}", self.bodies).into_bytes()
    }

    fn session(&mut self, client_id: &str) -> &mut Session {
        self.sessions.entry(client_id.to_owned()).or_default()
    }

    pub fn connected(&mut self, client_id: &str, packet: &Connect<'_>) -> u64 {
        self.numbers += 1;
        let connection = self.numbers;
        let p = &packet.properties;
        let stays =
            if packet.version.is_v5() { p.session_expiry == Some(EXPIRY_LONG) } else { !packet.clean_start };
        let is_sure = stays && p.packet_bytes_max.is_none();
        let session = self.session(client_id);
        if packet.clean_start || !is_sure {
            session.begin_anew(is_sure);
        }
        session.is_sure = is_sure;
        session.connection = connection;
        connection
    }

    pub fn greeted(&mut self, client_id: &str, connection: u64, present: bool) {
        let session = self.session(client_id);
        if !present && session.connection == connection {
            assert!(session.owed.is_empty(), "the session of {client_id} is gone with {:?}", session.owed);
            session.begin_anew(session.is_sure);
            // It may have published before it was greeted.
            session.inbound.retain(|_, (_, sent_on)| *sent_on == connection);
        }
    }

    /// What this client does, or how it takes its messages, leaves room for doubt.
    pub fn taint(&mut self, client_id: &str) {
        self.session(client_id).begin_anew(false);
    }

    /// The disk was damaged. Whatever was on it may be lost, but nothing is there that was not; unless it was forged.
    pub fn damaged(&mut self, is_forged: bool) {
        self.is_forged = is_forged;
        self.judges = false;
        self.sessions.values_mut().for_each(|session| session.begin_anew(false));
    }

    /// SUBSCRIBE or UNSUBSCRIBE: until its answer the broker may have done it or not.
    pub fn subscribing<'f>(&mut self, client_id: &str, filters: impl Iterator<Item = &'f str>) -> u64 {
        self.numbers += 1;
        let number = self.numbers;
        let session = self.session(client_id);
        for filter in filters {
            session.latest.insert(filter.to_owned(), number);
            session.asked.insert(filter.to_owned());
            session.granted.retain(|f| f.as_str() != filter);
        }
        number
    }

    pub fn granted(
        &mut self,
        client_id: &str,
        filters: &[(String, SubscribeOptions)],
        reasons: &[ReasonCode],
        number: u64,
    ) {
        let session = self.session(client_id);
        for ((filter, options), reason) in filters.iter().zip(reasons) {
            let keeps = matches!(reason, ReasonCode::GrantedQos1 | ReasonCode::GrantedQos2);
            let Ok(parsed) = TopicFilter::parse(filter) else {
                assert!(reason.is_error(), "{filter:?} is no filter");
                continue;
            };
            session.granted.remove(&parsed);
            let plain = !filter.starts_with("$share/") && !options.no_local;
            if keeps && plain && session.is_sure && session.latest.get(filter) == Some(&number) {
                session.granted.insert(parsed);
            }
        }
    }

    /// The broker has taken a PUBLISH; whom it is for, if that is sure.
    pub fn published(&mut self, client_id: &str, p: &Publish<'_>) -> Option<Claim> {
        let body = body(p.payload);
        if let Some(body) = body {
            *self.published.entry(body).or_default() += 1;
        }
        if let Some(id) = p.packet_id.filter(|_| p.qos == QoS::ExactlyOnce) {
            let session = self.session(client_id);
            let was_free = !session.inbound.contains_key(&id);
            let inbound = if was_free { Inbound::Held } else { Inbound::Unclear };
            session.inbound.insert(id, (inbound, session.connection));
            if !was_free {
                return None;
            }
        }
        let expires = p.properties.message_expiry.is_some();
        if !self.judges || p.qos == QoS::AtMostOnce || expires || p.properties.topic_alias.is_some() {
            return None;
        }
        let (body, topic) = (body?, TopicName::parse(p.topic).ok()?);
        let mut of = Vec::new();
        for (client_id, session) in &self.sessions {
            let granted = session.granted.iter().find(|f| matches(f, &topic));
            of.extend(granted.map(|f| (client_id.clone(), session.number, f.clone())));
        }
        Some(Claim { body, of })
    }

    /// The publisher was told that the message is safe.
    pub fn acknowledged(&mut self, claim: Option<Claim>) {
        let Some(Claim { body, of }) = claim else { return };
        for (client_id, number, filter) in of {
            let session = self.session(&client_id);
            let goes_on = session.number == number && session.granted.contains(&filter);
            if goes_on && !session.heard.contains(&body) {
                session.owed.insert(body);
            }
        }
    }

    /// PUBCOMP.
    pub fn completed(&mut self, client_id: &str, connection: u64, id: PacketId) {
        let session = self.session(client_id);
        let is_latest = session.connection == connection;
        let inbound = &mut session.inbound;
        if is_latest && inbound.get(&id).is_some_and(|(inbound, _)| *inbound == Inbound::Held) {
            inbound.remove(&id);
        }
    }

    /// A message came; which it is.
    pub fn heard(&mut self, client_id: &str, topic: &TopicName, p: &Publish<'_>) -> Option<u32> {
        let asked = &self.session(client_id).asked;
        let mut asked = asked.iter().filter_map(|f| TopicFilter::parse(f).ok());
        let was_asked = asked.any(|f| matches(&f, topic));
        assert!(was_asked || self.is_forged, "{client_id} never asked for {topic}");
        let body = body(p.payload)?;
        let times = self.published.get(&body).copied().unwrap_or_default();
        assert!(times > 0 || self.is_forged, "{body} was never published");
        let session = self.session(client_id);
        session.owed.remove(&body);
        session.heard.insert(body);
        // Two subscriptions may be two messages, and a retained one comes for each.
        let once = times == 1 && !p.retain && !session.asked.iter().any(|f| f.starts_with("$share/"));
        let again = session.released.contains(&body);
        assert!(!(once && again && p.qos == QoS::ExactlyOnce), "{body} came to {client_id} a second time");
        Some(body)
    }

    /// PUBREL: the message will not come again.
    pub fn released(&mut self, client_id: &str, body: Option<u32>) {
        self.session(client_id).released.extend(body);
    }

    /// Clients with messages that they were promised.
    pub fn owing(&self) -> Vec<String> {
        let owing = self.sessions.iter().filter(|(_, s)| s.is_sure && !s.owed.is_empty());
        owing.map(|(client_id, _)| client_id.clone()).collect()
    }

    /// All that was promised has come.
    pub fn judge(&self, client_id: &str) {
        let owed = self.sessions.get(client_id).map(|s| &s.owed);
        assert!(owed.is_none_or(BTreeSet::is_empty), "acknowledged and lost for {client_id}: {owed:?}");
    }
}

/// Which message a payload is of.
fn body(payload: &[u8]) -> Option<u32> {
    std::str::from_utf8(payload).ok()?.strip_prefix("message ")?.trim_end().parse().ok()
}
