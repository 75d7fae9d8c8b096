//! The task against a scripted gate whose clock stands still until a test moves it. No sockets: a pipe in memory has a
//! known size, so a slow reader is slow to the byte.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::*;
use crate::{broker::Address, net::keep_alive::Wheel};

const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_BY: Timestamp = Timestamp(20_000);
const KEEP_ALIVE: Duration = Duration::from_secs(90);

/// A protocol for the purpose: one line is one packet, `hello` is CONNECT and answered by `welcome`.
#[derive(Default)]
struct Lines {
    clock_ms: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "what a test says and what it sees, side by side")]
struct State {
    received: Vec<String>,
    to_send: VecDeque<u8>,
    closing: bool,
    paused: bool,
    /// The disk is slow: it ends only when a test says so.
    answers_wait: bool,
    input_ended: bool,
    keep_alive: Option<Duration>,
    closed: Option<CloseReason>,
    waker: Option<Waker>,
}

struct Script(Arc<Lines>);

impl Lines {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes what the broker's end does next, and wakes the task as the broker would.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state();
            change(&mut state);
            state.waker.clone()
        };
        waker.inspect(Waker::wake_by_ref);
    }
}

impl Gate for Lines {
    type Client = Script;
    /// Whether `prove it` has been asked for.
    type Handshake = bool;

    fn now(&self) -> Timestamp {
        Timestamp(self.clock_ms.load(Ordering::Relaxed))
    }

    fn greet(self: &Arc<Self>, asked: &mut bool, input: &[u8], _peer: &Peer) -> Greeted<Script> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return Greeted::Incomplete };
        if &input[..end] == b"it is me" {
            *asked = true;
            return Greeted::Challenged { reply: b"prove it".to_vec(), used_bytes: end + 1 };
        }
        if &input[..end] != (if *asked { &b"proof"[..] } else { b"hello" }) {
            return Greeted::Refused { reply: b"no".to_vec() };
        }
        self.state().to_send.extend(b"welcome");
        Greeted::Connected { client: Script(Arc::clone(self)), used_bytes: end + 1 }
    }
}

impl Client for Script {
    fn receive(&mut self, input: &[u8], _now: Timestamp) -> (usize, Reading) {
        let mut state = self.0.state();
        let mut used = 0;
        for line in input.split_inclusive(|&byte| byte == b'\n') {
            if line.last() != Some(&b'\n') {
                break;
            }
            if state.paused {
                return (used, Reading::Pause);
            }
            used += line.len();
            let line = String::from_utf8(line[..line.len() - 1].to_vec()).unwrap();
            if line == "bye" {
                state.closing = !state.answers_wait;
                return (used, Reading::Stop);
            }
            state.paused |= line == "pause";
            state.received.push(line);
        }
        (used, if state.paused { Reading::Pause } else { Reading::Continue })
    }

    fn poll_transmit(&mut self, waker: &Waker, _now: Timestamp, out: &mut Vec<u8>) -> Transmit {
        let mut state = self.0.state();
        state.waker = Some(waker.clone());
        out.extend(state.to_send.drain(..));
        if state.closing { Transmit::Closing } else { Transmit::Open }
    }

    fn may_read(&self) -> bool {
        !self.0.state().paused
    }

    fn input_ended(&mut self, _now: Timestamp) {
        let mut state = self.0.state();
        state.input_ended = true;
        state.closing = !state.answers_wait;
    }

    fn keep_alive_limit(&self) -> Option<Duration> {
        self.0.state().keep_alive
    }

    fn close(self, reason: CloseReason, _now: Timestamp) -> Vec<u8> {
        assert_eq!(self.0.state().closed.replace(reason), None, "closed twice");
        Vec::new()
    }
}

/// A pipe that counts what it takes, and whether it is to end in a reset.
struct Pipe {
    stream: DuplexStream,
    bytes_sent: u64,
    reset: Arc<AtomicUsize>,
}

