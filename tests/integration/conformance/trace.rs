//! The trace from the standard's statements to the code and the tests, and the document made of it.
//!
//! `statements/VERSION/SECTION.txt` has a line for each statement: `id | binds | what it asks | reason`. `binds` is
//! `server`, `client` or `both`. The reason says why there is no test: what a client owes, what cannot be seen on the
//! wire, what is not offered here. `[MQTT-..]` in a comment cites MQTT 5.0, `[MQTT3-..]` MQTT 3.1.1. A citation in src/ is
//! a place that keeps the statement; one in or above a test function of tests/integration is a proof.
//!
//! A statement with neither reason nor proof is open. `# open: N` at the head of a list is how many of its statements may
//! be, and only goes down.
//!
//! To write docs/conformance.md and what it links to, and to lower those numbers, run
//!
//! ```text
//! DORMOUSE_CONFORMANCE=write cargo nextest run conformance::trace
//! ```
//!
//! After a merge that stops at the documents, do the same: they are made of the rest.

mod citations;
mod place;
mod report;
mod statements;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use citations::{Citation, citations};
use statements::{Binds, Section, Statement, VERSIONS, sections};

/// The switch that writes the documents.
const SWITCH: &str = "DORMOUSE_CONFORMANCE";

/// What cites a statement.
#[derive(Default)]
struct Cited {
    /// In src/: file and item.
    places: Vec<String>,
    /// In tests/integration: file and test function.
    proofs: Vec<String>,
}

type Trace = BTreeMap<String, Cited>;

#[test]
fn every_statement_has_a_proof_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_writing = env::var_os(SWITCH).is_some_and(|value| value == "write");
    let mut faults = Vec::new();
    let mut sections = sections(root, &mut faults);
    let trace = trace(root, &sections, &mut faults);
    for section in &mut sections {
        judge(section, &trace, is_writing, &mut faults);
    }
    for (path, text) in report::documents(&sections, &trace) {
        let path = root.join(path);
        if is_writing {
            fs::create_dir_all(path.parent().expect("a file in a folder")).unwrap();
            fs::write(&path, text).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            faults.push(format!("{} is not up to date: run with {SWITCH}=write", path.display()));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Whether a section is no more open than it may be, and no reason is contradicted by a test.
fn judge(section: &mut Section, trace: &Trace, is_writing: bool, faults: &mut Vec<String>) {
    let open = section.statements.iter().filter(|statement| is_open(statement, trace)).count();
    for statement in &section.statements {
        let is_proven = trace.get(&statement.id).is_some_and(|cited| !cited.proofs.is_empty());
        // What a client owes may be shown all the same by what happens to a client that does not keep it.
        if is_proven && !statement.reason.is_empty() && statement.binds != Binds::Client {
            faults.push(format!("{} has a reason for having no test, and a test", statement.id));
        }
    }
    if open < section.open_max && is_writing {
        section.lower(open);
    }
    if open != section.open_max {
        let ids: Vec<_> = section.statements.iter().filter(|s| is_open(s, trace)).map(|s| &*s.id).collect();
        faults.push(format!(
            "{}: {open} open, but {} allowed (more: prove them; fewer: {SWITCH}=write): {}",
            section.file.display(),
            section.open_max,
            ids.join(" ")
        ));
    }
}

fn is_open(statement: &Statement, trace: &Trace) -> bool {
    statement.reason.is_empty() && trace.get(&statement.id).is_none_or(|cited| cited.proofs.is_empty())
}

/// Who cites what. A citation of what is not there is a fault.
fn trace(root: &Path, sections: &[Section], faults: &mut Vec<String>) -> Trace {
    let mut trace: Trace = sections
        .iter()
        .flat_map(|section| &section.statements)
        .map(|statement| (statement.id.clone(), Cited::default()))
        .collect();
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("tests"), &mut files);
    // The lists' own reader, which is full of examples.
    files.retain(|file| !file.to_string_lossy().contains("/conformance/trace"));
    for file in files {
        let name = file.strip_prefix(root).expect("found under the root").to_str().expect("a plain name");
        for Citation { id, line, place } in citations(&fs::read_to_string(&file).unwrap()) {
            let Some(cited) = trace.get_mut(&id) else {
                faults.push(format!("{name}:{line}: there is no statement [{id}]"));
                continue;
            };
            let list = if let Some(name) = name.strip_prefix("src/") {
                cited.places.push(place.with_file(name));
                &mut cited.places
            } else if place.is_test {
                cited.proofs.push(place.with_file(name.strip_prefix("tests/integration/").unwrap_or(name)));
                &mut cited.proofs
            } else {
                // What a helper says proves nothing by itself.
                continue;
            };
            list.sort();
            list.dedup();
        }
    }
    trace
}

/// All `.rs` files below `dir`.
fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
