//! Sessions against a keeper in memory whose commits the test decides.

mod bounds;
mod resting;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Acknowledged, Body, DropReason, Keeper, Link, Outbound, Overflow, QueueLimits, Session, Shelf, Terms,
    Waiting,
};
use crate::{
    codec::{Packet, PacketId, QoS, Version, decode},
    message::{Delivery, Message, Seq},
    time::Timestamp,
    topic::TopicName,
};

/// A message, whether its body is in memory, and whether it is on disk.
type Kept = Rc<(Arc<Message>, Cell<bool>, Cell<bool>)>;

/// A keeper whose gates are commit numbers: open up to `durable`.
#[derive(Default)]
struct Memory {
    written: Cell<u64>,
    durable: Cell<u64>,
    /// Messages are not on disk, so that nothing has to be written of their confirmations.
    elides: Cell<bool>,
    hurried: Cell<u32>,
    parked: RefCell<Vec<Kept>>,
    dropped: RefCell<Vec<(u64, DropReason)>>,
}

impl Memory {
    fn write(&self) -> u64 {
        self.written.set(self.written.get() + 1);
        self.written.get()
    }

    fn commit(&self) {
        self.durable.set(self.written.get());
    }
}

impl Keeper for Memory {
    type Kept = Kept;
    type Parked = usize;
    type Gate = u64;

    fn body(&self, kept: &Kept) -> Body {
        if kept.1.get() { Body::Loaded(Arc::clone(&kept.0)) } else { Body::Unloaded }
    }
    fn expires_at(&self, kept: &Kept) -> Timestamp {
        kept.0.expires_at
    }
    fn size_bytes(&self, kept: &Kept) -> usize {
        kept.0.size_bytes()
    }
    fn unload(&self, _: &Kept) {}
    fn is_parkable(&self, kept: &Kept) -> bool {
        kept.2.get()
    }
    fn park(&self, kept: Vec<Kept>) -> Vec<usize> {
        let mut parked = self.parked.borrow_mut();
        let from = parked.len();
        parked.extend(kept);
        (from..parked.len()).collect()
    }
    fn unpark(&self, parked: &[usize]) -> Vec<Kept> {
        parked.iter().map(|at| Rc::clone(&self.parked.borrow()[*at])).collect()
    }
    fn parked_bytes(&self, parked: &[usize]) -> usize {
        parked.iter().map(|at| self.parked.borrow()[*at].0.size_bytes()).sum()
    }
    fn first_to_expire(&self, parked: &[usize]) -> Option<usize> {
        let all = self.parked.borrow();
        parked.iter().position(|at| all[*at].0.expires_at != Timestamp::NEVER)
    }
    fn open_gate(&self) -> u64 {
        0
    }
    fn is_open(&self, gate: &u64) -> bool {
        *gate <= self.durable.get()
    }
    fn sent_after(&self, _: &Kept) -> u64 {
        0
    }
    fn is_untracked(&self, _: &Kept) -> bool {
        self.elides.get()
    }
    fn confirm(&self, _: Seq, _: &Kept) -> u64 {
        if self.elides.get() { self.open_gate() } else { self.write() }
    }
    fn received(&self, _: Seq, _: &Kept) -> u64 {
        self.write()
    }
    fn completed(&self, _: Seq) -> u64 {
        self.write()
    }
    fn dropped(&self, seq: Seq, _: &Kept, reason: DropReason, _: Option<&TopicName>) -> u64 {
        self.dropped.borrow_mut().push((seq.0, reason));
        self.write()
    }
    fn hurry(&self) {
        self.hurried.set(self.hurried.get() + 1);
    }
}

const NOW: Timestamp = Timestamp(1_000);
const LIMITS: QueueLimits =
    QueueLimits { messages_max: 1_000, bytes_max: 1 << 20, overflow: Overflow::DropOldest };

fn terms(receive_maximum: u16) -> Terms {
    Terms {
        version: Version::V5,
        packet_bytes_max: 1_000,
        wants_reasons: true,
        receive_maximum,
        alias_max_out: 0,
        out_bytes_max: 1 << 20,
    }
}

