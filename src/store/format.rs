//! Records as bytes (`docs/store-format.md`).
//!
//! A commit is a stream of entries. An entry is a kind byte, the length of its body as a varint, and the body. A
//! message's body has its unchanging part first and its targets last, so compaction copies the first part untouched.

mod message;
mod session;

use std::num::NonZeroU64;

use super::{
    record::{HandedOn, Marks, Record, Target},
    wire::{Reader, put_str, put_varint},
};
use crate::{
    codec::PacketId,
    message::{Message, Seq, SessionNo},
    topic::{TopicFilter, TopicName},
};

pub(super) use message::MessageHead;

const MESSAGE: u8 = 1;
const MARKS: u8 = 2;
const SNAPSHOT: u8 = 3;
const SESSION: u8 = 4;
const GONE: u8 = 5;
const SUBSCRIBED: u8 = 6;
const UNSUBSCRIBED: u8 = 7;
const INBOUND_QOS2: u8 = 8;
const RELEASED: u8 = 9;
const RECEIVED: u8 = 10;
const DONE: u8 = 11;
const RETAINED_CLEARED: u8 = 12;
const HANDED_ON: u8 = 13;

/// A message's claims: who must still get it, and whether it is its topic's retained value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims {
    /// The retained version, if it is the retained value.
    pub(super) retained: Option<u64>,
    /// The targets with their indices, which stay the same in every copy.
    pub(super) targets: Vec<(u32, Target)>,
}

/// A message as it stands in the journal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredMessage {
    pub(super) id: u64,
    pub(super) message: Message,
    pub(super) claims: Claims,
}

/// One entry of a commit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Message(Box<StoredMessage>),
    Marks(Marks),
    Record(Record),
}

/// Appends a message with its claims: the retained version, if it is the retained value, and the targets with their indices.
pub(super) fn put_message<'t>(
    out: &mut Vec<u8>,
    id: u64,
    message: &Message,
    retained: Option<u64>,
    targets: impl Iterator<Item = (u32, &'t Target)> + Clone,
) {
    put_entry(out, MESSAGE, |out| {
        message::put_part(out, id, message);
        message::put_claims(out, retained, targets);
    });
}

/// Appends a copy of a message. `part` is its unchanging part, as `split_message` found it.
pub(super) fn put_copy<'t>(
    out: &mut Vec<u8>,
    part: &[u8],
    retained: Option<u64>,
    targets: impl Iterator<Item = (u32, &'t Target)> + Clone,
) {
    put_entry(out, MESSAGE, |out| {
        out.extend_from_slice(part);
        message::put_claims(out, retained, targets);
    });
}

/// Appends the marks.
pub(super) fn put_marks(out: &mut Vec<u8>, marks: &Marks) {
    put_entry(out, MARKS, |out| {
        put_varint(out, marks.session);
        put_varint(out, marks.message);
        put_varint(out, marks.retained_version);
        put_varint(out, u64::from(marks.run));
    });
}

/// Appends a record.
pub(super) fn put_record(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Snapshot(s) => put_entry(out, SNAPSHOT, |out| session::put_snapshot(out, s)),
        Record::Session(r) => put_entry(out, SESSION, |out| session::put_session(out, r)),
        Record::Gone(s) => put_entry(out, GONE, |out| put_session_no(out, *s)),
        Record::Subscribed(s, subscription) => put_entry(out, SUBSCRIBED, |out| {
            put_session_no(out, *s);
            session::put_subscription(out, subscription);
        }),
        Record::Unsubscribed(s, filter) => put_entry(out, UNSUBSCRIBED, |out| {
            put_session_no(out, *s);
            put_str(out, filter.as_str());
        }),
        Record::InboundQos2(s, id) => put_numbers(out, INBOUND_QOS2, *s, u64::from(id.get())),
        Record::Released(s, id) => put_numbers(out, RELEASED, *s, u64::from(id.get())),
        Record::Received(s, seq) => put_numbers(out, RECEIVED, *s, seq.0),
        Record::Done(s, seq) => put_numbers(out, DONE, *s, seq.0),
        Record::RetainedCleared(topic, version) => put_entry(out, RETAINED_CLEARED, |out| {
            put_str(out, topic.as_str());
            put_varint(out, *version);
        }),
        Record::HandedOn(h) => put_entry(out, HANDED_ON, |out| {
            put_session_no(out, h.session);
            put_varint(out, h.seq.0);
            message::put_target(out, &h.to);
        }),
    }
}