impl Wire for Pipe {
    fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    fn reset_on_close(&self) {
        self.reset.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.bytes_sent += bytes as u64;
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Counts wakes, so that `World::settle` knows when a task has nothing more to do.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One task, its peer, its broker and its clock, all in the test's hands.
struct World {
    task: Task<Lines, Pipe>,
    outcome: Option<Outcome>,
    wakes: Arc<Wakes>,
    peer: DuplexStream,
    lines: Arc<Lines>,
    wheel: Wheel,
    reset: Arc<AtomicUsize>,
}

impl World {
    /// `pipe_bytes`: what the peer's side takes without reading.
    fn new(pipe_bytes: usize) -> Self {
        let (peer, stream) = tokio::io::duplex(pipe_bytes);
        let reset = Arc::new(AtomicUsize::new(0));
        let pipe = Pipe { stream, bytes_sent: 0, reset: Arc::clone(&reset) };
        let lines = Arc::new(Lines::default());
        lines.state().keep_alive = Some(KEEP_ALIVE);
        let wheel = Wheel::new();
        let who = Peer {
            address: Address::Net("192.0.2.7:1883".parse().unwrap()),
            listener: Arc::from("test"),
            certificate_name: None,
        };
        let alarm = wheel.alarm(CONNECT_BY);
        let task = Task::new(Arc::clone(&lines), pipe, who, alarm, CONNECT_BY, WRITE_TIMEOUT);
        let wakes = Arc::new(Wakes(AtomicUsize::new(1)));
        Self { task, outcome: None, wakes, peer, lines, wheel, reset }
    }

    /// A world whose peer has been welcomed.
    fn connected(pipe_bytes: usize) -> Self {
        let mut world = Self::new(pipe_bytes);
        world.send("hello\n");
        assert_eq!(world.take(7), "welcome");
        world
    }

    /// Polls the task as long as something wakes it; returns how often it was polled.
    fn settle(&mut self) -> usize {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut polls = 0;
        while self.outcome.is_none() && self.wakes.0.swap(0, Ordering::Relaxed) > 0 {
            polls += 1;
            assert!(polls < 10_000, "the task wakes itself for ever");
            if let Poll::Ready(outcome) = Pin::new(&mut self.task).poll(&mut Context::from_waker(&waker)) {
                self.outcome = Some(outcome);
            }
        }
        polls
    }

    fn send(&mut self, text: &str) {
        self.write(text);
        self.settle();
    }

    /// Writes without letting the task run.
    fn write(&mut self, text: &str) {
        let wrote =
            Pin::new(&mut self.peer).poll_write(&mut Context::from_waker(Waker::noop()), text.as_bytes());
        assert!(matches!(wrote, Poll::Ready(Ok(bytes)) if bytes == text.len()), "the pipe is too small");
    }

    /// Closes the peer's sending side.
    fn hang_up(&mut self) {
        assert!(Pin::new(&mut self.peer).poll_shutdown(&mut Context::from_waker(Waker::noop())).is_ready());
        self.settle();
    }

    /// Reads that many bytes, letting the task run in between; they have to come without time passing.
    fn take(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            let piece = self.read(bytes - text.len());
            assert!(!piece.is_empty(), "closed after {text:?}");
            text.push_str(&piece);
        }
        text
    }

    fn take_to_the_end(&mut self) -> String {
        let mut text = String::new();
        loop {
            let piece = self.read(1024);
            if piece.is_empty() {
                return text;
            }
            text.push_str(&piece);
        }
    }

    /// Reads once what is there; empty at the end of the stream.
    fn read(&mut self, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        let mut buffer = ReadBuf::new(&mut buffer);
        let read = Pin::new(&mut self.peer).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        assert!(read.is_ready(), "nothing to read");
        self.settle();
        String::from_utf8(buffer.filled().to_vec()).unwrap()
    }

    /// Lets time pass in ticks of the wheel.
    fn pass(&mut self, time: Duration) {
        let until = self.lines.now().after(time).0;
        while self.lines.now().0 < until {
            let now = until.min(self.lines.now().0 + 250);
            self.lines.clock_ms.store(now, Ordering::Relaxed);
            self.wheel.advance(Timestamp(now));
            self.settle();
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        self.lines.change(change);
        self.settle();
    }

    fn received(&self) -> Vec<String> {
        self.lines.state().received.clone()
    }

    fn closed(&self) -> Option<CloseReason> {
        self.lines.state().closed
    }

    fn was_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed) > 0
    }
}

#[test]
fn a_connection_is_greeted_served_and_let_go() {
    let mut world = World::connected(1024);
    world.send("one\ntwo\n");
    world.change(|state| state.to_send.extend(b"three"));
    assert_eq!(world.take(5), "three");
    world.send("bye\n");
    assert_eq!(world.received(), ["one", "two"]);
    assert_eq!(world.closed(), Some(CloseReason::Closed));
    assert_eq!(world.outcome, None, "it waits for the peer to close");
    assert_eq!(world.take_to_the_end(), "");
    drop(world.peer);
    world.peer = tokio::io::duplex(1).0;
    world.settle();
    assert_eq!(world.outcome, Some(Outcome::Served));
    assert!(!world.was_reset());
}

#[test]
fn packets_behind_the_connect_are_not_forgotten() {
    let mut world = World::new(1024);
    world.send("hello\none\ntw");
    world.send("o\n");
    assert_eq!(world.received(), ["one", "two"]);
    assert!(world.task.inbox.is_empty());
}

