//! The open batch: what the next commit will hold.
//!
//! Things are put into it as the bytes that they will be on disk, by whoever has them at hand; the commit thread finds them
//! in order, and adds the head. Only what is large is written out by the commit thread, since the journal is locked meanwhile.

use std::{sync::Arc, time::Duration};

use super::{
    format::{Claims, put_copy, put_marks, put_message, put_record},
    record::{Marks, Record, SessionRecord, Target},
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
const GATHERED_ITEMS: u64 = 64;
const GATHERED_BYTES: usize = 64 << 10;

/// One that would take more than this is not written out while the journal is locked.
const AT_ONCE_BYTES_MAX: usize = 4 << 10;

/// The most that the head of a stream takes: the time line, and the marks, which are a kind, a length and four numbers.
const HEAD_BYTES_MAX: usize = TIMELINE_BYTES + 2 + 4 * 10;

/// Buffers larger than this are not kept for the batch after next. What 4,000 small messages take.
const KEPT_BYTES_MAX: usize = 512 << 10;

/// Things to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Entries,
    /// The large ones, and before what in the entries' buffer they belong.
    late: Vec<(usize, Item)>,
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

/// Entries of a stream as bytes, and where they stand: offsets in the buffer, which begins with room for the head.
#[derive(Debug, Default)]
struct Entries {
    buffer: Vec<u8>,
    /// Offset and length of each message.
    messages: Vec<(Arc<Stored>, usize, usize)>,
    /// The same of each snapshot.
    snapshots: Vec<(SessionNo, usize, usize)>,
    counts: Counts,
}

/// What is in a commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) payload_bytes: u64,
    /// Topic, payload and properties of the messages written for the first time.
    pub(super) kept_bytes: u64,
    pub(super) first_written: u64,
}

/// A batch as the stream of a commit.
#[derive(Debug)]
pub(super) struct Encoded {
    entries: Entries,
    /// Where in the buffer the stream begins.
    start: usize,
}

impl Batch {
    pub(super) fn push(&mut self, item: Item, now: Timestamp) {
        let bytes = item.bytes();
        if bytes > AT_ONCE_BYTES_MAX {
            self.late.push((self.entries.begin(), item));
        } else {
            self.entries.put(item);
        }
        self.pushed(bytes, now);
    }

    /// A message for the first time, with these targets and their indices.
    pub(super) fn push_message<'t>(
        &mut self,
        stored: &Arc<Stored>,
        message: &Arc<Message>,
        retained: Option<u64>,
        targets: impl Iterator<Item = (u32, &'t Target)> + Clone,
        now: Timestamp,
    ) {
        let bytes = message.size_bytes() + targets_bytes(targets.clone().count());
        if bytes > AT_ONCE_BYTES_MAX {
            let targets = targets.map(|(index, target)| (index, target.clone())).collect();
            let (stored, message) = (Arc::clone(stored), Arc::clone(message));
            self.push(Item::Message { stored, message, claims: Claims { retained, targets } }, now);
        } else {
            self.entries.put_message(Arc::clone(stored), message, retained, targets);
            self.pushed(bytes, now);
        }
    }

    fn pushed(&mut self, bytes: usize, now: Timestamp) {
        self.bytes += bytes;
        self.opened_at = Some(self.opened_at.map_or(now, |at| at.min(now)));
    }

    /// Somebody waits for what is in it; nobody does if nothing is.
    pub(super) fn mark_urgent(&mut self, now: Timestamp) {
        if !self.is_empty() {
            self.urgent_since = Some(self.urgent_since.map_or(now, |since| since.min(now)));
        }
    }

    /// It is wanted now, not when it is worth a commit.
    pub(super) fn hurry(&mut self) {
        self.hurried = !self.is_empty();
    }

    /// When it is to be committed for those who wait for it, if gathering may take as long as `interval_max`. A batch
    /// that has many in it already, or is hurried, gathers no longer.
    pub(super) fn urgent_deadline(&self, interval_max: Duration) -> Option<Timestamp> {
        let items = self.entries.counts.records + self.late.len() as u64;
        let grown = items >= GATHERED_ITEMS || self.bytes >= GATHERED_BYTES;
        match self.urgent_since {
            _ if self.hurried => Some(Timestamp::default()),
            Some(since) if grown => Some(since),
            Some(since) => Some(since.after(interval_max)),
            None => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.opened_at.is_none()
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
        let mut entries = if self.late.is_empty() { self.entries } else { self.entries.with(self.late) };
        let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
        put_timeline(&mut head, timeline);
        if let Some(marks) = marks {
            put_marks(&mut head, &marks);
        }
        entries.begin();
        let start = HEAD_BYTES_MAX.checked_sub(head.len()).expect("a head is at most HEAD_BYTES_MAX");
        entries.buffer.splice(start..HEAD_BYTES_MAX, head);
        Encoded { entries, start }
    }
}

impl Entries {
    /// Sees to it that there is room for the head. Returns where the next entry begins.
    fn begin(&mut self) -> usize {
        if self.buffer.is_empty() {
            self.buffer.resize(HEAD_BYTES_MAX, 0);
        }
        self.buffer.len()
    }

