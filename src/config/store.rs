//! `[store]`: the data folder and the journal in it.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    document::Section,
    value::{Choice, show_choice, show_duration, show_size},
};
use crate::store::{Compression, Config, Durability, KeySource};

const ELISION_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);
/// None: then every message is written.
const HELD_BYTES: RangeInclusive<usize> = 0..=1 << 30;
const COMMIT_INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);
const DONE_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const GENERATION_BYTES: RangeInclusive<usize> = 1 << 20..=1 << 30;
/// Sixteen generations of the smallest size: four are the reserve.
const DISK_BYTES: RangeInclusive<usize> = 16 << 20..=SIZE_MAX;
/// A generation has a quarter of it at most, and no less than a MiB.
const RESERVE_BYTES: RangeInclusive<usize> = 4 << 20..=SIZE_MAX;
/// A PiB.
const SIZE_MAX: usize = 1 << 50;
const BACKLOG_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawStore<'c> {
    path: &'c Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<&'c Path>,
    durability: &'static str,
    compression: &'static str,
    elision_wait_max: String,
    held_bytes_max: String,
    commit_interval_max: String,
    done_interval: String,
    generation_bytes: String,
    backlog_bytes_max: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_disk_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_reserve: Option<String>,
}

impl<'c> RawStore<'c> {
    pub(super) fn of(path: &'c Path, store: &'c Config) -> Self {
        Self {
            path,
            key_file: match &store.key {
                KeySource::File(path) => Some(path),
                // What a variable gave is not for a file.
                KeySource::None | KeySource::Given(_) => None,
            },
            durability: show_choice(store.durability),
            compression: show_choice(store.compression),
            elision_wait_max: show_duration(store.elision_wait_max).to_string(),
            held_bytes_max: show_size(store.held_bytes_max).to_string(),
            commit_interval_max: show_duration(store.commit_interval_max).to_string(),
            done_interval: show_duration(store.done_interval).to_string(),
            generation_bytes: show_size(store.generation_bytes).to_string(),
            backlog_bytes_max: show_size(store.backlog_bytes_max).to_string(),
            max_disk_bytes: store.disk_bytes_max.map(|bytes| show_size(bytes).to_string()),
            disk_reserve: store.disk_reserve_bytes.map(|bytes| show_size(bytes).to_string()),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, path: &mut PathBuf, store: &mut Config) {
    section.path("path", path);
    if let Some(file) = section.optional_path("key_file") {
        store.key = KeySource::File(file);
    }
    section.choice("durability", &mut store.durability);
    section.choice("compression", &mut store.compression);
    section.duration("elision_wait_max", &mut store.elision_wait_max, &ELISION_WAIT);
    section.size("held_bytes_max", &mut store.held_bytes_max, &HELD_BYTES);
    section.duration("commit_interval_max", &mut store.commit_interval_max, &COMMIT_INTERVAL);
    section.duration("done_interval", &mut store.done_interval, &DONE_INTERVAL);
    section.size("generation_bytes", &mut store.generation_bytes, &GENERATION_BYTES);
    section.size("backlog_bytes_max", &mut store.backlog_bytes_max, &BACKLOG_BYTES);
    section.optional_size("max_disk_bytes", &mut store.disk_bytes_max, &DISK_BYTES);
    section.optional_size("disk_reserve", &mut store.disk_reserve_bytes, &RESERVE_BYTES);
}

impl Choice for Compression {
    const ALL: &'static [(&'static str, Self)] = &[("none", Self::None), ("lz4", Self::Lz4)];
}

impl Choice for Durability {
    const ALL: &'static [(&'static str, Self)] =
        &[("power", Self::Power), ("process", Self::Process), ("relaxed", Self::Relaxed)];
}
