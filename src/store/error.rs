//! Why a journal cannot be opened. Each message is one sentence with the path and what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::key::KeyError;

/// Why a journal cannot be opened. Damaged data is no reason: it is set aside.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the data folder.
    #[error("the data folder {} is in use by another process: stop it, or choose another folder", .path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// The data folder is not there and cannot be made.
    #[error("the data folder {} cannot be created ({source}): create it for the user the broker runs as", .path.display())]
    CannotCreate {
        /// The data folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data folder cannot be written to.
    #[error("the data folder {} cannot be written to ({source}): check its owner, its mount and the space left", .path.display())]
    NotWritable {
        /// The data folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses to let the journal be read.
    #[error("the journal in {} cannot be opened ({source}): check the permissions and the limit on open files", .path.display())]
    Unreadable {
        /// The data folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to look at.
    #[error("the folder {} holds no store: name the data folder with --data or --config", .path.display())]
    Missing {
        /// The data folder.
        path: PathBuf,
    },
    /// A newer Dormouse has written the journal.
    #[error("the journal in {} has format {version}, which this version cannot read: run the newer Dormouse that wrote it", .path.display())]
    NewerFormat {
        /// The data folder.
        path: PathBuf,
        /// The format's version.
        version: u8,
    },
    /// The key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is sealed, and no key was given.
    #[error("the store in {} is sealed, and no key was given: name its key in [store] key_file or DORMOUSE_STORE_KEY", .path.display())]
    KeyMissing {
        /// The data folder.
        path: PathBuf,
    },
    /// It is sealed with another key.
    #[error("the store in {} is sealed with another key: name that one in [store] key_file or DORMOUSE_STORE_KEY; nothing was changed", .path.display())]
    KeyWrong {
        /// The data folder.
        path: PathBuf,
    },
    /// A key was given, and it is not sealed.
    #[error("the store in {} is not sealed, and a key was given: seal it with dormouse store rekey, or take the key out of the configuration", .path.display())]
    KeyForPlain {
        /// The data folder.
        path: PathBuf,
    },
}
