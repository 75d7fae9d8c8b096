//! Topic names and topic filters, parsed into types. (API contract.)
#![allow(missing_docs)]
use std::sync::Arc;

/// A valid topic name: 1..=65,535 bytes, no wildcard, no U+0000. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);
impl TopicName {
    pub fn parse(_s: &str) -> Result<Self, TopicError> {
        Err(TopicError::Empty)
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
/// A valid topic filter, with its share name if it began with `$share/`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter {
    text: Arc<str>,
    share_bytes: u32,
}
impl TopicFilter {
    pub fn parse(_s: &str) -> Result<Self, TopicError> {
        Err(TopicError::Empty)
    }
    /// As the client wrote it, `$share/group/` included.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// `Some(group)` for a shared subscription.
    pub fn share_name(&self) -> Option<&str> {
        None
    }
    /// Without `$share/group/`.
    pub fn filter(&self) -> &str {
        &self.text
    }
    pub fn has_wildcard(&self) -> bool {
        false
    }
    pub fn matches(&self, _topic: &TopicName) -> bool {
        false
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("empty")]
    Empty,
}
