//! What a pair that sends little has to suffer from others who ask much.

use std::{
    thread,
    time::{Duration, Instant},
};

use dormouse::{
    bench::{
        BenchError, Latency, Load, Outcome, Peer, Session, Shape, Sleepers, Stamp, Target, Timing, packet_id,
    },
    codec::QoS,
};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time::sleep,
};

use crate::{
    Columns, Result,
    args::{Args, Disturbance},
    broker::Broker,
};

/// Messages a second of the quiet pair.
const PACE: u32 = 1_000;
/// How long the pair is watched, if nothing else ends that.
const WATCH: Duration = Duration::from_secs(6);
/// The pair is watched at most this long.
const WATCH_MAX: Duration = Duration::from_secs(60);
const FLOOD_PAYLOAD_BYTES: u8 = 64;
/// Messages written at a time.
const FLOOD_AT_ONCE: u32 = 100;
const LARGE_PAYLOAD_BYTES: u32 = 100_000_000;
const DRAINED: u32 = 1_000_000;

/// One round.
pub(crate) async fn run(args: &Args, broker: &Broker, by: Disturbance) -> Result<Columns> {
    let target = &broker.target;
    let mut columns;
    match by {
        Disturbance::Nothing => {
            columns = Quiet::start(target, Some(WATCH))?.end().await?;
            columns.push(("others: MB/s".to_owned(), 0.0));
        }
        Disturbance::Flood | Disturbance::LargePayloads => {
            let (stop, stopped) = watch::channel(false);
            let others = Aside::start({
                let target = target.clone();
                move || async move {
                    if by == Disturbance::Flood {
                        flood(&target, stopped).await
                    } else {
                        large_payloads(&target, stopped).await
                    }
                }
            })?;
            columns = Quiet::start(target, Some(WATCH))?.end().await?;
            // They may have ended with an error, which is told below.
            let _ = stop.send(true);
            columns.push(("others: MB/s".to_owned(), others.end().await?));
        }
        Disturbance::Drain => {
            let messages = args.scaled(DRAINED);
            let sleepers = Sleepers {
                sessions: 1,
                each: messages,
                publishers: 1,
                in_flight: 1_000,
                payload_bytes: usize::from(FLOOD_PAYLOAD_BYTES),
                name: "backlog".to_owned(),
            };
            sleepers.fall_asleep(target).await?;
            sleepers.publish(target).await?;
            let quiet = Quiet::start(target, None)?;
            let woken = Aside::start({
                let target = target.clone();
                move || async move { sleepers.wake(&target).await }
            })?;
            let woken = woken.end().await?;
            columns = quiet.end().await?;
            if !woken.faults.is_none() {
                return Err(woken.faults.to_string().into());
            }
            let bytes = woken.rate * f64::from(FLOOD_PAYLOAD_BYTES);
            columns.push(("others: MB/s".to_owned(), bytes / 1e6));
        }
    }
    Ok(columns)
}

/// Work on a thread and a runtime of its own: it waits for nobody else's turn.
struct Aside<T> {
    done: oneshot::Receiver<std::result::Result<T, BenchError>>,
}

impl<T: Send + 'static> Aside<T> {
    fn start<F>(work: impl FnOnce() -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = std::result::Result<T, BenchError>>,
    {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, done) = oneshot::channel();
        // It is not joined: it has nothing more to do when it has told.
        thread::spawn(move || tell.send(runtime.block_on(work())).is_ok());
        Ok(Self { done })
    }

    async fn end(self) -> Result<T> {
        Ok(self.done.await.map_err(|_| "a thread has failed")??)
    }
}

/// A pair that sends a message each millisecond, on a thread of its own.
pub(crate) struct Quiet {
    enough: watch::Sender<bool>,
    outcome: Aside<Outcome>,
}

impl Quiet {
    /// Begins. Without a time it goes on until it is asked for its end.
    pub(crate) fn start(target: &Target, time: Option<Duration>) -> Result<Self> {
        let (enough, mut ended) = watch::channel(false);
        let target = target.clone();
        let outcome = Aside::start(move || async move {
            let load = Load {
                shape: Shape::Pairs(1),
                qos: QoS::AtLeastOnce,
                subscribers: Session::Transient,
                window: 10_000,
                pace: Some(PACE),
                payload_bytes: 64,
                name: "quiet".to_owned(),
            };
            let measured = time.unwrap_or(WATCH_MAX);
            let timing = Timing { warm_up: Duration::from_millis(200), measured, settle: Duration::ZERO };
            let until = async move {
                if time.is_some() {
                    std::future::pending::<()>().await;
                }
                // However it ends, it is the end.
                let _ = ended.wait_for(|&ended| ended).await;
            };
            load.run_until(&target, None, timing, until).await
        })?;
        Ok(Self { enough, outcome })
    }

