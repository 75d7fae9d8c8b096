//! Dormouse: the MQTT broker for devices that sleep.
//!
//! What is acknowledged survives a power cut; what nobody is missing never touches the flash; nothing is dropped in
//! silence. The modules are floors: each imports only from a lower one (`docs/ARCHITECTURE.md`).

pub mod admin;
pub mod auth;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod codec;
pub mod config;
pub mod folder;
pub mod message;
pub mod net;
pub mod routing;
pub mod server;
pub mod session;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod time;
pub mod topic;
