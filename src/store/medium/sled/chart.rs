//! Charts: what makes a generation that is written to no more readable without sled.
//!
//! Opening a database takes sled tens of milliseconds and megabytes, and reading a frame from it the page of eight others.
//! But a value lies in sled's data file in one piece. So when a generation is closed, sled is asked once more what it
//! shows, and a *chart* says where in the file each of those frames lies: a file beside sled's, durable after everything it
//! speaks of. From then on frames are read from there.
//!
//! What sled shows is the truth, and a chart only a shorter way to it. A data file may have frames that sled does not show:
//! of a commit that a power cut has undone, whose numbers were used again since. So a chart names frames by their
//! checksums, and a frame is good only if it stands where the chart says with the checksum the chart says. When one is not,
//! the chart goes, and sled is asked again. Only the newest generation is written to, and it has no chart.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, IoSliceMut, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use rustix::io::{ReadWriteFlags, preadv2};

use super::{MediumError, census::Census, salvage::find_frames};
use crate::{
    folder,
    store::frame::{self, FRAME_BYTES_MAX},
};

/// The chart's file in its generation's folder.
const NAME: &str = "chart";
const MAKING: &str = "chart.new";
/// Magic and version.
const BEGINNING: [u8; 4] = *b"DMC\x01";
/// The beginning, the generation, its first and last commit, its first frame, the number of frames.
const HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 8 + 4;
const SPOT_BYTES: usize = 14;
const CHECKSUM_BYTES: usize = 4;
/// How many charts are kept in memory: some 70 KiB each at 16 MiB a generation.
const OPEN_MAX: usize = 64;

/// The frames of a closed generation.
#[derive(Debug)]
pub(super) struct Chart {
    no: u32,
    /// sled's data file.
    db: File,
    commits: (u64, u64),
    first_frame: u64,
    /// In the order of their numbers.
    spots: Vec<Spot>,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    /// Its number, counted from the first frame's.
    frame: u32,
    offset: u32,
    checksum: u32,
    len: u16,
}

impl Chart {
    /// Reads the chart of the generation in the folder `path`; `None` if it has none that is good.
    pub(super) fn open(no: u32, path: &Path) -> Option<Self> {
        let opened = fs::read(path.join(NAME)).and_then(|bytes| {
            let (of, commits, first_frame, spots) = read(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            let db = File::open(path.join("db"))?;
            if of == no {
                Ok(Self { no, db, commits, first_frame, spots })
            } else {
                Err(io::ErrorKind::InvalidData.into())
            }
        });
        match opened {
            Ok(chart) => Some(chart),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(generation = no, %error, "the chart of a part of the journal is not good");
                }
                None
            }
        }
    }

    /// The numbers of the first and the last commit: all between them are there.
    pub(super) fn commits(&self) -> (u64, u64) {
        self.commits
    }

    /// Reads a frame and checks it; false if the chart does not name it or it is not where the chart says.
    pub(super) fn read(&self, frame: u64, into: &mut Vec<u8>) -> bool {
        self.find(frame).is_some_and(|spot| self.fetch(spot, into))
    }

    /// The same, if the system has it in memory: false, too, where the disk would have to be waited for.
    pub(super) fn read_at_hand(&self, frame: u64, into: &mut Vec<u8>) -> bool {
        self.find(frame).is_some_and(|spot| {
            into.resize(usize::from(spot.len), 0);
            let mut parts = [IoSliceMut::new(into)];
            let read = preadv2(&self.db, &mut parts, u64::from(spot.offset), ReadWriteFlags::NOWAIT);
            read == Ok(usize::from(spot.len)) && self.is_good(spot, into)
        })
    }

    fn find(&self, frame: u64) -> Option<Spot> {
        let number = u32::try_from(frame.checked_sub(self.first_frame)?).ok()?;
        // Most generations miss none.
        let guess = self.spots.get(number as usize).filter(|spot| spot.frame == number);
        if let Some(spot) = guess {
            return Some(*spot);
        }
        let at = self.spots.binary_search_by_key(&number, |spot| spot.frame).ok()?;
        self.spots.get(at).copied()
    }

    /// Shows every frame, by number; false as soon as one is not where the chart says.
    pub(super) fn scan(&self, each: &mut dyn FnMut(u64, &[u8])) -> bool {
        let mut bytes = Vec::with_capacity(FRAME_BYTES_MAX);
        self.spots.iter().all(|spot| {
            let is_there = self.fetch(*spot, &mut bytes);
            if is_there {
                each(self.number(*spot), &bytes);
            }
            is_there
        })
    }

    fn number(&self, spot: Spot) -> u64 {
        self.first_frame + u64::from(spot.frame)
    }

    fn fetch(&self, spot: Spot, bytes: &mut Vec<u8>) -> bool {
        bytes.resize(usize::from(spot.len), 0);
        self.db.read_exact_at(bytes, u64::from(spot.offset)).is_ok() && self.is_good(spot, bytes)
    }

    fn is_good(&self, spot: Spot, bytes: &[u8]) -> bool {
        checksum(bytes) == Some(spot.checksum)
            && frame::decode(bytes).is_ok_and(|frame| frame.header.frame == self.number(spot))
    }
}

