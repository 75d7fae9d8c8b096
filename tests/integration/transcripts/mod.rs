//! The protocol as transcripts: what goes over the wire between scripted peers and the real binary, and what survives
//! its death.
//!
//! Most transcripts are run in 3.1.1 and in 5.0. Nothing waits for time to pass but the broker itself, on delays of a
//! second that the transcript asked it for.

mod answers;
mod bad_days;
mod bad_input;
mod bad_stores;
mod closing;
mod dead_letters;
mod durability;
mod expiry;
mod features;
mod flow;
mod queues;
mod routing;
pub(crate) mod scene;
mod sessions;
mod shared;
mod start;
mod subscriptions;
mod transports;
mod websocket;
mod wills;
