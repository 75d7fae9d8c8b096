//! A long queue: what a waiting message costs in memory, how fast the broker is back with it, and how fast it goes.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    Result, SETTLE,
    args::Args,
    broker::Broker,
    durable::{PUBLISHERS, Work, in_turn, publish_all},
    pairs::{as_f64, mib, micros},
    peer::{Peer, Session},
};

const SESSIONS: u32 = 10_000;
/// Messages that wait for each session.
const EACH: u64 = 100;
const PAYLOAD_BYTES: usize = 200;
/// The broker has this long to give disk space back before it is looked at: compaction goes on between commits.
const RETURN: Duration = Duration::from_secs(5);

/// One round.
pub(crate) async fn run(args: &Args, broker: &mut Broker) -> Result<Vec<(&'static str, f64)>> {
    let sessions = args.scaled(SESSIONS).div_ceil(PUBLISHERS) * PUBLISHERS;
    let messages = sessions * EACH;
    let empty = broker.process.rss_bytes()?;
    in_turn(broker, sessions, Work::FallAsleep).await?;
    sleep(SETTLE).await;
    let asleep = broker.process.rss_bytes()?;

    let before = broker.process.read()?;
    let clock = Instant::now();
    publish_all(broker, sessions, messages, PAYLOAD_BYTES).await?;
    let took = clock.elapsed();
    sleep(SETTLE).await;
    let (cpu, written) = broker.process.read()?.since(before);
    let queued = broker.process.rss_bytes()?;
    let folder = broker.folder_bytes()?;

    let start = Instant::now();
    let stopping = Instant::now();
    let listening = broker.restart(args).await?;
    let stopped = stopping.elapsed().saturating_sub(listening);
    drop(Peer::connect(broker, "first", Session::Transient).await?);
    let connack = start.elapsed().saturating_sub(stopped);
    sleep(SETTLE).await;
    let restarted = broker.process.rss_bytes()?;

    let before = broker.process.read()?;
    let clock = Instant::now();
    in_turn(broker, sessions, Work::Wake { each: EACH }).await?;
    let drained = clock.elapsed();
    sleep(RETURN).await;
    let (cpu_drain, written_drain) = broker.process.read()?.since(before);

    let count = as_f64(messages);
    let bytes = count * as_f64(PAYLOAD_BYTES as u64);
    Ok(vec![
        ("RSS MiB, empty", mib(empty)),
        ("bytes/session", (as_f64(asleep) - as_f64(empty)) / as_f64(sessions)),
        ("acks/s", count / took.as_secs_f64()),
        ("CPU us/message", micros(cpu) / count),
        ("disk bytes/payload byte", as_f64(written) / bytes),
        ("RSS MiB, queued", mib(queued)),
        ("bytes/message", (as_f64(queued) - as_f64(asleep)) / count),
        ("restart to CONNACK, s", connack.as_secs_f64()),
        ("RSS MiB, restarted", mib(restarted)),
        ("drain, messages/s", count / drained.as_secs_f64()),
        ("drain: CPU us/message", micros(cpu_drain) / count),
        ("drain: disk bytes/payload byte", as_f64(written_drain) / bytes),
        ("RSS MiB, drained", mib(broker.process.rss_bytes()?)),
        ("folder MiB, queued", mib(folder)),
        ("folder MiB, drained", mib(broker.folder_bytes()?)),
    ])
}
