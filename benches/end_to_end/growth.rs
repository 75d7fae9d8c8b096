//! What a message costs while the broker has more and more to carry: subscriptions, changes of them, messages that wait,
//! connections, subscribers.

use std::{future::Future, time::Duration};

use dormouse::{
    bench::{Load, Outcome, Peer, Session, Shape, Sleepers},
    codec::QoS,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    Columns, Result,
    args::{Args, Scenario},
    broker::Broker,
    timing,
};

/// Subscriptions of one session, which is what ours allows.
const SUBSCRIPTIONS_EACH: u32 = 1_000;
/// Filters in one packet.
const FILTERS_AT_ONCE: usize = 100;
/// Sessions among which the waiting messages are shared out.
const SLEEPERS: u32 = 1_000;
/// Topics of the load begin with it.
const NAME: &str = "bench";

/// One round with so many of `what`.
pub(crate) async fn run(args: &Args, broker: &Broker, what: Scenario, size: u32) -> Result<Columns> {
    let mut others = Vec::new();
    match what {
        Scenario::GrowthSubscriptions => others = subscribed(broker, size).await?,
        Scenario::GrowthConnections => others = connected(broker, size).await?,
        Scenario::GrowthQueued => queue(broker, size).await?,
        _ => {}
    }
    let mut columns = Columns::new();
    for (name, qos) in [("QoS 0", QoS::AtMostOnce), ("QoS 1", QoS::AtLeastOnce)] {
        let load = load(args, what, size, qos);
        let load = load.run(&broker.target, Some(&broker.process), timing(args));
        let outcome = if what == Scenario::GrowthChanges {
            while_changing(broker, size, load).await?
        } else {
            load.await?
        };
        columns.extend(shown(name, &outcome)?);
    }
    for peer in &mut others {
        peer.ping(|_, _| Ok(())).await?;
    }
    Ok(columns)
}

fn load(args: &Args, what: Scenario, size: u32, qos: QoS) -> Load {
    Load {
        shape: if what == Scenario::GrowthFanOut { Shape::FanOut(size) } else { Shape::Pairs(10) },
        qos,
        subscribers: Session::Transient,
        window: 50,
        pace: None,
        payload_bytes: args.payload as usize,
        name: NAME.to_owned(),
    }
}

fn shown(qos: &str, outcome: &Outcome) -> Result<Columns> {
    if !outcome.faults.is_none() {
        return Err(outcome.faults.to_string().into());
    }
    let cpu = outcome.usage.map_or(f64::NAN, |usage| usage.cpu_us_per_message);
    Ok(vec![(format!("{qos}: CPU us/message"), cpu), (format!("{qos}: messages/s"), outcome.rate)])
}

/// Filters of four kinds, with and without wildcards, that begin as the load's topics do and match none of them.
fn filter(number: u32) -> String {
    match number % 4 {
        0 => format!("{NAME}/{number}/temperature"),
        1 => format!("{NAME}/{number}/+"),
        2 => format!("{NAME}/+/{number}/#"),
        _ => format!("{NAME}/{number}/#"),
    }
}

/// Sessions with so many subscriptions in all.
async fn subscribed(broker: &Broker, subscriptions: u32) -> Result<Vec<Peer>> {
    let filters: Vec<String> = (0..subscriptions).map(filter).collect();
    let mut peers = Vec::new();
    for (number, share) in filters.chunks(SUBSCRIPTIONS_EACH as usize).enumerate() {
        let client_id = format!("holder-{number}");
        let (mut peer, _) = Peer::connect(&broker.target, &client_id, Session::Transient).await?;
        for filters in share.chunks(FILTERS_AT_ONCE) {
            peer.subscribe_all(filters, QoS::AtLeastOnce).await?;
        }
        peers.push(peer);
    }
    Ok(peers)
}

/// So many connections with persistent sessions and a subscription each.
pub(crate) async fn connected(broker: &Broker, connections: u32) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for number in 0..connections {
        let client_id = format!("idle-{number}");
        let (mut peer, _) = Peer::connect(&broker.target, &client_id, Session::Persistent).await?;
        peer.subscribe(&format!("cmd/{number}/#"), QoS::AtLeastOnce).await?;
        peers.push(peer);
    }
    Ok(peers)
}

/// So many messages for sessions that sleep.
async fn queue(broker: &Broker, messages: u32) -> Result<()> {
    if messages == 0 {
        return Ok(());
    }
    let sleepers = Sleepers {
        sessions: u64::from(SLEEPERS),
        each: u64::from(messages / SLEEPERS),
        publishers: 4,
        in_flight: 500,
        payload_bytes: 64,
        name: "cmd".to_owned(),
    };
    sleepers.fall_asleep(&broker.target).await?;
    sleepers.publish(&broker.target).await?;
    Ok(())
}

/// Runs it while a client subscribes to something else, and to another thing the next time, so often a second.
async fn while_changing(
    broker: &Broker,
    changes: u32,
    load: impl Future<Output = std::result::Result<Outcome, dormouse::bench::BenchError>>,
) -> Result<Outcome> {
    if changes == 0 {
        return Ok(load.await?);
    }
    let (mut peer, _) = Peer::connect(&broker.target, "restless", Session::Transient).await?;
    let changing = async {
        let mut ticks = interval(Duration::from_secs(1) / changes);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        // The same filters again and again, with the other QoS each time: that is a change as well.
        for number in 0_u32.. {
            ticks.tick().await;
            let qos = if number / 100 % 2 == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            peer.subscribe(&filter(number % 100), qos).await?;
        }
        Ok::<(), dormouse::bench::BenchError>(())
    };
    tokio::select! {
        outcome = load => Ok(outcome?),
        ended = changing => Err(ended.err().map_or("it has ended".into(), Into::into)),
    }
}
