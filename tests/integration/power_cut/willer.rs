//! A client that leaves wills. CONNACK promises that the will is there; losing the connection sets it free.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use dormouse::codec::{
    Disconnect, DisconnectProperties, Packet, PublishProperties, QoS, ReasonCode, Version, Will,
};

use super::session::{self, Kept, Start};
use crate::crash::{
    ledger::{Event, Ledger},
    wire::Wire,
};

pub(super) const NAME: &str = "willer";

/// Connects with a will, again and again, until told to stop. Each third time it says goodbye, and the will need not
/// be published.
pub(super) fn run(address: SocketAddr, topic: &str, ledger: &Ledger, stop: &AtomicBool) -> io::Result<()> {
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut wire = Wire::connect(address, Version::V5)?;
        let payload = format!("{NAME} {number}");
        let name = (NAME.to_owned(), number);
        let will = Will {
            topic,
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay: None,
            properties: PublishProperties::default(),
        };
        ledger.enter(Event::Sent { name: name.clone() });
        session::connect(&mut wire, NAME, Start::Resume, Kept::Yes, Some(will))?;
        if number % 3 == 0 {
            let goodbye =
                Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
            wire.send(&[Packet::Disconnect(goodbye)])?;
        } else {
            ledger.enter(Event::Acknowledged { name: name.clone() });
            ledger.enter(Event::Completed { name });
        }
    }
    Ok(())
}
