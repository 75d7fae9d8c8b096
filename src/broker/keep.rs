//! The journal as a session's [`Keeper`]: persistent sessions' messages in the store, transient ones' in memory.

use std::sync::Arc;

use tracing::warn;

use super::{
    dead_letters::{DeadReason, Loss, is_reserved},
    dispatch::Refused,
    letters::Letters,
};
use crate::{
    message::{Delivery, Message, Seq, SessionNo},
    session::{Body, DropReason, Entry, Keeper},
    store::{Gate, Journal, Parked, Record, Stored, Urgency},
    telemetry::{Counter, Sharded},
    time::Timestamp,
    topic::{TopicFilter, TopicName},
};

/// A message in a session's queue.
#[derive(Clone)]
pub(super) enum Kept {
    /// A transient session's: it ends with the connection, and asks nothing of the disk.
    Memory {
        /// The message.
        message: Arc<Message>,
        /// When it is QoS 2 and came from a persistent session: its inbound id's commit.
        after: Gate,
    },
    /// A persistent session's: the `target`th claim on a stored message.
    Journal {
        /// The message.
        stored: Arc<Stored>,
        /// Index among the message's targets.
        target: u32,
    },
    /// A transient session's that was sent, and that nobody will ask for again: neither the client, which begins anew when it
    /// comes back, nor another one.
    Sent,
}

impl Kept {
    /// Whether it was published with RETAIN, as far as memory can tell: of a body on disk the delivery knows it, if
    /// its subscription had asked for it.
    pub(super) fn was_retained(&self, delivery: &Delivery) -> bool {
        self.body().map_or(delivery.retain, |message| message.retain)
    }

    /// The message, if it is in memory.
    pub(super) fn body(&self) -> Option<Arc<Message>> {
        match self {
            Self::Memory { message, .. } => Some(Arc::clone(message)),
            Self::Journal { stored, .. } => stored.body(),
            Self::Sent => None,
        }
    }

    /// What the journal knows it by, with its session's number.
    fn claim(&self, seq: Seq) -> Option<(&Arc<Stored>, u32, Seq)> {
        match self {
            Self::Journal { stored, target } => Some((stored, *target, seq)),
            Self::Memory { .. } | Self::Sent => None,
        }
    }

    /// The stored message, for reading it back.
    pub(super) fn into_stored(self) -> Option<Arc<Stored>> {
        match self {
            Self::Journal { stored, .. } => Some(stored),
            Self::Memory { .. } | Self::Sent => None,
        }
    }
}

/// Messages that some session gave up undelivered, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// A queue was full: its oldest message, or the new one, by its policy.
    pub queue_full: u64,
    /// A queue was full under the policy `reject`: publishes refused as a whole, and known to be by their publishers.
    pub rejected: u64,
    /// QoS 0 and wills that could not be stored on a full disk.
    pub disk_full: u64,
    /// Their message expiry interval passed.
    pub expired: u64,
    /// Larger than the client's maximum packet size.
    pub too_large: u64,
    /// Damaged on disk.
    pub damaged: u64,
    /// QoS 0, to a client that reads too slowly.
    pub slow_reader: u64,
    /// QoS 0, to a client that sleeps and whose session keeps none.
    pub asleep: u64,
    /// Their session expired.
    pub session_expired: u64,
    /// Their client began a new session.
    pub session_cleaned: u64,
    /// Their session ended with its connection, as was agreed.
    pub session_closed: u64,
    /// No member of their shared subscription was left.
    pub no_member: u64,
    /// Delivered, and not retained as they should have been.
    pub not_retained: u64,
}

