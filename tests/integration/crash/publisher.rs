//! A publisher that keeps its session: what has not been confirmed is sent again, with its packet id, after each loss of
//! the connection.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dormouse::codec::{
    Ack, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, ReasonProperties, Version,
};

use super::{
    client,
    ledger::{Event, Ledger, Name, Progress},
    wire::Wire,
};

pub(crate) struct Publisher {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) address: Arc<Mutex<SocketAddr>>,
    pub(crate) ledger: Arc<Ledger>,
    /// Makes the journal big enough for compaction.
    pub(crate) padding_bytes: usize,
    /// The number of the last message; it may be lowered to one that was published long ago.
    pub(crate) goal: Arc<AtomicU64>,
    /// The highest number acknowledged so far.
    pub(crate) acknowledged: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Publish,
    Release,
}

struct InFlight {
    number: u64,
    stage: Stage,
}

impl InFlight {
    /// Packet ids are few and come round soon: one that the broker has not let go of would be noticed.
    fn id(&self) -> PacketId {
        PacketId::new(u16::try_from(self.number % IDS).unwrap() + 1).unwrap()
    }
}

/// Messages under way at once.
const WINDOW: u64 = 20;
const IDS: u64 = 2 * WINDOW;

impl Publisher {
    /// Runs until the goal is reached and everything is confirmed; goes on from where the ledger has it. Returns how many
    /// messages it published.
    pub(crate) fn run(self) -> u64 {
        self.run_until(|| false)
    }

    /// The same, but gives up when told so and not connected.
    pub(crate) fn run_until(self, gives_up: impl Fn() -> bool) -> u64 {
        let published = self.ledger.published(&self.name);
        let mut next = u64::try_from(published.len()).unwrap() + 1;
        let mut inflight: VecDeque<InFlight> = (1..)
            .zip(published)
            .filter_map(|(number, progress)| match progress {
                Progress::Sent => Some(InFlight { number, stage: Stage::Publish }),
                Progress::Acknowledged if self.qos == QoS::ExactlyOnce => {
                    Some(InFlight { number, stage: Stage::Release })
                }
                Progress::Acknowledged | Progress::Completed => None,
            })
            .collect();
        loop {
            let done = self.session(&mut inflight, &mut next);
            if matches!(done, Ok(true)) || gives_up() {
                return next - 1;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// One connection. `Ok(true)` when all is done.
    fn session(&self, inflight: &mut VecDeque<InFlight>, next: &mut u64) -> io::Result<bool> {
        let address = *self.address.lock().unwrap();
        let mut wire = Wire::connect(address, self.version)?;
        client::connect(&mut wire, &self.name, self.version, &self.ledger)?;
        for f in inflight.iter() {
            self.send(&mut wire, f, true)?;
        }
        let mut idle = 0;
        loop {
            while inflight.front().is_none_or(|first| *next < first.number + WINDOW)
                && *next <= self.goal.load(Ordering::Relaxed)
            {
                let f = InFlight { number: *next, stage: Stage::Publish };
                *next += 1;
                self.ledger.enter(Event::Sent { name: self.name_of(&f) });
                self.send(&mut wire, &f, false)?;
                inflight.push_back(f);
            }
            if inflight.is_empty() {
                return Ok(true);
            }
            let mut releases = Vec::new();
            let came = wire.receive(|packet| {
                self.handle(&packet, inflight, &mut releases);
                ControlFlow::Continue(())
            })?;
            let releases: Vec<Packet<'_>> = releases.into_iter().map(release).collect();
            wire.send(&releases)?;
            idle = if came { 0 } else { idle + 1 };
            assert!(idle < 1_000, "{}: no answer for 20 s", self.name);
        }
    }

    fn send(&self, wire: &mut Wire, f: &InFlight, dup: bool) -> io::Result<()> {
        let payload = format!("{} {} {}", self.name, f.number, "x".repeat(self.padding_bytes));
        wire.send(&[match f.stage {
            Stage::Publish => Packet::Publish(Publish {
                dup,
                qos: self.qos,
                retain: self.retain,
                topic: &self.topic,
                packet_id: Some(f.id()),
                properties: PublishProperties::default(),
                payload: payload.as_bytes(),
            }),
            Stage::Release => release(f.id()),
        }])
    }

    fn handle(&self, packet: &Packet<'_>, inflight: &mut VecDeque<InFlight>, releases: &mut Vec<PacketId>) {
        let (ack, stage) = match packet {
            Packet::Puback(ack) => (ack, None),
            Packet::Pubrec(ack) => (ack, Some(Stage::Release)),
            Packet::Pubcomp(ack) => {
                if let Some(i) = inflight.iter().position(|f| f.id() == ack.packet_id) {
                    self.completed(inflight, i);
                }
                return;
            }
            other => panic!("{}: did not expect {other:?}", self.name),
        };
        assert!(!ack.reason.is_error(), "{}: refused with {:?}", self.name, ack.reason);
        let Some(i) = inflight.iter().position(|f| f.id() == ack.packet_id) else { return };
        if inflight[i].stage == Stage::Publish {
            self.ledger.enter(Event::Acknowledged { name: self.name_of(&inflight[i]) });
        }
        self.acknowledged.fetch_max(inflight[i].number, Ordering::SeqCst);
        if let Some(stage) = stage {
            inflight[i].stage = stage;
            releases.push(ack.packet_id);
        } else {
            self.completed(inflight, i);
        }
    }

    fn completed(&self, inflight: &mut VecDeque<InFlight>, i: usize) {
        let done = inflight.remove(i).expect("it was found there");
        self.ledger.enter(Event::Completed { name: self.name_of(&done) });
    }

    fn name_of(&self, f: &InFlight) -> Name {
        (self.name.clone(), f.number)
    }
}

fn release(packet_id: PacketId) -> Packet<'static> {
    Packet::Pubrel(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() })
}
