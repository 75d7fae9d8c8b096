//! What each device may see, and what it must: lists, searched from one end to the other.
//!
//! The model is told of every packet the broker takes and of every one that leaves it, in that order, and of crashes.
//! While a broker lives the model knows what it holds in memory. What a crash leaves of that is known only where it was
//! promised; the rest may be there or not, and the model then allows both.

use std::collections::{BTreeMap, BTreeSet};

use super::device::{Body, Hello, Message, Who, WillWish};
use crate::codec::QoS;

/// The one shared subscription.
pub(super) const SHARED: &str = "$share/g/s/#";
/// A record that nobody waits for is on disk after this and a commit (`store::Config::done_interval`).
const RIDES_MS: u64 = 1_000;

pub(super) type Verdict = Result<(), String>;

/// A message, wherever it comes from.
struct Told {
    message: Message,
    from: Who,
    /// When it was routed last.
    attempt: u32,
    /// How often it was routed.
    routed: u32,
    /// On the broker's time line: it may end at the first, and must at the second.
    deadline: (u64, u64),
    fate: Fate,
    /// For a message of the shared subscription.
    shared: Shared,
}

/// Of a will; other messages are `Sent`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Not a will, or a will whose publication is on disk.
    Sent,
    /// Published in this life of the broker; a crash may repeat it.
    Leaving,
    /// It must not be published yet.
    Armed,
    /// It was taken back: durably, or so that a crash may undo it.
    TakenBack { durably: bool },
    /// A crash has left it open.
    Open,
}

