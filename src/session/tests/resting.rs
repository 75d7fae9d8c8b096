//! Sessions that sleep: what is on disk is parked.

use std::rc::Rc;

use super::{Kept, Memory, delivery, message, session};
use crate::{
    codec::QoS,
    message::Seq,
    session::{Leaving, Session},
    topic::TopicFilter,
};

impl Memory {
    /// All of these are on disk now, and nowhere else.
    pub(super) fn write_out(kept: &[Kept]) {
        for kept in kept {
            kept.2.set(true);
        }
    }
}

/// Gives a session messages named after numbers.
fn give_all(s: &mut Session<Memory>, keeper: &Memory, names: std::ops::Range<u32>) -> Vec<Kept> {
    let give = |n: u32| {
        let kept = message(&n.to_string());
        s.outbound.deliver(keeper, Rc::clone(&kept), delivery(QoS::AtLeastOnce), None);
        kept
    };
    names.map(give).collect()
}

#[test]
fn what_a_sleeping_session_has_on_disk_is_parked_and_comes_in_order() {
    let keeper = Memory::default();
    let mut s = session(3);
    let first = give_all(&mut s, &keeper, 0..50);
    s.outbound.rest(&keeper);
    assert_eq!((s.outbound.at_hand(), s.outbound.len()), (50, 50), "nothing is on disk yet");
    Memory::write_out(&first[..40]);
    s.outbound.rest(&keeper);
    assert_eq!((s.outbound.at_hand(), s.outbound.len()), (10, 50));
    let second = give_all(&mut s, &keeper, 50..90);
    Memory::write_out(&first);
    Memory::write_out(&second);
    s.outbound.rest(&keeper);
    assert_eq!((s.outbound.at_hand(), s.outbound.len()), (0, 90));
    give_all(&mut s, &keeper, 90..200);

    let mut s = s.connected(&keeper, 10);
    let mut heard = Vec::new();
    while heard.len() < 200 {
        let sent = s.sent(&keeper);
        assert!(!sent.is_empty());
        for line in sent {
            let (id, payload) = line.strip_prefix("PUBLISH ").unwrap().split_once(' ').unwrap();
            s.puback(&keeper, id.parse().unwrap());
            heard.push(payload.to_owned());
        }
        keeper.commit();
    }
    assert_eq!(heard, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(s.sent(&keeper).is_empty());
    assert!(s.outbound.is_empty());
}

#[test]
fn messages_in_flight_are_parked_with_the_session_and_sent_again() {
    let keeper = Memory::default();
    let mut s = session(4).connected(&keeper, 10);
    let given: Vec<_> = ["a", "b", "c", "d", "e"].map(message).into();
    for kept in &given {
        s.outbound.deliver(&keeper, Rc::clone(kept), delivery(QoS::ExactlyOnce), None);
    }
    assert_eq!(s.sent(&keeper), ["PUBLISH 1 a", "PUBLISH 2 b", "PUBLISH 3 c", "PUBLISH 4 d"]);
    s.pubrec(&keeper, 2);
    keeper.commit();
    assert_eq!(s.sent(&keeper), ["PUBREL 2"]);
    s.link = None;
    s.outbound.rest(&keeper);
    assert_eq!(s.outbound.at_hand(), 4, "none is on disk");
    Memory::write_out(&given);
    s.outbound.rest(&keeper);
    assert_eq!((s.outbound.at_hand(), s.outbound.in_flight(), s.outbound.len()), (0, 4, 5));
    assert_eq!(s.outbound.received(), [Seq(1)]);
    let mut s = s.connected(&keeper, 10);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 a", "PUBREL 2", "PUBLISH! 3 c", "PUBLISH! 4 d"]);
    s.link = None;
    s.outbound.rest(&keeper);
    assert_eq!(s.outbound.dissolve(&keeper).unconfirmed.len(), 4, "all but the one that was received");
    assert_eq!(s.outbound.at_hand(), 0);
}

/// A long queue of a client that is online but slow: what will not be sent next needs no body's worth of memory.
#[test]
fn the_end_of_a_long_queue_is_parked_while_its_beginning_is_sent() {
    let keeper = Memory::default();
    let mut s = session(1).connected(&keeper, 1);
    for n in 0..600 {
        let kept = give_all(&mut s, &keeper, n..n + 1);
        Memory::write_out(&kept);
    }
    assert!(s.outbound.at_hand() <= 192, "{}", s.outbound.at_hand());
    for n in 0..600_u16 {
        assert_eq!(s.sent(&keeper), [format!("PUBLISH {} {n}", n + 1)]);
        s.puback(&keeper, n + 1);
        keeper.commit();
    }
}

/// What came by a shared subscription leaves it for another member, parked or not.
#[test]
fn what_is_shared_leaves_a_sleeping_session() {
    let keeper = Memory::default();
    let group = TopicFilter::parse("$share/g/t").unwrap();
    let other = TopicFilter::parse("$share/h/t").unwrap();
    let asleep = || {
        let mut s = session(2).connected(&keeper, 10);
        for n in 0..6 {
            let kept = message(&n.to_string());
            Memory::write_out(std::slice::from_ref(&kept));
            let seq = s.outbound.deliver(&keeper, kept, delivery(QoS::AtLeastOnce), None);
            match n % 3 {
                0 => s.outbound.mark_shared(seq, group.clone()),
                1 => s.outbound.mark_shared(seq, other.clone()),
                _ => {}
            }
            if n == 1 {
                assert_eq!(s.sent(&keeper), ["PUBLISH 1 0", "PUBLISH 2 1"]);
                s.link = None;
            }
            s.outbound.rest(&keeper);
        }
        assert_eq!(s.outbound.at_hand(), 0);
        s
    };
    let names = |leaving: Vec<Leaving<Memory>>| -> Vec<_> {
        leaving.into_iter().map(|l| (l.entry.seq.0, l.group.as_str().to_owned())).collect()
    };

    let mut s = asleep();
    let waited = s.outbound.take_waiting(&keeper, &group);
    assert_eq!(names(waited), [(3, "$share/g/t".into())], "what was sent stays");
    assert_eq!((s.outbound.len(), s.outbound.at_hand()), (5, 0), "and what stays is still parked");
    s.outbound.handed_on(&keeper, 0);
    let mut s = s.connected(&keeper, 10);
    assert_eq!(s.sent(&keeper), ["PUBLISH! 1 0", "PUBLISH! 2 1"]);

    let remains = asleep().outbound.dissolve(&keeper);
    let (g, h) = ("$share/g/t", "$share/h/t");
    assert_eq!(names(remains.leaving), [(0, g.into()), (1, h.into()), (3, g.into()), (4, h.into())]);
    assert_eq!(remains.unconfirmed.len(), 2);
}
