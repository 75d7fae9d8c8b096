//! A session from its beginning to its end, through crashes.

use super::{
    super::device::{Body, Message, WillWish},
    Exists, Expect, Session, Sub, Terms, matches,
};
use crate::codec::QoS;

/// One message on its way to everybody.
pub(super) struct Routing {
    pub(super) attempt: u32,
    /// A first copy may have been routed before a crash.
    pub(super) again: bool,
    /// The attempt of the copy before, which may be the one that counts.
    pub(super) before: u32,
    pub(super) failing: bool,
    pub(super) terms: Terms,
    pub(super) may_be_refused: bool,
}

impl Session {
    /// A new session of the same device.
    pub(super) fn begin(&mut self) {
        let ghosts = std::mem::take(&mut self.ghosts);
        let ghost_subs = std::mem::take(&mut self.ghost_subs);
        *self = Self {
            exists: Exists::Yes,
            connected: self.connected,
            persistent: self.persistent,
            expiry_ms: self.expiry_ms,
            expiry_floor_ms: self.expiry_ms,
            woke_at: self.woke_at,
            will: self.will.take(),
            end_is_open: self.end_is_open,
            ghosts,
            ghost_subs,
            present: self.present,
            incarnation: self.incarnation + 1,
            narrow: self.narrow,
            ..Self::default()
        };
    }

    pub(super) fn route(&mut self, body: Body, message: &Message, routing: &Routing) {
        let &Routing { attempt, again, before, failing, terms, may_be_refused } = routing;
        let (topic, qos) = (message.topic, message.qos);
        let matching: Vec<Sub> =
            self.subs.iter().filter(|(f, _)| matches(f, topic)).map(|(_, s)| *s).collect();
        if matching.is_empty() {
            return;
        }
        let is_there = self.exists == Exists::Yes;
        let sure = matching.iter().filter(|sub| sub.sure && is_there).map(|sub| sub.qos).max();
        let all_sure = is_there && matching.iter().all(|sub| sub.sure);
        let as_qos = sure.map(|granted| granted.min(qos));
        let is_new = !self.expects.contains_key(&body);
        let online = self.connected;
        self.too_late.remove(&body);
        if !online && is_new {
            self.unsent.insert(body);
        }
        let persistent = self.persistent;
        let excused = !self.takes(message, terms.bound) || (self.narrow && message.is_large());
        let e = self.expects.entry(body).or_default();
        e.excused |= excused;
        let exact = as_qos.filter(|_| all_sure);
        e.qos = if is_new || e.qos == exact { exact } else { None };
        e.tries += 1 + u32::from(again);
        e.routes += 1;
        self.wait(body, topic, attempt, terms.bound);
        let Some(as_qos) = as_qos else { return };
        let e = self.expects.entry(body).or_default();
        if again && (is_new || e.attempt == 0 || e.attempt != before) {
            return;
        }
        if as_qos == QoS::AtMostOnce {
            let is_lossy = terms.lossy || terms.bound.is_some() || self.narrow;
            let is_taken = qos == QoS::AtMostOnce || !(terms.crowded || may_be_refused);
            // Of what came before with another quality of service, `parted` could not tell that it is lost.
            e.in_life |= e.qos.is_some() && online && is_taken && !failing && !is_lossy && !again;
        } else {
            e.in_life |= !failing && !terms.crowded && !may_be_refused;
            if persistent {
                e.attempt = attempt;
            }
        }
    }

    /// Nothing is sure of it any more.
    pub(super) fn loosen(&mut self) {
        self.incarnation += 1;
        self.exactly_once.clear();
        self.streams.clear();
        self.unsent.clear();
        self.too_late.clear();
        for e in self.expects.values_mut() {
            *e = Expect { qos: e.qos, tries: 9, ..Expect::default() };
        }
        self.retained.values_mut().for_each(|r| r.2 = false);
        self.subs.values_mut().for_each(|sub| sub.sure = false);
    }

    /// `fell` is when the broker of before died, if its disk had not failed. Returns a will that may be published or not.
    pub(super) fn crashed(&mut self, line: u64, truth: u64, fell: Option<u64>) -> Option<(WillWish, u64)> {
        let was_connected = std::mem::take(&mut self.connected);
        if was_connected {
            (self.awake_on_disk, self.sleep_is_durable) = (true, false);
        }
        let mut open_will = None;
        self.too_late.clear();
        self.subscribing.clear();
        for e in self.expects.values_mut() {
            e.in_life = false;
            e.tries += 1;
        }
        self.retained.values_mut().for_each(|r| *r = (r.0 + 1, r.1, false));
        if self.exists != Exists::No && !self.persistent {
            // The session in memory is gone; what it took the place of may be back.
            open_will = self.will.take();
            self.exists = Exists::No;
            self.subs.clear();
            self.leaving.clear();
            self.expects.clear();
        }
        if self.exists == Exists::Yes && self.promised {
            let sure = if was_connected { self.greeted } else { self.sleep_is_durable };
            if let Some((will, due)) = &mut self.will {
                if was_connected {
                    *due = line + u64::from(will.delay) * 1_000;
                }
                if !sure {
                    open_will = self.will.take();
                }
            }
            let awake = truth + self.expiry_floor_ms;
            let expires = if was_connected { awake } else { self.expires_true.min(awake) };
            if let Some(fell) = fell.filter(|_| self.greeted) {
                // Its client was told that it is present: whatever the disk says, it has its expiry from then on.
                let told = if was_connected { fell + self.expiry_floor_ms } else { self.expires_true };
                self.asleep_on_disk = self.asleep_on_disk.max(told);
            }
            self.expires_true = expires.min(self.asleep_on_disk);
            // Compaction may write so at any time.
            self.asleep_on_disk = self.expires_true;
            // Of a connection that no CONNACK has answered the disk may know nothing.
            let latest = if self.greeted { line + self.expiry_ms } else { u64::MAX };
            self.expires_line = self.expires_line.max(latest);
        } else if self.exists != Exists::No || self.end_is_open {
            open_will = open_will.or(self.will.take());
            self.exists = Exists::Perhaps;
            self.waits_unknown = true;
            self.persistent = true;
            self.streams.clear();
            self.expires_line = u64::MAX;
            for body in std::mem::take(&mut self.ghosts) {
                let e = self.expects.entry(body).or_default();
                (e.qos, e.tries) = (None, 2);
                *self.retained.entry(body).or_default() = (8, 0, false);
            }
            for filter in std::mem::take(&mut self.ghost_subs) {
                self.subs.insert(filter, Sub { qos: QoS::ExactlyOnce, sure: false, durable: false });
            }
        }
        for (_, filter, sub) in std::mem::take(&mut self.leaving) {
            self.subs.entry(filter).or_insert(Sub { durable: false, ..sub });
        }
        self.subs.values_mut().for_each(|sub| sub.sure &= sub.durable);
        open_will
    }
}
