//! The accept loop of one listener, and the tasks it owns.
//!
//! A full machine does not end the loop: it waits, tells once, and goes on. Every accepted socket has a seat
//! (`Limits::connections_max`), which its task gives back however it ends.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
};
use tracing::{debug, error, info, warn};

use super::{
    certificate_name::common_name,
    connection::{Outcome, Task},
    gate::Gate,
    handshakes::{Handshakes, ShakeError, Shaken},
    keep_alive::{Alarm, Limited, Wheel},
    limits::{Counters, Limits},
    log_rate::LogRate,
    proxy::{ProxyConfig, Source, read_header},
    stream::{Acceptor, Stream},
    tls::TlsSettings,
    websocket::{WebSocket, WsConfig},
    wire::{Metered, Wire},
};
use crate::sync::lock;
use crate::{
    broker::{Address, Peer},
    time::Timestamp,
};

/// At most one line of a kind in this time, whatever the network does.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// Of a listener's handshake timeout, the part for which a peer may keep a place that others wait for. A quarter of 10 s is
/// what a small device on a slow link needs; and who waits behind silent peers gets a place before its own time is over.
const PATIENCE_DIVISOR: u32 = 4;
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// What all listeners and their connections share.
pub(super) struct Shared<G> {
    pub(super) gate: Arc<G>,
    pub(super) wheel: Wheel,
    limits: Limits,
    seats: Semaphore,
    logs: Mutex<Logs>,
}

struct Logs {
    refused: LogRate,
    handshake: LogRate,
    displaced: LogRate,
    proxy: LogRate,
    upgrade: LogRate,
    connect_timeout: LogRate,
}

/// A listener as its loop needs it.
pub(super) struct Door {
    pub(super) name: Arc<str>,
    pub(super) connect_timeout: Duration,
    pub(super) tls: Option<Tls>,
    pub(super) proxy: Option<ProxyConfig>,
    pub(super) ws: Option<WsConfig>,
    pub(super) counters: Arc<Counters>,
}

pub(super) struct Tls {
    pub(super) settings: TlsSettings,
    pub(super) handshake_timeout: Duration,
    /// Of all listeners.
    pub(super) handshakes: Arc<Handshakes>,
}

impl<G: Gate> Shared<G> {
    pub(super) fn new(gate: Arc<G>, wheel: Wheel, limits: Limits) -> Self {
        Self {
            gate,
            wheel,
            seats: Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)),
            limits,
            logs: Mutex::new(Logs {
                refused: LogRate::new(LOG_PERIOD),
                handshake: LogRate::new(LOG_PERIOD),
                displaced: LogRate::new(LOG_PERIOD),
                proxy: LogRate::new(LOG_PERIOD),
                upgrade: LogRate::new(LOG_PERIOD),
                connect_timeout: LogRate::new(LOG_PERIOD),
            }),
        }
    }

    fn ripe(&self, log: impl FnOnce(&mut Logs) -> &mut LogRate) -> Option<u64> {
        log(&mut lock(&self.logs)).ripe(self.gate.now())
    }

    fn note_refused(&self, door: &Door, address: Address) {
        door.counters.count_refused();
        if let Some(times) = self.ripe(|logs| &mut logs.refused) {
            let connections_max = self.limits.connections_max;
            warn!(listener = %door.name, %address, connections_max, times, "connections refused: as many as allowed are open");
        }
    }

    fn note_handshake_failed(&self, door: &Door, address: Address, reason: &str) {
        door.counters.count_handshake_failed();
        debug!(listener = %door.name, %address, reason, "TLS handshake failed");
        if let Some(times) = self.ripe(|logs| &mut logs.handshake) {
            info!(listener = %door.name, %address, reason, times, "TLS handshakes failed; this is the latest");
        }
    }

    fn note_handshake_displaced(&self, door: &Door, address: Address) {
        door.counters.count_handshake_displaced();
        debug!(listener = %door.name, %address, "TLS handshake stalled");
        if let Some(times) = self.ripe(|logs| &mut logs.displaced) {
            let open_handshakes_max = self.limits.open_handshakes_max;
            warn!(listener = %door.name, %address, open_handshakes_max, times, "stalled TLS handshakes closed, as others waited for their places; this is the latest");
        }
    }

    fn note_proxy_refused(&self, door: &Door, address: Address, reason: &str) {
        door.counters.count_proxy_refused();
        debug!(listener = %door.name, %address, reason, "no proxy");
        if let Some(times) = self.ripe(|logs| &mut logs.proxy) {
            warn!(listener = %door.name, %address, reason, times, "connections refused that did not come by a proxy; this is the latest");
        }
    }

    fn note_upgrade_refused(&self, door: &Door, address: Address, reason: &str) {
        door.counters.count_upgrade_refused();
        debug!(listener = %door.name, %address, reason, "no WebSocket");
        if let Some(times) = self.ripe(|logs| &mut logs.upgrade) {
            info!(listener = %door.name, %address, reason, times, "HTTP requests refused; this is the latest");
        }
    }

    fn note_outcome(&self, outcome: Outcome, door: &Door, address: Address) {
        match outcome {
            Outcome::Served | Outcome::Stopped => {}
            Outcome::LeftEarly => {
                debug!(listener = %door.name, %address, "closed by the peer before CONNECT");
            }
            Outcome::ConnectTimeout => {
                door.counters.count_connect_timeout();
                debug!(listener = %door.name, %address, "no CONNECT in time");
                if let Some(times) = self.ripe(|logs| &mut logs.connect_timeout) {
                    info!(listener = %door.name, %address, times, "connections closed that sent no CONNECT in time; this is the latest");
                }
            }
        }
    }
}

