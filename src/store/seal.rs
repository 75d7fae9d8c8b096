//! Sealing what frames carry: ChaCha20-Poly1305, under a key that is new for every commit.
//!
//! A sealed content is 16 bytes of salt, the body encrypted, and 16 bytes of tag. The salt is drawn from the system's
//! generator for each commit (`Sealer::new`); from it and the store's key comes the commit's key, by HKDF-SHA-256
//! (RFC 5869). The nonce is the frame's index in its commit. The tag covers also the frame's header and the number of its
//! generation: a frame moved, renumbered or put into another commit does not open.
//!
//! # Why no nonce comes twice under a key
//!
//! Two frames can have the same key only if they have the same salt, and then they were sealed by the same `Sealer` (128
//! random bits: after 2^40 commits, a thousand a second for 30 years, the chance that any two of them ever were equal is
//! below 2^-48). A sealer numbers what it seals by itself and never goes back. So this does not rest on anything that is
//! remembered, and nothing that turns the folder or the broker back can break it:
//!
//! - a crash after which a commit's and a frame's number are given again, with other content: another salt;
//! - a backup of the folder that is put back, or a copy of it that goes its own way: the same;
//! - compaction and import: what they write are commits like any other;
//! - a rebuilt generation takes the sealed frames as they are: the same content under the same nonce;
//! - `rekey` opens each frame and seals it with a sealer of its own;
//! - a virtual machine that is cloned while it runs: the salt comes from the kernel, not from a counter of ours.
//!
//! One algorithm, because it is as safe and fast without AES instructions, which small boards lack.

use std::sync::Mutex;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

use super::key::StoreKey;
use crate::sync::lock;

/// Bytes of salt in front of what is sealed.
const SALT_BYTES: usize = 16;
/// Bytes of tag behind it.
const TAG_BYTES: usize = 16;
/// What sealing adds.
pub(super) const SEAL_BYTES: usize = SALT_BYTES + TAG_BYTES;

/// What the keys derived here are for; another use would have another text.
const PURPOSE: &[u8] = b"dormouse store frames 3";

/// How many commits' keys are kept for reading: as many as are read from by turns.
const KEYS_KEPT: usize = 4;

/// Why nothing was sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum SealError {
    /// The system gave no random bytes.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// A nonce would be used twice.
    #[error("a frame would be sealed out of its order")]
    Used,
    /// It does not open.
    #[error("it does not open")]
    Closed,
}

/// Seals the frames of one commit, in their order.
pub(super) struct Sealer {
    salt: [u8; SALT_BYTES],
    key: LessSafeKey,
    next: u32,
}

impl Sealer {
    /// A new one, with a salt of its own.
    pub(super) fn new(key: &StoreKey) -> Result<Self, SealError> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| SealError::NoRandomness)?;
        Ok(Self { salt, key: derive(key, &salt)?, next: 0 })
    }

    /// Appends `body`, sealed, to `frame`. The tag covers `around` too. `index` is the nonce: it has to grow.
    pub(super) fn seal(
        &mut self,
        index: u32,
        around: &[u8],
        frame: &mut Vec<u8>,
        body: &[u8],
    ) -> Result<(), SealError> {
        if index < self.next {
            return Err(SealError::Used);
        }
        self.next = index.checked_add(1).ok_or(SealError::Used)?;
        frame.extend_from_slice(&self.salt);
        let from = frame.len();
        frame.extend_from_slice(body);
        let sealed = frame.get_mut(from..).unwrap_or_default();
        let tag = self.key.seal_in_place_separate_tag(nonce(index), Aad::from(around), sealed);
        frame.extend_from_slice(tag.map_err(|_| SealError::Used)?.as_ref());
        Ok(())
    }
}

/// Opens what any sealer with this key has sealed.
pub(super) struct Opener {
    key: StoreKey,
    /// The keys of the commits read last, the latest last.
    recent: Mutex<Vec<([u8; SALT_BYTES], LessSafeKey)>>,
}

impl Opener {
    pub(super) fn new(key: StoreKey) -> Self {
        Self { key, recent: Mutex::default() }
    }

    /// The key it opens with.
    pub(super) fn key(&self) -> &StoreKey {
        &self.key
    }

