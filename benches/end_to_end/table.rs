//! Medians of the rounds, as Markdown.

use std::fmt::Write as _;

use crate::{
    Columns, Result,
    args::{Case, Scenario},
    broker::Kind,
    disk::SyncLatency,
    picture::Picture,
};

/// The rounds of the scenario that runs.
pub(crate) struct Report {
    /// Which brokers these are.
    versions: String,
    rows: Vec<Row>,
    disk: Vec<SyncLatency>,
    wrong: u32,
    /// The curves of the scenarios that were finished.
    pub(crate) picture: Picture,
}

struct Row {
    kind: Kind,
    case: Case,
    /// Of each round that was right: the columns and their values.
    rounds: Vec<Columns>,
    wrong: u32,
}

impl Report {
    pub(crate) fn new(versions: String) -> Self {
        Self { versions, rows: Vec::new(), disk: Vec::new(), wrong: 0, picture: Picture::default() }
    }

    /// A round. One that was wrong is counted as such, and nothing else of it.
    pub(crate) fn add(&mut self, scenario: Scenario, case: Case, kind: Kind, outcome: Result<Columns>) {
        let is_it = |row: &Row| row.kind == kind && row.case == case;
        let at = self.rows.iter().position(is_it).unwrap_or_else(|| {
            self.rows.push(Row { kind, case, rounds: Vec::new(), wrong: 0 });
            self.rows.len() - 1
        });
        let Some(row) = self.rows.get_mut(at) else { return };
        match outcome {
            Ok(values) => row.rounds.push(values),
            Err(error) => {
                eprintln!("  WRONG: {}, {}{case}: {error}", scenario.title(), kind.name());
                row.wrong += 1;
                self.wrong += 1;
            }
        }
    }

    /// What the disk did between the rounds.
    pub(crate) fn add_disk(&mut self, latency: SyncLatency) {
        self.disk.push(latency);
    }

    /// Rounds that were wrong so far.
    pub(crate) fn wrong(&self) -> u32 {
        self.wrong
    }

    /// The table of the scenario; the next one begins.
    pub(crate) fn finish(&mut self, scenario: Scenario) -> String {
        let rows = std::mem::take(&mut self.rows);
        let disk = std::mem::take(&mut self.disk);
        let mut text = format!("\n**{}**\n\n", scenario.title());
        if let Some(columns) = rows.iter().find_map(|row| row.rounds.first()) {
            text.push_str("| broker |");
            for (name, _) in columns {
                let _ = write!(text, " {name} |");
            }
            text.push_str(" right/wrong rounds |\n|---|");
            text.push_str(&"---:|".repeat(columns.len() + 1));
            text.push('\n');
        }
        for row in &rows {
            let _ = write!(text, "| {}{} |", row.kind.name(), row.case);
            for (name, value) in row.medians() {
                let _ = write!(text, " {} |", shown(value));
                if let Case::Size(size) = row.case {
                    self.picture.add(scenario, row.kind, name, size, value);
                }
            }
            let _ = writeln!(text, " {}/{} |", row.rounds.len(), row.wrong);
        }
        let _ = writeln!(text, "\n{}", self.versions);
        if !disk.is_empty() {
            let append = median(disk.iter().map(|sync| sync.append).collect());
            let overwrite = median(disk.iter().map(|sync| sync.overwrite).collect());
            let _ = writeln!(
                text,
                "\nThe disk between the rounds: 4 KiB and `fdatasync` take {append:.0} us at the end of a growing file, \
                 {overwrite:.0} us within one (medians)."
            );
        }
        text
    }
}

impl Row {
    /// Of each column.
    fn medians(&self) -> impl Iterator<Item = (&str, f64)> {
        let names = self.rounds.first().into_iter().flatten().map(|(name, _)| name.as_str());
        names.enumerate().map(|(column, name)| {
            let of_round = |round: &Columns| round.get(column).map(|(_, value)| *value);
            (name, median(self.rounds.iter().filter_map(of_round).collect()))
        })
    }
}

/// The middle one; of an even number the lower.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits are all that can be told apart.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "-".into(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
