//! One client, one packet after the other.

use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use dormouse::codec::{
    Connect, ConnectProperties, Packet, PacketId, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeFilter, SubscribeOptions, Unsubscribe, Version, Will,
};

use crate::crash::wire::Wire;

/// Longer than any answer takes on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Whether a session outlives its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Yes,
    No,
}

/// What becomes of a session that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It ends.
    Clean,
    /// It goes on.
    Resume,
}

/// Connects, and tells whether the session was there.
pub(super) fn connect(
    wire: &mut Wire,
    client_id: &str,
    start: Start,
    kept: Kept,
    will: Option<Will<'_>>,
) -> io::Result<bool> {
    wire.send(&[Packet::Connect(Box::new(Connect {
        clean_start: start == Start::Clean,
        will,
        properties: ConnectProperties {
            session_expiry: (kept == Kept::Yes).then_some(86_400),
            ..ConnectProperties::default()
        },
        ..Connect::new(Version::V5, client_id)
    }))])?;
    wait(wire, |packet| match packet {
        Packet::Connack(connack) => {
            assert_eq!(connack.reason, ReasonCode::Success, "{client_id}");
            Some(connack.session_present)
        }
        _ => None,
    })
}

/// A subscription at QoS 0 to one filter.
pub(super) fn subscribe(filter: &str) -> Packet<'_> {
    let options = SubscribeOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_id: None,
        user: Vec::new(),
        filters: vec![SubscribeFilter { filter, options }],
    })
}

pub(super) fn unsubscribe(filter: &str) -> Packet<'_> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: PacketId::new(1).unwrap(),
        user: Vec::new(),
        filters: vec![filter],
    })
}

/// Hands packets to `find` until it has what it looks for.
pub(super) fn wait<T>(wire: &mut Wire, mut find: impl FnMut(&Packet<'_>) -> Option<T>) -> io::Result<T> {
    let until = Instant::now() + ANSWER_MAX;
    let mut found = None;
    while Instant::now() < until {
        wire.receive(|packet| {
            found = find(&packet);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
