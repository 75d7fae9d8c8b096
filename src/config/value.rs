//! How values are written: durations and sizes with their unit, choices by name.

use std::{fmt, time::Duration};

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A value chosen from a fixed list by name.
pub(super) trait Choice: Copy + 'static {
    /// Every name with its value, in the order in which messages list them.
    const ALL: &'static [(&'static str, Self)];
}

/// Parses `"500ms"`, `"10s"`, `"5m"`, `"2h"`, `"30d"`. None for anything else, and beyond 2^64 ms.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse_with_unit(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Parses `"16MiB"`, `"64KiB"`, `"512B"` into bytes. None for anything else, and beyond `usize`.
pub(super) fn parse_size(text: &str) -> Option<usize> {
    parse_with_unit(text, &SIZE_UNITS).and_then(|bytes| usize::try_from(bytes).ok())
}

/// Parses one of the names of `T`; the error lists them.
pub(super) fn parse_choice<T: Choice>(text: &str) -> Result<T, String> {
    let found = T::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = T::ALL.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("use {}", one_of(&names))
    })
}

/// Writes a duration as a configuration file would: `30d`, `100ms`.
pub(super) fn show_duration(duration: Duration) -> impl fmt::Display {
    show_with_unit(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Writes a size as a configuration file would: `16MiB`, `100B`.
pub(super) fn show_size(bytes: impl TryInto<u64>) -> impl fmt::Display {
    show_with_unit(bytes.try_into().unwrap_or(u64::MAX), &SIZE_UNITS)
}

/// The name of a choice.
pub(super) fn show_choice<T: Choice + PartialEq>(choice: T) -> &'static str {
    T::ALL.iter().find(|(_, value)| *value == choice).map(|(name, _)| *name).unwrap_or_default()
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The name in `known` that `written` was probably meant to be.
pub(super) fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = |name: &&str| {
        let distance = edit_distance(written, name);
        (distance <= 1 + name.len().min(written.len()) / 4).then_some(distance)
    };
    known.iter().filter_map(|name| near(name).map(|d| (d, *name))).min().map(|(_, name)| name)
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show_with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && value >= *factor;
    match units.iter().filter(fits).max_by_key(|(_, factor)| *factor) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => units
            .iter()
            .min_by_key(|(_, f)| *f)
            .map_or(value.to_string(), |(name, _)| format!("{value}{name}")),
    }
}

/// Levenshtein's distance, row by row.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (diagonal + usize::from(from != to)).min(left + 1).min(*above + 1);
            diagonal = *above;
            *above = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_written_with_their_unit() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("30d", 2_592_000_000)]
        {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(ms));
            assert_eq!(show_duration(duration).to_string(), text);
        }
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("16MiB", 16 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(show_size(bytes).to_string(), text);
        }
        assert_eq!(show_duration(Duration::ZERO).to_string(), "0ms");
        for bad in [
            "",
            "s",
            "5",
            "5 s",
            "-5s",
            "5S",
            "1.5s",
            "99999999999999999999d",
            "18446744073709551615d",
            "5sä",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for bad in ["16MB", "16 MiB", "16", "MiB", "1e3B"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_closest_name_is_found_and_a_far_one_is_not() {
        let known = ["listeners", "limits", "log", "store"];
        assert_eq!(closest("lisener", &known), Some("listeners"));
        assert_eq!(closest("Store", &known), Some("store"));
        assert_eq!(closest("plugins", &known), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
