//! The codec against two others, `mqttbytes` and the one in `rumqttc`, in 3.1.1 and 5.0 (neither has 3.1).
//!
//! For a generated packet: what we encode, the oracle decodes to the same meaning; what the oracle then encodes, we
//! decode to the packet we began with. What an oracle cannot hold is left out by name, with the reason
//! ([`Limit`]), and a test per oracle shows each of these limits at work, so that none outlives its reason.

use dormouse::codec::{self, Packet, QoS, ReasonCode, Version, decode};

#[expect(dead_code, reason = "the codec's own tests use more of it")]
#[path = "../../src/codec/tests/generate.rs"]
mod generate;
mod v4;
mod v5;

/// A packet type, or form of it, that an oracle gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// A password is read as a string, so it has to be UTF-8.
    PasswordIsText,
    /// Empty user names and passwords are taken for missing ones.
    EmptyLogin,
    /// A DISCONNECT without a body, valid in 5.0, is refused (`PayloadRequired`).
    EmptyDisconnect,
    /// Bad authentication method (0x8C) is not taken for a reason to disconnect, which section 2.4 says it is.
    DisconnectForAuthentication,
    /// Of several subscription identifiers of a PUBLISH each is counted a byte too long, so that the last of three
    /// becomes a part of the payload.
    ManySubscriptionIds,
    /// A DISCONNECT with a reason and no properties is written with a byte more than its length says.
    StrayByte,
    /// AUTH is missing.
    Auth,
}

/// What both get wrong in 5.0.
fn v5_limit(packet: &Packet<'_>) -> Option<Limit> {
    match packet {
        Packet::Disconnect(p) if p.reason == ReasonCode::Success && p.properties.is_empty() => {
            Some(Limit::EmptyDisconnect)
        }
        Packet::Disconnect(p) if p.reason == ReasonCode::BadAuthenticationMethod => {
            Some(Limit::DisconnectForAuthentication)
        }
        Packet::Publish(p) if p.properties.subscription_ids.len() > 2 => Some(Limit::ManySubscriptionIds),
        Packet::Auth(_) => Some(Limit::Auth),
        other => login_limit(other),
    }
}

/// What every oracle gets wrong about CONNECT.
fn login_limit(packet: &Packet<'_>) -> Option<Limit> {
    let Packet::Connect(connect) = packet else { return None };
    if connect.password.is_some_and(|password| std::str::from_utf8(password).is_err()) {
        return Some(Limit::PasswordIsText);
    }
    let empty = connect.user_name == Some("") || connect.password == Some(b"");
    empty.then_some(Limit::EmptyLogin)
}

fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

/// Our decoding of all of `bytes`.
fn decode_whole(bytes: &[u8], version: Version) -> Packet<'_> {
    match decode(bytes, version, u32::MAX) {
        Ok(Some((packet, used))) if used == bytes.len() => packet,
        other => panic!("{other:?} from {bytes:02X?}"),
    }
}

fn qos(number: u8) -> QoS {
    QoS::try_from(number).expect("a quality of service")
}

fn packet_id(number: u16) -> codec::PacketId {
    codec::PacketId::new(number).expect("not zero")
}

fn text(bytes: &impl AsRef<[u8]>) -> &str {
    std::str::from_utf8(bytes.as_ref()).expect("UTF-8")
}

/// The oracles have an enum of reasons for each packet; their names say what they mean.
fn reason(code: &impl std::fmt::Debug) -> ReasonCode {
    let name = format!("{code:?}");
    let ours = match name.as_str() {
        "NormalDisconnection" | "QoS0" | "Success(AtMostOnce)" => "Success",
        "QoS1" | "Success(AtLeastOnce)" => "GrantedQos1",
        "QoS2" | "Success(ExactlyOnce)" => "GrantedQos2",
        "DisconnectWithWillMessage" => "DisconnectWithWill",
        "BadUserNamePassword" => "BadUserNameOrPassword",
        "QoSNotSupported" => "QosNotSupported",
        "SharedSubscriptionNotSupported" => "SharedSubscriptionsNotSupported",
        "SubscriptionIdNotSupported" => "SubscriptionIdentifiersNotSupported",
        "Unspecified" | "Failure" => "UnspecifiedError",
        "ImplementationSpecific" => "ImplementationSpecificError",
        "PkidInUse" => "PacketIdentifierInUse",
        "RefusedProtocolVersion" => "UnsupportedProtocolVersion",
        "BadClientId" => "ClientIdentifierNotValid",
        "ServiceUnavailable" => "ServerUnavailable",
        other => other,
    };
    (0..=u8::MAX)
        .filter_map(|code| ReasonCode::try_from(code).ok())
        .find(|reason| format!("{reason:?}") == ours)
        .unwrap_or_else(|| panic!("no reason code is called {name}"))
}
