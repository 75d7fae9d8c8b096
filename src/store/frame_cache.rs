//! Frames read lately, unpacked.

use std::{collections::HashMap, mem, ops::Range, sync::Arc};

use super::{
    medium::{Found, MediumError},
    packing::Packing,
};

/// How many frames are remembered: sessions that wake one after the other often want messages of the same ones. 1,000 that
/// were sent a thousand messages in turn share some 800 of them.
const FRAMES_MAX: usize = 1_024;
/// And how many bytes of them: compressed ones have more than the others.
const BYTES_MAX: usize = 4 << 20;

/// A commit's number, and the run it is of.
pub(super) type CommitOfRun = (u32, u64);

/// A frame that was found whole.
#[derive(Debug)]
pub(super) struct ReadFrame {
    generation: u32,
    no: u64,
    /// Which commit it is of.
    pub(super) commit: CommitOfRun,
    bytes: Vec<u8>,
    /// Where in them its body is.
    body: Range<usize>,
}

impl ReadFrame {
    /// Reads a frame by `read`, into `buffer`; `None` if it is missing or damaged.
    pub(super) fn read(
        packing: &Packing,
        (generation, no): (u32, u64),
        mut buffer: Vec<u8>,
        read: impl FnOnce(&mut Vec<u8>) -> Result<Found, MediumError>,
    ) -> Result<Option<Self>, MediumError> {
        let is_checked = match read(&mut buffer)? {
            Found::Nothing => return Ok(None),
            Found::Bytes => false,
            Found::Checked => true,
        };
        let opened = packing.open_in_place(generation, &mut buffer, is_checked);
        let opened = opened.ok().filter(|(header, _)| header.frame == no);
        Ok(opened.map(|(header, body)| {
            let commit = (header.run, header.commit);
            Self { generation, no, commit, bytes: buffer, body }
        }))
    }

    /// Whether it is this one.
    pub(super) fn is(&self, generation: u32, no: u64) -> bool {
        (self.generation, self.no) == (generation, no)
    }

    /// What it carries.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(self.body.clone()).unwrap_or_default()
    }

    /// Its memory, to read another into.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// Frames read lately. Those that were asked for since the last round stay when others have to go.
#[derive(Debug, Default)]
pub(super) struct FrameCache {
    /// Each with whether it was asked for since the hand was here.
    frames: Vec<(Arc<ReadFrame>, bool)>,
    /// Where a frame is, by its number, which no other frame of the journal has.
    by_number: HashMap<u64, usize>,
    bytes: usize,
    /// Whose turn it is to go.
    hand: usize,
    /// The memory of the last one that went.
    buffer: Vec<u8>,
    is_used: bool,
}

impl FrameCache {
    /// The frame, if it is remembered; else memory to read it into.
    pub(super) fn find(&mut self, generation: u32, no: u64) -> Result<Arc<ReadFrame>, Vec<u8>> {
        self.is_used = true;
        if let Some(at) = self.by_number.get(&no)
            && let Some((frame, is_wanted)) = self.frames.get_mut(*at)
            && frame.is(generation, no)
        {
            *is_wanted = true;
            return Ok(Arc::clone(frame));
        }
        Err(mem::take(&mut self.buffer))
    }

    /// Remembers a frame. Whether it is the only one.
    pub(super) fn keep(&mut self, frame: &Arc<ReadFrame>) -> bool {
        if self.by_number.contains_key(&frame.no) {
            // Somebody else has read it meanwhile.
            return false;
        }
        let bytes = frame.bytes.len();
        while !self.frames.is_empty() && (self.frames.len() >= FRAMES_MAX || self.bytes + bytes > BYTES_MAX) {
            self.take_one_out();
        }
        self.bytes += bytes;
        self.by_number.insert(frame.no, self.frames.len());
        self.frames.push((Arc::clone(frame), true));
        self.frames.len() == 1
    }

    /// Forgets all of them, unless somebody has asked for one since this was last called; whether it did.
    pub(super) fn forget_if_unused(&mut self) -> bool {
        let is_unused = !mem::take(&mut self.is_used);
        if is_unused {
            *self = Self::default();
        }
        is_unused
    }

