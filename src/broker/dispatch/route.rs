//! Where messages of a topic go, resolved once for as long as no subscription changes.

use std::{
    collections::HashMap,
    mem, ptr,
    sync::{Arc, Mutex},
};

use super::super::{Broker, dead_letters::is_reserved, shared::Group, slot::Slot};
use crate::{
    message::SessionNo,
    routing::Match,
    sync::lock,
    topic::{Label, TopicError, TopicName},
};

/// How many parts the table of routes has, each with a lock of its own.
const SHARDS: usize = 16;
/// Subscribers of the routes in one part; some 64 bytes each.
const SUBSCRIBERS_MAX: usize = 4_096;
/// A route takes as much as so many subscribers, besides its own.
const ROUTE_WEIGHT: usize = 4;

/// A topic's subscribers at one generation of the subscriptions.
pub(in crate::broker) struct Route {
    generation: u64,
    pub(in crate::broker) topic: TopicName,
    /// Which rules for queues its messages may be under.
    pub(in crate::broker) label: Label,
    pub(super) direct: Vec<(Arc<Slot>, Match<SessionNo>)>,
    pub(in crate::broker) groups: Vec<Group>,
    /// A persistent session is among them, or may be.
    pub(in crate::broker) has_persistent: bool,
    /// Messages that come together may be given to its subscribers together: none of them is refused for a full queue, and none is
    /// one of many members' turn.
    pub(in crate::broker) takes_rows: bool,
}

impl Route {
    /// Whether it leads to nobody.
    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }

    fn weight(&self) -> usize {
        ROUTE_WEIGHT + self.direct.len() + self.groups.iter().map(Group::len).sum::<usize>()
    }

    /// Whether messages of `topic` go this way at present.
    pub(in crate::broker) fn leads_on(&self, broker: &Broker, topic: &str) -> bool {
        self.is_of(topic) && self.generation == broker.generation()
    }

    /// Whether it is the route of `topic`.
    pub(in crate::broker) fn is_of(&self, topic: &str) -> bool {
        ptr::eq(self.topic.as_str(), topic) || self.topic.as_str() == topic
    }
}

/// The route that a connection's last message went: the next one mostly goes the same way, and to compare is cheaper than to
/// hash.
#[derive(Default)]
pub(in crate::broker) struct RouteCache {
    last: Option<Arc<Route>>,
}

/// The routes that messages of all connections went lately. Devices publish to the same few topics for ever, and a back end
/// to each of its devices in turn. In parts, by topic; a part that is full begins anew.
#[derive(Default)]
pub(in crate::broker) struct Routes {
    shards: [Mutex<Shard>; SHARDS],
}

/// Nothing is locked under it.
#[derive(Default)]
struct Shard {
    /// Of all its routes.
    generation: u64,
    by_topic: HashMap<TopicName, Arc<Route>>,
    weight: usize,
}

impl Routes {
    fn find(&self, topic: &str, generation: u64) -> Option<Arc<Route>> {
        let shard = lock(self.shard(topic)?);
        (shard.generation == generation).then(|| shard.by_topic.get(topic).cloned())?
    }

    fn remember(&self, route: &Arc<Route>) {
        let weight = route.weight();
        let Some(shard) = self.shard(route.topic.as_str()).filter(|_| weight <= SUBSCRIBERS_MAX) else {
            return;
        };
        let mut shard = lock(shard);
        if shard.generation > route.generation {
            return;
        }
        let is_stale = shard.generation < route.generation;
        let forgotten = if is_stale || shard.weight + weight > SUBSCRIBERS_MAX {
            mem::take(&mut *shard).by_topic
        } else {
            HashMap::new()
        };
        shard.generation = route.generation;
        if shard.by_topic.insert(route.topic.clone(), Arc::clone(route)).is_none() {
            shard.weight += weight;
        }
        drop(shard);
        // Sessions that have ended may go with them.
        drop(forgotten);
    }

