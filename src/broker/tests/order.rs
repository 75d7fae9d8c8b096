//! Order: what one publisher sends to one topic with one quality of service reaches each subscriber in that order,
//! through queue, live, reconnect, takeover, small windows and power cuts.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Client, World, connect, id, puback, pubcomp, publish, pubrec, pubrel, qos0, receiving, subscribe, v311,
};
use crate::{
    broker::Config,
    codec::{Packet, Publish, QoS, Version, decode},
};

const TOPICS: [&str; 2] = ["t/0", "t/1"];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// With `queue_qos0`, what is live stands behind what waited.
#[test]
fn live_qos_0_does_not_overtake_what_waited() {
    let world = World::with(Config { queue_qos0: true, ..Config::default() });
    let mut publisher = world.joined(&connect("pub"), false);
    world.subscriber(&receiving(connect("dev"), 1), "#", QoS::AtLeastOnce).lose();
    publisher.send(&super::qos1(1, "a", "1"));
    publisher.send(&super::qos1(2, "a", "2"));
    publisher.send(&qos0("a", "3"));
    world.settle();
    let mut dev = world.joined(&receiving(connect("dev"), 1), true);
    assert_eq!(dev.heard(), Vec::<String>::new());
    publisher.send(&qos0("a", "4"));
    world.settle();
    let heard = dev.heard();
    assert_eq!(heard, ["PUBLISH q1 #1 a=1"]);
    dev.send(&puback(1));
    world.settle();
    assert_eq!(dev.heard(), ["PUBLISH q1 #2 a=2", "PUBLISH q0 a=3", "PUBLISH q0 a=4"]);
    publisher.send(&qos0("a", "5"));
    assert_eq!(dev.heard(), ["PUBLISH q0 a=5"]);
}

