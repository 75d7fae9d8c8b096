//! The topic aliases a client uses. They are its connection's, which alone looks at them, and end with it
//! [MQTT-3.3.2-7].

use std::num::NonZeroU16;

use crate::topic::{TopicError, TopicName};

/// Topics by alias.
#[derive(Debug)]
pub struct Aliases {
    max: u16,
    topics: Vec<Option<TopicName>>,
}

/// Why a client's topic alias cannot be used (MQTT 5.0 section 3.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// It is above the maximum the client was told.
    AboveMaximum,
    /// It stands for no topic on this connection.
    Unset,
    /// What it is to stand for is no topic name.
    Invalid(TopicError),
}

impl Aliases {
    /// None yet; the client was told that there may be `max`.
    pub fn new(max: u16) -> Self {
        Self { max, topics: Vec::new() }
    }

    /// What a PUBLISH with this alias is about. With a topic it sets the alias; without, the alias stands for it.
    pub fn resolve(&mut self, alias: NonZeroU16, topic: &str) -> Result<&TopicName, AliasError> {
        // [MQTT-3.3.2-9], [MQTT-3.3.2-12]: exactly those up to the maximum are valid.
        if alias.get() > self.max {
            return Err(AliasError::AboveMaximum);
        }
        let index = usize::from(alias.get()) - 1;
        let known = self.topics.get(index).and_then(Option::as_ref);
        if !topic.is_empty() && known.is_none_or(|known| known.as_str() != topic) {
            let topic = TopicName::parse(topic).map_err(AliasError::Invalid)?;
            if self.topics.len() <= index {
                self.topics.resize(index + 1, None);
            }
            if let Some(place) = self.topics.get_mut(index) {
                *place = Some(topic);
            }
        }
        self.topics.get(index).and_then(Option::as_ref).ok_or(AliasError::Unset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-3.3.2-9], [MQTT-3.3.2-12]
    #[test]
    fn an_alias_stands_for_the_topic_it_came_with_last() {
        let mut aliases = Aliases::new(3);
        let mut resolve = |alias, topic: &str| {
            let alias = NonZeroU16::new(alias).unwrap();
            aliases.resolve(alias, topic).map(|name| name.as_str().to_owned())
        };
        assert_eq!(resolve(2, ""), Err(AliasError::Unset));
        for (alias, topic, name) in [
            (3, "c", "c"),
            (3, "", "c"),
            (1, "a", "a"),
            (3, "c", "c"),
            (3, "d", "d"),
            (3, "", "d"),
            (1, "", "a"),
        ] {
            assert_eq!(resolve(alias, topic).as_deref(), Ok(name), "{alias} {topic}");
        }
        assert_eq!(resolve(2, ""), Err(AliasError::Unset));
        assert_eq!(resolve(4, "a"), Err(AliasError::AboveMaximum));
        assert_eq!(resolve(4, ""), Err(AliasError::AboveMaximum));
        assert_eq!(resolve(1, "a/#"), Err(AliasError::Invalid(TopicError::WildcardInName)));
        assert_eq!(resolve(1, "").as_deref(), Ok("a"), "what is refused changes nothing");
    }
}
