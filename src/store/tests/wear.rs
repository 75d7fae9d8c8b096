//! What is written for a message: plain, compressed, sealed, in small commits and large ones. The figures in
//! `docs/durability.md` are printed here.

use std::{fs, sync::Arc};

use super::{Time, WALL, key, message, settle, snapshot, target};
use crate::{
    store::{Completion, Compression, Config, Journal, KeySource, Record, Urgency},
    time::WallClock,
};

/// A reading of 150 bytes, and where it goes to.
fn reading(no: u64) -> (String, String) {
    let mut state = no.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let device = below(1_000);
    let mut payload = format!(
        "{{\"device\":\"sensor-{device:04}\",\"seq\":{},\"ts\":17635{:08},\"temperature\":{}.{:02},\"humidity\":{}.{},\"battery_mv\":{},\"rssi\":-{},\"state\":\"ok\",\"fw\":\"1.4.2\"}}",
        100_000 + no,
        no * 37 + below(37),
        15 + below(15),
        below(100),
        30 + below(40),
        below(10),
        3_000 + below(600),
        40 + below(50)
    );
    payload.truncate(150);
    (format!("plant/sensor-{device:04}"), format!("{payload:150}"))
}

/// Bytes this process has had written to a disk.
fn disk_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Time this thread, which does all the work, has been on a processor, in microseconds.
fn cpu_micros() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}

/// What one way of writing costs.
struct Cost {
    frames: f64,
    disk: f64,
    cpu_micros: f64,
}

/// Writes `commits` of so many messages each; bytes are for each of payload and topic.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn write(compression: Compression, key: KeySource, per_commit: u64, commits: u64) -> Cost {
    // Where this program is: not in memory, where nothing is written.
    let this = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir_in(this.parent().unwrap()).unwrap();
    let config = Config { compression, key, ..Config::default() };
    let (journal, _) = Journal::open(dir.path(), config, WallClock(WALL)).unwrap();
    journal.set_clock(Time::default().clock());
    journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    settle(&journal);
    let (before, disk, cpu) = (journal.stats(), disk_bytes(), cpu_micros());
    for no in 0..per_commit * commits {
        let (topic, payload) = reading(no);
        let stored = journal.message(Arc::new(message(&topic, payload.as_bytes())));
        journal.complete(&stored, vec![target(1, no)], Completion::default());
        if no % per_commit == per_commit - 1 {
            settle(&journal);
        }
    }
    let (after, disk, cpu) = (journal.stats(), disk_bytes() - disk, cpu_micros() - cpu);
    assert_eq!(after.commits - before.commits, commits);
    let kept = (after.bytes_kept - before.bytes_kept) as f64;
    journal.close();
    Cost {
        frames: (after.bytes_frames - before.bytes_frames) as f64 / kept,
        disk: disk as f64 / kept,
        cpu_micros: cpu / (per_commit * commits) as f64,
    }
}

#[test]
fn large_commits_cost_little_and_compressed_less() {
    println!("messages a commit | packed | bytes of frames | bytes to the disk | CPU us a message");
    let mut largest = Vec::new();
    for (per_commit, commits) in [(1, 300), (64, 400), (1_000, 40)] {
        for (name, compression, sealed) in [
            ("plain", Compression::None, false),
            ("lz4", Compression::Lz4, false),
            ("sealed", Compression::None, true),
            ("lz4, sealed", Compression::Lz4, true),
        ] {
            let source = if sealed { KeySource::Given(key('1')) } else { KeySource::None };
            let Cost { frames, disk, cpu_micros } = write(compression, source, per_commit, commits);
            println!("{per_commit:>5} | {name} | {frames:.2} | {disk:.2} | {cpu_micros:.1}");
            if per_commit == 1_000 {
                largest.push(frames);
            }
        }
    }
    let [plain, lz4, sealed, both] = largest.as_slice() else { panic!("{largest:?}") };
    assert!(*plain < 1.3 && *sealed < 1.02 * plain, "{largest:?}");
    assert!(*lz4 < 0.55 && *both < 1.02 * lz4, "{largest:?}");
}