/// Reads the next entry and how many bytes it takes; `None` when the bytes are not one.
pub(super) fn read_entry(bytes: &[u8]) -> Option<(Entry, usize)> {
    let mut reader = Reader::new(bytes);
    let kind = reader.byte()?;
    let mut body = Reader::new(reader.bytes()?);
    let entry = match kind {
        MESSAGE => Entry::Message(Box::new(message::read_message(&mut body)?)),
        MARKS => Entry::Marks(Marks {
            session: body.varint()?,
            message: body.varint()?,
            retained_version: body.varint()?,
            run: body.varint_u32()?,
        }),
        _ => Entry::Record(read_record(kind, &mut body)?),
    };
    body.is_empty().then(|| (entry, bytes.len() - reader.remaining()))
}

/// Splits a message entry into the part a copy takes as it is and the claims.
pub(super) fn split_message(bytes: &[u8]) -> Option<(MessageHead, &[u8], Claims)> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != MESSAGE {
        return None;
    }
    message::split(reader.bytes()?)
}

/// The message of a message entry, without its claims; `None` if it has another id. `before` may have its topic.
pub(super) fn read_body_of(id: u64, bytes: &[u8], before: Option<&TopicName>) -> Option<Message> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != MESSAGE {
        return None;
    }
    let mut body = Reader::new(reader.bytes()?);
    if body.varint()? != id {
        return None;
    }
    message::read_body(&mut body, before)
}

fn read_record(kind: u8, body: &mut Reader<'_>) -> Option<Record> {
    Some(match kind {
        SNAPSHOT => Record::Snapshot(Box::new(session::read_snapshot(body)?)),
        SESSION => Record::Session(Box::new(session::read_session(body)?)),
        GONE => Record::Gone(read_session_no(body)?),
        SUBSCRIBED => Record::Subscribed(read_session_no(body)?, session::read_subscription(body)?),
        UNSUBSCRIBED => Record::Unsubscribed(read_session_no(body)?, TopicFilter::parse(body.str()?).ok()?),
        INBOUND_QOS2 => Record::InboundQos2(read_session_no(body)?, read_packet_id(body)?),
        RELEASED => Record::Released(read_session_no(body)?, read_packet_id(body)?),
        RECEIVED => Record::Received(read_session_no(body)?, Seq(body.varint()?)),
        DONE => Record::Done(read_session_no(body)?, Seq(body.varint()?)),
        HANDED_ON => Record::HandedOn(Box::new(HandedOn {
            session: read_session_no(body)?,
            seq: Seq(body.varint()?),
            to: message::read_target(body)?,
        })),
        RETAINED_CLEARED => Record::RetainedCleared(TopicName::parse(body.str()?).ok()?, body.varint()?),
        _ => return None,
    })
}

/// Appends an entry: its kind, the length of its body and the body.
fn put_entry(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let begin = out.len();
    body(out);
    let end = out.len();
    put_varint(out, (end - begin) as u64);
    let length_bytes = out.len() - end;
    // The length is known last and stands first.
    if let Some(entry) = out.get_mut(begin..) {
        entry.rotate_right(length_bytes);
    }
}

/// The common small record.
fn put_numbers(out: &mut Vec<u8>, kind: u8, session: SessionNo, n: u64) {
    put_entry(out, kind, |out| {
        put_session_no(out, session);
        put_varint(out, n);
    });
}

fn put_session_no(out: &mut Vec<u8>, session: SessionNo) {
    put_varint(out, session.0.get());
}

fn read_session_no(reader: &mut Reader<'_>) -> Option<SessionNo> {
    NonZeroU64::new(reader.varint()?).map(SessionNo)
}

fn read_packet_id(reader: &mut Reader<'_>) -> Option<PacketId> {
    PacketId::new(u16::try_from(reader.varint()?).ok()?)
}
