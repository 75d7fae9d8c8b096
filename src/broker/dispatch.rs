//! From a publisher to its subscribers: resolve, deliver, and hand what must be kept to the journal.
//!
//! A message that a persistent session must keep is known to the journal as a whole only after it was pushed to all
//! its targets; confirmations that arrive before that are remembered on the message itself, so none can precede it in
//! the journal. No session's lock is held while another's is taken.

mod dead;

use std::{collections::HashMap, sync::Arc, task::Waker, time::Duration};

use super::{
    Broker,
    dead_letters::{DeadReason, Loss, is_reserved},
    keep::Kept,
    shared::Group,
    slot::Slot,
};
use crate::{
    codec::{PacketId, Publish, QoS},
    message::{Delivery, Message, SessionNo},
    routing::{Match, Subscription},
    session::{Fate, Overflow},
    store::{Completion, Gate, Stored, Target},
    sync::lock,
    time::Timestamp,
    topic::{Label, TopicError, TopicFilter, TopicName},
};

/// Connections that got something during a batch of packets. Each is woken once, when this is dropped: at the end of
/// the batch, on an early return, and on unwinding alike.
#[derive(Default)]
pub(super) struct Touched(Vec<Waker>);

impl Touched {
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

/// A topic's subscribers at one generation of the subscriptions.
pub(super) struct Route {
    generation: u64,
    pub(super) topic: TopicName,
    /// Which rules for queues its messages may be under.
    pub(super) label: Label,
    direct: Vec<(Arc<Slot>, Match<SessionNo>)>,
    pub(super) groups: Vec<Group>,
}

impl Route {
    /// Whether it leads to nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }
}

/// The routes of the topics a client publishes to. Devices publish to the same few for ever.
#[derive(Default)]
pub(super) struct RouteCache {
    routes: HashMap<Box<str>, Arc<Route>>,
    /// Of the message before: the next one mostly goes the same way, and to compare is cheaper than to hash.
    last: Option<Arc<Route>>,
}

/// A client that has owed an acknowledgement for so long will not spare the disk this message: holding it back would
/// only keep its publisher waiting.
const SILENT_AFTER: Duration = Duration::from_millis(100);
/// Topics remembered per connection.
const ROUTES_MAX: usize = 64;

impl RouteCache {
    /// The route of `topic`, resolved anew when subscriptions have changed since.
    pub(super) fn resolve(&mut self, broker: &Broker, topic: &str) -> Result<Arc<Route>, TopicError> {
        let generation = broker.generation();
        if let Some(last) = &self.last
            && last.generation == generation
            && last.topic.as_str() == topic
        {
            return Ok(Arc::clone(last));
        }
        let route = self.look_up(broker, topic, generation)?;
        self.last = Some(Arc::clone(&route));
        Ok(route)
    }

    fn look_up(&mut self, broker: &Broker, topic: &str, generation: u64) -> Result<Arc<Route>, TopicError> {
        let name = match self.routes.get(topic) {
            Some(route) if route.generation == generation => return Ok(Arc::clone(route)),
            Some(stale) => stale.topic.clone(),
            None => TopicName::parse(topic)?,
        };
        let route = Arc::new(broker.route(name));
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        self.routes.insert(topic.into(), Arc::clone(&route));
        Ok(route)
    }
}

/// Where a message came from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The publisher's session; its `state` is not locked by this thread.
    pub(super) slot: &'a Slot,
    /// A new QoS 2 packet id, to be held until PUBREL and journalled with the message.
    pub(super) inbound_qos2: Option<PacketId>,
    /// Its publisher waits for an acknowledgement, and can be told that it was refused.
    pub(super) is_answered: bool,
}

/// What became of a published message.
pub(super) struct Published {
    /// Opens when the publisher may be told so.
    pub(super) gate: Gate,
    /// Whether any subscription matched.
    pub(super) matched: bool,
}

