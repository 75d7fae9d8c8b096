//! Messages for sessions that sleep: how fast they are taken over, and what they cost when the sleepers wake.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Instant};

use tokio::{
    task::{JoinSet, LocalSet},
    time::{Duration, sleep, sleep_until},
};

use super::{
    BenchError, Faults, Heard, Outcome, Peer, Process, Result, Session, Target, as_f64,
    ledger::Ledger,
    outcome::{Times, Usage},
    packet_id,
    payload::{Content, Payload},
    peer::{Stamp, now_us},
};
use crate::codec::QoS;

/// Sessions made, or awake, at a time.
const AT_ONCE: u16 = 10;

/// Messages for sessions that sleep.
#[derive(Clone, Debug)]
pub struct Sleepers {
    /// How many sessions; a multiple of `publishers`.
    pub sessions: u64,
    /// Messages for each of them.
    pub each: u64,
    /// Who sends them, in equal shares.
    pub publishers: u64,
    /// Messages of a publisher without an acknowledgement at a time.
    pub in_flight: u64,
    /// Messages a second, of all publishers together; as many as go if `None`.
    pub pace: Option<u32>,
    /// At least `PAYLOAD_BYTES_MIN`.
    pub payload_bytes: usize,
    /// What payloads are filled with.
    pub content: Content,
    /// Topics begin with it, and client identifiers contain it: nothing else on the broker should.
    pub name: String,
}

/// What a run has shown.
#[derive(Clone, Copy, Debug)]
pub struct Slept {
    /// While they slept: messages are counted when they are acknowledged.
    pub published: Outcome,
    /// When they woke, a few at a time, the connections included.
    pub woken: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    FallAsleep,
    Wake,
    /// Forget the session.
    Leave,
}

impl Sleepers {
    /// All of it: fall asleep, publish, wake, and end the sessions. `settle` is how long the broker is left alone
    /// before each reading.
    pub async fn run(&self, target: &Target, process: Option<&Process>, settle: Duration) -> Result<Slept> {
        self.leave(target).await?;
        self.fall_asleep(target).await?;
        sleep(settle).await;
        let before = process.map(Process::read).transpose()?;
        let mut published = self.publish(target).await?;
        sleep(settle).await;
        let bytes: usize =
            (0..self.sessions).map(|session| self.topic(session).len() + self.payload_bytes).sum();
        let bytes = bytes as u64 * self.each;
        published.usage = usage(process, before, published.sent, bytes)?;
        let before = process.map(Process::read).transpose()?;
        let mut woken = self.wake(target).await?;
        sleep(settle).await;
        woken.usage = usage(process, before, woken.delivered, bytes)?;
        self.leave(target).await?;
        Ok(Slept { published, woken })
    }

    fn topic(&self, session: u64) -> String {
        format!("{}/{session}/set", self.name)
    }

    /// Makes the sessions.
    pub async fn fall_asleep(&self, target: &Target) -> Result<()> {
        self.in_turn(target, Work::FallAsleep).await.map(drop)
    }

    /// Wakes each session, and takes and confirms what waits for it.
    pub async fn wake(&self, target: &Target) -> Result<Outcome> {
        let clock = Instant::now();
        let (delivered, faults) = self.in_turn(target, Work::Wake).await?;
        let seconds = clock.elapsed().as_secs_f64();
        let rate = as_f64(delivered) / seconds;
        Ok(Outcome {
            sent: self.sessions * self.each,
            delivered,
            seconds,
            rate,
            faults,
            ..Outcome::default()
        })
    }

    /// Ends the sessions.
    pub async fn leave(&self, target: &Target) -> Result<()> {
        self.in_turn(target, Work::Leave).await.map(drop)
    }

    /// The publishers, each with its share of the messages.
    pub async fn publish(&self, target: &Target) -> Result<Outcome> {
        let times = Rc::new(RefCell::new(Times::default()));
        let clock = Instant::now();
        LocalSet::new()
            .run_until(async {
                let mut tasks = JoinSet::new();
                for number in 0..self.publishers {
                    let client_id = format!("{}-commander-{number}", self.name);
                    let (peer, _) = Peer::connect(target, &client_id, Session::Transient).await?;
                    tasks.spawn_local(self.clone().publish_share(peer, number, times.clone()));
                }
                joined_all(tasks).await
            })
            .await?;
        let (sent, seconds) = (self.sessions * self.each, clock.elapsed().as_secs_f64());
        let acknowledgement = times.borrow_mut().latency();
        let rate = as_f64(sent) / seconds;
        Ok(Outcome { sent, seconds, rate, acknowledgement, ..Outcome::default() })
    }

