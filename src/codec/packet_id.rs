//! Packet identifiers.

use std::{fmt, num::NonZeroU16};

/// Names a PUBLISH with `QoS` > 0, a SUBSCRIBE or an UNSUBSCRIBE until it is answered. Never zero
/// [MQTT-2.2.1-3], [MQTT-2.2.1-4], [MQTT3-2.3.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// `None` for zero.
    pub fn new(id: u16) -> Option<Self> {
        NonZeroU16::new(id).map(Self)
    }

    /// The number, 1..=65,535.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<NonZeroU16> for PacketId {
    fn from(id: NonZeroU16) -> Self {
        Self(id)
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
