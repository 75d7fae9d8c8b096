//! Both ends in memory, on a pipe of a few bytes, so that every write is cut.

use std::io::Cursor;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

struct Pipe(DuplexStream);

impl Wire for Pipe {
    fn bytes_sent(&self) -> u64 {
        0
    }

    fn reset_on_close(&self) {}
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What the server has sent: the payload of its binary frames, its Pongs and its Close's code.
fn taken_apart(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>, Option<u16>) {
    let (mut data, mut pongs, mut close) = (Vec::new(), Vec::new(), None);
    let mut cursor = Cursor::new(bytes);
    while let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() {
        let start = usize::try_from(cursor.position()).unwrap();
        let payload = &bytes[start..start + usize::try_from(length).unwrap()];
        cursor.set_position(cursor.position() + length);
        assert!(header.mask.is_none() && header.is_final, "a server's frame has no mask");
        match header.opcode {
            OpCode::Data(Data::Binary) => data.extend_from_slice(payload),
            OpCode::Control(Control::Pong) => pongs.push(payload.to_vec()),
            OpCode::Control(Control::Close) => {
                assert_eq!(close.replace(u16::from_be_bytes(payload.try_into().unwrap())), None);
            }
            other => panic!("{other:?}"),
        }
    }
    (data, pongs, close)
}

/// A client's control frame, with a mask of zeros.
fn asked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// [MQTT-6.0.0-1] [MQTT3-6.0.0-1]: binary frames, whole ones, whatever the pipe takes at a time.
#[tokio::test]
async fn frames_survive_a_pipe_of_a_few_bytes() {
    let payload: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    for pipe_bytes in [1, 2, 3, 7, 1_000, 70_000] {
        let (near, mut far) = duplex(pipe_bytes);
        let expected = payload.clone();
        let server = tokio::spawn(async move {
            let mut socket = WebSocket::new(Pipe(near), Vec::new());
            socket.write_all(&expected[..50_000]).await.unwrap();
            let mut byte = [0];
            assert_eq!(socket.read(&mut byte).await.unwrap(), 1, "behind two pings");
            socket.write_all(&expected[50_000..]).await.unwrap();
            socket.flush().await.unwrap();
            socket.shutdown().await.unwrap();
        });
        let (mut reader, mut writer) = tokio::io::split(&mut far);
        let sending = async {
            let all = [asked(9, b"one"), asked(9, b"two"), vec![0x82, 0x81, 0, 0, 0, 0, b'x']].concat();
            writer.write_all(&all).await.unwrap();
        };
        let mut bytes = Vec::new();
        let ((), read) = tokio::join!(sending, reader.read_to_end(&mut bytes));
        read.unwrap();
        server.await.unwrap();
        let (data, pongs, close) = taken_apart(&bytes);
        assert!(data == payload, "{pipe_bytes}: {} bytes", data.len());
        // One Pong for the latest is enough, but there has to be that one.
        assert_eq!(pongs.last().map(Vec::as_slice), Some(&b"two"[..]), "{pipe_bytes}");
        assert_eq!(close, Some(1000));
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_ends_the_input() {
    for (payload, code) in [
        (&b""[..], 1000),
        (&[0x03, 0xe9][..], 1001),
        (&[0x03, 0xee][..], 1000),
        (&[0x0f, 0xa0, b'x'][..], 4000),
    ] {
        let (near, mut far) = duplex(1_000);
        let mut socket = WebSocket::new(Pipe(near), asked(8, payload));
        let mut buffer = Vec::new();
        assert_eq!(socket.read_to_end(&mut buffer).await.unwrap(), 0);
        assert!(socket.write_all(b"too late").await.is_err());
        drop(socket);
        far.read_to_end(&mut buffer).await.unwrap();
        assert_eq!(taken_apart(&buffer), (Vec::new(), Vec::new(), Some(code)));
    }
}
