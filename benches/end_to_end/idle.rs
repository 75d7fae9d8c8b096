//! What connections cost that do nothing.

use std::{fs, sync::Arc, time::Duration};

use dormouse::codec::QoS;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::{
    Result, SETTLE,
    args::Args,
    broker::Broker,
    pairs::{as_f64, mib, micros},
    peer::{Peer, Session, tcp},
};

/// How long the broker is watched doing nothing.
const WATCH_S: u32 = 5;

/// One round, over TLS if the broker was started with it.
pub(crate) async fn run(args: &Args, broker: &mut Broker) -> Result<Vec<(&'static str, f64)>> {
    let tls = if fs::exists(broker.ca())? { Some(connector(broker)?) } else { None };
    sleep(SETTLE).await;
    let alone = broker.process.rss_bytes()?;
    let cpu_alone = watch(broker).await?;
    let mut peers = Vec::new();
    let before = broker.process.read()?;
    for number in 0..args.clients {
        let client_id = format!("idle-{number}");
        let stream = tcp(broker).await?;
        let (mut peer, _) = if let Some(tls) = &tls {
            let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
            Peer::introduce(stream, &client_id, Session::Transient).await?
        } else {
            Peer::introduce(stream, &client_id, Session::Transient).await?
        };
        peer.subscribe(&format!("cmd/{number}/#"), QoS::AtLeastOnce).await?;
        peers.push(peer);
    }
    let (cpu_connect, _) = broker.process.read()?.since(before);
    sleep(SETTLE).await;
    let rss = broker.process.rss_bytes()?;
    let cpu = watch(broker).await?;
    for peer in &mut peers {
        peer.ping(|heard| Err(format!("{heard:?} to an idle client").into())).await?;
    }
    let clients = f64::from(args.clients);
    Ok(vec![
        ("RSS MiB, no connection", mib(alone)),
        ("RSS MiB, all connected", mib(rss)),
        ("KiB/connection", as_f64(rss.saturating_sub(alone)) / 1024.0 / clients),
        ("connecting: CPU us/client", micros(cpu_connect) / clients),
        ("idle CPU us/s, no connection", cpu_alone),
        ("idle CPU us/s, all connected", cpu),
    ])
}

/// CPU microseconds a second.
async fn watch(broker: &Broker) -> Result<f64> {
    let before = broker.process.read()?;
    sleep(Duration::from_secs(u64::from(WATCH_S))).await;
    let (cpu, _) = broker.process.read()?.since(before);
    Ok(micros(cpu) / f64::from(WATCH_S))
}

fn connector(broker: &Broker) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(broker.ca())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
