//! Any sequence of packets and bytes on several connections, of time steps, lost connections, takeovers, failing disks and
//! power cuts, against the whole broker below the sockets.
//!
//! Nothing panics and nothing hangs; what a connection holds stays within its bounds; every reply can be decoded, fits
//! its client and answers something that was asked, in its order; what was acknowledged to its publisher reaches every
//! session that was promised it, after power cuts too; a QoS 2 message reaches a session once.

mod ledger;
mod packets;
mod peer;
mod world;

use dormouse::{
    broker::{CloseReason, Config},
    session::{Overflow, QueueLimits},
};

use self::{ledger::Ledger, peer::Peer, world::World};
use super::input::Input;

const PEERS: usize = 4;
const OPS_MAX: usize = 250;

/// A broker, its clients, and what they were promised.
pub struct Run {
    pub world: World,
    pub ledger: Ledger,
    peers: [Option<Peer>; PEERS],
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let small = input.once_in(4);
    let config = if small { small_config(&mut input) } else { Config::default() };
    let mut run = Run::new(config, !small, false);
    run.steps(&mut input);
    run.end(&mut input);
}

/// Bounds that are reached soon.
fn small_config(input: &mut Input<'_>) -> Config {
    Config {
        sessions_max: 1 + input.below(4),
        inflight_max: 1 + input.pick(&[0, 1, 5]),
        queue: QueueLimits {
            messages_max: 1 + input.below(5),
            bytes_max: 1_000,
            overflow: Overflow::DropOldest,
        },
        queue_qos0: input.once_in(2),
        retained_messages_max: 2,
        retained_bytes_max: 600,
        packet_bytes_max: 500,
        keep_alive_max: input.once_in(2).then_some(10),
        client_id_bytes_max: 16,
        topic_alias_max: 2,
        receive_maximum: 3,
        out_bytes_max: 700,
        subscriptions_max: 3,
        ..Config::default()
    }
}

impl Run {
    /// `judges`: the bounds are so wide that nothing may be dropped for them. `is_sealed`: the store is.
    pub fn new(config: Config, judges: bool, is_sealed: bool) -> Self {
        Self { world: World::new(config, is_sealed), ledger: Ledger::new(judges), peers: Default::default() }
    }

    /// Does what the input says.
    pub fn steps(&mut self, input: &mut Input<'_>) {
        for _ in 0..OPS_MAX {
            if input.is_empty() {
                break;
            }
            self.step(input);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let at = input.below(PEERS);
        match input.below(16) {
            0..=8 => self.send(at, input),
            9 => self.close(at, CloseReason::Lost),
            10 => self.close(at, input.pick(&[CloseReason::KeepAliveTimeout, CloseReason::SlowReader])),
            11 => self.world.pass(input.pick(&[1, 50, 101, 1_000, 10_000, 100_000])),
            12 => self.world.step(),
            13 => self.world.settle(),
            14 => {
                if let Some(peer) = &mut self.peers[at] {
                    peer.is_reading = !peer.is_reading;
                }
            }
            _ => match input.below(4) {
                0 => self.cut(u64::from(input.u16()), input.once_in(4)),
                1 => self.world.fail_after(u64::from(input.byte() % 8)),
                2 => self.peers[at] = None,
                _ => {}
            },
        }
        self.listen();
    }

    /// Bytes on a connection, on a new one if there is none.
    fn send(&mut self, at: usize, input: &mut Input<'_>) {
        let peer = self.peers[at].get_or_insert_with(Peer::new);
        let bytes = packets::any(peer, &mut self.ledger, input);
        // Partly now and partly later, too.
        let cut = if input.once_in(8) { input.below(bytes.len() + 1) } else { bytes.len() };
        for part in [&bytes[..cut], &bytes[cut..]] {
            if !peer.send(part, &self.world, &mut self.ledger) {
                self.close(at, CloseReason::Closed);
                return;
            }
        }
    }

    /// Every client takes what there is for it.
    fn listen(&mut self) {
        for at in 0..PEERS {
            let Some(peer) = &mut self.peers[at] else { continue };
            if peer.is_reading && !peer.listen(&self.world, &mut self.ledger) {
                self.close(at, CloseReason::Closed);
            }
        }
    }

    fn close(&mut self, at: usize, reason: CloseReason) {
        if let Some(peer) = self.peers[at].take() {
            peer.close(reason, &self.world);
        }
    }

    fn cut(&mut self, seed: u64, kill: bool) {
        self.drop_peers();
        self.world.cut(seed, kill);
    }

    pub fn drop_peers(&mut self) {
        self.peers = Default::default();
    }

    /// Whoever still waits for an answer gets it; then the power goes once more, and what is owed is delivered.
    fn end(&mut self, input: &mut Input<'_>) {
        if !self.world.is_failing {
            self.quiet();
            for peer in self.peers.iter().flatten() {
                peer.owes_nothing_but_input(&self.world);
            }
        }
        self.cut(u64::from(input.byte()), false);
        for client_id in self.ledger.owing() {
            self.fetch_all(&client_id);
            self.ledger.judge(&client_id);
        }
        self.world.broker.begin_shutdown(self.world.now());
        self.peers.iter_mut().flatten().for_each(|peer| peer.is_reading = true);
        self.listen();
        self.peers = Default::default();
        self.world.broker.close();
    }

    /// A client comes back and takes everything there is for it.
    pub fn fetch_all(&mut self, client_id: &str) {
        self.peers[0] = Some(Peer::new());
        let mut bytes = packets::hello(client_id);
        while let Some(peer) = &mut self.peers[0]
            && !bytes.is_empty()
        {
            assert!(peer.send(&bytes, &self.world, &mut self.ledger), "{client_id} is not let in");
            self.quiet();
            bytes = self.peers[0].as_ref().map(packets::acknowledge_all).unwrap_or_default();
        }
        self.close(0, CloseReason::Lost);
    }

    fn quiet(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            peer.is_reading = true;
        }
        for _ in 0..4 {
            self.world.settle();
            self.listen();
            self.world.pass(101);
        }
    }
}
