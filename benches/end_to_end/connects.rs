//! What it costs to come back: connections to persistent sessions that exist.

use std::time::Instant;

use dormouse::bench::{BenchError, Peer, Session, Target, as_f64, micros};
use tokio::task::{JoinSet, LocalSet};

use crate::{Columns, Result, args::Args, broker::Broker};

/// Clients that connect and leave at a time.
const AT_ONCE: u32 = 10;
/// How often each session is come back to.
const TIMES: u32 = 2;

/// One round.
pub(crate) async fn run(args: &Args, broker: &Broker, is_tls: bool) -> Result<Columns> {
    let sessions = args.clients(2_000);
    let plain = [broker.target.clone()];
    come_and_go(&plain, sessions, 1, false).await?;
    if !is_tls {
        return measure(broker, &plain, sessions, "").await;
    }
    let whole = broker.target.clone().without_resumption();
    let mut columns = measure(broker, &[whole], sessions, "whole: ").await?;
    let resuming: Vec<Target> = (0..AT_ONCE).map(|_| broker.target.clone().with_own_tickets()).collect();
    // Each gets its first ticket.
    come_and_go(&resuming, AT_ONCE, 1, true).await?;
    columns.extend(measure(broker, &resuming, sessions, "resumed: ").await?);
    Ok(columns)
}

async fn measure(broker: &Broker, targets: &[Target], sessions: u32, how: &str) -> Result<Columns> {
    let clock = Instant::now();
    let before = broker.process.read()?;
    let resumed = come_and_go(targets, sessions, TIMES, true).await?;
    let took = clock.elapsed();
    // At once: what the disk is told of it later is not the connecting.
    let (cpu, _) = broker.process.read()?.since(before);
    let connects = f64::from(sessions * TIMES);
    let mut columns = vec![
        (format!("{how}CPU us/connect"), micros(cpu) / connects),
        (format!("{how}connects/s"), connects / took.as_secs_f64()),
    ];
    if !how.is_empty() {
        columns.push((format!("{how}% with a ticket"), 100.0 * as_f64(resumed) / connects));
    }
    Ok(columns)
}

/// Connects to each session so many times, and leaves with DISCONNECT. Returns how many have resumed a TLS session.
/// The clients take turns with the targets.
async fn come_and_go(targets: &[Target], sessions: u32, times: u32, is_known: bool) -> Result<u64> {
    let come_and_go = async {
        let mut tasks = JoinSet::new();
        for (worker, target) in (0..AT_ONCE).zip(targets.iter().cycle().cloned()) {
            tasks.spawn_local(async move {
                let mut resumed = 0_u64;
                for number in (0..times).flat_map(|_| (worker..sessions).step_by(AT_ONCE as usize)) {
                    let client_id = format!("device-{number}");
                    let (peer, present) = Peer::connect(&target, &client_id, Session::Persistent).await?;
                    if present != is_known {
                        return Err(BenchError::Protocol(format!("session present = {present}")));
                    }
                    resumed += u64::from(peer.has_resumed());
                    peer.disconnect().await?;
                }
                Ok(resumed)
            });
        }
        let mut resumed = 0;
        while let Some(task) = tasks.join_next().await {
            resumed += task??;
        }
        Ok(resumed)
    };
    LocalSet::new().run_until(come_and_go).await
}
