//! What the fuzzer runs, as functions of bytes: each takes any input, and panics when a promise is broken.
//!
//! `fuzz_targets/` hands them to libFuzzer; `tests/integration/fuzz_targets.rs` runs the same functions on the seeds and on
//! pseudo-random inputs in every test run, with the toolchain the rest is built with.

pub mod configuration;
pub mod connection;
pub mod decode;
mod input;
pub mod recovery;
pub mod retained;
pub mod subscriptions;
mod topics;

/// A target's name, which is that of its folder of seeds, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("configuration", configuration::run),
    ("connection", connection::run),
    ("decode", decode::run),
    ("recovery", recovery::run),
    ("retained", retained::run),
    ("subscriptions", subscriptions::run),
];
