//! Where TLS handshakes are computed: whole ones on threads of their own, resumed ones where the connection lives.
//!
//! A whole handshake is a fifth of a millisecond of computing in one piece. When everybody connects at the same time, sixty of
//! them stood before each message of those who are connected; the kernel shares the cores more finely than tasks on a
//! thread can. A resumed one is half of that, and handing it to another thread and back is a quarter more; so it stays,
//! and a few at a time stand before others' messages.
//!
//! A turn is for computing, and is given back while the peer is waited for. How many may be waited for is `half_open`'s.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinSet, yield_now},
};
use tokio_rustls::{Accept, StartHandshake, server::TlsStream};

use super::{
    half_open::{Displaced, HalfOpen, Place},
    hello::Hello,
    limits::Limits,
    stream::Stream,
    tls::TlsSettings,
    wire::Metered,
};

/// Resumed handshakes between two looks at what else there is to do.
const RESUMED_AT_A_TIME: usize = 4;

/// A stream behind its handshake.
pub(super) type Shaken = Box<TlsStream<Metered<Stream>>>;
/// One whose client has said hello.
type Start = StartHandshake<Metered<Stream>>;

/// What follows the hello.
type Answer = Accept<Metered<Stream>>;
/// Leave to compute.
type Turn = OwnedSemaphorePermit;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ShakeError {
    Failed(io::Error),
    /// Its peer went silent while others waited for its place.
    Displaced,
}

/// The threads, whose turn it is, and who is waited for.
pub(super) struct Handshakes {
    turns: Arc<Semaphore>,
    resumptions: Semaphore,
    half_open: Arc<HalfOpen>,
    threads: Handle,
    /// Until it is shut down.
    runtime: Option<Runtime>,
}

impl Handshakes {
    /// Half of the cores have to do, since there is other work.
    pub(super) fn start(limits: &Limits) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let runtime = Builder::new_multi_thread()
            .worker_threads((cores / 2).max(1))
            .thread_name("handshakes")
            .enable_time()
            .build()?;
        Ok(Self {
            turns: Arc::new(Semaphore::new(limits.handshakes_max.clamp(1, Semaphore::MAX_PERMITS))),
            resumptions: Semaphore::new(RESUMED_AT_A_TIME),
            half_open: Arc::new(HalfOpen::new(limits.open_handshakes_max.max(1))),
            threads: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Waits for its place only once the peer has begun, so that silence takes nobody's. Dropped, it is given up.
    pub(super) async fn shake(
        &self,
        stream: Stream,
        settings: &TlsSettings,
        patience: Duration,
    ) -> Result<Shaken, ShakeError> {
        stream.readable().await?;
        let place = self.half_open.enter(patience).await;
        // In a room of its own: of those who come at the same time, most wait before this.
        Box::pin(self.shake_in(place, stream, settings)).await
    }

    async fn shake_in(
        &self,
        mut place: Place,
        stream: Stream,
        settings: &TlsSettings,
    ) -> Result<Shaken, ShakeError> {
        let mut stream = Metered::new(stream);
        let (Hello { accepted, ticket }, turn) = self.hear(&mut stream, &mut place).await?;
        let config = Arc::clone(settings.for_client(accepted.client_hello().cipher_suites()));
        let start = StartHandshake::from_parts(accepted, stream);
        if ticket.is_some_and(|ticket| settings.opens(&ticket)) {
            let accept = self.resume(start, config).await?;
            return finish(accept, turn, place).await;
        }
        let mut task = JoinSet::new();
        let answer = async move { finish(Box::new(start.into_stream(config)), turn, place).await };
        task.spawn_on(answer, &self.threads);
        match task.join_next().await {
            Some(ended) => ended.map_err(io::Error::other)?,
            None => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
        }
    }

    async fn turn(&self) -> io::Result<Turn> {
        Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)
    }

    /// The peer's hello, and the turn to answer it. One that comes in pieces is waited for without.
    async fn hear(
        &self,
        stream: &mut Metered<Stream>,
        place: &mut Place,
    ) -> Result<(Hello, Turn), ShakeError> {
        let turn = self.turn().await?;
        let mut hello = pin!(Hello::read(stream));
        if let Poll::Ready(hello) = poll_fn(|cx| Poll::Ready(hello.as_mut().poll(cx))).await {
            return Ok((hello?, turn));
        }
        drop(turn);
        let hello = place.wait_for_peer(hello).await??;
        Ok((hello, self.turn().await?))
    }

    async fn resume(&self, start: Start, config: Arc<ServerConfig>) -> io::Result<Box<Answer>> {
        let turn = self.resumptions.acquire().await.map_err(io::Error::other)?;
        let accept = Box::new(start.into_stream(config));
        if self.resumptions.available_permits() == 0 {
            yield_now().await;
        }
        drop(turn);
        Ok(accept)
    }
}

/// Sends our answer, gives the turn back, and waits for what the peer makes of it.
async fn finish(mut accept: Box<Answer>, turn: Turn, mut place: Place) -> Result<Shaken, ShakeError> {
    let sent = poll_fn(|cx| Poll::Ready(Pin::new(&mut accept).poll(cx))).await;
    drop(turn);
    let shaken = match sent {
        Poll::Ready(shaken) => shaken,
        Poll::Pending => place.wait_for_peer(accept).await?,
    };
    Ok(Box::new(shaken?))
}

impl From<io::Error> for ShakeError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Displaced> for ShakeError {
    fn from(Displaced: Displaced) -> Self {
        Self::Displaced
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
    use std::{path::PathBuf, sync::Mutex};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::{
        ClientConfig, HandshakeKind, RootCertStore,
        crypto::ring,
        pki_types::ServerName,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::net::tls::{ClientCertificates, TlsConfig, read_certificates};

    const PATIENCE: Duration = Duration::from_secs(5);

    fn one_at_a_time() -> Limits {
        Limits { handshakes_max: 1, open_handshakes_max: 1, ..Limits::default() }
    }

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

    /// A CA, and a certificate by it for the server and the client.
    struct Certificates {
        folder: TempDir,
        connector: TlsConnector,
    }

    impl Certificates {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let ca_key = KeyPair::generate().unwrap();
            let mut ca = CertificateParams::new(Vec::new()).unwrap();
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca_certificate = ca.self_signed(&ca_key).unwrap();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
            for (name, pem) in [
                ("ca.crt", ca_certificate.pem()),
                ("a.crt", certificate.pem()),
                ("a.key", key.serialize_pem()),
            ] {
                std::fs::write(folder.path().join(name), pem).unwrap();
            }
            let mut roots = RootCertStore::empty();
            roots.add(ca_certificate.der().clone()).unwrap();
            let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate.der().clone()], key.into())
                .unwrap();
            Self { folder, connector: TlsConnector::from(Arc::new(client)) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn server(&self) -> TlsConfig {
            TlsConfig::new(self.path("a.crt"), self.path("a.key"))
        }

        /// One connection, up to the ticket: what both ends say of it.
        async fn connect(&self, handshakes: &Handshakes, settings: &TlsSettings) -> (HandshakeKind, Shaken) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (shaken, connected) = tokio::join!(
                handshakes.shake(Stream::Tcp(accepted), settings, PATIENCE),
                self.connector.connect(ServerName::try_from("localhost").unwrap(), connected),
            );
            let (mut shaken, mut connected) = (shaken.unwrap(), connected.unwrap());
            // Behind the ticket.
            shaken.write_all(b"!").await.unwrap();
            assert_eq!(connected.read_u8().await.unwrap(), b'!');
            (connected.get_ref().1.handshake_kind().unwrap(), shaken)
        }
    }

