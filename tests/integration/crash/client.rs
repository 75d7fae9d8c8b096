//! What publishers and subscribers have in common.

use std::{io, ops::ControlFlow};

use dormouse::codec::{Connect, ConnectProperties, Packet, ReasonCode, Version};

use super::{
    ledger::{Event, Ledger},
    wire::Wire,
};

/// Connects to a session that is kept, and holds the broker to it: a session that was there is there.
pub(crate) fn connect(wire: &mut Wire, client_id: &str, version: Version, ledger: &Ledger) -> io::Result<()> {
    let session_expiry = (version == Version::V5).then_some(86_400);
    wire.send(&[Packet::Connect(Box::new(Connect {
        keep_alive: 60,
        properties: ConnectProperties { session_expiry, ..ConnectProperties::default() },
        ..Connect::new(version, client_id)
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
            if !present && ledger.is_connected(client_id) {
                ledger.broken(format!("{client_id}: the session is gone"));
            }
            ledger.enter(Event::Connected { client: client_id.to_owned() });
            return Ok(());
        }
    }
    panic!("{client_id}: no CONNACK for 10 s")
}
