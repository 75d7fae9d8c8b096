//! Bytes <-> packet, by hand: every packet type in every version, every property, every short form.

use std::num::NonZeroU16;

use Version::{V5, V31, V311};

use super::{
    codec::{
        Ack, Auth, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties,
        Packet, PacketId, PacketType, Publish, PublishProperties, QoS, ReasonCode, ReasonProperties,
        RetainHandling, Suback, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Version, Will,
    },
    decode_all, encode, frame,
};

pub(super) struct Accepted {
    pub(super) what: &'static str,
    pub(super) version: Version,
    pub(super) first_byte: u8,
    pub(super) body: &'static [u8],
    pub(super) packet: Packet<'static>,
    /// Whether we would write it with the same bytes.
    ours: bool,
}

/// Bytes as we write them, too.
fn row(
    what: &'static str,
    version: Version,
    first_byte: u8,
    body: &'static [u8],
    packet: impl Into<Packet<'static>>,
) -> Accepted {
    Accepted { what, version, first_byte, body, packet: packet.into(), ours: true }
}

/// Bytes that we take, but write in another way.
fn taken(
    what: &'static str,
    version: Version,
    first_byte: u8,
    body: &'static [u8],
    packet: impl Into<Packet<'static>>,
) -> Accepted {
    Accepted { ours: false, ..row(what, version, first_byte, body, packet) }
}

pub(super) fn table() -> Vec<Accepted> {
    let mut rows = connects();
    rows.extend(connacks());
    rows.extend(publishes());
    rows.extend(acks());
    rows.extend(subscriptions());
    rows.extend(rest());
    rows
}

