//! A client that subscribes and unsubscribes, ends its session and begins another, and the look at what is left of it.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
};

use dormouse::codec::{Packet, Publish, PublishProperties, QoS, Version};

use super::{
    chance::Chance,
    session::{self, Kept, Start},
    steps::Steps,
};
use crate::crash::wire::Wire;

const NAME: &str = "changer";
const FILTERS: u64 = 6;
/// A topic of its own, by which a look is known to be complete.
const END: u64 = FILTERS;

/// The subscriptions of its session, if it has one that is kept.
pub(super) type Session = Option<BTreeSet<u64>>;

enum Step {
    Subscribe(u64),
    Unsubscribe(u64),
    /// A new connection to what is there: a session, or a new one if there is none.
    Resume,
    /// A new session in place of the old.
    StartOver,
    /// A session that does not outlive its connection in place of the old.
    End,
}

fn step(seed: u64, no: u64, session: &Session) -> Step {
    let mut chance = Chance::new(seed ^ no);
    let filter = chance.below(FILTERS);
    match (session, chance.below(12)) {
        (None, _) | (_, 0) => Step::Resume,
        (_, 1) => Step::StartOver,
        (_, 2) => Step::End,
        (_, 3..8) => Step::Subscribe(filter),
        _ => Step::Unsubscribe(filter),
    }
}

fn apply(step: &Step, session: &mut Session) {
    match step {
        Step::Subscribe(filter) => drop(session.as_mut().map(|filters| filters.insert(*filter))),
        Step::Unsubscribe(filter) => drop(session.as_mut().map(|filters| filters.remove(filter))),
        Step::Resume => drop(session.get_or_insert_default()),
        Step::StartOver => *session = Some(BTreeSet::new()),
        Step::End => *session = None,
    }
}

/// Its session after so many steps.
fn session_after(seed: u64, steps: u64) -> Session {
    let mut session = None;
    for no in 1..=steps {
        apply(&step(seed, no, &session), &mut session);
    }
    session
}

/// The sessions that may be found after any of these numbers of steps, the last of which may be under way.
pub(super) fn possible(seed: u64, steps: &RangeInclusive<u64>) -> Vec<Session> {
    let mut possible: Vec<Session> = steps.clone().map(|steps| session_after(seed, steps)).collect();
    let is_under_way = steps.start() < steps.end();
    if is_under_way && matches!(step(seed, *steps.end(), &possible[0]), Step::StartOver) {
        // The old session has ended, as was asked for, and nothing was said of the new one yet.
        possible.push(None);
    }
    possible
}

/// Takes steps until told to stop.
pub(super) fn run(address: SocketAddr, seed: u64, steps: &Steps, stop: &AtomicBool) -> io::Result<()> {
    let mut session: Session = None;
    let mut wire = Wire::connect(address, Version::V5)?;
    while !stop.load(Ordering::Relaxed) {
        let next = step(seed, steps.begun() + 1, &session);
        steps.begin();
        match &next {
            Step::Subscribe(filter) => {
                wire.send(&[session::subscribe(&topic(*filter))])?;
                session::wait(&mut wire, |packet| matches!(packet, Packet::Suback(_)).then_some(()))?;
            }
            Step::Unsubscribe(filter) => {
                wire.send(&[session::unsubscribe(&topic(*filter))])?;
                session::wait(&mut wire, |packet| matches!(packet, Packet::Unsuback(_)).then_some(()))?;
            }
            Step::Resume | Step::StartOver | Step::End => {
                let start = if matches!(next, Step::Resume) { Start::Resume } else { Start::Clean };
                let kept = if matches!(next, Step::End) { Kept::No } else { Kept::Yes };
                wire = Wire::connect(address, Version::V5)?;
                let present = session::connect(&mut wire, NAME, start, kept, None)?;
                assert_eq!(present, start == Start::Resume && session.is_some());
            }
        }
        steps.acknowledged();
        apply(&next, &mut session);
    }
    Ok(())
}

/// What is there of it.
pub(super) fn look(address: SocketAddr) -> io::Result<Session> {
    let mut wire = Wire::connect(address, Version::V5)?;
    let present = session::connect(&mut wire, NAME, Start::Resume, Kept::Yes, None)?;
    wire.send(&[session::subscribe(&topic(END))])?;
    session::wait(&mut wire, |packet| matches!(packet, Packet::Suback(_)).then_some(()))?;
    // Each comes to those who have subscribed to it; the last one to this client for sure.
    let topics: Vec<String> = (0..=END).map(topic).collect();
    let probes: Vec<Packet<'_>> = topics.iter().map(|topic| probe(topic)).collect();
    wire.send(&probes)?;
    let mut filters = BTreeSet::new();
    session::wait(&mut wire, |packet| {
        let Packet::Publish(publish) = packet else { return None };
        let filter = publish.topic.rsplit('/').next()?.parse().ok()?;
        if filter == END {
            return Some(());
        }
        filters.insert(filter);
        None
    })?;
    assert!(present || filters.is_empty(), "a new session has subscriptions: {filters:?}");
    Ok(present.then_some(filters))
}

fn topic(filter: u64) -> String {
    format!("change/{filter}")
}

fn probe(topic: &str) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"probe",
    })
}
