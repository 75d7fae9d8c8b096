//! Dead letters: what is published of a message that somebody does not get.
//!
//! A letter goes to `$dead/<reason>/<client id>/<topic>`. The client identifier is one level: `%`, `/`, `+` and `#` in it are
//! written as `%25`, `%2F`, `%2B`, `%23`. The topic follows as it was, with all its levels; where that would be too long, or
//! too many levels, it is left out, and the user property has it.
//!
//! A letter is a message like any other, but that nobody else may publish there, and that nothing is published of it when it
//! is not delivered itself.

use std::sync::Arc;

use super::keep::Ended;
use crate::{
    codec::QoS,
    message::Message,
    session::DropReason,
    time::Timestamp,
    topic::{TopicFilter, TopicName},
};

/// The first level of their topics.
pub(super) const LEVEL: &str = "$dead";
/// A client identifier may have 64 KiB; as a level of a topic, with a topic behind it, it has no more than this.
const CLIENT_BYTES_MAX: usize = 4_096;

/// Which dead letters there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// Whether there are any; no.
    pub enabled: bool,
    /// For which reasons; all.
    pub reasons: DeadReasons,
    /// The quality of service they are published with, 0 or 1; 1. With 0 they reach who is there, and survive nothing.
    pub qos: QoS,
    /// Whether they have the message's payload and properties; yes.
    pub with_payload: bool,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { enabled: false, reasons: DeadReasons::all(), qos: QoS::AtLeastOnce, with_payload: true }
    }
}

/// Why somebody does not get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// Its queue was full: the oldest message, or the new one.
    QueueFull,
    /// Its expiry interval passed.
    Expired,
    /// It is larger than the client's maximum packet size.
    TooLarge,
    /// Its session expired.
    SessionExpired,
    /// Its client began a new session.
    SessionCleaned,
    /// Its session ended with its connection.
    SessionClosed,
    /// No member of its shared subscription was left.
    NoMember,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::Expired,
        Self::TooLarge,
        Self::SessionExpired,
        Self::SessionCleaned,
        Self::SessionClosed,
        Self::NoMember,
    ];

    /// Its name, as in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::SessionExpired => "session_expired",
            Self::SessionCleaned => "session_cleaned",
            Self::SessionClosed => "session_closed",
            Self::NoMember => "no_member",
        }
    }

    /// The reason of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// `None` for what is damaged: there is no message any more.
    pub(super) fn of(reason: DropReason) -> Option<Self> {
        match reason {
            DropReason::QueueFull => Some(Self::QueueFull),
            DropReason::Expired => Some(Self::Expired),
            DropReason::TooLarge => Some(Self::TooLarge),
            DropReason::Damaged => None,
        }
    }

    pub(super) fn of_ended(why: Ended) -> Self {
        match why {
            Ended::Expired => Self::SessionExpired,
            Ended::CleanStart => Self::SessionCleaned,
            Ended::WithConnection => Self::SessionClosed,
        }
    }
}

/// Some of the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadReasons(u8);

impl DeadReasons {
    /// All of them.
    pub fn all() -> Self {
        DeadReason::ALL.into_iter().collect()
    }

    /// Whether this is one of them.
    pub fn contains(self, reason: DeadReason) -> bool {
        self.0 & bit(reason) != 0
    }

    /// These, in the order of [`DeadReason::ALL`].
    pub fn iter(self) -> impl Iterator<Item = DeadReason> {
        DeadReason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

impl FromIterator<DeadReason> for DeadReasons {
    fn from_iter<I: IntoIterator<Item = DeadReason>>(reasons: I) -> Self {
        Self(reasons.into_iter().fold(0, |all, reason| all | bit(reason)))
    }
}

fn bit(reason: DeadReason) -> u8 {
    1 << reason as u8
}

/// Whether only the broker may publish here.
pub(super) fn is_reserved(topic: &str) -> bool {
    topic.strip_prefix(LEVEL).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Who does not get it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) reason: DeadReason,
    pub(super) client_id: Arc<str>,
}

impl Loss {
    /// As the journal keeps it with the claim: where a letter's topic begins, which is a filter too.
    pub(super) fn to_filter(&self) -> Option<TopicFilter> {
        TopicFilter::parse(&self.beginning()).ok()
    }

    pub(super) fn from_filter(filter: &TopicFilter) -> Option<Self> {
        let mut levels = filter.as_str().splitn(3, '/').skip(1);
        let reason = DeadReason::parse(levels.next()?)?;
        Some(Self { reason, client_id: plain(levels.next()?).into() })
    }

