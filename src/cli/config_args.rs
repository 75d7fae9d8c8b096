//! The flags and variables that `serve` and `check` share.

use std::{
    env::{self, VarError},
    path::PathBuf,
};

use clap::{Args, builder::BoolishValueParser};
use zeroize::Zeroizing;

use crate::{
    config::{Config, ConfigErrors, Overrides},
    store::{NotAKey, StoreKey},
};

/// The variable with the key of a sealed store.
pub(super) const STORE_KEY: &str = "DORMOUSE_STORE_KEY";

/// Which configuration is meant. Flags go before variables, and both before the file.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file; `config/dormouse.toml` shows every key
    #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
    config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "DIR", env = "DORMOUSE_DATA")]
    data: Option<PathBuf>,
    /// What an acknowledgement survives: power (a power cut), process (a crash) or relaxed (neither)
    #[arg(long, value_name = "MODE", env = "DORMOUSE_DURABILITY")]
    durability: Option<String>,
    /// Listens here instead of where the file says: tcp://ADDRESS:PORT, tls://ADDRESS:PORT,
    /// ws://ADDRESS:PORT/PATH, wss://ADDRESS:PORT/PATH or `unix:///PATH`; can be repeated
    #[arg(long, value_name = "URL", env = "DORMOUSE_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,
    /// Lets anybody who can reach the addresses of --listen connect
    #[arg(long, env = "DORMOUSE_ALLOW_ANONYMOUS", value_parser = BoolishValueParser::new())]
    allow_anonymous: bool,
    /// Serves metrics and health here instead of where the file says: ADDRESS:PORT, or off
    #[arg(long, value_name = "ADDRESS", env = "DORMOUSE_ADMIN")]
    admin: Option<String>,
    /// The folder of the development certificates
    #[arg(long, value_name = "DIR", env = "DORMOUSE_CERTS")]
    certs: Option<PathBuf>,
    /// What is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "DORMOUSE_LOG_LEVEL")]
    log_level: Option<String>,
    /// How it is logged: human, json, or auto (human on a terminal, JSON elsewhere)
    #[arg(long, value_name = "FORMAT", env = "DORMOUSE_LOG_FORMAT")]
    log_format: Option<String>,
}

impl ConfigArgs {
    /// Only the file and the data folder.
    pub(super) fn of(config: Option<PathBuf>, data: Option<PathBuf>) -> Self {
        Self { config, data, ..Self::default() }
    }

    /// Reads the file and puts flags and variables on top.
    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.file(), &self.overrides())
    }

    /// What was read, for a person.
    pub(super) fn source(&self) -> String {
        self.file().map_or("built-in configuration".to_owned(), |file| file.display().to_string())
    }

    fn file(&self) -> Option<&std::path::Path> {
        self.config.as_deref().filter(|file| !file.as_os_str().is_empty())
    }

    /// An empty variable, as compose files leave behind, is the same as none.
    fn overrides(&self) -> Overrides {
        let path = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Overrides {
            data: path(&self.data),
            durability: text(&self.durability),
            store_key: store_key(),
            listen: self.listen.iter().filter(|url| !url.is_empty()).cloned().collect(),
            allow_anonymous: self.allow_anonymous,
            admin: text(&self.admin),
            certs: path(&self.certs),
            log_level: text(&self.log_level),
            log_format: text(&self.log_format),
        }
    }
}

/// The key of a sealed store, if the variable is set. It is no flag, and not clap's to show in a help text.
fn store_key() -> Option<Result<StoreKey, NotAKey>> {
    let text = Zeroizing::new(env::var(STORE_KEY).unwrap_or_else(|error| match error {
        VarError::NotPresent => String::new(),
        VarError::NotUnicode(_) => "not text".to_owned(),
    }));
    (!text.is_empty()).then(|| StoreKey::parse(&text))
}
