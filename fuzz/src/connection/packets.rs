//! What clients send: mostly packets that make sense at that moment, some that do not, and bytes that are none.

use std::num::NonZeroU16;

use dormouse::codec::{
    Ack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, ReasonProperties, Subscribe, SubscribeFilter, Unsubscribe, Version,
    Will,
};

use super::{
    super::{input::Input, topics},
    ledger::Ledger,
    peer::Peer,
};

const CLIENT_IDS: &[&str] = &["a", "b", "c", "d", ""];
const TOPICS: &[&str] = &["a", "a/b", "b", "$x/y", "c/d", "a/b/c", ""];
const FILTERS: &[&str] =
    &["a", "a/#", "#", "+/b", "b", "+/+", "$x/#", "$share/g/a", "$share/g/#", "$share/h/+/b", "a/#/b", ""];

/// Session expiries that do not end while an input lasts are the ledger's business.
pub const EXPIRY_LONG: u32 = 2_000_000;

/// A persistent client that takes anything.
pub fn hello(client_id: &str) -> Vec<u8> {
    let properties = ConnectProperties { session_expiry: Some(EXPIRY_LONG), ..ConnectProperties::default() };
    encode(
        &Packet::Connect(Box::new(Connect { properties, ..Connect::new(Version::V5, client_id) })),
        Version::V5,
    )
}

/// The acknowledgements of everything that is open.
pub fn acknowledge_all(peer: &Peer) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in peer.due() {
        packet.encode(peer.version, &mut bytes);
    }
    bytes
}

/// Something to send.
pub fn any(peer: &Peer, ledger: &mut Ledger, input: &mut Input<'_>) -> Vec<u8> {
    if !peer.has_said_hello && !input.once_in(32) {
        return any_connect(input);
    }
    let version = peer.version;
    match input.below(24) {
        0..=6 => any_publish(version, ledger, input),
        7..=9 => any_subscribe(version, input),
        10 => {
            let filters = (0..=input.below(2)).map(|_| input.pick(FILTERS)).collect();
            let packet = Unsubscribe { packet_id: any_id(input), user: Vec::new(), filters };
            encode(&Packet::Unsubscribe(packet), version)
        }
        // What is due, all of it or the first.
        11..=14 => acknowledge_all(peer),
        15 | 16 => peer.due().first().map(|packet| encode(packet, version)).unwrap_or_default(),
        17 => any_ack(version, input),
        18 => peer.releases().iter().flat_map(|id| encode(&Packet::Pubrel(ack(*id)), version)).collect(),
        19 => encode(&Packet::Pingreq, version),
        20 => {
            let reason = input.pick(&[ReasonCode::Success, ReasonCode::DisconnectWithWill]);
            let session_expiry = input.pick(&[None, None, Some(0), Some(EXPIRY_LONG)]);
            let properties = DisconnectProperties { session_expiry, ..DisconnectProperties::default() };
            encode(&Packet::Disconnect(Disconnect { reason, properties }), version)
        }
        21 => any_connect(input),
        // A packet with something wrong in it.
        22 => {
            let mut bytes = any_publish(version, ledger, input);
            let at = input.below(bytes.len());
            bytes[at] ^= input.byte();
            bytes
        }
        _ => {
            let bytes = usize::from(input.byte());
            input.take(bytes).to_vec()
        }
    }
}

fn any_connect(input: &mut Input<'_>) -> Vec<u8> {
    let version = input.pick(&[Version::V5, Version::V5, Version::V311, Version::V311, Version::V31]);
    let mut packet = Connect::new(version, input.pick(CLIENT_IDS));
    packet.clean_start = input.once_in(4);
    packet.keep_alive = input.pick(&[0, 1, 60]);
    if input.once_in(4) {
        packet.will = Some(Will {
            topic: input.pick(TOPICS),
            payload: b"will",
            qos: topics::qos(input),
            retain: input.once_in(4),
            delay: input.pick(&[None, Some(5)]).filter(|_| version.is_v5()),
            properties: PublishProperties::default(),
        });
    }
    if version.is_v5() {
        let long = Some(EXPIRY_LONG);
        let p = &mut packet.properties;
        p.session_expiry = input.pick(&[long, long, long, None, Some(0), Some(5)]);
        p.receive_maximum = NonZeroU16::new(input.pick(&[0, 0, 1, 2, 65_535]));
        p.topic_alias_maximum = input.pick(&[None, Some(1), Some(20)]);
        p.packet_bytes_max = if input.once_in(12) { Some(input.pick(&[20, 64, 400])) } else { None };
        p.authentication_method = input.once_in(40).then_some("SCRAM-SHA-1");
    }
    encode(&Packet::Connect(Box::new(packet)), version)
}

fn any_publish(version: Version, ledger: &mut Ledger, input: &mut Input<'_>) -> Vec<u8> {
    let qos = topics::qos(input);
    let mut payload = ledger.next_body();
    let bytes = payload.len() + input.pick(&[0, 0, 0, 10, 300, 5_000]);
    payload.resize(bytes, b' ');
    if input.once_in(24) {
        payload.clear();
    }
    let mut properties = PublishProperties::default();
    if version.is_v5() {
        properties.message_expiry = input.pick(&[None, None, None, Some(0), Some(5)]);
        properties.topic_alias = NonZeroU16::new(input.pick(&[0, 0, 0, 0, 1, 2, 99]));
    }
    let packet = Publish {
        dup: qos != QoS::AtMostOnce && input.once_in(8),
        qos,
        retain: input.once_in(6),
        topic: input.pick(TOPICS),
        packet_id: (qos != QoS::AtMostOnce).then(|| any_id(input)),
        properties,
        payload: &payload,
    };
    encode(&Packet::Publish(packet), version)
}

fn any_subscribe(version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let filters = (0..=input.below(3))
        .map(|_| SubscribeFilter { filter: input.pick(FILTERS), options: topics::options(input) })
        .collect();
    let subscription_id = input.once_in(4).then(|| u32::from(input.byte()) + 1).filter(|_| version.is_v5());
    let packet = Subscribe { packet_id: any_id(input), subscription_id, user: Vec::new(), filters };
    encode(&Packet::Subscribe(packet), version)
}

fn any_ack(version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let reason = input.pick(&[ReasonCode::Success, ReasonCode::Success, ReasonCode::UnspecifiedError]);
    let kind = input.below(4);
    // PUBREL and PUBCOMP know no such reason.
    let reason = if kind < 2 { reason } else { ReasonCode::Success };
    let ack = Ack { reason, ..ack(any_id(input)) };
    let packet = match kind {
        0 => Packet::Puback(ack),
        1 => Packet::Pubrec(ack),
        2 => Packet::Pubrel(ack),
        _ => Packet::Pubcomp(ack),
    };
    encode(&packet, version)
}

fn any_id(input: &mut Input<'_>) -> PacketId {
    PacketId::new(1 + u16::from(input.byte() % 6)).unwrap()
}

pub fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}
