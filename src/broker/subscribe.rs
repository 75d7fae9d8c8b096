//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use super::{
    Broker,
    admission::DISK_FULL,
    connection::{Connection, Ending},
    dispatch::Touched,
};
use crate::{
    codec::{
        Packet, PacketId, QoS, ReasonCode, ReasonProperties, RetainHandling, Suback, Subscribe,
        SubscribeFilter, SubscribeOptions, Unsubscribe, Version,
    },
    message::Delivery,
    routing::Subscription,
    session::{Answer, SubscriptionTerms, Verdict},
    store::{Record, SubscriptionRecord, Urgency},
    time::Timestamp,
    topic::TopicFilter,
};

/// The verdict on a filter that is none.
const INVALID_FILTER: Verdict =
    Verdict { reason: ReasonCode::TopicFilterInvalid, why: "not a valid topic filter" };

/// A filter that was granted.
struct Granted {
    filter: TopicFilter,
    terms: SubscriptionTerms,
    /// How many retained messages it gets; 0 when none are wanted.
    retained: usize,
}

impl Connection {
    /// Each filter in turn, as a packet of its own would be [MQTT-3.8.4-5], [MQTT3-3.8.4-4]; one answer
    /// [MQTT-3.8.4-1], [MQTT3-3.8.4-1], in which they have a reason each, in their order [MQTT-3.9.3-1],
    /// [MQTT3-3.9.3-1]. Returns how many retained messages were sent.
    pub(super) fn handle_subscribe(
        &self,
        subscribe: &Subscribe<'_>,
        now: Timestamp,
    ) -> Result<usize, Ending> {
        if self.version == Version::V5 {
            self.broker.config.features.check_subscribe(subscribe)?;
        }
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut granted = Vec::new();
        let mut why = "";
        // A megabyte of SUBSCRIBE holds a hundred thousand filters that match everything.
        let mut retained_left = self.broker.config.retained_messages_max;
        for asked in &subscribe.filters {
            match self.subscribe(asked, subscribe.subscription_id, retained_left)? {
                Ok(grant) => {
                    reasons.push(granted_reason(grant.terms.options.qos));
                    retained_left = retained_left.saturating_sub(grant.retained);
                    granted.push(grant);
                }
                Err(refused) => {
                    reasons.push(refused.reason);
                    why = first(why, refused.why);
                }
            }
        }
        // [MQTT-3.8.4-2], [MQTT3-3.8.4-2]
        let packet_id = subscribe.packet_id;
        self.answer_settled(why, |why| Packet::Suback(answer(packet_id, &reasons, why)), Answer::Suback)?;
        for grant in granted.iter().filter(|g| g.retained > 0) {
            self.send_retained(grant, now)?;
        }
        Ok(granted.iter().map(|g| g.retained).sum())
    }

    /// One filter: `Err(verdict)` refuses it alone, as when more than `retained_max` retained messages would follow.
    fn subscribe(
        &self,
        asked: &SubscribeFilter<'_>,
        id: Option<u32>,
        retained_max: usize,
    ) -> Result<Result<Granted, Verdict>, Ending> {
        let Ok(filter) = TopicFilter::parse(asked.filter) else { return Ok(Err(INVALID_FILTER)) };
        let shared = filter.share_name().is_some();
        // [MQTT-3.8.3-4]
        if shared && asked.options.no_local {
            return Err(Ending::Refused(ReasonCode::ProtocolError, "no local on a shared subscription"));
        }
        let broker = &self.broker;
        let features = &broker.config.features;
        if let Err(refused) = features.check_filter(&filter) {
            return Ok(Err(refused));
        }
        // [MQTT-3.2.2-10]
        let options = SubscribeOptions { qos: asked.options.qos.min(features.qos_max), ..asked.options };
        let terms = SubscriptionTerms { options, id };
        self.with_state(|state, slot| {
            let before = state.session.subscriptions.get(&filter);
            if before.is_none() && state.session.subscriptions.len() >= broker.config.subscriptions_max {
                let why = "the maximum number of subscriptions is reached";
                return Err(Verdict::refused(ReasonCode::QuotaExceeded, why));
            }
            if before.is_none() && slot.keep.persistent && !broker.journal.has_room(0) {
                return Err(DISK_FULL);
            }
            // [MQTT-3.8.4-4], [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11], [MQTT3-3.3.1-6]; a shared subscription gets no retained messages.
            let wants_retained = !shared
                && features.retain
                && match asked.options.retain_handling {
                    RetainHandling::Send => true,
                    RetainHandling::SendIfNew => before.is_none(),
                    RetainHandling::DoNotSend => false,
                };
            let retained =
                if wants_retained { broker.count_retained(&filter, retained_max) } else { Some(0) };
            let why = "more retained messages than one SUBSCRIBE may ask for";
            let retained = retained.ok_or(Verdict::refused(ReasonCode::QuotaExceeded, why))?;
            // A device subscribes anew at each wake: what has not changed is not written. What has replaces it
            // [MQTT-3.8.4-3], [MQTT3-3.8.4-3].
            if before != Some(terms) {
                state.session.subscriptions.insert(filter.clone(), terms);
                let subscription = Subscription { options: terms.options, subscription_id: id };
                broker.change_subscriptions(|all| all.insert(slot.no, &filter, subscription));
                if slot.keep.persistent {
                    let record = record(&filter, terms);
                    state.settled =
                        slot.keep.journal.append(Record::Subscribed(slot.no, record), Urgency::Now);
                }
            }
            Ok(Granted { filter: filter.clone(), terms, retained })
        })
    }