/// What sled shows of a generation, gathered to be charted.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Number, checksum, length.
    frames: Vec<(u64, u32, u16)>,
    census: Census,
    /// Something that no chart can say.
    is_odd: bool,
}

impl Shown {
    /// The next frame.
    pub(super) fn see(&mut self, no: u64, bytes: &[u8]) {
        match (frame::decode(bytes), checksum(bytes), u16::try_from(bytes.len())) {
            (Ok(frame), Some(checksum), Ok(len)) if frame.header.frame == no => {
                self.census.see(&frame.header);
                self.frames.push((no, checksum, len));
            }
            _ => self.is_odd = true,
        }
    }

    /// Charts the generation in the folder `path`, which shows this and is written to no more, durably. False if that
    /// cannot be: something is missing or damaged, and every start looks again. An empty one needs none.
    pub(super) fn chart(self, no: u32, path: &Path) -> Result<bool, MediumError> {
        let (Some(commits), Some((first_frame, ..))) = (self.census.ends(), self.frames.first().copied())
        else {
            return Ok(!self.is_odd);
        };
        if self.is_odd || self.census.has_gaps() {
            return Ok(false);
        }
        let mut found: HashMap<(u64, u32), u32> = HashMap::new();
        find_frames(&path.join("db"), &mut |frame, bytes, offset| {
            if let (Some(checksum), Ok(offset)) = (checksum(bytes), u32::try_from(offset)) {
                found.insert((frame.header.frame, checksum), offset);
            }
        })?;
        let spot = |(no, checksum, len): (u64, u32, u16)| {
            let frame = u32::try_from(no.checked_sub(first_frame)?).ok()?;
            Some(Spot { frame, offset: *found.get(&(no, checksum))?, checksum, len })
        };
        let Some(spots) = self.frames.iter().copied().map(spot).collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        let making = path.join(MAKING);
        let mut file = File::create(&making)?;
        file.write_all(&write(no, commits, first_frame, &spots))?;
        file.sync_all()?;
        fs::rename(&making, path.join(NAME))?;
        folder::sync(path)?;
        Ok(true)
    }
}

/// Takes the chart off the generation in the folder `path`, if it has one. Durable with the folder.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path.join(NAME)) {
        // What is no file is no chart.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// The charts read from lately, the last one last.
#[derive(Debug, Default)]
pub(super) struct Charts {
    open: Vec<Arc<Chart>>,
}

impl Charts {
    /// The chart of a generation, if it was read from lately.
    pub(super) fn get(&mut self, no: u32) -> Option<Arc<Chart>> {
        let at = self.open.iter().position(|chart| chart.no == no)?;
        let found = self.open.remove(at);
        self.open.push(Arc::clone(&found));
        Some(found)
    }

