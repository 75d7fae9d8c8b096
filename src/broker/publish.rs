//! PUBLISH from a client.

use tracing::warn;

use super::{
    admission::{DISK_FULL, RESERVED},
    connection::{Connection, Ending, is_owed_too_much},
    dead_letters::is_reserved,
    dispatch::{Origin, Published, ROW_BYTES_MAX, ROW_MAX, Refused, Route, Touched},
    stats::Traffic,
};
use crate::{
    codec::{Packet, PacketId, Publish, QoS, ReasonCode, Version, decode_next},
    session::{AliasError, Answer, Arrival, Verdict},
    store::Gate,
    telemetry::Counter,
    time::Timestamp,
};

impl Connection {
    /// Handles a message, and those that follow it in `rest` and go the same way; how many bytes of it that took. `before` is
    /// the route of the message before.
    pub(super) fn handle_publishes<'p>(
        &mut self,
        first: &Publish<'p>,
        rest: &'p [u8],
        before: Option<&'p Route>,
        now: Timestamp,
        touched: &mut Touched,
        traffic: &mut Traffic,
    ) -> Result<usize, Ending> {
        let route = before.filter(|before| before.takes_rows && is_publish(rest));
        let route = route.filter(|route| self.goes_in_row(first, route));
        let Some(route) = route.filter(|route| route.leads_on(&self.broker, first.topic)) else {
            return self.handle_publish(first, before, now, touched).map(|()| 0);
        };
        let is_answered = first.qos != QoS::AtMostOnce;
        if is_answered {
            self.check_quota()?;
        }
        let (row, used) = self.row(first.clone(), rest, route);
        if first.qos == QoS::ExactlyOnce && !self.are_new(&row)? {
            return self.handle_publish(first, before, now, touched).map(|()| 0);
        }
        traffic.count_publishes(first.qos, row.len() - 1, used);
        let origin = Origin { slot: &self.slot, inbound_qos2: None, is_answered, is_will: false };
        let published = self.broker.dispatch_row(route, &row, origin, now, touched);
        self.answer_row(&row, published, now)?;
        Ok(used)
    }

    /// The messages that may be given to their subscribers together, and the bytes of those behind the first. What is wrong with
    /// the one behind them, if it is, is found by whoever handles it.
    fn row<'p>(&self, first: Publish<'p>, rest: &'p [u8], route: &'p Route) -> (Vec<Publish<'p>>, usize) {
        let qos = first.qos;
        let quota = usize::from(self.broker.config.receive_maximum);
        let has_quota = |count: usize| {
            qos == QoS::AtMostOnce || self.version != Version::V5 || self.unanswered as usize + count < quota
        };
        let mut row = vec![first];
        let mut used = 0;
        while row.len() < ROW_MAX && used < ROW_BYTES_MAX && has_quota(row.len()) {
            let next = rest.get(used..).unwrap_or_default();
            let Some((publish, bytes)) = self.next_of_row(next, route).filter(|(p, _)| p.qos == qos) else {
                break;
            };
            // Else one of them could be the other again.
            let ascends = row.last().is_some_and(|last| last.packet_id < publish.packet_id);
            if qos == QoS::ExactlyOnce && !ascends {
                break;
            }
            used += bytes;
            row.push(publish);
        }
        (row, used)
    }

    /// The message that `input` begins with, if it may go with the one before it, and its bytes.
    fn next_of_row<'p>(&self, input: &'p [u8], route: &'p Route) -> Option<(Publish<'p>, usize)> {
        let packet_bytes_max = self.broker.config.packet_bytes_max;
        let (version, topic) = (self.version, &route.topic);
        if let Some((publish, bytes)) = Publish::decode_plain(input, version, packet_bytes_max, topic) {
            // Without properties it asks for no more than that one.
            let asks_more = publish.retain || (publish.qos == QoS::ExactlyOnce && publish.dup);
            return (!asks_more).then_some((publish, bytes));
        }
        if !is_publish(input) {
            return None;
        }
        let decoded = decode_next(input, version, packet_bytes_max, Some(topic));
        let Ok(Some((Packet::Publish(publish), bytes))) = decoded else { return None };
        self.goes_in_row(&publish, route).then_some((publish, bytes))
    }

    /// Whether this message asks for nothing that is done one by one.
    fn goes_in_row(&self, publish: &Publish<'_>, route: &Route) -> bool {
        let properties = &publish.properties;
        let features = &self.broker.config.features;
        (publish.qos != QoS::ExactlyOnce || self.is_exactly_once_in_memory(publish, route))
            && route.is_of(publish.topic)
            && !publish.retain
            && properties.topic_alias.is_none()
            && properties.subscription_ids.is_empty()
            && features.check_publish(publish).is_ok()
            && features.check_payload(properties, publish.payload).is_ok()
    }

    /// Whether a QoS 2 message comes for the first time, as far as it tells, and nothing of it has to be stored: neither its
    /// packet id, nor the message for a subscriber.
    fn is_exactly_once_in_memory(&self, publish: &Publish<'_>, route: &Route) -> bool {
        !publish.dup && !self.slot.keep.persistent && !route.has_persistent
    }

    /// Whether none of these QoS 2 packet ids is held.
    fn are_new(&self, row: &[Publish<'_>]) -> Result<bool, Ending> {
        self.with_state(|state, _| {
            let inbound = &state.session.inbound;
            inbound.is_empty()
                || row.iter().filter_map(|publish| publish.packet_id).all(|id| !inbound.holds(id))
        })
    }

    /// Answers each, under one hold of the lock.
    fn answer_row(
        &mut self,
        row: &[Publish<'_>],
        published: Vec<Result<Published, Refused>>,
        now: Timestamp,
    ) -> Result<(), Ending> {
        if published.iter().any(Result::is_err) {
            for (publish, published) in row.iter().zip(published) {
                match published {
                    Ok(published) => self.accept_publish(publish, published, now)?,
                    Err(refused) => self.refuse_publish(publish, refused, now)?,
                }
            }
            return Ok(());
        }
        if row.first().is_none_or(|first| first.qos == QoS::AtMostOnce) {
            return Ok(());
        }
        let mut state = self.slot.state();
        if !state.is_served_by(self.epoch) {
            return Err(Ending::Replaced);
        }
        for (publish, Published { gate, matched, to_hold }) in row.iter().zip(published.into_iter().flatten())
        {
            let Some(id) = publish.packet_id else { continue };
            if let Some(id) = to_hold {
                state.session.inbound.accept(id, gate.clone());
            }
            if let Some(link) = &mut state.session.link {
                link.count_publish();
            }
            state.answer(gate, answer(publish, id, self.reason(matched).into()), now);
        }
        if let Some(link) = &state.session.link {
            self.unanswered = link.unanswered();
            self.paused |= is_owed_too_much(link, &self.broker);
        }
        Ok(())
    }

    /// `before` is the route of the message before.
    fn handle_publish(
        &mut self,
        publish: &Publish<'_>,
        before: Option<&Route>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Result<(), Ending> {
        // [MQTT-3.3.4-6]
        if !publish.properties.subscription_ids.is_empty() {
            return Err(Ending::Refused(
                ReasonCode::ProtocolError,
                "a subscription identifier from a client",
            ));
        }
        self.broker.config.features.check_publish(publish)?;
        if publish.qos != QoS::AtMostOnce {
            self.check_quota()?;
        }
        let aliased;
        let topic = match publish.properties.topic_alias {
            Some(alias) => {
                aliased = self.aliases().resolve(alias, publish.topic).cloned().map_err(bad_alias)?;
                aliased.as_str()
            }
            None => publish.topic,
        };
        let resolved;
        let route = if let Some(before) = before.filter(|before| before.leads_on(&self.broker, topic)) {
            before
        } else {
            resolved = self.routes.resolve(&self.broker, topic);
            // [MQTT-3.3.2-2]
            let Ok(route) = &resolved else {
                return Err(Ending::Refused(ReasonCode::TopicNameInvalid, "an invalid topic name"));
            };
            route
        };
        if is_reserved(topic) {
            return self.refuse_reserved(publish, now);
        }
        let inbound_qos2 = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce);
        if let Some(id) = inbound_qos2
            && self.answer_duplicate(id, now)?
        {
            return Ok(());
        }
        if let Err(verdict) = self.broker.config.features.check_payload(&publish.properties, publish.payload)
        {
            return self.refuse_payload(publish, verdict, now);
        }
        let is_answered = publish.qos != QoS::AtMostOnce;
        let origin = Origin { slot: &self.slot, inbound_qos2, is_answered, is_will: false };
        let published = self.broker.dispatch(route, publish, origin, now, touched);
        match published {
            Ok(published) => self.accept_publish(publish, published, now),
            Err(refused) => self.refuse_publish(publish, refused, now),
        }
    }

    /// [MQTT-3.3.4-7]: a v5 client keeps to the receive maximum it was given.
    fn check_quota(&mut self) -> Result<(), Ending> {
        let quota = u32::from(self.broker.config.receive_maximum);
        if self.version != Version::V5 || self.unanswered < quota {
            return Ok(());
        }
        // That was so when the last one was answered.
        self.unanswered = self.with_state(|state, _| {
            state.session.link.as_deref().map_or(0, crate::session::Link::unanswered)
        })?;
        if self.unanswered < quota {
            return Ok(());
        }
        Err(Ending::Refused(ReasonCode::ReceiveMaximumExceeded, "more in flight than the receive maximum"))
    }

    /// A QoS 2 message that came before is answered when its first copy is durable, and routed no second time
    /// [MQTT-4.3.3-10].
    fn answer_duplicate(&mut self, id: PacketId, now: Timestamp) -> Result<bool, Ending> {
        let gate = self.with_state(|state, _| match state.session.inbound.arrival(id) {
            Arrival::New => None,
            Arrival::Duplicate(gate) => Some(gate),
        })?;
        let Some(gate) = gate else { return Ok(false) };
        self.answer(gate, Answer::Pubrec(id, Verdict::SUCCESS), None, now)?;
        Ok(true)
    }

    fn accept_publish(
        &mut self,
        publish: &Publish<'_>,
        published: Published,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let Published { gate, matched, to_hold } = published;
        let reason = self.reason(matched);
        let Some(id) = publish.packet_id else { return Ok(()) };
        self.answer(gate, answer(publish, id, reason.into()), to_hold, now)
    }

    fn reason(&self, matched: bool) -> ReasonCode {
        let v5 = self.version == Version::V5;
        if v5 && !matched { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success }
    }

    /// Nothing was kept. v5 is told why; v3 has no word for it but a closed connection without an acknowledgement.
    fn refuse_publish(
        &mut self,
        publish: &Publish<'_>,
        refused: Refused,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let counters = &self.broker.counters;
        let (reason, why, counter) = match refused {
            Refused::RetainedFull => {
                let why = "the bound on retained messages is reached";
                (ReasonCode::QuotaExceeded, why, Some(&counters.retained_full))
            }
            Refused::QueueFull => (ReasonCode::QuotaExceeded, "the queue of a subscriber is full", None),
            Refused::DiskFull => {
                self.broker.journal.refused(publish.encoded_len(self.version));
                (DISK_FULL.reason, DISK_FULL.why, Some(&counters.disk_full))
            }
            Refused::StoreFailed => {
                let why = "the store has failed";
                (ReasonCode::ImplementationSpecificError, why, Some(&counters.store_failed))
            }
        };
        // A full queue was counted and logged where it was found, with whose it is.
        if let Some(total) = counter.and_then(Counter::count) {
            warn!(client_id = self.client_id(), topic = publish.topic, total, "publish refused: {why}");
        }
        match publish.qos {
            QoS::AtMostOnce => Ok(()),
            _ if self.version == Version::V5 => {
                self.answer_publish(publish, Gate::Open, Verdict::refused(reason, why), now)
            }
            _ => Err(Ending::Refused(reason, why)),
        }
    }

    /// Only v5 has an answer, and that for QoS 1 and 2; the others are shown out [MQTT3-3.3.5-2].
    fn refuse_reserved(&mut self, publish: &Publish<'_>, now: Timestamp) -> Result<(), Ending> {
        if self.version == Version::V5 && publish.qos != QoS::AtMostOnce {
            self.answer_publish(publish, Gate::Open, RESERVED, now)
        } else {
            Err(RESERVED.into())
        }
    }

    /// Section 3.3.2.3.2. QoS 0 has no answer but DISCONNECT.
    fn refuse_payload(
        &mut self,
        publish: &Publish<'_>,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), Ending> {
        match publish.qos {
            QoS::AtMostOnce => Err(verdict.into()),
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.answer_publish(publish, Gate::Open, verdict, now),
        }
    }

    /// [MQTT-3.3.4-1], [MQTT3-3.3.4-1]
    fn answer_publish(
        &mut self,
        publish: &Publish<'_>,
        gate: Gate,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let Some(id) = publish.packet_id else { return Ok(()) };
        self.answer(gate, answer(publish, id, verdict), None, now)
    }

    /// Counts a PUBLISH and answers it. The packet id `to_hold` is held until PUBREL.
    fn answer(
        &mut self,
        gate: Gate,
        answer: Answer,
        to_hold: Option<PacketId>,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let mut state = self.slot.state();
        if !state.is_served_by(self.epoch) {
            return Err(Ending::Replaced);
        }
        if let Some(id) = to_hold {
            state.session.inbound.accept(id, gate.clone());
        }
        if let Some(link) = &mut state.session.link {
            link.count_publish();
        }
        state.answer(gate, answer, now);
        if let Some(link) = &state.session.link {
            self.unanswered = link.unanswered();
            self.paused |= is_owed_too_much(link, &self.broker);
        }
        Ok(())
    }
}

/// Whether the next packet is a PUBLISH.
fn is_publish(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 3)
}

fn answer(publish: &Publish<'_>, id: PacketId, verdict: Verdict) -> Answer {
    if publish.qos == QoS::ExactlyOnce { Answer::Pubrec(id, verdict) } else { Answer::Puback(id, verdict) }
}

fn bad_alias(error: AliasError) -> Ending {
    match error {
        AliasError::AboveMaximum => {
            Ending::Refused(ReasonCode::TopicAliasInvalid, "a topic alias above the maximum")
        }
        AliasError::Unset => {
            Ending::Refused(ReasonCode::ProtocolError, "a topic alias that stands for no topic")
        }
        // [MQTT-3.3.2-2]
        AliasError::Invalid(_) => Ending::Refused(ReasonCode::TopicNameInvalid, "an invalid topic name"),
    }
}
