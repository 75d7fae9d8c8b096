//! The end: everybody comes back, and what was promised has to be there.

use std::collections::BTreeMap;

use super::{
    super::device::{Body, Device, Heard, Hello, Said},
    JUDGE, POST, Trial,
    world::POST_EXPIRY,
};
use crate::codec::QoS;

impl Trial {
    /// Everybody comes back and hears everything.
    pub(super) fn end(&mut self) {
        if self.failing {
            self.crash();
        }
        self.others_leave();
        for _ in 0..3 {
            for who in (0..JUDGE).chain(self.terms.letters.then_some(POST)) {
                if !self.devices[who].is_greeted() {
                    let expiry = if who == POST { POST_EXPIRY } else { 3_600 };
                    let hello = Hello { clean: false, expiry, receive_maximum: 5, will: None };
                    self.greet(who, hello);
                }
            }
            for _ in 0..30 {
                self.exchange_all();
                self.settle();
            }
            self.pass(150);
        }
        // A confirmation that has to be written, and a body that has to be read, take a round each in which nobody hears
        // anything.
        let mut quiet_rounds = 0;
        for _ in 0..4_000 {
            self.exchange_all();
            self.settle();
            let idle = |d: &Device| d.owed.is_empty() && d.open.is_empty();
            if self.terms.letters {
                // They are looked for now and then.
                self.pass(20);
            }
            let waits = self.broker.stats().dead_letters_waiting > 0;
            let is_quiet = !waits && self.devices.iter().all(idle) && self.nothing_moves();
            quiet_rounds = if is_quiet { quiet_rounds + 1 } else { 0 };
            if quiet_rounds > 3 {
                break;
            }
        }
        self.there_is_room_again();
        let verdict = self.model.finish();
        self.judge(verdict);
        self.look_at_retained();
    }

    pub(super) fn nothing_moves(&mut self) -> bool {
        (0..self.devices.len()).all(|who| {
            self.leave(who);
            self.devices[who].wire.as_ref().is_none_or(|wire| wire.heard.is_empty())
        })
    }

    pub(super) fn look_at_retained(&mut self) {
        self.greet(JUDGE, Hello { clean: true, expiry: 0, receive_maximum: 5, will: None });
        self.exchange(JUDGE);
        self.settle();
        self.exchange(JUDGE);
        self.devices[JUDGE].say(Said::Subscribe { id: 1, filter: "#", qos: QoS::AtMostOnce });
        let mut found: BTreeMap<String, Body> = BTreeMap::new();
        for _ in 0..40 {
            self.arrive(JUDGE, true);
            self.settle();
            self.leave(JUDGE);
            if let Some(wire) = &self.devices[JUDGE].wire {
                for heard in &wire.heard {
                    if let Heard::Publish { topic, body, retain: true, .. } = heard {
                        found.insert(topic.clone(), *body);
                    }
                }
            }
        }
        let verdict = self.model.retained(&found);
        self.judge(verdict);
    }
}
