//! PUBLISH from a client.

use tracing::warn;

use super::{
    admission::{DISK_FULL, RESERVED},
    connection::{Connection, Ending, is_owed_too_much},
    dead_letters::is_reserved,
    dispatch::{Origin, Published, Refused, Route, Touched},
};
use crate::{
    codec::{PacketId, Publish, QoS, ReasonCode, Version},
    session::{AliasError, Answer, Arrival, Verdict},
    store::Gate,
    telemetry::Counter,
    time::Timestamp,
};

impl Connection {
    /// `before` is the route of the message before.
    pub(super) fn handle_publish(
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
                aliased = self.aliases.resolve(alias, publish.topic).cloned().map_err(bad_alias)?;
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
        let origin = Origin { slot: &self.slot, inbound_qos2, is_answered };
        let published = self.broker.dispatch(route, publish, origin, now, touched);
        match published {
            Ok(published) => self.accept_publish(publish, published, now),
            Err(refused) => self.refuse_publish(publish, refused, now),
        }
    }

    /// [MQTT-3.3.4-7]: a v5 client keeps to the receive maximum it was given.
    fn check_quota(&mut self) -> Result<(), Ending> {
        let quota = usize::from(self.broker.config.receive_maximum);
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
        let v5 = self.version == Version::V5;
        let reason = if v5 && !matched { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        let Some(id) = publish.packet_id else { return Ok(()) };
        self.answer(gate, answer(publish, id, reason.into()), to_hold, now)
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
