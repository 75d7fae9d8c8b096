//! The journal as a whole.

mod alive;
mod bad_stores;
mod basic;
mod crash;
mod damage;
mod drained;
mod gather;
mod growth;
mod offline;
mod power;
mod records;
mod sealed;
pub(crate) mod truth;
mod wear;
mod world;

use std::{
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    Config, Journal, Recovered, RecoveredSession, SessionRecord, Snapshot, StoreKey, Stored,
    SubscriptionRecord, Target,
    packing::{CommitHead, Packing},
};
use crate::{
    codec::{QoS, RetainHandling, SubscribeOptions},
    message::{Delivery, Message, Seq, SessionNo},
    store::medium::{sim::SimDisk, sled::open_sled},
    time::{Clock, Timestamp, WallClock},
    topic::{TopicFilter, TopicName},
};

/// The database of a generation that has just been closed: a thread of sled's may hold its lock for a moment longer.
fn database(generation: &Path) -> sled::Db {
    open_sled(generation, 1 << 20).unwrap()
}

/// All files below a folder with their contents.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    all.sort();
    all
}

/// A QoS 1 message.
pub(in crate::store) fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: TopicName::parse(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: Timestamp::NEVER,
        properties: None,
    }
}

pub(in crate::store) fn session(no: u64) -> SessionNo {
    SessionNo(NonZeroU64::new(no).unwrap())
}

pub(in crate::store) fn snapshot(no: u64) -> Snapshot {
    Snapshot {
        record: SessionRecord {
            session: session(no),
            client_id: format!("client-{no}").into(),
            expiry: Duration::from_secs(3_600),
            expires_at: Timestamp::NEVER,
            inflight_max: 100,
            sent_below: Seq::MAX,
            seq_reserved: Seq(1_000),
            will: None,
            user_name: None,
        },
        subscriptions: Vec::new(),
        inbound_qos2: Vec::new(),
        received: Vec::new(),
    }
}

pub(in crate::store) fn subscription(filter: &str) -> SubscriptionRecord {
    SubscriptionRecord {
        filter: TopicFilter::parse(filter).unwrap(),
        options: SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
        },
        subscription_id: Some(7),
    }
}

pub(in crate::store) fn target(no: u64, seq: u64) -> Target {
    let delivery = Delivery { qos: QoS::AtLeastOnce, retain: false, subscription_ids: Vec::new() };
    Target { session: session(no), seq: Seq(seq), delivery, group: None }
}

/// A commit's frames, not sealed, with these numbers from the first on.
pub(in crate::store) fn plain_frames(
    run: u32,
    commit: u64,
    first_frame: u64,
    stream: &[u8],
) -> Vec<(u64, Vec<u8>)> {
    Packing::new(None).cut(CommitHead { run, commit, generation: 1, first_frame }, stream).unwrap().frames
}

/// A key, one for each digit.
pub(in crate::store) fn key(digit: char) -> StoreKey {
    StoreKey::parse(&digit.to_string().repeat(64)).unwrap()
}

/// A message in a session's queue.
#[derive(Debug)]
pub(in crate::store) struct Queued {
    pub(in crate::store) seq: Seq,
    pub(in crate::store) message: Arc<Stored>,
    pub(in crate::store) target: u32,
}

/// What waits for a session that was found.
pub(in crate::store) fn queued(journal: &Journal, found: &RecoveredSession) -> Vec<Queued> {
    let parked: Vec<_> = found.queue.iter().map(|shelved| shelved.parked).collect();
    let claims = journal.unpark(&parked).into_iter().zip(found.queue.iter());
    claims.map(|((message, target), shelved)| Queued { seq: shelved.seq, message, target }).collect()
}

/// Virtual time.
#[derive(Clone, Default)]
pub(in crate::store) struct Time {
    ms: Arc<AtomicU64>,
}

/// A wall clock to be believed.
pub(in crate::store) const WALL: u64 = 1_800_000_000_000;

impl Time {
    pub(in crate::store) fn advance(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(in crate::store) fn set(&self, at: Timestamp) {
        self.ms.store(at.0, Ordering::Relaxed);
    }

    pub(in crate::store) fn clock(&self) -> Arc<dyn Clock> {
        let ms = Arc::clone(&self.ms);
        Arc::new(move || {
            let at = ms.load(Ordering::Relaxed);
            (Timestamp(at), WallClock(WALL + at))
        })
    }
}

/// A journal on a simulated disk, in virtual time.
pub(in crate::store) fn open_sim(disk: &SimDisk, config: &Config, time: &Time) -> (Journal, Recovered) {
    let (journal, recovered) =
        Journal::open_on(Box::new(disk.medium()), config.clone(), WallClock::UNKNOWN).unwrap();
    time.set(recovered.now);
    journal.set_clock(time.clock());
    (journal, recovered)
}

/// Steps until nothing is due now.
pub(in crate::store) fn settle(journal: &Journal) {
    while journal.step() == super::Step::Worked {}
}
