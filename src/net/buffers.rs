//! The bytes of a connection on their way in and out.
//!
//! An idle connection owns no buffer: it reads into, and writes from, buffers that belong to the worker thread, and
//! keeps bytes of its own only while a packet is incomplete or the peer has not taken everything.

use std::{
    cell::Cell,
    io, mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::wire::Wire;
use crate::time::Timestamp;

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;
/// So much output is moved forward whenever some of it has left; more only when as much has left.
const MOVED_BYTES_MAX: usize = 256 * 1024;
/// An output buffer that has grown beyond this is freed instead of being handed to the next connection.
const SPARE_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The worker thread's read buffer, lent for one poll.
pub(super) struct Scratch {
    bytes: Box<[u8]>,
}

impl Scratch {
    pub(super) fn borrow() -> Self {
        Self { bytes: SCRATCH.take().unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice()) }
    }

    /// Reads once. An empty slice is the end of the stream.
    pub(super) fn read<W: AsyncRead + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&[u8]>> {
        let mut buffer = ReadBuf::new(&mut self.bytes);
        match Pin::new(wire).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len();
                Poll::Ready(Ok(self.bytes.get(..read).unwrap_or_default()))
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(Some(mem::take(&mut self.bytes)));
    }
}

/// Input that has been read and not yet used: an incomplete packet, or packets that came before a pause.
///
/// Bounded by the largest packet plus one read: whoever handles the bytes refuses a larger packet by its first bytes.
#[derive(Default)]
pub(super) struct Inbox {
    held: Vec<u8>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Hands over what is held and `fresh` behind it as one slice; keeps what `handle` does not use.
    pub(super) fn offer<T>(&mut self, fresh: &[u8], handle: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        if self.held.is_empty() {
            let (used, outcome) = handle(fresh);
            self.held.extend_from_slice(fresh.get(used..).unwrap_or_default());
            return outcome;
        }
        self.held.extend_from_slice(fresh);
        let (used, outcome) = handle(&self.held);
        self.held.drain(..used.min(self.held.len()));
        // A packet of a megabyte leaves no megabyte behind.
        if self.held.len() < self.held.capacity() / 4 {
            self.held.shrink_to_fit();
        }
        outcome
    }

    pub(super) fn discard(&mut self) {
        self.held = Vec::new();
    }
}

/// Output that the socket has not taken yet.
pub(super) struct Outbox {
    buffer: Vec<u8>,
    /// How much of `buffer` has been written.
    written: usize,
    /// Something was written and not flushed: TLS keeps records back when the socket is full.
    unflushed: bool,
    /// Since when nothing has moved, while something waits; else `NEVER`.
    waiting_since: Timestamp,
    /// The low half of `Wire::bytes_sent` when it was last looked at: nobody sends 4 GiB between two looks.
    bytes_sent: u32,
}

impl Default for Outbox {
    fn default() -> Self {
        let waiting_since = Timestamp::NEVER;
        Self { buffer: Vec::new(), written: 0, unflushed: false, waiting_since, bytes_sent: 0 }
    }
}

