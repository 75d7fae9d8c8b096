//! Publishers and subscribers that are all online.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, pending},
    pin::pin,
    rc::Rc,
    time::Instant,
};

use tokio::{
    sync::{Notify, watch},
    task::{JoinSet, LocalSet},
    time::{Duration, sleep, sleep_until, timeout},
};

use super::{
    BenchError, Faults, Heard, Outcome, Peer, Process, Result, Session, Target, Timing, as_f64,
    ledger::Ledger,
    outcome::{Times, Usage},
    packet_id,
    payload::{Content, Payload},
    peer::{PAYLOAD_BYTES_MIN, Stamp, now_us},
};
use crate::codec::QoS;

/// Without any news for so long, what a publisher has on the way counts as lost, and it goes on.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// So many publishers, each with a subscriber of its own.
    Pairs(u32),
    /// So many publishers to one subscriber.
    FanIn(u32),
    /// One publisher to so many subscribers.
    FanOut(u32),
}

/// What is on the way.
#[derive(Clone, Debug)]
pub struct Load {
    /// Who publishes to whom.
    pub shape: Shape,
    /// Of messages and subscriptions.
    pub qos: QoS,
    /// The subscribers'.
    pub subscribers: Session,
    /// Messages of a publisher on the way at a time.
    pub window: u64,
    /// Messages a second, of all publishers together; as many as go if `None`.
    pub pace: Option<u32>,
    /// At least `PAYLOAD_BYTES_MIN`.
    pub payload_bytes: usize,
    /// What payloads are filled with.
    pub content: Content,
    /// How long a subscriber takes to confirm a message.
    pub confirm_after: Duration,
    /// Topics begin with it, and client identifiers contain it: nothing else on the broker should.
    pub name: String,
}

/// How far a publisher has come.
#[derive(Default)]
struct Progress {
    sent: Cell<u64>,
    /// By the broker.
    confirmed: Cell<u64>,
    /// Of all its receivers together.
    deliveries: Cell<u64>,
    /// Sent, and given up.
    written_off: Cell<u64>,
    arrived: Notify,
}

struct Publisher {
    peer: Peer,
    number: u32,
    topic: String,
    receivers: u64,
    progress: Rc<Progress>,
    /// When the messages were sent that the broker has not confirmed.
    unconfirmed: VecDeque<u64>,
    acknowledged: Rc<RefCell<Times>>,
    payload: Payload,
}

struct Subscriber {
    peer: Peer,
    /// By sender, from `first` on.
    senders: Vec<(Rc<Progress>, Ledger)>,
    first: u32,
    arrived: Rc<RefCell<Times>>,
    confirm_after: Duration,
    /// What is to be confirmed, and when.
    unconfirmed: VecDeque<(Instant, Heard)>,
}

impl Shape {
    fn publishers(self) -> u32 {
        match self {
            Self::Pairs(count) | Self::FanIn(count) => count,
            Self::FanOut(_) => 1,
        }
    }

    fn subscribers(self) -> u32 {
        match self {
            Self::Pairs(count) | Self::FanOut(count) => count,
            Self::FanIn(_) => 1,
        }
    }

    fn receivers(self) -> u64 {
        match self {
            Self::Pairs(_) | Self::FanIn(_) => 1,
            Self::FanOut(count) => u64::from(count),
        }
    }
}

impl Load {
    /// Runs it. `process` is the broker's, if it can be looked at.
    pub async fn run(&self, target: &Target, process: Option<&Process>, timing: Timing) -> Result<Outcome> {
        self.run_until(target, process, timing, pending()).await
    }

    /// The same, but what is measured ends with `enough`, if that comes before the time is over.
    pub async fn run_until(
        &self,
        target: &Target,
        process: Option<&Process>,
        timing: Timing,
        enough: impl Future<Output = ()>,
    ) -> Result<Outcome> {
        if self.payload_bytes < PAYLOAD_BYTES_MIN || self.window == 0 || self.pace == Some(0) {
            let needs = format!("a payload of {PAYLOAD_BYTES_MIN} bytes, a window and a pace above 0");
            return Err(BenchError::Settings(format!("a load needs {needs}")));
        }
        LocalSet::new().run_until(self.run_local(target, process, timing, enough)).await
    }

