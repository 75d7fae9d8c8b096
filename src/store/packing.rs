//! What a commit's stream goes through on its way into frames, and a frame's content on its way back.
//!
//! Invariant: a store's frames are all sealed, or none is. One that is not as it should be is damage; whether the key at
//! hand is the store's is asked before anything else (`key_check`).

use std::{borrow::Cow, io, ops::Range};

use super::{
    compress::{self, Chunk},
    config::Compression,
    frame::{self, Frame, FrameError, FrameHeader, Packed},
    key::StoreKey,
    medium::{MediumError, NumberedFrame},
    seal::{Opener, SEAL_BYTES, SealError, Sealer},
};

/// How a store's frames are packed.
pub(super) struct Packing {
    opener: Option<Opener>,
    compression: Compression,
}

/// A commit's frames.
pub(super) struct Cut {
    pub(super) frames: Vec<NumberedFrame>,
    /// Where in the stream each of them begins.
    pub(super) starts: Vec<usize>,
}

/// A commit about to be cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitHead {
    pub(super) run: u32,
    pub(super) commit: u64,
    /// The generation it goes to.
    pub(super) generation: u32,
    /// The number its frames begin with.
    pub(super) first_frame: u64,
}

/// A frame unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    pub(super) header: FrameHeader,
    /// Its part of the commit's stream.
    pub(super) body: Cow<'a, [u8]>,
}

/// A frame whose seal is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsealed<'a> {
    pub(super) header: FrameHeader,
    compressed: bool,
    content: Cow<'a, [u8]>,
}

impl<'a> Unsealed<'a> {
    /// What is in it, decompressed.
    fn into_body(self) -> Result<Cow<'a, [u8]>, FrameError> {
        if !self.compressed {
            return Ok(self.content);
        }
        compress::decompress(&self.content).map(Cow::Owned).ok_or(FrameError::Compression)
    }

    /// Whether it decompresses.
    pub(super) fn is_whole(&self) -> bool {
        !self.compressed || compress::decompress(&self.content).is_some()
    }
}

impl From<SealError> for MediumError {
    fn from(error: SealError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

impl Packing {
    /// Frames are sealed with this key, if there is one.
    pub(super) fn new(key: Option<StoreKey>) -> Self {
        Self { opener: key.map(Opener::new), compression: Compression::None }
    }

    /// New frames are compressed so; those that are there are read whatever they are.
    pub(super) fn compressing(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Whether frames are sealed.
    pub(super) fn seals(&self) -> bool {
        self.opener.is_some()
    }

    /// Cuts a commit's stream into frames.
    pub(super) fn cut(&self, head: CommitHead, stream: &[u8]) -> Result<Cut, MediumError> {
        let chunks = match self.compression {
            Compression::None => compress::plain(stream),
            Compression::Lz4 => compress::lz4(stream),
        };
        let count = u32::try_from(chunks.len()).expect("a commit is far below 2^32 frames");
        let CommitHead { run, commit, generation, first_frame } = head;
        let mut sealer = self.sealer()?;
        let mut cut =
            Cut { frames: Vec::with_capacity(chunks.len()), starts: Vec::with_capacity(chunks.len()) };
        for (index, Chunk { start, compressed, content }) in (0_u32..).zip(chunks) {
            let frame = first_frame + u64::from(index);
            let header = FrameHeader { run, commit, frame, index, count };
            cut.frames.push((frame, pack(sealer.as_mut(), generation, &header, compressed, &content)?));
            cut.starts.push(start);
        }
        Ok(cut)
    }

    /// Packs a frame again that was sealed otherwise.
    pub(super) fn repack(&self, generation: u32, frame: &Unsealed<'_>) -> Result<Vec<u8>, MediumError> {
        let Unsealed { header, compressed, content } = frame;
        Ok(pack(self.sealer()?.as_mut(), generation, header, *compressed, content)?)
    }

    /// Takes apart a frame that is exactly `bytes`, of this generation.
    pub(super) fn open<'b>(&self, generation: u32, bytes: &'b [u8]) -> Result<Opened<'b>, FrameError> {
        let unsealed = self.unseal(generation, bytes)?;
        Ok(Opened { header: unsealed.header, body: unsealed.into_body()? })
    }

    /// The same where they are: what they carry is this part of `bytes` then. With `is_checked` their checksum has been
    /// looked at.
    pub(super) fn open_in_place(
        &self,
        generation: u32,
        bytes: &mut Vec<u8>,
        is_checked: bool,
    ) -> Result<(FrameHeader, Range<usize>), FrameError> {
        let frame = if is_checked { frame::decode_checked(bytes)? } else { frame::decode(bytes)? };
        let (header, begin) = (frame.header, frame.prefix.len());
        let unpacked = match self.take_seal_off(generation, &frame)?.into_body()? {
            Cow::Borrowed(body) => return Ok((header, begin..begin + body.len())),
            Cow::Owned(body) => body,
        };
        *bytes = unpacked;
        Ok((header, 0..bytes.len()))
    }

    /// The same, but as it was compressed.
    pub(super) fn unseal<'b>(&self, generation: u32, bytes: &'b [u8]) -> Result<Unsealed<'b>, FrameError> {
        self.take_seal_off(generation, &frame::decode(bytes)?)
    }

    fn take_seal_off<'b>(&self, generation: u32, frame: &Frame<'b>) -> Result<Unsealed<'b>, FrameError> {
        let (header, compressed) = (frame.header, frame.packed.compressed);
        let content = match (&self.opener, frame.packed.sealed) {
            (None, false) => Cow::Borrowed(frame.content),
            (None, true) => return Err(FrameError::Sealed),
            (Some(_), false) => return Err(FrameError::NotSealed),
            (Some(opener), true) => {
                let around = around(frame.prefix, generation);
                let content = opener.open(header.index, &around, frame.content);
                Cow::Owned(content.map_err(|_| FrameError::Closed)?)
            }
        };
        Ok(Unsealed { header, compressed, content })
    }

    fn sealer(&self) -> Result<Option<Sealer>, SealError> {
        self.opener.as_ref().map(|opener| Sealer::new(opener.key())).transpose()
    }
}

