//! Messages as bytes.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{
        record::Target,
        wire::{Reader, put_bytes, put_str, put_varint},
    },
    Claims, StoredMessage, put_session_no, read_session_no,
};
use crate::{
    codec::QoS,
    message::{Delivery, Message, MessageProperties, Seq},
    time::Timestamp,
    topic::{TopicFilter, TopicName},
};

const RETAIN: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const PROPERTIES: u8 = 1 << 4;
const MESSAGE_FLAGS: u8 = 0b1_1111;

const SUBSCRIPTION_IDS: u8 = 1 << 3;
const GROUP: u8 = 1 << 4;
const TARGET_FLAGS: u8 = 0b1_1111;

const UTF8_GIVEN: u8 = 1;
const UTF8: u8 = 1 << 1;
const RESPONSE_TOPIC: u8 = 1 << 2;
const CORRELATION_DATA: u8 = 1 << 3;
const CONTENT_TYPE: u8 = 1 << 4;
const PROPERTY_FLAGS: u8 = 0b1_1111;

/// What stands before a message's claims, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct MessageHead {
    pub(in crate::store) id: u64,
}

/// Appends what never changes about a message: its id and itself.
pub(super) fn put_part(out: &mut Vec<u8>, id: u64, message: &Message) {
    put_varint(out, id);
    put_body(out, message);
}

/// Appends a message without an id.
pub(super) fn put_body(out: &mut Vec<u8>, message: &Message) {
    let expires = message.expires_at != Timestamp::NEVER;
    out.push(
        message.qos as u8
            | if message.retain { RETAIN } else { 0 }
            | if expires { EXPIRES } else { 0 }
            | if message.properties.is_some() { PROPERTIES } else { 0 },
    );
    if expires {
        put_varint(out, message.expires_at.0);
    }
    put_str(out, message.topic.as_str());
    put_bytes(out, &message.payload);
    if let Some(properties) = &message.properties {
        put_properties(out, properties);
    }
}

/// Reads what `put_body` wrote. `before` may have its topic.
pub(super) fn read_body(reader: &mut Reader<'_>, before: Option<&TopicName>) -> Option<Message> {
    let flags = reader.byte()?;
    if flags & !MESSAGE_FLAGS != 0 {
        return None;
    }
    Some(Message {
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        expires_at: if flags & EXPIRES == 0 { Timestamp::NEVER } else { Timestamp(reader.varint()?) },
        topic: read_topic(reader, before)?,
        payload: Bytes::copy_from_slice(reader.bytes()?),
        properties: if flags & PROPERTIES == 0 { None } else { Some(Box::new(read_properties(reader)?)) },
    })
}

fn read_topic(reader: &mut Reader<'_>, before: Option<&TopicName>) -> Option<TopicName> {
    let bytes = reader.bytes()?;
    if let Some(before) = before.filter(|before| before.as_str().as_bytes() == bytes) {
        return Some(before.clone());
    }
    TopicName::parse(std::str::from_utf8(bytes).ok()?).ok()
}

/// Passes over what `put_body` wrote, without a look at the topic, which was looked at before it was written.
fn skip_body(reader: &mut Reader<'_>) -> Option<()> {
    let flags = reader.byte()?;
    if flags & !MESSAGE_FLAGS != 0 {
        return None;
    }
    qos(flags)?;
    if flags & EXPIRES != 0 {
        reader.varint()?;
    }
    let (_topic, _payload) = (reader.bytes()?, reader.bytes()?);
    if flags & PROPERTIES != 0 {
        read_properties(reader)?;
    }
    Some(())
}

/// Reads a message entry's body.
pub(super) fn read_message(reader: &mut Reader<'_>) -> Option<StoredMessage> {
    Some(StoredMessage {
        id: reader.varint()?,
        message: read_body(reader, None)?,
        claims: read_claims(reader)?,
    })
}

/// Splits a message entry's body into its unchanging part and its claims.
pub(super) fn split(body: &[u8]) -> Option<(MessageHead, &[u8], Claims)> {
    let mut reader = Reader::new(body);
    let id = reader.varint()?;
    skip_body(&mut reader)?;
    let part = body.get(..body.len() - reader.remaining())?;
    let claims = read_claims(&mut reader)?;
    reader.is_empty().then_some((MessageHead { id }, part, claims))
}

