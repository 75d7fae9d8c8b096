//! Who gets a message, each once, and how.

use std::sync::Arc;

use super::{
    super::{shared::Group, slot::Slot},
    Route,
};
use crate::{
    codec::{Publish, QoS},
    message::{Manner, SessionNo},
    routing::{Match, Subscription},
    topic::TopicFilter,
};

/// One subscriber's share of a message.
#[derive(Clone, Copy)]
pub(in crate::broker) struct Share<'a> {
    pub(in crate::broker) slot: &'a Arc<Slot>,
    pub(super) qos: QoS,
    retain: bool,
    ids: Ids<'a>,
    /// The shared subscription as whose member it was chosen.
    pub(in crate::broker) group: Option<&'a TopicFilter>,
}

#[derive(Clone, Copy)]
enum Ids<'a> {
    Matching(&'a [u32]),
    Own(Option<u32>),
}

impl Share<'_> {
    /// How the subscriber gets it.
    pub(super) fn manner(&self) -> Manner<'_> {
        let subscription_ids = match &self.ids {
            Ids::Matching(ids) => ids,
            Ids::Own(id) => id.as_slice(),
        };
        Manner { qos: self.qos, retain: self.retain, subscription_ids }
    }
}

/// All shares of a message. Those of ordinary subscribers are made each time they are looked at: there may be many.
pub(in crate::broker) struct Shares<'a> {
    direct: &'a [(Arc<Slot>, Match<SessionNo>)],
    qos: QoS,
    retain: bool,
    publisher: Option<SessionNo>,
    /// Of the members whose turn it is.
    pub(in crate::broker) members: Vec<Share<'a>>,
}

impl<'a> Shares<'a> {
    pub(super) fn new(route: &'a Route, publish: &Publish<'_>, publisher: Option<SessionNo>) -> Self {
        let member = |group: &'a Group| {
            let (slot, subscription) = group.choose(&[])?;
            Some(group_share(slot, subscription, group.name(), publish))
        };
        Self {
            direct: &route.direct,
            qos: publish.qos,
            retain: publish.retain,
            publisher,
            members: route.groups.iter().filter_map(member).collect(),
        }
    }

    /// Each of them.
    pub(in crate::broker) fn iter(&self) -> impl Iterator<Item = Share<'a>> {
        self.direct().chain(self.members.iter().copied())
    }

    /// Those of ordinary subscribers.
    pub(in crate::broker) fn direct(&self) -> impl Iterator<Item = Share<'a>> + use<'a> {
        let (qos, retain, publisher) = (self.qos, self.retain, self.publisher);
        self.direct
            .iter()
            .filter_map(move |(slot, matched)| direct_share(slot, matched, publisher, (qos, retain)))
    }

    /// Whether nobody gets it.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.direct().next().is_none()
    }

    /// How many there are at most.
    pub(super) fn len_max(&self) -> usize {
        self.direct.len() + self.members.len()
    }
}

/// What an ordinary subscriber gets of a message with this QoS and RETAIN.
pub(super) fn direct_share<'a>(
    slot: &'a Arc<Slot>,
    matched: &'a Match<SessionNo>,
    publisher: Option<SessionNo>,
    (qos, retain): (QoS, bool),
) -> Option<Share<'a>> {
    // [MQTT-3.8.3-3]: a "no local" subscription does not hear its own client.
    let matched = if publisher == Some(slot.no) { matched.for_publisher()? } else { matched };
    Some(Share {
        slot,
        // [MQTT-3.8.4-8], [MQTT3-3.8.4-6]
        qos: qos.min(matched.qos),
        // [MQTT-3.3.1-12], [MQTT-3.3.1-13], [MQTT3-3.3.1-9]
        retain: retain && matched.retain_as_published,
        ids: Ids::Matching(&matched.subscription_ids),
        group: None,
    })
}

/// What a member gets that was chosen for its group.
pub(in crate::broker) fn group_share<'a>(
    slot: &'a Arc<Slot>,
    subscription: Subscription,
    group: &'a TopicFilter,
    publish: &Publish<'_>,
) -> Share<'a> {
    Share {
        slot,
        qos: publish.qos.min(subscription.options.qos),
        retain: publish.retain && subscription.options.retain_as_published,
        // [MQTT-3.3.4-5]: its copy is one of its own.
        ids: Ids::Own(subscription.subscription_id),
        group: Some(group),
    }
}
