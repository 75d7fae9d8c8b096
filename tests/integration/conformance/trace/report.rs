//! Writes docs/conformance.md and a page for each version.

use std::{fmt::Write as _, path::PathBuf};

use super::{Binds, Section, Statement, Trace, VERSIONS, is_open, statements::Standard};

/// The documents, each with its path from the root.
pub(super) fn documents(sections: &[Section], trace: &Trace) -> Vec<(PathBuf, String)> {
    let mut documents = vec![("docs/conformance.md".into(), overview(sections, trace))];
    for standard in &VERSIONS {
        let path = format!("docs/conformance/{}.md", standard.folder).into();
        documents.push((path, page(standard, sections, trace)));
    }
    documents
}

fn of<'s>(standard: &Standard, sections: &'s [Section]) -> impl Iterator<Item = &'s Section> {
    sections.iter().filter(move |section| section.standard.folder == standard.folder)
}

/// The totals.
fn overview(sections: &[Section], trace: &Trace) -> String {
    let mut out = String::from(
        "# Conformance

The OASIS standards of MQTT 3.1.1 and 5.0 number what they demand. This page counts those statements, and the pages it
links to say of each where the code keeps it, and either the test that proves it over the wire or the reason why there is
none. MQTT 3.1 has no such numbers; it is tested where it differs.

A test counts only if it runs the real binary (`tests/integration/`). `cargo nextest run conformance` fails when a
statement has neither test nor reason, when code or tests cite one that does not exist, and when these pages are not what
the sources say. They are generated: see `tests/integration/conformance/trace.rs`.

| | statements | bind the server | of these: tested | not, for a reason | open | bind only clients | tested all the same |
|---|---|---|---|---|---|---|---|
",
    );
    for standard in &VERSIONS {
        let all: Vec<&Statement> = of(standard, sections).flat_map(|section| &section.statements).collect();
        let (client, server): (Vec<_>, Vec<_>) = all.iter().partition(|s| s.binds == Binds::Client);
        let is_proven = |s: &&&&Statement| !trace[&s.id].proofs.is_empty();
        let counts = [
            all.len(),
            server.len(),
            server.iter().filter(is_proven).count(),
            server.iter().filter(|s| !s.reason.is_empty()).count(),
            server.iter().filter(|s| is_open(s, trace)).count(),
            client.len(),
            client.iter().filter(is_proven).count(),
        ];
        let name = format!("[{}](conformance/{}.md)", standard.name, standard.folder);
        let _ = writeln!(out, "| {name} | {} |", counts.map(|count| count.to_string()).join(" | "));
    }
    out
}

/// Statement by statement.
fn page(standard: &Standard, sections: &[Section], trace: &Trace) -> String {
    let name = standard.name;
    let mut out = format!(
        "# {name}, statement by statement\n\nWhat each statement asks, in our own words; the items in `src/` that keep it; \
         the tests in `tests/integration/` that prove it, or the reason why there is none. Generated: see \
         [conformance](../conformance.md).\n"
    );
    for section in of(standard, sections) {
        let _ = write!(out, "\n## Section {}\n\n| statement | binds | asks | kept by | ", section.number);
        out.push_str("proved by, or why not |\n|---|---|---|---|---|\n");
        for statement in &section.statements {
            let cited = &trace[&statement.id];
            let code = |names: &[String]| -> Vec<String> {
                names.iter().map(|name| format!("`{}`", name.replacen(' ', "` `", 1))).collect()
            };
            let mut proof = code(&cited.proofs);
            if !statement.reason.is_empty() {
                proof.push(statement.reason.clone());
            }
            if proof.is_empty() {
                proof.push("**open**".to_owned());
            }
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                statement.id,
                statement.binds.word(),
                statement.words,
                code(&cited.places).join("; "),
                proof.join("; ")
            );
        }
    }
    out
}
