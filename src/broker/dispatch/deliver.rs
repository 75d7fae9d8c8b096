//! One message to each of its subscribers, under that session's own lock.

use std::{cell::OnceCell, sync::Arc, time::Duration};

use super::{
    super::{
        Broker,
        dead_letters::{DeadReason, Loss, is_reserved},
        keep::Kept,
        slot::{Slot, State},
    },
    Route, Share, Shares, Touched, group_share,
};
use crate::{
    codec::{Publish, QoS},
    message::{Message, Seq, size_bytes},
    session::{Fate, Frames, Overflow},
    store::{Gate, Stored, Target},
    time::Timestamp,
    topic::{Label, TopicFilter, TopicName},
};

/// A client that has owed an acknowledgement for so long will not spare the disk this message: holding it back would
/// only keep its publisher waiting.
const SILENT_AFTER: Duration = Duration::from_millis(100);

/// One message on its way.
pub(super) struct Outgoing<'a> {
    pub(super) publish: &'a Publish<'a>,
    pub(super) topic: &'a TopicName,
    label: Label,
    /// Its publisher has been admitted: no queue may refuse it now.
    pub(super) is_admitted: bool,
    /// There is room on the disk for it.
    pub(super) may_store: bool,
    /// Its copy, once something outlives the read.
    message: OnceCell<Arc<Message>>,
    pub(super) stored: Option<&'a Arc<Stored>>,
    /// What a will that is QoS 2 and in memory only waits for: that a crash does not publish it again.
    pub(super) after_will: Option<&'a Gate>,
    pub(super) now: Timestamp,
}

impl<'a> Outgoing<'a> {
    /// A message of which nothing is kept yet.
    pub(super) fn new(route: &'a Route, publish: &'a Publish<'a>, now: Timestamp) -> Self {
        Self {
            publish,
            topic: &route.topic,
            label: route.label,
            is_admitted: false,
            may_store: true,
            message: OnceCell::new(),
            stored: None,
            after_will: None,
            now,
        }
    }

    /// The same with its copy.
    pub(super) fn with_copy(self, message: &Arc<Message>) -> Self {
        Self { message: OnceCell::from(Arc::clone(message)), ..self }
    }

    /// The same as the journal has it.
    pub(super) fn with_stored<'b>(self, stored: Option<&'b Arc<Stored>>) -> Outgoing<'b>
    where
        'a: 'b,
    {
        Outgoing { stored, ..self }
    }

    /// The message, as something that outlives the read: copied out of the read buffer once.
    pub(super) fn copy(&self) -> Arc<Message> {
        let copy = || Arc::new(Message::from_packet(self.topic.clone(), self.publish, self.now));
        Arc::clone(self.message.get_or_init(copy))
    }

    /// What a session holds on to.
    fn kept(&self, slot: &Slot, target: u32) -> Kept {
        if slot.keep.persistent
            && let Some(stored) = self.stored
        {
            return Kept::Journal { stored: Arc::clone(stored), target };
        }
        Kept::Memory { message: self.copy(), after: self.after() }
    }

    /// What a copy of it that is QoS 2 waits for, where it is in memory.
    fn after(&self) -> Gate {
        let waits = self.publish.qos == QoS::ExactlyOnce;
        self.stored.filter(|_| waits).map_or(Gate::Open, |stored| Gate::Message(Arc::clone(stored)))
    }
}

/// Whether a subscriber was still one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    /// Its session has ended, or left the group, since the route was resolved.
    Gone,
}

/// What became of a subscriber's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Handed {
    /// It does not get it, which was counted.
    Not,
    /// It stands in line behind others that wait for the client's acknowledgements: there is nothing to be done now.
    Behind,
    /// It is on its way, or in the queue.
    Over,
}

/// What dispatching one message needs on its way, and what it gathers.
pub(super) struct Batch<'a> {
    frames: Frames<'a>,
    pub(super) targets: Vec<Target>,
    /// Every persistent target was sent it, and acknowledges what it is sent.
    pub(super) may_elide: bool,
    /// Somebody online is about to be sent it: its body stays in memory.
    pub(super) is_awaited: bool,
    /// Whose queues keep what they have, where a letter says so.
    pub(super) newest: Vec<Loss>,
}

impl<'a> Batch<'a> {
    /// For a message that goes to so many subscribers. `room` is for packets that are encoded once for several.
    pub(super) fn new(outgoing: &Outgoing<'a>, subscribers: usize, room: &'a mut Vec<u8>) -> Self {
        let frames = Frames::new(outgoing.publish, outgoing.topic, subscribers, room);
        Self { frames, targets: Vec::new(), may_elide: true, is_awaited: false, newest: Vec::new() }
    }

