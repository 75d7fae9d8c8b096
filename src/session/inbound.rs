//! What a client has sent and the session still answers for: QoS 2 packet ids that are not released.

use std::collections::BTreeMap;

use crate::codec::PacketId;

/// The receiving half of a session. `G` is the gate behind which a message's acceptance is durable.
#[derive(Debug)]
pub struct Inbound<G> {
    unreleased: BTreeMap<PacketId, G>,
    /// Where the latest release is durable.
    released: Option<G>,
}

/// Whether a QoS 2 PUBLISH is new.
pub enum Arrival<G> {
    /// First seen: route it, then call `accept`.
    New,
    /// Its PUBREC was lost: answer again when this gate opens, and route nothing [MQTT-4.3.3-10].
    Duplicate(G),
}

impl<G: Clone> Inbound<G> {
    /// No ids held.
    pub fn new() -> Self {
        Self { unreleased: BTreeMap::new(), released: None }
    }

    /// Looks a QoS 2 packet id up.
    pub fn arrival(&self, id: PacketId) -> Arrival<G> {
        self.unreleased.get(&id).map_or(Arrival::New, |gate| Arrival::Duplicate(gate.clone()))
    }

    /// Whether `id` is held.
    pub fn holds(&self, id: PacketId) -> bool {
        self.unreleased.contains_key(&id)
    }

    /// Holds `id` until PUBREL; `gate` opens when message and id are durable.
    pub fn accept(&mut self, id: PacketId, gate: G) {
        self.unreleased.insert(id, gate);
    }

    /// PUBREL: the id is free. `false` if it was not held.
    pub fn release(&mut self, id: PacketId) -> bool {
        self.unreleased.remove(&id).is_some()
    }

    /// Notes that what was released until now is durably so behind `gate`.
    pub fn releasing(&mut self, gate: G) {
        self.released = Some(gate);
    }

    /// The gate behind which every id that is free is durably so. A PUBREL for an id that is not held may be one sent
    /// again, whose first copy is not durable.
    pub fn released(&self) -> Option<G> {
        self.released.clone()
    }

    /// Whether what was released is not durably so yet.
    pub fn is_releasing(&self, is_open: impl Fn(&G) -> bool) -> bool {
        self.released.as_ref().is_some_and(|gate| !is_open(gate))
    }

    /// Whether there is nothing to remember: no id is held, and all that were are durably free.
    pub fn is_done(&self, is_open: impl Fn(&G) -> bool) -> bool {
        self.is_empty() && !self.is_releasing(is_open)
    }

    /// Ids held, ascending, for the session's snapshot.
    pub fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.unreleased.keys().copied()
    }

    /// How many ids are held.
    pub fn len(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.unreleased.is_empty()
    }
}

impl<G: Clone> Default for Inbound<G> {
    fn default() -> Self {
        Self::new()
    }
}
