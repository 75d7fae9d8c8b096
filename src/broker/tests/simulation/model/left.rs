//! What leaves the broker, and what a device's application hears.

use super::{
    super::device::{Body, NOBODY, Who},
    Exists, Fate, Model, Verdict, open_fate,
};
use crate::codec::QoS;

impl Model {
    pub(in super::super) fn greeted(&mut self, who: Who, present: bool, refused: bool) -> Verdict {
        if refused {
            if !self.failing && !self.terms.crowded {
                return Err("refused".to_owned());
            }
            let s = &mut self.sessions[who];
            if !self.failing {
                return self.turned_away(who);
            }
            s.connected = false;
            s.end_is_open = true;
            s.exists = Exists::Perhaps;
            let will = s.will.take();
            open_fate(&mut self.told, will.as_ref());
            return Ok(());
        }
        let s = &mut self.sessions[who];
        if s.present.is_some_and(|expected| expected != present) {
            return Err(format!("session present is {present}"));
        }
        if !s.connected && (s.present.is_none() || s.exists != Exists::Yes) {
            // It has parted since, and may have ended with that.
            return Ok(());
        }
        let was_gone = !present && s.present.is_none();
        if was_gone {
            self.leave_promises(who);
        }
        let s = &mut self.sessions[who];
        if was_gone {
            s.begin();
        }
        s.exists = Exists::Yes;
        s.greeted = true;
        if !present || s.will.is_some() {
            s.wake_is_durable = true;
            s.asleep_on_disk = if s.connected { u64::MAX } else { s.expires_true };
        }
        s.promised = s.persistent;
        s.may_be_new = false;
        s.expiry_floor_ms = s.expiry_ms;
        s.end_is_open = false;
        s.ghosts.clear();
        s.ghost_subs.clear();
        for told in self.told.iter_mut().filter(|told| told.from == who) {
            if let Fate::TakenBack { durably } = &mut told.fate {
                *durably = true;
            }
        }
        if was_gone {
            self.member_gone();
        }
        Ok(())
    }

    /// There is no room on the disk for its session, which there is not yet. It was not connected, and its will is nobody's.
    fn turned_away(&mut self, who: Who) -> Verdict {
        let s = &mut self.sessions[who];
        if s.present == Some(true) || s.in_place || !s.persistent {
            let (present, persistent) = (s.present, s.persistent);
            return Err(format!("{who} is turned away; present {present:?}, persistent {persistent}"));
        }
        s.connected = false;
        s.exists = if s.present.is_none() { Exists::Perhaps } else { Exists::No };
        if let Some((will, _)) = s.will.take() {
            self.told[will.body].fate = Fate::TakenBack { durably: true };
        }
        Ok(())
    }

    /// PUBACK or PUBREC with an error: nothing of it was kept.
    pub(in super::super) fn refused(&mut self, who: Who, id: u16, body: Body) -> Verdict {
        let told = &mut self.told[body];
        if !self.failing && !self.terms.crowded && !told.may_be_refused {
            return Err(format!("{body} is refused"));
        }
        told.refusals += 1;
        let attempt = told.attempt;
        if told.shared.attempt == attempt {
            (told.shared.attempt, told.shared.in_life) = (0, false);
        }
        for s in &mut self.sessions {
            s.waiting.retain(|(of, _)| *of != attempt);
            if let Some(e) = s.expects.get_mut(&body).filter(|e| e.attempt == attempt) {
                (e.attempt, e.in_life) = (0, false);
            }
        }
        self.sessions[who].inbound.remove(&id);
        if let Some(topic) = self.topics.get_mut(told.message.topic)
            && let Some(at) = topic.values.iter().position(|(_, a)| *a == attempt)
            && let Some(before) = at.checked_sub(1).and_then(|before| topic.values.get(before)).copied()
        {
            // As before.
            topic.values[at] = (before.0, 0);
        }
        if told.is_refused() && !(told.heard_by.is_empty() && told.letters.is_empty()) {
            return Err(format!("{body} is refused, and was kept"));
        }
        Ok(())
    }

    /// The postmaster has got a dead letter.
    pub(in super::super) fn letter(&mut self, about: Who, body: Body, reason: &str) -> Verdict {
        if body == NOBODY {
            return Ok(());
        }
        let told = &mut self.told[body];
        told.letters.insert(about);
        if reason == "queue_full" {
            told.pushed_out.insert(about);
        }
        let is_shared = told.message.topic.starts_with("s/");
        // Of a will and the end of a session that fall into one downtime nobody knows which comes first.
        let is_for_it = is_shared || told.message.will || told.routed_to.contains(&about);
        if told.is_refused() || !is_for_it {
            return Err(format!(
                "a letter ({reason}) says that {about} does not get {body}, which was not for it"
            ));
        }
        Ok(())
    }

    /// PUBACK or PUBREC without an error: what the broker has promised.
    pub(in super::super) fn promised(&mut self, body: Body) {
        let attempt = self.told[body].attempt;
        for s in &mut self.sessions {
            if let Some(e) = s.expects.get_mut(&body) {
                e.must |= e.attempt == attempt;
            }
        }
        for left in self.left.iter_mut().filter(|left| left.body == body) {
            left.must |= left.attempt == attempt;
        }
        let told = &mut self.told[body];
        told.shared.must |= told.shared.attempt == attempt;
        if told.message.retain
            && let Some(topic) = self.topics.get_mut(told.message.topic)
            && let Some(at) = topic.values.iter().position(|(_, a)| *a == attempt)
        {
            topic.floor = topic.floor.max(at);
        }
    }

