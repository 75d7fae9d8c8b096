//! What the broker takes, and what it makes of it.

use super::{
    super::device::{Body, Hello, Message, Who, WillWish},
    Exists, Fate, Left, Model, SHARED, Session, Shared, Sub, matches, open_fate,
    session::Routing,
};
use crate::{codec::QoS, session::Overflow};

impl Model {
    pub(in super::super) fn connect(&mut self, who: Who, hello: &Hello, is_v5: bool) {
        if self.sessions[who].connected {
            self.parted(who, true, false);
        }
        let s = &self.sessions[who];
        let in_place = hello.clean && s.exists == Exists::Yes && s.persistent;
        if hello.clean && self.sessions[who].exists != Exists::No {
            self.end_session(who);
        }
        if self.sessions[who].exists == Exists::Perhaps && self.sessions[who].may_be_new {
            self.leave_promises(who);
            self.sessions[who].loosen();
            self.member_gone();
        }
        let s = &mut self.sessions[who];
        s.may_be_new = s.exists == Exists::Perhaps;
        s.awake_on_disk = false;
        s.present = match s.exists {
            Exists::No => Some(false),
            Exists::Yes => Some(true),
            Exists::Perhaps => None,
        };
        if s.exists == Exists::No {
            s.begin();
        } else if let Some((will, _)) = s.will.take() {
            self.told[will.body].fate = Fate::TakenBack { durably: false };
        }
        s.connected = true;
        let (told, line) = (&self.told, self.line);
        let has_ended = |body: &Body| (1..=line).contains(&told[*body].deadline.1);
        s.too_late.extend(std::mem::take(&mut s.unsent).into_iter().filter(has_ended));
        s.greeted = false;
        s.in_place = in_place;
        s.subscribing.clear();
        s.persistent = if is_v5 { hello.expiry > 0 } else { !hello.clean };
        s.expiry_ms = if is_v5 { u64::from(hello.expiry) * 1_000 } else { 30 * 86_400_000 };
        s.expiry_floor_ms =
            if s.present == Some(false) { s.expiry_ms } else { s.expiry_floor_ms.min(s.expiry_ms) };
        s.woke_at = self.line;
        s.wake_is_durable = false;
        s.will = hello.will.clone().map(|will| (will, u64::MAX));
    }

    /// The connection ends.
    pub(in super::super) fn parted(&mut self, who: Who, with_will: bool, ends_session: bool) {
        let s = &mut self.sessions[who];
        if !s.connected {
            return;
        }
        s.connected = false;
        s.retained.values_mut().for_each(|(_, _, owed)| *owed = false);
        s.expects.values_mut().filter(|e| e.qos == Some(QoS::AtMostOnce)).for_each(|e| e.in_life = false);
        (s.slept_at, s.sleep_is_durable) = (self.line, false);
        let ends = ends_session || !s.persistent;
        if self.terms.crowded && !s.greeted && s.present == Some(false) && s.persistent {
            // It may have been turned away, and not know it.
            s.exists = Exists::Perhaps;
            let will = s.will.take();
            open_fate(&mut self.told, will.as_ref());
        }
        let s = &mut self.sessions[who];
        let mut due = None;
        if !with_will {
            if let Some((will, _)) = s.will.take() {
                self.told[will.body].fate = Fate::TakenBack { durably: false };
            }
        } else if !ends {
            s.will = s.will.take().map(|(will, _)| (will.clone(), self.line + u64::from(will.delay) * 1_000));
            due = s.will.take_if(|(_, due)| *due <= self.line);
        }
        s.expires_line = self.line + s.expiry_ms;
        s.expires_true = self.truth + s.expiry_ms;
        // It may ride any commit from now on.
        s.asleep_on_disk = s.asleep_on_disk.min(s.expires_true);
        if let Some((will, _)) = due {
            self.publish_will(who, &will);
        }
        if ends {
            self.end_session(who);
        }
    }