fn session(inflight_max: u16) -> Session<Memory> {
    Session::new(Outbound::new(Seq(0), Seq(u64::MAX), inflight_max, LIMITS))
}

fn message(payload: &str) -> Kept {
    let topic = TopicName::parse("cmd/dev1").unwrap();
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let (qos, expires_at) = (QoS::ExactlyOnce, Timestamp::NEVER);
    Rc::new((
        Arc::new(Message { topic, payload, qos, retain: false, expires_at, properties: None }),
        Cell::new(true),
        Cell::new(false),
    ))
}

fn delivery(qos: QoS) -> Delivery {
    Delivery { qos, retain: false, subscription_ids: Vec::new() }
}

/// What waited before a restart.
fn shelf(keeper: &Memory, waiting: &[(u64, &str, QoS)]) -> Shelf<usize> {
    let mut shelf = Shelf::new();
    for (seq, payload, qos) in waiting {
        let parked = keeper.park(vec![message(payload)])[0];
        shelf.insert(Seq(*seq), parked, &delivery(*qos)).unwrap();
    }
    shelf
}

impl Session<Memory> {
    fn connected(mut self, keeper: &Memory, receive_maximum: u16) -> Self {
        self.attach(keeper, Link::new(terms(receive_maximum), Vec::new(), 0));
        self
    }

    fn give(&mut self, keeper: &Memory, qos: QoS, payload: &str) -> Seq {
        self.outbound.deliver(keeper, message(payload), delivery(qos), None)
    }

    /// What leaves now, as a transcript: `PUBLISH id payload`, `PUBLISH! ...` with DUP, `PUBREL id`.
    fn sent(&mut self, keeper: &Memory) -> Vec<String> {
        self.transmit(keeper, NOW);
        let out = self.link.as_mut().map(|l| std::mem::take(&mut l.out)).unwrap_or_default();
        let (mut rest, mut lines) = (out.as_slice(), Vec::new());
        while let Some((packet, used)) = decode(rest, Version::V5, 1 << 20).unwrap() {
            lines.push(match packet {
                Packet::Publish(p) => {
                    let (mark, id) = (if p.dup { "!" } else { "" }, p.packet_id.map_or(0, PacketId::get));
                    format!("PUBLISH{mark} {id} {}", std::str::from_utf8(p.payload).unwrap())
                }
                Packet::Pubrel(ack) => format!("PUBREL {}", ack.packet_id.get()),
                other => format!("{other:?}"),
            });
            rest = &rest[used..];
        }
        lines
    }

    fn puback(&mut self, keeper: &Memory, id: u16) -> Acknowledged {
        self.outbound.handle_puback(keeper, PacketId::new(id).unwrap())
    }

    fn pubrec(&mut self, keeper: &Memory, id: u16) -> Acknowledged {
        self.outbound.handle_pubrec(keeper, PacketId::new(id).unwrap(), false)
    }

    fn pubcomp(&mut self, keeper: &Memory, id: u16) -> Acknowledged {
        self.outbound.handle_pubcomp(keeper, PacketId::new(id).unwrap())
    }
}

#[test]
fn the_window_is_counted_from_the_oldest_durable_confirmation() {
    let keeper = Memory::default();
    let mut s = session(2).connected(&keeper, 10);
    for payload in ["a", "b", "c", "d"] {
        s.give(&keeper, QoS::AtLeastOnce, payload);
    }
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a", "PUBLISH 2 b"]);
    assert_eq!(s.puback(&keeper, 1), Acknowledged::Yes);
    assert!(
        s.sent(&keeper).is_empty(),
        "the confirmation of 1 is not durable: after a crash it would count as in flight"
    );
    assert!(keeper.hurried.get() > 0, "a full window asks for a commit");
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 3 c"]);
}

