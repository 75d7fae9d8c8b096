//! The modules are floors: each imports only from a lower one, and each big dependency has one home.
//!
//! Reads the sources instead of trusting anybody. It is no compiler: it strips comments and literals and follows every
//! path that begins with `crate`, `self` or `super`, in a `use` or anywhere else, to the top-level module it names.

mod tokens;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use tokens::{Token, tokens};

/// The ground floor first. A module imports from floors above its own in this list, and from itself.
const FLOORS: &[&[&str]] = &[
    &["topic", "time", "telemetry", "sync", "folder"],
    &["codec"],
    &["message"],
    &["session", "routing", "auth"],
    &["store"],
    &["broker"],
    &["net"],
    &["admin", "bench", "bridge"],
    &["config"],
    &["cli", "server"],
];

/// Siblings that may import all the same, and why: (who, what). The command line starts the server.
const EXCEPTIONS: &[(&str, &str)] = &[("cli", "server")];

/// The binary's entry, and the list of modules.
const EXEMPT: &[&str] = &["src/lib.rs", "src/main.rs"];

/// Where a dependency may be named.
#[derive(Clone, Copy, Debug)]
enum Home {
    /// In these modules only.
    Only(&'static [&'static str]),
    /// In this module's floor and those above.
    AtLeast(&'static str),
}

const HOMES: &[(&str, Home)] = &[
    ("sled", Home::Only(&["store"])),
    // `store` seals with it; the others name the module of rustls that is called so.
    ("ring", Home::Only(&["store", "net", "bench", "cli"])),
    ("toml", Home::Only(&["config"])),
    ("clap", Home::Only(&["cli"])),
    ("hyper", Home::Only(&["admin"])),
    ("hyper_util", Home::Only(&["admin"])),
    ("prometheus_client", Home::Only(&["admin"])),
    // `cli` makes certificates; the tests of `net` need some.
    ("rcgen", Home::Only(&["cli", "net"])),
    ("tokio", Home::AtLeast("net")),
    ("tokio_rustls", Home::AtLeast("net")),
    ("rustls", Home::AtLeast("net")),
];

#[test]
fn modules_import_only_from_lower_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let mut violations = Vec::new();
    let mut references = 0;
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file is readable");
        let name = file.strip_prefix(root).expect("the file was found under the root");
        let name = name.to_str().expect("source files have plain names").replace('\\', "/");
        references += paths(&name, &source).len();
        violations.extend(check(&name, &source));
    }
    // A reader that finds nothing finds no fault either.
    assert!(references >= 10, "only {references} imports found in all of src/");
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} imports go the wrong way:\n{}", list.len(), list.join("\n"));
}

/// All `.rs` files below `dir`, in a fixed order.
fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).expect("src/ is a readable folder");
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.expect("src/ is a readable folder").path()).collect();
    found.sort();
    for path in found {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A place where a file names what it should not.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    fault: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.fault)
    }
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// What is wrong with one file. `file` is its name from the package's root.
fn check(file: &str, source: &str) -> Vec<Violation> {
    if EXEMPT.contains(&file) {
        return Vec::new();
    }
    let own = module_path(file).into_iter().next().unwrap_or_default();
    let violation = |line, fault| Violation { file: file.to_owned(), line, fault };
    let Some(own_floor) = floor(&own) else {
        return vec![violation(1, format!("module `{own}` is on no floor: give it a floor"))];
    };
    let mut violations = Vec::new();
    for Named { line, name } in paths(file, source) {
        let fault = match floor(&name) {
            Some(_) if name == own || EXCEPTIONS.contains(&(own.as_str(), name.as_str())) => continue,
            Some(floor) if floor < own_floor => continue,
            Some(floor) => {
                format!("`{own}` (F{own_floor}) imports `{name}` (F{floor}): only lower floors are allowed")
            }
            None if name == "*" => format!("`{own}` imports the whole crate: name the modules"),
            None => format!("`{own}` imports `{name}`, which is on no floor: give it a floor"),
        };
        violations.push(violation(line, fault));
    }
    for Named { line, name } in dependencies(&tokens(source)) {
        let Some(&(_, home)) = HOMES.iter().find(|(dependency, _)| *dependency == name) else { continue };
        let fault = match home {
            Home::Only(modules) if !modules.contains(&own.as_str()) => {
                format!("`{own}` names `{name}`, whose home is `{}`", modules.join("` or `"))
            }
            Home::AtLeast(module) if floor(module) > Some(own_floor) => {
                format!("`{own}` (F{own_floor}) names `{name}`, which lives in `{module}` and above")
            }
            Home::Only(_) | Home::AtLeast(_) => continue,
        };
        violations.push(violation(line, fault));
    }
    violations.sort_by_key(|v| v.line);
    violations
}