    /// Takes one in, in the place of the one that nobody has read from for longest.
    pub(super) fn insert(&mut self, chart: Arc<Chart>) {
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(chart);
    }

    /// The generation is about to be deleted, or its chart has gone.
    pub(super) fn forget(&mut self, no: u32) {
        self.open.retain(|chart| chart.no != no);
    }
}

fn checksum(frame: &[u8]) -> Option<u32> {
    frame.last_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn write(no: u32, commits: (u64, u64), first_frame: u64, spots: &[Spot]) -> Vec<u8> {
    let count =
        u32::try_from(spots.len()).expect("frames are counted from the first one's number in 32 bits");
    let mut out = Vec::with_capacity(HEADER_BYTES + spots.len() * SPOT_BYTES + CHECKSUM_BYTES);
    out.extend_from_slice(&BEGINNING);
    out.extend_from_slice(&no.to_le_bytes());
    for number in [commits.0, commits.1, first_frame] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&count.to_le_bytes());
    for spot in spots {
        for number in [spot.frame, spot.offset, spot.checksum] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&spot.len.to_le_bytes());
    }
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

type Parts = (u32, (u64, u64), u64, Vec<Spot>);

fn read(bytes: &[u8]) -> Option<Parts> {
    let (covered, sum) = bytes.split_last_chunk()?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*sum) {
        return None;
    }
    let rest = covered.strip_prefix(&BEGINNING)?;
    let (no, rest) = rest.split_first_chunk()?;
    let (first, rest) = rest.split_first_chunk()?;
    let (last, rest) = rest.split_first_chunk()?;
    let (first_frame, rest) = rest.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    if u32::from_le_bytes(*count) as usize * SPOT_BYTES != rest.len() {
        return None;
    }
    let spots = rest.chunks_exact(SPOT_BYTES).map(spot).collect::<Option<_>>()?;
    let commits = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    Some((u32::from_le_bytes(*no), commits, u64::from_le_bytes(*first_frame), spots))
}

