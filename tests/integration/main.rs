//! Integration tests: one binary.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod admin;
mod authentication;
mod bench_command;
mod cli;
mod codec_oracle;
mod conformance;
mod crash;
mod examples;
mod floors;
mod full_disk;
mod fuzz_targets;
mod harness;
mod mosquitto;
mod network;
mod other_clients;
mod packaging;
mod peer;
mod power_cut;
mod program;
mod rumqttc_clients;
mod store_commands;
mod transcripts;
