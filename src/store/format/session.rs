//! Sessions as bytes.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        record::{SessionRecord, Snapshot, SubscriptionRecord, WillRecord},
        wire::{Reader, put_option, put_str, put_varint},
    },
    message::{put_body, qos, read_body},
    put_session_no, read_packet_id, read_session_no,
};
use crate::{
    codec::{RetainHandling, SubscribeOptions},
    message::Seq,
    time::Timestamp,
    topic::TopicFilter,
};

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const OPTION_FLAGS: u8 = 0b11_1111;

const HAS_WILL: u8 = 1;
const HAS_USER_NAME: u8 = 1 << 1;
const NOTHING_SENT: u8 = 1 << 2;
const HAS_SENT: u8 = 1 << 3;
const RECORD_FLAGS: u8 = HAS_WILL | HAS_USER_NAME | NOTHING_SENT | HAS_SENT;

/// Appends a session's settings.
pub(super) fn put_session(out: &mut Vec<u8>, record: &SessionRecord) {
    put_session_no(out, record.session);
    put_str(out, &record.client_id);
    put_duration(out, record.expiry);
    put_varint(out, record.expires_at.0);
    put_varint(out, u64::from(record.inflight_max));
    put_varint(out, record.seq_reserved.0);
    let has_will = if record.will.is_some() { HAS_WILL } else { 0 };
    let has_user_name = if record.user_name.is_some() { HAS_USER_NAME } else { 0 };
    let sent = match record.sent_below {
        Seq::MAX => 0,
        Seq(0) => NOTHING_SENT,
        _ => HAS_SENT,
    };
    out.push(has_will | has_user_name | sent);
    if let Some(will) = &record.will {
        put_body(out, &will.message);
        put_duration(out, will.delay);
        put_varint(out, will.due_at.0);
        put_option(out, will.expiry);
    }
    if let Some(user_name) = &record.user_name {
        put_str(out, user_name);
    }
    if sent == HAS_SENT {
        put_varint(out, record.sent_below.0);
    }
}

/// Reads what `put_session` wrote.
pub(super) fn read_session(reader: &mut Reader<'_>) -> Option<SessionRecord> {
    let mut record = SessionRecord {
        session: read_session_no(reader)?,
        client_id: Arc::from(reader.str()?),
        expiry: read_duration(reader)?,
        expires_at: Timestamp(reader.varint()?),
        inflight_max: u16::try_from(reader.varint()?).ok()?,
        sent_below: Seq::MAX,
        seq_reserved: Seq(reader.varint()?),
        will: None,
        user_name: None,
    };
    let has = reader.byte()?;
    if has & !RECORD_FLAGS != 0 {
        return None;
    }
    if has & HAS_WILL != 0 {
        record.will = Some(Box::new(WillRecord {
            message: read_body(reader, None)?,
            delay: read_duration(reader)?,
            due_at: Timestamp(reader.varint()?),
            expiry: reader.option()?,
        }));
    }
    if has & HAS_USER_NAME != 0 {
        record.user_name = Some(Arc::from(reader.str()?));
    }
    record.sent_below = match has & (NOTHING_SENT | HAS_SENT) {
        0 => Seq::MAX,
        NOTHING_SENT => Seq(0),
        HAS_SENT => Seq(reader.varint()?),
        _ => return None,
    };
    Some(record)
}

/// Appends a subscription. The options byte is the one of SUBSCRIBE (MQTT 5.0 section 3.8.3.1).
pub(super) fn put_subscription(out: &mut Vec<u8>, subscription: &SubscriptionRecord) {
    let options = subscription.options;
    put_str(out, subscription.filter.as_str());
    out.push(
        options.qos as u8
            | if options.no_local { NO_LOCAL } else { 0 }
            | if options.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
            | ((options.retain_handling as u8) << 4),
    );
    put_option(out, subscription.subscription_id);
}

/// Reads what `put_subscription` wrote.
pub(super) fn read_subscription(reader: &mut Reader<'_>) -> Option<SubscriptionRecord> {
    let filter = TopicFilter::parse(reader.str()?).ok()?;
    let flags = reader.byte()?;
    if flags & !OPTION_FLAGS != 0 {
        return None;
    }
    let options = SubscribeOptions {
        qos: qos(flags)?,
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
        retain_handling: match flags >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
    };
    Some(SubscriptionRecord { filter, options, subscription_id: reader.option()? })
}

/// Appends a snapshot.
pub(super) fn put_snapshot(out: &mut Vec<u8>, snapshot: &Snapshot) {
    put_session(out, &snapshot.record);
    put_varint(out, snapshot.subscriptions.len() as u64);
    snapshot.subscriptions.iter().for_each(|s| put_subscription(out, s));
    put_varint(out, snapshot.inbound_qos2.len() as u64);
    snapshot.inbound_qos2.iter().for_each(|id| put_varint(out, u64::from(id.get())));
    put_varint(out, snapshot.received.len() as u64);
    snapshot.received.iter().for_each(|seq| put_varint(out, seq.0));
}

/// Reads what `put_snapshot` wrote.
pub(super) fn read_snapshot(reader: &mut Reader<'_>) -> Option<Snapshot> {
    Some(Snapshot {
        record: read_session(reader)?,
        subscriptions: reader.many(read_subscription)?,
        inbound_qos2: reader.many(read_packet_id)?,
        received: reader.many(|reader| reader.varint().map(Seq))?,
    })
}

/// Whole milliseconds; what is longer than the time line is `Duration::MAX`'s share of it.
fn put_duration(out: &mut Vec<u8>, d: Duration) {
    put_varint(out, u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
}

fn read_duration(reader: &mut Reader<'_>) -> Option<Duration> {
    reader.varint().map(Duration::from_millis)
}
