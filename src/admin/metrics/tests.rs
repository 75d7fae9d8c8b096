//! The names: as documented, and as Prometheus wants them.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{families::snake, *};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->";

/// The name as it is shown and asked for.
fn full_name(family: &Family) -> String {
    let mut name = family.name.to_owned();
    if let Some(unit) = &family.unit {
        let _ = write!(name, "_{}", unit.as_str());
    }
    match family.samples {
        Samples::Counters(_) => name + "_total",
        Samples::Info(_) => name + "_info",
        Samples::Gauges(_) | Samples::Histogram(..) => name,
    }
}

fn table() -> String {
    let mut table = "| metric | type | labels | what it is |\n|---|---|---|---|\n".to_owned();
    for family in families(&Reading::default()) {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = family.kind();
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        let _ = writeln!(table, "| `{}` | {kind} | {labels} | {} |", full_name(&family), family.help);
    }
    table
}

/// `DORMOUSE_WRITE_DOCS=1` writes it instead.
#[test]
fn the_list_in_the_documentation_is_up_to_date() {
    let (before, rest) = DOCUMENT.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os("DORMOUSE_WRITE_DOCS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == table,
        "docs/metrics.md is out of date: DORMOUSE_WRITE_DOCS=1 cargo test admin::metrics"
    );
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for family in families(&Reading::default()) {
        let name = full_name(&family);
        assert!(name.starts_with("dormouse_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        for suffix in ["_total", "_count", "_sum", "_bucket", "_info"] {
            assert!(!family.name.ends_with(suffix), "{name}");
        }
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
    assert!(names.len() > 50, "{names:?}");
}

#[test]
fn reason_codes_are_shown_as_words() {
    assert_eq!(snake("QuotaExceeded"), "quota_exceeded");
    assert_eq!(snake("UnsupportedProtocolVersion"), "unsupported_protocol_version");
}

#[test]
fn a_histogram_is_cumulative_and_in_seconds() {
    let histogram = HistogramReading { bounds: &[500, 1_000_000], counts: vec![2, 3, 1], sum: 7_000_000 };
    let mut reading = Reading::default();
    reading.broker.store.sync_micros = histogram;
    let text = Page::write(reading).unwrap();
    for line in [
        "# TYPE dormouse_journal_sync_duration_seconds histogram",
        "# UNIT dormouse_journal_sync_duration_seconds seconds",
        "dormouse_journal_sync_duration_seconds_bucket{le=\"0.0005\"} 2",
        "dormouse_journal_sync_duration_seconds_bucket{le=\"1.0\"} 5",
        "dormouse_journal_sync_duration_seconds_bucket{le=\"+Inf\"} 6",
        "dormouse_journal_sync_duration_seconds_count 6",
        "dormouse_journal_sync_duration_seconds_sum 7.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// A label's value may be anything a user calls a listener.
#[test]
fn labels_are_escaped() {
    let mut reading = Reading::default();
    reading.listeners.push(("unix:///run/a\"b\\c".into(), "unix", CounterReading::default()));
    let text = Page::write(reading).unwrap();
    assert!(text.contains(r#"{listener="unix:///run/a\"b\\c",transport="unix"}"#), "{text}");
}
