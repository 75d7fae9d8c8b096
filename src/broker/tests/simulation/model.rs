//! What each device may see, and what it must: lists, searched from one end to the other.
//!
//! The model is told of every packet the broker takes and of every one that leaves it, in that order, and of crashes.
//! While a broker lives the model knows what it holds in memory. What a crash leaves of that is known only where it was
//! promised; the rest may be there or not, and the model then allows both.

mod left;
mod power;
mod queue;
mod session;
mod taken;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::queue::Bound;
use super::device::{Body, Message, Who, WillWish};
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
    /// How often it was refused.
    refusals: u32,
    /// It may be, as far as queues go.
    may_be_refused: bool,
    heard_by: BTreeSet<Who>,
    /// Whose it may have been at some time.
    routed_to: BTreeSet<Who>,
    /// Of whom a dead letter says that they do not get it.
    letters: BTreeSet<Who>,
    /// The same, since their queues were full.
    pushed_out: BTreeSet<Who>,
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
    heard: bool,
    /// Who got it as exactly-once.
    exactly_once: Option<Who>,
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
    /// Its queue may have been too short for it, or it is too large for its device.
    excused: bool,
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
    /// The session of before it made room for the present one.
    in_place: bool,
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
    /// What may wait under the bound, in its order.
    waiting: Vec<(u32, Body)>,
    /// Wills that may be published at any time, and then wait as well.
    open_wills: usize,
    /// More may wait: it came back without a promise.
    waits_unknown: bool,
    /// It takes no large packets.
    narrow: bool,
    /// What came while nobody was connected, and nobody has been since.
    unsent: BTreeSet<Body>,
    /// What of that had ended when somebody came. A crash may have it counted as sent then, as long as the disk has the
    /// session as connected.
    too_late: BTreeSet<Body>,
}

/// What the broker may do by its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// QoS 0 may be dropped.
    pub(super) lossy: bool,
    /// The disk may be full: publishes, new sessions and subscriptions may be refused.
    pub(super) crowded: bool,
    /// How many messages may wait for a session.
    pub(super) bound: Option<Bound>,
    /// Somebody gets the dead letters.
    pub(super) letters: bool,
}

/// A promise to a session that is over: it was heard, or there is a letter.
struct Left {
    who: Who,
    body: Body,
    attempt: u32,
    must: bool,
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
    terms: Terms,
    /// What sessions that ended had to deliver, where there are letters.
    left: Vec<Left>,
    /// Wills that the broker publishes at this moment, before the one at hand or after it.
    together: Vec<Body>,
    line: u64,
    /// A crash sets it back to what the disk knows.
    line_max: u64,
    truth: u64,
}

impl Model {
    pub(super) fn new(devices: usize, terms: Terms) -> Self {
        Self {
            told: Vec::new(),
            sessions: (0..devices).map(|_| Session::default()).collect(),
            topics: BTreeMap::new(),
            life: 1,
            attempts: 0,
            failing: false,
            terms,
            left: Vec::new(),
            together: Vec::new(),
            line: 0,
            line_max: 0,
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
            refusals: 0,
            may_be_refused: false,
            heard_by: BTreeSet::new(),
            routed_to: BTreeSet::new(),
            letters: BTreeSet::new(),
            pushed_out: BTreeSet::new(),
        });
        message
    }

    pub(super) fn disk_fails(&mut self) {
        self.failing = true;
    }

    /// Which session of the device it is. One that began behind a CONNACK that was lost looks to its device like the
    /// one before; the standard has no way to tell it.
    pub(super) fn incarnation(&self, who: Who) -> u32 {
        self.sessions[who].incarnation
    }

    /// The device takes no large packets.
    pub(super) fn set_narrow(&mut self, who: Who) {
        self.sessions[who].narrow = true;
    }

    /// Whether the device's session is one that stays.
    pub(super) fn is_persistent(&self, who: Who) -> bool {
        self.sessions[who].persistent
    }
}

impl Told {
    /// Nothing of it was kept, as its publisher knows.
    fn is_refused(&self) -> bool {
        self.refusals > 0 && self.refusals == self.routed
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
