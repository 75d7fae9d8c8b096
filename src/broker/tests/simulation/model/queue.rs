//! What may wait for a session, and what a bound may have pushed out of its queue.
//!
//! Only what leaves the broker is sure not to wait any more, with all before it; so these are at least as many as do wait.
//! A bound excuses what is missing where it may have been reached: not the last ones, under `drop-oldest`; not those that
//! came when there was room, under `drop-newest`; and none under `reject`, but for wills and QoS 0.

use super::{
    super::device::{Body, Message},
    Fate, Model, Session, matches,
};
use crate::{codec::QoS, session::Overflow};

/// How many messages may wait for a session.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Bound {
    pub(in super::super) messages_max: usize,
    pub(in super::super) overflow: Overflow,
    /// Of which topics; the shared subscription's have a bound of their own, that is not reached.
    pub(in super::super) filter: &'static str,
}

impl Bound {
    fn counts(self, topic: &str) -> bool {
        !topic.starts_with("s/") && matches(self.filter, topic)
    }
}

impl Model {
    /// Nobody knows whether these wills are published, and when.
    pub(super) fn count_open_wills(&mut self) {
        let Some(bound) = self.terms.bound else { return };
        let is_open = |fate, topic| fate == Fate::Open && bound.counts(topic);
        let open_wills = self.told.iter().filter(|told| is_open(told.fate, told.message.topic)).count();
        let together = self.together.iter().map(|body| self.told[*body].message.topic);
        let together: Vec<_> = together.filter(|topic| bound.counts(topic)).collect();
        for s in &mut self.sessions {
            let is_for_it = |topic: &&&str| s.subs.keys().any(|filter| matches(filter, topic));
            s.open_wills = open_wills + together.iter().filter(is_for_it).count();
            s.excuse(bound);
        }
    }
}

impl Session {
    /// Whether its queue has room for one more on the topic, for certain.
    pub(super) fn has_room(&self, topic: &str, bound: Option<Bound>) -> bool {
        bound.is_none_or(|bound| {
            !bound.counts(topic)
                || (!self.waits_unknown && self.waiting.len() + self.open_wills < bound.messages_max)
        })
    }

    /// Whether the message is queued for certain, if it is not refused to its publisher.
    pub(super) fn takes(&self, message: &Message, bound: Option<Bound>) -> bool {
        let is_answered = message.qos != QoS::AtMostOnce && !message.will;
        let has_room = self.has_room(message.topic, bound);
        bound.is_none_or(|bound| match bound.overflow {
            Overflow::DropOldest => true,
            Overflow::DropNewest => has_room,
            Overflow::Reject => has_room || is_answered,
        })
    }

    /// It waits.
    pub(super) fn wait(&mut self, body: Body, topic: &str, attempt: u32, bound: Option<Bound>) {
        let Some(bound) = bound.filter(|bound| bound.counts(topic)) else { return };
        self.waiting.push((attempt, body));
        self.excuse(bound);
    }

    /// What may have been pushed out by now.
    pub(super) fn excuse(&mut self, bound: Bound) {
        if bound.overflow == Overflow::DropOldest {
            let beyond = (self.waiting.len() + self.open_wills).saturating_sub(bound.messages_max);
            for (_, body) in self.waiting.iter().take(beyond) {
                if let Some(e) = self.expects.get_mut(body) {
                    e.excused = true;
                }
                if let Some((_, _, owed)) = self.retained.get_mut(body) {
                    *owed = false;
                }
            }
        }
    }

    /// Of wills that came at one moment any may have been the first, if one of them may have been pushed out.
    pub(super) fn excuse_together(&mut self, wills: &[Body], bound: Bound) {
        let is_excused = |body: &Body| self.expects.get(body).is_some_and(|e| e.excused);
        if bound.overflow == Overflow::DropOldest && wills.iter().any(is_excused) {
            for body in wills {
                if let Some(e) = self.expects.get_mut(body) {
                    e.excused = true;
                }
            }
        }
    }

    /// It was sent for the first time, and what stood before it is not waiting any more either.
    pub(super) fn left_queue(&mut self, body: Body) {
        if let Some(at) = self.waiting.iter().position(|(_, waiting)| *waiting == body) {
            self.waiting.drain(..=at);
        }
    }
}
