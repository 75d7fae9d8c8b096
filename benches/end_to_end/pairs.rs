//! Publishers, each with a subscriber of its own, in a closed loop: what is on the way is bounded, so nothing is dropped.

use std::{cell::Cell, rc::Rc, time::Instant};

use dormouse::codec::QoS;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Duration, sleep},
};

use crate::{
    Result, SETTLE,
    args::Args,
    broker::Broker,
    ledger::{Faults, Ledger},
    peer::{Heard, Peer, Session, packet_id},
};

/// What the pairs do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pairs {
    pub(crate) qos: QoS,
    pub(crate) subscribers: Session,
    /// Messages of a publisher on the way at a time.
    pub(crate) window: u64,
    /// Of each publisher.
    pub(crate) messages: u32,
}

/// How far a pair has come.
#[derive(Default)]
struct Progress {
    sent: Cell<u64>,
    /// By the broker.
    confirmed: Cell<u64>,
    delivered: Cell<u64>,
    arrived: Notify,
}

struct Publisher {
    peer: Peer,
    topic: String,
    progress: Rc<Progress>,
}

struct Subscriber {
    peer: Peer,
    progress: Rc<Progress>,
    ledger: Ledger,
    /// Messages whose last packet has come, for QoS 2.
    released: u64,
}