/// The module a file is: `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`.
fn module_path(file: &str) -> Vec<String> {
    let file = file.strip_prefix("src/").unwrap_or(file);
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let file = file.strip_suffix("/mod").unwrap_or(file);
    file.split('/').map(str::to_owned).collect()
}

/// A name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    line: usize,
    name: String,
}

/// The top-level modules a file names, its own among them. `*` stands for the whole crate.
fn paths(file: &str, source: &str) -> Vec<Named> {
    let tokens = tokens(source);
    let mut walk = Walk { tokens: &tokens, found: Vec::new() };
    let mut module = module_path(file);
    // Inline modules around the place: how many braces were open before each.
    let mut inline = Vec::new();
    let mut open = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => {
                if at >= 2 && tokens[at - 2].text == "mod" {
                    module.push(tokens[at - 1].text.clone());
                    inline.push(open);
                }
                open += 1;
            }
            "}" => {
                open = open.saturating_sub(1);
                if inline.last() == Some(&open) {
                    inline.pop();
                    module.pop();
                }
            }
            "crate" | "self" | "super" if at == 0 || tokens[at - 1].text != "::" => walk.path(at, &module),
            _ => {}
        }
    }
    walk.found
}

struct Walk<'t> {
    tokens: &'t [Token],
    found: Vec<Named>,
}