fn pack(
    sealer: Option<&mut Sealer>,
    generation: u32,
    header: &FrameHeader,
    compressed: bool,
    content: &[u8],
) -> Result<Vec<u8>, SealError> {
    let Some(sealer) = sealer else {
        let mut frame = frame::begin(header, Packed { sealed: false, compressed }, content.len());
        frame.extend_from_slice(content);
        return Ok(frame::finish(frame));
    };
    let packed = Packed { sealed: true, compressed };
    let mut frame = frame::begin(header, packed, content.len() + SEAL_BYTES);
    let around = around(&frame, generation);
    sealer.seal(header.index, &around, &mut frame, content)?;
    Ok(frame::finish(frame))
}

/// What a seal holds together with a frame's content: what is before it, and where the frame stands.
fn around(prefix: &[u8], generation: u32) -> Vec<u8> {
    [prefix, &generation.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest},
    };

    use super::{CommitHead, Cut, Packing};
    use crate::store::{
        Compression,
        compress::BLOCK_BYTES_MAX,
        frame::{FRAME_BYTES_MAX, FrameError, MAGIC, VERSION, decode, decode_prefix},
        key::StoreKey,
    };

    const HEAD: CommitHead = CommitHead { run: 1, commit: 2, generation: 4, first_frame: 3 };

    fn packings() -> [Packing; 4] {
        let sealed = || Packing::new(StoreKey::parse(&"7".repeat(64)).ok());
        let plain = || Packing::new(None);
        [plain(), sealed(), plain().compressing(Compression::Lz4), sealed().compressing(Compression::Lz4)]
    }

    /// Bytes of which some can be compressed and some cannot.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let noise = vec(any::<u8>(), 1..FRAME_BYTES_MAX);
        let alike = (vec(any::<u8>(), 1..60), 1..1_000_usize).prop_map(|(part, times)| part.repeat(times));
        vec(prop_oneof![noise, alike], 1..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_stream_cut_into_frames_comes_back(
            run in any::<u32>(), commit in any::<u64>(), first_frame in 0..u64::MAX / 2, generation in any::<u32>(),
            stream in stream(),
        ) {
            let head = CommitHead { run, commit, generation, first_frame };
            for packing in packings() {
                let Cut { frames, starts } = packing.cut(head, &stream).unwrap();
                let mut back = Vec::new();
                for (i, (no, bytes)) in (0_u32..).zip(&frames) {
                    let frame = packing.open(generation, bytes).unwrap();
                    prop_assert_eq!(frame.header.run, run);
                    prop_assert_eq!(frame.header.commit, commit);
                    prop_assert_eq!(frame.header.frame, *no);
                    prop_assert_eq!(*no, first_frame + u64::from(i));
                    prop_assert_eq!(frame.header.index, i);
                    prop_assert_eq!(frame.header.count as usize, frames.len());
                    prop_assert_eq!(bytes.len() <= FRAME_BYTES_MAX, true);
                    prop_assert_eq!(frame.body.len() <= BLOCK_BYTES_MAX, true);
                    prop_assert_eq!(starts[i as usize], back.len());
                    back.extend_from_slice(&frame.body);
                }
                prop_assert_eq!(&back, &stream);
            }
        }

        #[test]
        fn any_bytes_are_refused_without_panic(
            bytes in vec(any::<u8>(), 0..200), with_sum in any::<bool>(), version in 1..=VERSION,
        ) {
            let mut bytes = bytes;
            bytes.splice(..0, [MAGIC[0], MAGIC[1], MAGIC[2], version]);
            if with_sum && bytes.len() >= 34 {
                let len = u16::try_from(bytes.len() - 34).unwrap();
                bytes[32..34].copy_from_slice(&len.to_le_bytes());
                let sum = crc32fast::hash(&bytes).to_le_bytes();
                bytes.extend_from_slice(&sum);
                let _ = packings().map(|packing| packing.open(1, &bytes).is_ok());
            } else {
                prop_assert_eq!(decode_prefix(&bytes).is_err(), true);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        for packing in packings() {
            let (_, good) = packing.cut(HEAD, b"what was acknowledged").unwrap().frames.remove(0);
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
    }

    #[test]
    fn a_newer_version_is_named() {
        let (_, mut bytes) = packings()[0].cut(HEAD, b"x").unwrap().frames.remove(0);
        bytes[3] = 9;
        fix_sum(&mut bytes);
        assert_eq!(decode(&bytes), Err(FrameError::Newer(9)));
    }

    /// A checksum is anybody's to make; the seal is not.
    #[test]
    fn a_sealed_frame_opens_only_as_it_was_and_where_it_was() {
        let [plain, sealed, ..] = packings();
        let (_, good) = sealed.cut(HEAD, b"what was acknowledged").unwrap().frames.remove(0);
        assert_eq!(&*sealed.open(4, &good).unwrap().body, b"what was acknowledged");
        assert_eq!(sealed.open(5, &good), Err(FrameError::Closed), "in another generation");
        assert_eq!(plain.open(4, &good), Err(FrameError::Sealed));
        let other = Packing::new(StoreKey::parse(&"8".repeat(64)).ok());
        assert_eq!(other.open(4, &good), Err(FrameError::Closed));
        for at in 4..good.len() - 4 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fix_sum(&mut bad);
            assert!(sealed.open(4, &bad).is_err(), "byte {at} was changed, and it opens");
        }
        let (_, open) = plain.cut(HEAD, b"forged").unwrap().frames.remove(0);
        assert_eq!(sealed.open(4, &open), Err(FrameError::NotSealed));
    }

    /// What says that it is compressed, and is not as it was, is damage.
    #[test]
    fn a_compressed_frame_that_was_changed_is_answered() {
        let [_, _, packing, _] = packings();
        let (_, good) = packing.cut(HEAD, &b"what was acknowledged ".repeat(400)).unwrap().frames.remove(0);
        assert!(good.len() < 500 && packing.open(4, &good).is_ok());
        for at in 34..good.len() - 4 {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bad = good.clone();
                bad[at] = value;
                fix_sum(&mut bad);
                if let Ok(opened) = packing.open(4, &bad) {
                    assert!(opened.body.len() <= BLOCK_BYTES_MAX);
                }
            }
        }
    }

    fn fix_sum(bytes: &mut [u8]) {
        let end = bytes.len() - 4;
        let sum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
    }
}