/// Accepts until `stop`, then waits for the connections it has accepted.
pub(super) async fn accept_loop<G: Gate>(
    listener: Acceptor,
    door: Arc<Door>,
    shared: Arc<Shared<G>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut back_off = BackOff::default();
    let mut pause = Duration::ZERO;
    loop {
        let accept = async {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            listener.accept().await
        };
        tokio::select! {
            // An error means that the server is gone, which is as good a reason.
            _ = stop.wait_for(|&stop| stop) => break,
            // An ended task is joined at once: it holds its memory until then. It also ends a pause early, which is right,
            // since it has given back a file descriptor.
            Some(ended) = connections.join_next() => {
                pause = Duration::ZERO;
                note_panic(ended);
            }
            accepted = accept => {
                pause = Duration::ZERO;
                match accepted {
                    Ok((stream, address)) => {
                        if let Some(failures) = back_off.succeeded() {
                            info!(listener = %door.name, failures, "accepting connections again");
                        }
                        admit(stream, address, &door, &shared, &mut connections);
                    }
                    Err(error) if is_the_peers_doing(&error) => {}
                    Err(error) => pause = note_accept_error(&error, &mut back_off, &door, &shared),
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

/// Returns how long to wait before the next try.
fn note_accept_error<G: Gate>(
    error: &io::Error,
    back_off: &mut BackOff,
    door: &Door,
    shared: &Shared<G>,
) -> Duration {
    door.counters.count_accept_error();
    let (pause, tell) = back_off.failed(shared.gate.now());
    if tell {
        warn!(listener = %door.name, %error, "cannot accept connections; trying on");
    }
    pause
}

/// Gives an accepted socket a seat and a task, or closes it.
fn admit<G: Gate>(
    stream: Stream,
    address: Address,
    door: &Arc<Door>,
    shared: &Arc<Shared<G>>,
    connections: &mut JoinSet<()>,
) {
    let Ok(seat) = shared.seats.try_acquire() else {
        return shared.note_refused(door, address);
    };
    door.counters.count_accepted();
    stream.set_nodelay();
    let now = shared.gate.now();
    // The visit gives it back.
    seat.forget();
    let visit = Visit { address, door: Arc::clone(door), shared: Arc::clone(shared) };
    // A future for each way of being served, so that none is as large as the largest of them.
    match (door.proxy.is_some(), door.tls.is_some(), door.ws.is_some()) {
        (true, _, _) => connections.spawn(visit.serve_proxied(stream, now)),
        (false, false, false) => connections.spawn(visit.serve_plain(stream, now)),
        (false, true, false) => connections.spawn(visit.serve_tls(stream, now)),
        (false, false, true) => connections.spawn(visit.serve_ws(stream, now)),
        (false, true, true) => connections.spawn(visit.serve_wss(stream, now)),
    };
}

/// A connection behind the door. A future by hand: an async block holds what it waits for twice, as it was given it and
/// while it waits.
struct Served<G: Gate, W> {
    task: Task<G, W>,
    visit: Visit<G>,
}

/// What comes first, in a room of its own that is given back, then the long life after it.
enum Then<F> {
    First(Pin<Box<dyn Future<Output = Option<F>> + Send>>),
    Life(F),
}

impl<F> Then<F> {
    /// `None`: nothing comes after it.
    fn first(first: impl Future<Output = Option<F>> + Send + 'static) -> Self {
        Self::First(Box::pin(first))
    }
}

impl<F: Future<Output = ()> + Unpin> Future for Then<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::First(first) => match ready!(first.as_mut().poll(cx)) {
                    Some(life) => self.set(Self::Life(life)),
                    None => return Poll::Ready(()),
                },
                Self::Life(life) => return Pin::new(life).poll(cx),
            }
        }
    }
}

impl<G: Gate, W: Wire> Future for Served<G, W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = ready!(Pin::new(&mut self.task).poll(cx));
        let Visit { shared, door, address, .. } = &self.visit;
        shared.note_outcome(outcome, door, *address);
        Poll::Ready(())
    }
}

