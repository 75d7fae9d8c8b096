//! One task per connection: it reads, lets the broker work, writes, and sees to the ending.
//!
//! ```text
//! Greeting --CONNECT accepted--> Open --Closing / keep alive--> Closing --all written--> Draining --> (closed)
//!    |  '--refused: reply ---------------------------------------^                          ^
//!    '--silence, garbage without reply -----------------------------------------------------'
//! ```
//!
//! The task is one hand-written future over a socket that both reads and writes: no halves, no channel, no timer. Each
//! round reads once, hands over what came, asks the broker for output, and writes once. What the peer sends is
//! answered before more is read from it, so a peer that does not take its answers is not heard either. The broker is asked
//! once in a poll, and again only after input: whatever else it may have to say calls a waker.
//!
//! Invariants: the broker's `Connection` is closed exactly once, with its reason, unless the task is dropped (then the
//! broker counts it as lost). Every state the peer can leave us waiting in has a deadline, but for an open connection
//! whose client switched keep alive off. A deadline is judged only after the socket has been asked for bytes, so that
//! input which came in time is never late.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    buffers::{Inbox, Outbox, Scratch},
    gate::{Client, Gate, Greeted},
    keep_alive::{Alarm, Stop},
    wire::Wire,
};
use crate::{
    broker::{CloseReason, Peer, Reading, Transmit},
    time::Timestamp,
};

/// Rounds in one poll before the other tasks of the thread get their turn.
const ROUNDS_MAX: u32 = 16;
/// And input. 64 KiB are some 800 messages of 64 bytes, which take about half a millisecond: sixteen times as much, and a
/// thousand messages a second of somebody else wait 5 to 10 ms.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// A packet under way counts as a sign of life for each of these: an upload may take longer than the keep alive.
const SIGN_OF_LIFE_BYTES: u32 = 1024;
/// How long a closing connection waits for the peer to have read its last packet and to close; and before that, for the
/// disk to have what the last answers promise.
const DRAIN: Duration = Duration::from_secs(2);
/// What a closing connection throws away at most. Default 16 MiB: more than a kernel holds of what a peer has sent blindly,
/// which on Linux is up to 4 MiB in its send buffer and 6 MiB in our receive buffer. A peer that sends more than that
/// behind its refusal has had its chance to read.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The task; resolves when the socket is to be dropped.
pub(super) struct Task<G: Gate, W> {
    gate: Arc<G>,
    wire: W,
    alarm: Alarm,
    stage: Stage<G>,
    inbox: Inbox,
    outbox: Outbox,
    write_timeout_ms: u32,
    /// The broker may have output that it has not been asked for.
    may_transmit: bool,
}

/// How a connection ended, as far as only the network knows it; the broker logs the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The broker had its say.
    Served,
    /// No CONNECT within the connect timeout.
    ConnectTimeout,
    /// The peer left before it had sent a CONNECT.
    LeftEarly,
    /// The server stopped before there was a CONNECT.
    Stopped,
}

enum Stage<G: Gate> {
    /// Nothing but bytes so far.
    Greeting(Greeting<G>),
    /// An MQTT connection.
    Open(Open<G::Client>),
    /// The last bytes are on their way. What the peer sends is thrown away from here on: one that writes before it reads
    /// would else never come to read them.
    Closing { until: Timestamp, bytes_left: usize },
    /// The write side is shut. What the peer still sends is thrown away: a socket closed with unread input sends a
    /// reset, which can destroy the last packet on its way to the peer.
    Draining { until: Timestamp, bytes_left: usize },
    /// Over.
    Ended,
}

struct Greeting<G: Gate> {
    until: Timestamp,
    peer: Peer,
    handshake: G::Handshake,
}

struct Open<C> {
    client: C,
    /// When the last whole packet, or the last `SIGN_OF_LIFE_BYTES` of one, came; when the input ended, where it has.
    heard: Timestamp,
    /// Bytes since then.
    bytes_since: u32,
    reading: Reading,
    /// Input that stood behind the CONNECT or came before a pause has to be offered again before more is read.
    offer_held: bool,
}

/// What a round led to.
enum Round {
    /// Something moved: another round may find more.
    Moved,
    /// Nothing to do until a waker is called or this moment has come.
    Wait(Timestamp),
    Over(Outcome),
}

