//! What still leaves on a connection whose session has let go of it: the answers to the packets before its end.
//!
//! A client that says DISCONNECT, or closes its side, right behind a CONNECT, a SUBSCRIBE or a PUBLISH is answered all the
//! same [MQTT-3.1.4-5], when the disk has what the answer promises. The session does not wait for that: it is disconnected
//! at once, for routing and for its will. Whoever drives the connection says how long the answers may take.

use std::task::Waker;

use super::{Broker, connack::refusal};
use crate::{
    codec::ReasonCode,
    session::{Link, Verdict},
    store::Gate,
    time::Timestamp,
};

/// The link of a connection that has ended, and its last packet.
pub(super) struct LastAnswers {
    link: Box<Link<Gate>>,
    /// What a v5 client is told at last; nothing to one that has said good-bye itself.
    goodbye: Option<Verdict>,
}

impl LastAnswers {
    pub(super) fn new(mut link: Box<Link<Gate>>, goodbye: Option<Verdict>) -> Self {
        link.forget_messages();
        Self { link, goodbye }
    }

    /// Appends to `out` what may leave. `false` when that was the last of it; else `waker` is called when there is more.
    pub(super) fn poll(&mut self, broker: &Broker, waker: &Waker, now: Timestamp, out: &mut Vec<u8>) -> bool {
        let journal = &broker.journal;
        let mut waits = false;
        while let Some(gate) = self.link.poll_answers(|gate| journal.is_open(gate), now) {
            if journal.poll_gate(&gate, waker) {
                continue;
            }
            waits = !journal.poisoned();
            if !waits && !self.link.is_greeted() {
                let unavailable = Verdict::refused(ReasonCode::ServerUnavailable, "the store has failed");
                self.link.out.extend(refusal(&self.link.terms, unavailable));
            }
            break;
        }
        if let Some(verdict) = self.goodbye.take_if(|_| !waits) {
            self.link.say_goodbye(verdict);
        }
        broker.counters.sent(std::mem::take(&mut self.link.tally), self.link.out.len());
        out.append(&mut self.link.out);
        waits
    }
}
