//! What the hot path costs in instructions, which are the same in every run, whatever else the machine does.
//!
//! Each case runs under valgrind's callgrind, which counts what `measured` and all it calls execute, and nothing else. The
//! counts are compared with those in `expected.tsv`; a change of more than 5 % for the worse is an error until the new number
//! is written there (`--write`), in the same commit as its cause. Another compiler makes other instructions: with one that the
//! numbers are not of, the counts are shown and not judged.
//!
//! ```text
//! cargo bench --bench instructions
//! cargo bench --bench instructions -- --write
//! ```

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up says so by failing")]

mod cases;
mod scene;

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf, process::Command};

use clap::Parser;
use mimalloc::MiMalloc;

use self::cases::{CASES, READS};

/// The broker's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Beyond this factor a count is worse, or so much better that the number in the tree should follow.
const TOLERANCE: f64 = 1.05;

/// Counts the instructions of the hot path, and compares them with the numbers in the tree.
#[derive(Debug, Parser)]
struct Args {
    /// Writes the counts to the tree, as those to compare with
    #[arg(long)]
    write: bool,
    /// Runs one case, uncounted; this is what callgrind runs
    #[arg(long, hide = true)]
    case: Option<String>,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    if let Some(name) = args.case {
        let (_, _, prepare) = CASES.iter().find(|(of, ..)| *of == name).expect("a case of this name");
        let mut operation = prepare();
        // Caches fill, and buffers grow, before anything is counted.
        operation();
        measured(&mut operation);
        return;
    }
    let each = |(name, messages, _): &'static cases::Case| (*name, count(name) / f64::from(READS * messages));
    let counts: Vec<(&str, f64)> = CASES.iter().map(each).collect();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/expected.tsv");
    let in_the_tree = fs::read_to_string(&file).unwrap_or_default();
    let expected = read(&in_the_tree);
    let compiler = compiler();
    let is_judged = in_the_tree.lines().next() == Some(compiler.as_str());
    println!("{:<44}{:>12}{:>12}{:>9}", "instructions", "now", "expected", "ratio");
    let mut worse = Vec::new();
    for (name, now) in &counts {
        let before = expected.get(*name).copied();
        let ratio = before.map_or(f64::NAN, |before| now / before);
        println!("{name:<44}{now:>12.0}{:>12.0}{ratio:>9.3}", before.unwrap_or(f64::NAN));
        // A case without a number is as bad as a bad number.
        if ratio.is_nan() || ratio > TOLERANCE {
            worse.push(*name);
        } else if ratio < 1.0 / TOLERANCE {
            println!("  better than expected: `--write` keeps it so");
        }
    }
    if args.write {
        let mut text = format!("{compiler}\n");
        for (name, now) in &counts {
            let _ = writeln!(text, "{name}\t{now:.0}");
        }
        fs::write(&file, text).expect("the numbers can be written");
    } else if !is_judged {
        println!("\nnot judged: the numbers in the tree are not of {compiler}");
    } else if !worse.is_empty() {
        println!("\nmore than 5 % worse, or without a number: {}", worse.join(", "));
        println!(
            "if that is meant: cargo bench --bench instructions -- --write, and commit the new numbers with the reason"
        );
        std::process::exit(1);
    }
}

/// The only thing that callgrind counts.
#[inline(never)]
fn measured(operation: &mut dyn FnMut()) {
    for _ in 0..READS {
        operation();
    }
}

/// Instructions of one case.
fn count(name: &str) -> f64 {
    let this = env::current_exe().expect("this program has a path");
    let out = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=instructions::measured"])
        .arg(format!("--callgrind-out-file={}", out.path().display()))
        .arg(this)
        .args(["--case", name])
        .output()
        .expect("valgrind is there (apt install valgrind)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    let found = fs::read_to_string(out.path()).expect("callgrind has written its file");
    let total =
        found.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    total.and_then(|total| total.trim().parse().ok()).unwrap_or_else(|| panic!("{name}: no count in {said}"))
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("the compiler is there");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn read(text: &str) -> BTreeMap<&str, f64> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, n)| Some((name, n.parse().ok()?)))
        .collect()
}
