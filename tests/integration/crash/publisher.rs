//! A publisher that keeps its session: what has not been confirmed is sent again, with its packet id, after each loss of
//! the connection.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dormouse::codec::{
    Ack, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, ReasonProperties, Version,
};

use super::{client, ledger::Ledger, wire::Wire};

pub(super) struct Publisher {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) topic: String,
    pub(super) address: Arc<Mutex<SocketAddr>>,
    pub(super) ledger: Arc<Ledger>,
    /// No new messages; finish what is under way.
    pub(super) finish: Arc<AtomicBool>,
    /// The highest number acknowledged so far.
    pub(super) acknowledged: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Publish,
    Release,
}

struct InFlight {
    id: PacketId,
    number: u64,
    stage: Stage,
}

/// Makes the journal big enough for compaction.
const PADDING_BYTES: usize = 400;
/// Messages under way at once.
const WINDOW: usize = 20;

impl Publisher {
    /// Runs until told to finish and everything is confirmed. Returns how many messages it published.
    pub(super) fn run(self) -> u64 {
        let mut inflight = VecDeque::new();
        let mut next = 1;
        let mut known = false;
        loop {
            let done = self.session(&mut inflight, &mut next, &mut known);
            if matches!(done, Ok(true)) {
                return next - 1;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// One connection. `Ok(true)` when all is done.
    fn session(
        &self,
        inflight: &mut VecDeque<InFlight>,
        next: &mut u64,
        known: &mut bool,
    ) -> io::Result<bool> {
        let address = *self.address.lock().unwrap();
        let mut wire = Wire::connect(address, self.version)?;
        let present = client::connect(&mut wire, &self.name, self.version)?;
        if *known && !present {
            self.ledger.broken(format!("{}: the session is gone", self.name));
        }
        *known = true;
        for f in inflight.iter() {
            self.send(&mut wire, f, true)?;
        }
        let mut idle = 0;
        loop {
            while inflight.len() < WINDOW && !self.finish.load(Ordering::Relaxed) {
                let id = u16::try_from(*next % 65_535 + 1).unwrap();
                let f = InFlight { id: PacketId::new(id).unwrap(), number: *next, stage: Stage::Publish };
                *next += 1;
                inflight.push_back(f);
                self.send(&mut wire, inflight.back().unwrap(), false)?;
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
        let payload = format!("{} {} {}", self.name, f.number, "x".repeat(PADDING_BYTES));
        wire.send(&[match f.stage {
            Stage::Publish => Packet::Publish(Publish {
                dup,
                qos: self.qos,
                retain: self.retain,
                topic: &self.topic,
                packet_id: Some(f.id),
                properties: PublishProperties::default(),
                payload: payload.as_bytes(),
            }),
            Stage::Release => release(f.id),
        }])
    }

    fn handle(&self, packet: &Packet<'_>, inflight: &mut VecDeque<InFlight>, releases: &mut Vec<PacketId>) {
        let (ack, stage) = match packet {
            Packet::Puback(ack) => (ack, None),
            Packet::Pubrec(ack) => (ack, Some(Stage::Release)),
            Packet::Pubcomp(ack) => {
                inflight.retain(|f| f.id != ack.packet_id);
                return;
            }
            other => panic!("{}: did not expect {other:?}", self.name),
        };
        assert!(!ack.reason.is_error(), "{}: refused with {:?}", self.name, ack.reason);
        let Some(i) = inflight.iter().position(|f| f.id == ack.packet_id) else { return };
        self.ledger.acknowledge(&self.name, inflight[i].number);
        self.acknowledged.fetch_max(inflight[i].number, Ordering::SeqCst);
        if let Some(stage) = stage {
            inflight[i].stage = stage;
            releases.push(ack.packet_id);
        } else {
            inflight.remove(i);
        }
    }
}

fn release(packet_id: PacketId) -> Packet<'static> {
    Packet::Pubrel(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() })
}
