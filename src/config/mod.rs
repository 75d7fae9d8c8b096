//! The configuration: a TOML file, flags and `DORMOUSE_*` variables, read into one validated [`Config`].
//!
//! It reports every mistake at once, each with file, line, key and what is allowed; it never opens a socket, a store or
//! a certificate. The keys a section understands are exactly those its `read` asks for, so there is no second list of
//! them; `config/dormouse.toml` is held against it by a test. It reads straight into the settings of the modules they are
//! for: those own the fields, their units and their defaults, and here stand only the names of the keys and the ranges
//! they may have. Invariant: a `Config` that [`Config::load`] returned keeps every range.

mod admin;
mod dead_letters;
mod document;
mod error;
mod limits;
mod listener;
mod log;
mod mqtt;
mod overrides;
mod queue_limits;
mod retained;
mod sessions;
mod show;
mod shutdown;
mod store;
mod value;

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use error::{ConfigError, ConfigErrors, Origin};
pub use listener::Listener;
pub use log::{LogConfig, LogFormat, LogLevel};
pub use overrides::Overrides;
pub use show::ShowError;
pub use shutdown::ShutdownConfig;

use document::Document;

use crate::{admin as monitoring, broker, net::limits::Limits, store as journal};

/// Everything the broker can be told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The folder of the development certificates, `./certs` by default. TLS listeners that name no certificate of
    /// their own use the one in here, and it is made at the first start.
    pub certs: PathBuf,
    /// Where clients connect: never empty. By default plain MQTT on 127.0.0.1:1883 and TLS on 127.0.0.1:8883.
    pub listeners: Vec<Listener>,
    /// The data folder, made when missing: `store.path`. `./data` by default: a first try needs no rights anywhere else.
    pub data: PathBuf,
    /// How the journal keeps messages: the rest of `[store]`.
    pub store: journal::Config,
    /// What the broker holds and promises: `[sessions]`, `[dead_letters]`, `[retained]`, `[mqtt]`, and of `[limits]` what is about one client.
    pub broker: broker::Config,
    /// Bounds over all connections together: the rest of `[limits]`, but for `connect_timeout`, which is each listener's.
    pub network: Limits,
    /// The listener for monitoring.
    pub admin: monitoring::Config,
    /// The log on stderr.
    pub log: LogConfig,
    /// How the broker ends.
    pub shutdown: ShutdownConfig,
}

impl Default for Config {
    fn default() -> Self {
        let certs = PathBuf::from("./certs");
        Self {
            listeners: Listener::defaults(&certs),
            certs,
            data: PathBuf::from("./data"),
            store: journal::Config::default(),
            broker: broker::Config::default(),
            network: Limits::default(),
            admin: monitoring::Config::default(),
            log: LogConfig::default(),
            shutdown: ShutdownConfig::default(),
        }
    }
}

impl Config {
    /// Reads `file`, or starts from the defaults when there is none, and puts `overrides` on top. Paths in the result
    /// are as written: relative ones are relative to the working folder.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let Some(file) = file else { return Self::from_toml(Path::new(""), "", overrides) };
        match fs::read(file) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Self::from_toml(file, &text, overrides),
                Err(error) => Err(ConfigErrors::unreadable(file, &error.utf8_error().to_string())),
            },
            Err(error) => Err(ConfigErrors::unreadable(file, &error.to_string())),
        }
    }

    /// Reads the text of a configuration file; `file` is its name in error messages.
    pub fn from_toml(file: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let (config, document) = Self::read(file, text, overrides);
        let errors = document.into_errors();
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// The folder of the development certificates, if a listener uses them.
    pub fn development_certs(&self) -> Option<&Path> {
        let (certificate, key) = (self.certs.join("server.crt"), self.certs.join("server.key"));
        let in_use = self
            .listeners
            .iter()
            .filter_map(|listener| listener.socket.transport.tls())
            .any(|tls| tls.certificate == certificate && tls.key == key);
        in_use.then_some(&self.certs)
    }

    /// Returns the configuration with every value that was right, and the document with what was wrong.
    fn read<'t>(file: &Path, text: &'t str, overrides: &Overrides) -> (Self, Document<'t>) {
        let mut config = Self::default();
        let document = Document::parse(file, text);
        let mut root = document.root();
        root.path("certs", &mut config.certs);
        overrides.apply_certs(&mut config);
        config.listeners = Listener::read_all(&mut root, &config.certs);
        root.section("store", |section| store::read(section, &mut config.data, &mut config.store));
        root.section("sessions", |section| sessions::read(section, &mut config.broker));
        queue_limits::read_all(&mut root, &mut config.broker);
        root.section("dead_letters", |section| dead_letters::read(section, &mut config.broker.dead_letters));
        root.section("retained", |section| retained::read(section, &mut config.broker));
        root.section("mqtt", |section| mqtt::read(section, &mut config.broker.features));
        let mut connect_timeout = None;
        root.section("limits", |section| {
            connect_timeout = limits::read(section, &mut config.broker, &mut config.network);
        });
        root.section("admin", |section| admin::read(section, &mut config.admin));
        root.section("log", |section| config.log.read(section));
        root.section("shutdown", |section| config.shutdown.read(section));
        root.finish();
        overrides.apply(&mut config, &document);
        if let Some(connect_timeout) = connect_timeout {
            for listener in &mut config.listeners {
                listener.socket.connect_timeout = connect_timeout;
            }
        }
        (config, document)
    }
}