/// Why nothing was kept of a message; the publisher has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// No room for another retained message.
    #[error("the bound on retained messages is reached")]
    RetainedFull,
    /// A subscriber's queue is full, and its policy is to refuse.
    #[error("the queue of a subscriber is full")]
    QueueFull,
    /// No room to store it.
    #[error("the disk is full")]
    DiskFull,
    /// The journal has failed.
    #[error("the store has failed")]
    StoreFailed,
}

/// One subscriber's share of a message.
pub(super) struct Share<'a> {
    pub(super) slot: &'a Arc<Slot>,
    delivery: Delivery,
    /// The shared subscription as whose member it was chosen.
    pub(super) group: Option<&'a TopicFilter>,
}

/// One message on its way.
struct Outgoing<'a> {
    publish: &'a Publish<'a>,
    topic: &'a TopicName,
    label: Label,
    /// Its publisher has been admitted: no queue may refuse it now.
    is_admitted: bool,
    /// There is room on the disk for it.
    may_store: bool,
    /// Its copy, if something outlives the read.
    message: Option<&'a Arc<Message>>,
    stored: Option<&'a Arc<Stored>>,
    now: Timestamp,
}

impl Outgoing<'_> {
    /// The message, as something that outlives the read.
    fn copy(&self) -> Arc<Message> {
        let copy = || Arc::new(Message::from_packet(self.topic.clone(), self.publish, self.now));
        self.message.map_or_else(copy, Arc::clone)
    }
}

/// Whether a subscriber was still one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    /// Its session has ended, or left the group, since the route was resolved.
    Gone,
}

impl Broker {
    pub(super) fn route(&self, topic: TopicName) -> Route {
        let (generation, matches) = {
            let subscriptions = self.subscriptions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            (subscriptions.generation(), subscriptions.resolve(&topic))
        };
        let registry = lock(&self.registry);
        let slot = |no: SessionNo| registry.by_no(no);
        let direct = matches.direct.into_iter().filter_map(|m| Some((slot(m.subscriber)?, m))).collect();
        let groups = matches.groups.into_iter();
        let groups = groups.map(|matched| Group::new(matched, &registry));
        let label = self.queues.labels().of(&topic);
        Route { generation, topic, label, direct, groups: groups.collect() }
    }

