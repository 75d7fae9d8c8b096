//! What devices do.

use super::{
    super::{
        device::{Heard, Hello, Message, Said, Who, WillWish, Wire},
        model::SHARED,
    },
    DEVICES, FILTERS, JUDGE, Mood, QOS, TOPICS, Trial,
};
use crate::codec::{QoS, Version};

impl Trial {
    pub(super) fn publish(&mut self, who: Who) {
        if !self.devices[who].is_greeted() || self.devices[who].open.len() > 9 {
            return;
        }
        let message = Message {
            body: 0,
            topic: TOPICS[self.rather_last(TOPICS.len())],
            qos: QOS[self.rather_last(QOS.len())],
            retain: self.chance.one_in(5),
            expiry: self.chance.one_in(5).then(|| [1, 5, 30][self.chance.below(3)]),
            pad: self.pad(),
            clears: false,
            will: false,
        };
        let clears = message.retain && self.chance.one_in(4);
        let is_v5 = DEVICES[who].1 == Version::V5;
        let message = Message { clears, expiry: message.expiry.filter(|_| is_v5 && !clears), ..message };
        let retain = message.retain && !message.topic.starts_with("s/");
        let message = Message { clears: message.clears && retain, retain, ..message };
        let message = self.model.number(who, |body| Message { body, ..message }, false);
        self.note(|| format!("{who} publishes {message:?}"));
        self.devices[who].publish(message);
        if self.chance.one_in(2) {
            self.arrive(who, true);
        }
    }

    /// Some are large; on a small disk many are.
    fn pad(&mut self) -> usize {
        let pad = if self.chance.one_in(10) { 300 } else { 0 };
        let fills_the_disk = self.terms.crowded && self.odds.one_in(2);
        if fills_the_disk { 20_000 + self.odds.below(40_000) } else { pad }
    }

    pub(super) fn subscribe(&mut self, who: Who) {
        let filter = FILTERS[self.rather_last(FILTERS.len())];
        let shared = filter == SHARED;
        if !self.devices[who].is_greeted() || (shared && !self.model.is_persistent(who)) {
            return;
        }
        let qos = QOS[if shared { 1 + self.rather_last(2) } else { self.chance.below(3) }];
        let id = self.request();
        self.note(|| format!("{who} subscribes {filter} {qos:?}"));
        self.devices[who].say(Said::Subscribe { id, filter, qos });
        self.arrive(who, true);
    }

    pub(super) fn unsubscribe(&mut self, who: Who) {
        if self.devices[who].is_greeted() {
            let (id, filter) = (self.request(), FILTERS[self.chance.below(FILTERS.len())]);
            self.note(|| format!("{who} unsubscribes {filter}"));
            self.devices[who].say(Said::Unsubscribe { id, filter });
        }
    }

    pub(super) fn request(&mut self) -> u16 {
        self.next_request = self.next_request % 60_000 + 1;
        self.next_request
    }

    /// One of so many; of a group in three of four cases the last one, which is its own.
    fn rather_last(&mut self, choices: usize) -> usize {
        let is_last = self.mood == Mood::Group && !self.chance.one_in(4);
        if is_last { choices - 1 } else { self.chance.below(choices) }
    }

    /// A member of the group leaves it, others get what it had not, and perhaps the power goes at once.
    pub(super) fn member_goes(&mut self, who: Who) {
        let mut other = self.chance.below(JUDGE);
        if self.chance.one_in(2) {
            other = self.fill_a_sleeping_member(who);
        }
        if self.chance.one_in(2) {
            self.greet(who, Hello { clean: true, expiry: 100, receive_maximum: 1, will: None });
        } else if self.devices[who].is_greeted() {
            let id = self.request();
            self.devices[who].say(Said::Unsubscribe { id, filter: SHARED });
        }
        self.arrive(who, true);
        self.exchange(other);
        if self.chance.one_in(2) {
            self.crash();
        }
    }

    /// Messages that come while two members sleep wait for both in turn; returns the other one, which has come back.
    fn fill_a_sleeping_member(&mut self, who: Who) -> Who {
        let (other, publisher) = ((who + 1) % JUDGE, (who + 2) % JUDGE);
        for member in [who, other] {
            self.come(member);
            if self.devices[member].is_greeted() && self.model.is_persistent(member) {
                let id = self.request();
                self.devices[member].say(Said::Subscribe { id, filter: SHARED, qos: QoS::ExactlyOnce });
                self.arrive(member, true);
                self.settle();
                self.exchange(member);
            }
            self.lose(member);
        }
        self.come(publisher);
        for _ in 0..3 {
            self.publish(publisher);
        }
        self.arrive(publisher, true);
        self.settle();
        self.exchange(publisher);
        self.come(other);
        other
    }

