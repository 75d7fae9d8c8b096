//! Reads the lists of statements.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The lists are in `tests/integration/conformance/statements/` and one of these.
pub(super) const VERSIONS: [Standard; 2] = [
    Standard { folder: "v5.0", name: "MQTT 5.0", prefix: "MQTT-", statements: 251 },
    Standard { folder: "v3.1.1", name: "MQTT 3.1.1", prefix: "MQTT3-", statements: 138 },
];

const LISTS: &str = "tests/integration/conformance/statements";
const OPEN: &str = "# open: ";

/// A version of the standard.
#[derive(Debug)]
pub(super) struct Standard {
    pub(super) folder: &'static str,
    pub(super) name: &'static str,
    /// What its ids begin with.
    prefix: &'static str,
    /// How many it has.
    statements: usize,
}

/// One list: what a section of the standard asks.
pub(super) struct Section {
    pub(super) standard: &'static Standard,
    pub(super) file: PathBuf,
    /// The section's number, such as 3.1.
    pub(super) number: String,
    /// How many may be without proof and reason.
    pub(super) open_max: usize,
    pub(super) statements: Vec<Statement>,
}

pub(super) struct Statement {
    pub(super) id: String,
    pub(super) binds: Binds,
    /// In our own words.
    pub(super) words: String,
    /// Why there is no test; empty if there should be one.
    pub(super) reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binds {
    Server,
    Client,
    Both,
}

impl Binds {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
        }
    }
}

impl Section {
    /// Writes a smaller number of open statements into the list.
    pub(super) fn lower(&mut self, open: usize) {
        self.open_max = open;
        let text = fs::read_to_string(&self.file).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with(OPEN)).map(str::to_owned);
        let head = (open > 0).then(|| format!("{OPEN}{open}"));
        let lines: Vec<String> = head.into_iter().chain(lines).collect();
        fs::write(&self.file, lines.join("\n") + "\n").unwrap();
    }
}

/// All lists, in the order of the standard.
pub(super) fn sections(root: &Path, faults: &mut Vec<String>) -> Vec<Section> {
    let mut all = Vec::new();
    for standard in &VERSIONS {
        let mut sections: Vec<Section> = fs::read_dir(root.join(LISTS).join(standard.folder))
            .unwrap()
            .map(|entry| section(standard, entry.unwrap().path(), faults))
            .collect();
        sections.sort_by_key(|section| numbers(&section.number));
        let mut ids: Vec<&str> = sections.iter().flat_map(|s| &s.statements).map(|s| &*s.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != standard.statements {
            faults.push(format!("{} ids of {}, which has {}", ids.len(), standard.name, standard.statements));
        }
        all.append(&mut sections);
    }
    all
}

fn numbers(section: &str) -> Vec<u32> {
    section.split('.').map(|part| part.parse().unwrap_or(u32::MAX)).collect()
}

fn section(standard: &'static Standard, file: PathBuf, faults: &mut Vec<String>) -> Section {
    let number = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let mut section = Section { standard, file, number, open_max: 0, statements: Vec::new() };
    let text = fs::read_to_string(&section.file).unwrap();
    for (at, line) in text.lines().enumerate() {
        let mut fault = |what: &str| faults.push(format!("{}:{}: {what}", section.file.display(), at + 1));
        if let Some(open) = line.strip_prefix(OPEN) {
            match open.parse() {
                Ok(open) => section.open_max = open,
                Err(_) => fault("not a number"),
            }
            continue;
        }
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[id, binds, words, reason] = &*fields else {
            fault("not `id | binds | what it asks | reason`");
            continue;
        };
        let binds = match binds {
            "server" => Binds::Server,
            "client" => Binds::Client,
            "both" => Binds::Both,
            _ => {
                fault("binds neither server, client nor both");
                continue;
            }
        };
        let in_section = id.strip_prefix(standard.prefix).and_then(|rest| rest.strip_prefix(&section.number));
        if !in_section.is_some_and(|rest| rest.starts_with('.') || rest.starts_with('-')) || words.is_empty()
        {
            fault("an id of another section, or nothing asked");
        }
        if section.statements.iter().any(|known: &Statement| known.id == id) {
            fault("listed twice");
        }
        let (id, words, reason) = (id.to_owned(), words.to_owned(), reason.to_owned());
        section.statements.push(Statement { id, binds, words, reason });
    }
    section
}
