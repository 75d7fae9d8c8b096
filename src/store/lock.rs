//! One process per data folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use super::{error::OpenError, swap};
use crate::folder;

/// Holds the data folder until it is dropped. The lock is the operating system's, so a killed process leaves none.
#[derive(Debug)]
pub(super) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the folder if need be, durably, and locks it.
    pub(super) fn take(data: &Path) -> Result<Self, OpenError> {
        let path = || data.to_owned();
        folder::make(data).map_err(|source| OpenError::CannotCreate { path: path(), source })?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data.join("LOCK"))
            .map_err(|source| OpenError::NotWritable { path: path(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path() }),
            Err(TryLockError::Error(source)) => Err(OpenError::NotWritable { path: path(), source }),
        }
    }

    /// Keeps others from starting a broker on the data, changing nothing; `None` if none was ever started there.
    pub(super) fn look(data: &Path) -> Result<Option<Self>, OpenError> {
        let path = || data.to_owned();
        if !swap::current(data).is_dir() {
            return Err(OpenError::Missing { path: path() });
        }
        let file = match File::open(data.join("LOCK")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Unreadable { path: path(), source }),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path() }),
            Err(TryLockError::Error(source)) => Err(OpenError::Unreadable { path: path(), source }),
        }
    }
}