impl Dropped {
    /// Each with the name of its reason.
    pub fn by_reason(&self) -> [(&'static str, u64); 12] {
        [
            ("queue_full", self.queue_full),
            ("disk_full", self.disk_full),
            ("expired", self.expired),
            ("too_large", self.too_large),
            ("damaged", self.damaged),
            ("slow_reader", self.slow_reader),
            ("asleep", self.asleep),
            ("session_expired", self.session_expired),
            ("session_cleaned", self.session_cleaned),
            ("session_closed", self.session_closed),
            ("no_member", self.no_member),
            ("not_retained", self.not_retained),
        ]
    }
}

/// Messages given up undelivered, by reason.
#[derive(Debug, Default)]
pub(super) struct Drops {
    queue_full: Counter,
    rejected: Counter,
    disk_full: Counter,
    expired: Counter,
    too_large: Counter,
    damaged: Counter,
    slow_reader: Counter,
    session_expired: Counter,
    session_cleaned: Counter,
    session_closed: Counter,
    no_member: Counter,
    not_retained: Counter,
    /// Nobody may be missing these, and there may be one for each sleeper and message.
    asleep: Sharded<1>,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody came in time.
    Expired,
    /// Its client began anew.
    CleanStart,
    /// It ended with its connection, as was agreed.
    WithConnection,
}

impl Drops {
    /// Messages that a session still had to deliver when it ended.
    pub(super) fn session_ended(&self, client_id: &str, why: Ended, messages: usize) {
        if messages == 0 {
            return;
        }
        let (counter, reason) = match why {
            Ended::Expired => (&self.session_expired, "it expired"),
            Ended::CleanStart => (&self.session_cleaned, "its client began a new one"),
            Ended::WithConnection => (&self.session_closed, "it ended with its connection"),
        };
        let total = counter.add(messages as u64);
        warn!(client_id, messages, total, reason, "session ended with messages undelivered");
    }

    /// All that was given up.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        let all = [
            &self.queue_full,
            &self.disk_full,
            &self.expired,
            &self.too_large,
            &self.damaged,
            &self.slow_reader,
            &self.session_expired,
            &self.session_cleaned,
            &self.session_closed,
            &self.no_member,
            &self.not_retained,
        ];
        all.iter().map(|counter| counter.total()).sum()
    }

    /// A new message that a full queue does not take, by its policy.
    pub(super) fn newest(&self, client_id: &str, topic: &TopicName) {
        if let Some(total) = self.queue_full.count() {
            let topic = topic.as_str();
            warn!(client_id, topic, total, "message dropped: the queue is full, and keeps what it has");
        }
    }

    /// A message that would have to be stored for this client, and whose publisher cannot be told that it is not.
    pub(super) fn disk_full(&self, client_id: &str, topic: &TopicName) {
        if let Some(total) = self.disk_full.count() {
            let topic = topic.as_str();
            warn!(client_id, topic, total, "message dropped: the disk is full");
        }
    }

    /// A publish that was refused since this client's queue is full.
    pub(super) fn rejected(&self, client_id: &str, topic: &TopicName) {
        if let Some(total) = self.rejected.count() {
            let topic = topic.as_str();
            warn!(client_id, topic, total, "publish refused: the queue of this subscriber is full");
        }
    }

    /// A message was delivered, and not retained as its publisher had asked.
    pub(super) fn not_retained(&self, client_id: &str, topic: &TopicName, why: Refused) {
        if let Some(total) = self.not_retained.count() {
            let topic = topic.as_str();
            warn!(client_id, topic, total, "message not retained: {why}");
        }
    }

    /// A message of a shared subscription that has no member who could get it any more.
    pub(super) fn no_member(&self, group: &TopicFilter) {
        if let Some(total) = self.no_member.count() {
            let group = group.as_str();
            warn!(group, total, "message dropped: no member of its shared subscription is left");
        }
    }

    /// A QoS 0 message that an online client could not take.
    pub(super) fn slow_reader(&self, client_id: &str) {
        if let Some(total) = self.slow_reader.count() {
            warn!(client_id, total, "QoS 0 message dropped: the client reads too slowly");
        }
    }

    /// A message that one subscriber cannot take; the others get it.
    pub(super) fn too_large(&self, client_id: &str, topic: &TopicName) {
        if let Some(total) = self.too_large.count() {
            let topic = topic.as_str();
            warn!(client_id, topic, total, "message dropped: {}", why(DropReason::TooLarge));
        }
    }

    /// A QoS 0 message for a client that sleeps, and whose session keeps none: what was to be expected.
    pub(super) fn asleep(&self) {
        self.asleep.add([1]);
    }

    pub(super) fn read(&self) -> Dropped {
        let [asleep] = self.asleep.totals();
        Dropped {
            queue_full: self.queue_full.total(),
            rejected: self.rejected.total(),
            disk_full: self.disk_full.total(),
            expired: self.expired.total(),
            too_large: self.too_large.total(),
            damaged: self.damaged.total(),
            slow_reader: self.slow_reader.total(),
            asleep,
            session_expired: self.session_expired.total(),
            session_cleaned: self.session_cleaned.total(),
            session_closed: self.session_closed.total(),
            no_member: self.no_member.total(),
            not_retained: self.not_retained.total(),
        }
    }
}