#[test]
fn an_idle_connection_owns_no_buffers() {
    let mut world = World::connected(1 << 20);
    world.send(&"x\n".repeat(50_000));
    world.change(|state| state.to_send.extend(vec![b'y'; 100_000]));
    world.take(100_000);
    assert_eq!(world.received().len(), 50_000);
    assert!(world.task.inbox.is_empty());
    assert_eq!(world.task.outbox.buffer_capacity(), 0);
}

#[test]
fn silence_instead_of_a_connect_ends_at_the_timeout() {
    let mut world = World::new(64);
    world.pass(Duration::from_millis(19_999));
    assert_eq!(world.outcome, None);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.outcome, Some(Outcome::ConnectTimeout));
}

#[test]
fn a_trickle_does_not_put_the_connect_timeout_off() {
    let mut world = World::new(64);
    for _ in 0..25 {
        if world.outcome.is_none() {
            world.send("h");
            world.pass(Duration::from_secs(1));
        }
    }
    assert_eq!(world.outcome, Some(Outcome::ConnectTimeout));
    assert_eq!(world.lines.now(), CONNECT_BY);
}

#[test]
fn garbage_is_answered_by_what_the_broker_says_and_closed() {
    let mut world = World::new(64);
    world.send("GET / HTTP/1.1\r\n");
    assert_eq!(world.take_to_the_end(), "no");
    assert_eq!(world.closed(), None, "there never was a client");
    // The peer keeps its side open: that ends after the drain.
    world.pass(DRAIN);
    assert_eq!(world.outcome, Some(Outcome::Served));
}

#[test]
fn a_peer_that_closes_is_lost() {
    let mut world = World::connected(64);
    world.hang_up();
    assert!(world.lines.state().input_ended, "the broker is told");
    assert_eq!(world.closed(), Some(CloseReason::Closed));
    assert_eq!(world.outcome, Some(Outcome::Served));
}

#[test]
fn last_answers_that_wait_for_the_disk_are_written_before_the_end() {
    for half_closed in [false, true] {
        let mut world = World::connected(64);
        world.change(|state| state.answers_wait = true);
        if half_closed {
            world.hang_up();
        } else {
            world.send("bye\n");
        }
        world.pass(DRAIN.saturating_sub(Duration::from_millis(1)));
        assert_eq!(world.closed(), None);
        world.change(|state| {
            state.to_send.extend(b"done");
            state.closing = true;
        });
        assert_eq!(world.closed(), Some(CloseReason::Closed));
        assert_eq!(world.take_to_the_end(), "done");
    }
}

#[test]
fn last_answers_that_take_too_long_are_given_up() {
    for half_closed in [false, true] {
        let mut world = World::connected(64);
        world.change(|state| {
            state.answers_wait = true;
            state.keep_alive = None;
        });
        if half_closed {
            world.hang_up();
        } else {
            world.send("bye\n");
        }
        world.pass(DRAIN);
        assert_eq!(world.closed(), Some(CloseReason::Closed));
        assert_eq!(world.take_to_the_end(), "");
    }
}

#[test]
fn keep_alive_counts_from_the_last_whole_packet() {
    let mut world = World::connected(64);
    world.pass(Duration::from_secs(80));
    world.send("ping\nhal");
    world.pass(Duration::from_secs(80));
    world.send("f");
    assert_eq!(world.closed(), None);
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.closed(), None, "never early");
    world.pass(Duration::from_millis(250));
    assert_eq!(world.closed(), Some(CloseReason::KeepAliveTimeout), "half a packet is no packet");
}

#[test]
fn a_long_upload_is_a_sign_of_life() {
    let mut world = World::connected(4096);
    for _ in 0..5 {
        world.pass(Duration::from_secs(80));
        world.send(&"x".repeat(SIGN_OF_LIFE_BYTES as usize));
    }
    assert_eq!(world.closed(), None);
}

#[test]
fn keep_alive_off_is_for_ever() {
    let mut world = World::connected(64);
    world.change(|state| state.keep_alive = None);
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.closed(), None);
}

#[test]
fn a_pause_stops_reading_and_the_keep_alive_and_loses_nothing() {
    let mut world = World::connected(16);
    world.send("pause\none\n");
    world.write("two\n");
    world.pass(Duration::from_secs(600));
    assert_eq!(world.received(), ["pause"]);
    assert_eq!(world.closed(), None, "who is not listened to cannot be late");
    world.change(|state| state.paused = false);
    assert_eq!(world.received(), ["pause", "one", "two"]);
    world.pass(KEEP_ALIVE.saturating_sub(Duration::from_millis(1)));
    assert_eq!(world.closed(), None, "the keep alive begins anew");
    world.pass(Duration::from_millis(250));
    assert_eq!(world.closed(), Some(CloseReason::KeepAliveTimeout));
}

