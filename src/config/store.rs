//! `[store]`: the journal.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{document::Section, value::Choice};
use crate::store::Durability;

const ELISION_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);
const DONE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const GENERATION_BYTES: RangeInclusive<usize> = 1 << 20..=1 << 30;
const BACKLOG_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;

/// Where and how messages are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// The data folder, made when missing. Default `./data`: a first try needs no rights anywhere else.
    pub path: PathBuf,
    /// What an acknowledgement promises. Default `power`: it survives a power cut, for which the broker exists.
    pub durability: Durability,
    /// How long a message whose receivers are all online may wait for their confirmations before it is written;
    /// its publisher's acknowledgement waits as long. 0 ms to 1 s, default 100 ms: longer than a round trip on a
    /// bad link, short enough for a person not to notice. 0 writes every message.
    pub elision_wait_max: Duration,
    /// How long a confirmation may wait for a commit to ride on before it gets one of its own. 10 ms to 60 s, default
    /// 1 s: what is lost with it in a crash costs one duplicate, never a message.
    pub done_interval: Duration,
    /// The size at which the journal starts its next generation, in bytes. 1 MiB to 1 GiB, default 16 MiB: space is
    /// given back by whole generations, so this is about what may lie idle.
    pub generation_bytes: usize,
    /// Bytes waiting for the disk beyond which publishers are slowed down. 64 KiB to 1 GiB, default 16 MiB: some
    /// seconds of an SD card's writing.
    pub backlog_bytes_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./data"),
            durability: Durability::Power,
            elision_wait_max: Duration::from_millis(100),
            done_interval: Duration::from_secs(1),
            generation_bytes: 16 << 20,
            backlog_bytes_max: 16 << 20,
        }
    }
}

impl StoreConfig {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.path("path", &mut self.path);
        section.choice("durability", &mut self.durability);
        section.duration("elision_wait_max", &mut self.elision_wait_max, &ELISION_WAIT);
        section.duration("done_interval", &mut self.done_interval, &DONE_INTERVAL);
        section.size("generation_bytes", &mut self.generation_bytes, &GENERATION_BYTES);
        section.size("backlog_bytes_max", &mut self.backlog_bytes_max, &BACKLOG_BYTES);
    }
}

impl Choice for Durability {
    const ALL: &'static [(&'static str, Self)] =
        &[("power", Self::Power), ("process", Self::Process), ("relaxed", Self::Relaxed)];
}