    /// The letter for this message.
    pub(super) fn letter(&self, message: &Message, config: DeadLetters) -> Option<Message> {
        let beginning = self.beginning();
        let topic = TopicName::parse(&format!("{beginning}/{}", message.topic.as_str()));
        let topic = topic.or_else(|_| TopicName::parse(&beginning)).ok()?;
        let qos = u8::from(message.qos).to_string();
        let told = [
            ("reason", self.reason.as_str()),
            ("client_id", &*self.client_id),
            ("topic", message.topic.as_str()),
            ("qos", &*qos),
        ];
        let copied = message.properties.as_deref().filter(|_| config.with_payload);
        let mut properties = copied.cloned().unwrap_or_default();
        // Before the message's own, which may have the same names.
        let told = told.map(|(name, value)| (name.into(), value.into()));
        properties.user.splice(..0, told);
        Some(Message {
            topic,
            payload: if config.with_payload { message.payload.clone() } else { bytes::Bytes::new() },
            qos: config.qos,
            retain: false,
            expires_at: Timestamp::NEVER,
            properties: Some(Box::new(properties)),
        })
    }

    fn beginning(&self) -> String {
        format!("{LEVEL}/{}/{}", self.reason.as_str(), level(&self.client_id))
    }
}

/// A client identifier as one level of a topic name.
fn level(client_id: &str) -> String {
    let mut level = String::with_capacity(client_id.len());
    for c in client_id.chars() {
        match c {
            '%' => level.push_str("%25"),
            '/' => level.push_str("%2F"),
            '+' => level.push_str("%2B"),
            '#' => level.push_str("%23"),
            c => level.push(c),
        }
        if level.len() >= CLIENT_BYTES_MAX {
            break;
        }
    }
    level
}

/// The client identifier again.
fn plain(level: &str) -> String {
    level.replace("%2F", "/").replace("%2B", "+").replace("%23", "#").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageProperties;

    fn message(topic: &str) -> Message {
        let user = vec![("topic".into(), "its own".into())];
        let properties =
            MessageProperties { content_type: Some("a/b".into()), user, ..MessageProperties::default() };
        Message {
            topic: TopicName::parse(topic).unwrap(),
            payload: "x".into(),
            qos: QoS::ExactlyOnce,
            retain: true,
            expires_at: Timestamp(7),
            properties: Some(Box::new(properties)),
        }
    }

    fn loss(client_id: &str) -> Loss {
        Loss { reason: DeadReason::Expired, client_id: client_id.into() }
    }

    #[test]
    fn a_client_identifier_is_one_level_and_can_be_read_back() {
        for (client_id, shown) in [
            ("dev1", "dev1"),
            ("a/b", "a%2Fb"),
            ("+", "%2B"),
            ("#", "%23"),
            ("100%", "100%25"),
            ("%2F", "%252F"),
            ("ü 😀", "ü 😀"),
        ] {
            let letter = loss(client_id).letter(&message("a//b"), DeadLetters::default()).unwrap();
            assert_eq!(letter.topic.as_str(), format!("$dead/expired/{shown}/a//b"));
            let filter = loss(client_id).to_filter().unwrap();
            assert_eq!(Loss::from_filter(&filter), Some(loss(client_id)), "{client_id}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_the_property() {
        for topic in ["x".repeat(65_530), "/".repeat(crate::topic::LEVELS_MAX - 1)] {
            let letter = loss("dev").letter(&message(&topic), DeadLetters::default()).unwrap();
            assert_eq!(letter.topic.as_str(), "$dead/expired/dev");
            let user = letter.properties.unwrap().user;
            assert_eq!(user[2], ("topic".into(), topic.into()));
        }
        let long = "/".repeat(65_535);
        let letter = loss(&long).letter(&message("a"), DeadLetters::default()).unwrap();
        assert!(letter.topic.as_str().ends_with("%2F/a") && letter.topic.as_str().len() < 4_200);
        assert!(loss(&long).to_filter().is_some());
    }

    #[test]
    fn a_letter_says_whose_it_was_and_why() {
        let letter = loss("dev").letter(&message("a"), DeadLetters::default()).unwrap();
        let properties = letter.properties.unwrap();
        let user: Vec<_> = properties.user.iter().map(|(name, value)| (&**name, &**value)).collect();
        let told = [("reason", "expired"), ("client_id", "dev"), ("topic", "a"), ("qos", "2")];
        assert_eq!(user, [&told[..], &[("topic", "its own")]].concat());
        assert_eq!(
            (letter.qos, letter.retain, letter.expires_at),
            (QoS::AtLeastOnce, false, Timestamp::NEVER)
        );
        assert_eq!((&*letter.payload, properties.content_type.as_deref()), (&b"x"[..], Some("a/b")));
        let config = DeadLetters { with_payload: false, qos: QoS::AtMostOnce, ..DeadLetters::default() };
        let letter = loss("dev").letter(&message("a"), config).unwrap();
        let properties = letter.properties.unwrap();
        assert_eq!((properties.user.len(), properties.content_type), (4, None));
        assert_eq!((letter.payload.len(), letter.qos), (0, QoS::AtMostOnce));
    }

    #[test]
    fn a_reserved_topic_begins_with_the_level() {
        for (topic, expected) in [("$dead", true), ("$dead/x", true), ("$deadly", false), ("a/$dead", false)]
        {
            assert_eq!(is_reserved(topic), expected, "{topic}");
        }
    }
}
