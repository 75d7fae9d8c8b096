//! `[retained]`: the last message of a topic.

use std::ops::RangeInclusive;

use super::document::Section;

const MESSAGES: RangeInclusive<usize> = 0..=10_000_000;
const BYTES: RangeInclusive<usize> = 0..=1 << 30;

/// Bounds on retained messages.
#[derive(Clone, Debug, PartialEq)]
pub struct RetainedConfig {
    /// Retained messages, beyond which a new topic's is refused. 0 to 10,000,000, default 100,000.
    pub messages_max: usize,
    /// Bytes of retained messages, beyond which a new one is refused; they are held in memory. Up to 1 GiB, default
    /// 64 MiB: what a gateway with 512 MiB can spare.
    pub bytes_max: usize,
}

impl Default for RetainedConfig {
    fn default() -> Self {
        Self { messages_max: 100_000, bytes_max: 64 << 20 }
    }
}

impl RetainedConfig {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.count("messages_max", &mut self.messages_max, &MESSAGES);
        section.size("bytes_max", &mut self.bytes_max, &BYTES);
    }
}
