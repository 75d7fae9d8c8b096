//! One connection, from its CONNACK to its end: packets in, bytes out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use tracing::info;

use super::{
    Broker, Peer,
    acknowledge::Acknowledgement,
    authenticate::{Authenticated, Authentication},
    connack::refusal,
    counters::Counters,
    dispatch::{Route, RouteCache, Touched},
    last_answers::LastAnswers,
    lifecycle::Parting,
    slot::{Slot, State},
    stats::Traffic,
};
use crate::{
    codec::{DecodeError, Disconnect, Packet, ReasonCode, Version, decode_next},
    session::{Aliases, Link, Verdict, Waiting},
    store::Gate,
    sync::lock,
    time::Timestamp,
};

/// The broker's end of one network connection. Dropped without [`Connection::close`] it counts as lost, at the latest
/// time the broker was told.
pub struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) slot: Arc<Slot>,
    pub(super) epoch: u64,
    pub(super) version: Version,
    pub(super) routes: RouteCache,
    /// On the heap: most clients use none.
    aliases: Option<Box<Aliases>>,
    /// In milliseconds; 0 is none.
    keep_alive_limit_ms: u32,
    /// On the heap: most connections have none.
    pub(super) authentication: Option<Box<Authentication>>,
    pub(super) peer: Peer,
    /// How it ends, once that is clear.
    ending: Option<Ending>,
    /// What it still says then. On the heap: it is there for a moment.
    last_answers: Option<Box<LastAnswers>>,
    /// See [`Connection::may_read`].
    pub(super) paused: bool,
    /// QoS > 0 PUBLISH packets that were unanswered when the last one was answered; by now it may be fewer.
    pub(super) unanswered: u32,
    loading: Option<Arc<Loading>>,
    closed: bool,
    seen: Timestamp,
}

/// Bodies that were asked of the disk. One request at a time: a connection is polled for many reasons meanwhile.
struct Loading {
    served: AtomicBool,
    waker: Waker,
}

impl Wake for Loading {
    fn wake(self: Arc<Self>) {
        self.served.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }
}

impl Loading {
    /// Whether it is under way, and will wake this task.
    fn serves(&self, waker: &Waker) -> bool {
        !self.served.load(Ordering::Acquire) && self.waker.will_wake(waker)
    }
}

/// How a connection ends from inside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// The client said goodbye.
    Parted(Parting),
    /// The client sends no more, and has not said goodbye.
    Lost,
    /// The client broke the protocol, or may not do what it does: v5 is told by DISCONNECT.
    Refused(ReasonCode, &'static str),
    /// It could not be decoded.
    Undecodable(DecodeError),
    /// Another connection, or the end of the broker, has ended it.
    Replaced,
}

impl From<Verdict> for Ending {
    fn from(verdict: Verdict) -> Self {
        Self::Refused(verdict.reason, verdict.why)
    }
}

/// Why a connection ended, from the network's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed or reset it.
    Lost,
    /// The peer broke the rules of what carries MQTT, in this way.
    Misframed(&'static str),
    /// Nothing came for one and a half keep alives.
    KeepAliveTimeout,
    /// The broker asked for it by [`Transmit::Closing`].
    Closed,
    /// The process ends.
    ServerShutdown,
    /// The peer did not take its bytes in time.
    SlowReader,
}

/// What the driver does after it has written `out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Go on; the waker is called when there is more to send or the connection has to close.
    Open,
    /// The same, but there may be more already: ask again when something of `out` has been written.
    More,
    /// Write what is in `out`, shut the write side down, drain briefly, close.
    Closing,
}

/// May more be read?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Yes.
    Continue,
    /// Not until [`Connection::may_read`]; the keep alive is suspended meanwhile. The waker is called.
    Pause,
    /// The connection is closing: discard input, and ask [`Connection::poll_transmit`] for what still has to leave until it
    /// says so, or that takes too long.
    Stop,
}

/// Answers waiting for the disk beyond which no more packets are taken from a client that keeps no receive maximum.
const ANSWERS_MAX: usize = 16_384;
/// Retained messages sent for one SUBSCRIBE beyond which the next packet waits for the connection's next turn.
const RETAINED_AT_ONCE: usize = 1_000;

