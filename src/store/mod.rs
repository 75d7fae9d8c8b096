//! The journal. (API contract.)
#![allow(missing_docs, unused)]
use crate::{
    codec::{PacketId, QoS, SubscribeOptions},
    message::{Delivery, Message, Seq, SessionNo},
    time::{Timestamp, WallClock},
    topic::{TopicFilter, TopicName},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    task::Waker,
    time::Duration,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitNo(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Power,
    Process,
    Relaxed,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub durability: Durability,
    pub elision_wait_max: Duration,
    pub done_interval: Duration,
    pub backlog_bytes_max: usize,
}

/// What an answer waits for.
#[derive(Clone)]
pub enum Gate {
    Open,
    Commit(CommitNo),
    Message(Arc<Stored>),
}

/// One kept message: on its way to the disk, held back (elision), on the disk, or done with.
pub struct Stored {
    body: Option<Arc<Message>>,
}
impl Stored {
    pub fn body(&self) -> Option<Arc<Message>> {
        self.body.clone()
    }
    pub fn size_bytes(&self) -> usize {
        0
    }
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::NEVER
    }
    /// Drops the copy in memory once it can be read back.
    pub fn unload(&self) {}
}

#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub session: SessionNo,
    pub seq: Seq,
    pub delivery: Delivery,
}

#[derive(Clone, Debug, Default)]
pub struct Completion {
    /// The publisher's session, when persistent: its held messages are written before this one is.
    pub publisher: Option<SessionNo>,
    /// QoS 2: goes into the same commit.
    pub inbound_qos2: Option<PacketId>,
    /// It is the topic's retained message, with this version.
    pub retained: Option<u64>,
    /// Every target is online and was sent it: hold it back for `elision_wait`.
    pub may_elide: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    pub session: SessionNo,
    pub client_id: Arc<str>,
    pub expiry: Duration,
    /// When the session expires if nobody connects: NEVER while connected.
    pub expires_at: Timestamp,
    pub inflight_max: u16,
    /// Sequence numbers below this may have been given out.
    pub seq_reserved: Seq,
    pub will: Option<WillRecord>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct WillRecord {
    pub message: Message,
    pub delay: Duration,
    /** When it is due; NEVER while connected. */
    pub due_at: Timestamp,
    pub expiry: Option<u32>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionRecord {
    pub filter: TopicFilter,
    pub options: SubscribeOptions,
    pub subscription_id: Option<u32>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub record: SessionRecord,
    pub subscriptions: Vec<SubscriptionRecord>,
    pub inbound_qos2: Vec<PacketId>,
    pub received: Vec<Seq>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Snapshot(Box<Snapshot>),
    Session(Box<SessionRecord>),
    Gone(SessionNo),
    Subscribed(SessionNo, SubscriptionRecord),
    Unsubscribed(SessionNo, TopicFilter),
    InboundQos2(SessionNo, PacketId),
    Released(SessionNo, PacketId),
    Received(SessionNo, Seq),
    Done(SessionNo, Seq),
    RetainedCleared(TopicName, u64),
}

pub struct QueuedRecord {
    pub seq: Seq,
    pub message: Arc<Stored>,
    pub target: u32,
    pub delivery: Delivery,
}
pub struct RecoveredSession {
    pub snapshot: Snapshot,
    pub queue: Vec<QueuedRecord>,
}
pub struct RecoveredRetained {
    pub version: u64,
    pub stored: Arc<Stored>,
    pub message: Arc<Message>,
}
pub struct Recovered {
    pub now: Timestamp,
    pub sessions: Vec<RecoveredSession>,
    pub retained: Vec<RecoveredRetained>,
    pub next_session: u64,
    pub next_retained_version: u64,
}

pub trait SnapshotSource: Send + Sync {
    fn snapshot(&self, session: SessionNo);
}

pub enum Urgency {
    Now,
    Rides,
}

#[derive(Clone)]
pub struct Journal;
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("locked")]
    Locked(PathBuf),
}

impl Journal {
    pub fn open(
        dir: &Path,
        config: Config,
        clock: Arc<dyn Fn() -> (Timestamp, WallClock) + Send + Sync>,
    ) -> Result<(Self, Recovered), OpenError> {
        unimplemented!()
    }
    pub fn message(&self, message: Arc<Message>) -> Arc<Stored> {
        unimplemented!()
    }
    pub fn complete(&self, stored: &Arc<Stored>, targets: Vec<Target>, completion: Completion) {}
    pub fn confirm(&self, stored: &Arc<Stored>, target: u32, session: SessionNo, seq: Seq) -> Gate {
        Gate::Open
    }
    pub fn received(&self, stored: &Arc<Stored>, target: u32, session: SessionNo, seq: Seq) -> Gate {
        Gate::Open
    }
    pub fn forget(&self, stored: &Arc<Stored>, target: u32) {}
    pub fn unretain(&self, stored: &Arc<Stored>, cleared: Option<(TopicName, u64)>) -> Gate {
        Gate::Open
    }
    pub fn append(&self, record: Record, urgency: Urgency) -> Gate {
        Gate::Open
    }
    pub fn is_open(&self, gate: &Gate) -> bool {
        true
    }
    pub fn poll_gate(&self, gate: &Gate, waker: &Waker) -> bool {
        true
    }
    pub fn load(&self, wanted: Vec<Arc<Stored>>, waker: Waker) {}
    pub fn write_now(&self, stored: &Arc<Stored>) {}
    pub fn backlogged(&self) -> bool {
        false
    }
    pub fn poisoned(&self) -> bool {
        false
    }
    pub fn set_snapshot_source(&self, source: std::sync::Weak<dyn SnapshotSource>) {}
    pub fn close(&self) {}
}