    pub(in super::super) fn subscribed(&mut self, who: Who, id: u16, refused: bool) -> Verdict {
        let s = &mut self.sessions[who];
        if refused {
            let filter = s.subscribing.remove(&id);
            let is_known = filter.is_some_and(|f| s.subs.get(f).is_some_and(|sub| sub.sure));
            if !self.failing && (!self.terms.crowded || !s.persistent || is_known) {
                return Err(format!("a subscription of {who} to {filter:?} is refused"));
            }
            if let Some(filter) = filter.filter(|f| !s.subscribing.values().any(|other| other == f)) {
                s.subs.remove(filter);
            }
            return Ok(());
        }
        if let Some(filter) = s.subscribing.remove(&id)
            && !s.subscribing.values().any(|f| *f == filter)
            && let Some(sub) = s.subs.get_mut(filter)
        {
            sub.durable = true;
            sub.sure |= self.terms.crowded;
        }
        Ok(())
    }

    pub(in super::super) fn unsubscribed(&mut self, who: Who, id: u16) {
        self.sessions[who].leaving.retain(|(of, _, _)| *of != id);
    }

    /// A PUBLISH leaves that was put together after the moment `not_before`.
    pub(in super::super) fn sent(&mut self, who: Who, body: Body, dup: bool, not_before: u64) -> Verdict {
        let Some(told) = self.told.get(body) else { return Ok(()) };
        if !dup {
            self.sessions[who].left_queue(body);
        }
        if !dup && told.deadline.1 > 0 && told.deadline.1 <= not_before {
            return Err(format!(
                "{who} is sent {body}, which ended at {:?}; it is {}",
                told.deadline, self.line
            ));
        }
        match told.fate {
            Fate::Armed | Fate::TakenBack { .. } => Err(format!("the will {body} is sent: {:?}", told.fate)),
            Fate::Sent | Fate::Leaving | Fate::Open => Ok(()),
        }
    }

    /// It leaves with DUP, put together after the moment `not_before`. It must not when it had ended before anybody was
    /// there to be sent it, whatever crashed meanwhile [MQTT-3.3.2-5]. What a subscription found `retain`ed may have been sent
    /// then: its client was there.
    pub(in super::super) fn sent_again(
        &mut self,
        who: Who,
        body: Body,
        retain: bool,
        not_before: u64,
    ) -> Verdict {
        let Some(told) = self.told.get(body).filter(|_| !retain) else { return Ok(()) };
        let has_ended = told.deadline.1 > 0 && told.deadline.1 <= not_before;
        if has_ended && self.sessions[who].too_late.contains(&body) {
            return Err(format!("{who} is sent {body} again, and it ended before it could be sent"));
        }
        Ok(())
    }

    pub(in super::super) fn heard(
        &mut self,
        who: Who,
        body: Body,
        qos: QoS,
        retain: bool,
        dup: bool,
    ) -> Verdict {
        let Some(told) = self.told.get_mut(body) else { return Ok(()) };
        if told.is_refused() {
            return Err(format!("{who} hears {body}, which was refused"));
        }
        let s = &mut self.sessions[who];
        if s.narrow && told.message.is_large() {
            return Err(format!("{who} hears {body}, which is too large for it"));
        }
        if retain {
            let Some((granted, heard, owed)) = s.retained.get_mut(&body) else {
                return Err(format!("the retained {body} is not what {who} asked for"));
            };
            *heard += u32::from(!dup);
            *owed = false;
            let too_often = qos == QoS::ExactlyOnce && heard > granted;
            return if too_often { Err(format!("the retained {body} came {heard} times")) } else { Ok(()) };
        }
        told.heard_by.insert(who);
        if qos == QoS::ExactlyOnce && !s.exactly_once.insert(body) {
            return Err(format!("{body} came to {who} twice"));
        }
        if told.message.topic.starts_with("s/") {
            let shared = &mut told.shared;
            shared.heard = true;
            if qos == QoS::ExactlyOnce && shared.exactly_once.replace(who).is_some_and(|by| by != who) {
                return Err(format!("{body} came to two members"));
            }
            return Ok(());
        }
        if told.fate == Fate::Open {
            return Ok(());
        }
        let Some(e) = s.expects.get_mut(&body) else {
            return Err(format!("{who} hears {body} on {}, which was not for it", told.message.topic));
        };
        if e.qos.is_some_and(|expected| expected != qos) {
            return Err(format!("{who} hears {body} with {qos:?}, not {:?}", e.qos));
        }
        e.heard += 1;
        if e.heard > 1 && !dup && e.tries < 2 && told.attempt > 0 && qos != QoS::ExactlyOnce {
            return Err(format!("{body} came to {who} again, as if new"));
        }
        let in_order = qos > QoS::AtMostOnce || told.message.qos == QoS::AtMostOnce;
        // A QoS 1 message that its publisher sends again is routed again, to who has subscribed since, behind later ones.
        let is_again = told.routed > 1 && told.message.qos == QoS::AtLeastOnce;
        // One that had expired or was pushed out, and whose end a crash has undone, counts as sent before those behind it;
        // even if the line has gone back so far that it has not expired now.
        let may_be_back = e.excused || told.deadline.0 <= self.line_max;
        if e.heard == 1 && e.routes == 1 && !told.message.will && in_order && !is_again && !may_be_back {
            let stream = (told.from, told.message.topic, told.message.qos, qos);
            if s.streams.insert(stream, body).is_some_and(|last| last > body) {
                return Err(format!("{body} came to {who} after a later one of its stream"));
            }
        }
        Ok(())
    }
}