/// One session's way to the store.
pub(super) struct Keep {
    pub(super) journal: Journal,
    pub(super) session: SessionNo,
    pub(super) client_id: Arc<str>,
    pub(super) persistent: bool,
    pub(super) drops: Arc<Drops>,
    pub(super) letters: Arc<Letters>,
}

impl Keep {
    /// The session has ended: its claim on the message goes without a record of its own.
    pub(super) fn forget(&self, kept: &Kept) {
        if let Kept::Journal { stored, target } = kept {
            self.journal.forget(stored, *target);
        }
    }

    /// The session has ended, or given up a message, that nobody else can get.
    pub(super) fn give_up(&self, entry: &Entry<Self>) -> Gate {
        self.confirm(entry.seq, &entry.kept)
    }

    /// The same, if a letter is made of it.
    pub(super) fn dead(&self, seq: Seq, kept: &Kept, reason: DeadReason) -> Option<Gate> {
        let loss = Loss { reason, client_id: Arc::clone(&self.client_id) };
        self.letters.take(&self.journal, (self.session, seq), kept, loss)
    }

    /// The client is gone: what was held back for its confirmation is written now.
    pub(super) fn write_now(&self, kept: &Kept) {
        if let Kept::Journal { stored, .. } = kept {
            self.journal.write_now(stored);
        }
    }
}

impl Keeper for Keep {
    type Kept = Kept;
    type Parked = Parked;
    type Gate = Gate;

    fn body(&self, kept: &Kept) -> Body {
        match kept {
            Kept::Memory { message, .. } => Body::Loaded(Arc::clone(message)),
            Kept::Journal { stored, .. } => match stored.body() {
                Some(message) => Body::Loaded(message),
                None if stored.is_lost() => Body::Lost,
                None => Body::Unloaded,
            },
            Kept::Sent => Body::Lost,
        }
    }

    fn expires_at(&self, kept: &Kept) -> Timestamp {
        match kept {
            Kept::Memory { message, .. } => message.expires_at,
            Kept::Journal { stored, .. } => stored.expires_at(),
            Kept::Sent => Timestamp::NEVER,
        }
    }

    fn size_bytes(&self, kept: &Kept) -> usize {
        match kept {
            Kept::Memory { message, .. } => message.size_bytes(),
            Kept::Journal { stored, .. } => stored.size_bytes(),
            Kept::Sent => 0,
        }
    }

    fn unload(&self, kept: &Kept) {
        if let Kept::Journal { stored, .. } = kept {
            stored.unload();
        }
    }

    fn is_parkable(&self, kept: &Kept) -> bool {
        matches!(kept, Kept::Journal { stored, target } if stored.may_sleep(*target))
    }

    fn park(&self, kept: Vec<Kept>) -> Vec<Parked> {
        let claim = |kept| match kept {
            Kept::Journal { stored, target } => Some((stored, target)),
            Kept::Memory { .. } | Kept::Sent => None,
        };
        self.journal.park(kept.into_iter().filter_map(claim).collect())
    }

