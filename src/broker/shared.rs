//! Shared subscriptions: which member gets a message, and who gets it when that member is gone.
//!
//! A message is one member's from the moment it is published: an online one's first, of those one that keeps up, else
//! that of a persistent one that sleeps. It stays that member's while its session lasts. When the session ends, what has not
//! been sent goes to another member, and so does QoS 1 that was sent and not confirmed; when it unsubscribes, what has not
//! been sent does. QoS 2 that may have been sent never does. A claim in the journal passes from one session to the other
//! by one record: no crash gives it to both or to neither.

use std::{collections::HashMap, sync::Arc};

use super::{
    Broker,
    dead_letters::DeadReason,
    dispatch::Touched,
    keep::{Keep, Kept},
    registry::Registry,
    slot::Slot,
};
use crate::{
    message::{Delivery, SessionNo},
    routing::{GroupMatch, Subscription},
    session::{Entry, Leaving},
    store::{Completion, Gate, Target},
    sync::lock,
    time::Timestamp,
    topic::TopicFilter,
};

/// A shared subscription's members at one generation of the subscriptions.
pub(super) struct Group {
    matched: GroupMatch<SessionNo>,
    slots: HashMap<SessionNo, Arc<Slot>>,
}

/// What became of an attempt to give a message to another member.
enum Passed {
    /// It is that member's once the gate is open.
    Over(Gate),
    /// Nobody needs it any more.
    Ended,
    /// The member is gone too.
    NoMember,
}

impl Group {
    pub(super) fn new(matched: GroupMatch<SessionNo>, registry: &Registry) -> Self {
        let members = matched.members.iter();
        let slots = members.filter_map(|(no, _)| Some((*no, registry.by_no(*no)?))).collect();
        Self { matched, slots }
    }

    /// How many members it has.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn name(&self) -> &TopicFilter {
        &self.matched.group
    }

    /// One member in turn, but none of `passed_over`: an online one that keeps up with what it gets, else any online
    /// one, else a persistent one that sleeps.
    pub(super) fn choose(&self, passed_over: &[SessionNo]) -> Option<(&Arc<Slot>, Subscription)> {
        let next_where = |suits: &dyn Fn(&Slot) -> bool| {
            let suits = |no| !passed_over.contains(&no) && self.slots.get(&no).is_some_and(|s| suits(s));
            self.matched.next_where(suits)
        };
        let (no, subscription) = next_where(&|slot| slot.is_online() && !slot.is_busy())
            .or_else(|| next_where(&|slot| slot.is_online()))
            .or_else(|| next_where(&|slot| slot.keep.persistent))?;
        Some((self.slots.get(&no)?, subscription))
    }
}

impl Broker {
    /// The group as it is now; `None` if it has no members.
    pub(super) fn group(&self, name: &TopicFilter) -> Option<Group> {
        let subscriptions = self.subscriptions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let matched = subscriptions.group(name)?;
        drop(subscriptions);
        Some(Group::new(matched, &lock(&self.registry)))
    }

    /// Gives what a member leaves behind to the others, in its order. Returns the gate behind which the journal knows;
    /// the records that end the member's claims are appended afterwards. No session's lock is held.
    pub(super) fn hand_on(
        &self,
        from: &Slot,
        leaving: Vec<Leaving<Keep>>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Gate {
        let mut last = Gate::Open;
        let mut groups = HashMap::new();
        for Leaving { entry, group } in leaving {
            let mut passed_over = vec![from.no];
            loop {
                let members = groups.entry(group.clone()).or_insert_with(|| self.group(&group));
                let Some((slot, subscription)) = members.as_ref().and_then(|m| m.choose(&passed_over)) else {
                    let dead = from.keep.dead(entry.seq, &entry.kept, DeadReason::NoMember);
                    latest(&mut last, dead.unwrap_or_else(|| from.keep.give_up(&entry)));
                    self.drops.no_member(&group);
                    break;
                };
                match self.pass_over(from, &entry, &group, (slot, subscription), now, touched) {
                    Passed::Over(gate) => {
                        latest(&mut last, gate);
                        break;
                    }
                    Passed::Ended => break,
                    Passed::NoMember => {
                        passed_over.push(slot.no);
                        groups.remove(&group);
                    }
                }
            }
        }
        last
    }

    fn pass_over(
        &self,
        from: &Slot,
        entry: &Entry<Keep>,
        group: &TopicFilter,
        (slot, subscription): (&Arc<Slot>, Subscription),
        now: Timestamp,
        touched: &mut Touched,
    ) -> Passed {
        // Its publisher's packet id must stand in the journal before a copy of it does.
        if let Kept::Memory { after: Gate::Message(stored), .. } = &entry.kept {
            while self.journal.is_incomplete(stored) {
                std::thread::yield_now();
            }
        }
        let delivery = Delivery {
            qos: entry.delivery.qos.min(subscription.options.qos),
            retain: entry.kept.was_retained(&entry.delivery) && subscription.options.retain_as_published,
            subscription_ids: subscription.subscription_id.into_iter().collect(),
        };
        let mut state = slot.state();
        if state.ended || !state.session.subscriptions.contains(group) {
            return Passed::NoMember;
        }
        let outbound = &mut state.session.outbound;
        let target = Target {
            session: slot.no,
            seq: outbound.next_seq(),
            delivery: delivery.clone(),
            group: Some(group.clone()),
        };
        let (kept, gate, new) = match &entry.kept {
            Kept::Journal { stored, target: index } => {
                let gate = self.journal.hand_on(stored, *index, (from.no, entry.seq), target);
                let Some(gate) = gate else { return Passed::Ended };
                (entry.kept.clone(), gate, None)
            }
            // On a full disk it stays as safe as it was.
            Kept::Memory { message, .. }
                if slot.keep.persistent && self.journal.has_room(message.size_bytes()) =>
            {
                let stored = self.journal.message(Arc::clone(message));
                let kept = Kept::Journal { stored: Arc::clone(&stored), target: 0 };
                (kept, Gate::Message(Arc::clone(&stored)), Some((stored, target)))
            }
            Kept::Memory { .. } => (entry.kept.clone(), Gate::Open, None),
            Kept::Sent => return Passed::Ended,
        };
        // Acknowledged long ago, so nothing but `drop-oldest` applies.
        let label = match &kept {
            Kept::Journal { stored, .. } => stored.label(),
            Kept::Memory { message, .. } => self.queues.labels().of(&message.topic),
            Kept::Sent => return Passed::Ended,
        };
        let rule = self.queues.rule(label, slot.queue_rules());
        let seq = outbound.deliver(&slot.keep, kept, delivery, rule);
        outbound.mark_shared(seq, group.clone());
        outbound.hold_exactly_once(&slot.keep, gate.clone());
        let is_online = state.session.link.is_some();
        if is_online {
            state.encode_ready(&slot.keep, now);
        }
        self.reserve_numbers(slot, &mut state);
        slot.note_busy(&state);
        touched.add(state.notify());
        self.note_restless(slot, &state);
        drop(state);
        if let Some((stored, target)) = new {
            let completion = Completion { keep_body: is_online, ..Completion::default() };
            self.journal.complete(&stored, vec![target], completion);
        }
        Passed::Over(gate)
    }
}

/// Gates come in the order of their commits; an open one says nothing about those before it.
fn latest(last: &mut Gate, gate: Gate) {
    if !matches!(gate, Gate::Open) {
        *last = gate;
    }
}
