//! Power cuts under the real binary.
//!
//! `kill -9` is not a power cut: the kernel still writes what the process left. Here a library between the broker and
//! its disk (`disk.c`) records what the broker does to its folder while clients work; a model of a disk (`model.rs`)
//! says what would be left if the power went at some moment; the broker starts on that, and the clients, put back to
//! the same moment, say whether every promise was kept. One recorded run gives many cuts.
//!
//! `DORMOUSE_TEST_CUTS` makes it longer; `DORMOUSE_TEST_SEED` repeats the load's and the cuts' choices (not the
//! scheduling of threads). `DORMOUSE_TEST_KEEP` names a folder for what the broker was started on after the cuts that went
//! badly.

#![expect(clippy::disallowed_methods, reason = "a run against the real binary takes real time")]

mod chance;
mod changer;
mod clocks;
mod content;
mod disk;
mod faults;
mod judge;
mod load;
mod model;
mod rekey;
mod retainer;
mod session;
mod steps;
mod trace;
mod willer;

use std::{
    path::PathBuf,
    sync::{Mutex, mpsc::sync_channel},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use chance::Chance;
use disk::Packing;
use judge::{Cut, Finding};
use load::{Recording, Syncs};

/// Cuts of one recorded run.
const CUTS_PER_RUN: usize = 100;
/// Messages that are acknowledged in a recorded run.
const MESSAGES_PER_RUN: usize = 4_000;
/// Brokers that start at the same time.
const AT_ONCE: usize = 2;

/// The key of the recorded runs whose store is sealed.
const KEY: &str = "a6c1d5e2b7f8094a3c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80910213";

/// The sums of many cuts.
#[derive(Default)]
struct Sums {
    cuts: usize,
    sealed: usize,
    compressed: usize,
    twice: usize,
    acknowledged: usize,
    judged: usize,
    lost: usize,
    duplicates: usize,
    failed_starts: usize,
    faults: Vec<String>,
}

impl Sums {
    fn add(&mut self, recording: &Recording, cut: &Cut, finding: &Finding) {
        self.cuts += 1;
        self.sealed += usize::from(recording.store.key.is_some());
        self.compressed += usize::from(recording.store.compressed);
        self.twice += usize::from(cut.twice);
        self.judged += finding.acknowledged;
        self.lost += finding.verdict.lost.len();
        self.duplicates += finding.verdict.duplicates_qos2.len();
        self.failed_starts += usize::from(finding.failed_start.is_some());
        if !finding.is_clean() {
            if let Some(folder) = std::env::var_os("DORMOUSE_TEST_KEEP") {
                let name = format!("{}-{}", recording.seed, cut.at);
                model::write(&finding.image, &PathBuf::from(folder).join(name));
            }
            let Cut { at, twice, seed, .. } = cut;
            let verdict = &finding.verdict;
            self.faults.push(format!(
                "cut before record {at} of {}, twice {twice}, seed {seed}: {verdict}\nstart: {:?}\nlog: {:?}\nbroken: {:?}\nlost: {:?}\ntwice: {:?}\nreordered: {:?}\ninvented: {:?}",
                recording.records.len(),
                finding.failed_start,
                finding.complaints,
                verdict.broken,
                first(&verdict.lost),
                first(&verdict.duplicates_qos2),
                first(&verdict.reordered),
                first(&verdict.invented),
            ));
        }
    }
}

fn first<T: std::fmt::Debug>(faults: &[T]) -> &[T] {
    &faults[..faults.len().min(5)]
}

/// Cuts one recorded run at many places.
fn cut(recording: &Recording, cuts: usize, chance: &mut Chance, sums: &Mutex<Sums>) {
    let places = judge::choose(recording, cuts, chance);
    let (give, take) = sync_channel::<Cut>(AT_ONCE);
    let take = Mutex::new(take);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Ok(cut) = take.lock().unwrap().recv() else { break };
                    let finding = judge::judge(recording, &cut);
                    sums.lock().unwrap().add(recording, &cut, &finding);
                }
            });
        }
        for cut in judge::cuts(recording, places, chance) {
            give.send(cut).unwrap();
        }
        drop(give);
    });
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts() {
    let cuts = setting("DORMOUSE_TEST_CUTS").map_or(200, |cuts| usize::try_from(cuts).unwrap());
    let seed = seed();
    let mut chance = Chance::new(seed);
    let sums = Mutex::new(Sums::default());
    let packing = |key, compressed| Packing { key, compressed };
    let mut stores =
        [packing(None, true), packing(Some(KEY), false), packing(None, false), packing(Some(KEY), true)]
            .into_iter()
            .cycle();
    while sums.lock().unwrap().cuts < cuts {
        let store = stores.next().unwrap_or_default();
        let recording = load::record(chance.next(), MESSAGES_PER_RUN, Syncs::Kept, store);
        let left = cuts - sums.lock().unwrap().cuts;
        sums.lock().unwrap().acknowledged += recording.ledger.acknowledged();
        eprintln!(
            "recorded: {} changes, {} syncs, journal generations {}, acknowledged {}, retained {} times, subscriptions and sessions changed {} times",
            recording.records.len(),
            recording.syncs(),
            recording.generations,
            recording.ledger.acknowledged(),
            recording.retainer.begun(),
            recording.changer.begun(),
        );
        cut(&recording, left.min(CUTS_PER_RUN), &mut chance, &sums);
    }
    let Sums {
        cuts,
        sealed,
        compressed,
        twice,
        acknowledged,
        judged,
        lost,
        duplicates,
        failed_starts,
        faults,
    } = sums.into_inner().unwrap();
    println!(
        "power cuts: seed {seed}, cuts {cuts} ({sealed} of a sealed store, {compressed} of a compressed one, {twice} with a second one during the start), acknowledged {acknowledged} (in force at the cuts {judged}), lost {lost}, QoS 2 duplicates {duplicates}, failed starts {failed_starts}, faulty cuts {}",
        faults.len()
    );
    assert!(faults.is_empty(), "seed {seed}: {} faulty cuts\n{}", faults.len(), first(&faults).join("\n\n"));
}

/// The rig's own test: a commit whose fdatasync is forgotten is found out.
#[test]
fn a_broker_that_does_not_sync_is_found_out() {
    let mut chance = Chance::new(seed());
    let recording = load::record(chance.next(), 1_000, Syncs::Forgotten, Packing::default());
    let sums = Mutex::new(Sums::default());
    cut(&recording, 16, &mut chance, &sums);
    let sums = sums.into_inner().unwrap();
    println!("without syncs: cuts {}, lost {}, faulty cuts {}", sums.cuts, sums.lost, sums.faults.len());
    assert!(sums.lost > 0 && sums.faults.len() > 1, "{} cuts, and hardly anything was lost", sums.cuts);
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    setting("DORMOUSE_TEST_SEED").unwrap_or(u64::from(now.subsec_nanos()))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