#[test]
fn messages_never_written_do_not_fill_the_window_behind_one_that_was() {
    let keeper = Memory::default();
    let mut s = session(2).connected(&keeper, 10);
    for payload in ["a", "b", "c", "d"] {
        s.give(&keeper, QoS::AtLeastOnce, payload);
    }
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a", "PUBLISH 2 b"]);
    assert_eq!(s.puback(&keeper, 1), Acknowledged::Yes);
    keeper.elides.set(true);
    assert_eq!(s.puback(&keeper, 2), Acknowledged::Yes);
    assert_eq!(s.puback(&keeper, 2), Acknowledged::UnknownId);
    assert_eq!(s.sent(&keeper), ["PUBLISH 3 c"], "1 is not durable yet, 2 has nothing to wait for");
    assert_eq!(s.puback(&keeper, 3), Acknowledged::Yes);
    assert_eq!(s.sent(&keeper), ["PUBLISH 4 d"]);
}

/// Its first part was confirmed on this connection while the rest had still to be sent again.
#[test]
fn an_acknowledgement_amid_resending_skips_nothing() {
    let keeper = Memory::default();
    keeper.elides.set(true);
    let mut s = session(10).connected(&keeper, 10);
    for payload in ["a", "b", "c"] {
        s.give(&keeper, QoS::AtLeastOnce, payload);
    }
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a", "PUBLISH 2 b", "PUBLISH 3 c"]);
    let mut s = s.connected(&keeper, 2);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 a", "PUBLISH! 2 b"]);
    assert_eq!(s.puback(&keeper, 2), Acknowledged::Yes);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 3 c"]);
    assert_eq!(s.puback(&keeper, 1), Acknowledged::Yes);
    assert_eq!(s.puback(&keeper, 3), Acknowledged::Yes);
    assert!(s.outbound.is_empty());
}

#[test]
fn the_receive_maximum_holds_below_the_window() {
    let keeper = Memory::default();
    let mut s = session(100).connected(&keeper, 1);
    s.give(&keeper, QoS::AtLeastOnce, "a");
    s.give(&keeper, QoS::AtLeastOnce, "b");
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a"]);
    s.puback(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH 2 b"]);
}

/// [MQTT-4.4.0-1], [MQTT-4.3.3-6]: original ids, original order, DUP, and PUBREL where PUBREC has come.
#[test]
fn a_new_connection_gets_everything_unfinished_again_in_order() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    s.give(&keeper, QoS::ExactlyOnce, "a");
    s.give(&keeper, QoS::AtLeastOnce, "b");
    s.give(&keeper, QoS::ExactlyOnce, "c");
    assert_eq!(s.sent(&keeper).len(), 3);
    assert_eq!(s.pubrec(&keeper, 1), Acknowledged::Yes);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 1"]);
    s.link = None;
    s.give(&keeper, QoS::AtLeastOnce, "d");
    let mut s = s.connected(&keeper, 10);
    assert_eq!(s.sent(&keeper), ["PUBREL 1", "PUBLISH! 2 b", "PUBLISH! 3 c", "PUBLISH 4 d"]);
}

#[test]
fn pubrel_waits_until_pubrec_is_durable() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    s.give(&keeper, QoS::ExactlyOnce, "a");
    s.sent(&keeper);
    s.pubrec(&keeper, 1);
    assert!(matches!(s.transmit(&keeper, NOW).delivery, Waiting::Gate(1)));
    assert!(s.sent(&keeper).is_empty());
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 1"]);
    assert_eq!(s.pubrec(&keeper, 1), Acknowledged::Yes);
    assert_eq!(s.sent(&keeper), ["PUBREL 1"], "a PUBREC that comes again is answered again");
    assert_eq!(s.pubcomp(&keeper, 1), Acknowledged::Yes);
    assert_eq!(s.outbound.received(), []);
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_told_from_an_unknown_one() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    s.give(&keeper, QoS::ExactlyOnce, "a");
    s.give(&keeper, QoS::AtLeastOnce, "b");
    s.sent(&keeper);
    assert_eq!(s.puback(&keeper, 1), Acknowledged::WrongKind);
    assert_eq!(s.pubrec(&keeper, 2), Acknowledged::WrongKind);
    assert_eq!(s.pubcomp(&keeper, 1), Acknowledged::WrongKind);
    assert_eq!(s.puback(&keeper, 77), Acknowledged::UnknownId);
}