    fn next_target(&self) -> u32 {
        u32::try_from(self.targets.len()).unwrap_or(u32::MAX)
    }

    /// The message is this session's by this number.
    fn add(&mut self, share: &Share<'_>, seq: Seq, state: &State, now: Timestamp) {
        let outbound = &state.session.outbound;
        let online = state.session.link.is_some();
        let sent = online && !outbound.has_backlog();
        let silent = outbound.awaited_since().is_some_and(|at| now.since(at) > SILENT_AFTER);
        self.may_elide &= sent && !silent;
        self.is_awaited |= online && !sent && outbound.sends_soon();
        let (session, delivery, group) = (share.slot.no, share.manner().to_delivery(), share.group.cloned());
        self.targets.push(Target { session, seq, delivery, group });
    }
}

impl Broker {
    /// Gives each subscriber its share; that of a member that is gone to another one.
    pub(super) fn deliver_all(
        &self,
        shares: &Shares<'_>,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch<'_>,
        touched: &mut Touched,
    ) {
        for share in shares.iter() {
            if self.deliver(&share, outgoing, batch, touched) == Met::Gone
                && let Some(group) = share.group
            {
                self.deliver_to_another(group, share.slot, outgoing, batch, touched);
            }
        }
    }

    /// Whether the share is queued rather than written out or let go at once.
    pub(in crate::broker) fn keeps(&self, share: &Share<'_>) -> bool {
        share.qos != QoS::AtMostOnce || (self.config.queue_qos0 && !share.slot.is_online())
    }

    /// Gives one subscriber its share.
    fn deliver(
        &self,
        share: &Share<'_>,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch<'_>,
        touched: &mut Touched,
    ) -> Met {
        let slot = share.slot;
        // One that dozes is not woken for what it does not get.
        if self.sleeps_through(share) {
            self.drops.asleep();
            return Met::Yes;
        }
        let mut held = slot.state();
        let state = &mut *held;
        let has_left = |group: &TopicFilter| !state.session.subscriptions.contains(group);
        if state.ended || share.group.is_some_and(has_left) {
            return Met::Gone;
        }
        let handed = self.hand_over(share, state, outgoing, batch);
        self.after_handing(handed, slot, state, touched);
        Met::Yes
    }

    /// Whether it is for a session that dozes and does not keep it.
    pub(super) fn sleeps_through(&self, share: &Share<'_>) -> bool {
        let slot = share.slot;
        !slot.is_online() && !self.keeps(share) && share.group.is_none() && slot.is_dozing()
    }

    /// Gives a session that lives its share; `after_handing` follows.
    pub(super) fn hand_over(
        &self,
        share: &Share<'_>,
        state: &mut State,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch<'_>,
    ) -> Handed {
        let slot = share.slot;
        let online = state.session.link.is_some();
        let passes_by = share.qos == QoS::AtMostOnce && (online || !self.config.queue_qos0);
        // Section 4.6: behind those of its kind that waited while the client slept.
        if passes_by && !(online && state.session.outbound.holds_at_most_once()) {
            if online {
                self.pass_by(share, state, outgoing, batch);
                return Handed::Over;
            }
            self.drops.asleep();
            return Handed::Not;
        }
        // What nobody can move but the client, by an acknowledgement: its connection sends this one too then. A persistent
        // session's may wait for the disk besides.
        let stands_behind =
            online && !slot.keep.persistent && state.session.outbound.queue_waits_for_client();
        let may_leave = online && !passes_by && !stands_behind;
        let seq = if may_leave { self.send_at_once(share, state, outgoing, batch) } else { None };
        let was_sent = seq.is_some();
        let Some((seq, is_target)) =
            seq.or_else(|| self.stand_in_line(share, state, outgoing, batch, passes_by))
        else {
            return Handed::Not;
        };
        if let Some(group) = share.group {
            state.session.outbound.mark_shared(seq, group.clone());
        }
        if stands_behind {
            return Handed::Behind;
        }
        if online && !was_sent {
            state.encode_ready(&slot.keep, outgoing.now);
        }
        if is_target {
            batch.add(share, seq, state, outgoing.now);
            if !online {
                state.session.outbound.rest_now_and_then(&slot.keep);
            }
        }
        Handed::Over
    }

    /// What a session that was given something needs, and its connection; once for all it was given under one lock.
    pub(super) fn after_handing(
        &self,
        handed: Handed,
        slot: &Slot,
        state: &mut State,
        touched: &mut Touched,
    ) {
        if handed != Handed::Over {
            return;
        }
        self.reserve_numbers(slot, state);
        slot.note_busy(state);
        touched.add(state.notify());
        self.note_restless(slot, state);
    }

