//! Any text as a configuration file: it is read without a panic, and either it is right, or at least one mistake is
//! named, each in the file.

use std::path::Path;

use dormouse::config::{Config, Overrides};

/// Runs one input.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::from_toml(Path::new("fuzzed.toml"), text, &Overrides::default()) {
        Ok(config) => assert!(!config.listeners.is_empty()),
        Err(errors) => assert!(errors.to_string().contains("fuzzed.toml"), "{errors}"),
    }
}
