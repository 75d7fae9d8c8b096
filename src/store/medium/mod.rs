//! The seam under the journal: something that keeps frames.
//!
//! A medium holds *generations*, numbered in order, and in each of them frames by number. Frames are only added to the
//! newest generation, and a generation is only deleted whole. What `apply` took may be lost, wholly or in part, until
//! `sync` has returned; what was synced stays. Making and deleting a generation is durable when the call returns.

pub mod sim;
pub mod sled;

use std::io;

use thiserror::Error;

/// Why a medium did not do what it was asked.
#[derive(Debug, Error)]
pub enum MediumError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store below has found itself in a state that cannot be.
    #[error("the store below broke: {0}")]
    Broken(String),
    /// A closed generation is not as it was when it was closed: the medium has to be opened again, to see what can be
    /// saved of it.
    #[error("a part of it has changed since it was closed")]
    Changed,
    /// What it keeps was written by a newer build, in this version of the format.
    #[error("format version {0}")]
    Newer(u8),
}

/// What is left of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes this process may still take.
    pub free_bytes: u64,
    /// All bytes there are.
    pub total_bytes: u64,
    /// Bytes that the files will grow by at the next start, whatever is written until then.
    pub owed_bytes: u64,
    /// Files that may still be made; `u64::MAX` where they are not counted.
    pub free_files: u64,
}

/// What has come of reading a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is not there; what is in the buffer means nothing.
    Nothing,
    /// What stands in its place.
    Bytes,
    /// The same, and it has the checksum and the number that it should have.
    Checked,
}

impl Found {
    /// Bytes at hand, if there are any.
    pub(in crate::store) fn copied(bytes: Option<impl AsRef<[u8]>>, into: &mut Vec<u8>) -> Self {
        let Some(bytes) = bytes else { return Self::Nothing };
        into.clear();
        into.extend_from_slice(bytes.as_ref());
        Self::Bytes
    }
}

/// A frame and its number.
pub type NumberedFrame = (u64, Vec<u8>);

/// Keeps frames. Shared by the commit thread, which alone writes, and those who read.
pub trait Medium: Send + Sync {
    /// The generations there are, ascending.
    fn generations(&self) -> Vec<u32>;

    /// How many generations were found damaged when the medium was opened, and set aside.
    fn damaged(&self) -> u64 {
        0
    }

    /// Bytes its files take on disk now; 0 if it has none.
    fn disk_bytes(&self) -> u64 {
        0
    }

    /// What is left of the file system it is on; `None` if there is none, or it does not say.
    fn space(&self) -> Option<DiskSpace> {
        None
    }

    /// Shows every frame of a generation in the order of the numbers. After an error it may have shown some.
    fn scan(&self, generation: u32, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), MediumError>;

    /// Makes a generation, newer than all others; frames go there from now on.
    fn new_generation(&self, generation: u32) -> Result<(), MediumError>;

    /// Adds frames to the newest generation, not yet durably.
    fn apply(&self, frames: Vec<NumberedFrame>) -> Result<(), MediumError>;

    /// Makes what was applied durable.
    fn sync(&self) -> Result<(), MediumError>;

    /// Hands what was applied to the operating system: it survives this process, not the machine.
    fn hand_over(&self) -> Result<(), MediumError>;

    /// Reads a frame back, in the place of what is in `into`: a buffer that is used again and again.
    fn read(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError>;

    /// The same, if it is known to be possible without waiting for the disk; [`io::ErrorKind::WouldBlock`] if not.
    fn read_at_hand(&self, _generation: u32, _frame: u64, _into: &mut Vec<u8>) -> Result<Found, MediumError> {
        Err(MediumError::Io(io::ErrorKind::WouldBlock.into()))
    }

    /// Deletes a generation with all in it.
    fn delete_generation(&self, generation: u32) -> Result<(), MediumError>;
}
