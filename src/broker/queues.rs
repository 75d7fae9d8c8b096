//! Which bound counts for a message in a session's queue: that of the first rule its topic and the session's client match,
//! else the common one.

use crate::{
    session::{Overflow, QueueLimits, QueueRule},
    topic::{Label, TopicFilter, TopicLabels},
};

/// A bound for some of the messages in each queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBound {
    /// Of which topics; `None`: of all.
    pub filter: Option<TopicFilter>,
    /// In the queues of which clients, by their identifiers; `None`: of all.
    pub client: Option<NamePattern>,
    /// In the queues of which users' sessions, by the names that clients connect with; `None`: of all, with a name or without.
    pub user: Option<NamePattern>,
    /// How many, and what happens beyond it.
    pub limits: QueueLimits,
}

/// A client identifier or a user name, or the beginning of one and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// `None` if it is empty, or has a `*` anywhere but at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let fixed = text.strip_suffix('*').unwrap_or(text);
        (!text.is_empty() && !fixed.contains('*')).then(|| Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}

/// All bounds, ready to be looked up.
#[derive(Debug)]
pub(super) struct Queues {
    common: QueueLimits,
    bounds: Vec<QueueBound>,
    labels: TopicLabels,
    may_reject: bool,
}

impl Queues {
    /// No more rules than a label has bits.
    pub(super) fn new(common: QueueLimits, bounds: &[QueueBound]) -> Self {
        let rejects = |limits: &QueueLimits| limits.overflow == Overflow::Reject;
        Self {
            common,
            bounds: bounds.iter().take(TopicLabels::FILTERS_MAX).cloned().collect(),
            labels: labels(bounds),
            may_reject: rejects(&common) || bounds.iter().any(|bound| rejects(&bound.limits)),
        }
    }

    pub(super) fn labels(&self) -> &TopicLabels {
        &self.labels
    }

    /// Whether any bound has the policy `reject`.
    pub(super) fn may_reject(&self) -> bool {
        self.may_reject
    }

    /// Which rules there are for the queue of this client, connected as this user: bit n for the nth.
    pub(super) fn rules_for(&self, client_id: &str, user_name: Option<&str>) -> u32 {
        let matches = |bound: &QueueBound| {
            bound.client.as_ref().is_none_or(|pattern| pattern.matches(client_id))
                && bound
                    .user
                    .as_ref()
                    .is_none_or(|pattern| user_name.is_some_and(|name| pattern.matches(name)))
        };
        let rules = self.bounds.iter().enumerate().filter(|(_, bound)| matches(bound));
        rules.fold(0, |mask, (n, _)| mask | 1 << n)
    }

    /// Whether any bound is for some users only.
    pub(super) fn name_users(&self) -> bool {
        self.bounds.iter().any(|bound| bound.user.is_some())
    }

    /// The rule for a message with this label in a queue with these; `None`: the common bound.
    pub(super) fn rule(&self, label: Label, rules: u32) -> Option<QueueRule> {
        let n = label.first_of(rules)?;
        let bound = self.bounds.get(n)?;
        Some(QueueRule { no: u8::try_from(n).ok()?, limits: bound.limits })
    }

    /// What happens beyond it.
    pub(super) fn overflow(&self, rule: Option<QueueRule>) -> Overflow {
        rule.map_or(self.common, |rule| rule.limits).overflow
    }
}

/// What the journal has to remember of topics.
pub(super) fn labels(bounds: &[QueueBound]) -> TopicLabels {
    TopicLabels::new(bounds.iter().map(|bound| bound.filter.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicName;

    fn bound(
        filter: Option<&str>,
        (client, user): (Option<&str>, Option<&str>),
        messages_max: usize,
    ) -> QueueBound {
        let pattern = |text| NamePattern::parse(text).unwrap();
        QueueBound {
            filter: filter.map(|text| TopicFilter::parse(text).unwrap()),
            client: client.map(pattern),
            user: user.map(pattern),
            limits: QueueLimits { messages_max, bytes_max: 1, overflow: Overflow::DropNewest },
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let common = QueueLimits { messages_max: 9, bytes_max: 9, overflow: Overflow::DropOldest };
        let queues = Queues::new(
            common,
            &[
                bound(Some("cmd/#"), (Some("pump-*"), None), 1),
                bound(Some("cmd/#"), (None, None), 2),
                bound(None, (Some("dev"), None), 3),
                bound(None, (None, Some("fleet-*")), 4),
                bound(None, (Some("d*"), Some("*")), 5),
            ],
        );
        for (topic, client, user, messages_max) in [
            ("cmd/a", "pump-1", None, Some(1)),
            ("cmd/a", "pump", None, Some(2)),
            ("cmd/a", "dev", Some("fleet-1"), Some(2)),
            ("data", "dev", Some("fleet-1"), Some(3)),
            ("data", "dev2", None, None),
            ("data", "dev2", Some("fleet-1"), Some(4)),
            ("data", "dev2", Some("fleet"), Some(5)),
            ("data", "dev2", Some(""), Some(5)),
            ("data", "pump-1", Some("fleet"), None),
        ] {
            let label = queues.labels().of(&TopicName::parse(topic).unwrap());
            let rule = queues.rule(label, queues.rules_for(client, user));
            assert_eq!(rule.map(|r| r.limits.messages_max), messages_max, "{topic} {client} {user:?}");
        }
        assert!(!queues.may_reject());
        assert_eq!(queues.overflow(None), Overflow::DropOldest);
    }

    #[test]
    fn a_pattern_has_its_star_at_the_end() {
        for bad in ["", "*a", "a*b", "**"] {
            assert_eq!(NamePattern::parse(bad), None, "{bad}");
        }
        assert!(NamePattern::parse("*").unwrap().matches("anybody"));
    }
}
