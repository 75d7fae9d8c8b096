//! `[[listeners]]`: where clients connect, and what they must show.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    document::Section,
    value::{Choice, one_of, parse_choice, show_choice, show_duration},
};
use crate::net::{
    listener::{Bind, ListenerConfig, Transport},
    proxy::{Network, ProxyConfig},
    tls::{ClientCertificates, TlsConfig, TlsVersion},
    websocket::WsConfig,
};

const HANDSHAKE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// The keys that only a TLS listener has.
const TLS_KEYS: [&str; 6] =
    ["certificate", "key", "client_ca", "client_certificates", "handshake_timeout", "min_version"];

/// One listening socket. A listener that other machines can reach, by themselves or through a proxy, either requires client
/// certificates or says `allow_anonymous` in so many words; nothing else passes validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The socket. Its name is unique, and its URL, like `tcp://ADDRESS`, when the user gave none.
    pub socket: ListenerConfig,
    /// Whether clients that show nothing may come from other machines. Default no.
    pub allow_anonymous: bool,
}

/// One entry as it is written.
#[derive(Serialize)]
pub(super) struct RawListener<'c> {
    /// None when it is made from the address, which is no name a user may give.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'c str>,
    #[serde(rename = "type")]
    kind: &'static str,
    bind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    allow_anonymous: bool,
    proxy_protocol: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proxy_trusted: Vec<String>,
    #[serde(flatten)]
    tls: Option<RawTls<'c>>,
    #[serde(flatten)]
    ws: Option<RawWs<'c>>,
}

#[derive(Serialize)]
struct RawWs<'c> {
    path: &'c str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_origins: &'c [String],
}

#[derive(Serialize)]
struct RawTls<'c> {
    certificate: &'c Path,
    key: &'c Path,
    client_certificates: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ca: Option<&'c Path>,
    handshake_timeout: String,
    min_version: &'static str,
}

/// What an entry's `type` says.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Tls,
    Ws,
    Wss,
    Unix,
}

/// What `proxy_protocol` says.
#[derive(Clone, Copy, Default, PartialEq)]
enum Proxied {
    #[default]
    Off,
    Required,
}

#[derive(Clone, Copy, PartialEq)]
enum Ask {
    None,
    Optional,
    Required,
}

impl Listener {
    /// What is listened to when nothing else is said: both transports, on this machine only.
    pub fn defaults(certs: &Path) -> Vec<Self> {
        let local = |port| Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        vec![
            Self::named_after_address(local(1883), Transport::Plain),
            Self::named_after_address(local(8883), Transport::Tls(development_tls(certs))),
        ]
    }

