//! Every normative statement of MQTT 3.1.1 and 5.0: where the broker keeps it, and the test that proves it over the wire.
//!
//! `trace` compares the lists in `statements/` with what sources and tests cite, and writes docs/conformance.md. The
//! other modules are the proofs, by the sections of the standard; many more stand in `transcripts`, where the statement
//! is part of a longer story.

mod acks;
mod connack;
mod connect;
mod delivery;
mod flow_control;
mod interop;
mod lost_packets;
mod packets;
mod ping_disconnect;
mod publish;
mod raw;
mod sessions;
mod shared;
mod strings;
mod subscribe;
mod topics;
mod trace;
mod unsubscribe;
mod wills;
