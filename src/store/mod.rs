//! The journal: what the broker must not lose.
//!
//! Everything goes into an open batch of records. A commit thread takes the batch, writes it as one *commit*, syncs,
//! raises the durable mark and wakes whoever waits; meanwhile the next batch grows. An answer to a client waits behind
//! a `Gate` that opens when the commit it depends on is durable.
//!
//! **Never does:** promise what is not synced; hold a lock while it reads or writes the disk; delete a single record.
//!
//! # Generations, and why deleting the oldest is safe
//!
//! Commits stand in *generations*, which are deleted whole, oldest first. Say a record *overrides* another when it
//! takes back part of what the other says: `Done`, `Received` and `Gone` override a message's targets; a newer retained
//! value or `RetainedCleared` an older value; `HandedOn` one of a message's targets; a session's snapshot all of that session's records before it.
//!
//! *Invariant: a record that overrides another stands after it.* Both are appended under the journal's lock, in the
//! order things happened; a compaction copy of a message is taken under the same lock and holds only the claims that
//! are left at that moment, so whatever overrides them later stands after the copy too.
//!
//! Therefore: when a generation is the oldest, everything the records in it override stands in it as well, and goes
//! with it. `Done`, `Received`, `Released`, `Subscribed`, `Gone`, `RetainedCleared`, `HandedOn` need no copying. What is still
//! wanted of the oldest generation is (a) messages with claims left, which are copied, and (b) sessions whose latest
//! snapshot it holds, which are asked for a new one; records of such a session that are neither in that new snapshot
//! nor after it do not exist, because the snapshot is taken under the session's lock. Before the deletion every record
//! appended until then is durable: a claim that was dropped in memory was dropped by a record that survives.
//!
//! # Locks
//!
//! A session's lock (the broker's), then the journal's (`state`), then a message's. The commit thread holds `committer`
//! before all of them, and asks for snapshots holding no other. Nothing is woken under a lock.

mod aside;
mod batch;
mod commit;
mod compact;
mod compress;
mod config;
mod ebb;
mod error;
mod export;
mod format;
mod frame;
mod frame_cache;
mod gate;
mod hand_on;
mod hold;
mod intake;
mod journal;
mod key;
mod key_check;
mod ledger;
mod lock;
pub mod medium;
mod offline;
mod packing;
mod probe;
mod read;
mod record;
mod recover;
mod rekey;
mod replay;
mod rewrite;
mod seal;
mod slab;
mod space;
mod spare;
mod state;
mod stats;
mod stored;
mod swap;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub use self::{
    aside::Aside,
    commit::Step,
    compact::SnapshotSource,
    config::{Compression, Config, Durability},
    error::OpenError,
    export::{Exported, ImportError, Imported, export, import},
    gate::{CommitNo, Gate},
    hand_on::Claim,
    journal::Journal,
    key::{KeyError, KeySource, NotAKey, StoreKey},
    offline::{Offline, Progress},
    probe::SyncLatency,
    record::{Completion, HandedOn, Record, SessionRecord, Snapshot, SubscriptionRecord, Target, WillRecord},
    recover::{Recovered, RecoveredRetained, RecoveredSession},
    rekey::{RekeyError, Rekeyed, rekey},
    rewrite::{RewriteError, Rewritten, compact},
    slab::Parked,
    state::{LAZY_INTERVAL, Urgency},
    stats::Stats,
    stored::Stored,
};