    /// The scheme of its URL, which is its `type`.
    pub fn scheme(&self) -> &'static str {
        show_choice(self.kind())
    }

    fn kind(&self) -> Kind {
        match (&self.socket.bind, &self.socket.transport) {
            (Bind::Unix { .. }, _) => Kind::Unix,
            (Bind::Tcp(_), Transport::Plain) => Kind::Tcp,
            (Bind::Tcp(_), Transport::Tls(_)) => Kind::Tls,
            (Bind::Tcp(_), Transport::Ws(_)) => Kind::Ws,
            (Bind::Tcp(_), Transport::Wss(..)) => Kind::Wss,
        }
    }

    /// Parses `tcp://127.0.0.1:1883`, `tls://[::1]:8883`, `ws://127.0.0.1:8080/mqtt`, `wss://127.0.0.1:8084` or
    /// `unix:///run/dormouse.sock`, the form that flags take.
    pub(super) fn from_url(url: &str, certs: &Path) -> Option<Self> {
        let (scheme, place) = url.split_once("://")?;
        let address = || place.parse().ok().map(Bind::Tcp);
        let (bind, transport) = match parse_choice(scheme).ok()? {
            Kind::Tcp => (address()?, Transport::Plain),
            Kind::Tls => (address()?, Transport::Tls(development_tls(certs))),
            Kind::Ws => {
                let (bind, ws) = web_place(place)?;
                (bind, Transport::Ws(ws))
            }
            Kind::Wss => {
                let (bind, ws) = web_place(place)?;
                (bind, Transport::Wss(development_tls(certs), ws))
            }
            Kind::Unix if place.starts_with('/') => (unix_bind(place.into()), Transport::Plain),
            Kind::Unix => return None,
        };
        Some(Self::named_after_address(bind, transport))
    }

    pub(super) fn read_all(root: &mut Section<'_>, certs: &Path) -> Vec<Self> {
        let Some(sections) = root.sections("listeners") else { return Self::defaults(certs) };
        let mut listeners: Vec<Self> = Vec::with_capacity(sections.len());
        for mut section in sections {
            if let Some(listener) = Self::read(&mut section, certs) {
                let ListenerConfig { bind, name, .. } = &listener.socket;
                let same_place = |other: &&Self| other.has_address(bind);
                if let Some(Self { socket: other, .. }) = listeners.iter().find(same_place) {
                    section.complain("bind", format!("{bind} is taken by listener `{}`", other.name));
                } else if listeners.iter().any(|other| section.has("name") && other.socket.name == *name) {
                    section.complain("name", format!("`{name}` is the name of another listener"));
                }
                listeners.push(listener);
            }
            section.finish();
        }
        listeners
    }

    /// Whether it takes this address for itself; port 0 never collides.
    pub(super) fn has_address(&self, address: &Bind) -> bool {
        match (&self.socket.bind, address) {
            (Bind::Tcp(own), Bind::Tcp(other)) => own.port() != 0 && own == other,
            (Bind::Unix { path: own, .. }, Bind::Unix { path: other, .. }) => own == other,
            _ => false,
        }
    }

    /// Why it must not listen where it does, if so.
    pub(super) fn exposure(&self) -> Option<String> {
        let ListenerConfig { bind, transport, proxy, .. } = &self.socket;
        let is_local = bind.socket_addr().is_none_or(|address| address.ip().to_canonical().is_loopback());
        let reached = match (is_local, proxy) {
            (true, None) => return None,
            // Whoever the proxy lets in is in.
            (true, Some(_)) => "can be reached from other machines through the proxy",
            (false, _) => "can be reached from other machines",
        };
        let required = transport
            .tls()
            .is_some_and(|tls| matches!(tls.client_certificates, ClientCertificates::Required(_)));
        (!self.allow_anonymous && !required).then(|| {
            format!(
                "{bind} {reached} and would let anybody in; require client certificates \
                 (type = \"tls\", client_certificates = \"required\"), or say allow_anonymous = true"
            )
        })
    }

    fn named_after_address(bind: Bind, transport: Transport) -> Self {
        let socket = ListenerConfig::new("", bind, transport);
        let mut listener = Self { socket, allow_anonymous: false };
        listener.socket.name = listener.url().into();
        listener
    }

    fn url(&self) -> String {
        // Its path too: that is what a client needs.
        let path = self.socket.transport.ws().map_or("", |ws| &ws.path);
        format!("{}://{}{path}", self.scheme(), self.socket.bind)
    }

    fn read(section: &mut Section<'_>, certs: &Path) -> Option<Self> {
        let name = section.optional_name("name");
        if let Some(name) = &name {
            section.rename(format!("listeners.{name}."));
        }
        let kind = section.required_choice::<Kind>("type");
        let bind = read_bind(section, kind);
        let mut allow_anonymous = false;
        section.flag("allow_anonymous", &mut allow_anonymous);
        let proxy = read_proxy(section);
        let tls = read_tls(section, certs);
        let ws = read_ws(section);
        let kind = kind?;
        belongs_to(section, &TLS_KEYS, &[Kind::Tls, Kind::Wss], kind);
        belongs_to(section, &["path", "allowed_origins"], &[Kind::Ws, Kind::Wss], kind);
        belongs_to(section, &["mode"], &[Kind::Unix], kind);
        let transport = match kind {
            Kind::Tcp | Kind::Unix => Transport::Plain,
            Kind::Tls => Transport::Tls(tls),
            Kind::Ws => Transport::Ws(ws),
            Kind::Wss => Transport::Wss(tls, ws),
        };
        let mut listener = Self::named_after_address(bind?, transport);
        if let Some(name) = name {
            listener.socket.name = name.into();
        }
        listener.allow_anonymous = allow_anonymous;
        listener.socket.proxy = proxy;
        if let Some(why) = listener.exposure() {
            section.complain("bind", why);
        }
        Some(listener)
    }
}

