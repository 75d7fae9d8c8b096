//! The file of a Unix socket: who may use it, what stands in its place, and that it goes with the broker.
//!
//! A broker that was killed leaves its file behind, and nobody can listen there until it is gone. It is removed only when it
//! is a socket and nobody listens on it; any other file is somebody's, and stays.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixSocket};

/// Connections that the kernel completes ahead of us.
const BACKLOG: u32 = 1024;

/// A socket's file. Dropping it removes the file, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

/// Listens at `path`, for whom `mode` lets in. Needs a tokio runtime around it.
pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    // Before it listens: nobody can have connected under whatever mode the umask left.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok((socket.listen(BACKLOG)?, file))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Somebody else may have been faster.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        for mode in [0o660, 0o600, 0o666] {
            let (listener, file) = listen(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            assert_eq!(listen(&path, mode).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert!(path.exists(), "the one that listens keeps its file");
            drop((listener, file));
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn only_a_dead_socket_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        // Without its guard the file stays, as after kill -9.
        let (listener, mut file) = listen(&path, 0o660).unwrap();
        file.identity = None;
        drop((listener, file));
        assert!(path.exists());
        let (listener, file) = listen(&path, 0o660).unwrap();
        // Somebody has put a file of his own in its place.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop((listener, file));
        let error = listen(&path, 0o660).unwrap_err();
        assert_eq!(error.to_string(), "there is a file that is not a socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