/// Appends the claims: the retained version plus one or zero, then the targets.
pub(super) fn put_claims<'t>(
    out: &mut Vec<u8>,
    retained: Option<u64>,
    targets: impl Iterator<Item = (u32, &'t Target)> + Clone,
) {
    match retained {
        None => out.push(0),
        Some(version) => {
            out.push(1);
            put_varint(out, version);
        }
    }
    put_varint(out, targets.clone().count() as u64);
    for (index, target) in targets {
        put_varint(out, u64::from(index));
        put_target(out, target);
    }
}

/// Appends a target without its index.
pub(super) fn put_target(out: &mut Vec<u8>, target: &Target) {
    put_session_no(out, target.session);
    put_varint(out, target.seq.0);
    let ids = &target.delivery.subscription_ids;
    out.push(
        target.delivery.qos as u8
            | if target.delivery.retain { RETAIN } else { 0 }
            | if ids.is_empty() { 0 } else { SUBSCRIPTION_IDS }
            | if target.group.is_some() { GROUP } else { 0 },
    );
    if !ids.is_empty() {
        put_varint(out, ids.len() as u64);
        for id in ids {
            put_varint(out, u64::from(*id));
        }
    }
    if let Some(group) = &target.group {
        put_str(out, group.as_str());
    }
}

/// Reads what `put_target` wrote.
pub(super) fn read_target(reader: &mut Reader<'_>) -> Option<Target> {
    let session = read_session_no(reader)?;
    let seq = Seq(reader.varint()?);
    let flags = reader.byte()?;
    if flags & !TARGET_FLAGS != 0 {
        return None;
    }
    let subscription_ids =
        if flags & SUBSCRIPTION_IDS == 0 { Vec::new() } else { reader.many(Reader::varint_u32)? };
    let group = if flags & GROUP == 0 { None } else { Some(TopicFilter::parse(reader.str()?).ok()?) };
    let delivery = Delivery { qos: qos(flags)?, retain: flags & RETAIN != 0, subscription_ids };
    Some(Target { session, seq, delivery, group })
}

fn read_claims(reader: &mut Reader<'_>) -> Option<Claims> {
    let retained = match reader.byte()? {
        0 => None,
        1 => Some(reader.varint()?),
        _ => return None,
    };
    let targets = reader.many(|reader| Some((reader.varint_u32()?, read_target(reader)?)))?;
    Some(Claims { retained, targets })
}

fn put_properties(out: &mut Vec<u8>, p: &MessageProperties) {
    let flag = |given: bool, flag: u8| if given { flag } else { 0 };
    out.push(
        flag(p.payload_is_utf8.is_some(), UTF8_GIVEN)
            | flag(p.payload_is_utf8 == Some(true), UTF8)
            | flag(p.response_topic.is_some(), RESPONSE_TOPIC)
            | flag(p.correlation_data.is_some(), CORRELATION_DATA)
            | flag(p.content_type.is_some(), CONTENT_TYPE),
    );
    if let Some(topic) = &p.response_topic {
        put_str(out, topic);
    }
    if let Some(data) = &p.correlation_data {
        put_bytes(out, data);
    }
    if let Some(content_type) = &p.content_type {
        put_str(out, content_type);
    }
    put_varint(out, p.user.len() as u64);
    for (name, value) in &p.user {
        put_str(out, name);
        put_str(out, value);
    }
}

fn read_properties(reader: &mut Reader<'_>) -> Option<MessageProperties> {
    let flags = reader.byte()?;
    if flags & !PROPERTY_FLAGS != 0 {
        return None;
    }
    let has = |flag: u8| flags & flag != 0;
    Some(MessageProperties {
        payload_is_utf8: has(UTF8_GIVEN).then_some(has(UTF8)),
        response_topic: if has(RESPONSE_TOPIC) { Some(Arc::from(reader.str()?)) } else { None },
        correlation_data: if has(CORRELATION_DATA) {
            Some(Bytes::copy_from_slice(reader.bytes()?))
        } else {
            None
        },
        content_type: if has(CONTENT_TYPE) { Some(Arc::from(reader.str()?)) } else { None },
        user: reader.many(|reader| Some((Box::from(reader.str()?), Box::from(reader.str()?))))?,
    })
}

/// The QoS in the low two bits.
pub(super) fn qos(flags: u8) -> Option<QoS> {
    match flags & 0b11 {
        0 => Some(QoS::AtMostOnce),
        1 => Some(QoS::AtLeastOnce),
        2 => Some(QoS::ExactlyOnce),
        _ => None,
    }
}