fn connects() -> Vec<Accepted> {
    let plain = connect(V311);
    vec![
        row("CONNECT 3.1", V31, 0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c", connect(V31)),
        row("CONNECT 3.1.1", V311, 0x10, b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c", plain.clone()),
        row("CONNECT 5.0", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c", connect(V5)),
        row("CONNECT names its version", V5, 0x10, b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c", plain.clone()),
        row("CONNECT names its version", V31, 0x10, b"\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c", connect(V5)),
        row(
            "persistent, without client id",
            V311,
            0x10,
            b"\x00\x04MQTT\x04\x00\xFF\xFF\x00\x00",
            Connect { client_id: "", clean_start: false, keep_alive: 65_535, ..plain.clone() },
        ),
        row(
            "will and login, 3.1",
            V31,
            0x10,
            b"\x00\x06MQIsdp\x03\xF6\x00\x3C\x00\x01c\x00\x01w\x00\x02\xFF\x00\x00\x01u\x00\x02\xC3\x00",
            Connect { version: V31, ..with_will_and_login() },
        ),
        row(
            "will and login, 3.1.1",
            V311,
            0x10,
            b"\x00\x04MQTT\x04\xF6\x00\x3C\x00\x01c\x00\x01w\x00\x02\xFF\x00\x00\x01u\x00\x02\xC3\x00",
            with_will_and_login(),
        ),
        row(
            "will and login, 5.0",
            V5,
            0x10,
            b"\x00\x04MQTT\x05\xF6\x00\x3C\x00\x00\x01c\x00\x00\x01w\x00\x02\xFF\x00\x00\x01u\x00\x02\xC3\x00",
            Connect { version: V5, ..with_will_and_login() },
        ),
        row(
            "a password alone, 5.0",
            V5,
            0x10,
            b"\x00\x04MQTT\x05\x42\x00\x3C\x00\x00\x01c\x00\x01p",
            Connect { password: Some(b"p"), ..connect(V5) },
        ),
        row(
            "a user name alone",
            V311,
            0x10,
            b"\x00\x04MQTT\x04\x82\x00\x3C\x00\x01c\x00\x00",
            Connect { user_name: Some(""), ..plain.clone() },
        ),
        row(
            "U+FEFF is kept [MQTT-1.5.4-3]",
            V311,
            0x10,
            b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x06\xEF\xBB\xBF\xEF\xBB\xBF",
            Connect { client_id: "\u{feff}\u{feff}", ..plain },
        ),
        taken("3.1 lets login fields be missing", V31, 0x10, b"\x00\x06MQIsdp\x03\xC2\x00\x3C\x00\x01c", connect(V31)),
        row(
            "every property of CONNECT",
            V5,
            0x10,
            b"\x00\x04MQTT\x05\x02\x00\x3C\x22\
              \x11\x00\x00\x01\x00\x15\x00\x01m\x16\x00\x01\x00\x17\x00\x19\x01\x21\x00\x05\x22\x00\x06\
              \x27\x00\x00\x00\x07\x26\x00\x01n\x00\x00\x00\x01c",
            Connect { properties: all_connect_properties(), ..connect(V5) },
        ),
        row(
            "every property of a will",
            V5,
            0x10,
            b"\x00\x04MQTT\x05\x0E\x00\x3C\x00\x00\x01c\x1F\
              \x18\x00\x00\x00\x09\x01\x01\x02\x00\x00\x00\x08\x03\x00\x01t\x08\x00\x01r\x09\x00\x01\x00\
              \x26\x00\x01n\x00\x01v\x00\x01w\x00\x00",
            Connect { will: Some(will_with_all_properties()), ..connect(V5) },
        ),
    ]
}

fn connacks() -> Vec<Accepted> {
    let accepted = Connack {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnackProperties::default(),
    };
    let present = Connack { session_present: true, ..accepted.clone() };
    let refused = Connack { reason: ReasonCode::NotAuthorized, ..accepted.clone() };
    vec![
        row("CONNACK 3.1", V31, 0x20, b"\x00\x00", accepted.clone()),
        taken("3.1 does not use the first byte", V31, 0x20, b"\x01\x00", accepted.clone()),
        row("CONNACK 3.1.1", V311, 0x20, b"\x01\x00", present.clone()),
        row("CONNACK refuses 3.1.1", V311, 0x20, b"\x00\x05", refused.clone()),
        row("CONNACK 5.0", V5, 0x20, b"\x01\x00\x00", present),
        row("CONNACK refuses 5.0", V5, 0x20, b"\x00\x87\x00", refused),
        row(
            "every property of CONNACK",
            V5,
            0x20,
            b"\x00\x00\x43\
              \x11\x00\x00\x00\x01\x12\x00\x01a\x13\x00\x02\x15\x00\x01m\x16\x00\x01\x00\x1A\x00\x01i\x1C\x00\x01s\
              \x1F\x00\x01r\x21\x00\x03\x22\x00\x04\x24\x01\x25\x00\x27\x00\x00\x00\x05\x28\x00\x29\x01\x2A\x00\
              \x26\x00\x01n\x00\x01v\x26\x00\x01n\x00\x01v",
            Connack { properties: all_connack_properties(), ..accepted },
        ),
    ]
}

fn publishes() -> Vec<Accepted> {
    let plain = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"\x00\xFF",
    };
    let qos1 = Publish { qos: QoS::AtLeastOnce, packet_id: Some(id(10)), ..plain.clone() };
    let qos2 = Publish { dup: true, qos: QoS::ExactlyOnce, retain: true, ..qos1.clone() };
    let alias = PublishProperties { topic_alias: NonZeroU16::new(7), ..PublishProperties::default() };
    vec![
        row("PUBLISH 3.1", V31, 0x30, b"\x00\x03a/b\x00\xFF", plain.clone()),
        row("PUBLISH 3.1.1", V311, 0x30, b"\x00\x03a/b\x00\xFF", plain.clone()),
        row("PUBLISH 5.0", V5, 0x30, b"\x00\x03a/b\x00\x00\xFF", plain.clone()),
        row("QoS 1", V311, 0x32, b"\x00\x03a/b\x00\x0A\x00\xFF", qos1.clone()),
        row("QoS 1, 5.0", V5, 0x32, b"\x00\x03a/b\x00\x0A\x00\x00\xFF", qos1),
        row("all flags", V31, 0x3D, b"\x00\x03a/b\x00\x0A\x00\xFF", qos2.clone()),
        row("all flags, 5.0", V5, 0x3D, b"\x00\x03a/b\x00\x0A\x00\x00\xFF", qos2),
        row(
            "retained, empty",
            V311,
            0x31,
            b"\x00\x03a/b",
            Publish { retain: true, payload: b"", ..plain.clone() },
        ),
        row(
            "a topic alias for a topic",
            V5,
            0x30,
            b"\x00\x00\x03\x23\x00\x07\x00\xFF",
            Publish { topic: "", properties: alias, ..plain.clone() },
        ),
        row(
            "every property of PUBLISH",
            V5,
            0x30,
            b"\x00\x03a/b\x23\
              \x23\x00\x07\x01\x00\x02\x00\x00\x00\x08\x03\x00\x01t\x08\x00\x01r\x09\x00\x00\
              \x26\x00\x01n\x00\x01v\x0B\x01\x0B\xFF\xFF\xFF\x7F\x00\xFF",
            Publish { properties: all_publish_properties(), ..plain },
        ),
    ]
}

type AsPacket = fn(Ack<'static>) -> Packet<'static>;

fn acks() -> Vec<Accepted> {
    let plain = Ack::success(id(0x0102));
    let with_reason = |reason| Ack { reason, ..plain.clone() };
    let with_properties = |reason| Ack { properties: all_reason_properties(), ..with_reason(reason) };
    let kinds: [(u8, AsPacket); 4] =
        [(0x40, Packet::Puback), (0x50, Packet::Pubrec), (0x62, Packet::Pubrel), (0x70, Packet::Pubcomp)];
    let mut rows = Vec::new();
    for (first_byte, packet) in kinds {
        for version in [V31, V311, V5] {
            rows.push(row("an ack", version, first_byte, b"\x01\x02", packet(plain.clone())));
        }
        rows.extend([
            taken("success said", V5, first_byte, b"\x01\x02\x00", packet(plain.clone())),
            taken("no properties said", V5, first_byte, b"\x01\x02\x00\x00", packet(plain.clone())),
            row(
                "every property",
                V5,
                first_byte,
                b"\x01\x02\x00\x0B\x1F\x00\x01r\x26\x00\x01n\x00\x01v",
                packet(with_properties(ReasonCode::Success)),
            ),
        ]);
    }
    let (quota, unknown) = (ReasonCode::QuotaExceeded, ReasonCode::PacketIdentifierNotFound);
    rows.extend([
        row("PUBACK fails", V5, 0x40, b"\x01\x02\x97", Packet::Puback(with_reason(quota))),
        row("PUBREC fails", V5, 0x50, b"\x01\x02\x97", Packet::Pubrec(with_reason(quota))),
        row("PUBREL fails", V5, 0x62, b"\x01\x02\x92", Packet::Pubrel(with_reason(unknown))),
        row("PUBCOMP fails", V5, 0x70, b"\x01\x02\x92", Packet::Pubcomp(with_reason(unknown))),
        taken("PUBREL sent again, 3.1", V31, 0x6A, b"\x01\x02", Packet::Pubrel(plain.clone())),
        row(
            "PUBACK says why",
            V5,
            0x40,
            b"\x01\x02\x97\x0B\x1F\x00\x01r\x26\x00\x01n\x00\x01v",
            Packet::Puback(with_properties(quota)),
        ),
    ]);
    rows
}

fn subscriptions() -> Vec<Accepted> {
    let filter = |filter, qos| SubscribeFilter {
        filter,
        options: SubscribeOptions { qos, ..SubscribeOptions::default() },
    };
    let two = vec![filter("a/#", QoS::AtLeastOnce), filter("", QoS::ExactlyOnce)];
    let subscribe = Subscribe { packet_id: id(10), subscription_id: None, user: Vec::new(), filters: two };
    let options = SubscribeOptions {
        qos: QoS::AtMostOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let all_options = vec![SubscribeFilter { filter: "a", options }, filter("b", QoS::AtMostOnce)];
    let unsubscribe = Unsubscribe { packet_id: id(10), user: Vec::new(), filters: vec!["a/#", ""] };
    let reasons = vec![ReasonCode::GrantedQos2, ReasonCode::UnspecifiedError];
    let suback = Suback { packet_id: id(10), reasons, properties: ReasonProperties::default() };
    let v3_unsuback = Suback { reasons: Vec::new(), ..suback.clone() };
    let v5_unsuback =
        Suback { reasons: vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted], ..suback.clone() };
    let explained = Suback { properties: all_reason_properties(), ..suback.clone() };
    let v3_bytes = b"\x00\x0A\x00\x03a/#\x01\x00\x00\x02";
    vec![
        row("SUBSCRIBE 3.1", V31, 0x82, v3_bytes, subscribe.clone()),
        taken("SUBSCRIBE sent again, 3.1", V31, 0x8A, v3_bytes, subscribe.clone()),
        row("SUBSCRIBE 3.1.1", V311, 0x82, v3_bytes, subscribe.clone()),
        row("SUBSCRIBE 5.0", V5, 0x82, b"\x00\x0A\x00\x00\x03a/#\x01\x00\x00\x02", subscribe.clone()),
        row(
            "every property and option",
            V5,
            0x82,
            b"\x00\x0A\x0A\x0B\x80\x01\x26\x00\x01n\x00\x01v\x00\x01a\x2C\x00\x01b\x00",
            Subscribe {
                subscription_id: Some(128),
                user: vec![("n", "v")],
                filters: all_options,
                ..subscribe
            },
        ),
        row("SUBACK 3.1", V31, 0x90, b"\x00\x0A\x02\x80", Packet::Suback(suback.clone())),
        row("SUBACK 3.1.1", V311, 0x90, b"\x00\x0A\x02\x80", Packet::Suback(suback.clone())),
        row("SUBACK 5.0", V5, 0x90, b"\x00\x0A\x00\x02\x80", Packet::Suback(suback)),
        row(
            "every property of SUBACK",
            V5,
            0x90,
            b"\x00\x0A\x0B\x1F\x00\x01r\x26\x00\x01n\x00\x01v\x02\x80",
            Packet::Suback(explained),
        ),
        row("UNSUBSCRIBE 3.1", V31, 0xA2, b"\x00\x0A\x00\x03a/#\x00\x00", unsubscribe.clone()),
        taken("UNSUBSCRIBE sent again, 3.1", V31, 0xAA, b"\x00\x0A\x00\x03a/#\x00\x00", unsubscribe.clone()),
        row("UNSUBSCRIBE 3.1.1", V311, 0xA2, b"\x00\x0A\x00\x03a/#\x00\x00", unsubscribe.clone()),
        row(
            "UNSUBSCRIBE 5.0",
            V5,
            0xA2,
            b"\x00\x0A\x07\x26\x00\x01n\x00\x01v\x00\x03a/#\x00\x00",
            Unsubscribe { user: vec![("n", "v")], ..unsubscribe },
        ),
        row("UNSUBACK 3.1", V31, 0xB0, b"\x00\x0A", Packet::Unsuback(v3_unsuback.clone())),
        row("UNSUBACK 3.1.1", V311, 0xB0, b"\x00\x0A", Packet::Unsuback(v3_unsuback)),
        row("UNSUBACK 5.0", V5, 0xB0, b"\x00\x0A\x00\x00\x11", Packet::Unsuback(v5_unsuback.clone())),
        row(
            "every property of UNSUBACK",
            V5,
            0xB0,
            b"\x00\x0A\x0B\x1F\x00\x01r\x26\x00\x01n\x00\x01v\x00\x11",
            Packet::Unsuback(Suback { properties: all_reason_properties(), ..v5_unsuback }),
        ),
    ]
}

fn rest() -> Vec<Accepted> {
    let normal = Disconnect::new(ReasonCode::Success);
    let properties = DisconnectProperties {
        session_expiry: Some(0),
        reason_string: Some("r"),
        user: vec![("n", "v")],
        server_reference: Some("s"),
    };
    let plain = Auth {
        reason: ReasonCode::Success,
        method: None,
        data: None,
        properties: ReasonProperties::default(),
    };
    let auth = Auth { reason: ReasonCode::ContinueAuthentication, method: Some("m"), ..plain.clone() };
    let mut rows = Vec::new();
    for version in [V31, V311, V5] {
        rows.push(row("PINGREQ", version, 0xC0, b"", Packet::Pingreq));
        rows.push(row("PINGRESP", version, 0xD0, b"", Packet::Pingresp));
        rows.push(row("DISCONNECT", version, 0xE0, b"", normal.clone()));
    }
    rows.extend([
        taken("success said", V5, 0xE0, b"\x00", normal.clone()),
        taken("no properties said", V5, 0xE0, b"\x00\x00", normal),
        taken("a reason alone", V5, 0xE0, b"\x04", Disconnect::new(ReasonCode::DisconnectWithWill)),
        row("a reason", V5, 0xE0, b"\x04\x00", Disconnect::new(ReasonCode::DisconnectWithWill)),
        row(
            "every property of DISCONNECT",
            V5,
            0xE0,
            b"\x8E\x14\x11\x00\x00\x00\x00\x1C\x00\x01s\x1F\x00\x01r\x26\x00\x01n\x00\x01v",
            Disconnect { reason: ReasonCode::SessionTakenOver, properties },
        ),
        row("AUTH, empty", V5, 0xF0, b"", plain),
        row("AUTH", V5, 0xF0, b"\x18\x04\x15\x00\x01m", auth.clone()),
        row(
            "every property of AUTH",
            V5,
            0xF0,
            b"\x19\x13\x15\x00\x01m\x16\x00\x01\x00\x1F\x00\x01r\x26\x00\x01n\x00\x01v",
            Auth {
                reason: ReasonCode::ReAuthenticate,
                data: Some(b"\x00"),
                properties: all_reason_properties(),
                ..auth
            },
        ),
    ]);
    rows
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}

fn connect(version: Version) -> Connect<'static> {
    Connect { clean_start: true, keep_alive: 60, ..Connect::new(version, "c") }
}

fn with_will_and_login() -> Connect<'static> {
    let will = Will {
        topic: "w",
        payload: b"\xFF\x00",
        qos: QoS::ExactlyOnce,
        retain: true,
        delay: None,
        properties: PublishProperties::default(),
    };
    Connect { will: Some(will), user_name: Some("u"), password: Some(b"\xC3\x00"), ..connect(V311) }
}

fn all_connect_properties() -> ConnectProperties<'static> {
    ConnectProperties {
        session_expiry: Some(256),
        receive_maximum: NonZeroU16::new(5),
        packet_bytes_max: Some(7),
        topic_alias_maximum: Some(6),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        user: vec![("n", "")],
        authentication_method: Some("m"),
        authentication_data: Some(b"\x00"),
    }
}

fn will_with_all_properties() -> Will<'static> {
    let properties = PublishProperties {
        payload_is_utf8: Some(true),
        correlation_data: Some(b"\x00"),
        topic_alias: None,
        subscription_ids: Vec::new(),
        ..all_publish_properties()
    };
    Will { topic: "w", payload: b"", qos: QoS::AtLeastOnce, retain: false, delay: Some(9), properties }
}