    fn unpark(&self, parked: &[Parked]) -> Vec<Kept> {
        if parked.is_empty() {
            return Vec::new();
        }
        let claims = self.journal.unpark(parked).into_iter();
        claims.map(|(stored, target)| Kept::Journal { stored, target }).collect()
    }

    fn parked_bytes(&self, parked: &[Parked]) -> usize {
        self.journal.parked_bytes(parked)
    }

    fn first_to_expire(&self, parked: &[Parked]) -> Option<usize> {
        self.journal.first_to_expire(parked)
    }

    fn open_gate(&self) -> Gate {
        Gate::Open
    }

    fn is_open(&self, gate: &Gate) -> bool {
        self.journal.is_open(gate)
    }

    fn sent_after(&self, kept: &Kept) -> Gate {
        match kept {
            Kept::Memory { after, .. } => after.clone(),
            Kept::Journal { stored, .. } => Gate::Message(Arc::clone(stored)),
            Kept::Sent => Gate::Open,
        }
    }

    fn is_untracked(&self, kept: &Kept) -> bool {
        matches!(kept, Kept::Memory { .. } | Kept::Sent)
    }

    fn confirm(&self, seq: Seq, kept: &Kept) -> Gate {
        match kept {
            Kept::Memory { .. } | Kept::Sent => Gate::Open,
            Kept::Journal { stored, target } => self.journal.confirm(stored, *target, self.session, seq),
        }
    }

    fn confirm_all(&self, row: &[(Seq, &Kept)]) -> Vec<Gate> {
        let claims: Option<Vec<_>> = row.iter().map(|(seq, kept)| kept.claim(*seq)).collect();
        match claims {
            Some(claims) => self.journal.confirm_all(self.session, &claims),
            None => row.iter().map(|(seq, kept)| self.confirm(*seq, kept)).collect(),
        }
    }

    fn received(&self, seq: Seq, kept: &Kept) -> Gate {
        match kept {
            Kept::Memory { .. } | Kept::Sent => Gate::Open,
            Kept::Journal { stored, target } => self.journal.received(stored, *target, self.session, seq),
        }
    }

    fn completed(&self, seq: Seq) -> Gate {
        if self.persistent {
            self.journal.append(Record::Done(self.session, seq), Urgency::Rides)
        } else {
            Gate::Open
        }
    }

    fn dropped(&self, seq: Seq, kept: &Kept, reason: DropReason, topic: Option<&TopicName>) -> Gate {
        let body = if topic.is_none() { self.body(kept) } else { Body::Unloaded };
        // Nothing is said of what is a letter itself.
        let dead = DeadReason::of(reason).filter(|_| topic.is_none_or(|topic| !is_reserved(topic.as_str())));
        let dead = dead.and_then(|reason| self.dead(seq, kept, reason));
        let gate = dead.unwrap_or_else(|| self.confirm(seq, kept));
        let counter = match reason {
            DropReason::QueueFull => &self.drops.queue_full,
            DropReason::Expired => &self.drops.expired,
            DropReason::TooLarge => &self.drops.too_large,
            DropReason::Damaged => &self.drops.damaged,
        };
        if let Some(total) = counter.count() {
            // Of a message on disk only the size is known.
            let loaded = if let Body::Loaded(message) = &body { Some(&message.topic) } else { None };
            let topic = topic.or(loaded).map(TopicName::as_str);
            warn!(client_id = &*self.client_id, topic, total, "message dropped: {}", why(reason));
        }
        gate
    }

    fn hurry(&self) {
        self.journal.hurry();
    }
}

fn why(reason: DropReason) -> &'static str {
    match reason {
        DropReason::QueueFull => "its queue is full, the oldest message goes",
        DropReason::Expired => "its message expiry interval has passed",
        DropReason::TooLarge => "it is larger than the client's maximum packet size",
        DropReason::Damaged => "it was damaged on disk",
    }
}
