//! Frames: a commit's bytes, cut into pieces small enough for sled, each of which says what it belongs to.
//!
//! All frames of a commit but the last are full, so a place in the commit's stream is found by arithmetic. Layout in
//! `docs/store-format.md`; numbers are little-endian.

use std::ops::Range;

use thiserror::Error;

/// The format version this build writes, and the newest it reads.
pub(super) const VERSION: u8 = 2;

/// No frame is longer. A sled tree page of 16 values must stay below a quarter of a segment (128 KiB), else it goes to
/// a file that sled never syncs.
pub(super) const FRAME_BYTES_MAX: usize = 4_000;
const _: () = assert!(16 * (FRAME_BYTES_MAX + 32) < 512 * 1024 / 4);

/// What a frame carries at most.
pub(super) const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES - CHECKSUM_BYTES;

/// The first bytes of every frame; the version follows.
pub(super) const MAGIC: [u8; 3] = *b"DMJ";

const HEADER_BYTES: usize = 34;
const CHECKSUM_BYTES: usize = 4;

/// What a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The start of the broker it was written in.
    pub(super) run: u32,
    /// The commit it belongs to.
    pub(super) commit: u64,
    /// Its own number, which is also its key.
    pub(super) frame: u64,
    /// Its place in the commit, from 0.
    pub(super) index: u32,
    /// How many frames the commit has.
    pub(super) count: u32,
}

/// A frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) header: FrameHeader,
    pub(super) body: &'a [u8],
}

impl Frame<'_> {
    /// Where in the frame's bytes its body is.
    pub(super) fn body_range(&self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.body.len()
    }
}

/// Why some bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    /// They do not begin like one, or end too early or too late.
    #[error("not a frame")]
    Shape,
    /// Some bit has changed.
    #[error("the checksum does not match")]
    Checksum,
    /// A newer build wrote it.
    #[error("format version {0}")]
    Newer(u8),
}

/// Cuts a commit's stream into frames, numbered from `first_frame`.
pub(super) fn cut(run: u32, commit: u64, first_frame: u64, stream: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let count =
        u32::try_from(stream.len().div_ceil(BODY_BYTES_MAX)).expect("a commit is far below 2^32 frames");
    let mut frames = Vec::with_capacity(count as usize);
    for (index, body) in (0_u32..).zip(stream.chunks(BODY_BYTES_MAX)) {
        let frame = first_frame + u64::from(index);
        let header = FrameHeader { run, commit, frame, index, count };
        frames.push((frame, encode(&header, body)));
    }
    frames
}

/// Takes apart a frame that is exactly `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (frame, len) = decode_prefix(bytes)?;
    if len == bytes.len() { Ok(frame) } else { Err(FrameError::Shape) }
}

/// Takes apart the frame at the start of `bytes`, and says how long it is.
pub(super) fn decode_prefix(bytes: &[u8]) -> Result<(Frame<'_>, usize), FrameError> {
    let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(FrameError::Shape)?;
    let (magic, rest) = header.split_first_chunk::<3>().ok_or(FrameError::Shape)?;
    if *magic != MAGIC {
        return Err(FrameError::Shape);
    }
    let (version, rest) = number::<1>(rest)?;
    let (run, rest) = number::<4>(rest)?;
    let (commit, rest) = number::<8>(rest)?;
    let (frame, rest) = number::<8>(rest)?;
    let (index, rest) = number::<4>(rest)?;
    let (count, rest) = number::<4>(rest)?;
    let (len, _) = number::<2>(rest)?;
    let covered_len = HEADER_BYTES + usize::try_from(len).map_err(|_| FrameError::Shape)?;
    let (covered, tail) = bytes.split_at_checked(covered_len).ok_or(FrameError::Shape)?;
    let sum = tail.first_chunk::<CHECKSUM_BYTES>().ok_or(FrameError::Shape)?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(covered) {
        return Err(FrameError::Checksum);
    }
    let version = u8::try_from(version).map_err(|_| FrameError::Shape)?;
    if version > VERSION {
        return Err(FrameError::Newer(version));
    }
    let narrow = |n: u64| u32::try_from(n).map_err(|_| FrameError::Shape);
    let header =
        FrameHeader { run: narrow(run)?, commit, frame, index: narrow(index)?, count: narrow(count)? };
    let body = covered.get(HEADER_BYTES..).ok_or(FrameError::Shape)?;
    Ok((Frame { header, body }, covered_len + CHECKSUM_BYTES))
}

fn encode(header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("a body is at most BODY_BYTES_MAX");
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len() + CHECKSUM_BYTES);
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&header.run.to_le_bytes());
    out.extend_from_slice(&header.commit.to_le_bytes());
    out.extend_from_slice(&header.frame.to_le_bytes());
    out.extend_from_slice(&header.index.to_le_bytes());
    out.extend_from_slice(&header.count.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(body);
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn number<const N: usize>(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (number, rest) = bytes.split_first_chunk::<N>().ok_or(FrameError::Shape)?;
    let mut wide = [0; 8];
    wide.iter_mut().zip(number).for_each(|(to, from)| *to = *from);
    Ok((u64::from_le_bytes(wide), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{BODY_BYTES_MAX, FRAME_BYTES_MAX, FrameError, MAGIC, cut, decode, decode_prefix};

    proptest! {
        #[test]
        fn a_stream_cut_into_frames_comes_back(
            run in any::<u32>(), commit in any::<u64>(), first in 0..u64::MAX / 2,
            stream in prop::collection::vec(any::<u8>(), 1..3 * FRAME_BYTES_MAX),
        ) {
            let frames = cut(run, commit, first, &stream);
            let mut back = Vec::new();
            for (i, (no, bytes)) in (0_u32..).zip(&frames) {
                let frame = decode(bytes).unwrap();
                prop_assert_eq!(frame.header.run, run);
                prop_assert_eq!(frame.header.commit, commit);
                prop_assert_eq!(frame.header.frame, *no);
                prop_assert_eq!(*no, first + u64::from(i));
                prop_assert_eq!(frame.header.index, i);
                prop_assert_eq!(frame.header.count as usize, frames.len());
                prop_assert_eq!(bytes.len() <= FRAME_BYTES_MAX, true);
                prop_assert_eq!(i + 1 == frame.header.count || frame.body.len() == BODY_BYTES_MAX, true);
                back.extend_from_slice(frame.body);
            }
            prop_assert_eq!(back, stream);
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            bytes.splice(..0, MAGIC);
            prop_assert_eq!(decode_prefix(&bytes).is_err(), true);
        }
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let (_, good) = cut(1, 2, 3, b"what was acknowledged").remove(0);
        assert!(decode(&good).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "cut to {len} bytes");
        }
        assert_eq!(decode(&[good.as_slice(), b"x"].concat()), Err(FrameError::Shape));
    }

    #[test]
    fn a_newer_version_is_named() {
        let (_, mut bytes) = cut(1, 2, 3, b"x").remove(0);
        bytes[3] = 9;
        let end = bytes.len() - 4;
        let sum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
        assert_eq!(decode(&bytes), Err(FrameError::Newer(9)));
    }
}
