//! What a client subscribes to.

use std::{fmt, sync::Arc};

use super::{TopicError, TopicName, check_depth, check_text, levels};

/// What a shared subscription begins with [MQTT-4.8.2-1].
const SHARE_PREFIX: &str = "$share/";

/// A valid topic filter, with its share name if it began with `$share/`. Cheap to clone.
///
/// `$share` and `$shared/x`, without exactly `$share/` at the start, are ordinary filters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter {
    /// As the client wrote it.
    text: Arc<str>,
    /// Length of `$share/name/`, or 0.
    share_bytes: u32,
}

impl TopicFilter {
    /// Parses a topic filter (MQTT 5.0 sections 4.7 and 4.8.2). Copies the text once.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        let filter = match text.strip_prefix(SHARE_PREFIX) {
            Some(shared) => parse_share(shared)?,
            None => text,
        };
        check_wildcards(filter)?;
        check_depth(filter)?;
        let share_bytes = u32::try_from(text.len() - filter.len()).map_err(|_| TopicError::TooLong)?;
        Ok(Self { text: text.into(), share_bytes })
    }

    /// As the client wrote it, `$share/name/` included.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `Some(name)` for a shared subscription.
    pub fn share_name(&self) -> Option<&str> {
        self.text.get(SHARE_PREFIX.len()..(self.share_bytes as usize).checked_sub(1)?)
    }

    /// Without `$share/name/`.
    pub fn filter(&self) -> &str {
        self.text.get(self.share_bytes as usize..).unwrap_or_default()
    }

    /// Whether the filter can match more than one topic. The share name has no part in it.
    pub fn has_wildcard(&self) -> bool {
        self.filter().contains(['+', '#'])
    }

    /// Whether it matches `topic` [MQTT-3.3.2-3], [MQTT3-3.3.2-3]; a shared subscription by its filter part. Does not allocate.
    pub fn matches(&self, topic: &TopicName) -> bool {
        let filter = self.filter();
        // [MQTT-4.7.2-1]
        if topic.is_hidden() && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut topic_levels = levels(topic.as_str());
        for level in levels(filter) {
            match level {
                // Also the parent level: `sport/#` matches `sport` (section 4.7.1.2).
                "#" => return true,
                "+" => {
                    if topic_levels.next().is_none() {
                        return false;
                    }
                }
                // Byte by byte, no normalisation [MQTT-4.7.3-4].
                literal => {
                    if topic_levels.next() != Some(literal) {
                        return false;
                    }
                }
            }
        }
        topic_levels.next().is_none()
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The filter part of what follows `$share/`.
fn parse_share(shared: &str) -> Result<&str, TopicError> {
    let (name, filter) = shared.split_once('/').unwrap_or((shared, ""));
    // [MQTT-4.8.2-1]
    if name.is_empty() {
        return Err(TopicError::ShareNameEmpty);
    }
    // [MQTT-4.8.2-2]; the `/` it forbids too has ended the name.
    if name.contains(['+', '#']) {
        return Err(TopicError::ShareNameWildcard);
    }
    // [MQTT-4.8.2-2]
    if filter.is_empty() {
        return Err(TopicError::ShareFilterMissing);
    }
    Ok(filter)
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut after_multi_level = false;
    for level in levels(filter) {
        // [MQTT-4.7.1-1]
        if after_multi_level {
            return Err(TopicError::MultiLevelNotLast);
        }
        // [MQTT-4.7.1-1]
        if level.contains('#') && level != "#" {
            return Err(TopicError::MultiLevelNotAlone);
        }
        // [MQTT-4.7.1-2]
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelNotAlone);
        }
        after_multi_level = level == "#";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::LEVELS_MAX;

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::parse(filter).unwrap().matches(&TopicName::parse(topic).unwrap())
    }

    #[track_caller]
    fn check(filter: &str, matched: &[&str], unmatched: &[&str]) {
        for topic in matched {
            assert!(matches(filter, topic), "{filter} should match {topic}");
        }
        for topic in unmatched {
            assert!(!matches(filter, topic), "{filter} should not match {topic}");
        }
    }

    /// Section 4.7.1.2, with its examples.
    #[test]
    fn multi_level_wildcard() {
        let below =
            ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"];
        check(
            "sport/tennis/player1/#",
            &below,
            &["sport/tennis/player2", "sport/tennis", "sport/tennis/player11"],
        );
        check("sport/#", &["sport", "sport/", "sport/tennis"], &["sports", "sportsman/x", "/sport"]);
        check("#", &["a", "/", "a/b/c", "/finance"], &["$SYS/x"]);
        check("sport/tennis/#", &["sport/tennis"], &["sport"]);
    }

    /// Section 4.7.1.3, with its examples.
    #[test]
    fn single_level_wildcard() {
        check(
            "sport/tennis/+",
            &["sport/tennis/player1", "sport/tennis/player2", "sport/tennis/"],
            &["sport/tennis/player1/ranking", "sport/tennis"],
        );
        check("sport/+", &["sport/"], &["sport"]);
        check("+", &["finance"], &["/finance", "a/b"]);
        check("+/+", &["/finance", "/"], &["finance"]);
        check("/+", &["/finance"], &["finance"]);
        check("+/tennis/#", &["sport/tennis", "sport/tennis/x/y"], &["sport/golf"]);
        check("sport/+/player1", &["sport/tennis/player1", "sport//player1"], &["sport/player1"]);
    }

    /// Section 4.7.2, with its examples. [MQTT-4.7.2-1]
    #[test]
    fn leading_wildcards_do_not_see_dollar_topics() {
        check("#", &[], &["$SYS", "$SYS/monitor/Clients"]);
        check("+/monitor/Clients", &["a/monitor/Clients"], &["$SYS/monitor/Clients"]);
        check("+", &[], &["$SYS"]);
        check("$SYS/#", &["$SYS", "$SYS/monitor/Clients"], &["a"]);
        check("$SYS/monitor/+", &["$SYS/monitor/Clients"], &[]);
        check("a/#", &["a/$b"], &[]);
        check("a/+", &["a/$b"], &[]);
    }

    /// Section 4.7.3, with its examples. [MQTT-4.7.3-4]
    #[test]
    fn literal_levels_match_byte_by_byte() {
        check("ACCOUNTS", &["ACCOUNTS"], &["Accounts"]);
        check("Accounts payable", &["Accounts payable"], &["Accounts  payable"]);
        check("/finance", &["/finance"], &["finance", "/finance/"]);
        // Composed and decomposed "é" look the same and are not.
        check("caf\u{e9}", &["caf\u{e9}"], &["cafe\u{301}"]);
    }

    /// Sections 4.7.1.2 and 4.7.1.3, with their examples. [MQTT-4.7.1-1], [MQTT-4.7.1-2]
    #[test]
    fn a_wildcard_is_a_whole_level_and_multi_level_the_last() {
        for text in [
            "#",
            "+",
            "sport/tennis/#",
            "+/tennis/#",
            "sport/+/player1",
            "/",
            "$SYS/#",
            "+/+",
            "$share",
            "$sharex/#",
        ] {
            let filter = TopicFilter::parse(text).unwrap();
            assert_eq!((filter.as_str(), filter.filter(), filter.share_name()), (text, text, None));
        }
        for (text, error) in [
            ("", TopicError::Empty),
            ("a/\0", TopicError::NullCharacter),
            ("sport/tennis#", TopicError::MultiLevelNotAlone),
            ("##", TopicError::MultiLevelNotAlone),
            ("+#", TopicError::MultiLevelNotAlone),
            ("sport/tennis/#/ranking", TopicError::MultiLevelNotLast),
            ("#/", TopicError::MultiLevelNotLast),
            ("#/#", TopicError::MultiLevelNotLast),
            ("sport+", TopicError::SingleLevelNotAlone),
            ("a/+b/c", TopicError::SingleLevelNotAlone),
            ("++", TopicError::SingleLevelNotAlone),
        ] {
            assert_eq!(TopicFilter::parse(text), Err(error), "{text:?}");
        }
    }

    /// Section 4.8.2. [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[test]
    fn shared_subscriptions_have_a_name_and_a_filter() {
        for (text, name, part) in [
            ("$share/consumer1/sport/tennis/+", "consumer1", "sport/tennis/+"),
            ("$share/g/#", "g", "#"),
            ("$share/g//finance", "g", "/finance"),
            ("$share/g//", "g", "/"),
            ("$share/$x/$SYS/#", "$x", "$SYS/#"),
            ("$share/ü/a", "ü", "a"),
        ] {
            let filter = TopicFilter::parse(text).unwrap();
            assert_eq!((filter.as_str(), filter.share_name(), filter.filter()), (text, Some(name), part));
        }
        for (text, error) in [
            ("$share/", TopicError::ShareNameEmpty),
            ("$share//a", TopicError::ShareNameEmpty),
            ("$share/g", TopicError::ShareFilterMissing),
            ("$share/g/", TopicError::ShareFilterMissing),
            ("$share/+/a", TopicError::ShareNameWildcard),
            ("$share/#", TopicError::ShareNameWildcard),
            ("$share/a#b/c", TopicError::ShareNameWildcard),
            ("$share/g/a#", TopicError::MultiLevelNotAlone),
        ] {
            assert_eq!(TopicFilter::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_shared_filter_matches_by_its_filter_part() {
        check("$share/g/sport/#", &["sport", "sport/tennis"], &["$share/g/sport", "a"]);
        check("$share/g/#", &["a"], &["$SYS/x"]);
        check("$share/g/$SYS/#", &["$SYS/x"], &[]);
    }

    #[test]
    fn the_share_name_is_no_level_and_no_wildcard() {
        let deepest = vec!["a"; LEVELS_MAX].join("/");
        assert!(TopicFilter::parse(&deepest).is_ok());
        assert!(TopicFilter::parse(&format!("$share/g/{deepest}")).is_ok());
        assert_eq!(TopicFilter::parse(&format!("{deepest}/#")), Err(TopicError::TooManyLevels));

        assert!(!TopicFilter::parse("$share/g/a").unwrap().has_wildcard());
        assert!(TopicFilter::parse("$share/g/a/+").unwrap().has_wildcard());
        assert!(TopicFilter::parse("#").unwrap().has_wildcard());
    }

    fn joined(names: Vec<&'static str>) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(names), 1..=5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        /// Topics that begin with `$` aside, which mqttbytes hides from every filter.
        #[test]
        fn agrees_with_an_independent_matcher(
            filter in joined(vec!["", "a", "b", "+", "+", "#"]),
            topic in joined(vec!["", "a", "b"]),
        ) {
            if let (Ok(filter), Ok(topic)) = (TopicFilter::parse(&filter), TopicName::parse(&topic)) {
                prop_assert_eq!(filter.matches(&topic), mqttbytes::matches(topic.as_str(), filter.as_str()));
            }
        }
    }
}