    async fn run_local(
        &self,
        target: &Target,
        process: Option<&Process>,
        timing: Timing,
        enough: impl Future<Output = ()>,
    ) -> Result<Outcome> {
        let arrived = Rc::new(RefCell::new(Times::default()));
        let acknowledged = Rc::new(RefCell::new(Times::default()));
        let progress: Vec<Rc<Progress>> = (0..self.shape.publishers()).map(|_| Rc::default()).collect();
        let (stop, stopped) = watch::channel(false);
        let mut subscribers = JoinSet::new();
        for number in 0..self.shape.subscribers() {
            let subscriber = self.subscriber(target, number, &progress, &arrived).await?;
            subscribers.spawn_local(subscriber.drive(stopped.clone()));
        }
        let mut publishers = Vec::new();
        for number in 0..self.shape.publishers() {
            publishers.push(self.publisher(target, number, &progress, &acknowledged).await?);
        }

        let stopped_early = Rc::new(Cell::new(false));
        let publishers = self.drive(publishers, timing.warm_up, &stopped_early, &mut subscribers).await?;
        sleep(timing.settle).await;
        arrived.borrow_mut().clear();
        acknowledged.borrow_mut().clear();
        let count = || {
            let of =
                |cell: fn(&Progress) -> &Cell<u64>| progress.iter().map(|one| cell(one).get()).sum::<u64>();
            (of(|one| &one.sent), of(|one| &one.deliveries))
        };
        let (sent_before, delivered_before) = count();
        let before = process.map(Process::read).transpose()?;
        let clock = Instant::now();
        let publishers = {
            let mut drive = pin!(self.drive(publishers, timing.measured, &stopped_early, &mut subscribers));
            tokio::select! {
                publishers = &mut drive => publishers,
                () = enough => {
                    stopped_early.set(true);
                    drive.await
                }
            }?
        };
        let seconds = clock.elapsed().as_secs_f64();
        let (sent, delivered) = count();
        let (sent, delivered) = (sent - sent_before, delivered - delivered_before);
        sleep(timing.settle).await;
        let usage = match (process, before) {
            (Some(process), Some(before)) => {
                let (cpu, written) = process.read()?.since(before);
                Some(Usage::new(cpu, written, process.rss_bytes()?, delivered, sent * self.message_bytes()))
            }
            _ => None,
        };

        let _ = stop.send(true);
        let mut faults = Faults::default();
        while let Some(subscriber) = subscribers.join_next().await {
            faults.add(joined(subscriber)?.judge());
        }
        for publisher in publishers {
            publisher.peer.disconnect().await?;
        }
        let delivery = arrived.borrow_mut().latency();
        let acknowledgement = acknowledged.borrow_mut().latency();
        let rate = as_f64(delivered) / seconds;
        Ok(Outcome { sent, delivered, seconds, rate, delivery, acknowledgement, faults, usage })
    }

    /// Of topic and payload.
    fn message_bytes(&self) -> u64 {
        (self.topic(0).len() + self.payload_bytes) as u64
    }

    fn topic(&self, number: u32) -> String {
        format!("{}/device-{number}/temperature", self.name)
    }

    async fn subscriber(
        &self,
        target: &Target,
        number: u32,
        progress: &[Rc<Progress>],
        arrived: &Rc<RefCell<Times>>,
    ) -> Result<Subscriber> {
        let client_id = format!("{}-subscriber-{number}", self.name);
        // What a run before it may have left.
        if self.subscribers == Session::Persistent {
            Peer::connect(target, &client_id, Session::Transient).await?.0.disconnect().await?;
        }
        let (mut peer, _) = Peer::connect(target, &client_id, self.subscribers).await?;
        let (filter, first, senders) = match self.shape {
            Shape::Pairs(_) => {
                (format!("{}/device-{number}/+", self.name), number, number as usize..number as usize + 1)
            }
            Shape::FanIn(_) => (format!("{}/+/temperature", self.name), 0, 0..progress.len()),
            Shape::FanOut(_) => (self.topic(0), 0, 0..1),
        };
        peer.subscribe(&filter, self.qos).await?;
        let senders = progress.get(senders).unwrap_or_default();
        let senders = senders.iter().map(|progress| (progress.clone(), Ledger::default())).collect();
        let (confirm_after, unconfirmed) = (self.confirm_after, VecDeque::new());
        Ok(Subscriber { peer, senders, first, arrived: arrived.clone(), confirm_after, unconfirmed })
    }

