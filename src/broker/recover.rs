//! Between the journal and memory: sessions brought back at start, and snapshots given when the journal asks.

use std::sync::Arc;

use super::{
    Broker,
    connect::unrecorded_wakes,
    slot::{Slot, State},
    subscribe,
};
use crate::{
    message::SessionNo,
    session::{Outbound, Session, SubscriptionTerms},
    store::{Gate, Record, RecoveredSession, Snapshot, SnapshotSource, Urgency},
    sync::lock,
    time::Timestamp,
};

impl Broker {
    /// Puts a session back to where the journal had it. One that was connected counts as disconnected now, by the
    /// broker's own fall: its expiry and its will's delay begin.
    pub(super) fn recover_session(&self, recovered: RecoveredSession, now: Timestamp) {
        let RecoveredSession { snapshot, queue, groups, labels } = recovered;
        let Snapshot { mut record, subscriptions, inbound_qos2, received } = snapshot;
        let was_connected = record.expires_at == Timestamp::NEVER;
        let latest_end = now.after(record.expiry);
        let mut spared_until = Timestamp::default();
        if was_connected {
            record.expires_at = latest_end;
        } else {
            // Not in the record: the next crash would add to it again.
            spared_until = record.expires_at.after(unrecorded_wakes(record.expiry)).min(latest_end);
        }
        // That of a session asleep has no due time when its client had said good-bye.
        if let Some(will) = record.will.as_mut().filter(|w| was_connected && w.due_at == Timestamp::NEVER) {
            will.due_at = now.after(will.delay);
        }
        let keep = self.keep(record.session, &record.client_id, true);
        let mut outbound =
            Outbound::new(record.seq_reserved, record.seq_reserved, record.inflight_max, self.config.queue);
        outbound.recover(&keep, &received, &queue, record.sent_below);
        // What counts as sent now is what does from now on. It is written with the first message that comes, which reserves numbers.
        record.sent_below = outbound.sent_below();
        outbound.recover_shared(groups);
        let queue_rules = self.queues.rules_for(&record.client_id, record.user_name.as_deref());
        let rule = |label| Some(self.queues.rule(label, queue_rules)?.no);
        let ruled = labels.into_iter().filter_map(|(seq, label)| Some((seq, rule(label)?)));
        outbound.recover_rules(&keep, ruled);
        let mut session = Session::new(outbound);
        for id in inbound_qos2 {
            session.inbound.accept(id, Gate::Open);
        }
        for s in &subscriptions {
            let terms = SubscriptionTerms { options: s.options, id: s.subscription_id };
            session.subscriptions.insert(s.filter.clone(), terms);
        }
        let (no, client_id) = (record.session, Arc::clone(&record.client_id));
        let state = State {
            session,
            connection: None,
            record,
            settled: Gate::Open,
            spared_until,
            arming: false,
            will_is_leaving: false,
            ended: false,
        };
        let due = state.next_due();
        let slot = Arc::new(Slot::new(no, client_id, keep, state, queue_rules));
        self.restore_subscriptions(&slot, &subscriptions);
        let mut registry = lock(&self.registry);
        registry.insert(&slot);
        registry.schedule(due, no);
    }
}

impl SnapshotSource for Broker {
    fn snapshot(&self, session: SessionNo) {
        let slot = lock(&self.registry).by_no(session);
        let Some(slot) = slot else {
            self.letters.snapshot(&self.journal, session);
            return;
        };
        let mut state = slot.state();
        if state.ended {
            return;
        }
        state.arming = false;
        let (inbound_qos2, received) = state.session.qos2_state();
        let subscriptions =
            state.session.subscriptions.iter().map(|(f, t)| subscribe::record(f, t)).collect();
        let snapshot = Snapshot { record: state.record.clone(), subscriptions, inbound_qos2, received };
        self.journal.append(Record::Snapshot(Box::new(snapshot)), Urgency::Rides);
    }
}