    /// Is there, greeted, unless the disk has failed.
    fn come(&mut self, who: Who) {
        if !self.devices[who].is_greeted() {
            self.greet(who, Hello { clean: false, expiry: 3_600, receive_maximum: 5, will: None });
        }
        for _ in 0..2 {
            self.exchange(who);
            self.settle();
        }
        self.exchange(who);
    }

    /// A new connection, perhaps while there is one.
    pub(super) fn dial(&mut self, who: Who) {
        let clean = self.chance.one_in(8);
        let expiry = if clean && self.chance.one_in(2) { 0 } else { [20, 100, 3_600][self.chance.below(3)] };
        let will = self.chance.one_in(3).then(|| WillWish {
            body: 0,
            topic: TOPICS[self.chance.below(3)],
            qos: QOS[self.chance.below(3)],
            retain: false,
            delay: [0, 0, 5, 30][self.chance.below(4)],
        });
        let receive_maximum = 1 + u16::try_from(self.chance.below(5)).unwrap();
        self.greet(who, Hello { clean, expiry, receive_maximum, will });
        if self.chance.one_in(4) {
            self.arrive(who, false);
        } else {
            self.arrive(who, true);
            self.leave(who);
            self.settle();
            self.exchange(who);
        }
    }

    pub(super) fn greet(&mut self, who: Who, hello: Hello) {
        let is_v5 = self.devices[who].version == Version::V5;
        let will = hello.will.map(|will| {
            let WillWish { topic, qos, retain, delay, .. } = will;
            let (clears, expiry, pad) = (false, None, 0);
            let message = |body| Message { body, topic, qos, retain, expiry, pad, clears, will: true };
            let body = self.model.number(who, message, true).body;
            WillWish { body, delay: if is_v5 { delay } else { 0 }, ..will }
        });
        // 3.1 does not say whether a session was present: its device never has one.
        let clean = hello.clean || self.devices[who].version == Version::V31;
        let hello = Hello { clean, will, ..hello };
        // Its driver learns of the takeover later; what was on its way is lost.
        let old = self.devices[who].wire.take();
        self.note(|| format!("{who} dials {hello:?}"));
        self.devices[who].dial(hello);
        if let Some(old) = old {
            if self.chance.one_in(2) {
                self.ended(who, old);
            } else {
                self.arrive(who, true);
                drop(old);
            }
        }
    }

    pub(super) fn ended(&mut self, who: Who, wire: Wire) {
        wire.end(self.now());
        self.model.parted(who, true, false);
    }

    pub(super) fn lose(&mut self, who: Who) {
        if let Some(wire) = self.devices[who].wire.take() {
            self.note(|| format!("{who} is lost"));
            if wire.closing && self.may_refuse() && self.devices[who].version != Version::V5 {
                self.devices[who].give_up();
            }
            self.devices[who].owed.clear();
            self.ended(who, wire);
        }
    }

    /// It closes its side, and takes what answers still come, or not.
    pub(super) fn close_side(&mut self, who: Who) {
        // CONNECT, and what is behind it.
        self.arrive(who, true);
        self.arrive(who, true);
        let now = self.now();
        if self.devices[who].wire.as_mut().is_some_and(|wire| wire.close_side(now)) {
            self.note(|| format!("{who} closes its side"));
            self.devices[who].owed.clear();
            self.model.parted(who, true, false);
            self.take_last_answers(who);
        } else {
            self.lose(who);
        }
    }

    /// After the end of its connection for the broker: what it had asked for is answered while its driver waits.
    pub(super) fn take_last_answers(&mut self, who: Who) {
        if self.chance.one_in(2) {
            self.settle();
        }
        self.leave(who);
        if let Some(wire) = self.devices[who].wire.as_mut() {
            // It has said that it takes no more of these.
            wire.heard.retain(|packet| !matches!(packet, Heard::Publish { .. } | Heard::Pubrel(_)));
        }
        self.hear(who, true);
        self.lose(who);
    }

    /// Says good-bye.
    pub(super) fn part(&mut self, who: Who) {
        if !self.devices[who].is_greeted() {
            return;
        }
        let is_v5 = DEVICES[who].1 == Version::V5;
        let with_will = is_v5 && self.chance.one_in(4);
        let ends_session = is_v5 && self.chance.one_in(6);
        self.note(|| format!("{who} parts, with will {with_will}, ends {ends_session}"));
        self.devices[who].say(Said::Disconnect { with_will, ends_session });
        self.arrive(who, true);
        self.lose(who);
    }

    /// Everything on its way arrives, here and there.
    pub(super) fn exchange(&mut self, who: Who) {
        self.arrive(who, true);
        self.leave(who);
        self.hear(who, true);
    }

    pub(super) fn exchange_all(&mut self) {
        (0..self.devices.len()).for_each(|who| self.exchange(who));
    }
}
