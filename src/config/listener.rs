//! `[[listeners]]`: where clients connect, and what they must show.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use serde::Serialize;

use super::{
    document::Section,
    value::{Choice, show_choice, show_duration},
};
use crate::net::{
    listener::{ListenerConfig, Transport},
    tls::{ClientCertificates, TlsConfig, TlsVersion},
};

const HANDSHAKE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// The keys that only a TLS listener has.
const TLS_KEYS: [&str; 6] =
    ["certificate", "key", "client_ca", "client_certificates", "handshake_timeout", "min_version"];

/// One listening socket. A listener that other machines can reach either requires client certificates or says
/// `allow_anonymous` in so many words; nothing else passes validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The socket. Its name is unique, and `tcp://ADDRESS` or `tls://ADDRESS` when the user gave none.
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
    bind: SocketAddr,
    allow_anonymous: bool,
    #[serde(flatten)]
    tls: Option<RawTls<'c>>,
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

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Tls,
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
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        vec![
            Self::named_after_address(local(1883), Transport::Tcp),
            Self::named_after_address(local(8883), Transport::Tls(development_tls(certs))),
        ]
    }

    /// The scheme of its address: `tcp` or `tls`.
    pub fn scheme(&self) -> &'static str {
        match self.socket.transport {
            Transport::Tcp => "tcp",
            Transport::Tls(_) => "tls",
        }
    }

    /// Parses `tcp://127.0.0.1:1883` or `tls://[::1]:8883`, the form that flags take.
    pub(super) fn from_url(url: &str, certs: &Path) -> Option<Self> {
        let (scheme, address) = url.split_once("://")?;
        let transport = match scheme {
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls(development_tls(certs)),
            _ => return None,
        };
        Some(Self::named_after_address(address.parse().ok()?, transport))
    }

    pub(super) fn read_all(root: &mut Section<'_>, certs: &Path) -> Vec<Self> {
        let Some(sections) = root.sections("listeners") else { return Self::defaults(certs) };
        let mut listeners: Vec<Self> = Vec::with_capacity(sections.len());
        for mut section in sections {
            if let Some(listener) = Self::read(&mut section, certs) {
                let (bind, name) = (listener.socket.bind, &listener.socket.name);
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
    pub(super) fn has_address(&self, address: SocketAddr) -> bool {
        address.port() != 0 && self.socket.bind == address
    }

    /// Why it must not listen where it does, if so.
    pub(super) fn exposure(&self) -> Option<String> {
        let ListenerConfig { bind, transport, .. } = &self.socket;
        let open = !bind.ip().to_canonical().is_loopback() && !self.allow_anonymous;
        let required = matches!(
            transport,
            Transport::Tls(TlsConfig { client_certificates: ClientCertificates::Required(_), .. })
        );
        (open && !required).then(|| {
            format!(
                "{bind} can be reached from other machines and would let anybody in; require client certificates \
                 (type = \"tls\", client_certificates = \"required\"), or say allow_anonymous = true"
            )
        })
    }

    fn named_after_address(bind: SocketAddr, transport: Transport) -> Self {
        let socket = match transport {
            Transport::Tcp => ListenerConfig::tcp(format!("tcp://{bind}"), bind),
            Transport::Tls(tls) => ListenerConfig::tls(format!("tls://{bind}"), bind, tls),
        };
        Self { socket, allow_anonymous: false }
    }

    fn read(section: &mut Section<'_>, certs: &Path) -> Option<Self> {
        let name = section.optional_name("name");
        if let Some(name) = &name {
            section.rename(format!("listeners.{name}."));
        }
        let kind = section.required_choice::<Kind>("type");
        let bind = section.required_address("bind");
        let mut allow_anonymous = false;
        section.flag("allow_anonymous", &mut allow_anonymous);
        let tls = read_tls(section, certs);
        if let Some(Kind::Tcp) = kind {
            for key in TLS_KEYS.into_iter().filter(|key| section.has(key)) {
                section
                    .complain(key, "belongs to a listener of type \"tls\"; this one's is \"tcp\"".to_owned());
            }
        }
        let transport = match kind? {
            Kind::Tcp => Transport::Tcp,
            Kind::Tls => Transport::Tls(tls),
        };
        let mut listener = Self::named_after_address(bind?, transport);
        if let Some(name) = name {
            listener.socket.name = name.into();
        }
        listener.allow_anonymous = allow_anonymous;
        if let Some(why) = listener.exposure() {
            section.complain("bind", why);
        }
        Some(listener)
    }
}

impl<'c> RawListener<'c> {
    pub(super) fn of(listener: &'c Listener) -> Self {
        let ListenerConfig { name, bind, transport, .. } = &listener.socket;
        let made_from_address = **name == format!("{}://{bind}", listener.scheme());
        Self {
            name: (!made_from_address).then_some(name),
            kind: listener.scheme(),
            bind: *bind,
            allow_anonymous: listener.allow_anonymous,
            tls: match transport {
                Transport::Tcp => None,
                Transport::Tls(tls) => Some(RawTls::of(tls)),
            },
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
    const ALL: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("tls", Self::Tls)];
}

impl Choice for Ask {
    const ALL: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)];
}

impl Choice for TlsVersion {
    const ALL: &'static [(&'static str, Self)] = &[("1.2", Self::V12), ("1.3", Self::V13)];
}