fn all_publish_properties() -> PublishProperties<'static> {
    PublishProperties {
        payload_is_utf8: Some(false),
        message_expiry: Some(8),
        topic_alias: NonZeroU16::new(7),
        response_topic: Some("r"),
        correlation_data: Some(b""),
        content_type: Some("t"),
        subscription_ids: vec![1, 268_435_455],
        user: vec![("n", "v")],
    }
}

fn all_connack_properties() -> ConnackProperties<'static> {
    ConnackProperties {
        session_expiry: Some(1),
        receive_maximum: NonZeroU16::new(3),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        packet_bytes_max: Some(5),
        assigned_client_id: Some("a"),
        topic_alias_maximum: Some(4),
        reason_string: Some("r"),
        user: vec![("n", "v"), ("n", "v")],
        wildcard_available: Some(false),
        subscription_ids_available: Some(true),
        shared_available: Some(false),
        server_keep_alive: Some(2),
        response_information: Some("i"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"\x00"),
    }
}

fn all_reason_properties() -> ReasonProperties<'static> {
    ReasonProperties { reason_string: Some("r"), user: vec![("n", "v")] }
}

#[test]
fn bytes_decode_to_the_packet() {
    for row in table() {
        let bytes = frame(row.first_byte, row.body);
        assert_eq!(decode_all(&bytes, row.version), Ok(Some((row.packet, bytes.len()))), "{}", row.what);
    }
}

