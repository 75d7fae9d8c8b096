//! One run: a publisher, the broker, a subscriber, and a plan of what goes wrong at which packet.

use std::collections::BTreeMap;

use super::devices::{Device, Publisher, Subscriber, Wire};
use crate::{
    broker::tests::{Client, World, connect, v311},
    codec::{Connect, QoS, Version},
    sync::lock,
};

/// What happens to a packet, and with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not arrive, and its connection is gone.
    Lost,
    /// It arrives, and then its connection is gone, before the disk has done anything about it.
    ArrivedThenLost,
    /// The client connects anew, unnoticed by the broker; a packet to the broker arrives late, on the old connection.
    TakenOver,
    /// The same, but the packet arrives first.
    ArrivedThenTakenOver,
    /// It does not arrive, and the broker loses its power.
    PowerCut,
    /// It arrives, and the broker loses its power before it has committed anything.
    ArrivedThenPowerCut,
    /// It arrives, and the power goes while the broker commits; of what was not synced nothing is left.
    CommitLost,
    /// The same, and all of it is left.
    CommitKept,
}

pub(super) const FAULTS: [Fault; 8] = [
    Fault::Lost,
    Fault::ArrivedThenLost,
    Fault::TakenOver,
    Fault::ArrivedThenTakenOver,
    Fault::PowerCut,
    Fault::ArrivedThenPowerCut,
    Fault::CommitLost,
    Fault::CommitKept,
];

impl Fault {
    fn arrives(self) -> bool {
        !matches!(self, Self::Lost | Self::TakenOver | Self::PowerCut)
    }
}

/// When the disk works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// After every packet.
    Quick,
    /// Only when nothing else can go on.
    Slow,
}

/// What is played.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) version: Version,
    /// The messages' QoS, in order.
    pub(super) published: Vec<QoS>,
    /// Granted to the subscriber.
    pub(super) granted: QoS,
    /// How many messages the publisher sends before it has answers.
    pub(super) window: usize,
    pub(super) disk: Disk,
}

/// Faults by the number of the packet, ascending. Packets are counted in both directions, CONNECT and CONNACK of later
/// connections included.
pub(super) type Plan = Vec<(usize, Fault)>;

const PUBLISHER: usize = 0;
const SUBSCRIBER: usize = 1;
/// Rounds of a run in which something moves; far more than any plan needs.
const ROUNDS_MAX: usize = 400;

struct End {
    device: Device,
    client: Option<Client>,
    greeted: bool,
    /// A connection given up by the client and not yet by the broker, and what is still on its way there.
    ghost: Option<(Client, Option<Wire>)>,
}

pub(super) struct Scene<'a> {
    setting: &'a Setting,
    plan: &'a Plan,
    world: World,
    ends: [End; 2],
    packets: usize,
    /// How often each message came to the broker.
    arrivals: BTreeMap<String, usize>,
}

/// Plays it to its end, judges it, and says how many packets there were.
pub(super) fn play(setting: &Setting, plan: &Plan) -> usize {
    let mut scene = Scene::new(setting, plan);
    scene.play();
    scene.judge();
    scene.packets
}

fn hello(version: Version, who: usize) -> Connect<'static> {
    let client_id = if who == PUBLISHER { "pub" } else { "sub" };
    if version == Version::V5 { connect(client_id) } else { v311(client_id) }
}

impl<'a> Scene<'a> {
    fn new(setting: &'a Setting, plan: &'a Plan) -> Self {
        let world = World::new();
        let subscriber = world.subscriber(&hello(setting.version, SUBSCRIBER), "t", setting.granted);
        let publisher = world.joined(&hello(setting.version, PUBLISHER), false);
        let messages = setting.published.iter().enumerate().map(|(n, qos)| (*qos, n.to_string())).collect();
        let end = |device, client| End { device, client: Some(client), greeted: true, ghost: None };
        let publishing = Device::Publisher(Publisher::new(messages, setting.window));
        let ends = [end(publishing, publisher), end(Device::Subscriber(Subscriber::default()), subscriber)];
        Self { setting, plan, world, ends, packets: 0, arrivals: BTreeMap::new() }
    }

