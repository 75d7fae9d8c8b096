//! Where to listen, and for what. Binding comes before anything is served, so that its errors do too.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpSocket};

use super::tls::{TlsConfig, TlsError};

/// Connections that the kernel completes ahead of us: a burst when the gateway's network comes back.
const BACKLOG: u32 = 1024;

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name in logs, metrics and permissions.
    pub name: Arc<str>,
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// What is spoken below MQTT.
    pub transport: Transport,
    /// From accept to a whole CONNECT, with the TLS handshake. Default 10 s: a slow radio needs seconds, a silent attacker
    /// none.
    pub connect_timeout: Duration,
    /// The kernel's send buffer per connection; it doubles the number for its own bookkeeping. Default 64 KiB: thousands
    /// of slow readers cannot eat the gateway's memory, and a reader of a kilobyte a second is still seen to move.
    /// `None` leaves it to the kernel, which lets it grow to megabytes.
    pub send_buffer_bytes: Option<u32>,
}

/// What is spoken below MQTT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls(TlsConfig),
}

/// A listener that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// `ListenerConfig::name`.
    pub name: Arc<str>,
    /// The address bound, with the port the system chose.
    pub address: SocketAddr,
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
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("cannot listen on {address} with TLS: {source}")]
    Tls {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: TlsError,
    },
}

impl ListenerConfig {
    /// A plain listener with the defaults.
    pub fn tcp(name: impl Into<Arc<str>>, bind: SocketAddr) -> Self {
        Self {
            name: name.into(),
            bind,
            transport: Transport::Tcp,
            connect_timeout: Duration::from_secs(10),
            send_buffer_bytes: Some(64 * 1024),
        }
    }

    /// A TLS listener with the defaults.
    pub fn tls(name: impl Into<Arc<str>>, bind: SocketAddr, tls: TlsConfig) -> Self {
        Self { transport: Transport::Tls(tls), ..Self::tcp(name, bind) }
    }

    /// Binds and listens. Needs a tokio runtime around it.
    pub(super) fn bind(&self) -> Result<TcpListener, ListenError> {
        self.try_bind().map_err(|source| ListenError::Bind { address: self.bind, source })
    }

    fn try_bind(&self) -> io::Result<TcpListener> {
        let socket = if self.bind.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted broker must not wait for its former connections to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        // Finds, in hours, peers that died with MQTT's keep alive switched off. Accepted sockets inherit it, as they do
        // the buffer size.
        socket.set_keepalive(true)?;
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.bind(self.bind)?;
        socket.listen(BACKLOG)
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
        let address = first.local_addr().unwrap();
        let error = ListenerConfig { bind: address, ..config }.bind().unwrap_err();
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
            config.bind().unwrap_err().to_string(),
            "cannot listen on 192.0.2.1:1883: this machine has no such address"
        );
    }
}
