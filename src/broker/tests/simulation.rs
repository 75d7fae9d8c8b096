//! The whole broker below the sockets, simulated: devices, disk, power and clocks by a seed, judged by a naive model.
//!
//! `DORMOUSE_TEST_SEEDS` says how many seeds are tried, `DORMOUSE_TEST_SEED` which one alone, with a trace.

mod chance;
mod device;
mod model;
mod trial;

use std::{env, panic};

use trial::{Tally, Trial};

/// Seeds beyond the first thousand that have failed once, and what each was about. What a seed means changes with the simulation:
/// where that matters, a narrower test says the same.
const FAILED_ONCE: [u64; 9] = [
    // A QoS 2 will that found no room on the disk was sent from memory, and once more after a crash.
    404_080,
    // Two wills were due at a restart, for a queue with room for one that keeps what it has: the model knew which came first.
    316_620,
    // The model took what a subscription found retained for what came for a sleeper later, when after a crash the publisher
    // repeated it.
    419_966, 421_471, 432_038, 516_307,
    // The dead letters of messages that several were waiting for were more than a full disk had room for, all in one commit.
    539_544,
    // Of three copies of a message the second counted, and its receiver had not subscribed then: the model looked at the others.
    584_907, 601_982,
];
/// So many seeds that fail say enough.
const FAILURES_MAX: usize = 50;

/// The contract of the broker, in a thousand worlds that lose power, bytes, time and disks.
#[test]
fn the_contract_holds_whatever_happens_in_simulation() {
    if let Some(seed) = number("DORMOUSE_TEST_SEED") {
        Trial::new(seed, true).run();
        return;
    }
    let first = number("DORMOUSE_TEST_FIRST_SEED").unwrap_or(0);
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    for seed in first..first + number("DORMOUSE_TEST_SEEDS").unwrap_or(1_000) {
        if let Ok(one) = panic::catch_unwind(|| Trial::new(seed, false).run()) {
            tally += one;
        } else {
            eprintln!("seed {seed} failed; DORMOUSE_TEST_SEED={seed} repeats it");
            failed.push(seed);
        }
        assert!(failed.len() < FAILURES_MAX, "seeds {failed:?} failed; those after {seed} were not tried");
    }
    println!("{tally:?}");
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

#[test]
fn seeds_that_have_failed_once_hold_in_simulation() {
    for seed in FAILED_ONCE {
        Trial::new(seed, false).run();
    }
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
