//! What the broker counts as it happens, but for what is given up (`Drops`).
//!
//! What happens per message is summed up per batch of packets and per write, and added to cells that each thread has for
//! itself; what is rare has one counter.

use std::{collections::BTreeMap, sync::Mutex};

use super::stats::Traffic;
use crate::{
    codec::ReasonCode,
    session::Tally,
    sync::lock,
    telemetry::{Counter, Sharded},
};

/// The counters of one broker.
#[derive(Debug, Default)]
pub(super) struct Counters {
    received: Sharded<5>,
    sent: Sharded<5>,
    /// Connections that got a CONNACK with success.
    accepted: Counter,
    /// By reason code, of which there are few.
    refused: Mutex<BTreeMap<u8, u64>>,
    /// Publishes of which nothing could be kept, because the retained messages are full.
    pub(super) retained_full: Counter,
    /// The same, because the disk is full.
    pub(super) disk_full: Counter,
    /// The same, because the store has failed.
    pub(super) store_failed: Counter,
}

impl Counters {
    pub(super) fn received(&self, traffic: &Traffic) {
        self.received.add(cells(traffic));
    }

    /// `bytes` that hold what is in `tally` go to the network.
    pub(super) fn sent(&self, tally: Tally, bytes: usize) {
        let Tally { packets, messages } = tally;
        let messages = messages.map(u64::from);
        self.sent.add(cells(&Traffic { packets: u64::from(packets), bytes: bytes as u64, messages }));
    }

    pub(super) fn accepted(&self) {
        self.accepted.count();
    }

    pub(super) fn refused(&self, reason: ReasonCode) {
        *lock(&self.refused).entry(u8::from(reason)).or_default() += 1;
    }

    pub(super) fn received_so_far(&self) -> Traffic {
        traffic(self.received.totals())
    }

    pub(super) fn sent_so_far(&self) -> Traffic {
        traffic(self.sent.totals())
    }

    pub(super) fn accepted_so_far(&self) -> u64 {
        self.accepted.total()
    }

    pub(super) fn refused_so_far(&self) -> Vec<(ReasonCode, u64)> {
        let refused = lock(&self.refused);
        refused.iter().filter_map(|(code, times)| Some((ReasonCode::try_from(*code).ok()?, *times))).collect()
    }
}

fn cells(traffic: &Traffic) -> [u64; 5] {
    let [qos0, qos1, qos2] = traffic.messages;
    [traffic.packets, traffic.bytes, qos0, qos1, qos2]
}

fn traffic([packets, bytes, qos0, qos1, qos2]: [u64; 5]) -> Traffic {
    Traffic { packets, bytes, messages: [qos0, qos1, qos2] }
}
