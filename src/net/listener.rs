//! Where to listen, and for what. Binding comes before anything is served, so that its errors do too.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::TcpSocket;

use super::{
    proxy::ProxyConfig,
    socket_file,
    stream::Acceptor,
    tls::{TlsConfig, TlsError},
    websocket::WsConfig,
};

/// Connections that the kernel completes ahead of us: a burst when the gateway's network comes back.
const BACKLOG: u32 = 1024;

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name in logs, metrics and permissions.
    pub name: Arc<str>,
    /// Where it listens.
    pub bind: Bind,
    /// What is spoken below MQTT.
    pub transport: Transport,
    /// Whether proxies connect here, and say by a PROXY header for whom. Then nobody else can.
    pub proxy: Option<ProxyConfig>,
    /// From accept to a whole CONNECT, with the TLS handshake. Default 10 s: a slow radio needs seconds, a silent attacker
    /// none.
    pub connect_timeout: Duration,
    /// The kernel's send buffer per connection; it doubles the number for its own bookkeeping. Default 64 KiB: thousands
    /// of slow readers cannot eat the gateway's memory, and a reader of a kilobyte a second is still seen to move.
    /// `None` leaves it to the kernel, which lets it grow to megabytes.
    pub send_buffer_bytes: Option<u32>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Address and port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The file of a Unix socket. It is made, and removed when the network closes; one that a dead broker left behind is
    /// replaced.
    Unix {
        /// The file.
        path: PathBuf,
        /// Who may connect: whoever may write to it. Default 0660, the broker's user and group.
        mode: u32,
    },
}

/// What is spoken below MQTT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing.
    Plain,
    /// TLS.
    Tls(TlsConfig),
    /// WebSocket.
    Ws(WsConfig),
    /// WebSocket in TLS.
    Wss(TlsConfig, WsConfig),
}

/// A listener that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// `ListenerConfig::name`.
    pub name: Arc<str>,
    /// The address bound, with the port the system chose.
    pub address: Bind,
    /// Whether it speaks TLS.
    pub is_tls: bool,
}

/// Why a listener cannot be set up. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {}", reason(source))]
    Bind {
        /// The address asked for.
        address: Bind,
        /// Why.
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("cannot listen on {address} with TLS: {source}")]
    Tls {
        /// The address asked for.
        address: Bind,
        /// Why.
        source: TlsError,
    },
    /// The system refused the threads for TLS handshakes.
    #[error("cannot start threads for TLS handshakes: {0}")]
    Threads(io::Error),
}

impl ListenerConfig {
    /// A plain listener with the defaults.
    pub fn tcp(name: impl Into<Arc<str>>, bind: SocketAddr) -> Self {
        Self::new(name, Bind::Tcp(bind), Transport::Plain)
    }

    /// A TLS listener with the defaults.
    pub fn tls(name: impl Into<Arc<str>>, bind: SocketAddr, tls: TlsConfig) -> Self {
        Self::new(name, Bind::Tcp(bind), Transport::Tls(tls))
    }

    /// A listener with the defaults.
    pub fn new(name: impl Into<Arc<str>>, bind: Bind, transport: Transport) -> Self {
        Self {
            name: name.into(),
            bind,
            transport,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            send_buffer_bytes: Some(64 * 1024),
        }
    }

    /// What is spoken, in a word: `tcp`, `tls`, `unix`, `ws` or `wss`.
    pub fn transport_name(&self) -> &'static str {
        match (&self.bind, &self.transport) {
            (Bind::Unix { .. }, _) => "unix",
            (Bind::Tcp(_), Transport::Plain) => "tcp",
            (Bind::Tcp(_), Transport::Tls(_)) => "tls",
            (Bind::Tcp(_), Transport::Ws(_)) => "ws",
            (Bind::Tcp(_), Transport::Wss(..)) => "wss",
        }
    }

    /// Binds and listens. Needs a tokio runtime around it.
    pub(super) fn bind(&self) -> Result<Acceptor, ListenError> {
        let bound = match &self.bind {
            Bind::Tcp(address) => self.bind_tcp(*address),
            Bind::Unix { path, mode } => socket_file::listen(path, *mode)
                .map(|(listener, file)| Acceptor::Unix { listener, _file: file }),
        };
        bound.map_err(|source| ListenError::Bind { address: self.bind.clone(), source })
    }

    fn bind_tcp(&self, address: SocketAddr) -> io::Result<Acceptor> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted broker must not wait for its former connections to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        // Finds, in hours, peers that died with MQTT's keep alive switched off. Accepted sockets inherit it, as they do
        // the buffer size.
        socket.set_keepalive(true)?;
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG).map(Acceptor::Tcp)
    }
}

impl Bind {
    /// The mode of a Unix socket's file when nothing else is said: its owner and group.
    pub const UNIX_MODE: u32 = 0o660;

    /// Address and port, if it has them.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

impl Transport {
    /// The settings of TLS, if it is spoken.
    pub fn tls(&self) -> Option<&TlsConfig> {
        match self {
            Self::Plain | Self::Ws(_) => None,
            Self::Tls(tls) | Self::Wss(tls, _) => Some(tls),
        }
    }

    /// The settings of WebSocket, if it is spoken.
    pub fn ws(&self) -> Option<&WsConfig> {
        match self {
            Self::Plain | Self::Tls(_) => None,
            Self::Ws(ws) | Self::Wss(_, ws) => Some(ws),
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address already in use; another broker may be running, or choose another with --listen"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_sentence() {
        let config = ListenerConfig::tcp("plain", "127.0.0.1:0".parse().unwrap());
        let first = config.bind().unwrap();
        let Acceptor::Tcp(first) = first else { panic!("a port was asked for") };
        let address = first.local_addr().unwrap();
        let error = ListenerConfig::tcp("plain", address).bind().err().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {address}: address already in use; another broker may be running, or choose \
                 another with --listen"
            )
        );
    }

    #[tokio::test]
    async fn a_foreign_address_is_one_clear_sentence() {
        let config = ListenerConfig::tcp("plain", "192.0.2.1:1883".parse().unwrap());
        assert_eq!(
            config.bind().err().unwrap().to_string(),
            "cannot listen on 192.0.2.1:1883: this machine has no such address"
        );
    }
}