/// As if they had come one by one: some twice, one unknown, and none behind one of the wrong kind.
#[test]
fn pubacks_in_a_row_are_handled_as_one_by_one() {
    for elides in [false, true] {
        let sessions = [(); 2].map(|()| {
            let keeper = Memory::default();
            keeper.elides.set(elides);
            let mut s = session(100).connected(&keeper, 100);
            for number in 1..=20 {
                let qos = if number == 17 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                s.give(&keeper, qos, &number.to_string());
            }
            assert_eq!(s.sent(&keeper).len(), 20);
            (keeper, s)
        });
        let ids = [1, 2, 5, 5, 77, 3, 2, 20, 17, 18].map(|id| PacketId::new(id).unwrap());
        let [(keeper, mut s), (other, mut one_by_one)] = sessions;
        assert_eq!(s.outbound.handle_pubacks(&keeper, &ids), Acknowledged::WrongKind);
        let mut results = ids.iter().map(|id| one_by_one.outbound.handle_puback(&other, *id));
        assert!(results.any(|result| result == Acknowledged::WrongKind));
        drop(results);
        for _ in 0..2 {
            assert_eq!(s.outbound.in_flight(), one_by_one.outbound.in_flight());
            let unconfirmed = |s: &Session<Memory>| {
                s.outbound.unconfirmed().map(|kept| kept.0.payload.clone()).collect::<Vec<_>>()
            };
            assert_eq!(unconfirmed(&s).len(), 15);
            assert_eq!(unconfirmed(&s), unconfirmed(&one_by_one));
            keeper.commit();
            other.commit();
            assert_eq!((s.sent(&keeper).len(), one_by_one.sent(&other).len()), (0, 0));
        }
    }
}

#[test]
fn a_full_queue_drops_its_oldest_and_says_so() {
    let keeper = Memory::default();
    let limits = QueueLimits { messages_max: 2, bytes_max: 1 << 20, overflow: Overflow::DropOldest };
    let mut s: Session<Memory> = Session::new(Outbound::new(Seq(0), Seq(u64::MAX), 10, limits));
    for payload in ["a", "b", "c"] {
        s.give(&keeper, QoS::AtLeastOnce, payload);
    }
    assert_eq!(*keeper.dropped.borrow(), [(0, DropReason::QueueFull)]);
    assert_eq!(s.connected(&keeper, 10).sent(&keeper), ["PUBLISH 2 b", "PUBLISH 3 c"]);
}

#[test]
fn an_unloaded_message_holds_back_what_is_behind_it() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    let sleeping = message("a");
    sleeping.1.set(false);
    s.outbound.deliver(&keeper, Rc::clone(&sleeping), delivery(QoS::AtLeastOnce), None);
    s.give(&keeper, QoS::AtLeastOnce, "b");
    let Waiting::Load(wanted) = s.transmit(&keeper, NOW).delivery else { panic!("asks for the body") };
    assert_eq!(wanted.len(), 1);
    assert!(s.sent(&keeper).is_empty());
    sleeping.1.set(true);
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a", "PUBLISH 2 b"]);
}

/// [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_the_client_is_skipped_for_it_alone() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 1);
    s.give(&keeper, QoS::AtLeastOnce, &"x".repeat(2_000));
    s.give(&keeper, QoS::AtLeastOnce, "b");
    assert_eq!(s.sent(&keeper), ["PUBLISH 2 b"], "and it takes nothing from the receive maximum");
    assert_eq!(*keeper.dropped.borrow(), [(0, DropReason::TooLarge)]);
}

#[test]
fn numbers_beyond_the_reserved_block_wait_for_its_commit() {
    let keeper = Memory::default();
    let outbound = Outbound::new(Seq(0), Seq(1), 10, LIMITS);
    let mut s: Session<Memory> = Session::new(outbound).connected(&keeper, 10);
    s.give(&keeper, QoS::AtLeastOnce, "a");
    s.give(&keeper, QoS::AtLeastOnce, "b");
    let until = s.outbound.wanted_reservation(&keeper).unwrap();
    s.outbound.reserving(until, keeper.write());
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a"]);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 2 b"]);
}

