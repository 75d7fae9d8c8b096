//! `[admin]`: the listener for monitoring.

use std::net::SocketAddr;

use serde::Serialize;

use super::document::Section;
use crate::admin::Config;

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawAdmin {
    enabled: bool,
    listen: String,
    allow_anonymous: bool,
}

impl RawAdmin {
    pub(super) fn of(admin: &Config) -> Self {
        Self {
            enabled: admin.enabled,
            listen: admin.listen.to_string(),
            allow_anonymous: admin.allow_anonymous,
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, admin: &mut Config) {
    section.flag("enabled", &mut admin.enabled);
    let mut address = Some(admin.listen);
    section.address_or_none("listen", &mut address);
    match address {
        Some(address) => admin.listen = address,
        None => admin.enabled = false,
    }
    section.flag("allow_anonymous", &mut admin.allow_anonymous);
    if let Some(why) = exposure(admin) {
        section.complain("listen", why);
    }
}

/// Why it must not listen where it does, if so.
pub(super) fn exposure(admin: &Config) -> Option<String> {
    let is_local = admin.listen.ip().to_canonical().is_loopback();
    (admin.enabled && !is_local && !admin.allow_anonymous).then(|| {
        format!(
            "{} can be reached from other machines and would show anybody the metrics; listen on 127.0.0.1, or say \
             allow_anonymous = true",
            admin.listen
        )
    })
}

/// What `--admin` says.
pub(super) enum Flag {
    /// `off`
    Off,
    /// An address.
    At(SocketAddr),
}

impl Flag {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "off" { Some(Self::Off) } else { text.parse().ok().map(Self::At) }
    }
}
