//! A long queue: what a waiting message costs in memory, how fast the broker is back with it, and how fast it goes.

use std::time::{Duration, Instant};

use dormouse::bench::{Content, Peer, Session, Sleepers, as_f64, micros};
use tokio::time::sleep;

use crate::{Columns, Result, SETTLE, args::Args, broker::Broker, mib};

const SESSIONS: u32 = 10_000;
/// Messages that wait for each session.
const EACH: u64 = 100;
const PUBLISHERS: u64 = 4;
const PAYLOAD_BYTES: usize = 200;
/// The broker has this long to give disk space back before it is looked at: compaction goes on between commits.
const RETURN: Duration = Duration::from_secs(5);

/// One round.
pub(crate) async fn run(args: &Args, broker: &mut Broker) -> Result<Columns> {
    let sessions = args.scaled(SESSIONS).div_ceil(PUBLISHERS) * PUBLISHERS;
    let messages = sessions * EACH;
    let sleepers = Sleepers {
        sessions,
        each: EACH,
        publishers: PUBLISHERS,
        in_flight: args.in_flight,
        pace: None,
        payload_bytes: PAYLOAD_BYTES,
        content: Content::Dots,
        name: "cmd".to_owned(),
    };
    let empty = broker.process.rss_bytes()?;
    sleepers.fall_asleep(&broker.target).await?;
    sleep(SETTLE).await;
    let asleep = broker.process.rss_bytes()?;

    let before = broker.process.read()?;
    let clock = Instant::now();
    sleepers.publish(&broker.target).await?;
    let took = clock.elapsed();
    sleep(SETTLE).await;
    let (cpu, written) = broker.process.read()?.since(before);
    let queued = broker.process.rss_bytes()?;
    let folder = broker.folder_bytes()?;

    let start = Instant::now();
    let stopping = Instant::now();
    let listening = broker.restart(args).await?;
    let stopped = stopping.elapsed().saturating_sub(listening);
    drop(Peer::connect(&broker.target, "first", Session::Transient).await?);
    let connack = start.elapsed().saturating_sub(stopped);
    sleep(SETTLE).await;
    let restarted = broker.process.rss_bytes()?;

    let before = broker.process.read()?;
    let clock = Instant::now();
    let woken = sleepers.wake(&broker.target).await?;
    if !woken.faults.is_none() {
        return Err(woken.faults.to_string().into());
    }
    let drained = clock.elapsed();
    sleep(RETURN).await;
    let (cpu_drain, written_drain) = broker.process.read()?.since(before);

    let count = as_f64(messages);
    let bytes = count * as_f64(PAYLOAD_BYTES as u64);
    Ok(vec![
        ("RSS MiB, empty".to_owned(), mib(empty)),
        ("bytes/session".to_owned(), (as_f64(asleep) - as_f64(empty)) / as_f64(sessions)),
        ("acks/s".to_owned(), count / took.as_secs_f64()),
        ("CPU us/message".to_owned(), micros(cpu) / count),
        ("disk bytes/payload byte".to_owned(), as_f64(written) / bytes),
        ("RSS MiB, queued".to_owned(), mib(queued)),
        ("bytes/message".to_owned(), (as_f64(queued) - as_f64(asleep)) / count),
        ("restart to CONNACK, s".to_owned(), connack.as_secs_f64()),
        ("RSS MiB, restarted".to_owned(), mib(restarted)),
        ("drain, messages/s".to_owned(), count / drained.as_secs_f64()),
        ("drain: CPU us/message".to_owned(), micros(cpu_drain) / count),
        ("drain: disk bytes/payload byte".to_owned(), as_f64(written_drain) / bytes),
        ("RSS MiB, drained".to_owned(), mib(broker.process.rss_bytes()?)),
        ("folder MiB, queued".to_owned(), mib(folder)),
        ("folder MiB, drained".to_owned(), mib(broker.folder_bytes()?)),
    ])
}
