//! A client that sets and clears retained messages, and the look at what is retained.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use dormouse::codec::{Packet, PacketId, Publish, PublishProperties, QoS, Version};

use super::{
    chance::Chance,
    session::{self, Kept, Start},
    steps::Steps,
};
use crate::crash::wire::Wire;

/// What is retained, by topic.
pub(super) type Values = BTreeMap<String, u64>;

const TOPICS: u64 = 4;

/// The topic of a step, and whether it sets it.
fn step(seed: u64, no: u64) -> (String, bool) {
    let mut chance = Chance::new(seed ^ no);
    (format!("state/{}", chance.below(TOPICS)), chance.below(3) > 0)
}

/// What is retained after so many steps.
pub(super) fn values(seed: u64, steps: u64) -> Values {
    let mut values = Values::new();
    for no in 1..=steps {
        match step(seed, no) {
            (topic, true) => values.insert(topic, no),
            (topic, false) => values.remove(&topic),
        };
    }
    values
}

/// Takes steps until told to stop.
pub(super) fn run(address: SocketAddr, seed: u64, steps: &Steps, stop: &AtomicBool) -> io::Result<()> {
    let mut wire = Wire::connect(address, Version::V5)?;
    session::connect(&mut wire, "retainer", Start::Clean, Kept::No, None)?;
    while !stop.load(Ordering::Relaxed) {
        let no = steps.begun() + 1;
        let (topic, sets) = step(seed, no);
        steps.begin();
        let payload = if sets { no.to_string() } else { String::new() };
        wire.send(&[Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: &topic,
            packet_id: PacketId::new(1),
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        })])?;
        session::wait(&mut wire, |packet| match packet {
            Packet::Puback(ack) => {
                assert!(!ack.reason.is_error(), "{ack:?}");
                Some(())
            }
            _ => None,
        })?;
        steps.acknowledged();
    }
    Ok(())
}

/// What a new client is told to be retained.
pub(super) fn look(address: SocketAddr) -> io::Result<Values> {
    let mut wire = Wire::connect(address, Version::V5)?;
    session::connect(&mut wire, "looks-at-retained", Start::Clean, Kept::No, None)?;
    let mut values = Values::new();
    // Answers may overtake what the subscription brings, but not by more than one.
    for question in [session::subscribe("state/#"), Packet::Pingreq, Packet::Pingreq] {
        wire.send(&[question])?;
        session::wait(&mut wire, |packet| match packet {
            Packet::Publish(publish) => {
                let value = std::str::from_utf8(publish.payload).unwrap().parse().unwrap();
                values.insert(publish.topic.to_owned(), value);
                None
            }
            Packet::Suback(_) | Packet::Pingresp => Some(()),
            _ => None,
        })?;
    }
    Ok(values)
}