#[derive(Default)]
struct Shared {
    /// The attempt whose acknowledgement promises it.
    attempt: u32,
    must: bool,
    in_life: bool,
    heard: Option<Who>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Exists {
    #[default]
    No,
    Yes,
    Perhaps,
}

#[derive(Clone, Copy)]
struct Sub {
    qos: QoS,
    /// In the memory of the broker that lives now.
    sure: bool,
    durable: bool,
}

/// A message that a session may get.
#[derive(Default)]
struct Expect {
    /// As what, if that is sure.
    qos: Option<QoS>,
    /// The routing whose acknowledgement promises it; 0 is none.
    attempt: u32,
    /// Promised.
    must: bool,
    /// Due as long as the broker lives.
    in_life: bool,
    /// How often it was routed here; more after a crash.
    tries: u32,
    /// The same, in this broker and those before.
    routes: u32,
    heard: u32,
}

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what is known of the broker and of its disk, side by side"
)]
struct Session {
    exists: Exists,
    persistent: bool,
    /// A CONNACK has promised that it is there.
    promised: bool,
    connected: bool,
    /// The present connection's CONNACK has left.
    greeted: bool,
    expiry_ms: u64,
    /// The shortest that the disk may have.
    expiry_floor_ms: u64,
    slept_at: u64,
    sleep_is_durable: bool,
    woke_at: u64,
    /// When the session ends in truth according to the disk, at the earliest: it learns of sleeping with a delay, and
    /// nothing of a connection that no CONNACK has answered.
    asleep_on_disk: u64,
    /// The disk has it as connected, though a crash has ended that connection.
    awake_on_disk: bool,
    /// A connection that no CONNACK has answered may have begun it anew.
    may_be_new: bool,
    /// Counts its beginnings.
    incarnation: u32,
    wake_is_durable: bool,
    /// Not before this moment of true time.
    expires_true: u64,
    /// Not after this moment of the time line.
    expires_line: u64,
    subs: BTreeMap<&'static str, Sub>,
    subscribing: BTreeMap<u16, &'static str>,
    leaving: Vec<(u16, &'static str, Sub)>,
    expects: BTreeMap<Body, Expect>,
    /// Retained messages: how often granted, how often heard, and whether owed on this connection.
    retained: BTreeMap<Body, (u32, u32, bool)>,
    /// The will and when it is due; `u64::MAX` while connected.
    will: Option<(WillWish, u64)>,
    /// Held inbound QoS 2 ids: the message and the broker's life in which it came.
    inbound: BTreeMap<u16, (Body, u32)>,
    /// The session before: a crash may bring it back.
    ghosts: BTreeSet<Body>,
    ghost_subs: BTreeSet<&'static str>,
    end_is_open: bool,
    present: Option<bool>,
    /// The highest message heard of each stream: publisher, topic, both qualities of service.
    streams: BTreeMap<(Who, &'static str, QoS, QoS), Body>,
    exactly_once: BTreeSet<Body>,
}

/// The values a topic has had; which one it has now is sure while a broker lives.
#[derive(Default)]
struct Topic {
    values: Vec<(Option<Body>, u32)>,
    /// None before this one any more.
    floor: usize,
    current: Option<usize>,
}

pub(super) struct Model {
    told: Vec<Told>,
    sessions: Vec<Session>,
    topics: BTreeMap<&'static str, Topic>,
    pub(super) life: u32,
    attempts: u32,
    /// The disk fails: nothing is owed but what was promised.
    failing: bool,
    /// QoS 0 may be dropped.
    lossy: bool,
    line: u64,
    truth: u64,
}

impl Model {
    pub(super) fn new(devices: usize, lossy: bool) -> Self {
        Self {
            told: Vec::new(),
            sessions: (0..devices).map(|_| Session::default()).collect(),
            topics: BTreeMap::new(),
            life: 1,
            attempts: 0,
            failing: false,
            lossy,
            line: 0,
            truth: 0,
        }
    }

    /// Gives a message its number.
    pub(super) fn number(
        &mut self,
        from: Who,
        message: impl FnOnce(Body) -> Message,
        is_will: bool,
    ) -> Message {
        let message = message(self.told.len());
        let fate = if is_will { Fate::Armed } else { Fate::Sent };
        let deadline = (u64::MAX, 0);
        self.told.push(Told {
            message: message.clone(),
            from,
            attempt: 0,
            routed: 0,
            deadline,
            fate,
            shared: Shared::default(),
        });
        message
    }

    pub(super) fn disk_fails(&mut self) {
        self.failing = true;
    }

    /// Time has passed, and the broker has done what was due.
    pub(super) fn passed(&mut self, line: u64, truth: u64) -> Verdict {
        (self.line, self.truth) = (line, truth);
        if line > truth {
            return Err(format!("the broker's time is {line}, and {truth} ms have passed"));
        }
        loop {
            let due = |s: &Session| s.expires_line.min(s.will.as_ref().map_or(u64::MAX, |(_, due)| *due));
            let asleep = (0..self.sessions.len()).filter(|&who| {
                let s = &self.sessions[who];
                s.exists != Exists::No && !s.connected && due(s) <= line
            });
            let Some(who) = asleep.min_by_key(|&who| due(&self.sessions[who])) else { break };
            if self.sessions[who].expires_line <= line {
                self.end_session(who);
            } else if let Some((will, _)) = self.sessions[who].will.take() {
                self.publish_will(who, &will);
            }
        }
        for s in self.sessions.iter_mut().filter(|s| s.exists == Exists::Yes && !s.connected) {
            if truth >= s.expires_true && s.expires_line > line {
                s.exists = Exists::Perhaps;
                let will = s.will.take();
                open_fate(&mut self.told, will.as_ref());
            }
        }
        Ok(())
    }

    // What the broker takes.

    pub(super) fn connect(&mut self, who: Who, hello: &Hello, is_v5: bool) {
        if self.sessions[who].connected {
            self.parted(who, true, false);
        }
        if hello.clean && self.sessions[who].exists != Exists::No {
            self.end_session(who);
        }
        if self.sessions[who].exists == Exists::Perhaps && self.sessions[who].may_be_new {
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
        s.greeted = false;
        s.persistent = if is_v5 { hello.expiry > 0 } else { !hello.clean };
        s.expiry_ms = if is_v5 { u64::from(hello.expiry) * 1_000 } else { 30 * 86_400_000 };
        s.expiry_floor_ms =
            if s.present == Some(false) { s.expiry_ms } else { s.expiry_floor_ms.min(s.expiry_ms) };
        s.woke_at = self.line;
        s.wake_is_durable = false;
        s.will = hello.will.clone().map(|will| (will, u64::MAX));
    }

    /// The connection ends.
    pub(super) fn parted(&mut self, who: Who, with_will: bool, ends_session: bool) {
        let s = &mut self.sessions[who];
        if !s.connected {
            return;
        }
        s.connected = false;
        s.subscribing.clear();
        s.retained.values_mut().for_each(|(_, _, owed)| *owed = false);
        s.expects.values_mut().filter(|e| e.qos == Some(QoS::AtMostOnce)).for_each(|e| e.in_life = false);
        (s.slept_at, s.sleep_is_durable) = (self.line, false);
        let ends = ends_session || !s.persistent;
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

    fn end_session(&mut self, who: Who) {
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

    /// What it may have been sent as exactly-once goes to nobody else; without another member nothing does.
    fn member_gone(&mut self) {
        let others = self.sessions.iter().any(|s| {
            s.exists == Exists::Yes && s.persistent && s.subs.get(SHARED).is_some_and(|sub| sub.sure)
        });
        for told in self.told.iter_mut().filter(|told| told.message.topic.starts_with("s/")) {
            if !others || told.message.qos == QoS::ExactlyOnce {
                told.shared =
                    Shared { attempt: 0, must: false, in_life: false, ..std::mem::take(&mut told.shared) };
            }
        }
    }

    fn publish_will(&mut self, who: Who, will: &WillWish) {
        debug_assert_eq!(self.told[will.body].from, who);
        self.told[will.body].fate = Fate::Leaving;
        self.route(will.body, false);
    }

    pub(super) fn publish(&mut self, who: Who, id: u16, body: Body) {
        if self.told[body].message.qos != QoS::ExactlyOnce {
            return self.route(body, false);
        }
        let life = self.life;
        let before = self.sessions[who].inbound.insert(id, (body, life));
        match before {
            Some((same, then)) if same == body && then == life && !self.failing => {
                self.sessions[who].inbound.insert(id, (body, then));
            }
            Some(_) => self.route(body, true),
            // A copy of it came to a session that may be back.
            None => self.route(body, self.told[body].attempt > 0),
        }
    }

    pub(super) fn released(&mut self, who: Who, id: u16) {
        self.sessions[who].inbound.remove(&id);
    }

    pub(super) fn subscribe(&mut self, who: Who, id: u16, filter: &'static str, qos: QoS) {
        let owes = !self.failing && !self.lossy;
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
        s.subs.insert(filter, Sub { qos, sure: true, durable });
        s.subscribing.insert(id, filter);
        for (body, owed) in granted {
            let entry = s.retained.entry(body).or_default();
            entry.0 += 1;
            entry.2 |= owed;
        }
    }

    pub(super) fn unsubscribe(&mut self, who: Who, id: u16, filter: &'static str) {
        let s = &mut self.sessions[who];
        if let Some(sub) = s.subs.remove(filter) {
            s.leaving.push((id, filter, sub));
        }
    }

    /// Who may get it, who must. `again`: a first copy may have been routed before a crash.
    fn route(&mut self, body: Body, again: bool) {
        self.attempts += 1;
        let attempt = self.attempts;
        let told = &mut self.told[body];
        told.attempt = attempt;
        told.routed += 1;
        let at = told.message.expiry.map_or(u64::MAX, |s| self.line + u64::from(s) * 1_000);
        told.deadline = (told.deadline.0.min(at), told.deadline.1.max(at));
        let Message { topic, qos, retain, clears, .. } = told.message;
        if retain {
            let values = self.topics.entry(topic).or_default();
            if values.values.is_empty() {
                values.values.push((None, 0));
            }
            // One that may count for nothing promises nothing of those before it.
            values.values.push(((!clears).then_some(body), if again { 0 } else { attempt }));
            values.current = (!again && !self.failing).then(|| values.values.len() - 1);
        }
        if clears {
            return;
        }
        if topic.starts_with("s/") {
            let is_member = |s: &Session| {
                s.exists == Exists::Yes && s.persistent && s.subs.get(SHARED).is_some_and(|sub| sub.sure)
            };
            if self.sessions.iter().any(is_member) && !again && qos != QoS::AtMostOnce {
                told.shared.attempt = attempt;
                told.shared.in_life = !self.failing;
            }
            return;
        }
        let (failing, lossy) = (self.failing, self.lossy);
        for s in self.sessions.iter_mut().filter(|s| s.exists != Exists::No) {
            s.route(body, topic, qos, attempt, again, failing, lossy);
        }
    }

    // What leaves the broker.

    pub(super) fn greeted(&mut self, who: Who, present: bool, refused: bool) -> Verdict {
        if refused {
            if !self.failing {
                return Err("refused".to_owned());
            }
            let s = &mut self.sessions[who];
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
        let was_gone = !present && s.present.is_none();
        if was_gone {
            s.begin();
        }
        s.exists = Exists::Yes;
        s.greeted = true;
        s.wake_is_durable |= !present || s.will.is_some();
        if s.wake_is_durable || !self.failing {
            // Whatever the disk says of it, it counts as awake from now on.
            s.asleep_on_disk = u64::MAX;
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

    /// PUBACK or PUBREC without an error: what the broker has promised.
    pub(super) fn promised(&mut self, body: Body) {
        let attempt = self.told[body].attempt;
        for s in &mut self.sessions {
            if let Some(e) = s.expects.get_mut(&body) {
                e.must |= e.attempt == attempt;
            }
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

    pub(super) fn subscribed(&mut self, who: Who, id: u16) {
        let s = &mut self.sessions[who];
        if let Some(filter) = s.subscribing.remove(&id)
            && !s.subscribing.values().any(|f| *f == filter)
            && let Some(sub) = s.subs.get_mut(filter)
        {
            sub.durable = true;
        }
    }

    pub(super) fn unsubscribed(&mut self, who: Who, id: u16) {
        self.sessions[who].leaving.retain(|(of, _, _)| *of != id);
    }

    /// A PUBLISH leaves that was put together after the moment `not_before`.
    pub(super) fn sent(&mut self, who: Who, body: Body, dup: bool, not_before: u64) -> Verdict {
        let Some(told) = self.told.get(body) else { return Ok(()) };
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

    // What a device's application hears.

    pub(super) fn heard(&mut self, who: Who, body: Body, qos: QoS, retain: bool, dup: bool) -> Verdict {
        let Some(told) = self.told.get_mut(body) else { return Ok(()) };
        let s = &mut self.sessions[who];
        if retain {
            let Some((granted, heard, owed)) = s.retained.get_mut(&body) else {
                return Err(format!("the retained {body} is not what {who} asked for"));
            };
            *heard += u32::from(!dup);
            *owed = false;
            let too_often = qos == QoS::ExactlyOnce && heard > granted;
            return if too_often { Err(format!("the retained {body} came {heard} times")) } else { Ok(()) };
        }
        if qos == QoS::ExactlyOnce && !s.exactly_once.insert(body) {
            return Err(format!("{body} came to {who} twice"));
        }
        if told.message.topic.starts_with("s/") {
            let shared = &mut told.shared;
            if qos == QoS::ExactlyOnce && shared.heard.is_some_and(|by| by != who) {
                return Err(format!("{body} came to two members"));
            }
            shared.heard = Some(who);
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
        if e.heard == 1 && e.routes == 1 && !told.message.will && in_order && !is_again {
            let stream = (told.from, told.message.topic, told.message.qos, qos);
            if s.streams.insert(stream, body).is_some_and(|last| last > body) {
                return Err(format!("{body} came to {who} after a later one of its stream"));
            }
        }
        Ok(())
    }

    // The disk and the power.

    /// All that was to be written is written; messages held back aside.
    pub(super) fn settled(&mut self) {
        if self.failing {
            return;
        }
        for s in &mut self.sessions {
            s.sleep_is_durable |= self.line >= s.slept_at + RIDES_MS && !s.awake_on_disk;
            s.wake_is_durable |= self.line >= s.woke_at + RIDES_MS;
            for (body, e) in &mut s.expects {
                let is_will = self.told[*body].message.will;
                e.must |= is_will && e.in_life && s.persistent && e.qos != Some(QoS::AtMostOnce);
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
    pub(super) fn crashed(&mut self, line: u64, truth: u64) -> Verdict {
        self.life += 1;
        self.failing = false;
        (self.line, self.truth) = (line, truth);
        for who in 0..self.sessions.len() {
            let will = self.sessions[who].crashed(line, truth);
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
    pub(super) fn finish(&self) -> Verdict {
        for (who, s) in self.sessions.iter().enumerate() {
            for (body, e) in &s.expects {
                let told = &self.told[*body];
                if (e.must || e.in_life) && e.heard == 0 && told.deadline.0 > self.line {
                    let Message { topic, qos, .. } = told.message;
                    let (must, tries) = (e.must, e.tries);
                    return Err(format!(
                        "{body} ({topic}, {qos:?}) never came to {who}; must {must}, tries {tries}"
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
            if told.shared.heard.is_none() && told.deadline.0 > self.line {
                return Err(format!("{} came to no member", told.message.body));
            }
        }
        Ok(())
    }

    /// What a new subscriber to everything got.
    pub(super) fn retained(&self, found: &BTreeMap<String, Body>) -> Verdict {
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

    /// Which session of the device it is. One that began behind a CONNACK that was lost looks to its device like the
    /// one before; the standard has no way to tell it.
    pub(super) fn incarnation(&self, who: Who) -> u32 {
        self.sessions[who].incarnation
    }

    /// Whether the device's session is one that stays.
    pub(super) fn is_persistent(&self, who: Who) -> bool {
        self.sessions[who].persistent
    }
}

impl Session {
    /// A new session of the same device.
    fn begin(&mut self) {
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
            ..Self::default()
        };
    }

    #[expect(clippy::too_many_arguments, reason = "one call site")]
    fn route(
        &mut self,
        body: Body,
        topic: &str,
        qos: QoS,
        attempt: u32,
        again: bool,
        failing: bool,
        lossy: bool,
    ) {
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
        let persistent = self.persistent;
        let e = self.expects.entry(body).or_default();
        let exact = as_qos.filter(|_| all_sure);
        e.qos = if is_new || e.qos == exact { exact } else { None };
        e.tries += 1 + u32::from(again);
        e.routes += 1;
        let Some(as_qos) = as_qos else { return };
        if again && (is_new || e.attempt == 0) {
            return;
        }
        if as_qos == QoS::AtMostOnce {
            e.in_life |= exact.is_some() && online && !failing && !lossy && !again;
        } else {
            e.in_life |= !failing;
            if persistent {
                e.attempt = attempt;
            }
        }
    }

    /// Nothing is sure of it any more.
    fn loosen(&mut self) {
        self.incarnation += 1;
        self.exactly_once.clear();
        self.streams.clear();
        for e in self.expects.values_mut() {
            *e = Expect { qos: e.qos, tries: 9, ..Expect::default() };
        }
        self.retained.values_mut().for_each(|r| r.2 = false);
        self.subs.values_mut().for_each(|sub| sub.sure = false);
    }

    /// Returns a will that may be published or not.
    fn crashed(&mut self, line: u64, truth: u64) -> Option<(WillWish, u64)> {
        let was_connected = std::mem::take(&mut self.connected);
        if was_connected {
            (self.awake_on_disk, self.sleep_is_durable) = (true, false);
        }
        let mut open_will = None;
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
            self.expires_true = expires.min(self.asleep_on_disk);
            // Compaction may write so at any time.
            self.asleep_on_disk = self.expires_true;
            // Of a connection that no CONNACK has answered the disk may know nothing.
            let latest = if self.greeted { line + self.expiry_ms } else { u64::MAX };
            self.expires_line = self.expires_line.max(latest);
        } else if self.exists != Exists::No || self.end_is_open {
            open_will = open_will.or(self.will.take());
            self.exists = Exists::Perhaps;
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

impl Topic {
    fn possible(&self) -> Vec<Option<Body>> {
        match self.current {
            Some(at) => vec![self.values[at].0],
            None => self.values.iter().skip(self.floor).map(|(value, _)| *value).collect(),
        }
    }
}

fn open_fate(told: &mut [Told], will: Option<&(WillWish, u64)>) {
    if let Some((will, _)) = will {
        told[will.body].fate = Fate::Open;
    }
}

/// Whether a filter (one that is not shared) matches a topic.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(f), Some(t)) if f == "+" || f == t => {}
            _ => return false,
        }
    }
}
