//! `dormouse serve`: the broker, and what it tells the person who started it.

use std::{fmt::Write as _, net::SocketAddr, path::Path, time::Duration};

use super::{Failure, allocator, certs, config_args::ConfigArgs, logging, open_files, say};
use crate::{
    config::Config,
    net::{
        listener::Bind,
        tls::{ClientCertificates, TlsVersion},
    },
    server::{self, Started},
    store::{Durability, KeySource, SyncLatency},
};

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    allocator::give_orders();
    let config = args.load()?;
    logging::init(config.log);
    open_files::allow(config.network.connections_max);
    if let Some(dir) = config.development_certs() {
        // A listener on an address of its own is reached by it.
        let names: Vec<String> = config
            .listeners
            .iter()
            .filter_map(|listener| listener.socket.bind.socket_addr())
            .map(|address| address.ip())
            .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
            .map(|ip| ip.to_string())
            .collect();
        if certs::ensure(dir, &names).map_err(|error| Failure::Runtime(error.to_string()))? {
            say(&format!("made development certificates in {}\n", dir.display()));
        }
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data.display(),
        durability = promise(config.store.durability),
        "starting"
    );
    server::run(&config, |started| say(&greeting(&config, started)))
        .map_err(|error| Failure::Runtime(error.to_string()))
}

/// What is printed when every listener is open.
fn greeting(config: &Config, started: &Started) -> String {
    let mut text = format!("dormouse {}\n", env!("CARGO_PKG_VERSION"));
    for (listener, address) in config.listeners.iter().zip(&started.listeners) {
        let path = listener.socket.transport.ws().map_or("", |ws| &ws.path);
        let proxied = if listener.socket.proxy.is_some() { ", by a proxy" } else { "" };
        let security = match (address, listener.socket.transport.tls()) {
            (Bind::Unix { mode, .. }, _) => format!("this machine, mode {mode:04o}"),
            (_, None) => "not encrypted".to_owned(),
            (_, Some(tls)) => {
                let version = match tls.version_min {
                    TlsVersion::V12 => "TLS 1.2 and 1.3",
                    TlsVersion::V13 => "TLS 1.3",
                };
                let clients = match tls.client_certificates {
                    ClientCertificates::None => "",
                    ClientCertificates::Optional(_) => ", client certificates optional",
                    ClientCertificates::Required(_) => ", client certificates required",
                };
                format!("{version}{clients}")
            }
        };
        let _ =
            writeln!(text, "  listening   {}://{address}{path}  ({security}{proxied})", listener.scheme());
    }
    if let Some(address) = started.admin {
        let _ = writeln!(text, "  admin       http://{address}  (/metrics, /livez, /readyz)");
    }
    let sealed = if config.store.key == KeySource::None { "" } else { "  (sealed)" };
    let _ = writeln!(text, "  data        {}{sealed}", config.data.display());
    let _ = writeln!(text, "  durability  {}", promise(config.store.durability));
    if let Some(SyncLatency { median, max, .. }) = started.sync_latency {
        let (median, max) = (millis(median), millis(max));
        let _ = writeln!(text, "  disk        a sync takes {median} ms, the slowest {max} ms");
    }
    if let Some(client) = client_options(config, started) {
        let _ = writeln!(
            text,
            "\nTo try it: start the first, stop it with Ctrl-C, run the second, start the first again.\n\
             \x20 mosquitto_sub {client} -i dev1 -c -q 1 -t 'cmd/dev1/#'\n\
             \x20 mosquitto_pub {client} -q 1 -t cmd/dev1/hello -m 'good morning'"
        );
    }
    text
}

fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

/// What holds in this mode, with the word that sets it in front.
fn promise(durability: Durability) -> &'static str {
    match durability {
        Durability::Power => "power: what is acknowledged survives a power cut",
        Durability::Process => "process: what is acknowledged survives a crash, but not a power cut",
        Durability::Relaxed => "relaxed: what is acknowledged may be lost in a crash",
    }
}

