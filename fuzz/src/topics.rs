//! Topic names and filters out of an input, and what the standard says of them, in the plainest words.

use dormouse::{
    codec::{QoS, RetainHandling, SubscribeOptions},
    topic::{TopicFilter, TopicName},
};

use super::input::Input;

const LEVELS: &[&str] = &["a", "b", "", "$x", "c", "dd"];

fn level(input: &mut Input<'_>, wildcards: bool) -> String {
    match input.below(8) {
        0 | 1 if wildcards => "+".to_owned(),
        2 => format!("n{}", input.below(12)),
        _ => input.pick(LEVELS).to_owned(),
    }
}

/// A topic name: one of a few that meet, or whatever the bytes are.
pub fn topic(input: &mut Input<'_>) -> Option<TopicName> {
    if input.once_in(16) {
        let bytes = usize::from(input.byte());
        return TopicName::parse(std::str::from_utf8(input.take(bytes)).ok()?).ok();
    }
    let levels: Vec<String> = (0..=input.below(4)).map(|_| level(input, false)).collect();
    TopicName::parse(&levels.join("/")).ok()
}

/// The same for filters, shared ones among them.
pub fn filter(input: &mut Input<'_>) -> Option<TopicFilter> {
    if input.once_in(16) {
        let bytes = usize::from(input.byte());
        return TopicFilter::parse(std::str::from_utf8(input.take(bytes)).ok()?).ok();
    }
    let mut levels: Vec<String> = (0..=input.below(4)).map(|_| level(input, true)).collect();
    if input.once_in(4) {
        levels.push("#".to_owned());
    }
    let share = input.pick(&["", "", "", "$share/g/", "$share/h/"]);
    TopicFilter::parse(&format!("{share}{}", levels.join("/"))).ok()
}

pub fn qos(input: &mut Input<'_>) -> QoS {
    input.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

pub fn options(input: &mut Input<'_>) -> SubscribeOptions {
    let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    SubscribeOptions {
        qos: qos(input),
        no_local: input.once_in(4),
        retain_as_published: input.once_in(2),
        retain_handling: input.pick(&handling),
    }
}

/// Whether a filter, without its share name, matches a topic: section 4.7, level by level.
pub fn matches(filter: &TopicFilter, topic: &TopicName) -> bool {
    let text = filter.as_str();
    let text = match text.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').expect("a share name and a filter").1,
        None => text,
    };
    if topic.as_str().starts_with('$') && text.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut topics) = (text.split('/'), topic.as_str().split('/'));
    loop {
        match (filters.next(), topics.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}
