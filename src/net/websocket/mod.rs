//! MQTT in WebSocket frames (RFC 6455): a `Wire` around another one.
//!
//! HTTP and the layout of frames are tungstenite's; what it lacks is a reader that needs no buffer of its own, so frames are
//! taken apart here, in the thread's scratch buffer (`frames`). An idle connection owns no memory on the heap for it.
//!
//! Out goes a binary frame for each write [MQTT-6.0.0-1] [MQTT3-6.0.0-1], its header and its payload in one call, and
//! between frames what control frames are due: a Pong, of which only the latest counts, and one Close.

mod frames;
mod upgrade;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use self::frames::{Event, Frames};
use super::wire::Wire;

/// The largest frame sent: a small client may want to hold a whole one.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// The header of a frame of that size, without a mask.
const HEADER_BYTES_MAX: usize = 4;
/// Reads in one poll that brought control frames only.
const READS_MAX: usize = 16;

/// What a WebSocket listener expects of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsConfig {
    /// The path of the URL. Default `/mqtt`, which most clients use.
    pub path: String,
    /// The pages, like `https://panel.example`, whose scripts may connect; empty for all of them. A client that is no browser
    /// names none and is always let in.
    pub allowed_origins: Vec<String>,
}

/// A server's end of a WebSocket over `W`.
pub(super) struct WebSocket<W> {
    wire: W,
    frames: Frames,
    /// What came behind the request; read first.
    early: Vec<u8>,
    /// The data frame under way: its header, how much of that is written, and how much payload is not.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    header_written: u8,
    payload_left: usize,
    /// A control frame on its way, and how much of it is written.
    control: Vec<u8>,
    control_written: usize,
    /// A control frame was written and not flushed.
    unflushed: bool,
    /// A Ping's payload that has to go back.
    pong: Option<Vec<u8>>,
    close: Close,
    /// The reader has been told that the client broke the rules.
    told: bool,
}

/// How far the close handshake is, on this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    No,
    /// With this code.
    Due(u16),
    Sent,
}

impl Default for WsConfig {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), allowed_origins: Vec::new() }
    }
}

impl<W: Wire> WebSocket<W> {
    /// Answers the client's request. An error says why there is no WebSocket; the client has been told.
    pub(super) async fn accept(mut wire: W, config: &WsConfig) -> io::Result<Self> {
        let early = upgrade::upgrade(&mut wire, config).await?;
        Ok(Self::new(wire, early))
    }

    fn new(wire: W, early: Vec<u8>) -> Self {
        Self {
            wire,
            frames: Frames::default(),
            early,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            header_written: 0,
            payload_left: 0,
            control: Vec::new(),
            control_written: 0,
            unflushed: false,
            pong: None,
            close: Close::No,
            told: false,
        }
    }

    /// Reads raw bytes, those that came early first.
    fn poll_read_raw(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        let rest = self.early.split_off(count);
        buf.put_slice(&self.early);
        self.early = rest;
        Poll::Ready(Ok(()))
    }

    /// Takes the frames in `raw` apart; the MQTT bytes among them are at its front then.
    fn decode(&mut self, raw: &mut [u8]) -> usize {
        let (pong, close) = (&mut self.pong, &mut self.close);
        self.frames.decode(raw, |event| match event {
            Event::Ping(payload) => *pong = Some(payload),
            Event::Close(code) if *close == Close::No => {
                // A code that may not be sent is not sent back.
                let code = code.filter(|code| CloseCode::from(*code).is_allowed());
                *close = Close::Due(code.unwrap_or(1000));
            }
            Event::Close(_) => {}
        })
    }

