//! One publisher, one message at a time: how long its acknowledgement and its delivery take.

use std::time::{Duration, Instant};

use dormouse::codec::QoS;

use crate::{
    Result,
    broker::Broker,
    pairs::micros,
    peer::{Heard, Peer, Session, packet_id},
};

const MESSAGES: u64 = 300;
/// Fewer than the broker sends without a confirmation.
const MESSAGES_SILENT: u64 = 20;

/// What the subscriber does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiver {
    Confirms(Session),
    Silent,
    Sleeps,
}

/// The median and the worst but one percent.
struct Percentiles {
    median: f64,
    p99: f64,
}

/// One round: microseconds.
pub(crate) async fn run(broker: &mut Broker) -> Result<Vec<(&'static str, f64)>> {
    let transient = messages(broker, Receiver::Confirms(Session::Transient)).await?;
    let online = messages(broker, Receiver::Confirms(Session::Persistent)).await?;
    let sleeps = messages(broker, Receiver::Sleeps).await?;
    let silent = messages(broker, Receiver::Silent).await?;
    Ok(vec![
        ("ack us, transient subscriber", transient.0.median),
        ("p99", transient.0.p99),
        ("ack us, persistent online", online.0.median),
        ("p99 ", online.0.p99),
        ("delivery us, persistent online", online.1.median),
        ("ack us, asleep", sleeps.0.median),
        ("p99  ", sleeps.0.p99),
        ("ack us, online but silent", silent.0.median),
    ])
}

/// Times to the acknowledgement and to the delivery.
async fn messages(broker: &Broker, receiver: Receiver) -> Result<(Percentiles, Percentiles)> {
    let (name, session, count) = match receiver {
        Receiver::Confirms(Session::Transient) => ("transient", Session::Transient, MESSAGES),
        Receiver::Confirms(Session::Persistent) => ("online", Session::Persistent, MESSAGES),
        Receiver::Sleeps => ("asleep", Session::Persistent, MESSAGES),
        Receiver::Silent => ("silent", Session::Persistent, MESSAGES_SILENT),
    };
    let topic = format!("latency/{name}");
    let (mut subscriber, _) = Peer::connect(broker, name, session).await?;
    subscriber.subscribe(&topic, QoS::AtLeastOnce).await?;
    let mut subscriber = if receiver == Receiver::Sleeps {
        subscriber.disconnect().await?;
        None
    } else {
        Some(subscriber)
    };
    let (mut publisher, _) = Peer::connect(broker, "publisher", Session::Transient).await?;
    let (mut acks, mut deliveries) = (Vec::new(), Vec::new());
    for seq in 0..count {
        publisher.publish(&topic, QoS::AtLeastOnce, seq, packet_id(seq));
        let clock = Instant::now();
        publisher.flush().await?;
        if let Some(subscriber) = &mut subscriber {
            let heard = subscriber.answer().await?;
            deliveries.push(clock.elapsed());
            if !matches!(heard, Heard::Publish { seq: other, .. } if other == seq) {
                return Err(format!("{heard:?} instead of message {seq}").into());
            }
            if receiver != Receiver::Silent {
                subscriber.confirm(heard);
                subscriber.flush().await?;
            }
        }
        let heard = publisher.answer().await?;
        acks.push(clock.elapsed());
        if heard != Heard::Puback(packet_id(seq)) {
            return Err(format!("{heard:?} instead of the PUBACK of message {seq}").into());
        }
    }
    publisher.disconnect().await?;
    Ok((percentiles(acks), percentiles(deliveries)))
}

fn percentiles(mut times: Vec<Duration>) -> Percentiles {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().map_or(f64::NAN, micros);
    Percentiles { median: at(50), p99: at(99) }
}