#[test]
fn recovery_takes_the_oldest_window_for_sent() {
    let keeper = Memory::default();
    let mut outbound: Outbound<Memory> = Outbound::new(Seq(100), Seq(100), 3, LIMITS);
    outbound.recover(
        &keeper,
        &[Seq(4)],
        &shelf(
            &keeper,
            &[
                (3, "3", QoS::ExactlyOnce),
                (7, "7", QoS::ExactlyOnce),
                (9, "9", QoS::ExactlyOnce),
                (12, "12", QoS::ExactlyOnce),
            ],
        ),
        Seq::MAX,
    );
    let mut s = Session::new(outbound).connected(&keeper, 10);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 4 3", "PUBREL 5", "PUBLISH! 8 7"]);
    assert_eq!(s.pubrec(&keeper, 4), Acknowledged::Yes);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 4"]);
    assert_eq!(s.outbound.next_seq(), Seq(100));
}

/// More in flight than the receive maximum of the connection that takes it up: resending stops in the middle, and the
/// quota for the rest comes back with PUBCOMP (MQTT 5.0 section 4.9), for which PUBREL has to leave.
#[test]
fn pubrel_leaves_while_the_rest_waits_to_be_resent() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    for payload in ["a", "b"] {
        s.give(&keeper, QoS::ExactlyOnce, payload);
    }
    assert_eq!(s.sent(&keeper).len(), 2);
    let mut s = s.connected(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 a"]);
    s.pubrec(&keeper, 1);
    assert!(matches!(s.transmit(&keeper, NOW).delivery, Waiting::Gate(1)), "for the PUBREC to be durable");
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 1"]);
    s.pubcomp(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 2 b"]);
}

#[test]
fn packet_ids_repeat_only_when_the_older_message_is_gone() {
    let keeper = Memory::default();
    let mut outbound: Outbound<Memory> = Outbound::new(Seq(65_535), Seq(u64::MAX), 10, LIMITS);
    let old = shelf(&keeper, &[(0, "old", QoS::ExactlyOnce)]);
    outbound.recover(&keeper, &[], &old, Seq::MAX);
    let mut s = Session::new(outbound).connected(&keeper, 10);
    s.give(&keeper, QoS::AtLeastOnce, "new");
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 old"], "the new one would have packet id 1 as well");
    s.pubrec(&keeper, 1);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 1"]);
    s.pubcomp(&keeper, 1);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 new"]);
}

/// Numbers of before several restarts lie far apart; what has the packet id of an older one was not sent with it.
#[test]
fn recovery_takes_no_packet_id_for_sent_twice() {
    let keeper = Memory::default();
    let mut outbound: Outbound<Memory> = Outbound::new(Seq(200_000), Seq(200_000), 10, LIMITS);
    let waiting = [
        (0, "old", QoS::AtLeastOnce),
        (65_535, "new", QoS::AtLeastOnce),
        (131_075, "newest", QoS::AtLeastOnce),
    ];
    outbound.recover(&keeper, &[], &shelf(&keeper, &waiting), Seq::MAX);
    let mut s = Session::new(outbound).connected(&keeper, 10);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 old"]);
    assert_eq!(s.puback(&keeper, 1), Acknowledged::Yes);
    assert!(s.sent(&keeper).is_empty(), "the confirmation is not durable");
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 new"]);
    assert_eq!(s.puback(&keeper, 1), Acknowledged::Yes);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 6 newest"]);
}

/// [MQTT-3.2.0-1]
#[test]
fn nothing_overtakes_connack() {
    let keeper = Memory::default();
    let mut s = session(10);
    let mut connack = Vec::new();
    Packet::Pingresp.encode(Version::V5, &mut connack);
    s.attach(&keeper, Link::new(terms(10), connack, keeper.write()));
    s.give(&keeper, QoS::AtLeastOnce, "a");
    s.link.as_mut().unwrap().send(&Packet::Pingreq);
    assert!(s.sent(&keeper).is_empty(), "CONNACK waits for its commit");
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["Pingresp", "Pingreq", "PUBLISH 1 a"]);
}