#[test]
fn a_peer_that_takes_nothing_is_a_slow_reader() {
    let mut world = World::connected(8);
    world.change(|state| state.keep_alive = None);
    world.change(|state| state.to_send.extend([b'y'; 100]));
    world.pass(WRITE_TIMEOUT.saturating_sub(Duration::from_millis(1)));
    assert_eq!(world.closed(), None);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.closed(), Some(CloseReason::SlowReader));
    assert_eq!(world.outcome, Some(Outcome::Served));
    assert!(world.was_reset());
}

#[test]
fn a_peer_that_takes_a_byte_now_and_then_is_not() {
    let mut world = World::connected(8);
    world.change(|state| state.keep_alive = None);
    world.change(|state| state.to_send.extend([b'y'; 100]));
    for _ in 0..92 {
        world.pass(Duration::from_secs(20));
        assert_eq!(world.take(1), "y");
    }
    assert_eq!(world.closed(), None);
    assert!(!world.task.outbox.is_waiting());
}

#[test]
fn the_last_words_are_written_before_the_end() {
    let mut world = World::connected(8);
    world.change(|state| {
        state.to_send.extend(b"0123456789 goodbye");
        state.closing = true;
    });
    assert_eq!(world.closed(), Some(CloseReason::Closed), "the broker need not wait for the peer");
    assert_eq!(world.take(18), "0123456789 goodbye");
    assert_eq!(world.take_to_the_end(), "");
}

#[test]
fn a_closing_connection_ends_even_if_the_peer_takes_a_byte_now_and_then() {
    let mut world = World::connected(8);
    world.change(|state| {
        state.to_send.extend([b'y'; 1000]);
        state.closing = true;
    });
    for _ in 0..3 {
        world.pass(Duration::from_secs(10));
        if world.outcome.is_none() {
            world.take(1);
        }
    }
    assert_eq!(world.outcome, Some(Outcome::Served));
    assert!(world.was_reset());
}

#[test]
fn draining_takes_no_more_than_its_share() {
    let mut world = World::connected(4096);
    world.change(|state| state.closing = true);
    for _ in 0..DRAIN_BYTES_MAX / 4096 {
        assert_eq!(world.outcome, None);
        world.send(&"x".repeat(4096));
    }
    assert_eq!(world.outcome, Some(Outcome::Served));
}

/// A flood is handled a read at a time, and the other tasks of the thread get their turn in between: sixteen reads took
/// longer than the message of another may wait.
#[test]
fn a_busy_connection_yields() {
    const READS: usize = 8;
    let mut world = World::new(READS * 70_000);
    // Each round reads 64 KiB.
    world.write("hello\n");
    world.write(&"xxxxxxx\n".repeat(READS * 8_192));
    let polls = world.settle();
    assert!(polls >= READS, "{READS} reads in {polls} polls");
    assert_eq!(world.received().len(), READS * 8_192);
}

#[test]
fn stopping_ends_a_stranger_at_once_and_leaves_clients_to_the_broker() {
    let mut stranger = World::new(64);
    stranger.settle();
    stranger.wheel.stop(Stop::Drain);
    stranger.settle();
    assert_eq!(stranger.outcome, Some(Outcome::Stopped));

    let mut client = World::connected(64);
    client.wheel.stop(Stop::Drain);
    client.settle();
    assert_eq!(client.outcome, None);
    client.wheel.stop(Stop::Now);
    client.settle();
    assert_eq!(client.closed(), Some(CloseReason::ServerShutdown));
    assert_eq!(client.outcome, Some(Outcome::Served));
}

/// Between the first packet and the connection there may be questions; an answer that came with the first packet is heard.
#[test]
fn a_question_is_sent_and_its_answer_heard() {
    let mut world = World::new(1024);
    world.send("it is me\n");
    assert_eq!(world.take(8), "prove it");
    world.send("proof\n");
    assert_eq!(world.take(7), "welcome");
    let mut world = World::new(1024);
    world.send("it is me\nproof\n");
    assert_eq!(world.take(15), "prove itwelcome");
    // The time for it is that of the first packet.
    let mut world = World::new(1024);
    world.send("it is me\n");
    assert_eq!(world.take(8), "prove it");
    world.pass(Duration::from_secs(19));
    assert_eq!(world.outcome, None);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcome, Some(Outcome::ConnectTimeout));
}
