//! What the journal holds, as the broker sees it. How these become bytes is `format`'s business.
//!
//! A session's records are appended under that session's own lock, so their order in the journal is the order of its
//! state changes.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::{PacketId, SubscribeOptions},
    message::{Delivery, Message, Seq, SessionNo},
    time::Timestamp,
    topic::{TopicFilter, TopicName},
};

/// One persistent session that must get a message, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Whose it is.
    pub session: SessionNo,
    /// The number that session gave the message.
    pub seq: Seq,
    /// How it is delivered.
    pub delivery: Delivery,
    /// The shared subscription whose member it was chosen as, `$share/...` included.
    pub group: Option<TopicFilter>,
}

/// A member of a shared subscription is gone, and what it had not been sent goes to another one.
#[derive(Clone, Debug, PartialEq)]
pub struct HandedOn {
    /// Who had to get the message until now.
    pub session: SessionNo,
    /// Its number there.
    pub seq: Seq,
    /// Who has to get it from now on, in the same place among the message's targets.
    pub to: Target,
}

/// What else the journal must know about a message whose targets are all known.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    /// The publisher's session, when persistent: its held messages are written before this one is.
    pub publisher: Option<SessionNo>,
    /// The publisher's QoS 2 packet id: it goes into the same commit. Ignored without a `publisher`.
    pub inbound_qos2: Option<PacketId>,
    /// It was the will of this session, whose record has it no more: that goes into the same commit.
    pub will_of: Option<Box<SessionRecord>>,
    /// It is the topic's retained message, with this version. Calls of `complete` and `unretain` for one topic are
    /// made in the order of their versions, the new value's `complete` before the old value's `unretain`.
    pub retained: Option<u64>,
    /// Every target is online and was sent it: hold it back for `elision_wait`.
    pub may_elide: bool,
    /// Somebody is about to send it: the copy in memory stays until `Stored::unload`.
    pub keep_body: bool,
}

/// A persistent session, its subscriptions and queue aside.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// Its number, never reused.
    pub session: SessionNo,
    /// The client it belongs to.
    pub client_id: Arc<str>,
    /// How long it outlives its connection (session expiry interval).
    pub expiry: Duration,
    /// When the session expires if nobody connects: NEVER while connected.
    pub expires_at: Timestamp,
    /// How many messages may be in flight: after a crash no more of the oldest count as sent.
    pub inflight_max: u16,
    /// While nobody is connected: no message with this number or a higher one has been sent. Before a higher one that expires
    /// is, the journal has a record with another mark. [`Seq::MAX`]: any of those in the window may have been.
    pub sent_below: Seq,
    /// Sequence numbers below this may have been given out.
    pub seq_reserved: Seq,
    /// Its will, until it is sent or removed.
    pub will: Option<Box<WillRecord>>,
    /// Who its client was when it came last, where somebody wants to know.
    pub user_name: Option<Arc<str>>,
}

impl SessionRecord {
    /// Whether it is no client's: what waits there becomes dead letters. Each run of the broker may have one, and it reserves
    /// no numbers, since nothing of it is ever in flight.
    pub fn is_office(&self) -> bool {
        self.client_id.is_empty()
    }
}

/// A session's will.
#[derive(Clone, Debug, PartialEq)]
pub struct WillRecord {
    /// What is published.
    pub message: Message,
    /// How long after the connection's end (will delay interval).
    pub delay: Duration,
    /// When it is due. NEVER: while connected, at the connection's end; while asleep it is not to be published, since
    /// the client has said good-bye, and is remembered for a client that comes back with the same.
    pub due_at: Timestamp,
    /// The message expiry interval in seconds, counted from the moment it is published.
    pub expiry: Option<u32>,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionRecord {
    /// What it subscribes to.
    pub filter: TopicFilter,
    /// Its options.
    pub options: SubscribeOptions,
    /// Its v5 subscription identifier.
    pub subscription_id: Option<u32>,
}

/// All of a session's state but its queue, which stands with the messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Settings, expiry, will.
    pub record: SessionRecord,
    /// Every subscription.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Packet ids of QoS 2 messages received and not yet released, in order.
    pub inbound_qos2: Vec<PacketId>,
    /// Messages whose PUBREC came and whose PUBCOMP did not, in the order of the PUBRECs.
    pub received: Vec<Seq>,
}

/// A state change that survives a power cut once its gate is open.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// All of a session's state: its first record, and whenever compaction asks (`SnapshotSource`).
    Snapshot(Box<Snapshot>),
    /// A known session's settings changed.
    Session(Box<SessionRecord>),
    /// The session has ended, and with it its claims on messages.
    Gone(SessionNo),
    /// A subscription was made or replaced.
    Subscribed(SessionNo, SubscriptionRecord),
    /// A subscription was ended.
    Unsubscribed(SessionNo, TopicFilter),
    /// A QoS 2 message with this packet id was received from the client.
    InboundQos2(SessionNo, PacketId),
    /// The client released that packet id (PUBREL).
    Released(SessionNo, PacketId),
    /// The client has received a QoS 2 message (PUBREC); PUBCOMP is awaited.
    Received(SessionNo, Seq),
    /// The client has confirmed a message, or needs it no longer.
    Done(SessionNo, Seq),
    /// The topic has no retained message from this version on.
    RetainedCleared(TopicName, u64),
    /// A claim on a message has passed from one session to another: one record, so that after any crash exactly one of
    /// the two has it.
    HandedOn(Box<HandedOn>),
}

/// Numbers that must never be given twice, as they stood when a generation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The highest session number seen.
    pub(crate) session: u64,
    /// The highest message id seen.
    pub(crate) message: u64,
    /// The highest retained version seen.
    pub(crate) retained_version: u64,
    /// The highest run seen; each start of the broker is a run.
    pub(crate) run: u32,
}

impl Marks {
    /// Takes note of the numbers in a record.
    pub(crate) fn see(&mut self, record: &Record) {
        match record {
            Record::Snapshot(s) => self.see_session(s.record.session),
            Record::Session(r) => self.see_session(r.session),
            Record::Gone(s)
            | Record::Subscribed(s, _)
            | Record::Unsubscribed(s, _)
            | Record::InboundQos2(s, _)
            | Record::Released(s, _)
            | Record::Received(s, _)
            | Record::Done(s, _) => self.see_session(*s),
            Record::RetainedCleared(_, version) => self.see_retained(*version),
            Record::HandedOn(h) => {
                self.see_session(h.session);
                self.see_session(h.to.session);
            }
        }
    }

    /// Takes note of a session number.
    pub(crate) fn see_session(&mut self, session: SessionNo) {
        self.session = self.session.max(session.0.get());
    }

    /// Takes note of a retained version.
    pub(crate) fn see_retained(&mut self, version: u64) {
        self.retained_version = self.retained_version.max(version);
    }

    /// The higher of each number.
    pub(crate) fn join(&mut self, other: &Self) {
        self.session = self.session.max(other.session);
        self.message = self.message.max(other.message);
        self.retained_version = self.retained_version.max(other.retained_version);
        self.run = self.run.max(other.run);
    }
}