    /// Writes the control frames that are due, between data frames.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.payload_left > 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            while let Some(rest) = self.control.get(self.control_written..).filter(|rest| !rest.is_empty()) {
                let wrote = ready!(Pin::new(&mut self.wire).poll_write(cx, rest))?;
                if wrote == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.control_written += wrote;
                self.unflushed = true;
            }
            (self.control, self.control_written) = (Vec::new(), 0);
            self.control = match (self.close, self.pong.take()) {
                (Close::Due(code), _) => {
                    self.close = Close::Sent;
                    control(Control::Close, &code.to_be_bytes())
                }
                (Close::No, Some(payload)) => control(Control::Pong, &payload),
                (Close::Sent, _) | (_, None) => break,
            };
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The client's Close is answered and the connection ended, as far as that goes without waiting.
    fn answer_close(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Ok(())) = self.poll_control(cx) {
            let _ = Pin::new(&mut self.wire).poll_shutdown(cx);
        }
    }

    fn begin_frame(&mut self, payload_bytes: usize) -> io::Result<()> {
        let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
        let mut rest = &mut self.header[..];
        header.format(payload_bytes as u64, &mut rest).map_err(io::Error::other)?;
        let unused = rest.len();
        self.header_bytes = u8::try_from(HEADER_BYTES_MAX - unused).unwrap_or(0);
        self.header_written = 0;
        self.payload_left = payload_bytes;
        Ok(())
    }
}

fn control(kind: Control, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Control(kind), ..FrameHeader::default() };
    let mut bytes = Vec::with_capacity(2 + payload.len());
    // Writing to memory does not fail.
    let _ = header.format(payload.len() as u64, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

impl<W: Wire> Wire for WebSocket<W> {
    fn bytes_sent(&self) -> u64 {
        self.wire.bytes_sent()
    }

    fn reset_on_close(&self) {
        self.wire.reset_on_close();
    }

    fn violation(&self) -> Option<&'static str> {
        self.frames.violation().map(frames::Violation::why)
    }
}

impl<W: Wire> AsyncRead for WebSocket<W> {
    /// Reads MQTT bytes. Nothing more comes after the client's Close. A client that broke the rules is an error, once; then
    /// its bytes are handed on as they are, to be thrown away.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        for _ in 0..READS_MAX {
            if socket.frames.is_closed() {
                return Poll::Ready(Ok(()));
            }
            if let Some(violation) = socket.frames.violation() {
                if !std::mem::replace(&mut socket.told, true) {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation.why())));
                }
                return socket.poll_read_raw(cx, buf);
            }
            // What a former read made due. It may have to wait; its waker is known then.
            if let Poll::Ready(Err(error)) = socket.poll_control(cx) {
                return Poll::Ready(Err(error));
            }
            let mut raw = ReadBuf::new(buf.initialize_unfilled());
            ready!(socket.poll_read_raw(cx, &mut raw))?;
            let read = raw.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            let kept = socket.decode(buf.initialize_unfilled_to(read));
            if socket.frames.is_closed() {
                socket.answer_close(cx);
            } else if let Poll::Ready(Err(error)) = socket.poll_control(cx) {
                return Poll::Ready(Err(error));
            }
            if kept > 0 {
                buf.advance(kept);
                return Poll::Ready(Ok(()));
            }
        }
        // Only control frames, without an end: the other tasks get their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<W: Wire> AsyncWrite for WebSocket<W> {
    /// Writes MQTT bytes. After `Pending`, or when it took fewer than there were, the rest has to come with the next call.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        if socket.payload_left == 0 {
            ready!(socket.poll_control(cx))?;
            if socket.close == Close::Sent {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            socket.begin_frame(buf.len().min(FRAME_BYTES_MAX))?;
        }
        loop {
            let header =
                socket.header.get(usize::from(socket.header_written)..usize::from(socket.header_bytes));
            let header = header.unwrap_or_default();
            let payload = buf.get(..socket.payload_left.min(buf.len())).unwrap_or_default();
            let both = [IoSlice::new(header), IoSlice::new(payload)];
            let both = if header.is_empty() { &both[1..] } else { &both[..] };
            let wrote = ready!(Pin::new(&mut socket.wire).poll_write_vectored(cx, both))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_header = wrote.min(header.len());
            socket.header_written += u8::try_from(of_header).unwrap_or(0);
            let of_payload = wrote - of_header;
            socket.payload_left -= of_payload;
            if of_payload > 0 {
                return Poll::Ready(Ok(of_payload));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        ready!(socket.poll_control(cx))?;
        Pin::new(&mut socket.wire).poll_flush(cx)
    }

    /// Says Close, and shuts the write side: the client's own Close, and its end, come by reading.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if socket.close == Close::No {
            // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]: whatever the client has done, this is its end.
            socket.close = Close::Due(socket.frames.violation().map_or(1000, frames::Violation::close_code));
        }
        ready!(socket.poll_control(cx))?;
        Pin::new(&mut socket.wire).poll_shutdown(cx)
    }
}
