//! Any bytes, in any version: decoding does not panic, and what decodes, encodes to bytes that decode to the same
//! packet. The first byte of the input picks the version.

use dormouse::codec::{Version, decode};

/// Runs one input.
pub fn run(input: &[u8]) {
    let Some((&pick, bytes)) = input.split_first() else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(pick) % 3];
    let Ok(Some((packet, used))) = decode(bytes, version, u32::MAX) else { return };
    assert!(used <= bytes.len());
    assert!(decode(bytes, version, u32::try_from(used).unwrap() - 1).is_err());

    let mut again = Vec::new();
    packet.encode(version, &mut again);
    assert_eq!(packet.encoded_len(version), again.len());
    assert_eq!(decode(&again, version, u32::MAX), Ok(Some((packet, again.len()))));
}
