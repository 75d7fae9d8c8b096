//! The pages, and the bounds of who asks for them.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, error};

use super::metrics::Reader;

/// Connections at a time. A monitoring system and an orchestrator have one each; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 16;
/// A connection carries one request, and is over after this, whatever it does.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// From accept to the end of the request's header.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// A request's header, in bytes and in fields. What monitoring systems send has some 500 bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADER_FIELDS_MAX: usize = 64;
/// After a failed `accept`, as when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// A broker that has made no progress for so long counts as dead. Longer than a worn SD card takes to clean up.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Copy)]
enum Page {
    Metrics,
    Live,
    Ready,
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

/// Accepts until `stop`, then cuts off who is connected.
pub(super) async fn serve(listener: TcpListener, reader: Arc<Reader>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut pause = Duration::ZERO;
    loop {
        let accept = async {
            tokio::time::sleep(pause).await;
            listener.accept().await
        };
        tokio::select! {
            // An error means that the server is gone, which is as good a reason.
            _ = stop.wait_for(|&stop| stop) => break,
            Some(ended) = connections.join_next() => note_panic(ended),
            accepted = accept, if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    pause = Duration::ZERO;
                    connections.spawn(timeout(CONNECTION_TIME_MAX, converse(stream, Arc::clone(&reader))));
                }
                Err(error) => {
                    debug!(%error, "cannot accept an admin connection");
                    pause = ACCEPT_PAUSE;
                }
            },
        }
    }
    connections.shutdown().await;
}

fn note_panic<T>(ended: Result<T, tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!(%failure, "an admin connection's task panicked; this is a defect of the broker");
    }
}

/// One connection: one request, one answer.
async fn converse(stream: TcpStream, reader: Arc<Reader>) {
    let service = service_fn(|request: Request<Incoming>| {
        let reader = Arc::clone(&reader);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), reader).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .keep_alive(false)
        // `nc` and its like close their side behind the request.
        .half_close(true)
        .max_headers(HEADER_FIELDS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "an admin connection failed");
    }
}

async fn answer(method: &Method, path: &str, reader: Arc<Reader>) -> Response<String> {
    let Some(page) = Page::at(path) else {
        return respond(
            StatusCode::NOT_FOUND,
            TEXT,
            "not found: /metrics, /livez and /readyz are\n".to_owned(),
        );
    };
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match page {
        Page::Metrics => match tokio::task::spawn_blocking(move || reader.metrics()).await {
            Ok(Ok(text)) => respond(StatusCode::OK, OPEN_METRICS, text),
            Ok(Err(_)) | Err(_) => {
                respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be written\n".to_owned())
            }
        },
        Page::Live if reader.broker().is_alive(STANDSTILL_MAX) => ok(),
        Page::Live => {
            let text = format!("standstill: no progress for {} s\n", STANDSTILL_MAX.as_secs());
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
        }
        Page::Ready => {
            let mut reasons = String::new();
            for reason in reader.broker().unready() {
                let _ = writeln!(reasons, "{reason}");
            }
            if !reasons.is_empty() {
                return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons);
            }
            let mut text = "ok\n".to_owned();
            for strain in reader.broker().strained() {
                let _ = writeln!(text, "{strain}");
            }
            respond(StatusCode::OK, TEXT, text)
        }
    }
}

fn ok() -> Response<String> {
    respond(StatusCode::OK, TEXT, "ok\n".to_owned())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
