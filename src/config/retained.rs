//! `[retained]`: the last message of a topic.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::{document::Section, value::show_size};
use crate::broker::Config;

const MESSAGES: RangeInclusive<usize> = 0..=10_000_000;
const BYTES: RangeInclusive<usize> = 0..=1 << 30;

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawRetained {
    messages_max: usize,
    bytes_max: String,
}

impl RawRetained {
    pub(super) fn of(broker: &Config) -> Self {
        Self {
            messages_max: broker.retained_messages_max,
            bytes_max: show_size(broker.retained_bytes_max).to_string(),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, broker: &mut Config) {
    section.count("messages_max", &mut broker.retained_messages_max, &MESSAGES);
    section.size("bytes_max", &mut broker.retained_bytes_max, &BYTES);
}
