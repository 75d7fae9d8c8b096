//! Numbers and strings as bytes: the alphabet `format` writes its records in.
//!
//! Numbers are little-endian base-128 varints of at most ten bytes, strings and byte strings are their length as a
//! varint and their bytes.

/// Appends a number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let low = u8::try_from(n & 0x7f).expect("seven bits fit");
        n >>= 7;
        if n == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Appends a byte string.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a string.
pub(super) fn put_str(out: &mut Vec<u8>, s: &str) {
    put_bytes(out, s.as_bytes());
}

/// Appends an optional number: 0 for none, else the number plus one.
pub(super) fn put_option(out: &mut Vec<u8>, n: Option<u32>) {
    put_varint(out, n.map_or(0, |n| u64::from(n) + 1));
}

/// Reads what the functions above wrote. Every method is `None` when the bytes end early or cannot be it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all was read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// A number. An encoding longer than it need be is refused, so that equal values have equal bytes.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// A number that fits 32 bits.
    pub(super) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// An optional number, as the number plus one, or zero.
    #[expect(clippy::option_option, reason = "the outer one says whether the bytes are an optional number")]
    pub(super) fn option(&mut self) -> Option<Option<u32>> {
        match self.varint()? {
            0 => Some(None),
            n => Some(Some(u32::try_from(n - 1).ok()?)),
        }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// A byte string.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    /// A string.
    pub(super) fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// `count` things, where each takes at least one byte: a wrong count cannot reserve memory for more than is there.
    pub(super) fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.varint()?).ok()?;
        if count > self.remaining() {
            return None;
        }
        (0..count).map(|_| one(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_every_length() {
        for shift in 0..64 {
            for n in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, n);
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint(), Some(n));
                assert!(reader.is_empty());
            }
        }
    }

    #[test]
    fn numbers_too_long_are_refused() {
        for bad in [&[0x80][..], &[0x80, 0x00], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(Reader::new(bad).varint(), None, "{bad:?}");
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(Reader::new(&out).many(Reader::byte), None);
    }
}
