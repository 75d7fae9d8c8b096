//! Messages for sessions that sleep: how fast they are taken over, and what they cost when the sleepers wake.

use std::time::Instant;

use dormouse::codec::QoS;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Result, SETTLE,
    args::Args,
    broker::Broker,
    ledger::{Faults, Ledger},
    pairs::{as_f64, mib, micros},
    peer::{Heard, PAYLOAD_BYTES, Peer, Session, packet_id},
};

pub(crate) const PUBLISHERS: u64 = 4;
/// Messages of a publisher without an acknowledgement at a time.
const IN_FLIGHT: u64 = 100;
const MESSAGES: u32 = 40_000;
/// Sessions made, or awake, at a time.
const AT_ONCE: u32 = 10;

/// One round.
pub(crate) async fn run(args: &Args, broker: &mut Broker) -> Result<Vec<(&'static str, f64)>> {
    // Every session gets the same number of messages, and every publisher sends the same.
    let sessions = u64::from(args.clients) / PUBLISHERS * PUBLISHERS;
    let each = args.scaled(MESSAGES).div_ceil(sessions);
    let messages = sessions * each;
    in_turn(broker, sessions, Work::FallAsleep).await?;
    sleep(SETTLE).await;

    let before = broker.process.read()?;
    let folder = broker.folder_bytes()?;
    let clock = Instant::now();
    publish_all(broker, sessions, messages, PAYLOAD_BYTES).await?;
    let took = clock.elapsed();
    sleep(SETTLE).await;
    let (cpu, written) = broker.process.read()?.since(before);
    let grown = broker.folder_bytes()?.saturating_sub(folder);
    let rss = broker.process.rss_bytes()?;

    let before = broker.process.read()?;
    in_turn(broker, sessions, Work::Wake { each }).await?;
    sleep(SETTLE).await;
    let (cpu_wake, written_wake) = broker.process.read()?.since(before);

    let count = as_f64(messages);
    let payload = count * as_f64(PAYLOAD_BYTES as u64);
    Ok(vec![
        ("acks/s", count / took.as_secs_f64()),
        ("CPU us/message", micros(cpu) / count),
        ("disk bytes/payload byte", as_f64(written) / payload),
        ("folder bytes/payload byte", as_f64(grown) / payload),
        ("RSS MiB", mib(rss)),
        ("wake: CPU us/message", micros(cpu_wake) / count),
        ("wake: disk bytes/payload byte", as_f64(written_wake) / payload),
    ])
}

/// The publishers, each with its share of the messages.
pub(crate) async fn publish_all(
    broker: &Broker,
    sessions: u64,
    messages: u64,
    payload_bytes: usize,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..PUBLISHERS {
        let (peer, _) = Peer::connect(broker, &format!("commander-{number}"), Session::Transient).await?;
        tasks.spawn_local(async move {
            publish(peer, number, sessions, messages / PUBLISHERS, payload_bytes)
                .await
                .map_err(|error| error.to_string())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(())
}

#[derive(Clone, Copy)]
pub(crate) enum Work {
    FallAsleep,
    /// And take this many messages.
    Wake {
        each: u64,
    },
}

/// Does it for every session, a few at a time.
pub(crate) async fn in_turn(broker: &Broker, sessions: u64, work: Work) -> Result<()> {
    let mut next = 0;
    let mut faults = Faults::default();
    while next < sessions {
        let group = next..sessions.min(next + u64::from(AT_ONCE));
        next = group.end;
        let mut peers = Vec::new();
        for number in group {
            peers.push((
                number,
                Peer::connect(broker, &format!("sleeper-{number}"), Session::Persistent).await?,
            ));
        }
        for (number, (mut peer, present)) in peers {
            match work {
                Work::FallAsleep => peer.subscribe(&format!("cmd/{number}/#"), QoS::AtLeastOnce).await?,
                Work::Wake { .. } if !present => return Err(format!("session {number} is gone").into()),
                Work::Wake { each } => faults.add(take(&mut peer, each).await?),
            }
            peer.disconnect().await?;
        }
    }
    faults.check()
}

/// Takes what waited and confirms it.
async fn take(peer: &mut Peer, each: u64) -> Result<Faults> {
    let mut ledger = Ledger::default();
    while ledger.delivered() < each {
        while let Some(heard) = peer.hear()? {
            let Heard::Publish { seq, .. } = heard else {
                return Err(format!("{heard:?} to a sleeper").into());
            };
            ledger.deliver(seq)?;
            peer.confirm(heard);
        }
        peer.flush().await?;
        if ledger.delivered() < each {
            peer.fill().await?;
        }
    }
    peer.ping(|heard| match heard {
        Heard::Publish { seq, .. } => ledger.deliver(seq),
        other => Err(format!("{other:?} to a sleeper").into()),
    })
    .await?;
    Ok(ledger.judge(each))
}

/// To one session after the other, `PUBLISHERS` apart, round and round.
async fn publish(
    mut peer: Peer,
    number: u64,
    sessions: u64,
    messages: u64,
    payload_bytes: usize,
) -> Result<()> {
    let mut payload = vec![b'.'; payload_bytes];
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < messages {
        if sent - confirmed <= IN_FLIGHT / 2 {
            while sent < messages && sent - confirmed < IN_FLIGHT {
                let at = sent * PUBLISHERS + number;
                let topic = format!("cmd/{}/set", at % sessions);
                peer.publish_body(&topic, QoS::AtLeastOnce, at / sessions, packet_id(sent), &mut payload);
                sent += 1;
            }
        }
        peer.flush().await?;
        peer.fill().await?;
        while let Some(heard) = peer.hear()? {
            if heard != Heard::Puback(packet_id(confirmed)) {
                return Err(format!("{heard:?} after {confirmed} acknowledgements").into());
            }
            confirmed += 1;
        }
    }
    peer.disconnect().await
}