/// One accepted socket's way through the door, and its place among `Limits::connections_max`.
struct Visit<G> {
    address: Address,
    door: Arc<Door>,
    shared: Arc<Shared<G>>,
}

impl<G> Drop for Visit<G> {
    /// Gives its place among `Limits::connections_max` back.
    fn drop(&mut self) {
        self.shared.seats.add_permits(1);
        self.door.counters.count_closed();
    }
}

impl<G: Gate> Visit<G> {
    /// Hears first whom the proxy connects.
    async fn serve_proxied(mut self, mut stream: Stream, accepted_at: Timestamp) {
        let mut alarm = self.shared.wheel.alarm(self.connect_by(accepted_at));
        // On the heap, so that the long life after it does not carry the room it took.
        let header = Box::pin(alarm.limit(self.hear_proxy(&mut stream))).await;
        let reason = match header {
            Limited::Done(Ok(source)) => {
                if let Source::Client(address) = source {
                    self.address = Address::Net(address);
                }
                drop(alarm);
                return match (self.door.tls.is_some(), self.door.ws.is_some()) {
                    (false, false) => Box::pin(self.serve_plain(stream, accepted_at)).await,
                    (true, false) => Box::pin(self.serve_tls(stream, accepted_at)).await,
                    (false, true) => Box::pin(self.serve_ws(stream, accepted_at)).await,
                    (true, true) => Box::pin(self.serve_wss(stream, accepted_at)).await,
                };
            }
            Limited::Done(Err(error)) => error.to_string(),
            Limited::TimedOut => "the header does not come".to_owned(),
            Limited::Stopped => return,
        };
        self.shared.note_proxy_refused(&self.door, self.address, &reason);
    }

    async fn hear_proxy(&self, stream: &mut Stream) -> io::Result<Source> {
        let trusted = match (&self.door.proxy, self.address) {
            (Some(proxy), Address::Net(address)) => proxy.trusts(address.ip()),
            (_, Address::Local { .. }) => true,
            (None, _) => false,
        };
        if !trusted {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a trusted proxy"));
        }
        read_header(stream).await
    }

    fn connect_by(&self, accepted_at: Timestamp) -> Timestamp {
        accepted_at.after(self.door.connect_timeout)
    }

    fn serve_plain(self, stream: Stream, accepted_at: Timestamp) -> Served<G, Metered<Stream>> {
        let alarm = self.shared.wheel.alarm(self.connect_by(accepted_at));
        self.serve(Metered::new(stream), accepted_at, alarm, None)
    }

    fn serve_tls(self, stream: Stream, accepted_at: Timestamp) -> Then<Served<G, Shaken>> {
        Then::first(async move {
            let (stream, alarm) = self.shaken(stream, accepted_at).await?;
            let name = certificate_name(&stream);
            Some(self.serve(stream, accepted_at, alarm, name))
        })
    }

    fn serve_ws(self, stream: Stream, accepted_at: Timestamp) -> Then<Served<G, WebSocket<Metered<Stream>>>> {
        Then::first(async move {
            let alarm = self.shared.wheel.alarm(self.connect_by(accepted_at));
            let (socket, alarm) = self.upgraded(Metered::new(stream), accepted_at, alarm).await?;
            Some(self.serve(socket, accepted_at, alarm, None))
        })
    }

    fn serve_wss(self, stream: Stream, accepted_at: Timestamp) -> Then<Served<G, WebSocket<Shaken>>> {
        Then::first(async move {
            let (stream, alarm) = self.shaken(stream, accepted_at).await?;
            let name = certificate_name(&stream);
            let (socket, alarm) = self.upgraded(stream, accepted_at, alarm).await?;
            Some(self.serve(socket, accepted_at, alarm, name))
        })
    }

    /// The TLS handshake.
    async fn shaken(&self, stream: Stream, accepted_at: Timestamp) -> Option<(Shaken, Alarm)> {
        let tls = self.door.tls.as_ref()?;
        let shaken_by = accepted_at.after(tls.handshake_timeout).min(self.connect_by(accepted_at));
        let mut alarm = self.shared.wheel.alarm(shaken_by);
        let patience = tls.handshake_timeout / PATIENCE_DIVISOR;
        let reason = match alarm.limit(tls.handshakes.shake(stream, &tls.settings, patience)).await {
            Limited::Done(Ok(stream)) => return Some((stream, alarm)),
            Limited::Done(Err(ShakeError::Failed(error))) => error.to_string(),
            Limited::Done(Err(ShakeError::Displaced)) => {
                self.shared.note_handshake_displaced(&self.door, self.address);
                return None;
            }
            Limited::TimedOut => "it took too long".to_owned(),
            Limited::Stopped => return None,
        };
        self.shared.note_handshake_failed(&self.door, self.address, &reason);
        None
    }

