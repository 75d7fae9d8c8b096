//! QoS 2 by a shared subscription, in worlds that lose connections, sessions and power by a seed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Client, World, connect, pubcomp, pubrec, pubrel, qos2, receiving, subscribe, unsubscribe},
    GROUP, held,
};
use crate::{
    broker::Config,
    codec::{Connect, Packet, QoS, Version, decode},
};

/// Three members of all kinds, a publisher of QoS 2, and everything that can go wrong: each message that was answered
/// reaches the members' applications once, and none twice.
#[test]
fn qos_2_by_a_group_is_neither_lost_nor_doubled_whatever_ends_and_crashes() {
    for seed in 0..100 {
        Trial::new(seed).run();
    }
}

struct Trial {
    world: World,
    chance: Chance,
    seed: u64,
    members: Vec<Member>,
    publisher: Option<Client>,
    /// Packet ids of messages without PUBREC; the payload is the id.
    open: BTreeSet<u16>,
    next: u16,
    received: BTreeMap<u16, u32>,
    /// Messages that the broker counted as given up, or that were in memory only when the power went.
    given_up: u64,
    /// Everybody answers from now on.
    calm: bool,
}

struct Member {
    name: &'static str,
    client: Option<Client>,
    /// Messages received and not released, by packet id: what a client remembers across connections.
    known: BTreeMap<u16, u16>,
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        let member = |name| Member { name, client: None, known: BTreeMap::new() };
        let config = Config { inflight_max: 2, ..Config::default() };
        Self {
            world: World::with(config),
            chance: Chance(seed * 7_919 + 1),
            seed,
            members: ["m0", "m1", "m2"].map(member).into(),
            publisher: None,
            open: BTreeSet::new(),
            next: 1,
            received: BTreeMap::new(),
            given_up: 0,
            calm: false,
        }
    }

    fn run(&mut self) {
        // One member stays for ever: what nobody else has, it gets.
        self.wake(0, false);
        for _ in 0..150 {
            let m = usize::try_from(self.chance.below(3)).unwrap();
            match self.chance.below(20) {
                0..=6 => self.publish(),
                7..=8 => self.wake(m, false),
                9 if m != 0 => self.wake(m, true),
                10 => self.sleep(m),
                11 if m != 0 => self.unsubscribe(m),
                12..=13 => self.world.settle(),
                14..=16 => self.listen(m),
                17 => self.world.pass(200),
                18 if self.chance.below(3) == 0 => self.cut(),
                _ => self.answers(),
            }
        }
        self.calm = true;
        for _ in 0..6 {
            for m in 0..3 {
                self.wake(m, false);
            }
            for _ in 0..60 {
                self.world.settle();
                self.answers();
                (0..3).for_each(|m| self.listen(m));
            }
        }
        self.given_up += self.world.broker.drops.total();
        let times = |n: u16| self.received.get(&n).copied().unwrap_or(0);
        let twice: Vec<u16> = (1..self.next).filter(|n| times(*n) > 1).collect();
        assert!(twice.is_empty(), "seed {}: {twice:?} came twice", self.seed);
        let lost: Vec<u16> = (1..self.next).filter(|n| times(*n) == 0).collect();
        assert!(lost.len() as u64 <= self.given_up, "seed {}: {lost:?} of {}", self.seed, self.given_up);
    }

    /// In every other trial the last member's session ends with its connection.
    fn is_transient(&self, m: usize) -> bool {
        m == 2 && !self.seed.is_multiple_of(2)
    }

    fn publish(&mut self) {
        if self.publisher.is_none() {
            self.publisher = Some(self.world.join(&connect("pub")));
            self.world.settle();
            // All that has no answer comes again, under its id.
            let open: Vec<u16> = self.open.iter().copied().collect();
            for n in open {
                let Packet::Publish(p) = qos2(n, "a", "") else { unreachable!() };
                let payload = n.to_string();
                let again = crate::codec::Publish { dup: true, payload: payload.as_bytes(), ..p };
                self.send(&Packet::Publish(again));
            }
        }
        let n = self.next;
        self.next += 1;
        self.open.insert(n);
        self.send(&qos2(n, "a", &n.to_string()));
    }

    fn send(&mut self, packet: &Packet<'_>) {
        if let Some(publisher) = self.publisher.as_mut() {
            publisher.send(packet);
        }
    }

    fn answers(&mut self) {
        if self.publisher.is_none() {
            self.publish();
        }
        let Some(publisher) = self.publisher.as_mut() else { return };
        for line in publisher.heard() {
            let mut words = line.split(' ');
            if words.next() == Some("PUBREC") {
                let n: u16 = words.next().unwrap().parse().unwrap();
                self.open.remove(&n);
                self.send(&pubrel(n));
            }
        }
    }

    fn wake(&mut self, m: usize, clean_start: bool) {
        let name = self.members[m].name;
        let window = receiving(connect(name), 2);
        let mut connect = Connect { clean_start, ..window };
        if self.is_transient(m) {
            connect.properties.session_expiry = None;
        }
        self.forget(m, clean_start || self.is_transient(m));
        let client = self.world.join(&connect);
        self.members[m].client = Some(client);
        self.world.settle();
        let client = self.members[m].client.as_mut().unwrap();
        client.send(&subscribe(GROUP, QoS::ExactlyOnce));
        self.world.settle();
        self.listen(m);
    }

    /// The client's connection ends, and its session too.
    fn forget(&mut self, m: usize, session_ends: bool) {
        let member = &mut self.members[m];
        if let Some(client) = member.client.take() {
            client.lose();
        }
        if session_ends {
            member.known.clear();
            // What was in a transient member's memory is on another one's disk only then.
            self.world.settle();
        }
    }

    fn sleep(&mut self, m: usize) {
        self.forget(m, self.is_transient(m));
    }

    fn unsubscribe(&mut self, m: usize) {
        if let Some(client) = self.members[m].client.as_mut() {
            client.send(&unsubscribe(GROUP));
        }
        if self.is_transient(m) {
            self.world.settle();
        }
    }

    /// A client reads what has come; it stays silent at times.
    fn listen(&mut self, m: usize) {
        let silent = !self.calm && self.chance.below(4) == 0;
        let Some(client) = self.members[m].client.as_mut() else { return };
        let bytes = client.heard_bytes();
        let (mut rest, mut answers) = (bytes.as_slice(), Vec::new());
        let member = &mut self.members[m];
        while let Some((packet, used)) = decode(rest, Version::V5, 1 << 20).unwrap() {
            rest = &rest[used..];
            match packet {
                Packet::Publish(p) => {
                    let n: u16 = std::str::from_utf8(p.payload).unwrap().parse().unwrap();
                    let packet_id = p.packet_id.unwrap().get();
                    if silent {
                        continue;
                    }
                    if member.known.insert(packet_id, n) != Some(n) {
                        *self.received.entry(n).or_default() += 1;
                    }
                    answers.push(pubrec(packet_id));
                }
                Packet::Pubrel(ack) => {
                    member.known.remove(&ack.packet_id.get());
                    answers.push(pubcomp(ack.packet_id.get()));
                }
                _ => {}
            }
        }
        for answer in answers {
            if let Some(client) = self.members[m].client.as_mut() {
                client.send(&answer);
            }
        }
    }

    fn cut(&mut self) {
        self.given_up += self.world.broker.drops.total();
        if self.is_transient(2) && self.members[2].client.is_some() {
            self.given_up += held(&self.world, "m2") as u64;
        }
        drop(self.publisher.take());
        for m in 0..3 {
            drop(self.members[m].client.take());
        }
        if self.is_transient(2) {
            self.members[2].known.clear();
        }
        let seed = self.chance.below(1 << 20);
        self.world.cut(seed);
    }
}