/// Section 4.6 of both standards, with its clients keeping their part of it.
#[test]
fn order_holds_per_publisher_topic_and_qos() {
    for seed in 0..80 {
        Trial::new(seed).run();
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Keeps what is not acknowledged, and sends it again in order when it comes back (section 4.6).
struct Publisher {
    name: &'static str,
    client: Option<Client>,
    next_id: u16,
    /// By packet id, in order; `None` when PUBREL is on its way.
    open: VecDeque<(u16, Option<Sent>)>,
    counts: BTreeMap<(usize, usize), u32>,
}

/// Quality of service, topic, payload.
type Sent = (QoS, &'static str, String);

/// Acknowledges in order, late at times, and judges.
struct Subscriber {
    name: &'static str,
    old: bool,
    qos: QoS,
    client: Option<Client>,
    owed: VecDeque<Packet<'static>>,
    /// QoS 2 packet ids received and not released.
    known: BTreeMap<u16, String>,
    last: BTreeMap<String, Seen>,
}

/// How far a stream has come.
#[derive(Debug, Default)]
struct Seen {
    highest: u32,
    current: u32,
    restarts: u32,
}

struct Trial {
    world: World,
    seed: u64,
    chance: Chance,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// How often anybody has come back, and may have sent or been sent again what was not acknowledged.
    returns: u32,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let config = Config { queue_qos0: seed.is_multiple_of(2), inflight_max: 4, ..Config::default() };
        let publisher = |name| Publisher {
            name,
            client: None,
            next_id: 1,
            open: VecDeque::new(),
            counts: BTreeMap::new(),
        };
        let subscriber = |name, old, qos| Subscriber {
            name,
            old,
            qos,
            client: None,
            owed: VecDeque::new(),
            known: BTreeMap::new(),
            last: BTreeMap::new(),
        };
        Self {
            world: World::with(config),
            seed,
            chance: Chance(seed * 104_729 + 7),
            publishers: ["p0", "p1"].map(publisher).into(),
            subscribers: vec![
                subscriber("s0", false, QoS::ExactlyOnce),
                subscriber("s1", true, QoS::ExactlyOnce),
                subscriber("s2", false, QoS::AtLeastOnce),
            ],
            returns: 0,
        }
    }

    fn run(&mut self) {
        (0..3).for_each(|s| self.wake(s));
        for _ in 0..250 {
            let (p, s) = (self.chance.below(2), self.chance.below(3));
            match self.chance.below(24) {
                0..=9 => self.publish(p),
                10 => self.leave_publisher(p),
                // Also a takeover: the former connection is still there.
                11..=12 => self.wake(s),
                13 => self.sleep(s),
                14..=17 => self.listen(s),
                18..=19 => self.answer(s),
                20 => self.hear(p),
                21 => self.world.pass(150),
                22 if self.chance.one_in(4) => self.cut(),
                _ => self.world.settle(),
            }
        }
        for _ in 0..40 {
            (0..2).for_each(|p| self.publish(p));
            for s in 0..3 {
                if self.subscribers[s].client.is_none() {
                    self.wake(s);
                }
            }
            for _ in 0..6 {
                self.world.settle();
                (0..3).for_each(|s| self.listen(s));
                while self.subscribers.iter().any(|s| !s.owed.is_empty()) {
                    (0..3).for_each(|s| self.answer(s));
                }
                (0..2).for_each(|p| self.hear(p));
            }
        }
        // The judge has seen what it is to judge: the last QoS 1 and 2 of every stream came.
        for publisher in &self.publishers {
            for ((topic, qos), count) in publisher.counts.iter().filter(|((_, qos), _)| *qos > 0) {
                let stream = format!("{}/{topic}/{qos}", publisher.name);
                for subscriber in &self.subscribers {
                    let last = subscriber.last.get(&stream).map_or(0, |seen| seen.highest);
                    assert!(last + 20 >= *count, "seed {}: {stream} at {last} of {count}", self.seed);
                }
            }
        }
    }

    fn publish(&mut self, p: usize) {
        let (topic, qos) = (self.chance.below(2), self.chance.below(3));
        let retain = self.chance.one_in(8);
        let publisher = &mut self.publishers[p];
        if publisher.client.is_none() {
            self.returns += 1;
            let client = self.world.join(&connect(publisher.name));
            publisher.client = Some(client);
            self.world.settle();
            publisher.again();
        }
        if publisher.open.len() > 15 {
            return;
        }
        let count = publisher.counts.entry((topic, qos)).or_default();
        *count += 1;
        let payload = format!("{}/{topic}/{qos} {count}", publisher.name);
        let packet_id = publisher.next_id;
        if qos > 0 {
            publisher.next_id += 1;
            publisher.open.push_back((packet_id, Some((QOS[qos], TOPICS[topic], payload.clone()))));
        }
        let packet = Publish { retain, ..publish(QOS[qos], packet_id, TOPICS[topic], &payload) };
        publisher.send(&Packet::Publish(packet));
    }

    fn leave_publisher(&mut self, p: usize) {
        if let Some(client) = self.publishers[p].client.take() {
            client.lose();
        }
    }

    fn hear(&mut self, p: usize) {
        self.publishers[p].hear();
    }

    fn wake(&mut self, s: usize) {
        let window = 1 + u16::try_from(self.chance.below(5)).unwrap();
        let asks = self.subscribers[s].last.is_empty() || self.chance.one_in(3);
        self.returns += 1;
        let subscriber = &mut self.subscribers[s];
        let connect =
            if subscriber.old { v311(subscriber.name) } else { receiving(connect(subscriber.name), window) };
        subscriber.owed.clear();
        let client = self.world.join(&connect);
        // The old connection's driver learns of it only now.
        drop(subscriber.client.replace(client));
        if asks {
            let client = subscriber.client.as_mut().unwrap();
            client.send(&subscribe("t/#", subscriber.qos));
        }
        // The first subscription is there for good.
        if self.subscribers[s].last.is_empty() || self.chance.one_in(2) {
            self.world.settle();
        }
    }

    fn sleep(&mut self, s: usize) {
        self.subscribers[s].owed.clear();
        if let Some(client) = self.subscribers[s].client.take() {
            client.lose();
        }
    }

    fn listen(&mut self, s: usize) {
        let (seed, returns) = (self.seed, self.returns);
        self.subscribers[s].listen(seed, returns);
    }

    fn answer(&mut self, s: usize) {
        let subscriber = &mut self.subscribers[s];
        if let (Some(client), Some(packet)) = (subscriber.client.as_mut(), subscriber.owed.pop_front()) {
            client.send(&packet);
        }
    }

    fn cut(&mut self) {
        for publisher in &mut self.publishers {
            drop(publisher.client.take());
        }
        for subscriber in &mut self.subscribers {
            subscriber.owed.clear();
            drop(subscriber.client.take());
        }
        let seed = u64::try_from(self.chance.below(1 << 20)).unwrap();
        self.world.cut(seed);
    }
}

impl Publisher {
    fn send(&mut self, packet: &Packet<'_>) {
        if let Some(client) = self.client.as_mut() {
            client.send(packet);
        }
    }

    fn again(&mut self) {
        for (packet_id, message) in self.open.clone() {
            match message {
                Some((qos, topic, payload)) => {
                    let packet = publish(qos, packet_id, topic, &payload);
                    self.send(&Packet::Publish(Publish { dup: true, ..packet }));
                }
                None => self.send(&pubrel(packet_id)),
            }
        }
    }

    fn hear(&mut self) {
        let Some(client) = self.client.as_mut() else { return };
        for line in client.heard() {
            let mut words = line.split(' ');
            let (kind, n) = (words.next().unwrap(), words.next().and_then(|n| n.parse::<u16>().ok()));
            match (kind, n) {
                ("PUBACK" | "PUBCOMP", Some(n)) => self.open.retain(|(id, _)| *id != n),
                ("PUBREC", Some(n)) => {
                    if let Some((_, message)) = self.open.iter_mut().find(|(id, _)| *id == n) {
                        *message = None;
                    }
                    self.send(&pubrel(n));
                }
                _ => {}
            }
        }
    }
}

impl Subscriber {
    fn listen(&mut self, seed: u64, returns: u32) {
        let Some(client) = self.client.as_mut() else { return };
        let bytes = client.heard_bytes();
        let version = if self.old { Version::V311 } else { Version::V5 };
        let mut rest = bytes.as_slice();
        while let Some((packet, used)) = decode(rest, version, 1 << 20).unwrap() {
            rest = &rest[used..];
            match packet {
                Packet::Publish(p) => self.take(&p, seed, returns),
                Packet::Pubrel(ack) => {
                    self.known.remove(&ack.packet_id.get());
                    self.owed.push_back(pubcomp(ack.packet_id.get()));
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, p: &Publish<'_>, seed: u64, returns: u32) {
        let payload = std::str::from_utf8(p.payload).unwrap().to_owned();
        let (stream, count) = payload.split_once(' ').unwrap();
        let count: u32 = count.parse().unwrap();
        if let Some(packet_id) = p.packet_id {
            let n = id(packet_id.get());
            if p.qos == QoS::ExactlyOnce {
                self.owed.push_back(pubrec(n.get()));
                if self.known.insert(n.get(), payload.clone()).as_ref() == Some(&payload) {
                    assert!(p.dup, "seed {seed}: {payload}");
                    return;
                }
            } else {
                self.owed.push_back(puback(n.get()));
            }
        }
        // What the topic has retained stands beside the stream.
        if p.retain {
            return;
        }
        let so_far = self.last.entry(stream.to_owned()).or_default();
        let who = format!("seed {seed}: {} got {stream} {count} after {so_far:?}", self.name);
        if count > so_far.highest {
            // Persistent sessions miss nothing from their first message on.
            let follows = so_far.highest == 0 || count == so_far.highest + 1 || stream.ends_with("/0");
            assert!(follows, "{who}");
            so_far.highest = count;
        }
        if count <= so_far.current {
            // Somebody sent again what was not acknowledged, from there on and in order.
            so_far.restarts += 1;
            assert!(p.qos == QoS::AtLeastOnce && so_far.restarts <= returns, "{who}");
        }
        so_far.current = count;
    }
}
