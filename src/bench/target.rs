//! The broker that is driven: where it listens, and how one gets in.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{BenchError, Result, peer::Stream};

/// The broker that is driven.
#[derive(Clone)]
pub struct Target {
    transport: Transport,
    tls: Option<Tls>,
    pub(super) login: Option<Login>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Where it listens: `mqtt://host:port`, `mqtts://host:port`, or `host:port` for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    host: String,
    port: u16,
    is_tls: bool,
}

/// What a broker that asks for it is told.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub user_name: String,
    /// The password; shown nowhere.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user_name", &self.user_name).finish_non_exhaustive()
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        const FORMS: &str = "give mqtt://HOST:PORT, mqtts://HOST:PORT, or HOST:PORT";
        let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
        let is_tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "tls" | "ssl" => true,
            _ => return Err(format!("unknown scheme {scheme}://; {FORMS}")),
        };
        let rest = rest.trim_end_matches('/');
        let without_port = || (rest, if is_tls { 8883 } else { 1883 });
        // `[::1]:1883`, `[::1]`, `host:1883`, `host`.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| format!("{port} is no port; {FORMS}"))?)
            }
            _ => without_port(),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(format!("no host in {text}; {FORMS}"));
        }
        Ok(Self { host: host.to_owned(), port, is_tls })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// `ca` is a PEM file with the authorities that may have signed the broker's certificate, for TLS.
    pub fn new(transport: Transport, ca: Option<&Path>, login: Option<Login>) -> Result<Self> {
        let tls = match (transport.is_tls, ca) {
            (false, _) => None,
            (true, None) => {
                return Err(BenchError::Settings(format!(
                    "{transport} needs the certificate of its authority (--ca FILE)"
                )));
            }
            (true, Some(ca)) => Some(Tls {
                config: Arc::new(config(ca)?),
                name: ServerName::try_from(transport.host.clone())
                    .map_err(|error| BenchError::Settings(format!("{}: {error}", transport.host)))?,
            }),
        };
        Ok(Self { transport, tls, login })
    }

    /// The same, with a whole TLS handshake for every connection. Else all but the first resume a session, where the
    /// broker gives tickets for that.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        if let Some(tls) = &mut self.tls {
            Arc::make_mut(&mut tls.config).resumption = Resumption::disabled();
        }
        self
    }

    /// The same, for a client that shares no TLS tickets with others: each is good for one connection, and of ten clients that
    /// share them one in ten comes when there is none.
    #[must_use]
    pub fn with_own_tickets(mut self) -> Self {
        if let Some(tls) = &mut self.tls {
            Arc::make_mut(&mut tls.config).resumption = Resumption::in_memory_sessions(1);
        }
        self
    }

    /// A connection that sends at once, and whether it resumed a TLS session.
    pub(super) async fn connect(&self) -> Result<(Box<dyn Stream>, bool)> {
        let failed =
            |source| BenchError::Connection { doing: format!("connecting to {}", self.transport), source };
        let address = (self.transport.host.as_str(), self.transport.port);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else { return Ok((Box::new(stream), false)) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector.connect(tls.name.clone(), stream).await.map_err(failed)?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Box::new(stream), resumed))
    }
}

fn config(ca: &Path) -> Result<ClientConfig> {
    let failed = |why: String| BenchError::Settings(format!("{}: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("no certificate in it".to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_write_them() {
        let read = |text: &str| text.parse::<Transport>().map(|transport| transport.to_string());
        assert_eq!(read("localhost"), Ok("mqtt://localhost:1883".to_owned()));
        assert_eq!(read("127.0.0.1:1884"), Ok("mqtt://127.0.0.1:1884".to_owned()));
        assert_eq!(read("mqtts://gateway/"), Ok("mqtts://gateway:8883".to_owned()));
        assert_eq!(read("tcp://[::1]:1"), Ok("mqtt://[::1]:1".to_owned()));
        assert_eq!(read("mqtt://[::1]"), Ok("mqtt://[::1]:1883".to_owned()));
        for wrong in ["http://gateway", "gateway:port", "mqtt://", "mqtt://:1883", "a/b:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tls_asks_for_its_authority() {
        let transport: Transport = "mqtts://gateway".parse().unwrap();
        let error = Target::new(transport, None, None).err().unwrap().to_string();
        assert!(error.contains("--ca"), "{error}");
    }
}
