//! A strict reader of the `OpenMetrics` text format, as far as the broker writes it: it refuses what Prometheus would, and
//! some of what Prometheus would let pass.

use std::collections::{BTreeMap, BTreeSet};

type Labels = Vec<(String, String)>;

/// A scrape that was well-formed.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    samples: BTreeMap<(String, Labels), f64>,
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    has_help: bool,
}

impl Exposition {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut exposition = Self::default();
        let (mut seen, mut family) = (BTreeSet::new(), Family::default());
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end in # EOF")?;
        if !body.is_empty() && !body.ends_with('\n') {
            return Err("the last line is cut".to_owned());
        }
        for line in body.lines() {
            let at = |why: &str| format!("{why}: {line:?}");
            if let Some(comment) = line.strip_prefix("# ") {
                let (word, rest) = comment.split_once(' ').ok_or_else(|| at("no keyword"))?;
                let (name, value) = rest.split_once(' ').ok_or_else(|| at("no name"))?;
                if name != family.name {
                    exposition.check_histogram(&family)?;
                    if !seen.insert(name.to_owned()) {
                        return Err(at("a family comes twice"));
                    }
                    family = Family { name: name.to_owned(), ..Family::default() };
                }
                match word {
                    "HELP" => family.has_help = !value.is_empty(),
                    "TYPE" => value.clone_into(&mut family.kind),
                    "UNIT" => family.unit = Some(value.to_owned()),
                    _ => return Err(at("an unknown keyword")),
                }
                continue;
            }
            let (name, labels, value) = sample(line).ok_or_else(|| at("not a sample"))?;
            family.admits(&name, &labels, value).map_err(|why| at(&why))?;
            if exposition.samples.insert((name, labels), value).is_some() {
                return Err(at("a sample comes twice"));
            }
        }
        exposition.check_histogram(&family)?;
        Ok(exposition)
    }

    /// The sample with exactly these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let key = (name.to_owned(), labels);
        *self.samples.get(&key).unwrap_or_else(|| panic!("there is no {key:?} in {:#?}", self.samples))
    }

    /// Buckets rise with their bounds, and the last is the count.
    fn check_histogram(&self, family: &Family) -> Result<(), String> {
        if family.kind != "histogram" {
            return Ok(());
        }
        let bucket = format!("{}_bucket", family.name);
        let bound = |labels: &Labels| match labels.first().map(|(key, bound)| (key.as_str(), bound.as_str()))
        {
            Some(("le", "+Inf")) => Some(f64::INFINITY),
            Some(("le", bound)) => bound.parse::<f64>().ok(),
            _ => None,
        };
        let buckets = self.samples.iter().filter(|((name, _), _)| *name == bucket);
        let mut buckets: Vec<(Option<f64>, f64)> =
            buckets.map(|((_, labels), count)| (bound(labels), *count)).collect();
        buckets.sort_by(|a, b| a.0.partial_cmp(&b.0).expect("bounds are numbers"));
        let rises =
            buckets.is_sorted_by(|a, b| a.1 <= b.1) && buckets.iter().all(|(bound, _)| bound.is_some());
        let count = self.samples.get(&(format!("{}_count", family.name), Labels::new()));
        let ends = buckets.last().is_some_and(|(bound, n)| *bound == Some(f64::INFINITY) && Some(n) == count);
        let has_sum = self.samples.contains_key(&(format!("{}_sum", family.name), Labels::new()));
        if rises && ends && has_sum { Ok(()) } else { Err(format!("not a histogram: {}", family.name)) }
    }
}

impl Family {
    /// Whether such a sample belongs to the family.
    fn admits(&self, name: &str, labels: &Labels, value: f64) -> Result<(), String> {
        let suffix = name.strip_prefix(&self.name).ok_or("a sample of another family")?;
        let fits = match (self.kind.as_str(), suffix) {
            ("counter", "_total") | ("histogram", "_count") => value >= 0.0,
            ("histogram", "_bucket") => labels.len() == 1,
            ("info", "_info") => value == 1.0,
            ("gauge", "") | ("histogram", "_sum") => true,
            _ => false,
        };
        let has_unit = self.unit.as_ref().is_none_or(|unit| self.name.ends_with(&format!("_{unit}")));
        if !fits {
            return Err(format!("not what a {} has", self.kind));
        }
        if !self.has_help || !has_unit || value.is_nan() {
            return Err("help, unit or value is missing".to_owned());
        }
        Ok(())
    }
}

/// `name{key="value",..} number`.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (key, after) = inner.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(key) || labels.iter().any(|(other, _)| other == key) {
                return None;
            }
            labels.push((key.to_owned(), value));
            inner = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &inner[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| (name.to_owned(), labels, value))
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

#[test]
fn what_prometheus_would_refuse_is_refused() {
    let good = "# HELP a_bytes What.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"1\\\"\"} 3\n# EOF\n";
    assert_eq!(Exposition::parse(good).unwrap().value("a_bytes_total", &[("x", "1\"")]), 3.0);
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_bytes_total", "a_bytes"),
        ("a_bytes_total", "b_total"),
        ("} 3", "} three"),
        ("} 3", "} -3"),
        ("x=\"1\\\"\"", "x=1"),
        ("UNIT a_bytes bytes", "UNIT a_bytes seconds"),
        ("# HELP a_bytes What.\n", ""),
        ("\n# EOF", "\na_bytes_total{x=\"1\\\"\"} 4\n# EOF"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert!(Exposition::parse(&bad).is_err(), "{bad}");
    }
    let histogram = "# HELP h What.\n# TYPE h histogram\nh_sum 3\nh_count 2\nh_bucket{le=\"1.0\"} 1\n\
                     h_bucket{le=\"+Inf\"} 2\n# EOF\n";
    assert!(Exposition::parse(histogram).is_ok());
    for (from, to) in
        [("1.0\"} 1", "1.0\"} 3"), ("h_count 2", "h_count 3"), ("h_sum 3\n", ""), ("+Inf", "5.0")]
    {
        assert!(Exposition::parse(&histogram.replace(from, to)).is_err(), "{from}");
    }
}
