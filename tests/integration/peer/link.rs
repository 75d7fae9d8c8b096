//! The client's end of a socket: TCP, a Unix socket, or TLS over TCP, with a PROXY header before it if
//! there is to be one; and WebSocket over any of them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::web::Web;

/// How a TLS client behaves.
#[derive(Clone, Default)]
pub(crate) struct TlsClient {
    alpn: Vec<Vec<u8>>,
    is_v12: bool,
    has_certificate: bool,
}

impl TlsClient {
    /// Offers this protocol; by default none.
    pub(crate) fn alpn(mut self, protocol: &str) -> Self {
        self.alpn.push(protocol.as_bytes().to_vec());
        self
    }

    /// Speaks TLS 1.2 only.
    pub(crate) fn v12(mut self) -> Self {
        self.is_v12 = true;
        self
    }

    /// Shows the development client certificate.
    pub(crate) fn certificate(mut self) -> Self {
        self.has_certificate = true;
        self
    }

    /// Its first message, to be sent by itself.
    pub(super) fn hello(self, certs: &Path, address: SocketAddr) -> Vec<u8> {
        let name = ServerName::IpAddress(IpAddr::into(address.ip()));
        let mut client = ClientConnection::new(Arc::new(self.config(certs)), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    fn config(self, certs: &Path) -> ClientConfig {
        const V12: &[&SupportedProtocolVersion] = &[&TLS12];
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certs.join("ca.crt")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(if self.is_v12 { V12 } else { BOTH })
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if self.has_certificate {
            let chain = vec![CertificateDer::from_pem_file(certs.join("client.crt")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(certs.join("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = self.alpn;
        config
    }
}

pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Web(Web),
}

impl Link {
    pub(super) async fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Plain(tcp(address, &[]).await?))
    }

    /// As a proxy, which sends this first.
    pub(super) async fn proxied(address: SocketAddr, header: &[u8]) -> io::Result<Self> {
        Ok(Self::Plain(tcp(address, header).await?))
    }

    pub(super) async fn unix(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path).await?))
    }

    /// A WebSocket over another link; `place` is the URL's address and path.
    pub(super) async fn web(self, place: &str) -> io::Result<Self> {
        Ok(Self::Web(Web::open(self, place).await?))
    }

    /// The code of the Close that has come.
    pub(super) fn close_code(&self) -> Option<u16> {
        match self {
            Self::Web(web) => *web.close_code.lock().unwrap(),
            _ => None,
        }
    }

    pub(super) async fn tls(
        address: SocketAddr,
        header: &[u8],
        certs: &Path,
        client: TlsClient,
    ) -> io::Result<Self> {
        let stream = tcp(address, header).await?;
        let name = ServerName::IpAddress(IpAddr::into(address.ip()));
        let connector = TlsConnector::from(Arc::new(client.config(certs)));
        Ok(Self::Tls(Box::new(connector.connect(name, stream).await?)))
    }
}

async fn tcp(address: SocketAddr, first: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(first).await?;
    Ok(stream)
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Web(web) => Pin::new(&mut web.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Web(web) => Pin::new(&mut web.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Web(web) => Pin::new(&mut web.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Web(web) => Pin::new(&mut web.stream).poll_shutdown(cx),
        }
    }
}
