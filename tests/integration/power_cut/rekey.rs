//! Power cuts while a store is given another key: it opens with the old one or the new one, and holds what it held.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use super::{
    KEY,
    chance::Chance,
    disk::{Disk, Packing},
    load::{self, Syncs},
    model::{self, Model},
    seed,
    trace::{Change, Record},
};

/// Cuts of each rekeying.
const CUTS: usize = 24;

const NEW_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// `dormouse store` on a data folder, with the key at hand in the variable.
fn store(words: &[&str], data: &Path, key: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_")) {
        command.env_remove(name);
    }
    command.arg("store").args(words).arg("--data").arg(data).stdin(Stdio::null());
    command.envs(key.map(|key| ("DORMOUSE_STORE_KEY", key)));
    command
}

/// What a store holds, without the moment; or why it does not open.
fn exported(data: &Path, key: Option<&str>) -> Result<String, String> {
    let Output { status, stdout, stderr } = store(&["export"], data, key).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if !status.success() {
        return Err(text(stderr));
    }
    Ok(text(stdout).split_once('\n').unwrap().1.to_owned())
}

/// Where to cut: at every rename, and anywhere.
fn places(records: &[Record], chance: &mut Chance) -> Vec<usize> {
    let renames = (0..records.len()).filter(|at| matches!(records[*at].change, Change::Rename { .. }));
    let mut places: Vec<usize> = renames.flat_map(|at| [at, at + 1]).collect();
    let all = u64::try_from(records.len()).unwrap() + 1;
    // The last ones are those that put the new journal in its place.
    places.drain(..places.len().saturating_sub(CUTS / 2));
    places.extend((0..CUTS / 2).map(|_| usize::try_from(chance.below(all)).unwrap()));
    places.sort_unstable();
    places
}

/// Gives a store another key on a recorded disk, and cuts that at many places. Returns the store as it is afterwards, and how
/// many of the cuts left the old key and how many the new.
fn cut(before: &Model, from: Option<&str>, to: Option<&str>, chance: &mut Chance) -> (Model, [usize; 2]) {
    let disk = Disk::holding(&before.now());
    let data = disk.root().join("data");
    let all = exported(&data, from).unwrap();
    assert!(all.lines().count() > 100, "hardly anything is in the store");
    let keys = tempfile::tempdir().unwrap();
    let new = keys.path().join("key");
    let mut words = vec!["rekey"];
    if let Some(to) = to {
        fs::write(&new, to).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        words.extend(["--new-key-file", new.to_str().unwrap()]);
    } else {
        words.push("--plain");
    }
    let (mut model, records) = disk.play(&mut store(&words, &data, from));
    let (mut left, mut played) = ([0, 0], 0);
    for at in places(&records, chance) {
        records[played..at].iter().for_each(|record| model.play(record));
        played = at;
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let root = folder.path().join("root");
        model::write(&model.after_a_cut(chance), &root);
        let data = root.join("data");
        let found = [from, to].map(|key| exported(&data, key));
        let opens = found.iter().position(Result::is_ok);
        let opens = opens.unwrap_or_else(|| panic!("cut before record {at}: {found:?}"));
        assert!(found.iter().filter(|found| found.is_ok()).count() == 1, "both keys open it");
        assert!(found[opens].as_ref() == Ok(&all), "cut before record {at}: something else is in it");
        left[opens] += 1;
        // A start tidies up, sets nothing aside and leaves the same.
        let key = [from, to][opens];
        let output = store(&["compact"], &data, key).output().unwrap();
        assert!(
            output.status.success(),
            "cut before record {at}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(exported(&data, key).as_ref() == Ok(&all), "cut before record {at}: after a start");
        let mut names: Vec<_> =
            fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LOCK", "journal", "spare"]);
    }
    records[played..].iter().for_each(|record| model.play(record));
    (model, left)
}

#[test]
fn a_power_cut_while_the_key_is_changed_leaves_the_old_or_the_new_one() {
    let mut chance = Chance::new(seed());
    let recording = load::record(chance.next(), 300, Syncs::Kept, Packing { key: None, compressed: true });
    let mut model = recording.before.clone();
    recording.records.iter().for_each(|record| model.play(record));
    let mut sums = [0, 0];
    for (from, to) in [(None, Some(KEY)), (Some(KEY), Some(NEW_KEY)), (Some(NEW_KEY), None)] {
        let (after, left) = cut(&model, from, to, &mut chance);
        model = after;
        sums = [sums[0] + left[0], sums[1] + left[1]];
    }
    println!(
        "rekey: cuts {}, opened with the old key {}, with the new {}",
        sums[0] + sums[1],
        sums[0],
        sums[1]
    );
    assert!(sums[0] > 0 && sums[1] > 0, "{sums:?}");
}
