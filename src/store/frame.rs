//! Frames: a commit's bytes, cut into pieces small enough for sled, each of which says what it belongs to.
//!
//! Here they are put together and taken apart as they lie on disk; what is in them may be sealed (`packing`). The header and
//! the checksum are in the clear, so that frames are found in a damaged file without a key. Layout in
//! `docs/store-format.md`; numbers are little-endian.

use thiserror::Error;

use super::seal::SEAL_BYTES;

/// The format version this build writes, and the newest it reads.
pub(super) const VERSION: u8 = 6;
/// The first version whose frames say how they are packed, and the first in which they may be compressed.
const PACKED_SINCE: u8 = 3;
const COMPRESSED_SINCE: u8 = 4;

/// No frame is longer. A sled tree page of 16 values must stay below a quarter of a segment (128 KiB), else it goes to
/// a file that sled never syncs.
pub(super) const FRAME_BYTES_MAX: usize =
    HEADER_BYTES + FLAGS_BYTES + BODY_BYTES_MAX + SEAL_BYTES + CHECKSUM_BYTES;
const _: () = assert!(16 * (FRAME_BYTES_MAX + 32) < 512 * 1024 / 4);

/// What a frame carries at most, before it is sealed; compressed it is more of the stream.
pub(super) const BODY_BYTES_MAX: usize = 3_962;

/// The first bytes of every frame; the version follows.
pub(super) const MAGIC: [u8; 3] = *b"DMJ";

const HEADER_BYTES: usize = 34;
const FLAGS_BYTES: usize = 1;
const CHECKSUM_BYTES: usize = 4;

/// The bits of a frame's flags.
const SEALED: u8 = 1;
const COMPRESSED: u8 = 2;

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

/// How a frame's content is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed {
    /// It is sealed: only its key opens it.
    pub(super) sealed: bool,
    /// It is compressed, before it is sealed.
    pub(super) compressed: bool,
}

/// A frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) header: FrameHeader,
    pub(super) packed: Packed,
    /// All before the content, as it stands there: a seal holds it together with the content.
    pub(super) prefix: &'a [u8],
    /// What it carries, as it is packed.
    pub(super) content: &'a [u8],
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
    /// It is sealed, and there is no key.
    #[error("it is sealed")]
    Sealed,
    /// It is not sealed, in a store whose frames are.
    #[error("it is not sealed as the others are")]
    NotSealed,
    /// It is said to be compressed, and does not decompress.
    #[error("it cannot be decompressed")]
    Compression,
    /// The key does not open it: it was changed, or stood somewhere else.
    #[error("the key does not open it")]
    Closed,
}

impl Packed {
    fn flags(self) -> u8 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(self.sealed, SEALED) | flag(self.compressed, COMPRESSED)
    }

    /// Flags that this version does not know are damage: a new one comes with a new version.
    fn of(flags: u8, version: u8) -> Option<Self> {
        let compressed = flags & COMPRESSED != 0 && version >= COMPRESSED_SINCE;
        let packed = Self { sealed: flags & SEALED != 0, compressed };
        (packed.flags() == flags).then_some(packed)
    }
}

/// Takes apart a frame that is exactly `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (frame, len) = decode_prefix(bytes)?;
    if len == bytes.len() { Ok(frame) } else { Err(FrameError::Shape) }
}

/// The same, of bytes whose checksum has been looked at.
pub(super) fn decode_checked(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (frame, len) = take_apart(bytes, false)?;
    if len == bytes.len() { Ok(frame) } else { Err(FrameError::Shape) }
}

/// Takes apart the frame at the start of `bytes`, and says how long it is.
pub(super) fn decode_prefix(bytes: &[u8]) -> Result<(Frame<'_>, usize), FrameError> {
    take_apart(bytes, true)
}

fn take_apart(bytes: &[u8], is_to_be_checked: bool) -> Result<(Frame<'_>, usize), FrameError> {
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
    if is_to_be_checked && u32::from_le_bytes(*sum) != crc32fast::hash(covered) {
        return Err(FrameError::Checksum);
    }
    let version = u8::try_from(version).map_err(|_| FrameError::Shape)?;
    if version > VERSION {
        return Err(FrameError::Newer(version));
    }
    let narrow = |n: u64| u32::try_from(n).map_err(|_| FrameError::Shape);
    let header =
        FrameHeader { run: narrow(run)?, commit, frame, index: narrow(index)?, count: narrow(count)? };
    let (prefix_len, packed) = if version < PACKED_SINCE {
        (HEADER_BYTES, Packed::default())
    } else {
        let flags = covered.get(HEADER_BYTES).ok_or(FrameError::Shape)?;
        (HEADER_BYTES + FLAGS_BYTES, Packed::of(*flags, version).ok_or(FrameError::Shape)?)
    };
    let (prefix, content) = covered.split_at_checked(prefix_len).ok_or(FrameError::Shape)?;
    Ok((Frame { header, packed, prefix, content }, covered_len + CHECKSUM_BYTES))
}

/// Begins a frame: all before its content, which has `len` bytes.
pub(super) fn begin(header: &FrameHeader, packed: Packed, len: usize) -> Vec<u8> {
    let counted =
        u16::try_from(FLAGS_BYTES + len).expect("a content is a little over BODY_BYTES_MAX at most");
    let mut out = Vec::with_capacity(HEADER_BYTES + FLAGS_BYTES + len + CHECKSUM_BYTES);
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&header.run.to_le_bytes());
    out.extend_from_slice(&header.commit.to_le_bytes());
    out.extend_from_slice(&header.frame.to_le_bytes());
    out.extend_from_slice(&header.index.to_le_bytes());
    out.extend_from_slice(&header.count.to_le_bytes());
    out.extend_from_slice(&counted.to_le_bytes());
    out.push(packed.flags());
    out
}

/// Ends a frame that was begun and given its content.
pub(super) fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&frame);
    frame.extend_from_slice(&sum.to_le_bytes());
    frame
}

fn number<const N: usize>(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (number, rest) = bytes.split_first_chunk::<N>().ok_or(FrameError::Shape)?;
    let mut wide = [0; 8];
    wide.iter_mut().zip(number).for_each(|(to, from)| *to = *from);
    Ok((u64::from_le_bytes(wide), rest))
}
