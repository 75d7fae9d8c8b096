//! `[shutdown]`: how the broker ends.

use std::{ops::RangeInclusive, time::Duration};

use serde::Serialize;

use super::{document::Section, value::show_duration};

const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);

/// How the broker ends.
#[derive(Clone, Debug, PartialEq)]
pub struct ShutdownConfig {
    /// How long clients have, after SIGTERM or SIGINT, to take their DISCONNECT before their connections are cut. Default
    /// 4 s: with the second that ending the rest and closing the journal may take, the broker is gone within 5 s; service
    /// managers kill after 10 s.
    pub grace: Duration,
}

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawShutdown {
    grace: String,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(4) }
    }
}

impl ShutdownConfig {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.duration("grace", &mut self.grace, &GRACE);
    }
}

impl RawShutdown {
    pub(super) fn of(shutdown: &ShutdownConfig) -> Self {
        Self { grace: show_duration(shutdown.grace).to_string() }
    }
}
