//! What connections cost that do nothing.

use std::time::Duration;

use dormouse::{
    bench::{Peer, Session, as_f64, micros},
    codec::QoS,
};
use tokio::time::sleep;

use crate::{Columns, Result, SETTLE, args::Args, broker::Broker, mib};

/// How long the broker is watched doing nothing.
const WATCH_S: u32 = 5;

/// One round, over TLS if the broker was started with it.
pub(crate) async fn run(args: &Args, broker: &mut Broker) -> Result<Columns> {
    sleep(SETTLE).await;
    let alone = broker.process.rss_bytes()?;
    let cpu_alone = watch(broker).await?;
    let mut peers = Vec::new();
    let before = broker.process.read()?;
    for number in 0..args.clients {
        let client_id = format!("idle-{number}");
        let (mut peer, _) = Peer::connect(&broker.target, &client_id, Session::Transient).await?;
        peer.subscribe(&format!("cmd/{number}/#"), QoS::AtLeastOnce).await?;
        peers.push(peer);
    }
    let (cpu_connect, _) = broker.process.read()?.since(before);
    sleep(SETTLE).await;
    let rss = broker.process.rss_bytes()?;
    let cpu = watch(broker).await?;
    for peer in &mut peers {
        peer.ping(|_, _| Ok(())).await?;
    }
    let clients = f64::from(args.clients);
    Ok(vec![
        ("RSS MiB, no connection".to_owned(), mib(alone)),
        ("RSS MiB, all connected".to_owned(), mib(rss)),
        ("KiB/connection".to_owned(), as_f64(rss.saturating_sub(alone)) / 1024.0 / clients),
        ("connecting: CPU us/client".to_owned(), micros(cpu_connect) / clients),
        ("idle CPU us/s, no connection".to_owned(), cpu_alone),
        ("idle CPU us/s, all connected".to_owned(), cpu),
    ])
}

/// CPU microseconds a second.
async fn watch(broker: &Broker) -> Result<f64> {
    let before = broker.process.read()?;
    sleep(Duration::from_secs(u64::from(WATCH_S))).await;
    let (cpu, _) = broker.process.read()?.since(before);
    Ok(micros(cpu) / f64::from(WATCH_S))
}
