//! How far a long run is: on stderr, on a terminal one line that changes, elsewhere (if asked for) a line for each tenth.

use std::io::{self, IsTerminal, Write};

/// The line.
#[derive(Debug)]
pub(super) struct Line {
    what: &'static str,
    shown: Shown,
    percent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Not,
    Changing,
    Lines,
}

impl Line {
    /// Nothing is shown unless this is a terminal or it was asked for.
    pub(super) fn new(what: &'static str, asked_for: bool) -> Self {
        let shown = match (io::stderr().is_terminal(), asked_for) {
            (true, _) => Shown::Changing,
            (false, true) => Shown::Lines,
            (false, false) => Shown::Not,
        };
        Self { what, shown, percent: 0 }
    }

    /// So many steps of all are done.
    pub(super) fn show(&mut self, done: u64, of: u64) {
        let percent = (done * 100).checked_div(of).unwrap_or(100);
        let step = if self.shown == Shown::Lines { 10 } else { 1 };
        if self.shown == Shown::Not || percent / step == self.percent / step {
            return;
        }
        self.percent = percent;
        let mut err = io::stderr().lock();
        // Somebody who does not look is no reason to stop.
        let _ = match self.shown {
            Shown::Changing if percent < 100 => write!(err, "\r{}: {percent} %", self.what),
            Shown::Changing => write!(err, "\r\x1b[K"),
            Shown::Lines | Shown::Not => writeln!(err, "{}: {percent} %", self.what),
        };
        let _ = err.flush();
    }
}
