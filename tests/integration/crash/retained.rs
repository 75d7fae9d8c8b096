//! Reads the retained value as any client would.

use std::{net::SocketAddr, ops::ControlFlow};

use dormouse::codec::{
    Connect, Packet, PacketId, QoS, RetainHandling, Subscribe, SubscribeFilter, SubscribeOptions, Version,
};

use super::wire::Wire;

pub(crate) const TOPIC: &str = "state/retainer";

/// The number that is retained, or `None` when a subscription brings none.
pub(crate) fn read(address: SocketAddr) -> Option<u64> {
    let mut wire = Wire::connect(address, Version::V311).unwrap();
    let options = SubscribeOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    wire.send(&[
        Packet::Connect(Box::new(Connect {
            clean_start: true,
            ..Connect::new(Version::V311, "retained-reader")
        })),
        Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user: Vec::new(),
            filters: vec![SubscribeFilter { filter: TOPIC, options }],
        }),
        // Its answer comes after everything that the subscription brings.
        Packet::Pingreq,
    ])
    .unwrap();
    let (mut value, mut done) = (None, false);
    for _ in 0..1_000 {
        wire.receive(|packet| {
            match packet {
                Packet::Publish(p) if p.retain => {
                    let text = std::str::from_utf8(p.payload).unwrap();
                    value = Some(text.split(' ').nth(1).unwrap().parse().unwrap());
                }
                Packet::Pingresp => done = true,
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        if done {
            return value;
        }
    }
    panic!("no PINGRESP for 20 s")
}
