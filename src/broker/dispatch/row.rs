//! Messages that came in one read and go the same way: each subscriber is given all of them under one hold of its session's
//! lock, and its connection is woken once.
//!
//! Ten publishers that send to one subscriber want its lock all the time, and a publisher with a hundred subscribers finds none
//! of their sessions in the cache any more when its next message comes. Whoever gets a row gets it in its order, so nobody can
//! tell it from one message after the other.

use std::sync::Arc;

use super::{
    super::{Broker, slot::Slot},
    Batch, Outgoing, Route, Touched,
    deliver::Handed,
    shares::direct_share,
};
use crate::{
    codec::{Publish, QoS},
    message::SessionNo,
    routing::Match,
    store::Gate,
    time::Timestamp,
};

/// Of a PUBLISH without properties, as a rule: fixed header, lengths and packet id.
const HEADER_BYTES: usize = 8;

/// One message of a row.
struct InRow<'a> {
    outgoing: Outgoing<'a>,
    batch: Batch<'a>,
}

/// What became of a row.
pub(in crate::broker) struct RowPublished {
    /// Open when the publisher may be told of each; in order.
    pub(in crate::broker) gates: Vec<Gate>,
    /// Whether any subscription matched.
    pub(in crate::broker) matched: bool,
}

impl Broker {
    /// Routes a row of messages of one QoS, 0 or 1, and without RETAIN: see [`Route::takes_rows`].
    pub(in crate::broker) fn dispatch_row(
        &self,
        route: &Route,
        row: &[Publish<'_>],
        publisher: &Slot,
        now: Timestamp,
        touched: &mut Touched,
    ) -> RowPublished {
        let mut rooms = vec![Vec::new(); row.len()];
        let in_row = |(publish, room)| {
            let mut outgoing = Outgoing::new(route, publish, now);
            outgoing.is_admitted = publish.qos != QoS::AtMostOnce;
            let batch = Batch::new(&outgoing, route.direct.len(), room);
            InRow { outgoing, batch }
        };
        let mut messages: Vec<_> = row.iter().zip(&mut rooms).map(in_row).collect();
        let bytes =
            row.iter().map(|publish| publish.payload.len() + route.topic.as_str().len() + HEADER_BYTES).sum();
        let mut matched = false;
        for subscriber in &route.direct {
            matched |= self.deliver_row(subscriber, &mut messages, bytes, publisher.no, touched);
        }
        let letters = |one: &mut InRow<'_>| self.send_newest(&mut one.batch, &one.outgoing, touched);
        RowPublished { gates: messages.iter_mut().map(letters).collect(), matched }
    }

    /// Gives one subscriber its share of each; `false` if it does not hear this publisher.
    fn deliver_row(
        &self,
        (slot, matched): &(Arc<Slot>, Match<SessionNo>),
        messages: &mut [InRow<'_>],
        bytes: usize,
        publisher: SessionNo,
        touched: &mut Touched,
    ) -> bool {
        let mut held = slot.state();
        let state = &mut *held;
        if !state.session.outbound.queue_waits_for_client()
            && let Some(link) = &mut state.session.link
        {
            link.expect(bytes);
        }
        let mut handed = Handed::Not;
        for InRow { outgoing, batch } in messages {
            let publish = outgoing.publish;
            let share = direct_share(slot, matched, Some(publisher), (publish.qos, publish.retain));
            let Some(share) = share else { return false };
            if !state.ended {
                handed = handed.max(self.hand_over(&share, state, outgoing, batch));
            }
        }
        self.after_handing(handed, slot, state, touched);
        true
    }
}