impl Connection {
    #[expect(clippy::too_many_arguments, reason = "one call site; what CONNECT has settled")]
    pub(super) fn new(
        broker: Arc<Broker>,
        slot: Arc<Slot>,
        epoch: u64,
        version: Version,
        keep_alive_limit: Option<Duration>,
        authenticated: Option<&Authenticated>,
        peer: Peer,
        now: Timestamp,
    ) -> Self {
        let limit_ms = keep_alive_limit.map_or(0, |limit| limit.as_millis().max(1));
        Self {
            broker,
            slot,
            epoch,
            version,
            aliases: None,
            routes: RouteCache::default(),
            keep_alive_limit_ms: u32::try_from(limit_ms).unwrap_or(u32::MAX),
            authentication: authenticated.map(|a| Box::new(a.into())),
            peer,
            ending: None,
            last_answers: None,
            paused: false,
            unanswered: 0,
            loading: None,
            closed: false,
            seen: now,
        }
    }

    /// Those the client uses, from the first one on.
    pub(super) fn aliases(&mut self) -> &mut Aliases {
        let (version, config) = (self.version, &self.broker.config);
        self.aliases.get_or_insert_with(|| {
            Box::new(Aliases::new(if version.is_v5() { config.topic_alias_max } else { 0 }))
        })
    }

    /// One and a half times the keep alive in force [MQTT-3.1.2-22]; `None` when it is off.
    pub fn keep_alive_limit(&self) -> Option<Duration> {
        (self.keep_alive_limit_ms > 0).then(|| Duration::from_millis(self.keep_alive_limit_ms.into()))
    }

    /// The client identifier, for the log.
    pub fn client_id(&self) -> &str {
        &self.slot.keep.client_id
    }

    /// Whether the driver may read after a [`Reading::Pause`].
    pub fn may_read(&self) -> bool {
        !self.paused && self.ending.is_none()
    }

    /// Handles the whole packets in `input`. Returns how many bytes they took (a partial one stays) and whether to go
    /// on reading. Every connection that got something is woken when this returns.
    pub fn receive(&mut self, input: &[u8], now: Timestamp) -> (usize, Reading) {
        self.seen = now;
        let slot = Arc::clone(&self.slot);
        // Dropped last: the others are woken after this session's lock is free.
        let mut touched = Touched::default();
        let _handling = lock(&slot.handling);
        let mut traffic = Traffic::default();
        let reading = self.handle_packets(input, now, &mut touched, &mut traffic);
        touched.complete();
        self.broker.counters.received(&traffic);
        self.broker.send_letters(now, &mut touched);
        (usize::try_from(traffic.bytes).unwrap_or(usize::MAX), reading)
    }

    /// Handles packets until there is no whole one left, and counts them.
    fn handle_packets(
        &mut self,
        input: &[u8],
        now: Timestamp,
        touched: &mut Touched,
        traffic: &mut Traffic,
    ) -> Reading {
        let mut rest = input;
        let mut before = self.routes.last();
        let state = self.slot.state();
        // Who has taken over handles packets from here on, and is sent again what this one leaves unanswered.
        let is_replaced = !state.is_served_by(self.epoch);
        // After that, whatever adds to it looks again.
        self.paused |= self.is_owed_too_much(&state);
        drop(state);
        if is_replaced && self.ending.is_none() {
            self.end(Ending::Replaced, now, touched);
        }
        while self.ending.is_none() {
            self.paused |= self.is_overloaded();
            if self.paused {
                return Reading::Pause;
            }
            let topic = before.as_deref().map(|route| &route.topic);
            let handled = match decode_next(rest, self.version, self.broker.config.packet_bytes_max, topic) {
                Ok(None) => return Reading::Continue,
                Ok(Some((packet, bytes))) => {
                    rest = rest.get(bytes..).unwrap_or_default();
                    traffic.count(&packet, bytes);
                    let handled = self.handle(&packet, rest, before.as_deref(), now, touched, traffic);
                    handled.map(|bytes| rest = rest.get(bytes..).unwrap_or_default())
                }
                Err(error) => Err(Ending::Undecodable(error)),
            };
            self.routes.follow(&mut before);
            if let Err(ending) = handled {
                self.end(ending, now, touched);
            }
        }
        Reading::Stop
    }