impl<'c> RawListener<'c> {
    pub(super) fn of(listener: &'c Listener) -> Self {
        let ListenerConfig { name, bind, transport, proxy, .. } = &listener.socket;
        let made_from_address = **name == listener.url();
        Self {
            name: (!made_from_address).then_some(name),
            kind: listener.scheme(),
            bind: bind.to_string(),
            mode: match bind {
                Bind::Unix { mode, .. } => Some(format!("{mode:04o}")),
                Bind::Tcp(_) => None,
            },
            allow_anonymous: listener.allow_anonymous,
            proxy_protocol: show_choice(if proxy.is_some() { Proxied::Required } else { Proxied::Off }),
            proxy_trusted: proxy.iter().flat_map(|p| &p.trusted).map(Network::to_string).collect(),
            tls: transport.tls().map(RawTls::of),
            ws: transport.ws().map(|ws| RawWs { path: &ws.path, allowed_origins: &ws.allowed_origins }),
        }
    }
}

impl<'c> RawTls<'c> {
    fn of(tls: &'c TlsConfig) -> Self {
        let (ask, client_ca) = match &tls.client_certificates {
            ClientCertificates::None => (Ask::None, None),
            ClientCertificates::Optional(ca) => (Ask::Optional, Some(ca.as_path())),
            ClientCertificates::Required(ca) => (Ask::Required, Some(ca.as_path())),
        };
        Self {
            certificate: &tls.certificate,
            key: &tls.key,
            client_certificates: show_choice(ask),
            client_ca,
            handshake_timeout: show_duration(tls.handshake_timeout).to_string(),
            min_version: show_choice(tls.version_min),
        }
    }
}

/// Complains about the keys that other types have and this one has not.
fn belongs_to(section: &mut Section<'_>, keys: &[&'static str], whose: &[Kind], this: Kind) {
    if whose.contains(&this) {
        return;
    }
    let names: Vec<String> = whose.iter().map(|kind| format!("{:?}", show_choice(*kind))).collect();
    let (whose, this) = (one_of(&names), show_choice(this));
    for key in keys.iter().filter(|key| section.has(key)) {
        section.complain(key, format!("belongs to a listener of type {whose}; this one's is {this:?}"));
    }
}

/// `127.0.0.1:8080/mqtt`; without a path, the usual one.
fn web_place(place: &str) -> Option<(Bind, WsConfig)> {
    let (address, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let mut ws = WsConfig::default();
    if !path.is_empty() {
        Some(path).filter(|path| is_path(path))?.clone_into(&mut ws.path);
    }
    Some((Bind::Tcp(address.parse().ok()?), ws))
}

/// Whether a URL can have it between its address and its query.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"".contains(&byte))
}

fn read_ws(section: &mut Section<'_>) -> WsConfig {
    let mut ws = WsConfig::default();
    section.text("path", &mut ws.path, is_path, "is not the path of a URL; use e.g. \"/mqtt\"");
    section.list("allowed_origins", &mut ws.allowed_origins, "origins like \"https://panel.example\"");
    let is_origin = |origin: &String| origin.split_once("://").is_some_and(|(_, host)| !host.contains('/'));
    if let Some(origin) = ws.allowed_origins.iter().find(|origin| !is_origin(origin)) {
        let message =
            format!("{origin:?} is not an origin; use e.g. \"https://panel.example\", without a path");
        section.complain("allowed_origins", message);
    }
    ws
}

