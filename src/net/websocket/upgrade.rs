//! From an HTTP request to a WebSocket, or to an answer that says why not (RFC 6455, section 4.2).

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tungstenite::{
    error::{Error, ProtocolError},
    handshake::{
        machine::TryParse,
        server::{Request, create_response, write_response},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
};

use super::WsConfig;

/// The largest request: a browser's with its cookies has one or two KiB.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// What a refused client may go on sending, and how long it may take to read why and to close.
const REFUSED_BYTES_MAX: usize = 64 * 1024;
const REFUSED_TIME: Duration = Duration::from_secs(2);
/// The names of MQTT as a sub-protocol, best first: the standard's, and what clients of 3.1 offer.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It is not all there.
    Incomplete,
    /// The response, and how many bytes the request took.
    Upgrade {
        response: Vec<u8>,
        used_bytes: usize,
    },
    Refusal(Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    why: &'static str,
}

/// Reads the request and answers it. Returns what the client has sent behind it; an error says why it was refused.
pub(super) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    config: &WsConfig,
) -> io::Result<Vec<u8>> {
    let mut input = Vec::with_capacity(1024);
    loop {
        match answer(&input, config) {
            Answer::Incomplete => {}
            Answer::Upgrade { response, used_bytes } => {
                stream.write_all(&response).await?;
                stream.flush().await?;
                return Ok(input.split_off(used_bytes));
            }
            Answer::Refusal(refusal) => {
                // It is refused whether it is told in time or not.
                let _ = timeout(REFUSED_TIME, refuse(stream, refusal)).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, refusal.why));
            }
        }
        let room = (REQUEST_BYTES_MAX - input.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn answer(input: &[u8], config: &WsConfig) -> Answer {
    let refusal = |status, why| Answer::Refusal(Refusal { status, why });
    let (used_bytes, request) = match Request::try_parse(input) {
        Ok(Some(parsed)) => parsed,
        Ok(None) if input.len() >= REQUEST_BYTES_MAX => {
            return refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the HTTP request is too large");
        }
        Ok(None) => return Answer::Incomplete,
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "an HTTP request that is not GET");
        }
        Err(_) => return refusal(StatusCode::BAD_REQUEST, "not an HTTP request"),
    };
    if request.uri().path() != config.path {
        return refusal(StatusCode::NOT_FOUND, "an HTTP request for another path");
    }
    if !has_allowed_origin(request.headers(), &config.allowed_origins) {
        return refusal(StatusCode::FORBIDDEN, "an Origin that is not allowed");
    }
    let mut response = match create_response(&request) {
        Ok(response) => response,
        Err(Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
        )) => return refusal(StatusCode::UPGRADE_REQUIRED, "an HTTP request that asks for no WebSocket"),
        Err(Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)) => {
            return refusal(StatusCode::UPGRADE_REQUIRED, "another version of WebSocket than 13");
        }
        Err(_) => return refusal(StatusCode::BAD_REQUEST, "a malformed WebSocket request"),
    };
    // [MQTT-6.0.0-3] [MQTT3-6.0.0-3]
    let Some(protocol) = sub_protocol(request.headers()) else {
        return refusal(StatusCode::BAD_REQUEST, "the WebSocket sub-protocol \"mqtt\" is not offered");
    };
    // [MQTT-6.0.0-4] [MQTT3-6.0.0-4]
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let mut bytes = Vec::new();
    match write_response(&mut bytes, &response) {
        Ok(()) => Answer::Upgrade { response: bytes, used_bytes },
        Err(_) => refusal(StatusCode::BAD_REQUEST, "a malformed WebSocket request"),
    }
}

/// Only browsers say from which page they come, and only they can be trusted with it: whoever says nothing is let in.
fn has_allowed_origin(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let is_allowed = |origin: &HeaderValue| {
        let is_it = |allowed: &String| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
        allowed.iter().any(is_it)
    };
    allowed.is_empty() || origins.all(is_allowed)
}

/// The best of what the client offers, in however many headers.
fn sub_protocol(headers: &HeaderMap) -> Option<&'static str> {
    PROTOCOLS.into_iter().find(|protocol| {
        let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','))
            .any(|p| p.trim() == *protocol)
    })
}

/// Sends the answer, and lets it arrive: input left unread would make a reset of the close.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, refusal: Refusal) -> io::Result<()> {
    stream.write_all(&refusal.response()).await?;
    stream.shutdown().await?;
    let mut discarded = [0; 1024];
    let mut left = REFUSED_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut discarded).await? {
            0 => break,
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}