impl<G: Gate, W: Wire> Task<G, W> {
    /// `alarm` is set to the connect timeout, which ends at `connect_by`.
    pub(super) fn new(
        gate: Arc<G>,
        wire: W,
        peer: Peer,
        alarm: Alarm,
        connect_by: Timestamp,
        write_timeout: Duration,
    ) -> Self {
        let greeting = Greeting { until: connect_by, peer, handshake: G::Handshake::default() };
        Self {
            gate,
            wire,
            alarm,
            stage: Stage::Greeting(greeting),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            write_timeout_ms: u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX),
            may_transmit: true,
        }
    }

    /// `input_bytes` counts what is handed over.
    fn round(&mut self, cx: &mut Context<'_>, now: Timestamp, input_bytes: &mut usize) -> Round {
        if self.alarm.stopped() == Stop::Now {
            return self.end(CloseReason::ServerShutdown, now);
        }
        match self.stage {
            Stage::Greeting(Greeting { until, .. }) => self.greet(until, cx, now),
            Stage::Open(_) => self.serve(cx, now, input_bytes),
            Stage::Closing { until, bytes_left } => self.write_last(until, bytes_left, cx, now),
            Stage::Draining { until, bytes_left } => self.drain(until, bytes_left, cx, now),
            Stage::Ended => Round::Over(Outcome::Served),
        }
    }

    fn greet(&mut self, until: Timestamp, cx: &mut Context<'_>, now: Timestamp) -> Round {
        if self.alarm.stopped() != Stop::No {
            return Round::Over(Outcome::Stopped);
        }
        // Of an authentication: a peer that does not take it runs out of time.
        let Ok(wrote) = self.outbox.write(&mut self.wire, cx, now) else {
            return Round::Over(Outcome::LeftEarly);
        };
        let mut scratch = Scratch::borrow();
        let fresh = match scratch.read(&mut self.wire, cx) {
            Poll::Pending if wrote => return Round::Moved,
            Poll::Pending if now >= until => return Round::Over(Outcome::ConnectTimeout),
            Poll::Pending => return Round::Wait(until),
            Poll::Ready(Err(_)) if self.wire.violation().is_some() => {
                self.begin_closing(now);
                return Round::Moved;
            }
            Poll::Ready(Ok([]) | Err(_)) => return Round::Over(Outcome::LeftEarly),
            Poll::Ready(Ok(fresh)) => fresh,
        };
        let mut greeted = self.offer_greeting(fresh);
        while let Greeted::Challenged { reply, .. } = &greeted {
            self.outbox.buffer().extend_from_slice(reply);
            // An answer that came before its question is looked at as well.
            greeted = self.offer_greeting(&[]);
        }
        match greeted {
            // A trickle of bytes does not put the timeout off.
            Greeted::Incomplete if now >= until => return Round::Over(Outcome::ConnectTimeout),
            Greeted::Incomplete | Greeted::Challenged { .. } => {}
            Greeted::Refused { reply } => {
                self.outbox.buffer().extend_from_slice(&reply);
                self.begin_closing(now);
            }
            Greeted::Connected { client, .. } => {
                let offer_held = !self.inbox.is_empty();
                let reading = Reading::Continue;
                self.stage = Stage::Open(Open { client, heard: now, bytes_since: 0, reading, offer_held });
            }
        }
        Round::Moved
    }

    fn offer_greeting(&mut self, fresh: &[u8]) -> Greeted<G::Client> {
        let Stage::Greeting(greeting) = &mut self.stage else { return Greeted::Incomplete };
        let (gate, peer, handshake) = (&self.gate, &greeting.peer, &mut greeting.handshake);
        self.inbox.offer(fresh, |input| {
            let greeted = gate.greet(handshake, input, peer);
            let used_bytes = match &greeted {
                Greeted::Challenged { used_bytes, .. } | Greeted::Connected { used_bytes, .. } => *used_bytes,
                Greeted::Incomplete | Greeted::Refused { .. } => 0,
            };
            (used_bytes, greeted)
        })
    }

    /// One round of an open connection: input first, then output.
    fn serve(&mut self, cx: &mut Context<'_>, now: Timestamp, input_bytes: &mut usize) -> Round {
        let Stage::Open(open) = &mut self.stage else { return Round::Moved };
        let mut moved = false;
        match open.read(&mut self.wire, &mut self.inbox, cx, now) {
            Input::Taken { bytes } => {
                *input_bytes += bytes;
                self.may_transmit = true;
                moved = true;
            }
            Input::Failed => {
                let Some(how) = self.wire.violation() else { return self.end(CloseReason::Lost, now) };
                // The peer is told.
                self.close_client(CloseReason::Misframed(how), now);
                self.begin_closing(now);
                return Round::Moved;
            }
            Input::None => {}
        }
        if mem::take(&mut self.may_transmit) {
            let transmit = open.client.poll_transmit(cx.waker(), now, self.outbox.buffer());
            if transmit == Transmit::Closing {
                self.close_client(CloseReason::Closed, now);
                self.begin_closing(now);
                return Round::Moved;
            }
            let Ok(wrote) = self.outbox.write(&mut self.wire, cx, now) else {
                return self.end(CloseReason::Lost, now);
            };
            // Otherwise whatever comes next, from either side, calls a waker.
            self.may_transmit = wrote && (transmit == Transmit::More || self.outbox.is_waiting());
            moved |= self.may_transmit || open.may_resume();
        }
        if moved {
            return Round::Moved;
        }
        let waits_until = open.waits_until();
        let takes_until = self.takes_until();
        if now >= takes_until {
            self.wire.reset_on_close();
            return self.end(CloseReason::SlowReader, now);
        }
        if now >= waits_until {
            return self.run_out(now);
        }
        Round::Wait(waits_until.min(takes_until))
    }

    /// An open connection has waited long enough: for the peer, or for its own last answers.
    fn run_out(&mut self, now: Timestamp) -> Round {
        let Stage::Open(open) = &self.stage else { return Round::Moved };
        let mut reason = CloseReason::Closed;
        if open.reading != Reading::Stop {
            // [MQTT-3.1.2-22], [MQTT3-3.1.2-24]
            if self.outbox.is_waiting() {
                self.wire.reset_on_close();
                return self.end(CloseReason::KeepAliveTimeout, now);
            }
            reason = CloseReason::KeepAliveTimeout;
        }
        self.close_client(reason, now);
        self.begin_closing(now);
        Round::Moved
    }

    /// [MQTT-4.13.2-1]: who is told a reason has to be disconnected, and who is disconnected has to be told.
    fn write_last(
        &mut self,
        until: Timestamp,
        bytes_left: usize,
        cx: &mut Context<'_>,
        now: Timestamp,
    ) -> Round {
        let Ok(wrote) = self.outbox.write(&mut self.wire, cx, now) else {
            return self.end(CloseReason::Lost, now);
        };
        if !self.outbox.is_waiting() {
            // [MQTT-3.14.4-2]
            match Pin::new(&mut self.wire).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    let until = now.after(DRAIN);
                    self.stage = Stage::Draining { until, bytes_left };
                    return Round::Moved;
                }
                Poll::Ready(Err(_)) => return self.end(CloseReason::Lost, now),
                Poll::Pending => {}
            }
        }
        if now >= until {
            self.wire.reset_on_close();
            return self.end(CloseReason::SlowReader, now);
        }
        let discarded = self.discard(bytes_left, cx);
        self.stage = Stage::Closing { until, bytes_left: bytes_left.saturating_sub(discarded) };
        // After a write that moved something only another one tells whether the socket is full, and leaves a waker there.
        if wrote || discarded > 0 { Round::Moved } else { Round::Wait(until) }
    }

    /// Reads once and throws it away. A peer that has used up its share, or closed its side, may still take what waits for
    /// it.
    fn discard(&mut self, bytes_left: usize, cx: &mut Context<'_>) -> usize {
        if bytes_left == 0 {
            return 0;
        }
        match Scratch::borrow().read(&mut self.wire, cx) {
            Poll::Ready(Ok(bytes)) => bytes.len(),
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        }
    }

    fn drain(&mut self, until: Timestamp, bytes_left: usize, cx: &mut Context<'_>, now: Timestamp) -> Round {
        match Scratch::borrow().read(&mut self.wire, cx) {
            Poll::Ready(Ok([]) | Err(_)) => Round::Over(Outcome::Served),
            Poll::Ready(Ok(bytes)) if bytes.len() >= bytes_left || now >= until => {
                Round::Over(Outcome::Served)
            }
            Poll::Ready(Ok(bytes)) => {
                self.stage = Stage::Draining { until, bytes_left: bytes_left - bytes.len() };
                Round::Moved
            }
            Poll::Pending if now >= until => Round::Over(Outcome::Served),
            Poll::Pending => Round::Wait(until),
        }
    }

    /// Until when the peer has to take a byte of what waits for it.
    fn takes_until(&self) -> Timestamp {
        self.outbox.waiting_since().map_or(Timestamp::NEVER, |since| since.after(self.write_timeout()))
    }

    fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms.into())
    }

    fn begin_closing(&mut self, now: Timestamp) {
        self.inbox.discard();
        // Not from the last progress: a peer that takes a byte now and then could keep a closed connection for ever.
        self.stage = Stage::Closing { until: now.after(self.write_timeout()), bytes_left: DRAIN_BYTES_MAX };
    }

    /// Closes the broker's end, if there is one, and takes its last bytes for the peer.
    fn close_client(&mut self, reason: CloseReason, now: Timestamp) {
        if let Stage::Open(open) = mem::replace(&mut self.stage, Stage::Ended) {
            self.outbox.buffer().append(&mut open.client.close(reason, now));
        }
    }

    fn end(&mut self, reason: CloseReason, now: Timestamp) -> Round {
        let outcome =
            if matches!(self.stage, Stage::Greeting(_)) { Outcome::Stopped } else { Outcome::Served };
        self.close_client(reason, now);
        Round::Over(outcome)
    }
}

