//! Who gets a message: subscriptions, shared groups and retained messages, looked up by topic.
//!
//! Both directions are tries of topic levels. [`Subscriptions`] holds filters and is walked by a topic; [`Retained`]
//! holds topics and is walked by a filter. A walk touches only branches that can match, and visits a node at most once.
//!
//! Nothing here knows what a session, a socket or a disk is, takes a lock or reads a clock; the order of every result
//! depends only on the operations before it. Depth, and with it recursion, is bounded by
//! [`LEVELS_MAX`](crate::topic::LEVELS_MAX); how many subscriptions and retained messages there may be is for the caller
//! to bound.

mod children;
mod matches;
mod retained;
mod subscriptions;
mod trie;

pub use matches::{GroupMatch, Match, Matches};
pub use retained::Retained;
pub use subscriptions::{Subscription, Subscriptions};