    /// Routes one message. `publish` carries it; its topic is `route.topic`.
    pub(super) fn dispatch(
        &self,
        route: &Route,
        publish: &Publish<'_>,
        origin: Origin<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Result<Published, Refused> {
        let mut shares = shares(route, publish, Some(origin.slot.no));
        if origin.is_answered {
            self.find_room(&mut shares, route, publish)?;
        }
        let matched = !shares.is_empty();
        let persistent = |s: &Share<'_>| s.slot.keep.persistent && self.keeps(s);
        let must_keep = shares.iter().any(persistent);
        // [MQTT-3.3.1-7], [MQTT3-3.3.1-11]
        let mut retain = publish.retain && !publish.payload.is_empty();
        let inbound = origin.inbound_qos2.filter(|_| origin.slot.keep.persistent);
        if (must_keep || publish.retain || inbound.is_some()) && self.journal.poisoned() {
            return Err(Refused::StoreFailed);
        }
        // The body is copied out of the read buffer once, and only if something outlives the read.
        let queued = shares.iter().any(|s| self.keeps(s));
        // A member may be gone when its turn comes, and another one needs what it did not.
        let may_pass_on = publish.qos != QoS::AtMostOnce && !route.groups.is_empty();
        let message = (queued || may_pass_on || retain || inbound.is_some())
            .then(|| Arc::new(Message::from_packet(route.topic.clone(), publish, now)));
        let has_to_store = must_keep || retain || inbound.is_some();
        let stored = message.as_ref().filter(|_| has_to_store || may_pass_on);
        let stored = if has_to_store {
            stored.and_then(|message| self.journal.message_if_room(message))
        } else {
            stored.map(|message| self.journal.message(Arc::clone(message)))
        };
        let may_store = stored.is_some() || !has_to_store;
        if !may_store && origin.is_answered {
            return Err(Refused::DiskFull);
        }
        if !may_store && retain {
            self.drops.not_retained(&origin.slot.client_id, &route.topic, Refused::DiskFull);
            retain = false;
        }
        // [MQTT-3.3.1-8], [MQTT3-3.3.1-12]
        let replaced = if publish.retain && (retain || publish.payload.is_empty()) {
            match self.set_retained(&route.topic, message.as_ref().filter(|_| retain), stored.as_ref()) {
                Ok(replaced) => Some(replaced),
                // Who cannot be told is not refused: those who are there get it, and the topic keeps what it has.
                Err(Refused::RetainedFull) if !origin.is_answered => {
                    self.drops.not_retained(&origin.slot.client_id, &route.topic, Refused::RetainedFull);
                    None
                }
                Err(refused) => {
                    if let Some(stored) = &stored {
                        self.journal.withdraw(stored);
                    }
                    return Err(refused);
                }
            }
        } else {
            None
        };
        let mut batch = Batch::new();
        let outgoing = Outgoing {
            publish,
            topic: &route.topic,
            label: route.label,
            is_admitted: origin.is_answered,
            may_store,
            message: message.as_ref(),
            stored: stored.as_ref(),
            now,
        };
        self.deliver_all(&shares, &outgoing, &mut batch, touched);
        let letters = self.send_newest(&mut batch, &outgoing, touched);
        // The id is held and handed to the journal under one lock, so that a snapshot has both or neither.
        let mut own = origin.inbound_qos2.map(|_| origin.slot.state());
        let gate = match &stored {
            Some(stored) => {
                let completion = Completion {
                    publisher: origin.slot.keep.persistent.then_some(origin.slot.no),
                    inbound_qos2: inbound,
                    retained: replaced.as_ref().and_then(|r| r.version),
                    // A will's session is about to forget it: held back, a crash would leave it to nobody.
                    may_elide: batch.may_elide
                        && origin.is_answered
                        && publish.qos != QoS::ExactlyOnce
                        && !publish.retain,
                    keep_body: batch.is_awaited,
                };
                self.journal.complete(stored, batch.targets, completion);
                let gate = Gate::Message(Arc::clone(stored));
                // One that needs no commit for itself waits all the same for what became of its topic.
                if replaced.is_some() && self.journal.is_open(&gate) {
                    self.retained_gate(&route.topic)
                } else {
                    gate
                }
            }
            // Nothing was kept but, perhaps, the clearing of the topic.
            None if replaced.is_some() => self.retained_gate(&route.topic),
            None => Gate::Open,
        };
        // Behind the letters of those that do not get it.
        let is_own = stored.as_ref().is_some_and(|s| !self.journal.is_open(&Gate::Message(Arc::clone(s))));
        let gate = if is_own || matches!(letters, Gate::Open) { gate } else { letters };
        if let Some((id, own)) = origin.inbound_qos2.zip(own.as_mut()) {
            own.session.inbound.accept(id, gate.clone());
        }
        drop(own);
        if let Some(replaced) = &replaced {
            self.let_go_of_replaced(replaced);
        }
        Ok(Published { gate, matched })
    }

    /// Gives each subscriber its share; that of a member that is gone to another one.
    fn deliver_all(
        &self,
        shares: &[Share<'_>],
        outgoing: &Outgoing<'_>,
        batch: &mut Batch,
        touched: &mut Touched,
    ) {
        for share in shares {
            if self.deliver(share, outgoing, batch, touched) == Met::Gone
                && let Some(group) = share.group
            {
                self.deliver_to_another(group, share.slot, outgoing, batch, touched);
            }
        }
    }

    /// Whether the share is queued rather than written out or let go at once.
    pub(super) fn keeps(&self, share: &Share<'_>) -> bool {
        share.delivery.qos != QoS::AtMostOnce || (self.config.queue_qos0 && !share.slot.is_online())
    }

    /// Gives one subscriber its share.
    fn deliver(
        &self,
        share: &Share<'_>,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch,
        touched: &mut Touched,
    ) -> Met {
        let &Outgoing { publish, topic, message, stored, now, label, is_admitted, may_store } = outgoing;
        let slot = share.slot;
        let mut state = slot.state();
        let has_left = |group: &TopicFilter| !state.session.subscriptions.contains_key(group);
        if state.ended || share.group.is_some_and(has_left) {
            return Met::Gone;
        }
        let online = state.session.link.is_some();
        let passes_by = share.delivery.qos == QoS::AtMostOnce && (online || !self.config.queue_qos0);
        // Section 4.6: behind those of its kind that waited while the client slept.
        let stands_in_line = passes_by && online && state.session.outbound.holds_at_most_once();
        if passes_by && !stands_in_line {
            if online {
                let mut packet = at_most_once(publish, topic, &share.delivery);
                match state.session.deliver_at_most_once(&slot.keep, &mut packet, topic, now) {
                    Fate::Sent => {}
                    Fate::NoRoom => self.drops.slow_reader(&slot.client_id),
                    Fate::TooLarge => {
                        self.drops.too_large(&slot.client_id, topic);
                        self.note_dead(DeadReason::TooLarge, slot, outgoing);
                    }
                }
                slot.note_busy(&state);
                touched.add(state.notify());
            } else {
                self.drops.asleep();
            }
            return Met::Yes;
        }
        let is_in_memory = stands_in_line || (!may_store && slot.keep.persistent);
        if is_in_memory && !online {
            self.drops.disk_full(&slot.client_id, topic);
            return Met::Yes;
        }
        let rule = self.queues.rule(label, &slot.client_id);
        let must_fit = match self.queues.overflow(rule) {
            Overflow::DropOldest => is_in_memory,
            Overflow::DropNewest => true,
            Overflow::Reject => !is_admitted,
        };
        let bytes = topic.as_str().len() + publish.payload.len();
        if must_fit && !state.session.outbound.has_room(bytes, rule) {
            self.drops.newest(&slot.client_id, topic);
            batch.newest.extend(self.dead_newest(slot).filter(|_| !is_reserved(topic.as_str())));
            return Met::Yes;
        }
        let kept = if is_in_memory {
            // What it stands behind will not keep it for long; or nobody was promised more.
            Kept::Memory { message: outgoing.copy(), after: Gate::Open }
        } else {
            let Some(message) = message else { return Met::Yes };
            match stored {
                Some(stored) if slot.keep.persistent => {
                    Kept::Journal { stored: Arc::clone(stored), target: batch.next_target() }
                }
                stored => {
                    let wait = publish.qos == QoS::ExactlyOnce;
                    let after = stored.filter(|_| wait).map_or(Gate::Open, |s| Gate::Message(Arc::clone(s)));
                    Kept::Memory { message: Arc::clone(message), after }
                }
            }
        };
        let is_target = matches!(kept, Kept::Journal { .. });
        let seq = state.session.outbound.deliver(&slot.keep, kept, share.delivery.clone(), rule);
        if let Some(group) = share.group {
            state.session.outbound.mark_shared(seq, group.clone());
        }
        if online {
            state.encode_ready(&slot.keep, now);
        }
        let sent = online && !state.session.outbound.has_backlog();
        let silent = state.session.outbound.awaited_since().is_some_and(|at| now.since(at) > SILENT_AFTER);
        let is_awaited = online && !sent && state.session.outbound.sends_soon();
        self.reserve_numbers(slot, &mut state);
        slot.note_busy(&state);
        touched.add(state.notify());
        if !online && is_target {
            state.session.outbound.rest_now_and_then(&slot.keep);
        }
        self.note_restless(slot, &state);
        drop(state);
        if is_target {
            batch.may_elide &= sent && !silent;
            batch.is_awaited |= is_awaited;
            let (session, delivery, group) = (slot.no, share.delivery.clone(), share.group.cloned());
            batch.targets.push(Target { session, seq, delivery, group });
        }
        Met::Yes
    }

    /// The member that was chosen is gone: the next in turn gets it. Who has joined meanwhile counts too.
    fn deliver_to_another(
        &self,
        group: &TopicFilter,
        gone: &Slot,
        outgoing: &Outgoing<'_>,
        batch: &mut Batch,
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

/// What dispatching one message has gathered.
struct Batch {
    targets: Vec<Target>,
    /// Every persistent target was sent it, and acknowledges what it is sent.
    may_elide: bool,
    /// Somebody online is about to be sent it: its body stays in memory.
    is_awaited: bool,
    /// Whose queues keep what they have, where a letter says so.
    newest: Vec<Loss>,
}

impl Batch {
    fn new() -> Self {
        Self { targets: Vec::new(), may_elide: true, is_awaited: false, newest: Vec::new() }
    }

    fn next_target(&self) -> u32 {
        u32::try_from(self.targets.len()).unwrap_or(u32::MAX)
    }
}

/// Who gets the message, each once.
fn shares<'a>(route: &'a Route, publish: &Publish<'_>, publisher: Option<SessionNo>) -> Vec<Share<'a>> {
    let mut shares = Vec::with_capacity(route.direct.len() + route.groups.len());
    for (slot, matched) in &route.direct {
        // [MQTT-3.8.3-3]: a "no local" subscription does not hear its own client.
        let matched = if publisher == Some(slot.no) { matched.for_publisher() } else { Some(matched) };
        let Some(matched) = matched else { continue };
        let delivery = Delivery {
            // [MQTT-3.8.4-8], [MQTT3-3.8.4-6]
            qos: publish.qos.min(matched.qos),
            // [MQTT-3.3.1-12], [MQTT-3.3.1-13], [MQTT3-3.3.1-9]
            retain: publish.retain && matched.retain_as_published,
            subscription_ids: matched.subscription_ids.clone(),
        };
        shares.push(Share { slot, delivery, group: None });
    }
    for group in &route.groups {
        if let Some((slot, subscription)) = group.choose(&[]) {
            shares.push(group_share(slot, subscription, group.name(), publish));
        }
    }
    shares
}

/// What a member gets that was chosen for its group.
pub(super) fn group_share<'a>(
    slot: &'a Arc<Slot>,
    subscription: Subscription,
    group: &'a TopicFilter,
    publish: &Publish<'_>,
) -> Share<'a> {
    let delivery = Delivery {
        qos: publish.qos.min(subscription.options.qos),
        retain: publish.retain && subscription.options.retain_as_published,
        // [MQTT-3.3.4-5]: its copy is one of its own.
        subscription_ids: subscription.subscription_id.into_iter().collect(),
    };
    Share { slot, delivery, group: Some(group) }
}

/// The PUBLISH for one QoS 0 subscriber, from the publisher's own packet.
fn at_most_once<'a>(publish: &Publish<'a>, topic: &'a TopicName, delivery: &Delivery) -> Publish<'a> {
    let mut packet = publish.clone();
    // [MQTT-3.3.1-2], [MQTT-3.3.1-3], [MQTT3-3.3.1-2], [MQTT3-3.3.1-3]: the publisher's DUP goes no further.
    packet.dup = false;
    packet.qos = QoS::AtMostOnce;
    packet.retain = delivery.retain;
    packet.packet_id = None;
    packet.topic = topic.as_str();
    packet.properties.topic_alias = None;
    packet.properties.subscription_ids.clone_from(&delivery.subscription_ids);
    packet
}