    async fn publisher(
        &self,
        target: &Target,
        number: u32,
        progress: &[Rc<Progress>],
        acknowledged: &Rc<RefCell<Times>>,
    ) -> Result<Publisher> {
        let client_id = format!("{}-publisher-{number}", self.name);
        let (peer, _) = Peer::connect(target, &client_id, Session::Transient).await?;
        Ok(Publisher {
            peer,
            number,
            topic: self.topic(number),
            receivers: self.shape.receivers(),
            progress: progress.get(number as usize).cloned().unwrap_or_default(),
            unconfirmed: VecDeque::new(),
            acknowledged: acknowledged.clone(),
            payload: Payload::new(self.payload_bytes, self.content),
        })
    }

    /// All publishers, for so long or until they are stopped, and until what they have sent is confirmed and delivered.
    async fn drive(
        &self,
        publishers: Vec<Publisher>,
        time: Duration,
        stopped_early: &Rc<Cell<bool>>,
        subscribers: &mut JoinSet<Result<Subscriber>>,
    ) -> Result<Vec<Publisher>> {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for publisher in publishers {
            tasks.spawn_local(publisher.drive(self.clone(), begin, begin + time, stopped_early.clone()));
        }
        let mut done = Vec::new();
        loop {
            tokio::select! {
                publisher = tasks.join_next() => match publisher {
                    Some(publisher) => done.push(joined(publisher)?),
                    None => return Ok(done),
                },
                // None of them ends before it is told to, unless something is wrong.
                Some(subscriber) = subscribers.join_next() => {
                    joined(subscriber)?;
                    return Err(BenchError::Stalled("a subscriber has ended too early".to_owned()));
                }
            }
        }
    }
}

fn joined<T>(task: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    task.unwrap_or_else(|error| Err(BenchError::Stalled(format!("a task has failed: {error}"))))
}

impl Progress {
    fn on_the_way(&self, receivers: u64, confirmed: bool) -> u64 {
        let sent = self.sent.get();
        let delivered = self.deliveries.get() / receivers + self.written_off.get();
        let unconfirmed = if confirmed { sent - self.confirmed.get() } else { 0 };
        sent.saturating_sub(delivered).max(unconfirmed)
    }
}

impl Publisher {
    async fn drive(
        mut self,
        load: Load,
        begin: Instant,
        until: Instant,
        stopped_early: Rc<Cell<bool>>,
    ) -> Result<Self> {
        let is_confirmed = load.qos > QoS::AtMostOnce;
        let on_the_way = |progress: &Progress| progress.on_the_way(self.receivers, is_confirmed);
        let progress = self.progress.clone();
        let window = self.peer.window(load.qos, load.window);
        let pace = load.pace.map(|pace| Duration::from_secs(1) * load.shape.publishers() / pace);
        // The publishers of a pace take turns.
        let mut next = begin + pace.unwrap_or_default() * self.number / load.shape.publishers();
        loop {
            let now = Instant::now();
            let is_over = now >= until || stopped_early.get();
            if is_over && on_the_way(&progress) == 0 {
                return Ok(self);
            }
            let room = window.saturating_sub(on_the_way(&progress));
            // Half a window at a time, so that the load does not depend on how the broker groups its answers.
            let many = match pace {
                _ if is_over => 0,
                None if room * 2 >= window => room,
                Some(pace) if now >= next => {
                    next += pace;
                    room.min(1)
                }
                _ => 0,
            };
            for _ in 0..many {
                let seq = progress.sent.get();
                let stamp = Stamp::now(self.number, seq);
                let payload = self.payload.of(stamp);
                self.peer.publish(&self.topic, load.qos, stamp, packet_id(seq), payload);
                progress.sent.set(seq + 1);
                if is_confirmed {
                    self.unconfirmed.push_back(stamp.sent_us);
                }
            }
            self.peer.flush().await?;
            let due = if pace.is_some() && !is_over { next } else { now + PATIENCE };
            tokio::select! {
                () = progress.arrived.notified() => {}
                filled = self.peer.fill() => {
                    filled?;
                    let now = now_us();
                    while let Some(heard) = self.peer.hear()? {
                        handle(&mut self.peer, &progress, &mut self.unconfirmed, &self.acknowledged, heard, now)?;
                    }
                }
                () = sleep_until(due.into()) => {
                    if pace.is_none() || is_over {
                        self.write_off()?;
                    }
                }
            }
        }
    }

