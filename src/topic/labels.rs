//! Which of a few topic filters match a topic, as a set of bits: what is remembered of a message's topic where the topic
//! itself is not in memory.

use super::{TopicFilter, TopicName};

/// The filters that make up labels, in order. Without any, every label is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicLabels(Vec<Option<TopicFilter>>);

/// Bit n is set if the nth filter matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label(u32);

impl TopicLabels {
    /// As many filters as a label has bits.
    pub const FILTERS_MAX: usize = 32;

    /// Labels made of these; `None` matches every topic. What is beyond `FILTERS_MAX` is left out.
    pub fn new(filters: impl Iterator<Item = Option<TopicFilter>>) -> Self {
        Self(filters.take(Self::FILTERS_MAX).collect())
    }

    /// The label of a topic.
    pub fn of(&self, topic: &TopicName) -> Label {
        let matches = |filter: &Option<TopicFilter>| filter.as_ref().is_none_or(|f| f.matches(topic));
        let bits = self.0.iter().enumerate().filter(|(_, filter)| matches(filter));
        Label(bits.fold(0, |label, (n, _)| label | 1 << n))
    }
}

impl Label {
    /// Whether no filter matches.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first filter that matches and has its bit in this mask too.
    pub fn first_of(self, mask: u32) -> Option<usize> {
        let both = self.0 & mask;
        (both != 0).then(|| both.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_tells_which_filters_match() {
        let filters = ["cmd/#", "+/dev1", "$SYS/#"].map(|filter| Some(TopicFilter::parse(filter).unwrap()));
        let labels = TopicLabels::new(filters.into_iter().chain([None]));
        let label = |topic| labels.of(&TopicName::parse(topic).unwrap());
        assert_eq!(label("cmd/dev1"), Label(0b1011));
        assert_eq!(label("cmd"), Label(0b1001));
        assert_eq!(label("$SYS/x"), Label(0b1100));
        assert_eq!(label("data"), Label(0b1000));
        assert_eq!(
            [u32::MAX, 0b1010, 0b100, 0].map(|mask| label("cmd/dev1").first_of(mask)),
            [Some(0), Some(1), None, None]
        );
        assert!(TopicLabels::default().of(&TopicName::parse("a").unwrap()).is_empty());
        let many = TopicLabels::new(std::iter::repeat_n(None, 40));
        assert_eq!(many.of(&TopicName::parse("a").unwrap()), Label(u32::MAX));
    }
}
