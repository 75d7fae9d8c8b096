//! After a power cut everybody is back at the same time: whether those who are connected notice, and what memory it takes.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use dormouse::bench::{Peer, Session, as_f64, micros};
use tokio::{
    task::{JoinSet, LocalSet},
    time::sleep,
};

use crate::{Columns, Result, SETTLE, args::Args, broker::Broker, fairness::Quiet, mib};

/// How often the broker's memory is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// A client that was turned away tries again so many times.
const TRIES: u32 = 5;

/// One round: whole handshakes, as after a restart of the broker, which has forgotten its ticket keys.
pub(crate) async fn run(args: &Args, broker: &Broker) -> Result<Columns> {
    let clients = args.clients(10_000);
    sleep(SETTLE).await;
    let alone = broker.process.rss_bytes()?;
    let before = broker.process.read()?;
    let clock = Instant::now();
    let quiet = Quiet::start(&broker.target, None)?;
    let target = Rc::new(broker.target.clone().without_resumption());
    let mut peak = alone;
    let storm = async {
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let target = Rc::clone(&target);
            tasks.spawn_local(async move {
                let client_id = format!("storm-{number}");
                let mut failed = 0_u64;
                loop {
                    match Peer::connect(&target, &client_id, Session::Persistent).await {
                        Ok((peer, _)) => return Ok((peer, failed)),
                        Err(_) if failed < u64::from(TRIES) => failed += 1,
                        Err(error) => return Err(error),
                    }
                }
            });
        }
        let (mut peers, mut failed) = (Vec::new(), 0);
        loop {
            tokio::select! {
                task = tasks.join_next() => match task {
                    Some(task) => {
                        let (peer, times) = task??;
                        peers.push(peer);
                        failed += times;
                    }
                    None => break,
                },
                () = sleep(GLANCE) => peak = peak.max(broker.process.rss_bytes()?),
            }
        }
        Ok::<_, Box<dyn std::error::Error>>((peers, failed))
    };
    let (mut peers, failed) = LocalSet::new().run_until(storm).await?;
    let took = clock.elapsed();
    let (cpu, _) = broker.process.read()?.since(before);
    let quiet = quiet.end().await?;
    sleep(SETTLE).await;
    let after = broker.process.rss_bytes()?;
    for peer in &mut peers {
        peer.ping(|_, _| Ok(())).await?;
    }
    let mut columns = vec![
        ("all connected after s".to_owned(), took.as_secs_f64()),
        ("failed tries".to_owned(), as_f64(failed)),
        ("CPU us/connect".to_owned(), micros(cpu) / f64::from(clients)),
        ("RSS MiB, before".to_owned(), mib(alone)),
        ("at most".to_owned(), mib(peak.max(after))),
        ("after".to_owned(), mib(after)),
    ];
    columns.extend(quiet);
    Ok(columns)
}