    /// Nothing has come for long.
    fn write_off(&self) -> Result<()> {
        let progress = &self.progress;
        if !self.unconfirmed.is_empty() {
            let (sent, confirmed) = (progress.sent.get(), progress.confirmed.get());
            return Err(BenchError::Stalled(format!(
                "the broker has confirmed {confirmed} of the {sent} messages of publisher {} and says nothing more",
                self.number
            )));
        }
        progress.written_off.set(progress.sent.get() - progress.deliveries.get() / self.receivers);
        Ok(())
    }
}

/// Acknowledgements come in the order of their messages [MQTT-4.6.0-2].
fn handle(
    peer: &mut Peer,
    progress: &Progress,
    unconfirmed: &mut VecDeque<u64>,
    acknowledged: &RefCell<Times>,
    heard: Heard,
    now: u64,
) -> Result<()> {
    let confirmed = progress.confirmed.get();
    match heard {
        Heard::Pubrec(_) => peer.confirm(heard),
        Heard::Puback(id) | Heard::Pubcomp(id) if id == packet_id(confirmed) => {
            progress.confirmed.set(confirmed + 1);
            if let Some(sent) = unconfirmed.pop_front() {
                acknowledged.borrow_mut().add(Duration::from_micros(now.saturating_sub(sent)));
            }
        }
        other => {
            return Err(BenchError::Protocol(format!("{other:?} after {confirmed} confirmations")));
        }
    }
    Ok(())
}

impl Subscriber {
    /// Takes what comes until it is told to stop, and then what was on the way.
    async fn drive(mut self, mut stopped: watch::Receiver<bool>) -> Result<Self> {
        loop {
            let due = self.unconfirmed.front().map(|(due, _)| *due);
            tokio::select! {
                filled = self.peer.fill() => filled?,
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
                _ = stopped.changed() => break,
            }
            let (now, received) = (now_us(), Instant::now());
            while let Some(heard) = self.peer.hear()? {
                take(&mut self.senders, self.first, &self.arrived, heard, now)?;
                self.unconfirmed.push_back((received + self.confirm_after, heard));
            }
            self.confirm(received);
            self.peer.flush().await?;
            for (progress, _) in &self.senders {
                progress.arrived.notify_one();
            }
        }
        self.confirm(Instant::now() + self.confirm_after);
        let Self { peer, senders, first, arrived, .. } = &mut self;
        let rest = peer.ping(|peer, heard| {
            take(senders, *first, arrived, heard, now_us())?;
            peer.confirm(heard);
            Ok(())
        });
        match timeout(PATIENCE, rest).await {
            Ok(rest) => rest.map(|()| self),
            Err(_) => Err(BenchError::Stalled("the broker does not answer PINGREQ".to_owned())),
        }
    }

    /// Confirms what is due by then.
    fn confirm(&mut self, by: Instant) {
        while let Some((_, heard)) = self.unconfirmed.front().filter(|(due, _)| *due <= by) {
            self.peer.confirm(*heard);
            self.unconfirmed.pop_front();
        }
    }

    fn judge(&self) -> Faults {
        let mut faults = Faults::default();
        for (progress, ledger) in &self.senders {
            faults.add(ledger.judge(progress.sent.get()));
        }
        faults
    }
}

/// Takes note of a message.
fn take(
    senders: &mut [(Rc<Progress>, Ledger)],
    first: u32,
    arrived: &RefCell<Times>,
    heard: Heard,
    now: u64,
) -> Result<()> {
    let stamp = match heard {
        Heard::Publish { stamp, .. } => stamp,
        Heard::Pubrel(_) => return Ok(()),
        other => return Err(BenchError::Protocol(format!("{other:?} to a subscriber"))),
    };
    let sender = stamp.sender.checked_sub(first).and_then(|at| senders.get_mut(at as usize));
    let Some((progress, ledger)) = sender else {
        return Err(BenchError::Protocol(format!("a message of publisher {} to a stranger", stamp.sender)));
    };
    if ledger.deliver(stamp.seq) {
        progress.deliveries.set(progress.deliveries.get() + 1);
        arrived.borrow_mut().add(stamp.age(now));
    }
    Ok(())
}