    fn play(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let before = self.packets;
            for who in [PUBLISHER, SUBSCRIBER] {
                self.turn(who);
            }
            if self.packets > before {
                continue;
            }
            self.world.settle();
            (PUBLISHER..=SUBSCRIBER).for_each(|who| self.listen(who));
            if self.packets > before {
                continue;
            }
            if self.is_done() {
                return;
            }
            // What is held back for a subscriber that is slow has its time.
            self.world.pass(101);
        }
        panic!("stuck: {:?} {:?} {:?}", self.setting, self.plan, self.ends.each_ref().map(|e| &e.device));
    }

    fn is_done(&self) -> bool {
        self.ends.iter().all(|end| {
            end.greeted
                && match &end.device {
                    Device::Publisher(p) => p.is_done(),
                    Device::Subscriber(s) => s.is_done(),
                }
        })
    }

    /// The client does what it can.
    fn turn(&mut self, who: usize) {
        if self.ends[who].client.is_none() {
            self.carry(who, Wire::Connect);
        }
        self.listen(who);
        while self.ends[who].greeted
            && let Some(wire) = self.ends[who].device.next()
        {
            self.carry(who, wire);
        }
    }

    fn fault(&mut self) -> Option<Fault> {
        let n = self.packets;
        self.packets += 1;
        self.plan.iter().find(|(at, _)| *at == n).map(|(_, fault)| *fault)
    }

    fn carry(&mut self, who: usize, wire: Wire) {
        let fault = self.fault();
        if fault.is_none_or(Fault::arrives) {
            self.arrive(who, &wire);
            if fault.is_none() && self.setting.disk == Disk::Quick {
                self.world.settle();
            }
        }
        if let Some(fault) = fault {
            let late = (!fault.arrives() && wire != Wire::Connect).then_some(wire);
            self.strike(who, fault, late);
        }
    }

    fn arrive(&mut self, who: usize, wire: &Wire) {
        if let Wire::Publish { body, .. } = wire {
            *self.arrivals.entry(body.clone()).or_default() += 1;
        }
        if *wire != Wire::Connect {
            let client = self.ends[who].client.as_mut().expect("connected");
            wire.send_on(client);
            return;
        }
        let client = self.world.join(&hello(self.setting.version, who));
        let end = &mut self.ends[who];
        end.client = Some(client);
        if let Some((mut ghost, late)) = end.ghost.take() {
            // Nothing of it may count any more.
            if let Some(wire) = late {
                wire.send_on(&mut ghost);
            }
            let last = Wire::read(&ghost.heard_bytes(), self.setting.version).pop();
            assert!(ghost.closing, "the connection of before is not ended");
            // Section 3.1.4, if it had its CONNACK.
            let told = matches!(last, Some(Wire::Disconnect(0x8e)));
            assert!(told || last.is_none() || !self.setting.version.is_v5(), "{last:?}");
            ghost.lose();
        }
    }

    /// The client takes what the broker has sent it.
    fn listen(&mut self, who: usize) {
        let Some(client) = &mut self.ends[who].client else { return };
        let wires = Wire::read(&client.heard_bytes(), self.setting.version);
        for wire in wires {
            let fault = self.fault();
            if fault.is_none_or(Fault::arrives) {
                let end = &mut self.ends[who];
                end.greeted |= matches!(wire, Wire::Connack { .. });
                end.device.hear(&wire);
            }
            if let Some(fault) = fault {
                // The packets behind it are lost with it.
                return self.strike(who, fault, None);
            }
        }
    }

    fn strike(&mut self, who: usize, fault: Fault, late: Option<Wire>) {
        match fault {
            Fault::Lost | Fault::ArrivedThenLost => {
                if let Some(client) = self.disconnect(who) {
                    client.lose();
                }
            }
            Fault::TakenOver | Fault::ArrivedThenTakenOver => {
                let client = self.disconnect(who);
                if let Some(client) = client {
                    self.ends[who].ghost = Some((client, late));
                }
            }
            Fault::PowerCut | Fault::ArrivedThenPowerCut => self.cut(KEEPS_THE_FIRST),
            Fault::CommitLost | Fault::CommitKept => {
                // The frames are written, and the sync fails.
                self.world.disk.fail_after(1);
                self.world.settle();
                self.cut(if fault == Fault::CommitKept { KEEPS_THE_FIRST } else { LOSES_THE_FIRST });
            }
        }
    }

    fn disconnect(&mut self, who: usize) -> Option<Client> {
        let end = &mut self.ends[who];
        end.greeted = false;
        end.device.disconnected();
        end.client.take()
    }

    fn cut(&mut self, seed: u64) {
        for who in [PUBLISHER, SUBSCRIBER] {
            drop(self.disconnect(who));
            self.ends[who].ghost = None;
        }
        self.world.cut(seed);
    }

    fn judge(&mut self) {
        let Device::Subscriber(subscriber) = &self.ends[SUBSCRIBER].device else { return };
        self.judge_delivery(subscriber);
        self.judge_ids();
        // After the next commit not even a crash brings anything back.
        self.world.pass(2_000);
        self.world.settle();
        self.judge_ids();
        self.cut(KEEPS_THE_FIRST);
        for who in [PUBLISHER, SUBSCRIBER] {
            let mut client = self.world.join(&hello(self.setting.version, who));
            self.world.settle();
            assert_eq!(client.heard(), ["CONNACK 1"], "{:?} {:?}", self.setting, self.plan);
        }
        self.judge_ids();
    }

    /// In order, the copies of QoS 1 left aside. QoS 2: each once. QoS 1: each, as one message of the broker's for each time
    /// it came there at most. No message is sent more often than something went wrong, and once.
    fn judge_delivery(&self, subscriber: &Subscriber) {
        let Self { setting, plan, .. } = self;
        let taken = &subscriber.taken;
        let what = || format!("{setting:?} {plan:?} {taken:?}");
        let mut firsts: Vec<&String> = Vec::new();
        for body in taken {
            if !firsts.contains(&body) {
                firsts.push(body);
            }
        }
        let wanted: Vec<String> = (0..setting.published.len()).map(|n| n.to_string()).collect();
        assert!(firsts.iter().copied().eq(wanted.iter()), "{}", what());
        for (body, qos) in wanted.iter().zip(&setting.published) {
            let sent = subscriber.sent(body);
            assert!(
                sent.iter().all(|times| *times <= 1 + plan.len()),
                "{body} was sent {sent:?}: {}",
                what()
            );
            let (came, taken) = (self.arrivals[body], taken.iter().filter(|b| *b == body).count());
            // Granted QoS 1 it may be sent before its commit, and come anew after a power cut.
            if *qos == QoS::ExactlyOnce && setting.granted == QoS::ExactlyOnce {
                assert_eq!((taken, sent.len()), (1, 1), "{body}: {}", what());
            }
            assert!(sent.len() <= came, "{body} came {came} times, became {sent:?}: {}", what());
        }
    }

    /// No packet id is held, in either direction.
    fn judge_ids(&self) {
        for client_id in ["pub", "sub"] {
            let slot =
                lock(&self.world.broker.registry).by_client_id(client_id).expect("its session is there");
            let state = slot.state();
            let held = (state.session.inbound.len(), state.session.outbound.received().len());
            let waiting = state.session.outbound.unconfirmed().count();
            let backlog = state.session.outbound.has_backlog();
            let what = format!("{client_id} {:?} {:?}", self.setting, self.plan);
            assert_eq!((held, waiting, backlog), ((0, 0), 0, false), "{what}");
        }
    }
}

/// Seeds of [`SimDisk::cut`](crate::store::medium::sim::SimDisk::cut), by what it does to a commit of one frame.
const KEEPS_THE_FIRST: u64 = 1;
const LOSES_THE_FIRST: u64 = 129;
