//! Quality of service.

use std::fmt;

/// Quality of service of a message, a subscription or a will (section 4.3). Ordered: the lesser of two is `min`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    /// `QoS` 0: sent once, never confirmed.
    #[default]
    AtMostOnce = 0,
    /// `QoS` 1: sent until confirmed by PUBACK.
    AtLeastOnce = 1,
    /// `QoS` 2: PUBLISH, PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

/// A number that is no quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no quality of service: 0, 1 or 2 are")]
pub struct UnknownQos(pub u8);

impl TryFrom<u8> for QoS {
    type Error = UnknownQos;

    fn try_from(number: u8) -> Result<Self, UnknownQos> {
        match number {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(UnknownQos(other)),
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> Self {
        qos as u8
    }
}

impl fmt::Display for QoS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u8::from(*self))
    }
}
