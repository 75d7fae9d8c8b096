//! Bounds on parts of a queue, against a list.

use std::rc::Rc;

use proptest::prelude::*;

use super::{Memory, NOW, delivery, message, shelf};
use crate::{
    codec::{PacketId, QoS},
    message::Seq,
    session::{
        DropReason, Outbound, Overflow, QueueLimits, QueueRule,
        outbound::{Next, SEQ_BLOCK},
    },
};

fn limits(messages_max: usize, bytes_max: usize) -> QueueLimits {
    QueueLimits { messages_max, bytes_max, overflow: Overflow::DropOldest }
}

/// The topic of `message` has 8 bytes.
fn rule(no: u8) -> Option<QueueRule> {
    let all = [limits(2, 1 << 20), limits(100, 3 * 9)];
    (no > 0).then(|| QueueRule { no, limits: all[usize::from(no) - 1] })
}

const COMMON: (usize, usize) = (4, 1 << 20);

/// What should wait, and what should have gone: a list of number and rule.
#[derive(Default)]
struct Naive {
    waiting: Vec<(u64, u8)>,
    dropped: Vec<u64>,
}

impl Naive {
    fn deliver(&mut self, seq: u64, no: u8) {
        self.waiting.push((seq, no));
        let max = [COMMON.0, 2, 3][usize::from(no)];
        if self.waiting.iter().filter(|(_, other)| *other == no).count() > max {
            let oldest = self.waiting.iter().position(|(_, other)| *other == no).unwrap();
            self.dropped.push(self.waiting.remove(oldest).0);
        }
    }
}

proptest! {
    /// Deliveries under no rule and two rules, messages sent, parked, and restarts in between.
    #[test]
    fn each_bound_makes_room_among_its_own(steps in proptest::collection::vec(0..8_u8, 0..120)) {
        let keeper = Memory::default();
        let make = || Outbound::<Memory>::new(Seq(0), Seq(SEQ_BLOCK), 1_000, limits(COMMON.0, COMMON.1));
        let (mut outbound, mut naive) = (make(), Naive::default());
        outbound.begin_connection(&keeper, u16::MAX);
        let mut given = Vec::new();
        for step in steps {
            match step {
                0..=2 => {
                    let full = naive.waiting.iter().filter(|(_, no)| *no == step).count()
                        == [COMMON.0, 2, 3][usize::from(step)];
                    prop_assert_eq!(outbound.has_room(9, rule(step)), !full);
                    let kept = message("x");
                    given.push(Rc::clone(&kept));
                    let seq = outbound.deliver(&keeper, kept, delivery(QoS::AtLeastOnce), rule(step));
                    naive.deliver(seq.0, step);
                }
                3 | 4 => {
                    let sent = match outbound.poll_next(&keeper, NOW) {
                        Next::Publish { seq, .. } => Some(seq.0),
                        _ => None,
                    };
                    let front = (!naive.waiting.is_empty()).then(|| naive.waiting.remove(0).0);
                    prop_assert_eq!(sent, front);
                    if let Some(seq) = sent {
                        outbound.handle_puback(&keeper, PacketId::new(u16::try_from(seq + 1).unwrap()).unwrap());
                        keeper.commit();
                    }
                }
                5 | 6 => {
                    // Some of them are on disk.
                    let some = given.len() / usize::from(step - 4);
                    Memory::write_out(&given[..some]);
                    outbound.rest(&keeper);
                }
                _ => {
                    let entry = |&(seq, _): &(u64, u8)| (seq, "x", QoS::AtMostOnce);
                    let waiting: Vec<_> = naive.waiting.iter().map(entry).collect();
                    let next = outbound.next_seq();
                    outbound = Outbound::new(next, Seq(SEQ_BLOCK), 1_000, limits(COMMON.0, COMMON.1));
                    outbound.recover(&keeper, &[], &shelf(&keeper, &waiting), Seq::MAX);
                    outbound.begin_connection(&keeper, u16::MAX);
                    let ruled = naive.waiting.iter().filter(|(_, no)| *no > 0);
                    outbound.recover_rules(&keeper, ruled.map(|&(seq, no)| (Seq(seq), no)));
                }
            }
            let dropped: Vec<_> = naive.dropped.iter().map(|&seq| (seq, DropReason::QueueFull)).collect();
            prop_assert_eq!(&*keeper.dropped.borrow(), &dropped);
        }
    }
}

/// Alone it may be sent, or wait for ever: nothing is gained by refusing it.
#[test]
fn a_message_larger_than_its_bound_can_wait_alone() {
    let keeper = Memory::default();
    let mut outbound = Outbound::<Memory>::new(Seq(0), Seq(SEQ_BLOCK), 10, limits(10, 20));
    let large = "x".repeat(50);
    assert!(outbound.has_room(58, None));
    outbound.deliver(&keeper, message(&large), delivery(QoS::AtLeastOnce), None);
    assert!(!outbound.has_room(9, None));
    let kept = message("small");
    outbound.deliver(&keeper, Rc::clone(&kept), delivery(QoS::AtLeastOnce), None);
    assert_eq!(*keeper.dropped.borrow(), [(0, DropReason::QueueFull)]);
}
