//! `[retained]`: the last message of a topic.

use std::ops::RangeInclusive;

use super::document::Section;
use crate::broker::Config;

const MESSAGES: RangeInclusive<usize> = 0..=10_000_000;
const BYTES: RangeInclusive<usize> = 0..=1 << 30;

pub(super) fn read(section: &mut Section<'_>, broker: &mut Config) {
    section.count("messages_max", &mut broker.retained_messages_max, &MESSAGES);
    section.size("bytes_max", &mut broker.retained_bytes_max, &BYTES);
}
