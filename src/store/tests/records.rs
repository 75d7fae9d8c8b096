//! Records as bytes and back, and the bytes of released format versions.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest},
};

use super::{key, message, plain_frames, session, snapshot, subscription, target};
use crate::{
    codec::{PacketId, QoS, RetainHandling, SubscribeOptions},
    message::{Delivery, Message, MessageProperties, Seq, SessionNo},
    store::{
        HandedOn, Record, SessionRecord, Snapshot, SubscriptionRecord, Target, WillRecord,
        batch::TIMELINE_BYTES,
        format::{
            Claims, Entry, StoredMessage, put_copy, put_marks, put_message, put_record, read_body_of,
            read_entry, split_message,
        },
        frame,
        packing::{CommitHead, Packing},
        record::Marks,
        replay::Replay,
        seal::SEAL_BYTES,
    },
    time::Timestamp,
    topic::{TopicFilter, TopicName},
};

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn session_no() -> impl Strategy<Value = SessionNo> {
    (1..=u64::MAX).prop_map(session)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-zé/ ]{1,20}".prop_map(Arc::from)
}

fn topic() -> impl Strategy<Value = TopicName> {
    text().prop_map(|t| TopicName::parse(&t).unwrap())
}

fn properties() -> impl Strategy<Value = MessageProperties> {
    let user = vec((text(), text()), 0..3);
    (option::of(any::<bool>()), option::of(text()), option::of(bytes()), option::of(text()), user).prop_map(
        |(payload_is_utf8, response_topic, correlation_data, content_type, user)| MessageProperties {
            payload_is_utf8,
            response_topic,
            correlation_data,
            content_type,
            user: user.into_iter().map(|(k, v)| (k.as_ref().into(), v.as_ref().into())).collect(),
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let rest = (qos(), any::<bool>(), any::<u64>(), option::of(properties().prop_map(Box::new)));
    (topic(), bytes(), rest).prop_map(|(topic, payload, (qos, retain, expires, properties))| Message {
        topic,
        payload,
        qos,
        retain,
        expires_at: Timestamp(expires),
        properties,
    })
}

fn any_target() -> impl Strategy<Value = Target> {
    let delivery = (qos(), any::<bool>(), vec(any::<u32>(), 0..3));
    let group = option::of("[a-z]{1,8}");
    (session_no(), any::<u64>(), delivery, group).prop_map(
        |(session, seq, (qos, retain, subscription_ids), group)| Target {
            session,
            seq: Seq(seq),
            delivery: Delivery { qos, retain, subscription_ids },
            group: group.map(|name| TopicFilter::parse(&format!("$share/{name}/a/#")).unwrap()),
        },
    )
}

fn any_subscription() -> impl Strategy<Value = SubscriptionRecord> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    (text(), qos(), any::<bool>(), any::<bool>(), handling, option::of(any::<u32>())).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling, subscription_id)| SubscriptionRecord {
            filter: TopicFilter::parse(&filter).unwrap(),
            options: SubscribeOptions { qos, no_local, retain_as_published, retain_handling },
            subscription_id,
        },
    )
}