/// How the mosquitto clients get in: over TLS with the development certificates if that is offered, else over plain
/// TCP. None when only listeners with certificates of their own are there: their CA is not known here.
fn client_options(config: &Config, started: &Started) -> Option<String> {
    let development = config.development_certs();
    let mut plain = None;
    for (listener, address) in config.listeners.iter().zip(&started.listeners) {
        // By a proxy only its clients get in; and these clients speak no WebSocket.
        let reachable = address
            .socket_addr()
            .filter(|_| listener.socket.proxy.is_none() && listener.socket.transport.ws().is_none());
        let Some(address) = reachable else { continue };
        let place = format!("-h {} -p {}", host(address), address.port());
        match (listener.socket.transport.tls(), development) {
            (Some(tls), Some(dir)) if tls.certificate.starts_with(dir) => {
                let own = match tls.client_certificates {
                    ClientCertificates::Required(_) => format!(
                        " --cert {} --key {}",
                        quoted(&dir.join("client.crt")),
                        quoted(&dir.join("client.key"))
                    ),
                    ClientCertificates::None | ClientCertificates::Optional(_) => String::new(),
                };
                return Some(format!("--cafile {}{own} {place}", quoted(&dir.join("ca.crt"))));
            }
            (Some(_), _) => {}
            (None, _) => plain = plain.or(Some(place)),
        }
    }
    plain
}

fn host(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip.is_loopback() || ip.is_unspecified() { "localhost".to_owned() } else { ip.to_string() }
}

/// A path for a shell, without the `./` in front that only costs room.
fn quoted(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn the_greeting_tells_where_to_look_and_what_a_sync_takes() {
        let config = Config::default();
        let (median, max) = (Duration::from_micros(840), Duration::from_millis(12));
        let listeners = config.listeners.iter().map(|listener| listener.socket.bind.clone()).collect();
        let sync_latency = Some(SyncLatency { syncs: 16, median, max });
        let text = greeting(&config, &Started { listeners, admin: Some(config.admin.listen), sync_latency });
        assert!(
            text.contains("\n  admin       http://127.0.0.1:9883  (/metrics, /livez, /readyz)\n"),
            "{text}"
        );
        assert!(text.contains("\n  disk        a sync takes 0.84 ms, the slowest 12.00 ms\n"), "{text}");
    }

    fn greeted(text: &str, overrides: &Overrides) -> String {
        let config = Config::from_toml(Path::new("x.toml"), text, overrides).unwrap();
        let started = Started {
            admin: None,
            sync_latency: None,
            listeners: config.listeners.iter().map(|listener| listener.socket.bind.clone()).collect(),
        };
        greeting(&config, &started)
    }

    #[test]
    fn the_default_greeting_can_be_pasted() {
        let text = greeted("", &Overrides::default());
        assert!(text.starts_with(concat!("dormouse ", env!("CARGO_PKG_VERSION"), "\n")), "{text}");
        for line in [
            "  listening   tcp://127.0.0.1:1883  (not encrypted)",
            "  listening   tls://127.0.0.1:8883  (TLS 1.2 and 1.3)",
            "  data        ./data",
            "  durability  power: what is acknowledged survives a power cut",
            "  mosquitto_sub --cafile certs/ca.crt -h localhost -p 8883 -i dev1 -c -q 1 -t 'cmd/dev1/#'",
            "  mosquitto_pub --cafile certs/ca.crt -h localhost -p 8883 -q 1 -t cmd/dev1/hello -m 'good morning'",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_lines_to_paste_follow_the_listeners() {
        let plain = Overrides { listen: vec!["tcp://127.0.0.1:1884".into()], ..Overrides::default() };
        assert!(greeted("", &plain).contains("mosquitto_sub -h localhost -p 1884 -i dev1"));
        let odd = Overrides { certs: Some("/tmp/it's here".into()), ..Overrides::default() };
        assert!(greeted("", &odd).contains(r"--cafile '/tmp/it'\''s here/ca.crt' -h localhost"));
        let required =
            "[[listeners]]\ntype = \"tls\"\nbind = \"192.0.2.1:8883\"\nclient_certificates = \"required\"";
        let text = greeted(required, &Overrides::default());
        assert!(
            text.contains(
                "--cafile certs/ca.crt --cert certs/client.crt --key certs/client.key -h 192.0.2.1 -p 8883"
            ),
            "{text}"
        );
        let own =
            "[[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:8883\"\ncertificate = \"a\"\nkey = \"b\"";
        assert!(!greeted(own, &Overrides::default()).contains("mosquitto"));
    }
}
