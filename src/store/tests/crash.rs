//! Crashes on the simulated disk: whatever was promised is there, and nothing else is.

use super::{
    Time, key, open_sim, queued,
    truth::{Chance, Truth},
    world::{World, load_all},
};
use crate::store::{Compression, Config, KeySource, medium::sim::SimDisk};

/// Generations so small that compaction never rests.
fn config(seed: u64) -> Config {
    // Every other one is sealed, and two of four are compressed.
    let compression = if seed / 2 % 2 == 1 { Compression::Lz4 } else { Compression::None };
    let key = if seed % 2 == 1 { KeySource::Given(key('1')) } else { KeySource::None };
    Config { generation_bytes: 8 << 10, compression, key, ..Config::default() }
}

/// Opens the journal and compares it with what the run before it was owed.
fn reopen(disk: &SimDisk, config: &Config, time: &Time, before: Option<&World>) -> Result<World, String> {
    let (journal, recovered) = open_sim(disk, config, time);
    load_all(&journal, &recovered);
    let found = Truth::of(&journal, &recovered)?;
    if let Some(before) = before {
        before.check(&found)?;
    }
    for queued in recovered.sessions.iter().flat_map(|found| queued(&journal, found)) {
        queued.message.unload();
    }
    let next_body = before.map_or(1, World::next_body);
    Ok(World::new(journal, &recovered, found, time.clone(), next_body))
}

/// Several lives of a broker with a crash after each.
fn lives(seed: u64, disk: &SimDisk) -> Result<(), String> {
    let config = &config(seed);
    let (time, mut chance) = (Time::default(), Chance(seed));
    disk.set_in_memory(seed % 9);
    let mut world = reopen(disk, config, &time, None)?;
    for _ in 0..4 {
        for _ in 0..chance.below(500) {
            world.act(&mut chance);
        }
        // The power goes at once, or some way into what the disk is asked for next.
        if chance.one_in(2) {
            disk.fail_after(chance.below(8));
            while !world.journal.poisoned() {
                world.act(&mut chance);
                world.step();
            }
        }
        if chance.one_in(3) {
            disk.kill();
        } else {
            disk.cut(chance.next());
        }
        world = reopen(disk, config, &time, Some(&world))?;
    }
    world.journal.close();
    let all = world.all();
    let found = reopen(disk, config, &time, None)?.all();
    if found != all {
        return Err(format!("after closing, found {found:#?}\nexpected {all:#?}"));
    }
    Ok(())
}

#[test]
fn whatever_happens_nothing_promised_is_lost_and_nothing_done_comes_back() {
    for seed in 0..200 {
        if let Err(error) = lives(seed, &SimDisk::new()) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn a_cut_at_any_operation_of_the_disk_keeps_the_promise() {
    for at in 0..150 {
        let (disk, time, mut chance) = (SimDisk::new(), Time::default(), Chance(77));
        let mut world = reopen(&disk, &config(at), &time, None).unwrap();
        disk.fail_after(at);
        while !world.journal.poisoned() {
            world.act(&mut chance);
        }
        disk.cut(at.wrapping_mul(0x9e37_79b9));
        if let Err(error) = reopen(&disk, &config(at), &time, Some(&world)) {
            panic!("cut at operation {at}: {error}");
        }
    }
}

#[test]
fn a_disk_that_lies_is_found_out() {
    let found_out = (0..20).filter(|seed| {
        let disk = SimDisk::new();
        disk.skip_sync();
        lives(*seed, &disk).is_err()
    });
    assert!(found_out.count() >= 18);
}

#[test]
fn space_is_given_back() {
    let (disk, time, mut chance) = (SimDisk::new(), Time::default(), Chance(5));
    let mut world = reopen(&disk, &config(0), &time, None).unwrap();
    let mut live_most = 0;
    for _ in 0..20_000 {
        world.act(&mut chance);
        let stats = world.journal.stats();
        live_most = live_most.max(stats.live_bytes);
        // Twice what was live, the floor of two generations, and what is on its way.
        let bound = 2 * live_most + 12 * config(0).generation_bytes;
        assert!(stats.frame_bytes <= bound, "{stats:?}");
    }
    assert!(world.journal.stats().bytes_frames > 50 * config(0).generation_bytes);
    for _ in 0..100 {
        time.advance(1_000);
        world.step();
    }
    let stats = world.journal.stats();
    let bound = (2 * stats.live_bytes).max(2 * config(0).generation_bytes);
    assert!(stats.frame_bytes <= bound, "{stats:?}");
    assert_eq!(disk.generations() as u64, stats.generations);
}