#[test]
fn pubrel_needs_no_quota_while_older_messages_are_sent_again() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    for payload in ["a", "b", "c"] {
        s.give(&keeper, QoS::ExactlyOnce, payload);
    }
    assert_eq!(s.sent(&keeper).len(), 3);
    let mut s = s.connected(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 a"]);
    for (id, next) in [(1, "PUBLISH! 2 b"), (2, "PUBLISH! 3 c")] {
        s.pubrec(&keeper, id);
        assert!(matches!(s.transmit(&keeper, NOW).delivery, Waiting::Gate(_)), "says what it waits for");
        keeper.commit();
        assert_eq!(s.sent(&keeper), [format!("PUBREL {id}")]);
        s.pubcomp(&keeper, id);
        assert_eq!(s.sent(&keeper), [next]);
    }
}

/// [MQTT-3.3.4-9]: an exchange that PUBREL goes on with counts until its PUBCOMP, as the client counts it.
#[test]
fn exchanges_of_the_connection_before_count_against_the_receive_maximum() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 2);
    for payload in ["a", "b", "c", "d"] {
        s.give(&keeper, QoS::ExactlyOnce, payload);
    }
    s.sent(&keeper);
    s.pubrec(&keeper, 1);
    keeper.commit();
    s.sent(&keeper);
    let mut s = s.connected(&keeper, 2);
    assert_eq!(s.sent(&keeper), ["PUBREL 1", "PUBLISH! 2 b"]);
    s.pubcomp(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH 3 c"]);
}

#[test]
fn an_acknowledgement_before_the_message_was_sent_again_gives_no_quota() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 3);
    for payload in ["a", "b", "c", "d"] {
        s.give(&keeper, QoS::AtLeastOnce, payload);
    }
    assert_eq!(s.sent(&keeper).len(), 3);
    let mut s = s.connected(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 a"]);
    s.puback(&keeper, 2);
    assert!(s.sent(&keeper).is_empty());
    s.puback(&keeper, 1);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 3 c"]);
}

/// [MQTT3-4.6.0-4]
#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    let keeper = Memory::default();
    let mut s = session(10).connected(&keeper, 10);
    s.give(&keeper, QoS::ExactlyOnce, "a");
    s.give(&keeper, QoS::ExactlyOnce, "b");
    s.sent(&keeper);
    s.pubrec(&keeper, 2);
    s.pubrec(&keeper, 1);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 2", "PUBREL 1"]);
}

#[test]
fn recovery_takes_pubrecs_that_came_out_of_order() {
    let keeper = Memory::default();
    let mut outbound: Outbound<Memory> = Outbound::new(Seq(100), Seq(200), 2, LIMITS);
    // Four were in flight when the window was larger.
    outbound.recover(
        &keeper,
        &[Seq(9), Seq(4)],
        &shelf(
            &keeper,
            &[(3, "3", QoS::ExactlyOnce), (7, "7", QoS::ExactlyOnce), (12, "12", QoS::ExactlyOnce)],
        ),
        Seq::MAX,
    );
    let mut s = Session::new(outbound).connected(&keeper, 10);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 4 3", "PUBREL 5", "PUBLISH! 8 7", "PUBREL 10"]);
    for id in [10, 5] {
        assert_eq!(s.pubcomp(&keeper, id), Acknowledged::Yes);
    }
    s.pubrec(&keeper, 4);
    s.pubrec(&keeper, 8);
    keeper.commit();
    s.sent(&keeper);
    s.pubcomp(&keeper, 4);
    s.pubcomp(&keeper, 8);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 13 12"]);
}

/// Else a crash would count the dropped ones as sent and not the one after them, which could expire then though its
/// receiver holds the packet id.
#[test]
fn a_qos_2_message_behind_dropped_ones_waits_until_they_are_durably_gone() {
    let keeper = Memory::default();
    let limits = QueueLimits { messages_max: 1, bytes_max: 1 << 20, overflow: Overflow::DropOldest };
    let mut s: Session<Memory> = Session::new(Outbound::new(Seq(0), Seq(u64::MAX), 10, limits));
    s.give(&keeper, QoS::ExactlyOnce, "a");
    s.give(&keeper, QoS::ExactlyOnce, "b");
    let mut s = s.connected(&keeper, 10);
    assert!(s.sent(&keeper).is_empty());
    assert!(keeper.hurried.get() > 0);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBLISH 2 b"]);
}
