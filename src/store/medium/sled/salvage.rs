//! Saving what can be saved of a generation that sled cannot read, or reads only in part.
//!
//! sled writes values as they are, so a frame lies in the data file in one piece and can be found by its first bytes
//! and proven by its checksum. What is found makes a new generation in the old one's place. The damaged folder is kept
//! for people to look at.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use memchr::memmem;

use super::{
    DELETED, MediumError, REBUILT, SledMedium,
    census::Census,
    chart::{self, Chart},
    path_of, remove_if_there, rename_durably, suffixed,
};
use crate::{
    store::{
        aside::Aside,
        frame::{self, FRAME_BYTES_MAX, Frame, FrameError},
    },
    sync::lock,
};

/// How much of the data file is looked at in one go.
const WINDOW_BYTES: usize = 1 << 20;

/// What is known of a generation.
struct Finding {
    no: u32,
    sight: Sight,
}

enum Sight {
    /// The first and the last of its commits: it is whole, as its chart says.
    Charted(u64, u64),
    /// The frames sled shows.
    Shown(Census),
    /// sled fails.
    Failed,
}

impl Sight {
    fn ends(&self) -> Option<(u64, u64)> {
        match self {
            Self::Charted(first, last) => Some((*first, *last)),
            Self::Shown(census) => census.ends(),
            Self::Failed => None,
        }
    }

    fn has_gaps(&self) -> bool {
        match self {
            Self::Charted(..) => false,
            Self::Shown(census) => census.has_gaps(),
            Self::Failed => true,
        }
    }
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Sound,
    /// The last commit, which nobody was told of or which sled had lost, was put back.
    PutBack,
    /// Damaged; what could be saved has taken its place.
    Saved,
    /// Damaged, and nothing could be saved.
    Lost,
}

impl SledMedium {
    /// Looks at every generation that is not charted: those that sled cannot read, those at a gap in the commits, and the
    /// newest, whose end no later commit vouches for, are compared with what lies in their files.
    pub(super) fn check(&self, all: &[u32], aside: &Aside) -> Result<u64, MediumError> {
        let mut findings = Vec::with_capacity(all.len());
        for &no in all {
            let path = path_of(&self.dir, no);
            let chart = if all.last() == Some(&no) { None } else { Chart::open(no, &path) };
            let charted = chart.map(|chart| chart.commits());
            let sight = match charted {
                Some((first, last)) => Sight::Charted(first, last),
                None => self.look(no)?,
            };
            findings.push(Finding { no, sight });
        }
        let ends: Vec<_> = findings.iter().map(|finding| finding.sight.ends()).collect();
        let joins = |before: usize| match (ends.get(before), ends.get(before + 1)) {
            (Some(Some((_, last))), Some(Some((first, _)))) => last + 1 == *first,
            _ => false,
        };
        let mut damaged = 0;
        let mut before = 0;
        let newest = findings.len().saturating_sub(1);
        for (at, mut finding) in findings.into_iter().enumerate() {
            let gaps = finding.sight.has_gaps();
            let is_joined = (at == 0 || joins(at - 1)) && joins(at);
            let from = ends.get(at).copied().flatten().map_or(before + 1, |(first, _)| first);
            let outcome = if gaps || !is_joined {
                if let Sight::Charted(..) = finding.sight {
                    chart::remove(&path_of(&self.dir, finding.no))?;
                    finding.sight = self.look(finding.no)?;
                }
                self.compare(&finding, from, at == newest, aside)?
            } else {
                Outcome::Sound
            };
            damaged += u64::from(matches!(outcome, Outcome::Saved | Outcome::Lost));
            if outcome != Outcome::Lost {
                lock(&self.old).all.push(finding.no);
            }
            before = ends.get(at).copied().flatten().map_or(before, |(_, last)| last);
        }
        Ok(damaged)
    }

    /// The frames sled shows. An error is the machine's fault, not the generation's.
    fn look(&self, no: u32) -> Result<Sight, MediumError> {
        let db = path_of(&self.dir, no).join("db");
        // A generation gets its name when its file is whole. sled would take this one for a new database.
        if !fs::metadata(&db).is_ok_and(|db| db.len() > 0) {
            tracing::error!(
                generation = no,
                "a part of the journal is damaged: its data file is empty or missing"
            );
            return Ok(Sight::Failed);
        }
        let mut census = Census::default();
        let mut newer = None;
        let result = self.open_generation(no, super::OLD_CACHE_BYTES).and_then(|generation| {
            generation.scan(&mut |_, bytes| match frame::decode(bytes) {
                Ok(frame) => census.see(&frame.header),
                Err(FrameError::Newer(version)) => newer = Some(version),
                Err(_) => {}
            })
        });
        match result {
            Ok(()) => newer.map_or(Ok(Sight::Shown(census)), |version| Err(MediumError::Newer(version))),
            Err(MediumError::Io(error)) if super::is_environment(&error) => Err(error.into()),
            Err(error) => {
                tracing::error!(generation = no, %error, "a part of the journal is damaged");
                // Not ours to judge, if a newer build wrote it.
                find_frames(&db, &mut |_, _, _| {})?
                    .map_or(Ok(Sight::Failed), |version| Err(MediumError::Newer(version)))
            }
        }
    }

