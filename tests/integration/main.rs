//! Integration tests: one binary.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod cli;
mod codec_oracle;
mod crash;
mod floors;
mod harness;
mod network;
mod packaging;
mod peer;
mod transcripts;
