//! A commit's stream in pieces for frames, compressed where that saves something.
//!
//! Each frame is compressed by itself, so one message is read back with one frame. A piece is as much of the stream as makes
//! a full frame, found by trying: how well the piece before was compressed says how much to take. Frames may be shorter
//! than full; that costs a header and nothing more.
//!
//! LZ4 because it costs little next to a commit, on small boards too, and has an implementation in safe Rust that never
//! panics on damage. What is decompressed is bounded before: a piece says its length, and that has a bound.

use std::borrow::Cow;

use lz4_flex::block;

use super::frame::BODY_BYTES_MAX;

/// No frame holds more of the stream: reading a message decompresses so much.
pub(super) const BLOCK_BYTES_MAX: usize = 16 << 10;
/// Bytes in front of what is compressed: how long it was, little-endian.
const LENGTH_BYTES: usize = 2;
const _: () = assert!(BLOCK_BYTES_MAX <= u16::MAX as usize && BODY_BYTES_MAX <= BLOCK_BYTES_MAX);
/// How often a piece that does not fit is made smaller.
const TRIES: usize = 3;
/// How much is taken at first: JSON has a third.
const FIRST_BYTES: usize = 3 * BODY_BYTES_MAX;

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'s> {
    /// Where in the stream it begins.
    pub(super) start: usize,
    pub(super) compressed: bool,
    /// What goes into the frame.
    pub(super) content: Cow<'s, [u8]>,
}

/// Pieces that are not compressed.
pub(super) fn plain(stream: &[u8]) -> Vec<Chunk<'_>> {
    let starts = (0..).step_by(BODY_BYTES_MAX);
    starts.zip(stream.chunks(BODY_BYTES_MAX)).map(|(start, body)| Chunk::plain(start, body)).collect()
}

/// Pieces that are compressed where it saves something.
pub(super) fn lz4(stream: &[u8]) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::with_capacity(stream.len() / FIRST_BYTES + 1);
    let (mut start, mut wanted) = (0, FIRST_BYTES);
    while let Some(rest) = stream.get(start..).filter(|rest| !rest.is_empty()) {
        let (chunk, len) = piece(start, rest, wanted);
        // A little less than would fill it: the next is not quite like this one.
        wanted = len * BODY_BYTES_MAX / chunk.content.len().max(1) * 15 / 16;
        wanted = wanted.clamp(BODY_BYTES_MAX, BLOCK_BYTES_MAX);
        start += len;
        chunks.push(chunk);
    }
    chunks
}

/// The first piece of `rest`, and how much of it that is.
fn piece(start: usize, rest: &[u8], wanted: usize) -> (Chunk<'_>, usize) {
    let mut take = wanted;
    for _ in 0..TRIES {
        let body = rest.get(..take).unwrap_or(rest);
        let content = compress(body);
        if content.len() <= BODY_BYTES_MAX && content.len() < body.len() {
            return (Chunk { start, compressed: true, content: Cow::Owned(content) }, body.len());
        }
        take = body.len() * BODY_BYTES_MAX / content.len() * 15 / 16;
        if take <= BODY_BYTES_MAX {
            break;
        }
    }
    let body = rest.get(..BODY_BYTES_MAX).unwrap_or(rest);
    (Chunk::plain(start, body), body.len())
}

fn compress(body: &[u8]) -> Vec<u8> {
    let mut content = vec![0; LENGTH_BYTES + block::get_maximum_output_size(body.len())];
    let (length, room) = content.split_at_mut(LENGTH_BYTES);
    let len = u16::try_from(body.len()).expect("a piece is at most BLOCK_BYTES_MAX");
    length.copy_from_slice(&len.to_le_bytes());
    let used = block::compress_into(body, room).expect("there is room for the worst");
    content.truncate(LENGTH_BYTES + used);
    content
}

/// What `lz4` compressed; `None` if this is something else.
pub(super) fn decompress(content: &[u8]) -> Option<Vec<u8>> {
    let (length, block) = content.split_first_chunk::<LENGTH_BYTES>()?;
    let len = usize::from(u16::from_le_bytes(*length));
    if len > BLOCK_BYTES_MAX {
        return None;
    }
    let mut body = vec![0; len];
    (block::decompress_into(block, &mut body).ok()? == len).then_some(body)
}

impl<'s> Chunk<'s> {
    fn plain(start: usize, body: &'s [u8]) -> Self {
        Self { start, compressed: false, content: Cow::Borrowed(body) }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES_MAX, BODY_BYTES_MAX, decompress, lz4};

    #[test]
    fn what_cannot_be_compressed_is_left_as_it_is() {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let stream: Vec<u8> = (0..20_000).map(|_| noise()).collect();
        let chunks = lz4(&stream);
        assert!(chunks.iter().all(|chunk| !chunk.compressed));
        assert_eq!(chunks.len(), stream.len().div_ceil(BODY_BYTES_MAX));
    }

    #[test]
    fn frames_are_well_filled_by_what_can_be_compressed() {
        let stream: Vec<u8> = (0..5_000)
            .flat_map(|no| {
                format!("{{\"device\":\"{:04}\",\"seq\":{no},\"value\":{}}}", no * 7 % 1_000, no * 31 % 977)
                    .into_bytes()
            })
            .collect();
        let chunks = lz4(&stream);
        let bytes: usize = chunks.iter().map(|chunk| chunk.content.len()).sum();
        assert!(bytes * 2 < stream.len(), "{bytes} of {}", stream.len());
        assert!(bytes > chunks.len() * BODY_BYTES_MAX * 3 / 4, "{} frames for {bytes} bytes", chunks.len());
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused() {
        let chunk = lz4(&[7; 4_000]).remove(0);
        assert_eq!(decompress(&chunk.content).unwrap(), [7; 4_000]);
        let too_long = u16::try_from(BLOCK_BYTES_MAX + 1).unwrap().to_le_bytes();
        assert_eq!(decompress(&[&too_long, &chunk.content[2..]].concat()), None);
        for wrong in [3_999_u16, 4_001] {
            assert_eq!(decompress(&[&wrong.to_le_bytes(), &chunk.content[2..]].concat()), None, "{wrong}");
        }
        assert_eq!(decompress(&[]), None);
    }
}