#[test]
fn the_packet_encodes_to_the_bytes() {
    for row in table() {
        let bytes = frame(row.first_byte, row.body);
        assert_eq!(encode(&row.packet, row.version) == bytes, row.ours, "{} {:02X?}", row.what, bytes);
    }
}

#[test]
fn every_start_of_a_packet_is_incomplete() {
    for row in table() {
        let bytes = frame(row.first_byte, row.body);
        for end in 0..bytes.len() {
            assert_eq!(decode_all(&bytes[..end], row.version), Ok(None), "{end} bytes of {}", row.what);
        }
    }
}

#[test]
fn what_comes_after_a_packet_is_left_alone() {
    for row in table() {
        let mut bytes = frame(row.first_byte, row.body);
        let len = bytes.len();
        bytes.extend_from_slice(b"\x00\x00\x00");
        assert_eq!(decode_all(&bytes, row.version), Ok(Some((row.packet, len))), "{}", row.what);
    }
}

#[test]
fn every_packet_type_of_every_version_is_here() {
    let rows = table();
    for version in [V31, V311, V5] {
        let types: std::collections::HashSet<PacketType> =
            rows.iter().filter(|row| row.version == version).map(|row| row.packet.packet_type()).collect();
        assert_eq!(types.len(), if version == V5 { 15 } else { 14 }, "{version}: {types:?}");
    }
}

