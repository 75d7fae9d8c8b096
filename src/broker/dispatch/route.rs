//! Where messages of a topic go, resolved once for as long as no subscription changes.

use std::{collections::HashMap, ptr, sync::Arc};

use super::super::{Broker, shared::Group, slot::Slot};
use crate::{
    message::SessionNo,
    routing::Match,
    sync::lock,
    topic::{Label, TopicError, TopicName},
};

/// Topics remembered per connection.
const ROUTES_MAX: usize = 64;

/// A topic's subscribers at one generation of the subscriptions.
pub(in crate::broker) struct Route {
    generation: u64,
    pub(in crate::broker) topic: TopicName,
    /// Which rules for queues its messages may be under.
    pub(in crate::broker) label: Label,
    pub(super) direct: Vec<(Arc<Slot>, Match<SessionNo>)>,
    pub(in crate::broker) groups: Vec<Group>,
    /// A persistent session is among them, or may be.
    pub(super) has_persistent: bool,
}

impl Route {
    /// Whether it leads to nobody.
    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }
}

/// The routes of the topics a client publishes to. Devices publish to the same few for ever.
#[derive(Default)]
pub(in crate::broker) struct RouteCache {
    routes: HashMap<Box<str>, Arc<Route>>,
    /// Of the message before: the next one mostly goes the same way, and to compare is cheaper than to hash.
    last: Option<Arc<Route>>,
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
        if let Some(last) = &self.last
            && last.generation == generation
            && (ptr::eq(last.topic.as_str(), topic) || last.topic.as_str() == topic)
        {
            return Ok(Arc::clone(last));
        }
        let route = self.look_up(broker, topic, generation)?;
        self.last = Some(Arc::clone(&route));
        Ok(route)
    }

    fn look_up(&mut self, broker: &Broker, topic: &str, generation: u64) -> Result<Arc<Route>, TopicError> {
        let name = match self.routes.get(topic) {
            Some(route) if route.generation == generation => return Ok(Arc::clone(route)),
            Some(stale) => stale.topic.clone(),
            None => TopicName::parse(topic)?,
        };
        let route = Arc::new(broker.route(name));
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        self.routes.insert(topic.into(), Arc::clone(&route));
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
        Route { generation, topic, label, direct, groups, has_persistent }
    }
}
