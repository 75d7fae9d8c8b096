//! The open batch: what the next commit will hold.

use std::sync::Arc;

use super::{
    format::{Claims, put_marks, put_message, put_message_part, put_record},
    frame::BODY_BYTES_MAX,
    record::{Marks, Record},
    stored::{Place, Stored},
};
use crate::{
    message::{Message, SessionNo},
    time::{Timeline, Timestamp},
};

/// What an item without a body is taken to cost, for the backlog's bound.
const SMALL_BYTES: usize = 64;

/// Things to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    items: Vec<Item>,
    bytes: usize,
    /// Somebody waits for it.
    urgent: bool,
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
    pub(super) first_written: u64,
}

impl Batch {
    pub(super) fn push(&mut self, item: Item, now: Timestamp) {
        self.bytes += item.bytes();
        self.items.push(item);
        self.opened_at = Some(self.opened_at.map_or(now, |at| at.min(now)));
    }

    /// Somebody waits for what is in it; nobody does if nothing is.
    pub(super) fn mark_urgent(&mut self) {
        self.urgent = !self.items.is_empty();
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
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
                self.first_written += 1;
                self.messages.push((stored, at, self.stream.len() - at));
            }
            Item::Copy { stored, part, claims } => {
                put_message(&mut self.stream, &part, &claims);
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
            Self::Message { message, claims, .. } => message.size_bytes() + targets(claims),
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

/// The place of what stands at `offset` in the stream of a commit whose first frame is `first_frame`.
pub(super) fn place(generation: u32, first_frame: u64, offset: usize, len: usize) -> Place {
    Place {
        generation,
        frame: first_frame + (offset / BODY_BYTES_MAX) as u64,
        offset: u16::try_from(offset % BODY_BYTES_MAX).expect("a body is below 4 KiB"),
        len: u32::try_from(len).expect("an entry is below 4 GiB: a packet is at most 256 MiB"),
    }
}
