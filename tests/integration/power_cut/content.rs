//! The bytes of a file: what is sure, and what has been written since.

use std::collections::HashMap;

use super::chance::Chance;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Debug)]
enum Edit {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate { len: u64 },
}

/// A file's content as the disk and the page cache have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// What a completed sync covers.
    sure: Vec<u8>,
    /// What was done since, and how much was done before that.
    edits: Vec<Edit>,
    edits_before: u64,
    /// A sync has failed: later ones promise nothing.
    in_doubt: bool,
}

impl Content {
    pub(super) fn of(sure: Vec<u8>) -> Self {
        Self { sure, ..Self::default() }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.edits.push(Edit::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn truncate(&mut self, len: u64) {
        self.edits.push(Edit::Truncate { len });
    }

    /// How many edits there have been: what a sync that begins now will cover.
    pub(super) fn edits_so_far(&self) -> u64 {
        self.edits_before + len(&self.edits)
    }

    /// A sync that began after so many edits is complete.
    pub(super) fn synced(&mut self, edits: u64) {
        if self.in_doubt {
            return;
        }
        let covered = edits.saturating_sub(self.edits_before);
        for edit in self.edits.drain(..usize::try_from(covered).unwrap()) {
            edit.apply(&mut self.sure);
        }
        self.edits_before += covered;
    }

    /// A sync has failed: the system may have dropped what it should have written, and says so only once.
    pub(super) fn sync_failed(&mut self) {
        self.in_doubt = true;
    }

    /// Everything that was written.
    pub(super) fn now(&self) -> Vec<u8> {
        let mut all = self.sure.clone();
        for edit in &self.edits {
            edit.apply(&mut all);
        }
        all
    }

    /// What a power cut leaves: each sector, and the length, as they were at some moment since the last sync, not all at
    /// the same one.
    pub(super) fn after_a_cut(&self, chance: &mut Chance) -> Vec<u8> {
        if self.edits.is_empty() {
            return self.sure.clone();
        }
        let all = len(&self.edits);
        let mut moments = Moments { all, fate: chance.fate(), by_sector: HashMap::new() };
        let length_at = moments.choose(chance);
        let mut bytes = self.sure.clone();
        let mut length = len(&bytes);
        let mut final_length = length;
        for (no, edit) in (1..).zip(&self.edits) {
            let (from, to) = match edit {
                Edit::Write { offset, bytes } => (*offset, offset + len(bytes)),
                Edit::Truncate { len } => (*len, length),
            };
            length = match edit {
                Edit::Write { .. } => length.max(to),
                Edit::Truncate { len } => *len,
            };
            bytes.resize(usize::try_from(length.max(len(&bytes))).unwrap(), 0);
            for sector in sectors(from, to) {
                if moments.of_sector(sector.0 / SECTOR_BYTES, chance) < no {
                    continue;
                }
                let here = index(sector);
                match edit {
                    Edit::Write { offset, bytes: new } => {
                        bytes[here].copy_from_slice(&new[index((sector.0 - offset, sector.1 - offset))]);
                    }
                    Edit::Truncate { .. } => bytes[here].fill(0),
                }
            }
            if no <= length_at {
                final_length = length;
            }
        }
        bytes.resize(usize::try_from(final_length).unwrap(), 0);
        bytes
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: new } => {
                let here = index((*offset, offset + len(new)));
                if bytes.len() < here.end {
                    bytes.resize(here.end, 0);
                }
                bytes[here].copy_from_slice(new);
            }
            Self::Truncate { len } => bytes.resize(usize::try_from(*len).unwrap(), 0),
        }
    }
}

/// The moment each sector is from, counted in edits: 0 is the last sync.
struct Moments {
    all: u64,
    /// How many in 16 are new.
    fate: u64,
    by_sector: HashMap<u64, u64>,
}

impl Moments {
    fn choose(&self, chance: &mut Chance) -> u64 {
        if chance.below(16) >= self.fate {
            0
        } else if self.fate == 16 || chance.below(2) == 0 {
            self.all
        } else {
            chance.below(self.all + 1)
        }
    }

    fn of_sector(&mut self, sector: u64, chance: &mut Chance) -> u64 {
        if let Some(moment) = self.by_sector.get(&sector) {
            return *moment;
        }
        let moment = self.choose(chance);
        self.by_sector.insert(sector, moment);
        moment
    }
}

/// The range from `from` to `to` in pieces that do not cross a sector.
fn sectors(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let start = at;
        at = to.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
        (start < to).then_some((start, at))
    })
}

fn index((from, to): (u64, u64)) -> std::ops::Range<usize> {
    usize::try_from(from).unwrap()..usize::try_from(to).unwrap()
}

fn len<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap()
}

#[test]
fn a_cut_keeps_what_was_synced_and_any_sectors_of_the_rest() {
    let mut seen = std::collections::HashSet::new();
    for seed in 1..200 {
        let mut content = Content::of(vec![1; 1024]);
        content.write(0, &[2; 100]);
        let mark = content.edits_so_far();
        content.write(1000, &[3; 600]);
        content.synced(mark);
        let left = content.after_a_cut(&mut Chance::new(seed));
        assert!(left[..100].iter().all(|b| *b == 2) && left[100..1000].iter().all(|b| *b == 1));
        assert!(left.len() == 1024 || left.len() == 1600);
        let sector = |i: usize| left.get(i).copied();
        seen.insert((sector(1023), sector(1024), sector(1599)));
    }
    // The middle sector old and the end new, and the other way round; a file that is longer and has nothing in it.
    for wanted in [
        (Some(1), None, None),
        (Some(3), None, None),
        (Some(1), Some(3), Some(0)),
        (Some(3), Some(0), Some(0)),
        (Some(3), Some(3), Some(3)),
        (Some(1), Some(0), Some(0)),
    ] {
        assert!(seen.contains(&wanted), "{wanted:?} is not among {seen:?}");
    }
}

#[test]
fn after_a_failed_sync_nothing_is_sure() {
    let mut content = Content::default();
    content.write(0, &[1; 10]);
    content.sync_failed();
    content.synced(1);
    assert!((1..50).any(|seed| content.after_a_cut(&mut Chance::new(seed)).is_empty()));
}
