//! What is refused, and why: at least one row for every [`DecodeError`].

use DecodeError as E;
use Version::{V5, V31, V311};

use super::{
    DecodeError, accepted,
    codec::{PacketType, ReasonCode, Version, connect_version, decode},
    decode_all, frame,
};

struct Refused {
    what: &'static str,
    version: Version,
    first_byte: u8,
    body: &'static [u8],
    error: DecodeError,
}

const fn row(
    what: &'static str,
    version: Version,
    first_byte: u8,
    body: &'static [u8],
    error: DecodeError,
) -> Refused {
    Refused { what, version, first_byte, body, error }
}

const PACKETS: &[Refused] = &[
    // CONNECT
    row("level 6", V311, 0x10, b"\x00\x04MQTT\x06\x02\x00\x00\x00\x01c", E::UnsupportedProtocolVersion),
    row(
        "level 3 of MQTT",
        V311,
        0x10,
        b"\x00\x04MQTT\x03\x02\x00\x00\x00\x01c",
        E::UnsupportedProtocolVersion,
    ),
    row("bridge level", V311, 0x10, b"\x00\x04MQTT\x84\x02\x00\x00\x00\x01c", E::UnsupportedProtocolVersion),
    row(
        "level 4 of MQIsdp",
        V311,
        0x10,
        b"\x00\x06MQIsdp\x04\x02\x00\x00\x00\x01c",
        E::UnsupportedProtocolVersion,
    ),
    row("other name", V311, 0x10, b"\x00\x04AMQP\x04\x02\x00\x00\x00\x01c", E::UnknownProtocolName),
    row("name in lower case", V311, 0x10, b"\x00\x04mqtt\x04\x02\x00\x00\x00\x01c", E::UnknownProtocolName),
    row("name that overruns", V311, 0x10, b"\x00\x24MQTT\x04\x02\x00\x00\x00\x01c", E::FieldOverrun),
    row("nothing", V311, 0x10, b"", E::FieldOverrun),
    row("no client id", V311, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00", E::FieldOverrun),
    row("bytes left", V311, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01c!", E::TrailingBytes),
    row("reserved flag", V311, 0x10, b"\x00\x04MQTT\x04\x03\x00\x00\x00\x01c", E::ConnectFlagReserved),
    row("will QoS 3", V311, 0x10, b"\x00\x04MQTT\x04\x1E\x00\x00\x00\x01c\x00\x01w\x00\x00", E::WillQos3),
    row("will QoS, no will", V311, 0x10, b"\x00\x04MQTT\x04\x0A\x00\x00\x00\x01c", E::WillFlagsWithoutWill),
    row(
        "will retain, no will",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x22\x00\x00\x00\x00\x01c",
        E::WillFlagsWithoutWill,
    ),
    row(
        "password alone, 3.1",
        V31,
        0x10,
        b"\x00\x06MQIsdp\x03\x42\x00\x00\x00\x01c\x00\x01p",
        E::PasswordWithoutUserName,
    ),
    row(
        "password alone",
        V311,
        0x10,
        b"\x00\x04MQTT\x04\x42\x00\x00\x00\x01c\x00\x01p",
        E::PasswordWithoutUserName,
    ),
    row("no user name", V311, 0x10, b"\x00\x04MQTT\x04\x82\x00\x00\x00\x01c", E::FieldOverrun),
    row(
        "half a password in 3.1",
        V31,
        0x10,
        b"\x00\x06MQIsdp\x03\xC2\x00\x00\x00\x01c\x00\x01u\x00",
        E::FieldOverrun,
    ),
    row(
        "empty will topic",
        V311,
        0x10,
        b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x00\x00\x00",
        E::WillTopicInvalid,
    ),
    row(
        "will topic #",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x00\x00\x01#\x00\x00",
        E::WillTopicInvalid,
    ),
    row(
        "receive maximum 0",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01c",
        E::ReceiveMaximumZero,
    ),
    row(
        "maximum packet size 0",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01c",
        E::MaximumPacketSizeZero,
    ),
    row(
        "request problem information 2",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x02\x00\x01c",
        E::PropertyNotBoolean,
    ),
    row(
        "data, no method",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01d\x00\x01c",
        E::AuthenticationDataWithoutMethod,
    ),
    row("v5 CONNECT without property length", V5, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00", E::FieldOverrun),
    row(
        "will property in CONNECT",
        V5,
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x05\x18\x00\x00\x00\x01\x00\x01c",
        E::PropertyMisplaced,
    ),
    // Strings
    row("client id with U+0000", V311, 0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00", E::StringHasNull),
    row(
        "client id with a surrogate",
        V311,
        0x10,
        b"\x00\x04MQTT\x04\x02\x00\x00\x00\x03\xED\xA0\x80",
        E::StringNotUtf8,
    ),
    row(
        "user name cut in a character",
        V311,
        0x10,
        b"\x00\x04MQTT\x04\x82\x00\x00\x00\x01c\x00\x01\xC3",
        E::StringNotUtf8,
    ),
    row("overlong topic", V311, 0x30, b"\x00\x02\xC0\x80", E::StringNotUtf8),
    row("topic with U+0000", V5, 0x30, b"\x00\x03a\x00b\x00", E::StringHasNull),
    row("filter with U+0000", V311, 0x82, b"\x00\x01\x00\x02a\x00\x00", E::StringHasNull),
    row("filter of no UTF-8", V311, 0xA2, b"\x00\x01\x00\x01\xFF", E::StringNotUtf8),
    row("user property name with U+0000", V5, 0xE0, b"\x00\x06\x26\x00\x01\x00\x00\x00", E::StringHasNull),
    row("user property value of no UTF-8", V5, 0xE0, b"\x00\x06\x26\x00\x00\x00\x01\xF8", E::StringNotUtf8),
    // CONNACK
    row("flag 2", V311, 0x20, b"\x02\x00", E::ConnackFlagsReserved),
    row("flag 0x80", V5, 0x20, b"\x80\x00\x00", E::ConnackFlagsReserved),
    row("return code 6", V311, 0x20, b"\x00\x06", E::ReturnCodeUnknown),
    row("session in a refusal", V311, 0x20, b"\x01\x05", E::SessionPresentOnRefusal),
    row("session in a v5 refusal", V5, 0x20, b"\x01\x87\x00", E::SessionPresentOnRefusal),
    row("maximum QoS 2", V5, 0x20, b"\x00\x00\x02\x24\x02", E::MaximumQosInvalid),
    row("retain available 2", V5, 0x20, b"\x00\x00\x02\x25\x02", E::PropertyNotBoolean),
    row("receive maximum 0", V5, 0x20, b"\x00\x00\x03\x21\x00\x00", E::ReceiveMaximumZero),
    row("data, no method", V5, 0x20, b"\x00\x00\x03\x16\x00\x00", E::AuthenticationDataWithoutMethod),
    row("no property length", V5, 0x20, b"\x00\x00", E::FieldOverrun),
    row("properties in v3", V311, 0x20, b"\x00\x00\x00", E::TrailingBytes),
    // PUBLISH
    row("QoS 3", V311, 0x36, b"\x00\x01t\x00\x01", E::PublishQos3),
    row("QoS 3, v5", V5, 0x36, b"\x00\x01t\x00\x01\x00", E::PublishQos3),
    row("DUP, QoS 0", V311, 0x38, b"\x00\x01t", E::DupWithQos0),
    row("packet id 0", V311, 0x32, b"\x00\x01t\x00\x00", E::PacketIdZero),
    row("half a packet id", V311, 0x34, b"\x00\x01t\x00", E::FieldOverrun),
    row("empty topic", V311, 0x30, b"\x00\x00", E::TopicEmpty),
    row("empty topic, no alias", V5, 0x30, b"\x00\x00\x00", E::TopicEmpty),
    row("topic a/+", V311, 0x30, b"\x00\x03a/+", E::TopicWildcard),
    row("topic a#", V5, 0x30, b"\x00\x02a#\x00", E::TopicWildcard),
    row("alias 0", V5, 0x30, b"\x00\x01t\x03\x23\x00\x00", E::TopicAliasZero),
    row("subscription id 0", V5, 0x30, b"\x00\x01t\x02\x0B\x00", E::SubscriptionIdZero),
    row("subscription id not minimal", V5, 0x30, b"\x00\x01t\x03\x0B\x81\x00", E::VarintNotMinimal),
    row("payload format 2", V5, 0x30, b"\x00\x01t\x02\x01\x02", E::PropertyNotBoolean),
    row("response topic +", V5, 0x30, b"\x00\x01t\x04\x08\x00\x01+", E::ResponseTopicInvalid),
    row("empty response topic", V5, 0x30, b"\x00\x01t\x03\x08\x00\x00", E::ResponseTopicInvalid),
    row("two aliases", V5, 0x30, b"\x00\x01t\x06\x23\x00\x01\x23\x00\x01", E::PropertyDuplicate),
    row("property 4", V5, 0x30, b"\x00\x01t\x02\x04\x00", E::PropertyUnknown),
    row("property past its section", V5, 0x30, b"\x00\x01t\x02\x23\x00\x01", E::PropertyValueOverrun),
    row("section past the packet", V5, 0x30, b"\x00\x01t\x04\x23\x00\x01", E::PropertyLengthOverrun),
    row("topic past the packet", V311, 0x30, b"\x00\x09topic", E::FieldOverrun),
    // Acknowledgements
    row("PUBACK 0", V311, 0x40, b"\x00\x00", E::PacketIdZero),
    row("PUBREC 0", V5, 0x50, b"\x00\x00", E::PacketIdZero),
    row("PUBREL 0", V31, 0x62, b"\x00\x00", E::PacketIdZero),
    row("PUBCOMP 0", V5, 0x70, b"\x00\x00", E::PacketIdZero),
    row("PUBACK with a reason in v3", V311, 0x40, b"\x00\x01\x00", E::TrailingBytes),
    row("PUBACK with 0x92", V5, 0x40, b"\x00\x01\x92", E::ReasonCodeMisplaced),
    row("PUBREL with 0x10", V5, 0x62, b"\x00\x01\x10", E::ReasonCodeMisplaced),
    row("PUBREC with 0x7F", V5, 0x50, b"\x00\x01\x7F", E::ReasonCodeUnknown),
    row("PUBCOMP, bytes left", V5, 0x70, b"\x00\x01\x00\x00\x00", E::TrailingBytes),
    row("two reason strings", V5, 0x40, b"\x00\x01\x00\x06\x1F\x00\x00\x1F\x00\x00", E::PropertyDuplicate),
    row("PUBACK of 1 byte", V311, 0x40, b"\x00", E::FieldOverrun),
    row("PUBREL without its flag", V311, 0x60, b"\x00\x01", E::HeaderFlagsReserved),
    row("PUBREL with DUP", V311, 0x6A, b"\x00\x01", E::HeaderFlagsReserved),
    // SUBSCRIBE, SUBACK
    row("no filter", V311, 0x82, b"\x00\x01", E::SubscribeEmpty),
    row("no filter, v5", V5, 0x82, b"\x00\x01\x00", E::SubscribeEmpty),
    row("packet id 0", V311, 0x82, b"\x00\x00\x00\x01f\x00", E::PacketIdZero),
    row("no options", V311, 0x82, b"\x00\x01\x00\x01f", E::FieldOverrun),
    row("QoS 3", V311, 0x82, b"\x00\x01\x00\x01f\x03", E::SubscribeQos3),
    row("v5 options in v3", V311, 0x82, b"\x00\x01\x00\x01f\x04", E::SubscribeOptionsReserved),
    row("option 0x40", V5, 0x82, b"\x00\x01\x00\x00\x01f\x40", E::SubscribeOptionsReserved),
    row("retain handling 3", V5, 0x82, b"\x00\x01\x00\x00\x01f\x30", E::RetainHandling3),
    row("no local, shared", V5, 0x82, b"\x00\x01\x00\x00\x0A$share/g/f\x04", E::NoLocalOnShared),
    row("subscription id 0", V5, 0x82, b"\x00\x01\x02\x0B\x00\x00\x01f\x00", E::SubscriptionIdZero),
    row("two subscription ids", V5, 0x82, b"\x00\x01\x04\x0B\x01\x0B\x02\x00\x01f\x00", E::PropertyDuplicate),
    row("no reason", V311, 0x90, b"\x00\x01", E::SubackEmpty),
    row("no reason, v5", V5, 0x90, b"\x00\x01\x00", E::SubackEmpty),
    row("granted 3", V311, 0x90, b"\x00\x01\x03", E::ReturnCodeUnknown),
    row("0x87 in v3", V311, 0x90, b"\x00\x01\x87", E::ReturnCodeUnknown),
    row("SUBACK with 0x10", V5, 0x90, b"\x00\x01\x00\x10", E::ReasonCodeMisplaced),
    // UNSUBSCRIBE, UNSUBACK
    row("no filter", V311, 0xA2, b"\x00\x01", E::UnsubscribeEmpty),
    row("no filter, v5", V5, 0xA2, b"\x00\x01\x00", E::UnsubscribeEmpty),
    row("filter past the packet", V311, 0xA2, b"\x00\x01\x00\x02f", E::FieldOverrun),
    row("UNSUBACK with reasons in v3", V311, 0xB0, b"\x00\x01\x00", E::TrailingBytes),
    row("UNSUBACK without reasons", V5, 0xB0, b"\x00\x01\x00", E::SubackEmpty),
    // The rest
    row("PINGREQ with a body", V311, 0xC0, b"\x00", E::TrailingBytes),
    row("PINGRESP with a body", V5, 0xD0, b"\x00", E::TrailingBytes),
    row("DISCONNECT with a reason in v3", V311, 0xE0, b"\x00", E::TrailingBytes),
    row("DISCONNECT with 0x01", V5, 0xE0, b"\x01", E::ReasonCodeMisplaced),
    row("DISCONNECT, bytes left", V5, 0xE0, b"\x00\x00\x00", E::TrailingBytes),
    row("AUTH in v3", V311, 0xF0, b"", E::AuthBeforeV5),
    row("AUTH in 3.1", V31, 0xF0, b"\x18\x00", E::AuthBeforeV5),
    row("AUTH without properties", V5, 0xF0, b"\x18\x00", E::AuthenticationMethodMissing),
    row("AUTH without method", V5, 0xF0, b"\x18\x03\x16\x00\x00", E::AuthenticationMethodMissing),
    row("AUTH cut after the reason", V5, 0xF0, b"\x18", E::FieldOverrun),
    row("AUTH with 0x80", V5, 0xF0, b"\x80\x00", E::ReasonCodeMisplaced),
    row("packet type 0", V5, 0x00, b"", E::PacketTypeReserved),
    row("flags of CONNECT", V311, 0x11, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", E::HeaderFlagsReserved),
];

/// What the fixed header alone decides.
const HEADERS: &[(&[u8], DecodeError)] = &[
    (b"\x30\x80\x80\x80\x80\x01", E::VarintTooLong),
    (b"\x30\xFF\xFF\xFF\xFF", E::VarintTooLong),
    (b"\x30\x80\x00", E::VarintNotMinimal),
    (b"\xC0\x80\x80\x80\x00", E::VarintNotMinimal),
    (b"\x30\x7F", E::PacketTooLarge),
    (b"\x30\xFF\xFF\xFF\x7F", E::PacketTooLarge),
];

const SMALL: u32 = 100;

#[test]
fn refused_for_the_reason_given() {
    for row in PACKETS {
        let packet = frame(row.first_byte, row.body);
        let decoded = decode_all(&packet, row.version);
        assert_eq!(decoded, Err(row.error), "0x{:02X} {}", row.first_byte, row.what);
    }
    for &(bytes, error) in HEADERS {
        assert_eq!(decode(bytes, V5, SMALL), Err(error), "{bytes:02X?}");
    }
}

#[test]
fn every_error_has_a_row() {
    for &error in DecodeError::ALL {
        let in_packets = PACKETS.iter().any(|row| row.error == error);
        let in_headers = HEADERS.iter().any(|&(_, by_header)| by_header == error);
        assert!(in_packets || in_headers, "no row for {error:?}");
        assert!(error.reason().is_error(), "{error:?}");
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(DecodeError::VarintTooLong.reason(), ReasonCode::MalformedPacket);
    assert_eq!(DecodeError::PropertyDuplicate.reason(), ReasonCode::ProtocolError);
    assert_eq!(DecodeError::UnsupportedProtocolVersion.reason(), ReasonCode::UnsupportedProtocolVersion);
    assert_eq!(DecodeError::TopicWildcard.reason(), ReasonCode::TopicNameInvalid);
    assert_eq!(DecodeError::TopicAliasZero.reason(), ReasonCode::TopicAliasInvalid);
    assert_eq!(DecodeError::PacketTooLarge.reason(), ReasonCode::PacketTooLarge);
}

/// A CONNECT that does not decode still tells how it wants to be answered.
#[test]
fn the_version_of_a_connect_is_known_from_its_start() {
    let bad = frame(0x10, b"\x00\x04MQTT\x05\x03");
    assert_eq!(connect_version(&bad), Some(V5));
    assert_eq!(connect_version(&frame(0x10, b"\x00\x06MQIsdp\x03")), Some(V31));
    assert_eq!(connect_version(b"\x10\xFF\xFF\xFF\x7F\x00\x04MQTT\x04"), Some(V311), "too large");
    assert_eq!(connect_version(&bad[..6]), None, "cut");
    assert_eq!(connect_version(&frame(0x10, b"\x00\x04MQTT\x06")), None, "unknown level");
    assert_eq!(connect_version(&frame(0x30, b"\x00\x04MQTT\x05")), None, "PUBLISH");
    assert_eq!(connect_version(b""), None);
}

/// One byte more than a packet has: either it is a payload's, or it is too much.
#[test]
fn nothing_may_follow_the_last_field() {
    for row in accepted::table() {
        let mut body = row.body.to_vec();
        body.push(0xFF);
        let packet = frame(row.first_byte, &body);
        let decoded = decode_all(&packet, row.version);
        let tail_is_a_field = matches!(row.packet.packet_type(), PacketType::Publish);
        assert_eq!(decoded.is_ok(), tail_is_a_field, "{}: {decoded:?}", row.what);
    }
}

/// [MQTT-3.2.2-8], [MQTT-3.14.2-1]: whatever is wrong with a packet, there is a packet that says so.
#[test]
fn every_error_has_a_reason_that_its_answer_may_carry() {
    use crate::codec::{Connack, ConnackProperties, Disconnect, Packet};
    for error in DecodeError::ALL {
        let (reason, properties) = (error.connack_reason(), ConnackProperties::default());
        let connack = Packet::from(Connack { session_present: false, reason, properties });
        let disconnect = Packet::from(Disconnect::new(error.disconnect_reason()));
        for packet in [connack, disconnect] {
            let bytes = super::encode(&packet, Version::V5);
            assert_eq!(decode_all(&bytes, Version::V5), Ok(Some((packet, bytes.len()))), "{error:?}");
        }
        assert_eq!(error.message(), error.to_string());
    }
}
