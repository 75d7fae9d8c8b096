//! What the hot path costs in instructions, which are the same in every run, whatever else the machine does.
//!
//! Each case runs under valgrind's callgrind, which counts what `measured` and all it calls execute, and nothing else. The
//! counts are compared with those in `expected.tsv`; a change of more than 5 % for the worse is an error until the new number
//! is written there (`--write`), in the same commit as its cause. Another compiler, profile or kind of processor makes other
//! instructions: where the numbers are not of those that are there, the counts are shown and not judged.
//!
//! ```text
//! cargo bench --profile count --bench instructions
//! cargo bench --profile count --bench instructions -- --write
//! ```

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up says so by failing")]

mod callgrind;
mod cases;
mod origin;
mod scene;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
};

use clap::Parser;
use mimalloc::MiMalloc;

use self::{
    cases::{CASES, READS},
    origin::Origin,
};

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

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(name) = args.case {
        run(&name);
        return ExitCode::SUCCESS;
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/expected.tsv");
    let in_the_tree = fs::read_to_string(&file).unwrap_or_default();
    let (counts, features) = count_all();
    let origin = Origin::of_this(&features);
    let worse = compare(&counts, &read(&in_the_tree));
    if args.write {
        write(&file, &origin, &counts);
        return ExitCode::SUCCESS;
    }
    let differences = origin.differences(&in_the_tree);
    if !differences.is_empty() {
        print!("{}", origin::not_judged(&differences));
        return ExitCode::SUCCESS;
    }
    if worse.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nmore than 5 % worse, or without a number: {}", worse.join(", "));
    println!(
        "if that is meant: cargo bench --profile count --bench instructions -- --write, and commit the new"
    );
    println!("numbers with the reason");
    ExitCode::FAILURE
}

/// What callgrind runs.
fn run(name: &str) {
    let (_, _, prepare) = CASES.iter().find(|(of, ..)| *of == name).expect("a case of this name");
    let mut operation = prepare();
    // Caches fill, and buffers grow, before anything is counted.
    operation();
    measured(&mut operation);
    // What the libraries choose their code by, as they see it here.
    println!("{}", origin::features());
}

/// The only thing that callgrind counts.
#[inline(never)]
fn measured(operation: &mut dyn FnMut()) {
    for _ in 0..READS {
        operation();
    }
}

/// Instructions a message of each case, and the features of the processor that the cases saw. As many cases at a time as
/// there are cores: it does not change the counts.
fn count_all() -> (Vec<(&'static str, f64)>, String) {
    let left = Mutex::new(CASES.iter().enumerate());
    let counted = Mutex::new(BTreeMap::new());
    let next = || left.lock().expect("no case has panicked").next();
    let work = || {
        while let Some((at, (name, messages, _))) = next() {
            let count = callgrind::count(name);
            let each = count.instructions / f64::from(READS * messages);
            counted.lock().expect("no case has panicked").insert(at, (*name, each, count.said));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(work);
        }
    });
    let counted = counted.into_inner().expect("no case has panicked");
    let features = counted.values().next().map(|(_, _, said)| said.clone()).unwrap_or_default();
    (counted.into_values().map(|(name, each, _)| (name, each)).collect(), features)
}

/// Prints all, and returns those that are worse.
fn compare(counts: &[(&'static str, f64)], expected: &BTreeMap<&str, f64>) -> Vec<&'static str> {
    println!("{:<52}{:>12}{:>12}{:>9}", "instructions", "now", "expected", "ratio");
    let mut worse = Vec::new();
    for (name, now) in counts {
        let before = expected.get(*name).copied();
        let ratio = before.map_or(f64::NAN, |before| now / before);
        println!("{name:<52}{now:>12.0}{:>12.0}{ratio:>9.3}", before.unwrap_or(f64::NAN));
        // A case without a number is as bad as a bad number.
        if ratio.is_nan() || ratio > TOLERANCE {
            worse.push(*name);
        } else if ratio < 1.0 / TOLERANCE {
            println!("  better than expected: `--write` keeps it so");
        }
    }
    worse
}

fn write(file: &Path, origin: &Origin, counts: &[(&str, f64)]) {
    let mut text = origin.lines();
    for (name, now) in counts {
        let _ = writeln!(text, "{name}\t{now:.0}");
    }
    fs::write(file, text).expect("the numbers can be written");
}

fn read(text: &str) -> BTreeMap<&str, f64> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, n)| Some((name, n.parse().ok()?)))
        .collect()
}
