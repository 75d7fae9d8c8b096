//! The protocol versions and how CONNECT names them.

use std::fmt;

/// A version of the protocol. Ordered by age, so `version < Version::V5` reads as "one of the v3 family".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1 (2010): protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1 (2014): protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5.0 (2019): protocol name `MQTT`, level 5.
    V5,
}

impl Version {
    /// Whether this is 5.0, the only version with properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }

    /// The protocol name in CONNECT.
    pub fn protocol_name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// The protocol level in CONNECT ("protocol version" in 5.0).
    pub fn protocol_level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}