impl Outbox {
    /// Where to append output. Its length is what waits, and what has left of a large packet: to move that forward at every
    /// write would move a payload of 100 MB a thousand times.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        let waiting = self.buffer.len().saturating_sub(self.written);
        if self.written > 0 && waiting <= self.written.max(MOVED_BYTES_MAX) {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE.take();
        }
        &mut self.buffer
    }

    /// Whether bytes wait for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.written < self.buffer.len() || self.unflushed
    }

    /// Since when the peer has taken nothing, while bytes wait for it.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        (self.waiting_since != Timestamp::NEVER).then_some(self.waiting_since)
    }

    /// Writes with one call, the whole buffer if the socket takes it. `Ok(true)` when something moved.
    pub(super) fn write<W: Wire>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
        now: Timestamp,
    ) -> io::Result<bool> {
        let mut moved = false;
        let waiting = self.buffer.get(self.written..).unwrap_or_default();
        if !waiting.is_empty() {
            match Pin::new(&mut *wire).poll_write(cx, waiting) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    self.written += bytes;
                    self.unflushed = true;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        if self.written >= self.buffer.len() {
            self.release();
            if self.unflushed {
                match Pin::new(&mut *wire).poll_flush(cx) {
                    Poll::Ready(done) => {
                        done?;
                        self.unflushed = false;
                    }
                    Poll::Pending => {}
                }
            }
        }
        self.note_progress(wire.bytes_sent(), now);
        Ok(moved)
    }

    fn note_progress(&mut self, bytes_sent: u64, now: Timestamp) {
        let bytes_sent = u32::try_from(bytes_sent & u64::from(u32::MAX)).unwrap_or(0);
        if !self.is_waiting() {
            self.waiting_since = Timestamp::NEVER;
        } else if self.waiting_since == Timestamp::NEVER || bytes_sent != self.bytes_sent {
            self.waiting_since = now;
        }
        self.bytes_sent = bytes_sent;
    }

    /// The memory it owns, in bytes.
    #[cfg(test)]
    pub(super) fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives an empty buffer back to the thread.
    pub(super) fn release(&mut self) {
        if self.buffer.capacity() == 0 || self.written < self.buffer.len() {
            return;
        }
        self.written = 0;
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        if buffer.capacity() <= SPARE_BYTES_MAX {
            SPARE.set(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWrite;

    use super::*;

    #[test]
    fn an_incomplete_packet_is_kept_and_joined() {
        let mut inbox = Inbox::default();
        inbox.offer(b"abcde", |bytes| {
            assert_eq!(bytes, b"abcde");
            (3, ())
        });
        inbox.offer(b"fg", |bytes| {
            assert_eq!(bytes, b"defg");
            (0, ())
        });
        assert!(!inbox.is_empty());
        inbox.offer(b"", |bytes| (bytes.len(), ()));
        assert!(inbox.is_empty());
        assert_eq!(inbox.held.capacity(), 0, "nothing is left behind");
    }

    #[test]
    fn bytes_used_in_one_go_are_never_copied() {
        let mut inbox = Inbox::default();
        inbox.offer(&[7; 4096], |bytes| (bytes.len(), ()));
        assert_eq!(inbox.held.capacity(), 0);
    }

    #[test]
    fn a_handler_that_claims_more_than_there_is_does_no_harm() {
        let mut inbox = Inbox::default();
        inbox.offer(b"ab", |_| (9, ()));
        inbox.offer(b"c", |_| (0, ()));
        inbox.offer(b"d", |_| (9, ()));
        assert!(inbox.is_empty());
    }

    /// A socket that takes so much at a time.
    struct Slow {
        at_once: usize,
        taken: Vec<u8>,
    }

    impl AsyncRead for Slow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.get(..self.at_once).unwrap_or(bytes);
            self.taken.extend_from_slice(taken);
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Wire for Slow {
        fn bytes_sent(&self) -> u64 {
            self.taken.len() as u64
        }

        fn reset_on_close(&self) {}
    }

    /// Each write of a payload of 100 MB moved all that was left of it.
    #[test]
    fn a_large_packet_is_not_moved_at_every_write() {
        let packet: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut slow = Slow { at_once: 100_000, taken: Vec::new() };
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(&packet);
        let (mut length, mut moved) = (packet.len(), 0);
        while outbox.is_waiting() {
            outbox.write(&mut slow, &mut Context::from_waker(Waker::noop()), Timestamp(0)).unwrap();
            let now = outbox.buffer().len();
            if now < length {
                moved += now;
            }
            length = now;
        }
        assert!(slow.taken == packet);
        assert!(moved < 2 * packet.len(), "{moved} bytes were moved");
    }

    #[test]
    fn the_scratch_buffer_is_lent_and_returned() {
        let first = Scratch::borrow();
        let place = first.bytes.as_ptr();
        drop(first);
        let again = Scratch::borrow();
        assert_eq!(again.bytes.as_ptr(), place);
        let nested = Scratch::borrow();
        assert_ne!(nested.bytes.as_ptr(), place, "a second borrower gets one of its own");
    }
}
