//! What publishers and subscribers have in common.

use std::{io, ops::ControlFlow};

use dormouse::codec::{Connect, ConnectProperties, Packet, ReasonCode, Version};

use super::wire::Wire;

/// Connects to a session that is kept, and tells whether it was there.
pub(super) fn connect(wire: &mut Wire, client_id: &str, version: Version) -> io::Result<bool> {
    let session_expiry = (version == Version::V5).then_some(86_400);
    wire.send(&[Packet::Connect(Box::new(Connect {
        version,
        client_id,
        clean_start: false,
        keep_alive: 60,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties { session_expiry, ..ConnectProperties::default() },
    }))])?;
    let mut present = None;
    for _ in 0..500 {
        wire.receive(|packet| match packet {
            Packet::Connack(connack) => {
                assert_eq!(connack.reason, ReasonCode::Success);
                present = Some(connack.session_present);
                ControlFlow::Break(())
            }
            other => panic!("{client_id}: {other:?} instead of CONNACK"),
        })?;
        if let Some(present) = present {
            return Ok(present);
        }
    }
    panic!("{client_id}: no CONNACK for 10 s")
}