    /// The peer has closed its side, and may still read: the session ends or goes to sleep as after a loss, and the
    /// answers to what came before leave by [`Connection::poll_transmit`].
    pub fn input_ended(&mut self, now: Timestamp) {
        self.seen = now;
        let slot = Arc::clone(&self.slot);
        let mut touched = Touched::default();
        let _handling = lock(&slot.handling);
        if self.ending.is_none() {
            self.end(Ending::Lost, now, &mut touched);
        }
    }

    /// Backpressure: the publisher is slowed by TCP.
    fn is_overloaded(&self) -> bool {
        self.broker.journal.backlogged() || self.broker.letters_hold_up()
    }

    fn is_owed_too_much(&self, state: &State) -> bool {
        state.session.link.as_ref().is_some_and(|link| is_owed_too_much(link, &self.broker))
    }

    /// Handles a packet, and what follows it in `rest` where that is done together; how many bytes of it that took. `before` is
    /// the route of the message before.
    fn handle<'p>(
        &mut self,
        packet: &Packet<'p>,
        rest: &'p [u8],
        before: Option<&'p Route>,
        now: Timestamp,
        touched: &mut Touched,
        traffic: &mut Traffic,
    ) -> Result<usize, Ending> {
        if let Packet::Publish(publish) = packet {
            return self.handle_publishes(publish, rest, before, now, touched, traffic);
        }
        if let Some(first) = Acknowledgement::of(packet) {
            return self.handle_acknowledgements(first, rest, now, traffic);
        }
        touched.complete();
        self.handle_rare(packet, now, touched)?;
        self.paused |= self.is_owed_too_much(&self.slot.state());
        Ok(0)
    }

    /// Handles what does not come with each message.
    fn handle_rare(
        &mut self,
        packet: &Packet<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) -> Result<(), Ending> {
        match packet {
            Packet::Subscribe(subscribe) => {
                // The others get their turn before the next one of these.
                self.paused |= self.handle_subscribe(subscribe, now)? > RETAINED_AT_ONCE;
                Ok(())
            }
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(unsubscribe, now, touched),
            // [MQTT-3.12.4-1], [MQTT3-3.12.4-1]
            Packet::Pingreq => self.with_state(|state, _| {
                if let Some(link) = &mut state.session.link {
                    link.send(&Packet::Pingresp);
                }
            }),
            Packet::Disconnect(disconnect) => Err(self.parting(disconnect)?),
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => Err(Ending::Refused(ReasonCode::ProtocolError, "a second CONNECT")),
            Packet::Auth(auth) => self.handle_auth(auth),
            // What is left are those.
            _ => Err(Ending::Refused(ReasonCode::ProtocolError, "a packet that only a server sends")),
        }
    }

    /// Runs `change` on the session, if this connection still serves it.
    pub(super) fn with_state<T>(&self, change: impl FnOnce(&mut State, &Slot) -> T) -> Result<T, Ending> {
        let mut state = self.slot.state();
        if state.is_served_by(self.epoch) {
            Ok(change(&mut state, &self.slot))
        } else {
            Err(Ending::Replaced)
        }
    }

    fn parting(&self, disconnect: &Disconnect<'_>) -> Result<Ending, Ending> {
        let session_expiry = disconnect.properties.session_expiry;
        let transient = self.with_state(|state, _| state.record.expiry.is_zero())?;
        // MQTT 5.0 section 3.14.2.2.2: none may be set on leaving where CONNECT set none.
        if transient && session_expiry.is_some_and(|s| s > 0) {
            return Err(Ending::Refused(
                ReasonCode::ProtocolError,
                "a session expiry interval where CONNECT had none",
            ));
        }
        let with_will = disconnect.reason != ReasonCode::Success;
        Ok(Ending::Parted(Parting { with_will, session_expiry }))
    }

    /// Ends the connection, and says so to a v5 client that has not. The session lets go of it at once: what others
    /// deliver would follow the DISCONNECT, as would a second one [MQTT-3.14.4-1].
    fn end(&mut self, ending: Ending, now: Timestamp, touched: &mut Touched) {
        touched.complete();
        self.ending = Some(ending);
        let goodbye = match ending {
            Ending::Refused(reason, why) => Some(Verdict::refused(reason, why)),
            Ending::Undecodable(error) => Some(Verdict::refused(error.disconnect_reason(), error.message())),
            Ending::Parted(_) | Ending::Lost => None,
            Ending::Replaced => return,
        };
        let slot = Arc::clone(&self.slot);
        let mut state = slot.state();
        if !state.is_served_by(self.epoch) {
            self.ending = Some(Ending::Replaced);
            return;
        }
        let link = state.session.link.take();
        self.last_answers = link.map(|link| Box::new(LastAnswers::new(link, goodbye)));
        self.broker.after_connection(&slot, state, self.parting_of_client(), now, touched);
    }

    fn parting_of_client(&self) -> Option<Parting> {
        if let Some(Ending::Parted(parting)) = self.ending { Some(parting) } else { None }
    }

    /// Appends to `out` what is ready to be sent, up to the configured bound, and keeps `waker`.
    pub fn poll_transmit(&mut self, waker: &Waker, now: Timestamp, out: &mut Vec<u8>) -> Transmit {
        self.seen = now;
        if let Some(last) = &mut self.last_answers {
            let waits = last.poll(&self.broker, waker, now, out);
            return if waits { Transmit::More } else { Transmit::Closing };
        }
        let slot = Arc::clone(&self.slot);
        let mut state = slot.state();
        if !state.is_served_by(self.epoch) {
            drop(state);
            return self.say_farewell(out);
        }
        if let Some(connection) = &mut state.connection {
            connection.notified = false;
            if !connection.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
                connection.waker = Some(waker.clone());
            }
        }
        while self.transmit_once(&mut state, waker, now) {}
        if self.ending.is_some() {
            take_output(&mut state, out, &self.broker.counters);
            return Transmit::Closing;
        }
        let is_full = |link: &Link<Gate>| link.out.len() >= link.terms.out_bytes_max;
        let has_room = out.len() < self.broker.config.out_bytes_max;
        let may_be_more = !has_room || state.session.link.as_deref().is_some_and(is_full);
        if has_room {
            take_output(&mut state, out, &self.broker.counters);
        }
        slot.note_busy(&state);
        // Whoever is owed too much has something in `out`, or an answer that waits for a gate: it is looked at again.
        self.paused =
            self.paused && (self.is_owed_too_much(&state) || !self.broker.poll_backlog(self.epoch, waker));
        drop(state);
        if self.broker.has_letters() {
            self.broker.send_letters(now, &mut Touched::default());
        }
        if may_be_more { Transmit::More } else { Transmit::Open }
    }

    /// Encodes what may leave; `true` when more may by now.
    fn transmit_once(&mut self, state: &mut State, waker: &Waker, now: Timestamp) -> bool {
        let journal = &self.broker.journal;
        let pending = state.session.transmit(&self.slot.keep, now);
        let mut again = false;
        if let Some(gate) = pending.answer {
            again = journal.poll_gate(&gate, waker);
            if !again && journal.poisoned() {
                self.give_up(state);
                return false;
            }
        }
        match pending.delivery {
            Waiting::Gate(gate) => again |= journal.poll_gate(&gate, waker),
            Waiting::Load(_) if self.loading.as_ref().is_some_and(|l| l.serves(waker)) => {}
            Waiting::Load(kept) => {
                let stored = kept.into_iter().filter_map(super::keep::Kept::into_stored).collect();
                let Some(stored) = journal.load_at_hand(stored) else { return true };
                let loading = Arc::new(Loading { served: AtomicBool::new(false), waker: waker.clone() });
                journal.load(stored, Waker::from(Arc::clone(&loading)));
                self.loading = Some(loading);
            }
            Waiting::Output | Waiting::Nothing => {}
        }
        // With a block just asked for, the next look finds the gate to wait for.
        self.broker.reserve_numbers(&self.slot, state) || again
    }

    /// The next answer waits for a disk that has failed: the client is told, not left to wait.
    fn give_up(&mut self, state: &mut State) {
        const WHY: &str = "the store has failed";
        self.ending = Some(Ending::Refused(ReasonCode::ImplementationSpecificError, WHY));
        let Some(link) = &mut state.session.link else { return };
        if link.is_greeted() {
            link.say_goodbye(Verdict::refused(ReasonCode::ImplementationSpecificError, WHY));
        } else {
            let unavailable = Verdict::refused(ReasonCode::ServerUnavailable, WHY);
            link.out.extend(refusal(&link.terms, unavailable));
        }
    }

    fn say_farewell(&mut self, out: &mut Vec<u8>) -> Transmit {
        if let Some((bytes, verdict)) = self.broker.farewells.take(self.epoch) {
            out.extend_from_slice(&bytes);
            self.ending = Some(Ending::Refused(verdict.reason, verdict.why));
        } else if self.ending.is_none() {
            self.ending = Some(Ending::Replaced);
        }
        Transmit::Closing
    }

    /// Ends the connection: one line in the log, the will where it is due, the session to sleep or to its end. Returns
    /// the last bytes for the peer: a v5 client that was silent for too long is told so.
    pub fn close(mut self, reason: CloseReason, now: Timestamp) -> Vec<u8> {
        let mut last = Vec::new();
        if reason == CloseReason::KeepAliveTimeout && self.ending.is_none() {
            let silent = Verdict::refused(ReasonCode::KeepAliveTimeout, "nothing came within the keep alive");
            let _ = self.with_state(|state, _| {
                if let Some(link) = &mut state.session.link {
                    link.say_goodbye(silent);
                    self.broker.counters.sent(std::mem::take(&mut link.tally), link.out.len());
                    last = std::mem::take(&mut link.out);
                }
            });
        }
        self.finish(reason, now);
        last
    }

    fn finish(&mut self, reason: CloseReason, now: Timestamp) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let parting = self.parting_of_client();
        let mut touched = Touched::default();
        let slot = Arc::clone(&self.slot);
        let state = slot.state();
        if state.is_served_by(self.epoch) {
            self.broker.after_connection(&slot, state, parting, now, &mut touched);
        } else {
            drop(state);
            self.broker.farewells.forget(self.epoch);
        }
        self.broker.send_letters(now, &mut touched);
        let why = self.why(reason);
        info!(client_id = &*slot.keep.client_id, address = %self.peer.address, reason = %why, "disconnected");
    }

    fn why(&self, reason: CloseReason) -> String {
        match self.ending {
            Some(Ending::Parted(Parting { with_will: true, .. })) => {
                "by the client, with its will".to_owned()
            }
            Some(Ending::Parted(_)) => "by the client".to_owned(),
            Some(Ending::Refused(_, why)) => why.to_owned(),
            Some(Ending::Undecodable(error)) => error.to_string(),
            Some(Ending::Lost) => "connection lost".to_owned(),
            Some(Ending::Replaced) => "another connection with this client identifier".to_owned(),
            None => match reason {
                CloseReason::Lost => "connection lost".to_owned(),
                CloseReason::Misframed(how) => how.to_owned(),
                CloseReason::KeepAliveTimeout => "keep alive timed out".to_owned(),
                CloseReason::Closed => "closed".to_owned(),
                CloseReason::ServerShutdown => "the broker shuts down".to_owned(),
                CloseReason::SlowReader => "the client does not take its bytes".to_owned(),
            },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.finish(CloseReason::Lost, self.seen);
    }
}

/// Whether the client asks for more than it takes. Messages to it stop at `out_bytes_max`, answers go on to twice that, so
/// that a client that writes before it reads is not stopped for the messages that wait for it.
pub(super) fn is_owed_too_much(link: &Link<Gate>, broker: &Broker) -> bool {
    let bytes_max = broker.config.out_bytes_max.saturating_mul(2);
    link.answers_waiting() >= ANSWERS_MAX || link.out.len() >= bytes_max
}

fn take_output(state: &mut State, out: &mut Vec<u8>, counters: &Counters) {
    let Some(link) = state.session.link.as_mut().filter(|link| link.has_output()) else { return };
    let bytes = link.out.len();
    counters.sent(link.take_output(out), bytes);
}