fn any_session() -> impl Strategy<Value = SessionRecord> {
    let will = (any_message(), any::<u32>(), any::<u64>(), option::of(any::<u32>())).prop_map(
        |(message, delay, due, expiry)| WillRecord {
            message,
            delay: Duration::from_secs(u64::from(delay)),
            due_at: Timestamp(due),
            expiry,
        },
    );
    let sent_below = prop_oneof![Just(Seq(0)), any::<u64>().prop_map(Seq), Just(Seq::MAX)];
    let window = (any::<u16>(), sent_below);
    let rest = (any::<u64>(), window, any::<u64>(), option::of(will), option::of(text()));
    (session_no(), text(), any::<u32>(), rest).prop_map(
        |(session, client_id, expiry, (expires, (inflight_max, sent_below), seq, will, user_name))| {
            SessionRecord {
                session,
                client_id,
                expiry: Duration::from_secs(u64::from(expiry)),
                expires_at: Timestamp(expires),
                inflight_max,
                sent_below,
                seq_reserved: Seq(seq),
                will: will.map(Box::new),
                user_name,
            }
        },
    )
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let received = vec(any::<u64>().prop_map(Seq), 0..4);
    (any_session(), vec(any_subscription(), 0..4), vec(packet_id(), 0..4), received).prop_map(
        |(record, subscriptions, inbound_qos2, received)| Snapshot {
            record,
            subscriptions,
            inbound_qos2,
            received,
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let numbers = || (session_no(), any::<u64>().prop_map(Seq));
    let ids = || (session_no(), packet_id());
    prop_oneof![
        any_snapshot().prop_map(|s| Record::Snapshot(Box::new(s))),
        any_session().prop_map(|s| Record::Session(Box::new(s))),
        session_no().prop_map(Record::Gone),
        (session_no(), any_subscription()).prop_map(|(s, sub)| Record::Subscribed(s, sub)),
        (session_no(), any_subscription()).prop_map(|(s, sub)| Record::Unsubscribed(s, sub.filter)),
        ids().prop_map(|(s, id)| Record::InboundQos2(s, id)),
        ids().prop_map(|(s, id)| Record::Released(s, id)),
        numbers().prop_map(|(s, seq)| Record::Received(s, seq)),
        numbers().prop_map(|(s, seq)| Record::Done(s, seq)),
        (topic(), any::<u64>()).prop_map(|(t, version)| Record::RetainedCleared(t, version)),
        (session_no(), any::<u64>(), any_target()).prop_map(|(session, seq, to)| {
            Record::HandedOn(Box::new(HandedOn { session, seq: Seq(seq), to }))
        }),
    ]
}

proptest! {
    #[test]
    fn records_come_back(record in any_record(), after in bytes()) {
        let mut out = Vec::new();
        put_record(&mut out, &record);
        let len = out.len();
        out.extend_from_slice(&after);
        prop_assert_eq!(read_entry(&out), Some((Entry::Record(record), len)));
        for cut in 0..len {
            prop_assert_eq!(read_entry(&out[..cut]), None);
        }
    }

    #[test]
    fn messages_come_back_whole_and_in_parts(
        id in any::<u64>(), message in any_message(), retained in option::of(any::<u64>()),
        targets in vec((any::<u32>(), any_target()), 0..4),
    ) {
        let claims = Claims { retained, targets };
        let (mut out, mut copy) = (Vec::new(), Vec::new());
        put_message(&mut out, id, &message, claims.retained, indexed(&claims));
        let (head, part, same_claims) = split_message(&out).unwrap();
        prop_assert_eq!((head.id, &same_claims), (id, &claims));
        put_copy(&mut copy, part, claims.retained, indexed(&claims));
        prop_assert_eq!(&copy, &out);
        // With the topic of the message before it at hand, be it the same or not.
        let other = TopicName::parse("another/one").unwrap();
        for before in [None, Some(&message.topic), Some(&other)] {
            let found = read_body_of(id, &out, before);
            prop_assert_eq!(found.as_ref(), Some(&message));
        }
        prop_assert_eq!(read_body_of(id ^ 1, &out, None), None);
        let stored = StoredMessage { id, message, claims };
        prop_assert_eq!(read_entry(&out), Some((Entry::Message(Box::new(stored)), out.len())));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(kind in 0..14_u8, body in vec(any::<u8>(), 0..80)) {
        let mut entry = vec![kind, u8::try_from(body.len()).unwrap()];
        entry.extend_from_slice(&body);
        if let Some((_, len)) = read_entry(&entry) {
            prop_assert_eq!(len, entry.len());
        }
        prop_assert_eq!(split_message(&entry).is_some() && kind != 1, false);
    }
}

fn indexed(claims: &Claims) -> impl Iterator<Item = (u32, &Target)> + Clone {
    claims.targets.iter().map(|(index, target)| (*index, target))
}

/// What version 2 has that version 1 had not: two targets of a group, one of them handed on since.
fn put_groups(stream: &mut Vec<u8>) {
    let group = |no, seq, name| Target { group: Some(TopicFilter::parse(name).unwrap()), ..target(no, seq) };
    let claims = Claims {
        retained: None,
        targets: vec![(0, group(1, 20, "$share/g/b/#")), (1, group(2, 21, "$share/h/b/#"))],
    };
    put_message(stream, 21, &message("b/c", b"shared"), claims.retained, indexed(&claims));
    let handed_on = HandedOn { session: session(2), seq: Seq(21), to: group(1, 22, "$share/h/b/#") };
    put_record(stream, &Record::HandedOn(Box::new(handed_on)));
}

/// A commit with one of everything version 1 has.
fn one_of_everything() -> Vec<u8> {
    let mut full = snapshot(1);
    full.subscriptions = vec![subscription("a/+/c"), subscription("$share/g/b/#")];
    full.inbound_qos2 = vec![PacketId::new(1).unwrap(), PacketId::new(65_535).unwrap()];
    full.received = vec![Seq(3), Seq(2)];
    let message_properties = MessageProperties {
        payload_is_utf8: Some(true),
        response_topic: Some("answer/here".into()),
        correlation_data: Some(Bytes::from_static(b"\0\x01")),
        content_type: Some("text/plain".into()),
        user: vec![("k".into(), "v".into())],
    };
    let will = Message { properties: Some(Box::new(message_properties)), ..message("will", b"gone") };
    full.record.will = Some(Box::new(WillRecord {
        message: Message { expires_at: Timestamp(99), retain: true, ..will },
        delay: Duration::from_secs(5),
        due_at: Timestamp::NEVER,
        expiry: Some(60),
    }));
    full.record.user_name = Some("fleet".into());
    let mut stream = Vec::new();
    stream.extend_from_slice(&5_000_u64.to_le_bytes());
    stream.extend_from_slice(&1_800_000_000_000_u64.to_le_bytes());
    put_marks(&mut stream, &Marks { session: 9, message: 8, retained_version: 7, run: 6 });
    for record in [
        Record::Snapshot(Box::new(full)),
        Record::Session(Box::new(snapshot(2).record)),
        Record::Snapshot(Box::new(snapshot(3))),
        Record::Gone(session(3)),
        Record::Subscribed(session(1), subscription("d")),
        Record::Unsubscribed(session(1), TopicFilter::parse("a/+/c").unwrap()),
        Record::InboundQos2(session(1), PacketId::new(300).unwrap()),
        Record::Released(session(1), PacketId::new(1).unwrap()),
    ] {
        put_record(&mut stream, &record);
    }
    let mut delivery = target(1, 10).delivery;
    delivery.subscription_ids = vec![7, 300];
    let claims = Claims {
        retained: Some(12),
        targets: vec![(0, Target { delivery, ..target(1, 10) }), (1, target(1, 11)), (2, target(1, 12))],
    };
    put_message(&mut stream, 20, &message("a/b/c", &[b'x'; 5_000]), claims.retained, indexed(&claims));
    put_record(&mut stream, &Record::Received(session(1), Seq(11)));
    put_record(&mut stream, &Record::Done(session(1), Seq(12)));
    put_record(&mut stream, &Record::RetainedCleared(TopicName::parse("other").unwrap(), 13));
    stream
}

/// A fixture holds a commit's frames one after the other. It is written once per format version and never changed: the
/// tests say so by comparing what it decodes to, not how it is encoded today.
fn read_fixture(version: u8) -> (usize, Replay) {
    read_frames(&fixture(version), version, &Packing::new(None))
}

fn read_frames(path: &Path, version: u8, packing: &Packing) -> (usize, Replay) {
    let bytes = fs::read(path).unwrap();
    let mut replay = Replay::default();
    replay.begin_generation(1);
    let (mut rest, mut frames) = (bytes.as_slice(), 0);
    while !rest.is_empty() {
        let (found, len) = frame::decode_prefix(rest).unwrap();
        assert_eq!(rest[3], version);
        replay.frame(found.header.frame, packing.open(1, &rest[..len]));
        rest = &rest[len..];
        frames += 1;
    }
    replay.end();
    (frames, replay)
}

pub(super) fn fixture(version: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/journal-v{version}.frames"))
}

#[test]
fn what_version_1_wrote_is_read() {
    let (frames, replay) = read_fixture(1);
    assert_eq!((frames, replay.damaged, replay.last_commit, replay.last_frame), (2, 0, 41, 1_001));
    assert_eq!(replay.timeline.at, Timestamp(5_000));
    assert_eq!(replay.marks, Marks { session: 9, message: 20, retained_version: 13, run: 6 });
    assert_eq!(replay.sessions.keys().collect::<Vec<_>>(), [&session(1)]);
    let one = &replay.sessions[&session(1)];
    assert_eq!(one.subscriptions.keys().map(TopicFilter::as_str).collect::<Vec<_>>(), ["$share/g/b/#", "d"]);
    let ids: Vec<_> = one.snapshot.inbound_qos2.iter().map(|id| id.get()).collect();
    assert_eq!(ids, [65_535, 300]);
    assert_eq!(one.snapshot.received, [Seq(3), Seq(2), Seq(11)]);
    let will = one.snapshot.record.will.as_ref().unwrap();
    assert_eq!(
        (will.delay, will.expiry, &*will.message.payload),
        (Duration::from_secs(5), Some(60), &b"gone"[..])
    );
    assert_eq!(will.message.properties.as_ref().unwrap().content_type.as_deref(), Some("text/plain"));
    let queue: Vec<_> = replay.queues[&session(1)].iter().collect();
    assert_eq!(queue.iter().map(|q| (q.seq, q.parked.target())).collect::<Vec<_>>(), [(Seq(10), 0)]);
    assert_eq!(queue[0].delivery.subscription_ids, [7, 300]);
    assert_eq!(replay.retained[&TopicName::parse("a/b/c").unwrap()], (12, Some(20)));
    assert_eq!(replay.retained[&TopicName::parse("other").unwrap()], (13, None));
    assert_eq!(replay.slab.size_bytes(replay.messages[&20]), 5_005);
}

#[test]
fn what_version_2_wrote_is_read() {
    let (frames, mut replay) = read_fixture(2);
    assert_eq!((frames, replay.damaged, replay.last_commit, replay.last_frame), (2, 0, 41, 1_001));
    let queue: BTreeMap<_, _> =
        replay.queues[&session(1)].iter().map(|q| (q.seq.0, q.parked.target())).collect();
    assert_eq!(queue, BTreeMap::from([(10, 0), (20, 0), (22, 1)]));
    let groups: Vec<_> = replay.groups[&session(1)].iter().map(|(seq, g)| (seq.0, g.as_str())).collect();
    assert_eq!(groups, [(20, "$share/g/b/#"), (22, "$share/h/b/#")]);
    assert!(replay.queues[&session(2)].is_empty());
    let handed_on = &replay.handed_on_left()[&21];
    assert_eq!((handed_on[0].0, handed_on[0].1.session, handed_on[0].1.seq), (1, session(1), Seq(22)));
}

/// The same as in version 2; only the frames are others.
#[test]
fn what_version_3_wrote_is_read() {
    let sealed = fixture(3).with_file_name("journal-v3-sealed.frames");
    for (path, packing) in [(fixture(3), Packing::new(None)), (sealed, Packing::new(Some(key('3'))))] {
        let (frames, mut replay) = read_frames(&path, 3, &packing);
        assert_eq!((frames, replay.damaged, replay.last_commit, replay.last_frame), (2, 0, 41, 1_001));
        let (_, mut before) = read_fixture(2);
        assert_eq!(
            format!("{:?}", replay.queues.get(&session(1))),
            format!("{:?}", before.queues.get(&session(1)))
        );
        assert_eq!(replay.groups, before.groups);
        assert_eq!(replay.retained, before.retained);
        assert_eq!((replay.marks, replay.timeline), (before.marks, before.timeline));
        assert_eq!(replay.handed_on_left(), before.handed_on_left());
    }
}

/// The same once more; frames may be compressed now, sealed or not.
#[test]
fn what_version_4_wrote_is_read() {
    let beside = |name: &str| fixture(4).with_file_name(name);
    let sealed = || Packing::new(Some(key('3')));
    for (path, packing) in [
        (fixture(4), Packing::new(None)),
        (beside("journal-v4-lz4.frames"), Packing::new(None)),
        (beside("journal-v4-lz4-sealed.frames"), sealed()),
    ] {
        let (frames, mut replay) = read_frames(&path, 4, &packing);
        // 5,000 bytes of one message are all alike.
        let wanted = if path == fixture(4) { 2 } else { 1 };
        let last_frame = 999 + wanted as u64;
        assert_eq!(
            (frames, replay.damaged, replay.last_commit, replay.last_frame),
            (wanted, 0, 41, last_frame)
        );
        let (_, mut before) = read_fixture(2);
        let queues = |replay: &Replay| -> Vec<_> {
            replay.queues[&session(1)]
                .iter()
                .map(|q| (q.seq, q.parked.target(), q.delivery.clone()))
                .collect()
        };
        assert_eq!(queues(&replay), queues(&before));
        assert_eq!(replay.groups, before.groups);
        assert_eq!(replay.retained, before.retained);
        assert_eq!((replay.marks, replay.timeline), (before.marks, before.timeline));
        assert_eq!(replay.handed_on_left(), before.handed_on_left());
    }
}

/// Sessions may have a user name now; the rest is the same.
#[test]
fn what_version_5_wrote_is_read() {
    let (frames, replay) = read_fixture(5);
    assert_eq!((frames, replay.damaged, replay.last_commit, replay.last_frame), (2, 0, 41, 1_001));
    let (_, before) = read_fixture(4);
    assert_eq!(
        replay.sessions[&session(1)].snapshot.record,
        SessionRecord {
            user_name: Some("fleet".into()),
            ..before.sessions[&session(1)].snapshot.record.clone()
        }
    );
    assert_eq!((&replay.groups, &replay.retained), (&before.groups, &before.retained));
    assert_eq!((replay.marks, replay.timeline), (before.marks, before.timeline));
}

/// What version 6 has that version 5 had not: a session that sleeps says how far it was sent its messages.
fn put_marks_of_sleepers(stream: &mut Vec<u8>) {
    for (no, sent_below) in [(4, Seq(0)), (5, Seq(700))] {
        let mut sleeper = snapshot(no);
        sleeper.record.expires_at = Timestamp(9_000);
        sleeper.record.sent_below = sent_below;
        put_record(stream, &Record::Snapshot(Box::new(sleeper)));
    }
}

#[test]
fn what_version_6_wrote_is_read() {
    let (frames, replay) = read_fixture(6);
    assert_eq!((frames, replay.damaged, replay.last_commit, replay.last_frame), (2, 0, 41, 1_001));
    let (_, before) = read_fixture(5);
    let sent_below = |no| replay.sessions[&session(no)].snapshot.record.sent_below;
    assert_eq!([1, 4, 5].map(sent_below), [Seq::MAX, Seq(0), Seq(700)]);
    let record = |replay: &Replay| replay.sessions[&session(1)].snapshot.record.clone();
    assert_eq!(record(&replay), record(&before));
    assert_eq!((&replay.groups, &replay.retained), (&before.groups, &before.retained));
    assert_eq!((replay.marks, replay.timeline), (before.marks, before.timeline));
}

/// A device that comes, gets nothing and sleeps costs no byte more for it.
#[test]
fn only_what_is_on_the_way_is_written_of_a_sleeper() {
    let bytes = |sent_below| {
        let mut out = Vec::new();
        put_record(&mut out, &Record::Session(Box::new(SessionRecord { sent_below, ..snapshot(1).record })));
        out.len()
    };
    assert_eq!(bytes(Seq(0)), bytes(Seq::MAX));
    assert_eq!(bytes(Seq(8_000)), bytes(Seq(0)) + 2);
}

/// The encoder of today still writes version 6 to the byte; when it no longer does, the version must change.
#[test]
fn version_6_is_what_is_written() {
    let mut stream = one_of_everything();
    put_groups(&mut stream);
    put_marks_of_sleepers(&mut stream);
    assert!(stream.len() > TIMELINE_BYTES);
    let frames = plain_frames(6, 41, 1_000, &stream);
    let bytes: Vec<u8> = frames.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(bytes, fs::read(fixture(6)).unwrap());
    // A seal is never the same twice.
    let packing = Packing::new(Some(key('3')));
    let head = CommitHead { run: 6, commit: 41, generation: 1, first_frame: 1_000 };
    let sealed: Vec<u8> =
        packing.cut(head, &stream).unwrap().frames.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(sealed.len(), bytes.len() + 2 * SEAL_BYTES);
}