    pub(super) fn end_session(&mut self, who: Who) {
        self.leave_promises(who);
        let s = &mut self.sessions[who];
        let was = std::mem::take(&mut s.exists);
        s.end_is_open |= s.persistent;
        s.ghosts.extend(std::mem::take(&mut s.expects).into_keys());
        s.ghosts.extend(std::mem::take(&mut s.retained).into_keys());
        s.ghost_subs.extend(std::mem::take(&mut s.leaving).iter().map(|(_, filter, _)| *filter));
        let subs = std::mem::take(&mut s.subs);
        s.ghost_subs.extend(subs.keys());
        s.connected = false;
        let will = s.will.take();
        if let Some((will, _)) = will {
            if was == Exists::Yes {
                self.publish_will(who, &will);
            } else {
                self.told[will.body].fate = Fate::Open;
            }
        }
        self.member_gone();
    }

    /// The session is over, or may be: what it was promised it has heard, or there is a letter.
    pub(super) fn leave_promises(&mut self, who: Who) {
        let promises = self.sessions[who].expects.iter().filter(|(_, e)| e.attempt > 0);
        let left = promises.map(|(body, e)| Left { who, body: *body, attempt: e.attempt, must: e.must });
        self.left.extend(left.filter(|_| self.terms.letters));
    }

    /// What it may have been sent as exactly-once goes to nobody else; without another member nothing does.
    pub(super) fn member_gone(&mut self) {
        let others = self.sessions.iter().any(|s| {
            s.exists == Exists::Yes && s.persistent && s.subs.get(SHARED).is_some_and(|sub| sub.sure)
        });
        for told in self.told.iter_mut().filter(|told| told.message.topic.starts_with("s/")) {
            if self.terms.letters {
                // What nobody gets is a letter.
                told.shared.in_life = false;
            } else if !others || told.message.qos == QoS::ExactlyOnce {
                told.shared =
                    Shared { attempt: 0, must: false, in_life: false, ..std::mem::take(&mut told.shared) };
            }
        }
    }

    pub(super) fn publish_will(&mut self, who: Who, will: &WillWish) {
        debug_assert_eq!(self.told[will.body].from, who);
        self.told[will.body].fate = Fate::Leaving;
        self.together.retain(|body| *body != will.body);
        self.route(will.body, false);
    }

    pub(in super::super) fn publish(&mut self, who: Who, id: u16, body: Body) {
        if self.told[body].message.qos != QoS::ExactlyOnce {
            return self.route(body, false);
        }
        let life = self.life;
        // The copy before, if it was refused and its publisher does not know.
        let may_be_new = self.failing || self.terms.crowded || self.told[body].may_be_refused;
        let before = self.sessions[who].inbound.insert(id, (body, life));
        match before {
            Some((same, then)) if same == body && then == life && !may_be_new => {
                self.sessions[who].inbound.insert(id, (body, then));
            }
            Some(_) => self.route(body, true),
            // A copy of it came to a session that may be back.
            None => self.route(body, self.told[body].attempt > 0),
        }
    }

    pub(in super::super) fn released(&mut self, who: Who, id: u16) {
        self.sessions[who].inbound.remove(&id);
    }