fn unix_bind(path: PathBuf) -> Bind {
    Bind::Unix { path, mode: Bind::UNIX_MODE }
}

fn read_bind(section: &mut Section<'_>, kind: Option<Kind>) -> Option<Bind> {
    let mut mode = Bind::UNIX_MODE;
    section.file_mode("mode", &mut mode);
    if kind != Some(Kind::Unix) {
        return section.required_address("bind").map(Bind::Tcp);
    }
    let path = section.optional_path("bind");
    if !section.has("bind") {
        section.complain("bind", "is missing; use the path of the socket's file".to_owned());
    }
    path.map(|path| Bind::Unix { path, mode })
}

fn read_proxy(section: &mut Section<'_>) -> Option<ProxyConfig> {
    let mut proxied = Proxied::Off;
    section.choice("proxy_protocol", &mut proxied);
    let mut trusted: Vec<Network> = Vec::new();
    section.list("proxy_trusted", &mut trusted, "networks like \"10.0.0.0/8\" or \"192.0.2.1\"");
    match proxied {
        Proxied::Required => Some(ProxyConfig { trusted }),
        Proxied::Off => {
            if section.has("proxy_trusted") {
                section.complain(
                    "proxy_trusted",
                    "is of no use without proxy_protocol = \"required\"".to_owned(),
                );
            }
            None
        }
    }
}

/// The development certificates, and the defaults of the rest.
fn development_tls(certs: &Path) -> TlsConfig {
    TlsConfig::new(certs.join("server.crt"), certs.join("server.key"))
}

/// A TLS listener's keys on top of the defaults.
fn read_tls(section: &mut Section<'_>, certs: &Path) -> TlsConfig {
    let mut tls = development_tls(certs);
    let own = section.has("certificate") || section.has("key");
    match (section.optional_path("certificate"), section.optional_path("key")) {
        (Some(certificate), Some(key)) => (tls.certificate, tls.key) = (certificate, key),
        _ if section.has("certificate") && !section.has("key") => {
            section.complain("certificate", "needs its `key` beside it".to_owned());
        }
        _ if section.has("key") && !section.has("certificate") => {
            section.complain("key", "needs its `certificate` beside it".to_owned());
        }
        _ => {}
    }
    let ca = section.optional_path("client_ca");
    let mut ask = Ask::None;
    section.choice("client_certificates", &mut ask);
    if ask == Ask::None && section.has("client_ca") && !section.has("client_certificates") {
        section.complain(
            "client_ca",
            "is of no use without client_certificates = \"optional\" or \"required\"".to_owned(),
        );
    }
    if ask != Ask::None && own && !section.has("client_ca") {
        section.complain("client_certificates", "needs `client_ca`, which signed them".to_owned());
    }
    let ca = ca.unwrap_or_else(|| certs.join("ca.crt"));
    tls.client_certificates = match ask {
        Ask::None => ClientCertificates::None,
        Ask::Optional => ClientCertificates::Optional(ca),
        Ask::Required => ClientCertificates::Required(ca),
    };
    section.duration("handshake_timeout", &mut tls.handshake_timeout, &HANDSHAKE_TIMEOUT);
    section.choice("min_version", &mut tls.version_min);
    tls
}

impl Choice for Kind {
    const ALL: &'static [(&'static str, Self)] =
        &[("tcp", Self::Tcp), ("tls", Self::Tls), ("ws", Self::Ws), ("wss", Self::Wss), ("unix", Self::Unix)];
}

impl Choice for Proxied {
    const ALL: &'static [(&'static str, Self)] = &[("off", Self::Off), ("required", Self::Required)];
}

impl Choice for Ask {
    const ALL: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)];
}

impl Choice for TlsVersion {
    const ALL: &'static [(&'static str, Self)] = &[("1.2", Self::V12), ("1.3", Self::V13)];
}