    /// Waits for its end, and tells how long its messages took.
    pub(crate) async fn end(self) -> Result<Columns> {
        // Nobody listens if it has ended by itself.
        let _ = self.enough.send(true);
        let outcome = self.outcome.end().await?;
        if !outcome.faults.is_none() {
            return Err(format!("the quiet pair: {}", outcome.faults).into());
        }
        let Latency { p50_us, p99_us, max_us } = outcome.delivery.ok_or("the quiet pair has sent nothing")?;
        Ok(vec![
            ("quiet pair, delivery us, p50".to_owned(), p50_us),
            ("p99".to_owned(), p99_us),
            ("max".to_owned(), max_us),
            ("messages/s".to_owned(), outcome.rate),
        ])
    }
}

/// One sends `QoS` 0 as fast as it can, to one who takes it and one who reads ten times a second. Returns the megabytes of
/// payload a second that the former got.
async fn flood(target: &Target, stopped: watch::Receiver<bool>) -> std::result::Result<f64, BenchError> {
    let (mut fast, _) = Peer::connect(target, "flood-fast", Session::Transient).await?;
    fast.subscribe("flood/#", QoS::AtMostOnce).await?;
    let (mut slow, _) = Peer::connect(target, "flood-slow", Session::Transient).await?;
    slow.subscribe("flood/#", QoS::AtMostOnce).await?;
    let (mut publisher, _) = Peer::connect(target, "flood-publisher", Session::Transient).await?;
    let mut got = 0_u32;
    let clock = Instant::now();
    let publishing = async {
        let mut payload = vec![b'.'; usize::from(FLOOD_PAYLOAD_BYTES)];
        for seq in 0.. {
            publisher.publish("flood/all", QoS::AtMostOnce, Stamp::now(0, seq), packet_id(seq), &mut payload);
            if seq % u64::from(FLOOD_AT_ONCE) == 0 {
                publisher.flush().await?;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    };
    let taking = async {
        loop {
            fast.fill().await?;
            while fast.hear()?.is_some() {
                got += 1;
            }
        }
    };
    let hardly_taking = async {
        loop {
            slow.fill().await?;
            while slow.hear()?.is_some() {}
            sleep(Duration::from_millis(100)).await;
        }
    };
    ended_by(stopped, publishing, taking, hardly_taking).await?;
    Ok(f64::from(got) * f64::from(FLOOD_PAYLOAD_BYTES) / 1e6 / clock.elapsed().as_secs_f64())
}

/// One sends messages of 100 MB, one after the other, to another. Returns the megabytes a second.
async fn large_payloads(
    target: &Target,
    stopped: watch::Receiver<bool>,
) -> std::result::Result<f64, BenchError> {
    let (mut receiver, _) = Peer::connect(target, "large-receiver", Session::Transient).await?;
    receiver.subscribe("large/#", QoS::AtMostOnce).await?;
    let (mut publisher, _) = Peer::connect(target, "large-publisher", Session::Transient).await?;
    let mut got = 0_u32;
    let clock = Instant::now();
    let (arrived, mut next) = watch::channel(0_u64);
    let publishing = async {
        let mut payload = vec![b'.'; LARGE_PAYLOAD_BYTES as usize];
        for seq in 0.. {
            publisher.publish("large/all", QoS::AtMostOnce, Stamp::now(0, seq), packet_id(seq), &mut payload);
            publisher.flush().await?;
            if next.wait_for(|&arrived| arrived > seq).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let taking = async {
        loop {
            receiver.fill().await?;
            while receiver.hear()?.is_some() {
                got += 1;
                arrived.send_modify(|arrived| *arrived += 1);
            }
        }
    };
    ended_by(stopped, publishing, taking, std::future::pending()).await?;
    Ok(f64::from(got) * f64::from(LARGE_PAYLOAD_BYTES) / 1e6 / clock.elapsed().as_secs_f64())
}

/// Until it is stopped, or one of them fails.
async fn ended_by(
    mut stopped: watch::Receiver<bool>,
    one: impl Future<Output = std::result::Result<(), BenchError>>,
    two: impl Future<Output = std::result::Result<(), BenchError>>,
    three: impl Future<Output = std::result::Result<(), BenchError>>,
) -> std::result::Result<(), BenchError> {
    tokio::select! {
        _ = stopped.wait_for(|&stopped| stopped) => Ok(()),
        ended = one => ended,
        ended = two => ended,
        ended = three => ended,
    }
}
