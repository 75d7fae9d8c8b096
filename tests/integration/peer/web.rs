//! A WebSocket client by tokio-tungstenite, as a stream of MQTT bytes.

use std::{
    io,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
    },
};

/// What a small write to the duplex stream may be ahead of the socket.
const AHEAD_BYTES: usize = 64 * 1024;

/// The client's end of a WebSocket.
pub(super) struct Web {
    /// MQTT bytes; it ends when the WebSocket does.
    pub(super) stream: DuplexStream,
    /// The code of the server's Close, once it has come.
    pub(super) close_code: Arc<Mutex<Option<u16>>>,
}

impl Web {
    /// Asks for a WebSocket on `stream`; `place` is the URL's address and path.
    pub(super) async fn open<S>(stream: S, place: &str) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // TLS, if there is any, is below.
        let mut request = format!("ws://{place}").into_client_request().map_err(io::Error::other)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        let (socket, response) = client_async(request, stream).await.map_err(io::Error::other)?;
        // [MQTT-6.0.0-4] [MQTT3-6.0.0-4]
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "mqtt");
        let (mut outgoing, mut incoming) = socket.split();
        let (near, far) = tokio::io::duplex(AHEAD_BYTES);
        let (mut from_test, mut to_test) = tokio::io::split(far);
        tokio::spawn(async move {
            let mut buffer = vec![0; AHEAD_BYTES];
            while let Ok(bytes) = from_test.read(&mut buffer).await {
                let message = Message::binary(buffer[..bytes].to_vec());
                if bytes == 0 || outgoing.send(message).await.is_err() {
                    break;
                }
            }
            // The server may have closed already.
            let _ = outgoing.close().await;
        });
        let close_code = Arc::new(Mutex::new(None));
        let code = Arc::clone(&close_code);
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                match message {
                    // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
                    Message::Binary(bytes) => {
                        if to_test.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                    Message::Close(frame) => *code.lock().unwrap() = frame.map(|frame| frame.code.into()),
                    Message::Pong(_) => {}
                    other => panic!("a server sends no such thing: {other:?}"),
                }
            }
            let _ = to_test.shutdown().await;
        });
        Ok(Self { stream: near, close_code })
    }
}
