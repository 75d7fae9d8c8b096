//! What connections cost that do nothing, and what their sessions cost asleep.

use std::time::{Duration, Instant};

use dormouse::bench::{as_f64, micros};
use tokio::time::sleep;

use crate::{Columns, Result, SETTLE, args::Args, broker::Broker, growth::connected, mib};

/// How long the broker is watched doing nothing.
const WATCH: Duration = Duration::from_secs(5);

/// One round, over TLS if the broker was started with it.
pub(crate) async fn run(args: &Args, broker: &mut Broker) -> Result<Columns> {
    let clients = args.clients(10_000);
    sleep(SETTLE).await;
    let alone = broker.process.rss_bytes()?;
    let load_alone = watch(broker).await?;
    let before = broker.process.read()?;
    let mut peers = connected(broker, clients).await?;
    let (cpu_connect, _) = broker.process.read()?.since(before);
    sleep(SETTLE).await;
    let rss = broker.process.rss_bytes()?;
    let load = watch(broker).await?;
    for peer in &mut peers {
        peer.ping(|_, _| Ok(())).await?;
    }
    for peer in peers {
        peer.disconnect().await?;
    }
    sleep(SETTLE).await;
    let asleep = broker.process.rss_bytes()?;
    let each = |bytes: u64| as_f64(bytes.saturating_sub(alone)) / 1024.0 / f64::from(clients);
    Ok(vec![
        ("connections".to_owned(), f64::from(clients)),
        ("RSS MiB, none connected".to_owned(), mib(alone)),
        ("all connected".to_owned(), mib(rss)),
        ("KiB/connection".to_owned(), each(rss)),
        ("KiB/session asleep".to_owned(), each(asleep)),
        ("connecting, subscribing: CPU us".to_owned(), micros(cpu_connect) / f64::from(clients)),
        ("% of a core, none connected".to_owned(), load_alone),
        ("all connected".to_owned(), load),
    ])
}

/// Percent of a core.
async fn watch(broker: &Broker) -> Result<f64> {
    let clock = Instant::now();
    let before = broker.process.read()?;
    sleep(WATCH).await;
    let (cpu, _) = broker.process.read()?.since(before);
    Ok(100.0 * cpu.as_secs_f64() / clock.elapsed().as_secs_f64())
}