    /// QoS 0, to somebody who is online.
    fn pass_by(&self, share: &Share<'_>, state: &mut State, outgoing: &Outgoing<'_>, batch: &mut Batch<'_>) {
        let slot = share.slot;
        let now = outgoing.now;
        match state.session.deliver_at_most_once(&slot.keep, &mut batch.frames, share.manner(), now) {
            Fate::Sent => {}
            Fate::NoRoom => self.drops.slow_reader(&slot.keep.client_id),
            Fate::TooLarge => {
                self.drops.too_large(&slot.keep.client_id, outgoing.topic);
                self.note_dead(DeadReason::TooLarge, slot, outgoing);
            }
        }
    }

    /// QoS 1 and 2, to somebody who is online and for whom nothing waits. Returns the message's number, and whether the
    /// journal counts on its confirmation; `None` if it has to stand in line.
    fn send_at_once(
        &self,
        share: &Share<'_>,
        state: &mut State,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch<'_>,
    ) -> Option<(Seq, bool)> {
        let slot = share.slot;
        let is_target = slot.keep.persistent;
        // Who has promised to keep it, and cannot; and QoS 2 behind its packet id.
        let waits = share.qos == QoS::ExactlyOnce && outgoing.stored.is_some();
        if waits || (is_target && outgoing.stored.is_none()) {
            return None;
        }
        // A transient session ends with its connection, and nobody else gets this one: nobody will ask for it again.
        let is_over = !is_target && share.group.is_none() && !self.letters.is_enabled();
        let target = batch.next_target();
        let kept = || if is_over { Kept::Sent } else { outgoing.kept(slot, target) };
        let seq = state.session.deliver_at_once(&mut batch.frames, share.manner(), outgoing.now, kept);
        Some((seq?, is_target))
    }

    /// To the end of the session's queue, if it takes it. Returns as `send_at_once`.
    fn stand_in_line(
        &self,
        share: &Share<'_>,
        state: &mut State,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch<'_>,
        passes_by: bool,
    ) -> Option<(Seq, bool)> {
        let slot = share.slot;
        let &Outgoing { topic, label, stored, is_admitted, may_store, .. } = outgoing;
        let is_persistent = slot.keep.persistent;
        let online = state.session.link.is_some();
        let is_in_memory = passes_by || (!may_store && is_persistent);
        if is_in_memory && !online {
            self.drops.disk_full(&slot.keep.client_id, topic);
            return None;
        }
        if stored.is_none() && is_persistent && !is_in_memory {
            // QoS 0, to somebody who was online a moment ago.
            self.drops.asleep();
            return None;
        }
        let rule = self.queues.rule(label, slot.queue_rules());
        let must_fit = match self.queues.overflow(rule) {
            Overflow::DropOldest => is_in_memory,
            Overflow::DropNewest => true,
            Overflow::Reject => !is_admitted,
        };
        let has_room = || state.session.outbound.has_room(size_bytes(topic, outgoing.publish), rule);
        if must_fit && !has_room() {
            self.drops.newest(&slot.keep.client_id, topic);
            batch.newest.extend(self.dead_newest(slot).filter(|_| !is_reserved(topic.as_str())));
            return None;
        }
        let kept = if is_in_memory {
            // What it stands behind will not keep it for long; or nobody was promised more.
            Kept::Memory {
                message: outgoing.copy(),
                after: outgoing.after_will.cloned().unwrap_or(Gate::Open),
            }
        } else {
            outgoing.kept(slot, batch.next_target())
        };
        let is_target = matches!(kept, Kept::Journal { .. });
        let seq = state.session.outbound.deliver(&slot.keep, kept, share.manner().to_delivery(), rule);
        Some((seq, is_target))
    }

    /// The member that was chosen is gone: the next in turn gets it. Who has joined meanwhile counts too.
    fn deliver_to_another(
        &self,
        group: &TopicFilter,
        gone: &Slot,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch<'_>,
        touched: &mut Touched,
    ) {
        let mut passed_over = vec![gone.no];
        loop {
            let members = self.group(group);
            let chosen = members.as_ref().and_then(|members| members.choose(&passed_over));
            let Some((slot, subscription)) = chosen else {
                if outgoing.publish.qos != QoS::AtMostOnce {
                    self.drops.no_member(group);
                    self.note_dead(DeadReason::NoMember, gone, outgoing);
                }
                return;
            };
            let share = group_share(slot, subscription, group, outgoing.publish);
            if self.deliver(&share, outgoing, batch, touched) == Met::Yes {
                return;
            }
            passed_over.push(slot.no);
        }
    }
}