    /// The HTTP request that makes a WebSocket of it.
    async fn upgraded<W: Wire>(
        &self,
        wire: W,
        accepted_at: Timestamp,
        mut alarm: Alarm,
    ) -> Option<(WebSocket<W>, Alarm)> {
        let ws = self.door.ws.as_ref()?;
        alarm.set(self.connect_by(accepted_at));
        let reason = match alarm.limit(WebSocket::accept(wire, ws)).await {
            Limited::Done(Ok(socket)) => return Some((socket, alarm)),
            Limited::Done(Err(error)) => error.to_string(),
            Limited::TimedOut => "the HTTP request took too long".to_owned(),
            Limited::Stopped => return None,
        };
        self.shared.note_upgrade_refused(&self.door, self.address, &reason);
        None
    }

    /// MQTT, to the end.
    fn serve<W: Wire>(
        self,
        wire: W,
        accepted_at: Timestamp,
        alarm: Alarm,
        certificate_name: Option<Arc<str>>,
    ) -> Served<G, W> {
        let peer = self.peer(certificate_name);
        let gate = Arc::clone(&self.shared.gate);
        let write_timeout = self.shared.limits.write_timeout;
        let task = Task::new(gate, wire, peer, alarm, self.connect_by(accepted_at), write_timeout);
        Served { task, visit: self }
    }

    fn peer(&self, certificate_name: Option<Arc<str>>) -> Peer {
        Peer { address: self.address, listener: Arc::clone(&self.door.name), certificate_name }
    }
}

/// The subject of the client's certificate, if it showed one.
fn certificate_name(stream: &Shaken) -> Option<Arc<str>> {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.and_then(<[_]>::first).and_then(|certificate| common_name(certificate))
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!(%failure, "a connection's task panicked; this is a defect of the broker");
    }
}

/// Errors of `accept` that say nothing about this machine: the peer took its connection back, or the network reported
/// late (accept(2)). The next call may well succeed.
fn is_the_peers_doing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// How long to wait after a failed `accept`, and whether to tell.
#[derive(Debug)]
struct BackOff {
    failures: u64,
    told: bool,
    log: LogRate,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { failures: 0, told: false, log: LogRate::new(LOG_PERIOD) }
    }
}

impl BackOff {
    /// The pause before the next try, and whether this is the failure to log: the first of a row, if the last such line
    /// is long enough ago.
    fn failed(&mut self, now: Timestamp) -> (Duration, bool) {
        let doublings = u32::try_from(self.failures).unwrap_or(u32::MAX).min(8);
        let pause = BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX);
        let tell = self.failures == 0 && self.log.ripe(now).is_some();
        self.told |= tell;
        self.failures += 1;
        (pause, tell)
    }

    /// `Some(failures)` at the end of a row of failures that was logged.
    fn succeeded(&mut self) -> Option<u64> {
        let failures = std::mem::take(&mut self.failures);
        (std::mem::take(&mut self.told) && failures > 0).then_some(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;

    /// There are ten thousand of them. What tokio allocates for one has 96 bytes more, and is a multiple of 128.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        let bytes = size_of::<Served<Broker, Metered<Stream>>>();
        assert!(bytes <= 4 * 128 - 96, "{bytes}");
    }

    #[test]
    fn the_pause_doubles_to_a_second_and_starts_again() {
        let mut back_off = BackOff::default();
        let pauses: Vec<_> = (0..7).map(|_| back_off.failed(Timestamp(0)).0.as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(back_off.succeeded(), Some(7));
        assert_eq!(back_off.failed(Timestamp(0)).0, BACK_OFF_MIN);
    }

    #[test]
    fn a_row_of_failures_is_told_once_and_flapping_once_in_ten_seconds() {
        let mut back_off = BackOff::default();
        assert!(back_off.failed(Timestamp(0)).1);
        assert!(!back_off.failed(Timestamp(60_000)).1);
        assert_eq!(back_off.succeeded(), Some(2));
        assert_eq!(back_off.succeeded(), None);
        assert!(!back_off.failed(Timestamp(9_999)).1);
        assert_eq!(back_off.succeeded(), None, "what was not told does not end");
        assert!(back_off.failed(Timestamp(10_000)).1);
    }

    #[test]
    fn a_full_machine_is_not_the_peers_doing() {
        use rustix::io::Errno;
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!is_the_peers_doing(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::HOSTUNREACH, Errno::NETDOWN] {
            assert!(is_the_peers_doing(&errno.into()), "{errno}");
        }
    }
}