    /// Forgets one that nobody has asked for in the last round.
    fn take_one_out(&mut self) {
        loop {
            if self.hand >= self.frames.len() {
                self.hand = 0;
            }
            let Some((_, is_wanted)) = self.frames.get_mut(self.hand) else { return };
            if !mem::take(is_wanted) {
                break;
            }
            self.hand += 1;
        }
        let (out, _) = self.frames.swap_remove(self.hand);
        self.by_number.remove(&out.no);
        if let Some((moved, _)) = self.frames.get(self.hand) {
            self.by_number.insert(moved.no, self.hand);
        }
        self.bytes -= out.bytes.len();
        // Unless somebody reads in it.
        if let Some(out) = Arc::into_inner(out) {
            self.buffer = out.into_buffer();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BYTES_MAX, FRAMES_MAX, FrameCache, ReadFrame};
    use crate::store::{
        Compression,
        medium::{Medium, sim::SimDisk},
        packing::{CommitHead, Packing},
    };

    const FRAMES: u64 = 2_000;

    fn packing() -> Packing {
        Packing::new(None).compressing(Compression::Lz4)
    }

    /// Frames that carry so many bytes each.
    fn written(body_bytes: usize) -> Box<dyn Medium> {
        let medium = SimDisk::new().medium();
        medium.new_generation(1).unwrap();
        for no in 0..FRAMES {
            let fill = u8::try_from(no % 251).unwrap();
            let head = CommitHead { run: 1, commit: no, generation: 1, first_frame: no };
            let cut = packing().cut(head, &vec![fill; body_bytes]).unwrap();
            assert_eq!(cut.frames.len(), 1);
            medium.apply(cut.frames).unwrap();
        }
        medium.sync().unwrap();
        Box::new(medium)
    }

    fn fetch(cache: &mut FrameCache, medium: &dyn Medium, no: u64) -> Arc<ReadFrame> {
        let frame = cache.find(1, no).unwrap_or_else(|buffer| {
            let read = |into: &mut Vec<u8>| medium.read(1, no, into);
            let frame = ReadFrame::read(&packing(), (1, no), buffer, read).unwrap().unwrap();
            let frame = Arc::new(frame);
            cache.keep(&frame);
            frame
        });
        assert_eq!(frame.commit, (1, no));
        assert!(frame.body().iter().all(|byte| u64::from(*byte) == no % 251), "frame {no}");
        frame
    }

    #[test]
    fn what_is_asked_for_again_stays_and_what_is_not_goes() {
        let (medium, mut cache) = (written(1_000), FrameCache::default());
        fetch(&mut cache, &*medium, 7);
        // Somebody reads in it all the while.
        let held = fetch(&mut cache, &*medium, 8);
        for no in 100..1_800 {
            fetch(&mut cache, &*medium, no);
            fetch(&mut cache, &*medium, 7);
            assert!(cache.by_number.contains_key(&7) && cache.frames.len() <= FRAMES_MAX);
        }
        let late = (1_600..1_800).filter(|no| cache.by_number.contains_key(no)).count();
        assert!(late > 150 && !cache.by_number.contains_key(&8), "the oldest go first, by and large: {late}");
        assert!(held.body().iter().all(|byte| *byte == 8));
    }

    #[test]
    fn bytes_have_a_bound_of_their_own_and_nothing_is_remembered_of_what_is_not_there() {
        let (medium, mut cache) = (written(8_000), FrameCache::default());
        for no in 0..FRAMES {
            fetch(&mut cache, &*medium, no);
            assert!(cache.bytes <= BYTES_MAX);
            assert_eq!(cache.bytes, cache.frames.iter().map(|(frame, _)| frame.bytes.len()).sum::<usize>());
        }
        assert_eq!(cache.by_number.len(), cache.frames.len());
        assert!(cache.frames.len() * 8_000 > BYTES_MAX - 10_000, "{}", cache.frames.len());
        assert!(cache.find(1, FRAMES).is_err());
        assert!(cache.find(2, FRAMES - 1).is_err(), "of another generation");
        let packing = packing();
        let read = |into: &mut Vec<u8>| medium.read(1, FRAMES, into);
        assert!(ReadFrame::read(&packing, (1, FRAMES), Vec::new(), read).unwrap().is_none());
        let read = |into: &mut Vec<u8>| medium.read(1, 4, into);
        assert!(ReadFrame::read(&packing, (1, 5), Vec::new(), read).unwrap().is_none(), "not that one");
    }

    #[test]
    fn a_frame_that_two_have_read_is_remembered_once() {
        let (medium, mut cache) = (written(100), FrameCache::default());
        let packing = packing();
        let read = || ReadFrame::read(&packing, (1, 3), Vec::new(), |into| medium.read(1, 3, into));
        let (one, other) = (Arc::new(read().unwrap().unwrap()), Arc::new(read().unwrap().unwrap()));
        assert!(cache.keep(&one), "the first");
        assert!(!cache.keep(&other));
        assert_eq!((cache.frames.len(), cache.bytes), (1, one.bytes.len()));
        assert!(Arc::ptr_eq(&one, &fetch(&mut cache, &*medium, 3)));
        assert!(!cache.forget_if_unused(), "it was asked for");
        assert!(cache.forget_if_unused());
        assert!(cache.find(1, 3).is_err());
    }
}