    /// Queues a SUBACK or UNSUBACK: it leaves when the session's changes are durable.
    fn answer_settled<'a>(
        &self,
        why: &'a str,
        build: impl Fn(Option<&'a str>) -> Packet<'a>,
        answer: impl FnOnce(Vec<u8>) -> Answer,
    ) -> Result<(), Ending> {
        self.with_state(|state, _| {
            let gate = state.settled.clone();
            let Some(link) = &mut state.session.link else { return Ok(()) };
            let mut bytes = Vec::new();
            // The client asked for more filters than it takes reasons for.
            if !link.terms.encode(why, build, &mut bytes) {
                let why = "an answer larger than the client's maximum packet size";
                return Err(Ending::Refused(ReasonCode::PacketTooLarge, why));
            }
            link.answer(gate, answer(bytes));
            Ok(())
        })?
    }

    /// Looked up and queued under the session's lock: a newer value waits for it, and comes after the one found.
    fn send_retained(&self, grant: &Granted, now: Timestamp) -> Result<(), Ending> {
        let Granted { filter, terms, .. } = grant;
        let broker = &self.broker;
        let stored = self.with_state(|state, slot| {
            let found = broker.retained_for(filter, now).into_iter().filter_map(|message| {
                let delivery = Delivery {
                    qos: message.qos.min(terms.options.qos),
                    // [MQTT3-3.3.1-8] and section 3.3.1.3 of 5.0.
                    retain: true,
                    subscription_ids: terms.id.into_iter().collect(),
                };
                broker.deliver_retained(slot, state, message, delivery, now)
            });
            found.collect::<Vec<_>>()
        })?;
        for (stored, target) in stored {
            broker.complete_retained(&stored, target);
        }
        Ok(())
    }

    /// Each filter in turn, as a packet of its own would be [MQTT-3.10.4-6], [MQTT3-3.10.4-6]; one answer, also if nothing
    /// ended [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT3-3.10.4-4], [MQTT3-3.10.4-5]. What was begun goes on
    /// [MQTT-3.10.4-3], [MQTT3-3.10.4-3].
    pub(super) fn handle_unsubscribe(
        &self,
        unsubscribe: &Unsubscribe<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Result<(), Ending> {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut why = "";
        for filter in &unsubscribe.filters {
            let verdict = self.unsubscribe(filter, now, touched)?;
            reasons.push(verdict.reason);
            why = first(why, verdict.why);
        }
        if self.version != Version::V5 {
            reasons.clear();
        }
        let packet_id = unsubscribe.packet_id;
        self.answer_settled(why, |why| Packet::Unsuback(answer(packet_id, &reasons, why)), Answer::Encoded)
    }

    fn unsubscribe(&self, filter: &str, now: Timestamp, touched: &mut Touched) -> Result<Verdict, Ending> {
        let Ok(filter) = TopicFilter::parse(filter) else { return Ok(INVALID_FILTER) };
        let leaving = self.with_state(|state, slot| {
            // [MQTT-3.10.4-1], [MQTT3-3.10.4-1]
            state.session.subscriptions.remove(&filter)?;
            // [MQTT-3.10.4-2], [MQTT3-3.10.4-2]
            let others = self.broker.change_subscriptions(|all| {
                all.remove(slot.no, &filter);
                all.group(&filter).is_some()
            });
            // Without another member they stay, and are delivered as those of an ordinary subscription would be.
            let outbound = &mut state.session.outbound;
            Some(if others { outbound.take_waiting(&slot.keep, &filter) } else { Vec::new() })
        })?;
        let Some(leaving) = leaving else { return Ok(ReasonCode::NoSubscriptionExisted.into()) };
        let gate = self.broker.hand_on(&self.slot, leaving, now, touched);
        // Behind them in the journal: a crash leaves them to this session or to others, never to nobody.
        let mut state = self.slot.state();
        state.session.outbound.handed_on(&self.slot.keep, gate);
        if self.slot.keep.persistent && !state.ended {
            let record = Record::Unsubscribed(self.slot.no, filter);
            state.settled = self.slot.keep.journal.append(record, Urgency::Now);
        }
        Ok(Verdict::SUCCESS)
    }
}

impl Broker {
    /// Puts a recovered session's subscriptions back.
    pub(super) fn restore_subscriptions(
        &self,
        slot: &Arc<super::slot::Slot>,
        records: &[SubscriptionRecord],
    ) {
        self.change_subscriptions(|all| {
            for SubscriptionRecord { filter, options, subscription_id } in records {
                let subscription = Subscription { options: *options, subscription_id: *subscription_id };
                all.insert(slot.no, filter, subscription);
            }
        });
    }
}

/// A subscription as the journal has it.
pub(super) fn record(filter: &TopicFilter, terms: SubscriptionTerms) -> SubscriptionRecord {
    SubscriptionRecord { filter: filter.clone(), options: terms.options, subscription_id: terms.id }
}

/// One sentence has to do for all filters of a packet: that of the first one refused.
fn first(why: &'static str, next: &'static str) -> &'static str {
    if why.is_empty() { next } else { why }
}

fn answer<'a>(packet_id: PacketId, reasons: &[ReasonCode], reason_string: Option<&'a str>) -> Suback<'a> {
    let properties = ReasonProperties { reason_string, ..ReasonProperties::default() };
    Suback { packet_id, reasons: reasons.to_vec(), properties }
}

/// [MQTT-3.8.4-7], [MQTT3-3.8.4-5]
fn granted_reason(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQos1,
        QoS::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
