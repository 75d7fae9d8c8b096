//! What a seed's world is like: how the broker is configured, and on what disk.

use std::time::Duration;

use super::super::{
    chance::Chance,
    model::{Bound, Terms},
};
use crate::{
    broker::{Config, DeadLetters, QueueBound},
    session::{Overflow, QueueLimits},
    store::{self, KeySource, StoreKey},
    topic::TopicFilter,
};

/// Seconds; longer than any world lasts.
pub(super) const POST_EXPIRY: u32 = 20 * 86_400;
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// A generation on a small disk; its reserve is four of them.
const SMALL_GENERATION_BYTES: u64 = 64 << 10;
pub(super) const RESERVE_BYTES: u64 = 4 * SMALL_GENERATION_BYTES;
/// The journal is full when no more than this is left above the reserve.
const FULL_BYTES: u64 = 1 << 20;
/// Room for messages on a small disk, at least: what has to be free for it not to be full any more, and some for
/// generations that compaction leaves.
const ROOM_BYTES: u64 = (512 << 10) + 6 * SMALL_GENERATION_BYTES;

pub(super) struct World {
    pub(super) config: Config,
    pub(super) store: store::Config,
    pub(super) terms: Terms,
    /// The disk's size, if it is a small one.
    pub(super) disk_bytes: Option<u64>,
}

impl World {
    pub(super) fn new(chance: &mut Chance, odds: &mut Chance) -> Self {
        let small = chance.one_in(4);
        let mut config = Config {
            inflight_max: 1 + u16::try_from(chance.below(6)).unwrap(),
            queue_qos0: chance.one_in(3),
            out_bytes_max: if small { 120 } else { 1 << 20 },
            ..Config::default()
        };
        let mut store = store::Config {
            generation_bytes: if chance.one_in(2) { 3_000 } else { 16 << 20 },
            elision_wait_max: Duration::from_millis(if chance.one_in(4) { 0 } else { 100 }),
            ..store::Config::default()
        };
        if odds.one_in(4) {
            store.key = KeySource::Given(StoreKey::parse(KEY).unwrap());
        }
        let mut terms = Terms { lossy: small, letters: odds.one_in(3), ..Terms::default() };
        config.dead_letters = DeadLetters { enabled: terms.letters, ..DeadLetters::default() };
        if odds.one_in(3) {
            let bound = Bound {
                messages_max: 1 + odds.below(4),
                overflow: [Overflow::DropOldest, Overflow::DropNewest, Overflow::Reject][odds.below(3)],
                filter: ["#", "+/1"][odds.below(2)],
            };
            terms.bound = Some(bound);
            bound_queues(&mut config, bound);
        }
        // A letter for a new message that a full queue does not take has to find room of its own.
        let keeps_new = terms.bound.is_none_or(|bound| bound.overflow != Overflow::DropNewest);
        let mut disk_bytes = None;
        if odds.one_in(6) && (keeps_new || !terms.letters) {
            terms.crowded = true;
            store.generation_bytes = store.generation_bytes.min(SMALL_GENERATION_BYTES);
            let bytes = RESERVE_BYTES + FULL_BYTES + ROOM_BYTES + odds.next() % (256 << 10);
            if odds.one_in(3) {
                store.disk_bytes_max = Some(bytes);
            } else {
                store.disk_reserve_bytes = Some(RESERVE_BYTES);
                disk_bytes = Some(bytes);
            }
        }
        Self { config, store, terms, disk_bytes }
    }
}

/// The bound counts for its topics; the shared subscription's and the letters have room enough.
fn bound_queues(config: &mut Config, bound: Bound) {
    let limits =
        QueueLimits { messages_max: bound.messages_max, bytes_max: 64 << 20, overflow: bound.overflow };
    let rule = |filter: &str, limits: QueueLimits| QueueBound {
        filter: Some(TopicFilter::parse(filter).unwrap()),
        client: None,
        user: None,
        limits,
    };
    config.queue_bounds = vec![rule("s/#", config.queue), rule("$dead/#", config.queue)];
    if bound.filter == "#" {
        config.queue = limits;
    } else {
        config.queue_bounds.push(rule(bound.filter, limits));
    }
}
