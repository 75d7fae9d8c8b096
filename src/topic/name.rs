//! The topic a message is published to.

use std::{borrow::Borrow, fmt, sync::Arc};

use super::{TopicError, check_depth, check_text};

/// A valid topic name: 1 to 65,535 bytes, at most [`LEVELS_MAX`](super::LEVELS_MAX) levels, no wildcard, no U+0000.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Parses a topic name (MQTT 5.0 section 4.7). Copies the text once.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        // [MQTT-4.7.0-1]
        if memchr::memchr2(b'+', b'#', text.as_bytes()).is_some() {
            return Err(TopicError::WildcardInName);
        }
        check_depth(text)?;
        Ok(Self(text.into()))
    }

    /// The name as it was published.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with `$`, which hides it from filters that begin with a wildcard [MQTT-4.7.2-1].
    pub fn is_hidden(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// Equal, ordered and hashed as its text is.
impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{LEVELS_MAX, TOPIC_BYTES_MAX};

    #[test]
    fn any_text_without_wildcards_is_a_name() {
        for text in
            ["a", "/", "/finance", "sport/tennis/player1", "ACCOUNTS payable", "$SYS/x", "a//b/", "$", "ü/😀"]
        {
            assert_eq!(TopicName::parse(text).map(|t| t.as_str().to_owned()), Ok(text.to_owned()));
        }
    }

    /// [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
    #[test]
    fn what_is_no_name_is_refused_by_reason() {
        for (text, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::NullCharacter),
            ("sport/+", TopicError::WildcardInName),
            ("sport/#", TopicError::WildcardInName),
            ("sport/a#b", TopicError::WildcardInName),
            ("+", TopicError::WildcardInName),
        ] {
            assert_eq!(TopicName::parse(text), Err(error), "{text:?}");
        }
    }

    /// [MQTT-4.7.3-3]
    #[test]
    fn bytes_and_levels_are_bounded() {
        assert!(TopicName::parse(&"a".repeat(TOPIC_BYTES_MAX)).is_ok());
        assert_eq!(TopicName::parse(&"a".repeat(TOPIC_BYTES_MAX + 1)), Err(TopicError::TooLong));
        // Bytes, not characters.
        assert_eq!(TopicName::parse(&"ü".repeat(TOPIC_BYTES_MAX / 2 + 1)), Err(TopicError::TooLong));

        assert!(TopicName::parse(&"/".repeat(LEVELS_MAX - 1)).is_ok());
        assert_eq!(TopicName::parse(&"/".repeat(LEVELS_MAX)), Err(TopicError::TooManyLevels));
    }

    #[test]
    fn only_a_leading_dollar_hides() {
        assert!(TopicName::parse("$SYS/x").unwrap().is_hidden());
        assert!(!TopicName::parse("a/$SYS").unwrap().is_hidden());
    }
}