    pub(in super::super) fn subscribe(&mut self, who: Who, id: u16, filter: &'static str, qos: QoS) {
        self.count_open_wills();
        let owes = !self.failing && !self.terms.lossy && !self.terms.crowded;
        let mut granted = Vec::new();
        for (_, topic) in self.topics.iter().filter(|(name, _)| matches(filter, name)) {
            let values = topic.possible();
            for body in values.iter().flatten() {
                let is_sure = values.len() == 1 && self.line < self.told[*body].deadline.0;
                if self.line < self.told[*body].deadline.1 {
                    granted.push((*body, is_sure && owes));
                }
            }
        }
        let s = &mut self.sessions[who];
        let durable = s.subs.get(filter).is_some_and(|sub| sub.sure && sub.durable && sub.qos == qos);
        // On a full disk a new one may be refused.
        let sure = !self.terms.crowded || s.subs.get(filter).is_some_and(|sub| sub.sure);
        s.subs.insert(filter, Sub { qos, sure, durable });
        s.subscribing.insert(id, filter);
        let bound = self.terms.bound;
        for (body, owed) in granted {
            let Message { topic, .. } = self.told[body].message;
            let has_room =
                s.has_room(topic, bound) || bound.is_some_and(|b| b.overflow == Overflow::DropOldest);
            let is_too_large = s.narrow && self.told[body].message.is_large();
            let entry = s.retained.entry(body).or_default();
            entry.0 += 1;
            entry.2 |= owed && has_room && !is_too_large;
            s.wait(body, topic, 0, bound);
            self.told[body].routed_to.insert(who);
        }
    }

    pub(in super::super) fn unsubscribe(&mut self, who: Who, id: u16, filter: &'static str) {
        let s = &mut self.sessions[who];
        if let Some(sub) = s.subs.remove(filter) {
            s.leaving.push((id, filter, sub));
        }
    }

    /// Who may get it, who must. `again`: a first copy may have been routed before a crash.
    fn route(&mut self, body: Body, again: bool) {
        self.count_open_wills();
        self.attempts += 1;
        let attempt = self.attempts;
        let told = &mut self.told[body];
        let before = std::mem::replace(&mut told.attempt, attempt);
        told.routed += 1;
        let at = told.message.expiry.map_or(u64::MAX, |s| self.line + u64::from(s) * 1_000);
        told.deadline = (told.deadline.0.min(at), told.deadline.1.max(at));
        let Message { topic, qos, retain, clears, will, .. } = told.message;
        let is_refusable = qos != QoS::AtMostOnce && !will;
        let may_be_refused = is_refusable && self.is_full_for(topic);
        let told = &mut self.told[body];
        told.may_be_refused |= may_be_refused;
        let is_sure = !again && !self.failing && !self.terms.crowded && !may_be_refused;
        if retain {
            let values = self.topics.entry(topic).or_default();
            if values.values.is_empty() {
                values.values.push((None, 0));
            }
            // One that may count for nothing promises nothing of those before it.
            values.values.push(((!clears).then_some(body), if again { 0 } else { attempt }));
            values.current = is_sure.then(|| values.values.len() - 1);
        }
        if clears {
            // An empty message, that waits like others.
            let is_for = |s: &&mut Session| s.subs.keys().any(|f| matches(f, topic));
            let bound = self.terms.bound;
            self.sessions.iter_mut().filter(is_for).for_each(|s| s.wait(body, topic, attempt, bound));
            return;
        }
        if topic.starts_with("s/") {
            let is_member = |s: &Session| {
                s.exists == Exists::Yes && s.persistent && s.subs.get(SHARED).is_some_and(|sub| sub.sure)
            };
            if self.sessions.iter().any(is_member) && !again && qos != QoS::AtMostOnce {
                told.shared.attempt = attempt;
                told.shared.in_life = is_sure;
            }
            return;
        }
        let routing =
            Routing { attempt, again, before, failing: self.failing, terms: self.terms, may_be_refused };
        let message = told.message.clone();
        for (who, s) in self.sessions.iter_mut().enumerate().filter(|(_, s)| s.exists != Exists::No) {
            s.route(body, &message, &routing);
            told.routed_to.extend(s.expects.contains_key(&body).then_some(who));
        }
    }

    /// Whether the queue of somebody who may get it may be full, and refuse it.
    fn is_full_for(&self, topic: &str) -> bool {
        let bound = self.terms.bound.filter(|bound| bound.overflow == Overflow::Reject);
        let is_for = |s: &Session| s.exists != Exists::No && s.subs.keys().any(|f| matches(f, topic));
        self.sessions.iter().any(|s| is_for(s) && !s.has_room(topic, bound))
    }
}
