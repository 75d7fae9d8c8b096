//! `[log]`: what is told on stderr, and how.

use serde::Serialize;

use super::{
    document::Section,
    value::{Choice, show_choice},
};

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least serious lines still written. Default `info`: a line per connection and its end.
    pub level: LogLevel,
    /// How a line looks. Default `auto`.
    pub format: LogFormat,
}

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawLog {
    level: &'static str,
    format: &'static str,
}

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken, and the broker cannot mend it.
    Error,
    /// Something is wrong, and the broker went on.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Every packet's name and size.
    Trace,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
    /// Human on a terminal, JSON elsewhere.
    Auto,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Auto }
    }
}

impl LogConfig {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.choice("level", &mut self.level);
        section.choice("format", &mut self.format);
    }
}

impl RawLog {
    pub(super) fn of(log: LogConfig) -> Self {
        Self { level: show_choice(log.level), format: show_choice(log.format) }
    }
}

impl Choice for LogLevel {
    const ALL: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] =
        &[("human", Self::Human), ("json", Self::Json), ("auto", Self::Auto)];
}
