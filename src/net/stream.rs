//! An accepted socket of either kind, and where its other end is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{listener::Bind, socket_file::SocketFile};
use crate::broker::Address;

/// A listening socket.
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes with it.
        _file: SocketFile,
    },
}

/// An accepted socket.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Acceptor {
    /// Where it listens, if that is not known already: the port the system chose.
    pub(super) fn local_address(&self) -> Option<Bind> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Bind::Tcp),
            Self::Unix { .. } => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Address::Net(address)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                // What the kernel knows of a peer's process when it connected; it need not live any more.
                let credentials = stream.peer_cred().ok();
                let uid = credentials.as_ref().map(tokio::net::unix::UCred::uid);
                let pid = credentials.and_then(|credentials| credentials.pid());
                Ok((Stream::Unix(stream), Address::Local { uid, pid }))
            }
        }
    }
}

impl Stream {
    /// Small packets leave at once. It fails only on a socket that is dead already, which its task will find out.
    pub(super) fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
        }
    }

    /// Resolves when the peer has sent something, or has closed.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.ready(Interest::READABLE).await.map(|_| ()),
        }
    }

    /// Lets the coming close be a reset, which throws away what the peer does not take. A Unix socket holds nothing of it
    /// on this side.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // It fails only on a socket that is closed already.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither keeps anything back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
