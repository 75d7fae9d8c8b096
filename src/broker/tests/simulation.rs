//! The whole broker below the sockets, simulated: devices, disk, power and clocks by a seed, judged by a naive model.
//!
//! `DORMOUSE_TEST_SEEDS` says how many seeds are tried, `DORMOUSE_TEST_SEED` which one alone, with a trace.

mod chance;
mod device;
mod model;
mod trial;

use std::{env, panic};

use trial::Trial;

/// The contract of the broker, in a thousand worlds that lose power, bytes, time and disks.
#[test]
fn the_contract_holds_whatever_happens_in_simulation() {
    if let Some(seed) = number("DORMOUSE_TEST_SEED") {
        Trial::new(seed, true).run();
        return;
    }
    let first = number("DORMOUSE_TEST_FIRST_SEED").unwrap_or(0);
    let mut crashes = 0;
    for seed in first..first + number("DORMOUSE_TEST_SEEDS").unwrap_or(1_000) {
        let tried = panic::catch_unwind(|| Trial::new(seed, false).run());
        crashes += tried.unwrap_or_else(|cause| {
            eprintln!("seed {seed} failed; DORMOUSE_TEST_SEED={seed} repeats it");
            panic::resume_unwind(cause)
        });
    }
    println!("{crashes} crashes");
}

/// A seed means the same each time.
#[test]
fn a_simulation_is_repeated_by_its_seed() {
    for seed in 0..5 {
        let told = || {
            let mut trial = Trial::new(seed, true);
            trial.quiet = true;
            trial.run();
            trial.told
        };
        assert!(told() == told(), "seed {seed}");
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}
