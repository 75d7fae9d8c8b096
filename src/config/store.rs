//! `[store]`: the data folder and the journal in it.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{document::Section, value::Choice};
use crate::store::{Config, Durability};

const ELISION_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);
/// None: then every message is written.
const HELD_BYTES: RangeInclusive<usize> = 0..=1 << 30;
const DONE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const GENERATION_BYTES: RangeInclusive<usize> = 1 << 20..=1 << 30;
const BACKLOG_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;

pub(super) fn read(section: &mut Section<'_>, path: &mut PathBuf, store: &mut Config) {
    section.path("path", path);
    section.choice("durability", &mut store.durability);
    section.duration("elision_wait_max", &mut store.elision_wait_max, &ELISION_WAIT);
    section.size("held_bytes_max", &mut store.held_bytes_max, &HELD_BYTES);
    section.duration("done_interval", &mut store.done_interval, &DONE_INTERVAL);
    section.size("generation_bytes", &mut store.generation_bytes, &GENERATION_BYTES);
    section.size("backlog_bytes_max", &mut store.backlog_bytes_max, &BACKLOG_BYTES);
}

impl Choice for Durability {
    const ALL: &'static [(&'static str, Self)] =
        &[("power", Self::Power), ("process", Self::Process), ("relaxed", Self::Relaxed)];
}
