//! Damaged disks: the broker starts, says so, and keeps what can be kept.

use std::{fs, path::Path, sync::Arc};

use super::{
    Time, WALL, database, message, open_sim, plain_frames, queued, session, settle, snapshot, target,
    truth::Chance, world::load_all,
};
use crate::{
    store::{
        Completion, Config, Gate, Journal, OpenError, Record, Recovered, Urgency, frame, medium::sim::SimDisk,
    },
    time::WallClock,
};

pub(super) const MESSAGES: u64 = 300;

fn config() -> Config {
    Config { generation_bytes: 32 << 10, ..Config::default() }
}

pub(super) fn open(dir: &Path) -> (Journal, Recovered) {
    let (journal, recovered) = Journal::open(dir, config(), WallClock(WALL)).unwrap();
    journal.set_clock(Time::default().clock());
    (journal, recovered)
}

/// A journal of several generations: a session first, then messages for it.
pub(super) fn fill(journal: &Journal) {
    journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    for seq in 0..MESSAGES {
        let stored = journal.message(Arc::new(message("a/b", &[u8::try_from(seq % 256).unwrap(); 400])));
        journal.complete(&stored, vec![target(1, seq)], Completion::default());
        settle(journal);
        assert!(journal.is_open(&Gate::Message(stored)));
    }
}

/// Overwrites blocks of a generation's data file from `skip` on.
fn harm(data: &Path, generation: u32, skip: usize, chance: &mut Chance) {
    let path = data.join(format!("journal/{generation:06}/db"));
    let mut bytes = fs::read(&path).unwrap();
    for block in bytes.chunks_mut(512).skip(skip).filter(|block| block.iter().any(|b| *b != 0)) {
        if chance.one_in(3) {
            block.fill(0xA5);
        }
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_generation_is_set_aside_and_the_rest_is_served() {
    let (mut saved, mut kept_for_people) = (0, 0);
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        fill(&journal);
        let generations = journal.stats().generations;
        assert!(generations >= 4);
        journal.close();
        drop(journal);
        harm(dir.path(), 2, 0, &mut Chance(seed));

        let (journal, recovered) = open(dir.path());
        assert!(recovered.damaged > 0);
        kept_for_people +=
            u32::from(dir.path().join("damaged/20270115T080000Z-generation-000002/db").exists());
        let queue = queued(&journal, &recovered.sessions[0]);
        let kept = queue.len() as u64;
        // One generation of messages is harmed, of which some can be saved.
        assert!((MESSAGES - 80..MESSAGES).contains(&kept), "{kept}");
        saved += kept;
        load_all(&journal, &recovered);
        for queued in queue {
            let body = queued.message.body().unwrap();
            assert!(body.payload.iter().all(|b| u64::from(*b) == queued.seq.0 % 256));
        }
        let gate = journal.append(Record::Gone(session(1)), Urgency::Now);
        settle(&journal);
        assert!(journal.is_open(&gate));
        journal.close();
        drop(journal);
        let (_, recovered) = open(dir.path());
        assert!(recovered.sessions.is_empty());
    }
    assert!(kept_for_people > 0);
    let untouched = 6 * (MESSAGES - 73);
    assert!(saved > untouched, "something is saved of what is harmed: {saved}");
}

#[test]
fn a_generation_that_is_only_noise_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    journal.close();
    drop(journal);
    let db = dir.path().join("journal/000003/db");
    let len = fs::metadata(&db).unwrap().len();
    fs::write(&db, vec![0x5A; usize::try_from(len).unwrap()]).unwrap();
    fs::write(dir.path().join("journal/000002/conf"), b"what is this").unwrap();
    let (journal, recovered) = open(dir.path());
    assert!(recovered.damaged >= 2);
    assert!(!dir.path().join("journal/000003").exists());
    assert!(recovered.sessions[0].queue.len() > 100);
    fill(&journal);
    journal.close();
}

#[test]
fn a_flipped_bit_costs_its_commit_and_is_counted() {
    for seed in 0..40 {
        let (disk, time) = (SimDisk::new(), Time::default());
        let (journal, _) = open_sim(&disk, &config(), &time);
        fill(&journal);
        drop(journal);
        assert!(disk.flip_bit(Chance(seed).next()));
        let (_, recovered) = open_sim(&disk, &config(), &time);
        let kept: usize = recovered.sessions.iter().map(|s| s.queue.len()).sum();
        assert!(recovered.damaged > 0, "seed {seed}");
        let all = usize::try_from(MESSAGES).unwrap();
        // The session's own record may be the one that is hit: then there is nobody to keep messages for.
        assert!(kept + 1 >= all || recovered.sessions.is_empty(), "seed {seed}: {kept}");
    }
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.close();
    drop(journal);
    let db = database(&dir.path().join("journal/000001"));
    let (_, mut bytes) = plain_frames(9, 9, 9, b"from the future").remove(0);
    bytes[3] = frame::VERSION + 1;
    let end = bytes.len() - 4;
    let sum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&sum);
    db.insert(99_u64.to_be_bytes(), bytes).unwrap();
    db.flush().unwrap();
    drop(db);
    let error = Journal::open(dir.path(), config(), WallClock(WALL)).unwrap_err();
    assert!(
        matches!(error, OpenError::NewerFormat { version, .. } if version == frame::VERSION + 1),
        "{error}"
    );
}

#[test]
fn what_a_cut_left_half_done_is_tidied_up() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    journal.close();
    drop(journal);
    let at = |name: &str| dir.path().join("journal").join(name);
    fs::create_dir_all(at("000099.new/blobs")).unwrap();
    // Deleting the oldest was begun; rebuilding the second had come to the last step.
    fs::create_dir_all(at("000000.deleted")).unwrap();
    fs::rename(at("000002"), at("000002.rebuilt")).unwrap();
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.damaged, 0);
    assert_eq!(recovered.sessions[0].queue.len() as u64, MESSAGES);
    assert!(!at("000099.new").exists() && !at("000000.deleted").exists() && at("000002").exists());
}

#[test]
fn a_snapshot_file_that_a_cut_left_unfinished_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal);
    journal.close();
    drop(journal);
    // sled writes one whenever it opens a database, and it is not synced until it is whole.
    let torn = dir.path().join("journal/000002/snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&torn, [0; 600]).unwrap();
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.damaged, 0);
    assert_eq!(recovered.sessions[0].queue.len() as u64, MESSAGES);
    assert!(!torn.exists());
}
