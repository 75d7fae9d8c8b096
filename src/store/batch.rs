//! The open batch: what the next commit will hold.

use std::{sync::Arc, time::Duration};

use super::{
    format::{Claims, put_marks, put_message, put_message_part, put_record},
    record::{Marks, Record},
    stored::{Place, Stored},
};
use crate::{
    message::{Message, SessionNo},
    time::{Timeline, Timestamp},
};

/// What an item without a body is taken to cost, for the backlog's bound.
const SMALL_BYTES: usize = 64;

/// A batch of so many items, or so many bytes, gathers no more: what a commit costs is shared by enough, and who publishes
/// in bulk is not to wait.
const GATHERED_ITEMS: usize = 64;
const GATHERED_BYTES: usize = 64 << 10;

/// Things to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    items: Vec<Item>,
    bytes: usize,
    /// Since when somebody waits for it.
    urgent_since: Option<Timestamp>,
    /// Somebody waits who cannot go on without it.
    hurried: bool,
    opened_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) enum Item {
    Record(Record),
    /// A message for the first time.
    Message {
        stored: Arc<Stored>,
        message: Arc<Message>,
        claims: Claims,
    },
    /// A message moved by compaction; `part` is its unchanging part as it stood.
    Copy {
        stored: Arc<Stored>,
        part: Vec<u8>,
        claims: Claims,
    },
}

/// A batch as bytes, and where in them its things stand.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) stream: Vec<u8>,
    /// Offset and length of each message.
    pub(super) messages: Vec<(Arc<Stored>, usize, usize)>,
    /// Length of each snapshot.
    pub(super) snapshots: Vec<(SessionNo, usize)>,
    pub(super) records: u64,
    pub(super) payload_bytes: u64,
    /// Topic and payload of the messages written for the first time.
    pub(super) kept_bytes: u64,
    pub(super) first_written: u64,
}

impl Batch {
    pub(super) fn push(&mut self, item: Item, now: Timestamp) {
        self.bytes += item.bytes();
        self.items.push(item);
        self.opened_at = Some(self.opened_at.map_or(now, |at| at.min(now)));
    }

    /// Somebody waits for what is in it; nobody does if nothing is.
    pub(super) fn mark_urgent(&mut self, now: Timestamp) {
        if !self.items.is_empty() {
            self.urgent_since = Some(self.urgent_since.map_or(now, |since| since.min(now)));
        }
    }

    /// It is wanted now, not when it is worth a commit.
    pub(super) fn hurry(&mut self) {
        self.hurried = !self.items.is_empty();
    }

    /// When it is to be committed for those who wait for it, if gathering may take as long as `interval_max`. A batch
    /// that has many in it already, or is hurried, gathers no longer.
    pub(super) fn urgent_deadline(&self, interval_max: Duration) -> Option<Timestamp> {
        let grown = self.items.len() >= GATHERED_ITEMS || self.bytes >= GATHERED_BYTES;
        match self.urgent_since {
            _ if self.hurried => Some(Timestamp::default()),
            Some(since) if grown => Some(since),
            Some(since) => Some(since.after(interval_max)),
            None => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When its first item came; one that may wait longer counts as coming later.
    pub(super) fn opened_at(&self) -> Option<Timestamp> {
        self.opened_at
    }

    /// As the stream of a commit: the time line, the marks if they are given, the items.
    pub(super) fn encode(self, timeline: Timeline, marks: Option<Marks>) -> Encoded {
        let mut encoded = Encoded { stream: Vec::with_capacity(self.bytes + 64), ..Encoded::default() };
        put_timeline(&mut encoded.stream, timeline);
        if let Some(marks) = marks {
            put_marks(&mut encoded.stream, &marks);
        }
        let mut part = Vec::new();
        for item in self.items {
            encoded.put(item, &mut part);
        }
        encoded
    }
}

impl Encoded {
    fn put(&mut self, item: Item, part: &mut Vec<u8>) {
        let at = self.stream.len();
        self.records += 1;
        match item {
            Item::Record(record) => {
                put_record(&mut self.stream, &record);
                if let Record::Snapshot(snapshot) = &record {
                    self.snapshots.push((snapshot.record.session, self.stream.len() - at));
                }
            }
            Item::Message { stored, message, claims } => {
                part.clear();
                put_message_part(part, stored.id(), &message);
                put_message(&mut self.stream, part, &claims);
                self.payload_bytes += message.payload.len() as u64;
                self.kept_bytes += message.size_bytes() as u64;
                self.first_written += 1;
                self.messages.push((stored, at, self.stream.len() - at));
            }
            Item::Copy { stored, mut part, claims } => {
                put_message(&mut self.stream, &mut part, &claims);
                self.messages.push((stored, at, self.stream.len() - at));
            }
        }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        let targets = |claims: &Claims| SMALL_BYTES + 12 * claims.targets.len();
        match self {
            Self::Record(Record::Snapshot(snapshot)) => SMALL_BYTES * (4 + snapshot.subscriptions.len()),
            Self::Record(_) => SMALL_BYTES,
            Self::Message { message, claims, .. } => message.whole_bytes() + targets(claims),
            Self::Copy { part, claims, .. } => part.len() + targets(claims),
        }
    }
}

/// Bytes of the time line at the start of a commit's stream.
pub(super) const TIMELINE_BYTES: usize = 16;

fn put_timeline(out: &mut Vec<u8>, timeline: Timeline) {
    out.extend_from_slice(&timeline.at.0.to_le_bytes());
    out.extend_from_slice(&timeline.wall.0.to_le_bytes());
}

/// The place of what stands at `offset` in the stream of a commit whose first frame is `first_frame`, and whose frames
/// begin at `starts` in the stream.
pub(super) fn place(generation: u32, first_frame: u64, starts: &[usize], offset: usize, len: usize) -> Place {
    let before = starts.partition_point(|start| *start <= offset).saturating_sub(1);
    let start = starts.get(before).copied().unwrap_or_default();
    Place {
        generation,
        frame: first_frame + before as u64,
        offset: u16::try_from(offset - start).expect("a frame holds at most BLOCK_BYTES_MAX of the stream"),
        len: u32::try_from(len).expect("an entry is below 4 GiB: a packet is at most 256 MiB"),
    }
}
