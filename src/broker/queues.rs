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
    /// In the queues of which clients; `None`: of all.
    pub client: Option<ClientPattern>,
    /// How many, and what happens beyond it.
    pub limits: QueueLimits,
}

/// A client identifier, or the beginning of one and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPattern(String);

impl ClientPattern {
    /// `None` if it is empty, or has a `*` anywhere but at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let fixed = text.strip_suffix('*').unwrap_or(text);
        (!text.is_empty() && !fixed.contains('*')).then(|| Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, client_id: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => client_id.starts_with(beginning),
            None => client_id == self.0,
        }
    }
}

/// All bounds, ready to be looked up.
#[derive(Debug)]
pub(super) struct Queues {
    common: QueueLimits,
    rules: Vec<(Option<ClientPattern>, QueueRule)>,
    labels: TopicLabels,
    may_reject: bool,
}

impl Queues {
    /// No more rules than a label has bits.
    pub(super) fn new(common: QueueLimits, bounds: &[QueueBound]) -> Self {
        let rules = (1_u8..).zip(bounds).take(TopicLabels::FILTERS_MAX);
        let rules = rules.map(|(no, bound)| (bound.client.clone(), QueueRule { no, limits: bound.limits }));
        let rejects = |limits: &QueueLimits| limits.overflow == Overflow::Reject;
        Self {
            common,
            rules: rules.collect(),
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

    /// The rule for a message with this label in this client's queue; `None`: the common bound.
    pub(super) fn rule(&self, label: Label, client_id: &str) -> Option<QueueRule> {
        if label.is_empty() {
            return None;
        }
        let mut rules = label.matching().filter_map(|n| self.rules.get(n));
        let matches = |pattern: &Option<ClientPattern>| pattern.as_ref().is_none_or(|p| p.matches(client_id));
        rules.find(|(pattern, _)| matches(pattern)).map(|(_, rule)| *rule)
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

    fn bound(filter: Option<&str>, client: Option<&str>, messages_max: usize) -> QueueBound {
        QueueBound {
            filter: filter.map(|text| TopicFilter::parse(text).unwrap()),
            client: client.map(|text| ClientPattern::parse(text).unwrap()),
            limits: QueueLimits { messages_max, bytes_max: 1, overflow: Overflow::DropNewest },
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let common = QueueLimits { messages_max: 9, bytes_max: 9, overflow: Overflow::DropOldest };
        let queues = Queues::new(
            common,
            &[
                bound(Some("cmd/#"), Some("pump-*"), 1),
                bound(Some("cmd/#"), None, 2),
                bound(None, Some("dev"), 3),
            ],
        );
        for (topic, client, messages_max) in [
            ("cmd/a", "pump-1", Some(1)),
            ("cmd/a", "pump", Some(2)),
            ("cmd/a", "dev", Some(2)),
            ("data", "dev", Some(3)),
            ("data", "dev2", None),
            ("data", "pump-1", None),
        ] {
            let rule = queues.rule(queues.labels().of(&TopicName::parse(topic).unwrap()), client);
            assert_eq!(rule.map(|r| r.limits.messages_max), messages_max, "{topic} {client}");
        }
        assert!(!queues.may_reject());
        assert_eq!(queues.overflow(None), Overflow::DropOldest);
    }

    #[test]
    fn a_pattern_has_its_star_at_the_end() {
        for bad in ["", "*a", "a*b", "**"] {
            assert_eq!(ClientPattern::parse(bad), None, "{bad}");
        }
        assert!(ClientPattern::parse("*").unwrap().matches("anybody"));
    }
}
