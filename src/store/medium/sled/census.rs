//! Which commits are there: what sled shows beside what lies in its file.
//!
//! A damaged file does not always make sled fail. It may take the damage for the end of its log and show an older
//! state without a word. Commits are numbered without gaps, and frames lie in the file as they were written; so both
//! a missing commit and one that sled does not show are found out.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::frame::FrameHeader;

/// The frames seen in one place.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Commit, run, count, index.
    frames: BTreeSet<(u64, u32, u32, u32)>,
}

impl Census {
    pub(super) fn see(&mut self, header: &FrameHeader) {
        self.frames.insert((header.commit, header.run, header.count, header.index));
    }

    /// The lowest and the highest number of a commit, whole or not.
    pub(super) fn ends(&self) -> Option<(u64, u64)> {
        Some((self.frames.first()?.0, self.frames.last()?.0))
    }

    /// Whether a number between the lowest and the highest is missing.
    pub(super) fn has_gaps(&self) -> bool {
        let numbers: BTreeSet<u64> = self.frames.iter().map(|(commit, ..)| *commit).collect();
        self.ends().is_some_and(|(first, last)| last - first + 1 != numbers.len() as u64)
    }

    /// The whole commits and the run each is of. A number used twice, because a power cut took its first use, counts
    /// for the later run; what an earlier run has beyond the start of a later one was lost to that cut as well.
    pub(super) fn whole(&self) -> BTreeMap<u64, u32> {
        let mut seen: BTreeMap<(u64, u32, u32), u32> = BTreeMap::new();
        for (commit, run, count, _) in &self.frames {
            *seen.entry((*commit, *run, *count)).or_default() += 1;
        }
        let mut whole = BTreeMap::new();
        for ((commit, run, count), frames) in seen {
            if frames == count {
                whole.insert(commit, run);
            }
        }
        let mut latest = 0;
        whole.retain(|_, run| {
            latest = latest.max(*run);
            *run == latest
        });
        whole
    }

    /// The commits from number `from` on that are whole here, or here and in `shown` together, and not in `shown`.
    pub(super) fn missing_in(&self, shown: &Self, from: u64) -> BTreeMap<u64, u32> {
        let known = shown.whole();
        let mut all =
            Self { frames: self.frames.iter().filter(|(commit, ..)| *commit >= from).copied().collect() };
        all.frames.extend(shown.frames.iter().copied());
        all.whole().into_iter().filter(|(commit, run)| known.get(commit) != Some(run)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Census;
    use crate::store::frame::FrameHeader;

    fn census(frames: &[(u64, u32, u32, u32)]) -> Census {
        let mut census = Census::default();
        for &(commit, run, index, count) in frames {
            census.see(&FrameHeader { run, commit, frame: 0, index, count });
        }
        census
    }

    #[test]
    fn gaps_and_torn_commits_are_seen() {
        let good = census(&[(4, 1, 0, 1), (5, 1, 0, 2), (5, 1, 1, 2), (6, 1, 1, 2)]);
        assert!(!good.has_gaps());
        assert_eq!(good.whole(), BTreeMap::from([(4, 1), (5, 1)]));
        assert!(census(&[(4, 1, 0, 1), (6, 1, 0, 1)]).has_gaps());
    }

    #[test]
    fn what_a_cut_took_before_a_later_run_stays_away() {
        // Run 1 lost commits 5 to 7; run 2 has written 5 and 6 since.
        let shown = census(&[(4, 1, 0, 1), (5, 2, 0, 1), (6, 2, 0, 1)]);
        let raw =
            census(&[(4, 1, 0, 1), (5, 1, 0, 1), (5, 2, 0, 1), (6, 1, 0, 1), (6, 2, 0, 1), (7, 1, 0, 1)]);
        assert_eq!(raw.missing_in(&shown, 4), BTreeMap::new());
    }

    #[test]
    fn what_sled_does_not_show_is_missed() {
        let shown = census(&[(4, 1, 0, 1)]);
        let raw = census(&[(2, 1, 0, 1), (4, 1, 0, 1), (5, 1, 0, 1), (6, 1, 0, 2)]);
        assert_eq!(raw.missing_in(&shown, 4), BTreeMap::from([(5, 1)]));
    }
}
