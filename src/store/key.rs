//! The key of a sealed store: 32 bytes from a file or a variable.
//!
//! It is never shown: not in a log, an error or a `Debug`. Our copies of it are wiped when they are let go of; what ring
//! derives from it to seal and open frames is not.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::{BASE64, BASE64_NOPAD, Encoding, HEXLOWER_PERMISSIVE};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// No file with a key is longer: 64 digits, and a few line ends.
const FILE_BYTES_MAX: usize = 128;
/// Who may not have any of these rights to the file: its group may read it.
const MODE_REFUSED: u32 = 0o037;

/// A key. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

/// Where the key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// There is none: the store is not sealed.
    #[default]
    None,
    /// It stands in this file.
    File(PathBuf),
    /// It was given, in a variable.
    Given(StoreKey),
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file {} cannot be read ({source}): make it readable for the user the broker runs as", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too many may read or change it.
    #[error("the key file {} has mode {mode:04o}: only its owner may write it, and only its owner and group read it; chmod 600 or 640", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds something else.
    #[error("the key file {} holds no key: {NotAKey}", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// A text that is no key. It does not say which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a key is 32 bytes, as 64 hexadecimal digits or in base64")]
pub struct NotAKey;

impl StoreKey {
    /// Reads a key as a person writes it; space around it does not count.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let text = text.trim().as_bytes();
        let encoding = match text.len() {
            64 => HEXLOWER_PERMISSIVE,
            44 => BASE64,
            43 => BASE64_NOPAD,
            _ => return Err(NotAKey),
        };
        decode(&encoding, text).map(|key| Self(Arc::new(key))).ok_or(NotAKey)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

impl KeySource {
    /// Fetches the key; `None` if the store is not to be sealed.
    pub fn load(&self) -> Result<Option<StoreKey>, KeyError> {
        match self {
            Self::None => Ok(None),
            Self::Given(key) => Ok(Some(key.clone())),
            Self::File(path) => read(path).map(Some),
        }
    }
}

fn decode(encoding: &Encoding, text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    // Of 43 or 44 characters base64 makes 33 bytes at most.
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    let room = bytes.get_mut(..encoding.decode_len(text.len()).ok()?)?;
    let len = encoding.decode_mut(text, room).ok()?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let decoded = bytes.get(..len).filter(|decoded| decoded.len() == KEY_BYTES)?;
    key.copy_from_slice(decoded);
    Some(key)
}

fn read(path: &Path) -> Result<StoreKey, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the file that was opened, whatever has its name by now.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & MODE_REFUSED != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new([0; FILE_BYTES_MAX + 1]);
    let mut filled = 0;
    while let Some(free) = text.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    let text = text.get(..filled).filter(|text| text.len() <= FILE_BYTES_MAX);
    let key =
        text.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| StoreKey::parse(text).ok());
    key.ok_or_else(|| KeyError::NoKey { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{KeyError, KeySource, StoreKey};

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn a_key_is_read_in_each_of_its_spellings() {
        let key = StoreKey::parse(HEX).unwrap();
        assert_eq!(key.bytes()[..4], [0, 1, 2, 3]);
        for same in [
            &HEX.to_uppercase(),
            &format!("  {HEX}\n"),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        ] {
            assert!(StoreKey::parse(same).as_ref() == Ok(&key), "{same}");
        }
        let long = "A".repeat(44);
        for bad in ["", "secret", &HEX[1..], &format!("{HEX}00"), &"g".repeat(64), &long, &"=".repeat(44)] {
            assert!(StoreKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = StoreKey::parse(HEX).unwrap();
        assert_eq!(format!("{:?}", KeySource::Given(key)), "Given(StoreKey(..))");
    }

    #[test]
    fn a_key_file_is_its_owners_and_holds_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let source = KeySource::File(path.clone());
        assert!(matches!(source.load(), Err(KeyError::Unreadable { .. })));
        fs::write(&path, format!("{HEX}\n")).unwrap();
        for mode in [0o400, 0o440, 0o600, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(source.load().unwrap() == StoreKey::parse(HEX).ok(), "{mode:o}");
        }
        for mode in [0o644, 0o660, 0o604, 0o601, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = source.load().unwrap_err();
            assert!(matches!(error, KeyError::Exposed { mode: found, .. } if found == mode), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "not a key", &format!("{HEX}{HEX}{HEX}")] {
            fs::write(&path, bad).unwrap();
            let error = source.load().unwrap_err();
            assert!(matches!(error, KeyError::NoKey { .. }), "{error}");
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
        fs::write(&path, b"\xff".repeat(64)).unwrap();
        assert!(matches!(source.load(), Err(KeyError::NoKey { .. })));
    }
}