    /// Opens what `Sealer::seal` appended with this index and this around it.
    pub(super) fn open(&self, index: u32, around: &[u8], content: &[u8]) -> Result<Vec<u8>, SealError> {
        let (salt, sealed) = content.split_first_chunk::<SALT_BYTES>().ok_or(SealError::Closed)?;
        let key = self.commit_key(salt)?;
        let mut body = sealed.to_vec();
        let len = key.open_in_place(nonce(index), Aad::from(around), &mut body);
        let len = len.map_err(|_| SealError::Closed)?.len();
        body.truncate(len);
        Ok(body)
    }

    fn commit_key(&self, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, SealError> {
        let mut recent = lock(&self.recent);
        if let Some((_, key)) = recent.iter().rev().find(|(of, _)| of == salt) {
            return Ok(key.clone());
        }
        let key = derive(&self.key, salt)?;
        if recent.len() >= KEYS_KEPT {
            recent.remove(0);
        }
        recent.push((*salt, key.clone()));
        Ok(key)
    }
}

fn derive(key: &StoreKey, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, SealError> {
    let random = Salt::new(HKDF_SHA256, salt).extract(key.bytes());
    let info = [PURPOSE];
    let derived = random.expand(&info, &CHACHA20_POLY1305).map_err(|_| SealError::Closed)?;
    Ok(LessSafeKey::new(UnboundKey::from(derived)))
}

/// The index, and nothing else: the key is one commit's.
fn nonce(index: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes.iter_mut().zip(index.to_le_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Opener, SALT_BYTES, SEAL_BYTES, SealError, Sealer};
    use crate::store::key::StoreKey;

    fn key(fill: &str) -> StoreKey {
        StoreKey::parse(&fill.repeat(64)).unwrap()
    }

    fn seal(sealer: &mut Sealer, index: u32, body: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        sealer.seal(index, b"around", &mut content, body).unwrap();
        content
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_only() {
        let content = seal(&mut Sealer::new(&key("a")).unwrap(), 7, b"what was acknowledged");
        assert_eq!(content.len(), 21 + SEAL_BYTES);
        let opener = Opener::new(key("a"));
        assert_eq!(opener.open(7, b"around", &content).unwrap(), b"what was acknowledged");
        assert_eq!(opener.open(8, b"around", &content), Err(SealError::Closed));
        assert_eq!(opener.open(7, b"elsewhere", &content), Err(SealError::Closed));
        assert_eq!(Opener::new(key("b")).open(7, b"around", &content), Err(SealError::Closed));
        for at in 0..content.len() {
            let mut bad = content.clone();
            bad[at] ^= 1;
            assert_eq!(opener.open(7, b"around", &bad), Err(SealError::Closed), "byte {at}");
            assert!(opener.open(7, b"around", &content[..at]).is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn a_sealer_never_takes_a_nonce_twice() {
        let mut sealer = Sealer::new(&key("a")).unwrap();
        seal(&mut sealer, 0, b"one");
        seal(&mut sealer, 5, b"two");
        for used in [0, 4, 5] {
            let mut content = Vec::new();
            assert_eq!(sealer.seal(used, b"", &mut content, b"other"), Err(SealError::Used));
            assert!(content.is_empty());
        }
    }

    /// The same commit written again, after a crash or from a backup, is sealed under another key.
    #[test]
    fn two_sealers_never_seal_alike() {
        let (mut one, mut two) = (Sealer::new(&key("a")).unwrap(), Sealer::new(&key("a")).unwrap());
        let (one, two) = (seal(&mut one, 0, &[0; 64]), seal(&mut two, 0, &[0; 64]));
        assert_ne!(one[..SALT_BYTES], two[..SALT_BYTES]);
        assert_ne!(one[SALT_BYTES..], two[SALT_BYTES..], "one key stream for both");
    }

    #[test]
    fn keys_of_many_commits_are_found_again() {
        let mut sealers: Vec<Sealer> = (0..20).map(|_| Sealer::new(&key("a")).unwrap()).collect();
        let contents: Vec<Vec<u8>> = sealers.iter_mut().map(|sealer| seal(sealer, 0, b"body")).collect();
        let opener = Opener::new(key("a"));
        for content in contents.iter().chain(contents.iter().rev()) {
            assert_eq!(opener.open(0, b"around", content).unwrap(), b"body");
        }
    }
}
