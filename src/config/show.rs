//! A configuration back as TOML: every key with the value in force.
//!
//! The file's shape stands here once more, as structs that serde writes; a test holds them against the keys that are
//! read. Invariants: what is written loads as the same configuration, and it holds only what a file could say: the
//! path of a key, never what is in it.

use std::path::Path;

use serde::Serialize;

use super::{
    Config, admin::RawAdmin, dead_letters::RawDeadLetters, limits::RawLimits, listener::RawListener,
    log::RawLog, mqtt::RawMqtt, queue_limits::RawQueueLimit, retained::RawRetained, sessions::RawSessions,
    shutdown::RawShutdown, store::RawStore,
};

/// Why a configuration cannot be written: the file is UTF-8, and a path need not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be written as TOML: {0}")]
pub struct ShowError(String);

#[derive(Serialize)]
struct RawConfig<'c> {
    certs: &'c Path,
    listeners: Vec<RawListener<'c>>,
    store: RawStore<'c>,
    sessions: RawSessions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queue_limits: Vec<RawQueueLimit<'c>>,
    dead_letters: RawDeadLetters,
    retained: RawRetained,
    mqtt: RawMqtt,
    limits: RawLimits,
    admin: RawAdmin,
    log: RawLog,
    shutdown: RawShutdown,
}

impl Config {
    /// Writes every key with its value. What came from [`Config::load`] or [`Config::from_toml`] is read back the same;
    /// a configuration made by a program may hold what no file can say, like listeners with different connect timeouts.
    pub fn to_toml(&self) -> Result<String, ShowError> {
        let connect_timeout = self.listeners.first().map(|listener| listener.socket.connect_timeout);
        let raw = RawConfig {
            certs: &self.certs,
            listeners: self.listeners.iter().map(RawListener::of).collect(),
            store: RawStore::of(&self.data, &self.store),
            sessions: RawSessions::of(&self.broker),
            queue_limits: self.broker.queue_bounds.iter().map(RawQueueLimit::of).collect(),
            dead_letters: RawDeadLetters::of(self.broker.dead_letters),
            retained: RawRetained::of(&self.broker),
            mqtt: RawMqtt::of(&self.broker.features),
            limits: RawLimits::of(&self.broker, &self.network, connect_timeout),
            admin: RawAdmin::of(&self.admin),
            log: RawLog::of(self.log),
            shutdown: RawShutdown::of(&self.shutdown),
        };
        toml::to_string(&raw).map_err(|error| ShowError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        ffi::OsStr,
        os::unix::ffi::OsStrExt,
        path::PathBuf,
    };

    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::config::{Overrides, tests::EVERY_KEY};

    fn load(text: &str) -> Config {
        Config::from_toml(Path::new("x.toml"), text, &Overrides::default()).unwrap()
    }

    /// Every key with its value; the entries of a list share their keys.
    fn keys(text: &str) -> BTreeMap<String, Vec<toml::Value>> {
        fn walk(prefix: &str, value: toml::Value, keys: &mut BTreeMap<String, Vec<toml::Value>>) {
            match value {
                toml::Value::Table(table) => {
                    for (key, value) in table {
                        walk(&format!("{prefix}.{key}"), value, keys);
                    }
                }
                toml::Value::Array(array) => array.into_iter().for_each(|value| walk(prefix, value, keys)),
                value => keys.entry(prefix.trim_start_matches('.').to_owned()).or_default().push(value),
            }
        }
        let mut keys = BTreeMap::new();
        walk("", toml::Value::Table(text.parse().unwrap()), &mut keys);
        keys
    }

    #[test]
    fn what_is_shown_loads_as_the_same() {
        let others = "[store]\ndurability = \"process\"\n[log]\nlevel = \"error\"\nformat = \"human\"\n\
                      [[listeners]]\ntype = \"tls\"\nbind = \"[::1]:0\"\nclient_certificates = \"optional\"\n\
                      [[listeners]]\ntype = \"tls\"\nbind = \"[::1]:0\"\nclient_certificates = \"none\"\n";
        for text in ["", EVERY_KEY, others, "[log]\nlevel = \"warn\"", "[log]\nlevel = \"trace\""] {
            let config = load(text);
            let shown = config.to_toml().unwrap();
            assert_eq!(load(&shown), config, "{shown}");
            // The development certificates are still recognised, and made at the next start.
            assert_eq!(load(&shown).development_certs(), config.development_certs());
        }
        assert_eq!(load(&Config::default().to_toml().unwrap()), Config::default());
    }

    /// The keys that are read and those that are written are the same, and each value is written where it was read.
    #[test]
    fn every_key_is_shown_with_its_value() {
        let (_, document) = Config::read(Path::new("x.toml"), EVERY_KEY, &Overrides::default());
        let read: BTreeSet<String> = document
            .asked()
            .into_iter()
            .filter(|key| key.contains('.') || key == "certs")
            .map(|key| match key.split('.').collect::<Vec<_>>().as_slice() {
                [first, .., last] if first.starts_with("listeners") => format!("listeners.{last}"),
                [first, last] if first.starts_with("queue_limits[") => format!("queue_limits.{last}"),
                _ => key,
            })
            .collect();
        let shown = keys(&load(EVERY_KEY).to_toml().unwrap());
        assert_eq!(shown.keys().cloned().collect::<BTreeSet<_>>(), read);
        let defaults = keys(&Config::default().to_toml().unwrap());
        for (key, values) in &shown {
            assert_ne!(Some(values), defaults.get(key), "{key} is the default in EVERY_KEY, or forgotten");
        }
    }

    #[test]
    fn values_are_shown_as_people_write_them() {
        let shown = Config::default().to_toml().unwrap();
        for line in
            ["connect_timeout = \"10s\"", "packet_bytes_max = \"1MiB\"", "session_expiry_max = \"30d\""]
        {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_an_error() {
        let data = PathBuf::from(OsStr::from_bytes(b"/data/\xff"));
        let error = Config { data, ..Config::default() }.to_toml().unwrap_err();
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }

    proptest! {
        #[test]
        fn any_value_in_range_survives(
            path in "[^\0]{1,20}",
            expiry_ms in 0..=49_710_u64 * 86_400_000,
            bytes in 0..=1_usize << 30,
            keep_alive in 1..=u16::MAX,
        ) {
            let mut config = Config { data: PathBuf::from(path), ..Config::default() };
            config.broker.session_expiry_max = std::time::Duration::from_millis(expiry_ms);
            config.store.held_bytes_max = bytes;
            config.broker.keep_alive_max = Some(keep_alive);
            prop_assert_eq!(load(&config.to_toml().unwrap()), config);
        }
    }
}