impl Refusal {
    fn response(self) -> Vec<u8> {
        let extra = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => "Allow: GET\r\n",
            StatusCode::UPGRADE_REQUIRED => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        let connection = if self.status == StatusCode::UPGRADE_REQUIRED { "Upgrade, close" } else { "close" };
        let body = format!("{}: this is an MQTT broker, by WebSocket\n", self.why);
        format!(
            "HTTP/1.1 {}\r\nConnection: {connection}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                           Sec-WebSocket-Protocol: mqtt\r\n\r\n";

    fn asked(request: &str) -> Answer {
        answer(request.as_bytes(), &WsConfig::default())
    }

    fn status(request: &str) -> u16 {
        match asked(request) {
            Answer::Refusal(refusal) => refusal.status.as_u16(),
            Answer::Upgrade { .. } => 101,
            Answer::Incomplete => 0,
        }
    }

    /// The key and its answer are those of RFC 6455, section 1.3.
    #[test]
    fn a_good_request_is_answered_wherever_it_is_cut() {
        let Answer::Upgrade { response, used_bytes } = asked(REQUEST) else { panic!("{:?}", asked(REQUEST)) };
        assert_eq!(used_bytes, REQUEST.len());
        let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
        for line in [
            "http/1.1 101 switching protocols",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
            "sec-websocket-protocol: mqtt",
        ] {
            assert!(response.lines().any(|found| found == line), "{line} is not in {response}");
        }
        for end in 0..REQUEST.len() {
            assert_eq!(asked(&REQUEST[..end]), Answer::Incomplete, "{end}");
        }
    }

    #[test]
    fn each_wrong_request_has_its_status() {
        let without = |line: &str| {
            let lines = REQUEST.split_inclusive("\r\n");
            lines.filter(|found| !found.starts_with(line)).collect::<String>()
        };
        for (request, expected) in [
            (REQUEST.replace("GET", "POST"), 405),
            (REQUEST.replace("/mqtt", "/"), 404),
            (REQUEST.replace("/mqtt", "/mqtt/x"), 404),
            (REQUEST.replace("/mqtt", "/mqtt?device=1"), 101),
            (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), 400),
            (without("Upgrade"), 426),
            (without("Connection"), 426),
            (REQUEST.replace("Version: 13", "Version: 8"), 426),
            (without("Sec-WebSocket-Key"), 400),
            (REQUEST.replace("dGhlIHNh", "x"), 400),
            (without("Sec-WebSocket-Protocol"), 400),
            (REQUEST.replace("Protocol: mqtt", "Protocol: chat, MQTT"), 400),
            (REQUEST.replace("Protocol: mqtt", "Protocol: chat, mqtt"), 101),
            (REQUEST.replace("Protocol: mqtt", "Protocol: chat\r\nSec-WebSocket-Protocol: mqttv3.1"), 101),
            (format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(REQUEST_BYTES_MAX)), 431),
            ("\u{10}\u{c}\0\u{4}MQTT".to_owned(), 400),
        ] {
            assert_eq!(status(&request), expected, "{request}");
        }
    }

    #[test]
    fn the_standard_s_name_goes_first_and_the_older_one_is_taken() {
        for (offer, selected) in [("mqttv3.1, mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1")] {
            let Answer::Upgrade { response, .. } =
                asked(&REQUEST.replace(": mqtt\r", &format!(": {offer}\r")))
            else {
                panic!("{offer}")
            };
            let response = String::from_utf8(response).unwrap();
            assert!(response.contains(&format!("protocol: {selected}\r\n")), "{response}");
        }
    }

    #[test]
    fn an_origin_is_checked_when_there_is_a_list() {
        let allowed_origins = vec!["https://panel.example".to_owned()];
        let config = WsConfig { allowed_origins, ..WsConfig::default() };
        for (origin, is_allowed) in [
            ("", true),
            ("Origin: https://panel.example\r\n", true),
            ("Origin: HTTPS://panel.EXAMPLE\r\n", true),
            ("Origin: https://panel.example.evil\r\n", false),
            ("Origin: null\r\n", false),
            ("Origin: https://panel.example\r\nOrigin: https://evil\r\n", false),
        ] {
            let request = REQUEST.replace("Host: example\r\n", &format!("Host: example\r\n{origin}"));
            let answered = answer(request.as_bytes(), &config);
            assert_eq!(matches!(answered, Answer::Upgrade { .. }), is_allowed, "{origin}: {answered:?}");
            assert_eq!(status(&request), 101, "any origin will do without a list");
        }
    }
}
