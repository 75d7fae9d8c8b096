//! Where TLS handshakes are computed: whole ones on threads of their own, resumed ones where the connection lives.
//!
//! A whole handshake is a fifth of a millisecond of computing in one piece. When everybody connects at the same time, sixty of
//! them stood before each message of those who are connected; the kernel shares the cores more finely than tasks on a
//! thread can. A resumed one is half of that, and handing it to another thread and back is a quarter more; so it stays,
//! and a few at a time stand before others' messages.

use std::{io, sync::Arc, thread};

use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    task::{JoinSet, yield_now},
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::{hello::Hello, stream::Stream, tls::TlsSettings, wire::Metered};

/// Resumed handshakes between two looks at what else there is to do.
const RESUMED_AT_A_TIME: usize = 4;

/// A stream behind its handshake.
pub(super) type Shaken = Box<TlsStream<Metered<Stream>>>;
/// One whose client has said hello.
type Start = StartHandshake<Metered<Stream>>;

/// The threads, and whose turn it is.
pub(super) struct Handshakes {
    turns: Semaphore,
    resumptions: Semaphore,
    threads: Handle,
    /// Until it is shut down.
    runtime: Option<Runtime>,
}

impl Handshakes {
    /// So many at a time. Half of the cores have to do, since there is other work.
    pub(super) fn start(at_a_time: usize) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let runtime = Builder::new_multi_thread()
            .worker_threads((cores / 2).max(1))
            .thread_name("handshakes")
            .build()?;
        Ok(Self {
            turns: Semaphore::new(at_a_time.clamp(1, Semaphore::MAX_PERMITS)),
            resumptions: Semaphore::new(RESUMED_AT_A_TIME),
            threads: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Waits for its turn only once the peer has begun, so that silence takes nobody's turn. Dropped, it is given up.
    pub(super) async fn shake(&self, stream: Stream, settings: &TlsSettings) -> io::Result<Shaken> {
        stream.readable().await?;
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let mut stream = Metered::new(stream);
        let Hello { accepted, ticket } = Hello::read(&mut stream).await?;
        let config = Arc::clone(settings.for_client(accepted.client_hello().cipher_suites()));
        let start = StartHandshake::from_parts(accepted, stream);
        if ticket.is_some_and(|ticket| settings.opens(&ticket)) {
            return self.resume(start, config).await;
        }
        let mut task = JoinSet::new();
        task.spawn_on(async move { start.into_stream(config).await.map(Box::new) }, &self.threads);
        match task.join_next().await {
            Some(ended) => ended.map_err(io::Error::other)?,
            None => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    async fn resume(&self, start: Start, config: Arc<ServerConfig>) -> io::Result<Shaken> {
        let turn = self.resumptions.acquire().await.map_err(io::Error::other)?;
        let accept = start.into_stream(config);
        if self.resumptions.available_permits() == 0 {
            yield_now().await;
        }
        drop(turn);
        accept.await.map(Box::new)
    }
}

impl Drop for Handshakes {
    /// Not by waiting for its threads: that is not allowed on a thread of another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustls::{
        ClientConfig, HandshakeKind, RootCertStore,
        crypto::ring,
        pki_types::ServerName,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::net::tls::{TlsConfig, read_certificates};

    /// Remembers who asked for the certificate, which is the thread that computes the handshake.
    #[derive(Debug)]
    struct AskedBy {
        threads: Mutex<Vec<String>>,
        certificate: Arc<dyn ResolvesServerCert>,
    }

    impl ResolvesServerCert for AskedBy {
        fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            self.threads.lock().unwrap().push(thread);
            self.certificate.resolve(hello)
        }
    }

    /// Sixty-four whole ones, at a third of a millisecond each, stood before each message of those who were connected.
    #[tokio::test]
    async fn the_threads_that_serve_connections_compute_only_resumed_handshakes() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read_certificates(&certificate).unwrap().remove(0)).unwrap();
        let loaded = TlsConfig::new(certificate, key).load().unwrap();
        let mut config = ServerConfig::clone(loaded.for_client(&[]));
        let certificate = Arc::clone(&config.cert_resolver);
        let asked_by = Arc::new(AskedBy { threads: Mutex::default(), certificate });
        config.cert_resolver = Arc::clone(&asked_by) as Arc<dyn ResolvesServerCert>;
        let settings = TlsSettings::same_for_all(Arc::new(config));
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handshakes = Handshakes::start(1).unwrap();
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (shaken, connected) = tokio::join!(
                handshakes.shake(Stream::Tcp(accepted), &settings),
                connector.connect(ServerName::try_from("localhost").unwrap(), connected),
            );
            let (mut shaken, mut connected) = (shaken.unwrap(), connected.unwrap());
            kinds.push(connected.get_ref().1.handshake_kind().unwrap());
            // Behind the ticket.
            shaken.write_all(b"!").await.unwrap();
            assert_eq!(connected.read_u8().await.unwrap(), b'!');
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
        let here = thread::current().name().unwrap().to_owned();
        assert_eq!(*asked_by.threads.lock().unwrap(), ["handshakes".to_owned(), here]);
    }
}
