//! The data types of section 1.5: a strict reader that borrows, and a sink that writes or only counts.

use super::{error::DecodeError, packet_id::PacketId};

/// The largest variable byte integer, and so the largest remaining length.
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// The longest string or binary data: its length has two bytes.
pub(super) const STRING_BYTES_MAX: usize = 65_535;

/// Reads a variable byte integer (section 1.5.5) and says how many bytes it has; `None` if it is incomplete.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]
            if byte == 0 && i > 0 {
                return Err(DecodeError::VarintNotMinimal);
            }
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::VarintTooLong) }
}

/// Takes fields off the front of one packet's bytes. Each read takes exactly its field or fails.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes not yet taken.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is left.
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(DecodeError::FieldOverrun)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::FieldOverrun)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = varint(self.bytes)?.ok_or(DecodeError::FieldOverrun)?;
        self.take(len)?;
        Ok(value)
    }

    /// Binary data (section 1.5.6).
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 encoded string (section 1.5.4). A leading U+FEFF is kept [MQTT-1.5.4-3].
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        text(self.binary()?)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        // [MQTT-2.2.1-3], [MQTT-2.2.1-4]
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    /// The packet must be used up.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

/// The bytes of a string as one.
pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    // [MQTT-1.5.4-1], [MQTT-1.5.7-1]: surrogates are refused too.
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::StringNotUtf8)?;
    // [MQTT-1.5.4-2]
    if memchr::memchr(0, bytes).is_some() {
        return Err(DecodeError::StringHasNull);
    }
    Ok(text)
}

/// Where fields are written to. One walk over a packet serves two sinks: [`Count`] measures, `Vec<u8>` writes, so the
/// two cannot disagree.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Variable byte integer, in its shortest form. A value above [`VARINT_MAX`] is a bug of ours, and saturates.
    fn varint(&mut self, value: u32) {
        debug_assert!(value <= VARINT_MAX, "{value} does not fit a variable byte integer");
        let mut rest = value.min(VARINT_MAX);
        while rest > 0x7F {
            self.u8(low_seven_bits(rest) | 0x80);
            rest >>= 7;
        }
        self.u8(low_seven_bits(rest));
    }

    /// Binary data with its length. Data over 65,535 bytes is a bug of ours, and is cut.
    fn binary(&mut self, data: &[u8]) {
        debug_assert!(data.len() <= STRING_BYTES_MAX, "binary data of {} bytes", data.len());
        let data = data.get(..STRING_BYTES_MAX).unwrap_or(data);
        self.u16(u16::try_from(data.len()).unwrap_or(u16::MAX));
        self.bytes(data);
    }

    /// A string with its length. A string over 65,535 bytes is a bug of ours, and is cut between two characters.
    fn string(&mut self, text: &str) {
        debug_assert!(text.len() <= STRING_BYTES_MAX, "string of {} bytes", text.len());
        self.binary(fitting(text).as_bytes());
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.push(value);
    }
}

/// A sink that only measures.
#[derive(Debug, Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Bytes of a variable byte integer. Values above [`VARINT_MAX`] count as four.
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn low_seven_bits(value: u32) -> u8 {
    u8::try_from(value & 0x7F).unwrap_or(0x7F)
}

/// The longest start of `text` that fits a string.
fn fitting(text: &str) -> &str {
    let mut end = text.len().min(STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::{Count, DecodeError, STRING_BYTES_MAX, Sink, VARINT_MAX, fitting, varint, varint_len};

    #[test]
    fn variable_byte_integers_are_minimal_and_at_most_four_bytes() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, VARINT_MAX] {
            let mut out = Vec::new();
            out.varint(value);
            assert_eq!(varint(&out), Ok(Some((value, out.len()))), "{value}");
            assert_eq!(varint_len(value as usize), out.len(), "{value}");
            for end in 0..out.len() {
                assert_eq!(varint(&out[..end]), Ok(None), "{value}, {end} bytes of it");
            }
        }
        assert_eq!(varint(&[0x80, 0x00]), Err(DecodeError::VarintNotMinimal));
        assert_eq!(varint(&[0xFF, 0xFF, 0xFF, 0xFF]), Err(DecodeError::VarintTooLong));
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80, 0x01]), Err(DecodeError::VarintTooLong));
    }

    #[test]
    fn a_string_too_long_is_cut_between_characters() {
        let longest = "x".repeat(STRING_BYTES_MAX);
        assert_eq!(fitting(&longest), longest);
        let too_long = "x".repeat(STRING_BYTES_MAX - 1) + "é";
        assert_eq!(fitting(&too_long), &longest[1..]);
        let mut count = Count::default();
        count.string(&longest);
        assert_eq!(count.0, 65_537);
    }
}