/// What a version does not have is left out, and what it cannot say is said by the nearest it can.
#[test]
fn v3_leaves_out_what_only_v5_has() {
    let connack = Packet::from(Connack {
        session_present: true,
        reason: ReasonCode::Success,
        properties: all_connack_properties(),
    });
    assert_eq!(encode(&connack, V311), b"\x20\x02\x01\x00");
    assert_eq!(encode(&connack, V31), b"\x20\x02\x00\x00", "3.1 has no session present");
    let failed =
        Ack { packet_id: id(1), reason: ReasonCode::QuotaExceeded, properties: all_reason_properties() };
    assert_eq!(encode(&Packet::Pubrec(failed), V311), b"\x50\x02\x00\x01");
    let suback = Suback {
        packet_id: id(1),
        reasons: vec![ReasonCode::GrantedQos1, ReasonCode::TopicFilterInvalid],
        properties: all_reason_properties(),
    };
    assert_eq!(encode(&Packet::Suback(suback.clone()), V31), b"\x90\x04\x00\x01\x01\x80");
    assert_eq!(encode(&Packet::Unsuback(suback), V311), b"\xB0\x02\x00\x01");
    let disconnect = Packet::from(Disconnect::new(ReasonCode::ServerShuttingDown));
    assert_eq!(encode(&disconnect, V31), b"\xE0\x00");
    let auth = Auth {
        reason: ReasonCode::Success,
        method: Some("m"),
        data: None,
        properties: ReasonProperties::default(),
    };
    assert_eq!(encode(&Packet::from(auth), V311), b"");
    let will = Will { delay: Some(1), ..will_with_all_properties() };
    let connect = Connect { will: Some(will), properties: all_connect_properties(), ..connect(V311) };
    assert_eq!(
        encode(&Packet::from(connect), V5),
        frame(0x10, b"\x00\x04MQTT\x04\x0E\x00\x3C\x00\x01c\x00\x01w\x00\x00"),
        "CONNECT goes by its own version"
    );
}

/// A will is a message: what belongs to a connection or a delivery is not part of it.
#[test]
fn a_will_has_no_alias_and_no_subscription_ids() {
    let will = Will { properties: all_publish_properties(), ..will_with_all_properties() };
    let bytes = encode(&Packet::from(Connect { will: Some(will), ..connect(V5) }), V5);
    let Ok(Some((Packet::Connect(connect), _))) = decode_all(&bytes, V5) else { panic!("{bytes:02X?}") };
    let properties = connect.will.expect("a will").properties;
    assert_eq!((properties.topic_alias, properties.subscription_ids), (None, Vec::new()));
    assert_eq!(properties.response_topic, Some("r"));
}