    fn put(&mut self, item: Item) {
        let at = self.begin();
        match item {
            Item::Record(record) => {
                put_record(&mut self.buffer, &record);
                if let Record::Snapshot(snapshot) = &record {
                    self.snapshots.push((snapshot.record.session, at, self.buffer.len() - at));
                }
                self.counts.records += 1;
            }
            Item::Message { stored, message, claims } => {
                self.put_message(stored, &message, claims.retained, indexed(&claims.targets));
            }
            Item::Copy { stored, part, claims } => {
                put_copy(&mut self.buffer, &part, claims.retained, indexed(&claims.targets));
                self.messages.push((stored, at, self.buffer.len() - at));
                self.counts.records += 1;
            }
        }
    }

    fn put_message<'t>(
        &mut self,
        stored: Arc<Stored>,
        message: &Message,
        retained: Option<u64>,
        targets: impl Iterator<Item = (u32, &'t Target)> + Clone,
    ) {
        let at = self.begin();
        put_message(&mut self.buffer, stored.id(), message, retained, targets);
        self.messages.push((stored, at, self.buffer.len() - at));
        let counts = &mut self.counts;
        counts.records += 1;
        counts.payload_bytes += message.payload.len() as u64;
        counts.kept_bytes += message.size_bytes() as u64;
        counts.first_written += 1;
    }

    /// The same with those in their places that were left out.
    fn with(self, late: Vec<(usize, Item)>) -> Self {
        let late_bytes: usize = late.iter().map(|(_, item)| item.bytes()).sum();
        let mut all = Self { counts: self.counts, ..Self::default() };
        all.buffer.reserve(self.buffer.len() + late_bytes);
        let mut from = all.begin();
        let mut shifts = Vec::with_capacity(late.len());
        for (at, item) in late {
            all.buffer.extend_from_slice(self.buffer.get(from..at).unwrap_or_default());
            all.put(item);
            shifts.push((at, all.buffer.len() - at));
            from = at;
        }
        all.buffer.extend_from_slice(self.buffer.get(from..).unwrap_or_default());
        let moved = |at: usize| {
            let before = shifts.partition_point(|(late_at, _)| *late_at <= at);
            at + before.checked_sub(1).and_then(|last| shifts.get(last)).map_or(0, |(_, shift)| *shift)
        };
        all.messages.extend(self.messages.into_iter().map(|(stored, at, len)| (stored, moved(at), len)));
        all.snapshots.extend(self.snapshots.into_iter().map(|(session, at, len)| (session, moved(at), len)));
        // Of two of one session the later one counts.
        all.snapshots.sort_by_key(|(_, at, _)| *at);
        all
    }
}

impl Encoded {
    pub(super) fn stream(&self) -> &[u8] {
        self.entries.buffer.get(self.start..).unwrap_or_default()
    }

    pub(super) fn counts(&self) -> Counts {
        self.entries.counts
    }

    /// Takes out the messages, with their offsets in the stream and their lengths.
    pub(super) fn take_messages(&mut self) -> impl Iterator<Item = (Arc<Stored>, usize, usize)> {
        let start = self.start;
        self.entries.messages.drain(..).map(move |(stored, at, len)| (stored, at - start, len))
    }

    /// The snapshots and their lengths.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = (SessionNo, usize)> {
        self.entries.snapshots.iter().map(|(session, _, len)| (*session, *len))
    }

    /// What it was written in, for another batch.
    pub(super) fn into_empty(self) -> Batch {
        let Entries { mut buffer, mut messages, .. } = self.entries;
        buffer.clear();
        messages.clear();
        if buffer.capacity() > KEPT_BYTES_MAX {
            buffer = Vec::new();
        }
        if messages.capacity() * size_of::<(Arc<Stored>, usize, usize)>() > KEPT_BYTES_MAX {
            messages = Vec::new();
        }
        Batch { entries: Entries { buffer, messages, ..Entries::default() }, ..Batch::default() }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        let targets = |claims: &Claims| targets_bytes(claims.targets.len());
        match self {
            Self::Record(Record::Snapshot(snapshot)) => {
                SMALL_BYTES * (4 + snapshot.subscriptions.len()) + will_bytes(&snapshot.record)
            }
            Self::Record(Record::Session(record)) => SMALL_BYTES + will_bytes(record),
            Self::Record(_) => SMALL_BYTES,
            Self::Message { message, claims, .. } => message.size_bytes() + targets(claims),
            Self::Copy { part, claims, .. } => part.len() + targets(claims),
        }
    }
}

fn will_bytes(record: &SessionRecord) -> usize {
    record.will.as_ref().map_or(0, |will| will.message.size_bytes())
}

fn targets_bytes(count: usize) -> usize {
    SMALL_BYTES + 12 * count
}