impl Walk<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    /// Follows a path from its first word, seen from `module`.
    fn path(&mut self, at: usize, module: &[String]) {
        let mut from = match self.text(at) {
            "crate" => Vec::new(),
            "super" => module.split_last().map_or_else(Vec::new, |(_, parent)| parent.to_vec()),
            _ => module.to_vec(),
        };
        let root_renamed = from.is_empty() && self.text(at + 1) == "as";
        if root_renamed {
            self.note(at, "*");
        } else if self.text(at + 1) == "::" {
            self.after(at + 2, &mut from);
        }
    }

    /// What follows a `::`, or begins a branch of `{..}`, in module `from`.
    fn after(&mut self, at: usize, from: &mut Vec<String>) {
        match self.text(at) {
            "super" => {
                from.pop();
                if self.text(at + 1) == "::" {
                    self.after(at + 2, from);
                }
            }
            "{" => {
                let mut branch = true;
                let mut depth = 0_usize;
                for next in at..self.tokens.len() {
                    if branch && depth == 1 && self.text(next) != "}" {
                        self.after(next, &mut from.clone());
                    }
                    branch = false;
                    match self.text(next) {
                        "{" => {
                            depth += 1;
                            branch = depth == 1;
                        }
                        "}" => depth -= 1,
                        "," => branch = depth == 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            // In a module everything is its own business; only what the root holds is another's.
            _ if !from.is_empty() => {}
            "*" | "self" => self.note(at, "*"),
            name => {
                let name = name.to_owned();
                self.note(at, &name);
            }
        }
    }

    fn note(&mut self, at: usize, name: &str) {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        self.found.push(Named { line, name: name.to_owned() });
    }
}

/// The dependencies a file names: at the beginning of a path, or alone in a `use`.
fn dependencies(tokens: &[Token]) -> Vec<Named> {
    let text = |at: Option<usize>| at.and_then(|at| tokens.get(at)).map_or("", |token| token.text.as_str());
    let is_dependency = |token: &Token| HOMES.iter().any(|(name, _)| *name == token.text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| is_dependency(token)) {
        let (mut before, after) = (at.checked_sub(1), text(Some(at + 1)));
        if text(before) == "::" {
            before = at.checked_sub(2);
            // `::sled` begins a path; `crate::store::sled` does not.
            if is_name(text(before)) {
                continue;
            }
        }
        let imported =
            matches!(text(before), "use" | "crate") || (matches!(text(before), "{" | ",") && after == "as");
        if after == "::" || imported {
            found.push(Named { line: token.line, name: token.text.clone() });
        }
    }
    found
}

/// Whether a `::` behind this word or sign continues a path, and does not begin one.
fn is_name(word: &str) -> bool {
    const BEFORE_A_PATH: &[&str] =
        &["as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use"];
    let in_path = word.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
    in_path && !BEFORE_A_PATH.contains(&word)
}

/// The faults found in a file, as (line, the name that the fault is about).
#[track_caller]
fn expect(file: &str, source: &str, faults: &[(usize, &str)]) {
    let found = check(file, source);
    let lines: Vec<usize> = found.iter().map(|v| v.line).collect();
    assert_eq!(lines, faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), "{found:#?}");
    for (violation, (_, part)) in found.iter().zip(faults) {
        assert!(violation.fault.contains(part), "{violation} should be about {part}");
    }
}

#[test]
fn a_higher_floor_a_sibling_and_an_unknown_module_are_found() {
    expect("src/store/mod.rs", "use crate::broker::Broker;", &[(1, "`broker` (F5)")]);
    expect("src/store/sled.rs", "\n\nuse crate::net;", &[(3, "`net` (F6)")]);
    expect("src/routing/trie.rs", "use crate::session::Session;", &[(1, "`session` (F3)")]);
    expect("src/time.rs", "pub use crate::topic::TopicName;", &[(1, "`topic` (F0)")]);
    expect(
        "src/codec/mod.rs",
        "use crate::utils::x;",
        &[(1, "`utils`, which is on no floor: give it a floor")],
    );
    expect("src/utils/mod.rs", "", &[(1, "module `utils` is on no floor: give it a floor")]);
    expect("src/store/mod.rs", "use crate::*;", &[(1, "whole crate")]);
    expect(
        "src/store/mod.rs",
        "use crate::{self as root};\nuse crate as c;",
        &[(1, "whole crate"), (2, "whole crate")],
    );
}

#[test]
fn lower_floors_the_own_module_and_the_exception_are_allowed() {
    expect("src/store/mod.rs", "use crate::{codec::QoS, store::frame, message::Message};", &[]);
    expect("src/store/frame.rs", "use super::Journal; use self::x::y; use crate::store::Config;", &[]);
    expect("src/cli/serve.rs", "use crate::server::run;", &[]);
    expect("src/server.rs", "use crate::cli::serve;", &[(1, "`cli` (F9)")]);
    expect("src/lib.rs", "pub use crate::net::x; use sled::Db;", &[]);
    expect("src/main.rs", "#[tokio::main] async fn main() { crate::cli::run() }", &[]);
}

#[test]
fn blocks_over_many_lines_are_read_to_the_end() {
    let source = "
use std::{
    sync::Arc, fmt,
};
use crate::{
    codec::{self, QoS, broker}, // broker: a name inside codec
    /* net, */ topic::{levels, TopicName as T},
    broker,
    message::Message, net::{
        tls::Acceptor,
    }, config::Config as C,
};
use {crate::cli::x, std::io};
";
    expect("src/store/mod.rs", source, &[(8, "`broker`"), (9, "`net`"), (11, "`config`"), (13, "`cli`")]);
}

#[test]
fn paths_in_the_middle_of_code_count() {
    expect("src/codec/mod.rs", "fn f(x: &crate::message::Message) {}", &[(1, "`message` (F2)")]);
    expect("src/codec/mod.rs", "impl From<crate :: store\n::X> for Y {}", &[(1, "`store`")]);
    expect("src/codec/mod.rs", "macro_rules! m { () => { $crate::net::f() } }", &[(1, "`net`")]);
    expect("src/codec/mod.rs", "pub(crate) fn f() {} pub(in crate::codec) fn g() {}", &[]);
    expect("src/codec/mod.rs", "#[cfg(test)]\nmod tests {\n use crate::broker::B;\n}", &[(3, "`broker`")]);
}

#[test]
fn super_that_leaves_a_top_level_module_counts() {
    expect("src/topic/mod.rs", "use super::codec::QoS;", &[(1, "`codec`")]);
    expect("src/time.rs", "use super::{net, topic};", &[(1, "`net`"), (1, "`topic`")]);
    expect("src/topic/name.rs", "use super::super::codec::QoS;", &[(1, "`codec`")]);
    expect("src/topic/name.rs", "use super::{codec, store};", &[]);
    expect("src/topic/name.rs", "use self::super::super::{time::Timestamp, topic::x};", &[(1, "`time`")]);
    expect("src/topic/mod.rs", "use super as root;", &[(1, "whole crate")]);
    expect("src/topic/a/b.rs", "use super::super::codec;", &[]);
    expect("src/topic/a/b.rs", "use super::super::super::codec;", &[(1, "`codec`")]);
    // Inline modules are a level each, and end where their brace does.
    let source =
        "mod a { mod b { fn f() { super::super::x() } }\n use super::super::net; }\nuse super::broker;";
    expect("src/topic/mod.rs", source, &[(2, "`net`"), (3, "`broker`")]);
    expect("src/topic/mod.rs", "mod tests { use super::*; }", &[]);
}

#[test]
fn comments_strings_and_lifetimes_are_no_code() {
    let source = r##"
//! See [`crate::net`] and crate::net::x.
/* crate::net /* nested */ crate::net */
/// crate::broker
const A: &str = "crate::net::a \" crate::net";
const B: &str = r#"crate::net " crate::net"#;
const C: &[u8] = br"crate::net\"; const D: &[u8] = b"crate::net\\";
const E: char = '"'; const F: char = '\''; const G: u8 = b'"'; const H: char = '\u{22}';
fn f<'a>(x: &'a str, y: &'static str) -> r#type { 'outer: loop { break 'outer; } }
use crate::net::after_all_that;
"##;
    expect("src/store/mod.rs", source, &[(10, "`net`")]);
}

#[test]
fn a_dependency_away_from_home_is_found() {
    for (file, source, faults) in [
        ("src/broker/mod.rs", "use sled::Db;", &[(1, "`sled`, whose home is `store`")][..]),
        ("src/broker/mod.rs", "use ::sled::Db; use sled;", &[(1, "`sled`"), (1, "`sled`")]),
        (
            "src/broker/mod.rs",
            "use {std::fmt, sled as db};\nextern crate sled;",
            &[(1, "`sled`"), (2, "`sled`")],
        ),
        ("src/broker/mod.rs", "impl ::sled::X for Y {}", &[(1, "`sled`")]),
        ("src/broker/mod.rs", "fn f() -> Result<(), sled::Error> {}", &[(1, "`sled`")]),
        ("src/store/disk.rs", "use sled::{Db, Tree};", &[]),
        ("src/net/tls.rs", "use toml::Value;", &[(1, "`toml`, whose home is `config`")]),
        ("src/config/mod.rs", "use toml::Value; use tokio::net::TcpListener;", &[]),
        ("src/broker/mod.rs", "\nuse tokio::sync::mpsc;", &[(2, "`tokio`, which lives in `net` and above")]),
        ("src/session/mod.rs", "#[tokio::test]\nasync fn t() {}", &[(1, "`tokio`")]),
        (
            "src/auth/mod.rs",
            "use tokio_rustls::rustls::x; use rustls::y;",
            &[(1, "`tokio_rustls`"), (1, "`rustls`")],
        ),
        ("src/net/mod.rs", "use tokio::io; use rustls::y; use tokio_rustls::z;", &[]),
        ("src/admin/mod.rs", "use tokio::io;", &[]),
        ("src/server.rs", "#[derive(clap::Parser)] struct A;", &[(1, "`clap`, whose home is `cli`")]),
        ("src/cli/certs.rs", "use clap::Parser; use rcgen::CertificateParams;", &[]),
        ("src/net/tls.rs", "use rcgen::CertificateParams;", &[]),
        ("src/server.rs", "use rcgen::CertificateParams;", &[(1, "`rcgen`, whose home is `cli` or `net`")]),
    ] {
        expect(file, source, faults);
    }
    // The same words as names of our own.
    expect("src/broker/mod.rs", "let toml = 1; f(toml, x.clap()); use crate::store::sled::Disk;", &[]);
}
