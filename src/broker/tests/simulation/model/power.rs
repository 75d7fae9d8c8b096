//! Time, the disk and the power; and what everybody has to have got in the end.

use std::collections::BTreeMap;

use super::{
    super::device::{Body, Message, Who},
    Exists, Fate, Left, Model, RIDES_MS, Session, Told, Verdict, open_fate,
};
use crate::codec::QoS;

impl Model {
    /// Time has passed, and the broker has done what was due.
    pub(in super::super) fn passed(&mut self, line: u64, truth: u64) -> Verdict {
        (self.line, self.truth) = (line, truth);
        self.line_max = self.line_max.max(line);
        if line > truth {
            return Err(format!("the broker's time is {line}, and {truth} ms have passed"));
        }
        loop {
            let due = |s: &Session| s.expires_line.min(s.will.as_ref().map_or(u64::MAX, |(_, due)| *due));
            let asleep = self.sessions.iter().filter(|s| s.exists != Exists::No && !s.connected);
            let Some(first) = asleep.map(due).min().filter(|first| *first <= line) else { break };
            let is_first = |s: &Session| s.exists != Exists::No && !s.connected && due(s) == first;
            self.come_due((0..self.sessions.len()).filter(|&who| is_first(&self.sessions[who])).collect());
        }
        let mut may_be_gone = false;
        for s in self.sessions.iter_mut().filter(|s| s.exists == Exists::Yes && !s.connected) {
            if truth >= s.expires_true && s.expires_line > line {
                s.exists = Exists::Perhaps;
                may_be_gone = true;
                let will = s.will.take();
                open_fate(&mut self.told, will.as_ref());
            }
        }
        if may_be_gone {
            // Who comes later is too late for what it had.
            self.member_gone();
        }
        Ok(())
    }

    /// Sessions whose ends or wills fall into one moment, after a crash most of all; in which order, is the broker's affair.
    fn come_due(&mut self, together: Vec<Who>) {
        let will = |who: &Who| self.sessions[*who].will.as_ref().map(|(will, _)| will.body);
        self.together = together.iter().filter_map(will).collect();
        let wills = self.together.clone();
        for who in together {
            if self.sessions[who].expires_line <= self.line {
                self.end_session(who);
            } else if let Some((will, _)) = self.sessions[who].will.take() {
                self.publish_will(who, &will);
            }
        }
        self.together.clear();
        if let Some(bound) = self.terms.bound {
            self.sessions.iter_mut().for_each(|s| s.excuse_together(&wills, bound));
        }
    }

    /// All that was to be written is written; messages held back aside.
    pub(in super::super) fn settled(&mut self) {
        if self.failing {
            return;
        }
        for s in &mut self.sessions {
            s.sleep_is_durable |= self.line >= s.slept_at + RIDES_MS && !s.awake_on_disk;
            s.wake_is_durable |= self.line >= s.woke_at + RIDES_MS;
            for (body, e) in &mut s.expects {
                let is_will = self.told[*body].message.will;
                // A session that may have expired before it was published has nothing of it.
                e.must |= s.exists == Exists::Yes
                    && is_will
                    && e.in_life
                    && s.persistent
                    && e.qos != Some(QoS::AtMostOnce);
            }
            if s.connected && s.wake_is_durable {
                s.asleep_on_disk = u64::MAX;
            } else if !s.connected && s.sleep_is_durable {
                s.asleep_on_disk = s.expires_true;
            }
            if s.exists == Exists::No {
                s.end_is_open = false;
                s.ghosts.clear();
                s.ghost_subs.clear();
            }
        }
        for told in &mut self.told {
            let s = &self.sessions[told.from];
            match &mut told.fate {
                Fate::Leaving => told.fate = Fate::Sent,
                Fate::TakenBack { durably } => *durably |= s.sleep_is_durable && !s.connected,
                _ => {}
            }
        }
        for topic in self.topics.values_mut() {
            topic.floor = topic.current.unwrap_or(topic.floor);
        }
    }