    /// To one session after the other, `publishers` apart, round and round.
    async fn publish_share(self, mut peer: Peer, number: u64, times: Rc<RefCell<Times>>) -> Result<()> {
        let mut payload = Payload::new(self.payload_bytes, self.content);
        let pace = self.pace.map(|pace| Duration::from_secs(1) * small(self.publishers) / pace);
        let begun = Instant::now() + pace.unwrap_or_default() * small(number) / small(self.publishers);
        let mut unconfirmed = VecDeque::new();
        let messages = self.sessions * self.each / self.publishers;
        let in_flight = peer.window(QoS::AtLeastOnce, self.in_flight);
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < messages {
            let due = |sent: u64| pace.is_none_or(|pace| Instant::now() >= begun + pace * small(sent));
            if pace.is_some() || sent - confirmed <= in_flight / 2 {
                while sent < messages && sent - confirmed < in_flight && due(sent) {
                    let at = sent * self.publishers + number;
                    let topic = self.topic(at % self.sessions);
                    let stamp = Stamp::now(0, at / self.sessions);
                    peer.publish(&topic, QoS::AtLeastOnce, stamp, packet_id(sent), payload.of(stamp));
                    unconfirmed.push_back(stamp);
                    sent += 1;
                }
            }
            peer.flush().await?;
            let next = pace.filter(|_| sent < messages).map(|pace| begun + pace * small(sent));
            tokio::select! {
                filled = peer.fill() => filled?,
                () = sleep_until(next.unwrap_or(begun).into()), if next.is_some() => {}
            }
            let now = now_us();
            while let Some(heard) = peer.hear()? {
                if heard != Heard::Puback(packet_id(confirmed)) {
                    let what = format!("{heard:?} after {confirmed} acknowledgements");
                    return Err(BenchError::Protocol(what));
                }
                if let Some(stamp) = unconfirmed.pop_front() {
                    times.borrow_mut().add(stamp.age(now));
                }
                confirmed += 1;
            }
        }
        peer.disconnect().await
    }

    /// Does it for every session, a few at a time. Returns how many messages came, and what was wrong with them.
    async fn in_turn(&self, target: &Target, work: Work) -> Result<(u64, Faults)> {
        let all = Rc::new(RefCell::new((0, Faults::default())));
        LocalSet::new()
            .run_until(async {
                let mut tasks = JoinSet::new();
                for worker in 0..u64::from(AT_ONCE).min(self.sessions) {
                    let (sleepers, target, all) = (self.clone(), target.clone(), all.clone());
                    tasks.spawn_local(async move {
                        for number in (worker..sleepers.sessions).step_by(usize::from(AT_ONCE)) {
                            let (delivered, faults) = sleepers.one(&target, number, work).await?;
                            let mut all = all.borrow_mut();
                            all.0 += delivered;
                            all.1.add(faults);
                        }
                        Ok(())
                    });
                }
                joined_all(tasks).await
            })
            .await?;
        Ok(*all.borrow())
    }

    async fn one(&self, target: &Target, number: u64, work: Work) -> Result<(u64, Faults)> {
        let client_id = format!("{}-sleeper-{number}", self.name);
        let session = if work == Work::Leave { Session::Transient } else { Session::Persistent };
        let (mut peer, present) = Peer::connect(target, &client_id, session).await?;
        let mut ledger = Ledger::default();
        match work {
            Work::FallAsleep => {
                peer.subscribe(&format!("{}/{number}/#", self.name), QoS::AtLeastOnce).await?;
            }
            Work::Wake if !present => {
                return Err(BenchError::Protocol(format!("that it does not know session {number} any more")));
            }
            Work::Wake => take(&mut peer, self.each, &mut ledger).await?,
            Work::Leave => {}
        }
        peer.disconnect().await?;
        let faults = if work == Work::Wake { ledger.judge(self.each) } else { Faults::default() };
        Ok((ledger.delivered(), faults))
    }
}

/// Takes what waits and confirms it, until all is there or nothing more comes.
async fn take(peer: &mut Peer, each: u64, ledger: &mut Ledger) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(3);
    while ledger.delivered() < each {
        while let Some(heard) = peer.hear()? {
            note(ledger, heard)?;
            peer.confirm(heard);
        }
        peer.flush().await?;
        if ledger.delivered() < each {
            match tokio::time::timeout(PATIENCE, peer.fill()).await {
                Ok(filled) => filled?,
                Err(_) => break,
            }
        }
    }
    peer.ping(|_, heard| note(ledger, heard)).await
}

fn note(ledger: &mut Ledger, heard: Heard) -> Result<()> {
    let Heard::Publish { stamp, .. } = heard else {
        return Err(BenchError::Protocol(format!("{heard:?} to a sleeper")));
    };
    ledger.deliver(stamp.seq);
    Ok(())
}

async fn joined_all(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(task) = tasks.join_next().await {
        task.unwrap_or_else(|error| Err(BenchError::Stalled(format!("a task has failed: {error}"))))?;
    }
    Ok(())
}

/// A count that is small enough to multiply a time with.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn usage(
    process: Option<&Process>,
    before: Option<super::Reading>,
    messages: u64,
    bytes: u64,
) -> Result<Option<Usage>> {
    let (Some(process), Some(before)) = (process, before) else { return Ok(None) };
    let (cpu, written) = process.read()?.since(before);
    Ok(Some(Usage::new(cpu, written, process.rss_bytes()?, messages, bytes)))
}