impl<G: Gate, W: Wire> Future for Task<G, W> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let task = self.get_mut();
        task.alarm.register(cx.waker());
        task.may_transmit = true;
        let mut input_bytes = 0;
        let now = task.gate.now();
        for _ in 0..ROUNDS_MAX {
            match task.round(cx, now, &mut input_bytes) {
                Round::Moved if input_bytes >= INPUT_BYTES_MAX => break,
                Round::Moved => {}
                Round::Wait(until) => {
                    task.alarm.set(until);
                    task.outbox.release();
                    return Poll::Pending;
                }
                Round::Over(outcome) => return Poll::Ready(outcome),
            }
        }
        task.outbox.release();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What reading led to.
enum Input {
    /// The broker was handed so much, or may be soon.
    Taken { bytes: usize },
    /// Nothing there, or nothing wanted.
    None,
    /// The peer reset, or broke the rules of what carries MQTT.
    Failed,
}

impl<C: Client> Open<C> {
    /// Offers what is held, or reads once and offers that.
    fn read<W: Wire>(
        &mut self,
        wire: &mut W,
        inbox: &mut Inbox,
        cx: &mut Context<'_>,
        now: Timestamp,
    ) -> Input {
        if self.may_resume() {
            self.reading = Reading::Continue;
            self.offer_held = !inbox.is_empty();
            // The peer was not heard because nobody listened.
            self.heard = now;
        }
        if self.reading != Reading::Continue {
            return Input::None;
        }
        if mem::take(&mut self.offer_held) {
            let bytes = inbox.len();
            self.offer(inbox, &[], now);
            return Input::Taken { bytes };
        }
        let mut scratch = Scratch::borrow();
        match scratch.read(wire, cx) {
            Poll::Pending => Input::None,
            Poll::Ready(Err(_)) => Input::Failed,
            Poll::Ready(Ok([])) => {
                self.client.input_ended(now);
                self.stop(inbox, now);
                Input::Taken { bytes: 0 }
            }
            Poll::Ready(Ok(fresh)) => {
                self.offer(inbox, fresh, now);
                Input::Taken { bytes: fresh.len() }
            }
        }
    }