    /// The broker has died, and another one lives.
    pub(in super::super) fn crashed(&mut self, line: u64, truth: u64) -> Verdict {
        self.life += 1;
        let fell = (!std::mem::take(&mut self.failing)).then_some(self.truth);
        (self.line, self.truth) = (line, truth);
        for who in 0..self.sessions.len() {
            let will = self.sessions[who].crashed(line, truth, fell);
            open_fate(&mut self.told, will.as_ref());
        }
        for told in &mut self.told {
            told.shared.in_life = false;
            if matches!(told.fate, Fate::Leaving | Fate::TakenBack { durably: false }) {
                told.fate = Fate::Open;
            }
        }
        for topic in self.topics.values_mut() {
            topic.current = None;
        }
        self.passed(line, truth)
    }

    /// Nobody has anything left to say: everything owed was heard.
    pub(in super::super) fn finish(&mut self) -> Verdict {
        self.count_open_wills();
        for (who, s) in self.sessions.iter().enumerate() {
            for (body, e) in &s.expects {
                let told = &self.told[*body];
                let is_over = e.excused || told.deadline.0 <= self.line;
                let has_letter = told.letters.contains(&who);
                // An excuse is worth a letter, where there are any.
                let is_missing = e.heard == 0 && !has_letter && (!is_over || (e.must && self.terms.letters));
                if (e.must || e.in_life) && is_missing {
                    let Message { topic, qos, .. } = told.message;
                    let (must, tries, excused) = (e.must, e.tries, e.excused);
                    return Err(format!(
                        "{body} ({topic}, {qos:?}) never came to {who}; must {must}, tries {tries}, excused {excused}"
                    ));
                }
            }
            let owed =
                |(body, r): &(&Body, &(u32, u32, bool))| r.2 && self.told[**body].deadline.0 > self.line;
            if let Some((body, _)) = s.retained.iter().find(owed) {
                return Err(format!("the retained {body} never came to {who}"));
            }
        }
        for told in self.told.iter().filter(|told| told.shared.must || told.shared.in_life) {
            let is_over = told.deadline.0 <= self.line;
            let has_letter = !told.letters.is_empty();
            if !told.shared.heard && !has_letter && (!is_over || self.terms.letters) {
                return Err(format!("{} came to no member", told.message.body));
            }
        }
        self.finish_letters()
    }

    /// What sessions that are over did not hear is in letters; what was pushed out of a queue was not heard.
    fn finish_letters(&self) -> Verdict {
        for Left { who, body, .. } in self.left.iter().filter(|left| left.must) {
            let told = &self.told[*body];
            if !told.heard_by.contains(who) && !told.letters.contains(who) {
                return Err(format!("{body} came neither to {who}, whose session is over, nor as a letter"));
            }
        }
        let is_sure = |told: &&Told| self.life == 1 && told.routed == 1 && !told.message.retain;
        for told in self.told.iter().filter(is_sure) {
            if let Some(who) = told.pushed_out.intersection(&told.heard_by).next() {
                return Err(format!("{} was pushed out of {who}'s queue, and heard", told.message.body));
            }
        }
        Ok(())
    }

    /// What a new subscriber to everything got.
    pub(in super::super) fn retained(&self, found: &BTreeMap<String, Body>) -> Verdict {
        for (name, topic) in &self.topics {
            let got = found.get(*name).copied();
            let fits = topic.possible().into_iter().any(|value| match value {
                None => got.is_none(),
                Some(body) => {
                    let (from, to) = self.told[body].deadline;
                    (got == Some(body) && self.line < to) || (got.is_none() && self.line >= from)
                }
            });
            if !fits {
                return Err(format!("{name} has {got:?} retained, not one of {:?}", topic.possible()));
            }
        }
        let unknown = found.keys().find(|name| !self.topics.contains_key(name.as_str()));
        unknown.map_or(Ok(()), |name| Err(format!("{name} has a retained value")))
    }
}
