//! What flags and variables say; it goes on top of the file.

use std::path::PathBuf;

use super::{Config, admin, document::Document, listener::Listener, value::parse_choice};
use crate::store::{KeySource, NotAKey, StoreKey};

/// Flags and `DORMOUSE_*` variables, as the user wrote them. They are checked together with the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data`, `DORMOUSE_DATA`: replaces `store.path`.
    pub data: Option<PathBuf>,
    /// `--durability`, `DORMOUSE_DURABILITY`: replaces `store.durability`.
    pub durability: Option<String>,
    /// `DORMOUSE_STORE_KEY`, which has no flag: those are seen by everybody. It goes before `store.key_file`.
    pub store_key: Option<Result<StoreKey, NotAKey>>,
    /// `--listen`, `DORMOUSE_LISTEN`: `tcp://ADDRESS`, `tls://ADDRESS`, `ws://ADDRESS/PATH`, `wss://ADDRESS/PATH` or `unix://PATH`; if any, they replace the file's listeners.
    pub listen: Vec<String>,
    /// `--allow-anonymous`, `DORMOUSE_ALLOW_ANONYMOUS`: what `allow_anonymous` is for the listeners of `--listen`.
    pub allow_anonymous: bool,
    /// `--admin`, `DORMOUSE_ADMIN`: replaces `admin.listen`; `off` is `enabled = false`.
    pub admin: Option<String>,
    /// `--certs`, `DORMOUSE_CERTS`: replaces `certs`.
    pub certs: Option<PathBuf>,
    /// `--log-level`, `DORMOUSE_LOG_LEVEL`: replaces `log.level`.
    pub log_level: Option<String>,
    /// `--log-format`, `DORMOUSE_LOG_FORMAT`: replaces `log.format`.
    pub log_format: Option<String>,
}

const DURABILITY: &str = "--durability (DORMOUSE_DURABILITY)";
const STORE_KEY: &str = "DORMOUSE_STORE_KEY";
const LISTEN: &str = "--listen (DORMOUSE_LISTEN)";
const ALLOW_ANONYMOUS: &str = "--allow-anonymous (DORMOUSE_ALLOW_ANONYMOUS)";
const ADMIN: &str = "--admin (DORMOUSE_ADMIN)";
const LOG_LEVEL: &str = "--log-level (DORMOUSE_LOG_LEVEL)";
const LOG_FORMAT: &str = "--log-format (DORMOUSE_LOG_FORMAT)";

impl Overrides {
    /// The folder comes first: listeners take their certificates from it.
    pub(super) fn apply_certs(&self, config: &mut Config) {
        if let Some(certs) = &self.certs {
            config.certs.clone_from(certs);
        }
    }

    pub(super) fn apply(&self, config: &mut Config, document: &Document<'_>) {
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        match &self.store_key {
            Some(Ok(key)) => config.store.key = KeySource::Given(key.clone()),
            Some(Err(why)) => document.report_flag(STORE_KEY, why.to_string()),
            None => {}
        }
        choose(self.durability.as_deref(), &mut config.store.durability, DURABILITY, document);
        choose(self.log_level.as_deref(), &mut config.log.level, LOG_LEVEL, document);
        choose(self.log_format.as_deref(), &mut config.log.format, LOG_FORMAT, document);
        if let Some(text) = &self.admin {
            apply_admin(text, config, document);
        }
        if !self.listen.is_empty() {
            config.listeners = self.listeners(config, document);
        } else if self.allow_anonymous {
            document.report_flag(
                ALLOW_ANONYMOUS,
                "is about the listeners of --listen, and there are none".to_owned(),
            );
        }
    }

    fn listeners(&self, config: &Config, document: &Document<'_>) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(self.listen.len());
        for url in &self.listen {
            let Some(mut listener) = Listener::from_url(url, &config.certs) else {
                let how = "use e.g. tcp://127.0.0.1:1883, tls://127.0.0.1:8883, ws://127.0.0.1:8080/mqtt or unix:///run/dormouse.sock";
                document.report_flag(LISTEN, format!("{url:?} is not a listener; {how}"));
                continue;
            };
            listener.allow_anonymous = self.allow_anonymous;
            if let Some(why) = listener.exposure() {
                let instead = why.replace("allow_anonymous = true", "--allow-anonymous");
                document.report_flag(LISTEN, instead);
            }
            let bind = &listener.socket.bind;
            if listeners.iter().any(|other| other.has_address(bind)) {
                document.report_flag(LISTEN, format!("{bind} is given twice"));
            }
            listeners.push(listener);
        }
        listeners
    }
}

fn apply_admin(text: &str, config: &mut Config, document: &Document<'_>) {
    match admin::Flag::parse(text) {
        None => {
            let how = "use e.g. 127.0.0.1:9883, or off";
            document.report_flag(ADMIN, format!("{text:?} is not an address; {how}"));
        }
        Some(admin::Flag::Off) => config.admin.enabled = false,
        Some(admin::Flag::At(address)) => {
            config.admin.enabled = true;
            config.admin.listen = address;
            if let Some(why) = admin::exposure(&config.admin) {
                document.report_flag(
                    ADMIN,
                    why.replace("allow_anonymous = true", "[admin] allow_anonymous = true in the file"),
                );
            }
        }
    }
}

fn choose<T: super::value::Choice>(
    text: Option<&str>,
    target: &mut T,
    flag: &'static str,
    document: &Document<'_>,
) {
    match text.map(parse_choice) {
        Some(Ok(value)) => *target = value,
        Some(Err(allowed)) => {
            document.report_flag(flag, format!("{:?} is not known; {allowed}", text.unwrap_or_default()));
        }
        None => {}
    }
}
