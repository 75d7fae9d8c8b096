//! Dormouse: the MQTT broker for devices that sleep.
//!
//! What is acknowledged survives a power cut; what nobody is missing never touches the flash; nothing is dropped in
//! silence. The modules are floors: each imports only from a lower one (`docs/ARCHITECTURE.md`).

pub mod cli;
pub mod codec;
pub mod config;
pub mod message;
pub mod server;
pub mod store;
pub mod time;
pub mod topic;
