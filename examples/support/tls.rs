//! TLS towards the broker, trusting the development CA that it made on its first start.
//!
//! Two variables say where that is: `MQTT_PORT` is the port on localhost, 8883 by default, and `MQTT_CA` the CA's
//! certificate, `certs/ca.crt` by default.

use std::{env, error::Error, fs};

use rumqttc::{MqttOptions, TlsConfiguration, Transport};

/// How the client `id` reaches the broker.
pub(crate) fn options(id: &str) -> Result<MqttOptions, Box<dyn Error>> {
    let port = match env::var("MQTT_PORT") {
        Ok(port) => port.parse().map_err(|e| format!("MQTT_PORT={port}: {e}"))?,
        Err(_) => 8883,
    };
    let ca = env::var("MQTT_CA").unwrap_or_else(|_| "certs/ca.crt".to_owned());
    let mut options = MqttOptions::new(id, "localhost", port);
    options.set_transport(transport(&ca)?);
    Ok(options)
}

/// `ca` is a PEM file.
fn transport(ca: &str) -> Result<Transport, Box<dyn Error>> {
    // rumqttc leaves the choice of the crypto provider to the program; a second call finds it made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pem = fs::read(ca).map_err(|e| format!("cannot read {ca}: {e}; start the broker first"))?;
    Ok(Transport::Tls(TlsConfiguration::Simple {
        ca: pem,
        alpn: Some(vec![b"mqtt".to_vec()]),
        client_auth: None,
    }))
}
