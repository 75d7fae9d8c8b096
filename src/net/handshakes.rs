//! Where TLS handshakes are computed: on threads of their own.
//!
//! A handshake is a third of a millisecond of computing in one piece. When everybody connects at the same time, sixty of
//! them stood before each message of those who are connected; the kernel shares the cores more finely than tasks on a
//! thread can.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{stream::Stream, wire::Metered};

/// A stream behind its handshake.
pub(super) type Shaken = Box<TlsStream<Metered<Stream>>>;

/// The threads, and whose turn it is.
pub(super) struct Handshakes {
    turns: Semaphore,
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
            threads: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Waits for its turn only once the peer has begun, so that silence takes nobody's turn. Dropped, it is given up.
    pub(super) async fn shake(&self, stream: Stream, acceptor: &TlsAcceptor) -> io::Result<Shaken> {
        stream.readable().await?;
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let accept = acceptor.accept(Metered::new(stream));
        let mut task = JoinSet::new();
        task.spawn_on(async move { accept.await.map(Box::new) }, &self.threads);
        match task.join_next().await {
            Some(ended) => ended.map_err(io::Error::other)?,
            None => Err(io::ErrorKind::Interrupted.into()),
        }
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
    use std::sync::{Arc, Mutex};

    use rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::ServerName,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Has no certificate, and remembers who asked for one.
    #[derive(Debug, Default)]
    struct AskedBy(Mutex<Vec<String>>);

    impl ResolvesServerCert for AskedBy {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            self.0.lock().unwrap().push(thread);
            None
        }
    }

    /// Sixty-four of them, at a third of a millisecond each, stood before each message of those who were connected.
    #[tokio::test]
    async fn the_threads_that_serve_connections_compute_no_handshake() {
        let asked_by = Arc::new(AskedBy::default());
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&asked_by) as Arc<dyn ResolvesServerCert>);
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let handshakes = Handshakes::start(1).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        let (shaken, connected) = tokio::join!(
            handshakes.shake(Stream::Tcp(accepted), &acceptor),
            connector.connect(ServerName::try_from("localhost").unwrap(), connected),
        );
        assert!(shaken.is_err() && connected.is_err(), "there is no certificate");
        assert_eq!(*asked_by.0.lock().unwrap(), ["handshakes"]);
    }
}