    /// Compares what sled shows of a generation with its file, and rebuilds it if something is missing.
    fn compare(
        &self,
        finding: &Finding,
        from: u64,
        newest: bool,
        aside: &Aside,
    ) -> Result<Outcome, MediumError> {
        let no = finding.no;
        let db = path_of(&self.dir, no).join("db");
        let mut raw = Census::default();
        find_frames(&db, &mut |frame, _, _| raw.see(&frame.header))?;
        let nothing = Census::default();
        let (shown, fails) = match &finding.sight {
            Sight::Shown(census) => (census, false),
            _ => (&nothing, true),
        };
        let missing = raw.missing_in(shown, from);
        if missing.is_empty() && !fails {
            return Ok(Outcome::Sound);
        }
        let last = shown.ends().map_or(0, |(_, last)| last);
        let is_tail = newest && !fails && missing.len() == 1 && missing.keys().all(|c| *c >= last);

        let mut frames = BTreeMap::new();
        find_frames(&db, &mut |frame, bytes, _| {
            if missing.get(&frame.header.commit) == Some(&frame.header.run) {
                frames.insert(frame.header.frame, bytes.to_vec());
            }
        })?;
        if !fails {
            self.open_generation(no, super::OLD_CACHE_BYTES)?.scan(&mut |frame, bytes| {
                frames.entry(frame).or_insert_with(|| bytes.to_vec());
            })?;
        }
        let saved = frames.len();
        if saved > 0 {
            super::make(&self.dir, no, REBUILT, &mut frames.into_iter(), &self.disk)?;
        }
        let old = path_of(&self.dir, no);
        if is_tail {
            tracing::info!(generation = no, "the last commit was whole but not entered: it was put back");
            rename_durably(&old, &suffixed(&self.dir, no, DELETED))?;
        } else {
            let away = aside.take(&old, &format!("generation-{no:06}"))?;
            tracing::error!(
                generation = no,
                frames_saved = saved,
                commits_found = missing.len(),
                kept_at = %away.display(),
                "a damaged part of the journal was set aside; serving goes on with what could be saved"
            );
        }
        if saved > 0 {
            rename_durably(&suffixed(&self.dir, no, REBUILT), &old)?;
        }
        remove_if_there(&suffixed(&self.dir, no, DELETED))?;
        Ok(match (is_tail, saved) {
            (true, _) => Outcome::PutBack,
            (false, 0) => Outcome::Lost,
            (false, _) => Outcome::Saved,
        })
    }
}

/// Shows every whole frame in a file and where it begins, some more than once. Parts of the file that cannot be read are passed over. Returns
/// the version of a newer build's frames if most are: a few may be what somebody has put into a payload.
pub(super) fn find_frames(
    path: &Path,
    each: &mut dyn FnMut(&Frame<'_>, &[u8], u64),
) -> io::Result<Option<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let len = file.metadata()?.len();
    let mut seen = Seen::default();
    let mut at = 0;
    let mut window = vec![0; WINDOW_BYTES + FRAME_BYTES_MAX];
    while at < len {
        file.seek(SeekFrom::Start(at))?;
        let filled = fill(&mut file, &mut window);
        seen.look(window.get(..filled).unwrap_or_default(), at, each);
        at += WINDOW_BYTES as u64;
    }
    Ok(seen.newer.filter(|_| seen.newer_frames > seen.frames))
}

/// What was found in a file so far.
#[derive(Debug, Default)]
struct Seen {
    frames: u64,
    newer_frames: u64,
    newer: Option<u8>,
    /// Where in the next window the last frame of this one ends.
    end: usize,
}

impl Seen {
    fn look(&mut self, window: &[u8], base: u64, each: &mut dyn FnMut(&Frame<'_>, &[u8], u64)) {
        let mut end = self.end;
        for at in memmem::find_iter(window, &frame::MAGIC) {
            let found = window.get(at..).unwrap_or_default();
            // What looks like a frame inside of one is part of a payload; what begins beyond the window is the next one's.
            if at < end || at >= WINDOW_BYTES {
                continue;
            }
            match frame::decode_prefix(found) {
                Ok((frame, len)) => {
                    each(&frame, found.get(..len).unwrap_or_default(), base + at as u64);
                    end = at + len;
                    self.frames += 1;
                }
                Err(FrameError::Newer(version)) => {
                    self.newer = Some(version);
                    self.newer_frames += 1;
                }
                Err(_) => {}
            }
        }
        self.end = end.saturating_sub(WINDOW_BYTES);
    }
}

/// Reads until the buffer is full, the file ends or it cannot be read.
fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..)
        && !free.is_empty()
    {
        match file.read(free) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}