/// One round. A tenth of the messages goes ahead without being measured.
pub(crate) async fn run(args: &Args, broker: &mut Broker, pairs: Pairs) -> Result<Vec<(&'static str, f64)>> {
    let mut all = Vec::new();
    for number in 0..args.pairs {
        all.push(connect(broker, number, pairs).await?);
    }
    let messages = args.scaled(pairs.messages).max(10);
    let mut all = drive(all, pairs, messages / 10).await?;
    sleep(SETTLE).await;

    let before = broker.process.read()?;
    let folder = broker.folder_bytes()?;
    let clock = Instant::now();
    all = drive(all, pairs, messages).await?;
    let took = clock.elapsed();
    sleep(SETTLE).await;
    let (cpu, written) = broker.process.read()?.since(before);
    let rss = broker.process.rss_bytes()?;
    let grown = broker.folder_bytes()?.saturating_sub(folder);

    let mut faults = Faults::default();
    for (_, subscriber) in &mut all {
        let Subscriber { peer, ledger, .. } = subscriber;
        peer.ping(|heard| match heard {
            Heard::Publish { seq, .. } => ledger.deliver(seq),
            _ => Ok(()),
        })
        .await?;
        faults.add(ledger.judge(messages));
    }
    faults.check()?;

    let count = f64::from(args.pairs) * as_f64(messages - messages / 10);
    Ok(vec![
        ("CPU us/message", micros(cpu) / count),
        ("messages/s", count / took.as_secs_f64()),
        ("RSS MiB", mib(rss)),
        ("disk bytes/message", as_f64(written) / count),
        ("folder bytes/message", as_f64(grown) / count),
    ])
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn mib(bytes: u64) -> f64 {
    as_f64(bytes) / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^52")]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

async fn connect(broker: &Broker, number: u32, pairs: Pairs) -> Result<(Publisher, Subscriber)> {
    let progress = Rc::new(Progress::default());
    let topic = format!("site/plant/device-{number}/temperature");
    let (mut peer, _) = Peer::connect(broker, &format!("subscriber-{number}"), pairs.subscribers).await?;
    peer.subscribe(&format!("site/plant/device-{number}/+"), pairs.qos).await?;
    let subscriber = Subscriber { peer, progress: progress.clone(), ledger: Ledger::default(), released: 0 };
    let (peer, _) = Peer::connect(broker, &format!("publisher-{number}"), Session::Transient).await?;
    Ok((Publisher { peer, topic, progress }, subscriber))
}

/// Until `until` messages of each pair were sent, confirmed and delivered.
async fn drive(
    all: Vec<(Publisher, Subscriber)>,
    pairs: Pairs,
    until: u64,
) -> Result<Vec<(Publisher, Subscriber)>> {
    let progress: Vec<_> = all.iter().map(|(publisher, _)| publisher.progress.clone()).collect();
    let mut tasks = JoinSet::new();
    for (mut publisher, mut subscriber) in all {
        tasks.spawn_local(async move {
            tokio::try_join!(publisher.drive(pairs, until), subscriber.drive(pairs, until))
                .map(|_| (publisher, subscriber))
                .map_err(|error| error.to_string())
        });
    }
    let watch = Watch { progress, confirmed: pairs.qos > QoS::AtMostOnce, until };
    let mut done = Vec::new();
    while let Some(result) = tasks.join_next().await {
        done.push(result??);
    }
    drop(watch);
    Ok(done)
}

impl Publisher {
    async fn drive(&mut self, pairs: Pairs, until: u64) -> Result<()> {
        let progress = self.progress.clone();
        let behind = |count: &Cell<u64>| progress.sent.get() - count.get();
        loop {
            let on_the_way = || {
                let unconfirmed = if pairs.qos > QoS::AtMostOnce { behind(&progress.confirmed) } else { 0 };
                behind(&progress.delivered).max(unconfirmed)
            };
            // Half a window at a time, so that the load does not depend on how the broker groups its answers.
            if on_the_way() <= pairs.window / 2 {
                while on_the_way() < pairs.window && progress.sent.get() < until {
                    let seq = progress.sent.get();
                    self.peer.publish(&self.topic, pairs.qos, seq, packet_id(seq));
                    progress.sent.set(seq + 1);
                }
            }
            self.peer.flush().await?;
            if progress.sent.get() == until && on_the_way() == 0 {
                return Ok(());
            }
            tokio::select! {
                () = progress.arrived.notified() => {}
                filled = self.peer.fill() => {
                    filled?;
                    while let Some(heard) = self.peer.hear()? {
                        self.handle(heard)?;
                    }
                }
            }
        }
    }

    /// Acknowledgements come in the order of their messages [MQTT-4.6.0-2].
    fn handle(&mut self, heard: Heard) -> Result<()> {
        let confirmed = self.progress.confirmed.get();
        match heard {
            Heard::Pubrec(_) => self.peer.confirm(heard),
            Heard::Puback(id) | Heard::Pubcomp(id) if id == packet_id(confirmed) => {
                self.progress.confirmed.set(confirmed + 1);
            }
            other => return Err(format!("{other:?} after {confirmed} confirmations").into()),
        }
        Ok(())
    }
}

impl Subscriber {
    async fn drive(&mut self, pairs: Pairs, until: u64) -> Result<()> {
        loop {
            let released = pairs.qos < QoS::ExactlyOnce || self.released == until;
            if self.ledger.delivered() == until && released {
                return Ok(());
            }
            self.peer.fill().await?;
            while let Some(heard) = self.peer.hear()? {
                match heard {
                    Heard::Publish { seq, .. } => self.ledger.deliver(seq)?,
                    Heard::Pubrel(_) => self.released += 1,
                    other => return Err(format!("{other:?} to a subscriber").into()),
                }
                self.peer.confirm(heard);
            }
            self.peer.flush().await?;
            self.progress.delivered.set(self.ledger.delivered());
            self.progress.arrived.notify_one();
        }
    }
}

/// Tells where a round stood that was given up.
struct Watch {
    progress: Vec<Rc<Progress>>,
    /// Whether the broker confirms.
    confirmed: bool,
    until: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (number, progress) in self.progress.iter().enumerate() {
            let Progress { sent, confirmed, delivered, .. } = &**progress;
            if delivered.get() < self.until || self.confirmed && confirmed.get() < self.until {
                let (sent, confirmed, delivered) = (sent.get(), confirmed.get(), delivered.get());
                eprintln!(
                    "  pair {number}: {sent} of {} sent, {confirmed} confirmed, {delivered} delivered",
                    self.until
                );
            }
        }
    }
}
