//! Frames read lately, unpacked.

use std::{collections::HashMap, mem, ops::Range};

use super::{
    medium::{Found, Medium, MediumError},
    packing::Packing,
};

/// How many bytes of frames are remembered: compressed ones have more than the others.
const BYTES_MAX: usize = 4 << 20;

/// Frames read lately. Those that were asked for since the last round stay when others have to go.
#[derive(Debug)]
pub(super) struct FrameCache {
    frames_max: usize,
    frames: Vec<CachedFrame>,
    /// Where a frame is, by its number, which no other frame of the journal has.
    by_number: HashMap<u64, usize>,
    bytes: usize,
    /// Whose turn it is to go.
    hand: usize,
}

/// A frame that was found whole.
#[derive(Debug)]
struct CachedFrame {
    generation: u32,
    frame: u64,
    commit: CommitOfRun,
    bytes: Vec<u8>,
    /// Where in them its body is.
    body: Range<usize>,
    /// Since the hand was here.
    is_wanted: bool,
}

/// A commit's number, and the run it is of.
pub(super) type CommitOfRun = (u32, u64);

/// Where in the cache a frame is, until the next one is fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched(usize);

impl Default for FrameCache {
    /// Remembers one.
    fn default() -> Self {
        Self { frames_max: 1, frames: Vec::new(), by_number: HashMap::new(), bytes: 0, hand: 0 }
    }
}

impl FrameCache {
    /// The same for so many frames, or more.
    pub(super) fn holding(self, frames_max: usize) -> Self {
        Self { frames_max: frames_max.max(self.frames_max), ..self }
    }

    /// Which commit a frame is of, and its body.
    pub(super) fn get(&self, Fetched(at): Fetched) -> (CommitOfRun, &[u8]) {
        self.frames.get(at).map_or(((0, 0), &[]), |found| {
            (found.commit, found.bytes.get(found.body.clone()).unwrap_or_default())
        })
    }

    /// Finds a frame, or reads it; `None` if it is missing or damaged.
    pub(super) fn fetch(
        &mut self,
        medium: &dyn Medium,
        packing: &Packing,
        generation: u32,
        no: u64,
    ) -> Result<Option<Fetched>, MediumError> {
        if let Some(at) = self.by_number.get(&no)
            && let Some(found) = self.frames.get_mut(*at).filter(|found| found.generation == generation)
        {
            found.is_wanted = true;
            return Ok(Some(Fetched(*at)));
        }
        // In the buffer of the one whose place it takes.
        let mut bytes = if self.frames.len() >= self.frames_max { self.take_one_out() } else { Vec::new() };
        let is_checked = match medium.read(generation, no, &mut bytes)? {
            Found::Nothing => return Ok(None),
            Found::Bytes => false,
            Found::Checked => true,
        };
        let opened = packing.open_in_place(generation, &mut bytes, is_checked);
        let Some((header, body)) = opened.ok().filter(|(header, _)| header.frame == no) else {
            return Ok(None);
        };
        while self.bytes + bytes.len() > BYTES_MAX && !self.frames.is_empty() {
            self.take_one_out();
        }
        self.bytes += bytes.len();
        let commit = (header.run, header.commit);
        let frame = CachedFrame { generation, frame: no, commit, bytes, body, is_wanted: true };
        self.by_number.insert(no, self.frames.len());
        self.frames.push(frame);
        Ok(Some(Fetched(self.frames.len() - 1)))
    }

    /// Forgets one that nobody has asked for in the last round; its buffer may be used again.
    fn take_one_out(&mut self) -> Vec<u8> {
        loop {
            if self.hand >= self.frames.len() {
                self.hand = 0;
            }
            let Some(frame) = self.frames.get_mut(self.hand) else { return Vec::new() };
            if !mem::take(&mut frame.is_wanted) {
                break;
            }
            self.hand += 1;
        }
        let out = self.frames.swap_remove(self.hand);
        if self.by_number.get(&out.frame) == Some(&self.hand) {
            self.by_number.remove(&out.frame);
        }
        if let Some(moved) = self.frames.get(self.hand) {
            self.by_number.insert(moved.frame, self.hand);
        }
        self.bytes -= out.bytes.len();
        out.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, FrameCache};
    use crate::store::{
        medium::{Medium, sim::SimDisk},
        packing::Packing,
        tests::plain_frames,
    };

    const FRAMES: u64 = 2_000;

    fn written() -> Box<dyn Medium> {
        let medium = SimDisk::new().medium();
        medium.new_generation(1).unwrap();
        for no in 0..FRAMES {
            let fill = u8::try_from(no % 251).unwrap();
            medium.apply(plain_frames(1, no, no, &[fill; 3_000])).unwrap();
        }
        medium.sync().unwrap();
        Box::new(medium)
    }

    #[test]
    fn what_is_asked_for_again_stays_and_what_is_not_goes() {
        let (medium, packing) = (written(), Packing::new(None));
        let mut cache = FrameCache::default().holding(50);
        let mut fetch = |no: u64| {
            let found = cache.fetch(&*medium, &packing, 1, no).unwrap().unwrap();
            let (commit, body) = cache.get(found);
            assert_eq!((commit, body), ((1, no), &[u8::try_from(no % 251).unwrap(); 3_000][..]));
            (cache.by_number.contains_key(&7), cache.frames.len())
        };
        fetch(7);
        for no in 100..1_000 {
            fetch(no);
            assert!(fetch(7).1 <= 50);
        }
        assert!((1_000..1_040).all(|no| fetch(no).0), "all the others go first");
        assert!(!(1_040..1_200).all(|no| fetch(no).0));
    }

    #[test]
    fn bytes_have_a_bound_of_their_own_and_nothing_is_remembered_of_what_is_not_there() {
        let (medium, packing) = (written(), Packing::new(None));
        let mut cache = FrameCache::default().holding(usize::MAX);
        for no in 0..FRAMES {
            assert!(cache.fetch(&*medium, &packing, 1, no).unwrap().is_some());
            assert!(cache.bytes <= BYTES_MAX);
            assert_eq!(cache.bytes, cache.frames.iter().map(|frame| frame.bytes.len()).sum::<usize>());
        }
        assert_eq!(cache.by_number.len(), cache.frames.len());
        assert!(cache.frames.len() * 3_100 > BYTES_MAX - 10_000, "{}", cache.frames.len());
        assert!(cache.fetch(&*medium, &packing, 1, FRAMES).unwrap().is_none());
        assert!(cache.fetch(&*medium, &packing, 2, 5).unwrap().is_none());
        assert_eq!(cache.by_number.len(), cache.frames.len());
    }
}
