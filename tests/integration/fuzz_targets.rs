//! The fuzzer's targets on the seeds it has found, and on pseudo-random inputs: the same in every run.

#[expect(unreachable_pub, reason = "to the fuzzer it is a library")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::{fs, panic, path::Path};

use targets::{TARGETS, Target};

/// How many pseudo-random inputs a target gets.
const INPUTS: u64 = 300;
const INPUT_BYTES_MAX: u64 = 1_200;

fn target(name: &str) -> Target {
    *TARGETS.iter().find(|(of, _)| *of == name).unwrap()
}

/// Runs one input; a failure says which it was.
fn run((name, run): Target, what: &str, input: &[u8]) {
    if let Err(cause) = panic::catch_unwind(|| run(input)) {
        eprintln!("{name}, {what}: {input:?}");
        panic::resume_unwind(cause);
    }
}

fn seeds(target: Target) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.0);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        run(target, &file.display().to_string(), &fs::read(file).unwrap());
    }
    files.len()
}

fn pseudo_random(target: Target) {
    for seed in 1..=INPUTS {
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance
        };
        let bytes = next() % INPUT_BYTES_MAX;
        let input: Vec<u8> = (0..bytes).map(|_| (next() >> 32).to_le_bytes()[0]).collect();
        run(target, &format!("seed {seed}"), &input);
    }
}

macro_rules! every_target {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                let target = target(stringify!($name));
                assert!(seeds(target) > 0, "no seeds");
                pseudo_random(target);
            }
        )*

        #[test]
        fn every_target_is_run_and_can_be_fuzzed() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            for name in names {
                let file = format!("fuzz/fuzz_targets/{name}.rs");
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).exists(), "{file}");
            }
        }
    };
}

every_target!(configuration, connection, decode, recovery, retained, subscriptions);
