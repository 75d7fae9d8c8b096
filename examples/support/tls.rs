//! TLS towards the broker, trusting the development CA that it made on its first start.

use std::{fs, path::Path};

use rumqttc::{TlsConfiguration, Transport};

/// The transport for `rumqttc`; `ca` is a PEM file.
pub(crate) fn transport(ca: impl AsRef<Path>) -> Result<Transport, Box<dyn std::error::Error>> {
    // rumqttc leaves the choice of the crypto provider to the program; a second call finds it made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = ca.as_ref();
    let pem =
        fs::read(ca).map_err(|e| format!("cannot read {}: {e}; start the broker first", ca.display()))?;
    Ok(Transport::Tls(TlsConfiguration::Simple {
        ca: pem,
        alpn: Some(vec![b"mqtt".to_vec()]),
        client_auth: None,
    }))
}