fn spot(bytes: &[u8]) -> Option<Spot> {
    let (frame, rest) = bytes.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (len, _) = rest.split_first_chunk()?;
    Some(Spot {
        frame: u32::from_le_bytes(*frame),
        offset: u32::from_le_bytes(*offset),
        checksum: u32::from_le_bytes(*checksum),
        len: u16::from_le_bytes(*len),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs::{self, File},
        io::IoSliceMut,
        os::unix::fs::FileExt as _,
        path::{Path, PathBuf},
        sync::mpsc::sync_channel,
        thread,
    };

    use rustix::io::{ReadWriteFlags, preadv2};

    use super::{Chart, NAME, Shown, read, write};
    use crate::{
        store::{
            aside::Aside,
            frame::FRAME_BYTES_MAX,
            medium::{
                Found, Medium as _, MediumError,
                sled::{SledMedium, path_of},
            },
            tests::plain_frames,
        },
        sync::lock,
        time::WallClock,
    };

    const FRAMES: u64 = 400;

    /// The only frame of a commit; `fill` tells frames with one number apart.
    fn one(no: u64, fill: u8) -> Vec<u8> {
        let body = vec![fill; 100 + usize::try_from(no * 37 % 3_000).unwrap()];
        plain_frames(1, no, no, &body).remove(0).1
    }

    fn open(dir: &Path) -> SledMedium {
        let aside = Aside::new(dir.join("damaged"), WallClock::UNKNOWN);
        SledMedium::open(&dir.join("journal"), &aside).unwrap()
    }

    fn folder(dir: &Path, no: u32) -> PathBuf {
        path_of(&dir.join("journal"), no)
    }

    /// A closed generation, some of whose frames were written twice, as happens after a power cut, and a newer one.
    /// Returns what sled shows of the closed one.
    fn written(dir: &Path) -> BTreeMap<u64, Vec<u8>> {
        let medium = open(dir);
        medium.new_generation(1).unwrap();
        let mut truth = BTreeMap::new();
        for first in (1..=FRAMES).step_by(20) {
            for fill in [b'a', b'b'] {
                let numbers = (first..first + 20).filter(|no| fill == b'a' || no % 3 == 0);
                let frames: Vec<_> = numbers.map(|no| (no, one(no, fill))).collect();
                truth.extend(frames.iter().cloned());
                medium.apply(frames).unwrap();
                medium.sync().unwrap();
            }
        }
        medium.new_generation(2).unwrap();
        medium.apply(vec![(FRAMES + 1, one(FRAMES + 1, b'c'))]).unwrap();
        medium.sync().unwrap();
        truth
    }

    fn scanned(medium: &SledMedium, no: u32) -> Result<BTreeMap<u64, Vec<u8>>, MediumError> {
        let mut shown = BTreeMap::new();
        medium.scan(no, &mut |no, bytes| drop(shown.insert(no, bytes.to_vec())))?;
        Ok(shown)
    }

    fn read_of(medium: &SledMedium, no: u64) -> (Found, Vec<u8>) {
        let mut bytes = Vec::new();
        (medium.read(1, no, &mut bytes).unwrap(), bytes)
    }

    fn read_by(chart: &Chart, no: u64) -> Option<Vec<u8>> {
        // What was read before is in the buffer.
        let mut bytes = vec![0xAA; FRAME_BYTES_MAX];
        let found = chart.read(no, &mut bytes).then_some(bytes);
        let mut at_hand = vec![0xAA; FRAME_BYTES_MAX];
        // Its pages were just read, but not every system says what it has in memory.
        let is_at_hand = chart.read_at_hand(no, &mut at_hand);
        assert!(is_at_hand == (found.is_some() && tells_what_it_has(&chart.db)));
        assert!(!is_at_hand || Some(at_hand) == found, "frame {no}");
        found
    }

    fn tells_what_it_has(file: &File) -> bool {
        file.read_at(&mut [0], 0).unwrap();
        preadv2(file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT).is_ok()
    }

    #[test]
    fn a_closed_generation_is_read_without_sled_and_just_as_sled_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let truth = written(dir.path());
        let medium = open(dir.path());
        assert_eq!(scanned(&medium, 1).unwrap(), truth);
        for (no, bytes) in &truth {
            assert_eq!(read_of(&medium, *no), (Found::Checked, bytes.clone()), "frame {no}");
        }
        assert!(lock(&medium.old).open.is_empty(), "sled was not asked");
        assert_eq!(read_of(&medium, FRAMES + 1).0, Found::Nothing);
        medium.delete_generation(1).unwrap();
        assert!(lock(&medium.charts).get(1).is_none(), "its file is let go of");
        assert_eq!(read_of(&medium, 1).0, Found::Nothing);
    }

    #[test]
    fn a_generation_from_before_there_were_charts_is_charted_when_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let truth = written(dir.path());
        let chart = folder(dir.path(), 1).join(NAME);
        fs::remove_file(&chart).unwrap();
        assert_eq!(scanned(&open(dir.path()), 1).unwrap(), truth);
        assert!(chart.exists());
        let medium = open(dir.path());
        assert_eq!(scanned(&medium, 1).unwrap(), truth);
        assert!(lock(&medium.old).open.is_empty(), "sled was not asked");
    }

    #[test]
    fn who_comes_while_a_generation_is_charted_needs_no_sled() {
        let dir = tempfile::tempdir().unwrap();
        let truth = written(dir.path());
        let medium = open(dir.path());
        let (chart, not_yet) = (folder(dir.path(), 1).join(NAME), folder(dir.path(), 1).join("not-yet"));
        lock(&medium.charts).forget(1);
        fs::rename(&chart, &not_yet).unwrap();
        let opening = lock(&medium.opening);
        thread::scope(|scope| {
            let (begins, begun) = sync_channel(1);
            let medium = &medium;
            let reader = scope.spawn(move || {
                begins.send(()).unwrap();
                read_of(medium, 1)
            });
            begun.recv().unwrap();
            // Whether it has looked for the chart by now is all the same.
            fs::rename(&not_yet, &chart).unwrap();
            drop(opening);
            assert_eq!(reader.join().unwrap(), (Found::Checked, truth[&1].clone()));
        });
        assert!(lock(&medium.old).open.is_empty(), "sled was not asked");
    }

    #[test]
    fn the_newest_generation_has_no_chart() {
        let dir = tempfile::tempdir().unwrap();
        let mut truth = written(dir.path());
        // As if the disk had lost the newer one.
        fs::remove_dir_all(folder(dir.path(), 2)).unwrap();
        let medium = open(dir.path());
        assert!(!folder(dir.path(), 1).join(NAME).exists());
        let later = one(FRAMES + 1, b'd');
        truth.insert(FRAMES + 1, later.clone());
        medium.apply(vec![(FRAMES + 1, later)]).unwrap();
        medium.sync().unwrap();
        medium.new_generation(2).unwrap();
        drop(medium);
        let medium = open(dir.path());
        assert_eq!(scanned(&medium, 1).unwrap(), truth);
        assert!(lock(&medium.old).open.is_empty(), "it was charted anew");
    }

    #[test]
    fn what_sled_does_not_show_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut truth = written(dir.path());
        // As if a power cut had undone the second writing of these.
        for no in [6, 12] {
            truth.insert(no, one(no, b'a'));
        }
        let mut shown = Shown::default();
        for (no, bytes) in &truth {
            shown.see(*no, bytes);
        }
        let path = folder(dir.path(), 1);
        assert!(shown.chart(1, &path).unwrap());
        let chart = Chart::open(1, &path).unwrap();
        for no in 1..=FRAMES {
            assert_eq!(read_by(&chart, no).as_ref(), truth.get(&no), "frame {no}");
        }
        // And what is not in the file cannot be charted.
        let mut shown = Shown::default();
        truth.insert(7, one(7, b'x'));
        for (no, bytes) in &truth {
            shown.see(*no, bytes);
        }
        assert!(!shown.chart(1, &path).unwrap());
    }

    #[test]
    fn no_damage_makes_another_frame_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let truth = written(dir.path());
        let path = folder(dir.path(), 1);
        let chart = Chart::open(1, &path).unwrap();
        let harmed = || {
            let intact = truth.iter().filter(|(no, bytes)| match read_by(&chart, **no) {
                Some(found) => {
                    assert_eq!(found, **bytes, "frame {no}");
                    true
                }
                None => false,
            });
            truth.len() - intact.count()
        };
        assert_eq!(harmed(), 0);
        let file = File::options().write(true).open(path.join("db")).unwrap();
        let len = file.metadata().unwrap().len();
        // A torn sector here and there.
        for at in (0..len).step_by(20_000) {
            file.write_all_at(&[0xA5; 512], at).unwrap();
        }
        assert!(harmed() > 10);
        assert!(!chart.scan(&mut |no, bytes| assert_eq!(Some(bytes), truth.get(&no).map(Vec::as_slice))));
        file.set_len(len / 3).unwrap();
        assert!(harmed() >= truth.len() / 3, "a file that ends early");
    }

    #[test]
    fn a_chart_that_has_changed_is_none() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let path = folder(dir.path(), 1);
        assert!(Chart::open(2, &path).is_none(), "of another generation");
        let good = fs::read(path.join(NAME)).unwrap();
        let (no, commits, first_frame, spots) = read(&good).unwrap();
        assert_eq!((no, commits, first_frame), (1, (1, FRAMES), 1));
        assert_eq!(write(no, commits, first_frame, &spots), good);
        for at in [0, 3, 5, 20, 40, 300, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad), None, "byte {at}");
            assert_eq!(read(&good[..at]), None, "{at} bytes");
        }
    }
}