    /// The part in which a topic stands (FNV-1a). Who chooses topics to stand in one part has them resolved more often.
    fn shard(&self, topic: &str) -> Option<&Mutex<Shard>> {
        let mix = |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let sum = topic.bytes().fold(0x811c_9dc5, mix);
        self.shards.get((sum >> 16) as usize % SHARDS)
    }
}

impl RouteCache {
    /// The route of the message before.
    pub(in crate::broker) fn last(&self) -> Option<Arc<Route>> {
        self.last.clone()
    }

    /// The same, where `route` was the last one a moment ago.
    pub(in crate::broker) fn follow(&self, route: &mut Option<Arc<Route>>) {
        let place = |route: &Option<Arc<Route>>| route.as_ref().map(Arc::as_ptr);
        if place(&self.last) != place(route) {
            route.clone_from(&self.last);
        }
    }

    /// The route of `topic`, resolved anew when subscriptions have changed since.
    pub(in crate::broker) fn resolve(
        &mut self,
        broker: &Broker,
        topic: &str,
    ) -> Result<Arc<Route>, TopicError> {
        let generation = broker.generation();
        let route = if let Some(known) = broker.routes.find(topic, generation) {
            known
        } else {
            let new = Arc::new(broker.route(TopicName::parse(topic)?));
            broker.routes.remember(&new);
            new
        };
        self.last = Some(Arc::clone(&route));
        Ok(route)
    }
}

impl Broker {
    pub(in crate::broker) fn route(&self, topic: TopicName) -> Route {
        let (generation, matches) = {
            let subscriptions = self.subscriptions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            (subscriptions.generation(), subscriptions.resolve(&topic))
        };
        let registry = lock(&self.registry);
        let slot = |no: SessionNo| registry.by_no(no);
        let direct = matches.direct.into_iter().filter_map(|m| Some((slot(m.subscriber)?, m)));
        let direct: Vec<(Arc<Slot>, _)> = direct.collect();
        let groups =
            matches.groups.into_iter().map(|matched| Group::new(matched, &registry)).collect::<Vec<_>>();
        let label = self.queues.labels().of(&topic);
        let has_persistent = !groups.is_empty() || direct.iter().any(|(slot, _)| slot.keep.persistent);
        let takes_rows = groups.is_empty() && !self.queues.may_reject() && !is_reserved(topic.as_str());
        Route { generation, topic, label, direct, groups, has_persistent, takes_rows }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ROUTE_WEIGHT, Route, Routes, SHARDS, SUBSCRIBERS_MAX};
    use crate::topic::{Label, TopicName};

    fn route(topic: &str, generation: u64) -> Arc<Route> {
        Arc::new(Route {
            generation,
            topic: TopicName::parse(topic).unwrap(),
            label: Label::default(),
            direct: Vec::new(),
            groups: Vec::new(),
            has_persistent: false,
            takes_rows: true,
        })
    }

    #[test]
    fn a_route_is_found_until_subscriptions_change() {
        let routes = Routes::default();
        routes.remember(&route("a", 3));
        assert!(routes.find("a", 3).is_some());
        assert!(routes.find("b", 3).is_none());
        assert!(routes.find("a", 4).is_none());
        routes.remember(&route("a", 4));
        assert!(routes.find("a", 4).is_some());
        // One that was resolved before, by somebody slow.
        routes.remember(&route("a", 3));
        assert!(routes.find("a", 3).is_none() && routes.find("a", 4).is_some());
    }

    #[test]
    fn routes_are_bounded_and_spread() {
        let routes = Routes::default();
        let most = SUBSCRIBERS_MAX / ROUTE_WEIGHT * SHARDS;
        let topics: Vec<String> = (0..2 * most).map(|n| format!("site/device-{n}/command")).collect();
        for topic in &topics {
            routes.remember(&route(topic, 1));
        }
        let found = topics.iter().filter(|topic| routes.find(topic, 1).is_some()).count();
        assert!(found > most / 4 && found <= most, "{found} of {most}");
        let first = &topics[..most / 2];
        for topic in first {
            routes.remember(&route(topic, 2));
        }
        assert!(first.iter().all(|topic| routes.find(topic, 2).is_some()), "half of what fits has room");
    }
}