fn indexed(targets: &[(u32, Target)]) -> impl Iterator<Item = (u32, &Target)> + Clone {
    targets.iter().map(|(index, target)| (*index, target))
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::{AT_ONCE_BYTES_MAX, Batch, Claims, Entries, Item, KEPT_BYTES_MAX};
    use crate::{
        message::{Seq, SessionNo},
        store::{
            record::{Marks, Record, Snapshot, WillRecord},
            stored::Stored,
            tests::{message, session, snapshot, subscription},
        },
        time::{Timeline, Timestamp},
        topic::Label,
    };

    fn kept(id: u64, payload_bytes: usize) -> Item {
        let message = Arc::new(message("a/b", &vec![b'x'; payload_bytes]));
        let stored = Arc::new(Stored::new(id, Arc::clone(&message), Label::default()));
        Item::Message { stored, message, claims: Claims::default() }
    }

    fn items() -> Vec<Item> {
        let done = |seq| Item::Record(Record::Done(session(1), Seq(seq)));
        let large = 2 * AT_ONCE_BYTES_MAX;
        let sizes = [(1, large), (2, large), (3, 10), (4, 200), (5, large), (6, 10), (7, large)];
        let mut items: Vec<Item> = sizes.into_iter().map(|(id, bytes)| kept(id, bytes)).collect();
        items.insert(3, done(8));
        items.insert(6, done(9));
        items
    }

    fn places(batch: Batch, marks: Option<Marks>) -> (Vec<u8>, Vec<(u64, usize, usize)>, u64) {
        let mut encoded = batch.encode(Timeline::default(), marks);
        let messages =
            encoded.take_messages().map(|(stored, offset, len)| (stored.id(), offset, len)).collect();
        (encoded.stream().to_vec(), messages, encoded.counts().records)
    }

    #[test]
    fn what_is_large_is_written_late_and_stands_where_it_came() {
        let mut batch = Batch::default();
        for item in items() {
            batch.push(item, Timestamp(1));
        }
        assert_eq!(batch.late.len(), 4);
        let mut in_order = Entries::default();
        for item in items() {
            in_order.put(item);
        }
        let in_order = Batch { entries: in_order, ..Batch::default() };
        let marks = Marks { session: u64::MAX, message: u64::MAX, retained_version: u64::MAX, run: u32::MAX };
        let (stream, mut messages, records) = places(batch, Some(marks));
        let expected = places(in_order, Some(marks));
        // In the books only the place counts.
        messages.sort_unstable();
        assert_eq!((stream, messages, records), expected);
    }

    #[test]
    fn a_session_with_a_large_will_is_written_late() {
        let mut record = snapshot(1).record;
        record.will = Some(Box::new(WillRecord {
            message: message("will", &[b'x'; AT_ONCE_BYTES_MAX]),
            delay: Duration::ZERO,
            due_at: Timestamp::NEVER,
            expiry: None,
        }));
        for item in [
            Record::Session(Box::new(record.clone())),
            Record::Snapshot(Box::new(Snapshot { record, ..snapshot(1) })),
        ] {
            let mut batch = Batch::default();
            batch.push(Item::Record(item), Timestamp(1));
            assert_eq!(batch.late.len(), 1);
            assert!(batch.bytes() > AT_ONCE_BYTES_MAX);
        }
    }

    #[test]
    fn the_next_batch_has_the_buffers_unless_they_are_large() {
        for (count, is_kept) in [(10, true), (2 * KEPT_BYTES_MAX as u64 / 1_000, false)] {
            let mut batch = Batch::default();
            (0..count).for_each(|id| batch.push(kept(id, 1_000), Timestamp(1)));
            let mut encoded = batch.encode(Timeline::default(), None);
            drop(encoded.take_messages());
            let next = encoded.into_empty();
            assert_eq!(
                (next.entries.buffer.capacity() > 0, next.is_empty(), next.bytes()),
                (is_kept, true, 0)
            );
            let (stream, messages, records) = places(next, None);
            assert_eq!((stream.len(), messages.len(), records), (super::TIMELINE_BYTES, 0, 0));
        }
    }

    #[test]
    fn of_two_snapshots_of_a_session_the_later_one_stays_behind() {
        let mut large = snapshot(1);
        large.subscriptions = (0..100).map(|no| subscription(&format!("a/{no}"))).collect();
        let small = || Item::Record(Record::Snapshot(Box::new(snapshot(1))));
        for is_large_first in [true, false] {
            let large = Item::Record(Record::Snapshot(Box::new(large.clone())));
            let mut batch = Batch::default();
            let both = if is_large_first { [large, small()] } else { [small(), large] };
            for item in both {
                batch.push(item, Timestamp(1));
            }
            assert_eq!(batch.late.len(), 1);
            let encoded = batch.encode(Timeline::default(), None);
            let lens: Vec<(SessionNo, usize)> = encoded.snapshots().collect();
            assert_eq!(lens.len(), 2);
            assert_eq!(lens[0].1 > lens[1].1, is_large_first);
        }
    }
}
