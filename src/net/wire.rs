//! A socket as the connection task sees it: bytes in and out, how many have left, and a way to end it hard.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::stream::Stream;

/// What carries an MQTT connection.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Bytes the operating system has taken, with TLS's own. A slow reader is one under which this stands still.
    fn bytes_sent(&self) -> u64;

    /// Lets the coming close be a reset, which throws away what the peer does not take.
    fn reset_on_close(&self);

    /// How the peer has broken the rules of what carries MQTT, if the peer can be told so by `poll_shutdown`.
    fn violation(&self) -> Option<&'static str> {
        None
    }
}

/// A stream that counts what it has sent. Below TLS, where a write of the application says nothing about progress.
pub(super) struct Metered<S> {
    stream: S,
    bytes_sent: u64,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, bytes_sent: 0 }
    }

    fn count(&mut self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.bytes_sent = self.bytes_sent.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        wrote
    }
}

impl Wire for Metered<Stream> {
    fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}

impl Wire for Box<TlsStream<Metered<Stream>>> {
    fn bytes_sent(&self) -> u64 {
        self.get_ref().0.bytes_sent
    }

    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