    /// Sixty-four whole ones, at a third of a millisecond each, stood before each message of those who were connected.
    #[tokio::test]
    async fn the_threads_that_serve_connections_compute_only_resumed_handshakes() {
        let certificates = Certificates::new();
        let mut config = ServerConfig::clone(certificates.server().load().unwrap().for_client(&[]));
        let certificate = Arc::clone(&config.cert_resolver);
        let asked_by = Arc::new(AskedBy { threads: Mutex::default(), certificate });
        config.cert_resolver = Arc::clone(&asked_by) as Arc<dyn ResolvesServerCert>;
        let settings = TlsSettings::same_for_all(Arc::new(config));
        let handshakes = Handshakes::start(&one_at_a_time()).unwrap();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (kind, _) = certificates.connect(&handshakes, &settings).await;
            assert_eq!(kind, expected);
        }
        let here = thread::current().name().unwrap().to_owned();
        assert_eq!(*asked_by.threads.lock().unwrap(), ["handshakes".to_owned(), here]);
    }

    /// Who may do what hangs on the client's certificate, which a client that resumes does not send again.
    #[tokio::test]
    async fn who_comes_back_with_a_ticket_is_known_by_the_certificate_shown_before() {
        let certificates = Certificates::new();
        let mut config = certificates.server();
        config.client_certificates = ClientCertificates::Required(certificates.path("ca.crt"));
        let settings = config.load().unwrap();
        let handshakes = Handshakes::start(&one_at_a_time()).unwrap();
        let shown = read_certificates(&certificates.path("a.crt")).unwrap();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (kind, shaken) = certificates.connect(&handshakes, &settings).await;
            assert_eq!(kind, expected);
            assert_eq!(shaken.get_ref().1.peer_certificates(), Some(shown.as_slice()));
        }
        // Another start of the broker: it has other keys, and opens no ticket of the one before.
        let settings = config.load().unwrap();
        let (kind, _) = certificates.connect(&handshakes, &settings).await;
        assert_eq!(kind, HandshakeKind::Full);
    }
}