    /// Whether a pause is over.
    fn may_resume(&self) -> bool {
        self.reading == Reading::Pause && self.client.may_read()
    }

    /// Nothing more is read: what is left are answers.
    fn stop(&mut self, inbox: &mut Inbox, now: Timestamp) {
        inbox.discard();
        self.reading = Reading::Stop;
        self.heard = now;
    }

    fn offer(&mut self, inbox: &mut Inbox, fresh: &[u8], now: Timestamp) {
        let client = &mut self.client;
        let (used, reading) = inbox.offer(fresh, |input| {
            let (used, reading) = client.receive(input, now);
            (used, (used, reading))
        });
        self.bytes_since = self.bytes_since.saturating_add(u32::try_from(fresh.len()).unwrap_or(u32::MAX));
        if used > 0 || self.bytes_since >= SIGN_OF_LIFE_BYTES {
            self.heard = now;
            self.bytes_since = 0;
        }
        self.reading = reading;
        if reading == Reading::Stop {
            self.stop(inbox, now);
        }
    }

    /// Until when the peer has to be heard, which is never while it is not listened to; or until when its last answers
    /// have to be ready.
    fn waits_until(&self) -> Timestamp {
        match (self.reading, self.client.keep_alive_limit()) {
            (Reading::Stop, _) => self.heard.after(DRAIN),
            (Reading::Continue, Some(limit)) => self.heard.after(limit),
            (Reading::Continue, None) | (Reading::Pause, _) => Timestamp::NEVER,
        }
    }
}

#[cfg(test)]
mod tests;
