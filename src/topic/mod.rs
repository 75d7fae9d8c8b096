//! Topic names and topic filters, parsed into types (MQTT 5.0 and 3.1.1 section 4.7, shared subscriptions 4.8.2).
//!
//! A [`TopicName`] or [`TopicFilter`] that exists is valid, so nothing further up checks again. Names are compared byte
//! by byte and never normalised [MQTT-4.7.3-4].
//!
//! Invariant: both have at most [`LEVELS_MAX`] levels, so a trie built of them is at most that deep.

mod filter;
mod labels;
mod name;

pub use filter::TopicFilter;
pub use labels::{Label, TopicLabels};
pub use name::TopicName;

/// The longest topic name or filter, in bytes of UTF-8 [MQTT-4.7.3-3].
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// The most levels of a topic name or filter (`$share/name/` not counted). The standard has no such limit; without one
/// a peer could send a topic of 65,536 levels and have a trie walked, and grown, as deep. No real topic comes near.
pub const LEVELS_MAX: usize = 128;

/// Why a text is not a topic name or filter. All of them are the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TopicError {
    /// No characters [MQTT-4.7.3-1].
    #[error("topic is empty")]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes [MQTT-4.7.3-3].
    #[error("topic is longer than 65,535 bytes")]
    TooLong,
    /// More than [`LEVELS_MAX`] levels; our limit, not the standard's.
    #[error("topic has more than {LEVELS_MAX} levels")]
    TooManyLevels,
    /// Contains U+0000 [MQTT-4.7.3-2].
    #[error("topic contains the null character")]
    NullCharacter,
    /// A topic name with `+` or `#` [MQTT-4.7.0-1].
    #[error("topic name contains a wildcard")]
    WildcardInName,
    /// A filter with `#` beside other characters of its level [MQTT-4.7.1-1].
    #[error("`#` must be a whole level of a topic filter")]
    MultiLevelNotAlone,
    /// A filter with a level after `#` [MQTT-4.7.1-1].
    #[error("`#` must be the last level of a topic filter")]
    MultiLevelNotLast,
    /// A filter with `+` beside other characters of its level [MQTT-4.7.1-2].
    #[error("`+` must be a whole level of a topic filter")]
    SingleLevelNotAlone,
    /// `$share/` without a share name [MQTT-4.8.2-1].
    #[error("shared subscription without a share name")]
    ShareNameEmpty,
    /// A share name with `+` or `#` [MQTT-4.8.2-2].
    #[error("share name contains a wildcard")]
    ShareNameWildcard,
    /// A share name that no `/` and topic filter follow [MQTT-4.8.2-2].
    #[error("shared subscription without a topic filter")]
    ShareFilterMissing,
}

/// The levels of a topic name or filter, in order. Empty levels count: `/a` has two.
pub fn levels(topic: &str) -> impl Iterator<Item = &str> {
    topic.split('/')
}

/// What names and filters have in common.
fn check_text(text: &str) -> Result<(), TopicError> {
    // [MQTT-4.7.3-1]
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    // [MQTT-4.7.3-3]
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    // [MQTT-4.7.3-2]
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(TopicError::NullCharacter);
    }
    Ok(())
}

/// Our own bound, on a topic name or on a filter without its share name.
fn check_depth(topic: &str) -> Result<(), TopicError> {
    let separators = memchr::memchr_iter(b'/', topic.as_bytes());
    // A level more than separators; what is shorter than the bound need not be looked at.
    let is_short = topic.len() < LEVELS_MAX;
    if is_short || separators.count() < LEVELS_MAX { Ok(()) } else { Err(TopicError::TooManyLevels) }
}

#[cfg(test)]
mod tests {
    use super::levels;

    #[test]
    fn empty_levels_count() {
        let of = |topic| levels(topic).collect::<Vec<_>>();
        assert_eq!(of("a"), ["a"]);
        assert_eq!(of("/"), ["", ""]);
        assert_eq!(of("/a//b/"), ["", "a", "", "b", ""]);
    }
}
