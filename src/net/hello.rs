//! A TLS client's first message: read as it comes, and what ticket stands in it.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::buffers::Scratch;

/// A whole `ClientHello`.
pub(super) struct Hello {
    pub(super) accepted: Accepted,
    /// The ticket in it, if it came in one piece.
    pub(super) ticket: Option<Vec<u8>>,
}

impl Hello {
    /// Reads one, and tells the peer of what is none.
    pub(super) async fn read(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Self> {
        let mut acceptor = Acceptor::default();
        let mut ticket = poll_fn(|cx| poll_read(stream, &mut acceptor, cx)).await?;
        loop {
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Self { accepted, ticket }),
                Ok(None) => {}
                Err((error, alert)) => {
                    tell(stream, alert).await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
            ticket = None;
            poll_fn(|cx| poll_read(stream, &mut acceptor, cx)).await?;
        }
    }
}

/// Reads once, and returns the ticket in it.
fn poll_read(
    stream: &mut (impl AsyncRead + Unpin),
    acceptor: &mut Acceptor,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    let mut scratch = Scratch::borrow();
    let read = ready!(scratch.read(stream, cx))?;
    if read.is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut rest = read;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest)? == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
    }
    Poll::Ready(Ok(ticket(read).map(<[u8]>::to_vec)))
}

async fn tell(stream: &mut (impl AsyncWrite + Unpin), mut alert: AcceptedAlert) -> io::Result<()> {
    let mut bytes = Vec::new();
    alert.write_all(&mut bytes)?;
    stream.write_all(&bytes).await
}

/// The ticket in a record with a whole `ClientHello`: the first identity of TLS 1.3 (RFC 8446, 4.2.11), else the ticket of
/// TLS 1.2 (RFC 5077, 3.2). Only a hint where to compute: rustls reads the message by itself, and judges it.
fn ticket(record: &[u8]) -> Option<&[u8]> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const VERSION_AND_RANDOM_BYTES: usize = 2 + 32;
    const SESSION_TICKET: u16 = 35;
    const PRE_SHARED_KEY: u16 = 41;
    let mut record = Reader(record);
    if record.u8()? != HANDSHAKE {
        return None;
    }
    record.skip(2)?;
    let mut message = record.list_u16()?;
    if message.u8()? != CLIENT_HELLO {
        return None;
    }
    message.skip(3 + VERSION_AND_RANDOM_BYTES)?;
    let session_id_bytes = message.u8()?.into();
    message.skip(session_id_bytes)?;
    message.list_u16()?;
    let compression_bytes = message.u8()?.into();
    message.skip(compression_bytes)?;
    let mut extensions = message.list_u16()?;
    let mut of_v12 = None;
    while let Some(kind) = extensions.u16() {
        let mut extension = extensions.list_u16()?;
        match kind {
            PRE_SHARED_KEY => return extension.list_u16()?.list_u16().map(|identity| identity.0),
            SESSION_TICKET if !extension.0.is_empty() => of_v12 = Some(extension.0),
            _ => {}
        }
    }
    of_v12
}

/// Bytes in the order of the network.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// What stands behind its length in two bytes.
    fn list_u16(&mut self) -> Option<Self> {
        let bytes = self.u16()?.into();
        let (list, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(Self(list))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// A `ClientHello` with these extensions.
    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend_from_slice(&kind.to_be_bytes());
            list.extend_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
            list.extend_from_slice(content);
        }
        // Version, random, a session identifier of two bytes, one cipher, no compression.
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([2, 9, 9, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        body.extend(list);
        let mut message = vec![1, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        record.extend(message);
        record
    }

    /// Two identities with their ages, and what proves them.
    const PRE_SHARED: &[u8] = b"\0\x14\0\x03one\0\0\0\0\0\x05three\0\0\0\0\0\x02\x01!";

    #[test]
    fn a_ticket_is_found_where_there_is_one() {
        assert_eq!(ticket(&hello(&[])), None);
        assert_eq!(ticket(&hello(&[(10, b"??"), (41, PRE_SHARED)])), Some(&b"one"[..]));
        assert_eq!(ticket(&hello(&[(35, b"old"), (10, b"??")])), Some(&b"old"[..]));
        assert_eq!(ticket(&hello(&[(35, b"old"), (41, PRE_SHARED)])), Some(&b"one"[..]));
        assert_eq!(ticket(&hello(&[(35, b"")])), None, "that only asks for one");
    }

    #[test]
    fn a_hello_that_is_cut_or_changed_harms_nobody() {
        let whole = hello(&[(35, b"old"), (41, PRE_SHARED)]);
        for at in 0..whole.len() {
            assert_eq!(ticket(&whole[..at]), None, "cut to {at} bytes");
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bad = whole.clone();
                bad[at] = byte;
                let found = ticket(&bad);
                assert!(found.is_none_or(|found| found.len() < bad.len()), "byte {at} is {byte}");
            }
        }
    }

    #[tokio::test]
    async fn who_speaks_something_else_is_told_so_in_tls() {
        let (mut client, mut server) = duplex(1024);
        // An MQTT CONNECT on the wrong port.
        client.write_all(b"\x10\x0f\0\x04MQTT\x05\x02\0\0\0\0\x02id").await.unwrap();
        let error = Hello::read(&mut server).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut alert = [0; 7];
        client.read_exact(&mut alert).await.unwrap();
        assert_eq!(alert[..2], [21, 3], "an alert");
    }

    #[tokio::test]
    async fn a_peer_that_leaves_before_its_hello_ends_it() {
        let (mut client, mut server) = duplex(1024);
        client.write_all(&hello(&[])[..20]).await.unwrap();
        drop(client);
        let error = Hello::read(&mut server).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
