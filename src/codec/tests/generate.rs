//! Random packets, each in the only form its version can carry, so that they survive a round trip.
//!
//! The integration tests include this file too, which is why it names the codec as its parent does. Strings are leaked:
//! a test run makes some megabytes of them, and packets borrow.

use std::num::NonZeroU16;

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
    strategy::BoxedStrategy,
};

use super::codec::{
    Ack, Auth, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties,
    Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, ReasonProperties, RetainHandling, Suback,
    Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, UserProperties, Version, Will,
};

pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

/// A version and a packet of any type that it has.
pub(crate) fn packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet_of(version)))
}

pub(crate) fn packet_of(version: Version) -> BoxedStrategy<Packet<'static>> {
    let v3 = prop_oneof![
        connect(version).prop_map(Packet::from),
        connack(version).prop_map(Packet::from),
        publish(version).prop_map(Packet::from),
        ack(version, PUBLISH_REASONS).prop_map(Packet::Puback),
        ack(version, PUBLISH_REASONS).prop_map(Packet::Pubrec),
        ack(version, RELEASE_REASONS).prop_map(Packet::Pubrel),
        ack(version, RELEASE_REASONS).prop_map(Packet::Pubcomp),
        subscribe(version).prop_map(Packet::from),
        suback(version).prop_map(Packet::Suback),
        unsubscribe(version).prop_map(Packet::from),
        unsuback(version).prop_map(Packet::Unsuback),
        Just(Packet::Pingreq),
        Just(Packet::Pingresp),
        disconnect(version).prop_map(Packet::from),
    ];
    if version.is_v5() {
        prop_oneof![14 => v3, 1 => auth().prop_map(Packet::from)].boxed()
    } else {
        v3.boxed()
    }
}

pub(crate) fn connect(version: Version) -> BoxedStrategy<Connect<'static>> {
    let fields = (
        text(),
        any::<(bool, u16)>(),
        option::of(will(version)),
        option::of(text()),
        option::of(bytes()),
        only_v5(version, connect_properties()),
    );
    fields
        .prop_map(move |(client_id, (clean_start, keep_alive), will, user_name, password, properties)| {
            Connect {
                version,
                client_id,
                clean_start,
                keep_alive,
                will,
                user_name,
                password: password.filter(|_| user_name.is_some() || version.is_v5()),
                properties,
            }
        })
        .boxed()
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let fields = (
        any::<(Option<u32>, Option<NonZeroU16>)>(),
        option::of(1..=u32::MAX),
        any::<(Option<u16>, Option<bool>, Option<bool>)>(),
        users(),
        option::of((text(), option::of(bytes()))),
    );
    fields.prop_map(|((session_expiry, receive_maximum), packet_bytes_max, flags, user, authentication)| {
        ConnectProperties {
            session_expiry,
            receive_maximum,
            packet_bytes_max,
            topic_alias_maximum: flags.0,
            request_response_information: flags.1,
            request_problem_information: flags.2,
            user,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
        }
    })
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let message = only_v5(version, publish_properties());
    (topic(), bytes(), qos(), any::<bool>(), any::<Option<u32>>(), message).prop_map(
        move |(topic, payload, qos, retain, delay, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            delay: delay.filter(|_| version.is_v5()),
            properties: PublishProperties { topic_alias: None, subscription_ids: Vec::new(), ..properties },
        },
    )
}

pub(crate) fn connack(version: Version) -> BoxedStrategy<Connack<'static>> {
    if version.is_v5() {
        let reason = pick(CONNACK_REASONS);
        return (any::<bool>(), reason, connack_properties())
            .prop_map(|(present, reason, properties)| Connack {
                session_present: present && !reason.is_error(),
                reason,
                properties,
            })
            .boxed();
    }
    (any::<bool>(), pick(V3_CONNACK_REASONS))
        .prop_map(move |(present, reason)| Connack {
            session_present: present && !reason.is_error() && version == Version::V311,
            reason,
            properties: ConnackProperties::default(),
        })
        .boxed()
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties<'static>> {
    let numbers = (
        any::<(Option<u32>, Option<NonZeroU16>, Option<u16>, Option<u16>)>(),
        option::of(1..=u32::MAX),
        option::of(prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]),
    );
    let flags = any::<(Option<bool>, Option<bool>, Option<bool>, Option<bool>)>();
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let authentication = option::of((text(), option::of(bytes())));
    (numbers, flags, texts, users(), authentication).prop_map(
        |(numbers, flags, texts, user, authentication)| {
            let (
                (session_expiry, receive_maximum, topic_alias_maximum, server_keep_alive),
                packet_bytes_max,
                maximum_qos,
            ) = numbers;
            ConnackProperties {
                session_expiry,
                receive_maximum,
                maximum_qos,
                retain_available: flags.0,
                packet_bytes_max,
                assigned_client_id: texts.0,
                topic_alias_maximum,
                reason_string: texts.1,
                user,
                wildcard_available: flags.1,
                subscription_ids_available: flags.2,
                shared_available: flags.3,
                server_keep_alive,
                response_information: texts.2,
                server_reference: texts.3,
                authentication_method: authentication.map(|(method, _)| method),
                authentication_data: authentication.and_then(|(_, data)| data),
            }
        },
    )
}

pub(crate) fn publish(version: Version) -> BoxedStrategy<Publish<'static>> {
    let fields = (
        any::<(bool, bool, bool)>(),
        qos(),
        topic(),
        packet_id(),
        only_v5(version, publish_properties()),
        bytes(),
    );
    fields
        .prop_map(|((dup, retain, by_alias), qos, topic, id, properties, payload)| Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: if by_alias && properties.topic_alias.is_some() { "" } else { topic },
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            properties,
            payload,
        })
        .boxed()
}

fn publish_properties() -> impl Strategy<Value = PublishProperties<'static>> {
    let fields = (
        any::<(Option<bool>, Option<u32>, Option<NonZeroU16>)>(),
        option::of(topic()),
        option::of(bytes()),
        option::of(text()),
        vec(prop_oneof![1..200_u32, 1..=268_435_455_u32], 0..4),
        users(),
    );
    fields.prop_map(|(numbers, response_topic, correlation_data, content_type, subscription_ids, user)| {
        PublishProperties {
            payload_is_utf8: numbers.0,
            message_expiry: numbers.1,
            topic_alias: numbers.2,
            response_topic,
            correlation_data,
            content_type,
            subscription_ids,
            user,
        }
    })
}

pub(crate) fn ack(version: Version, reasons: &'static [u8]) -> BoxedStrategy<Ack<'static>> {
    if version.is_v5() {
        return (packet_id(), pick(reasons), reason_properties())
            .prop_map(|(packet_id, reason, properties)| Ack { packet_id, reason, properties })
            .boxed();
    }
    packet_id().prop_map(Ack::success).boxed()
}

pub(crate) fn subscribe(version: Version) -> BoxedStrategy<Subscribe<'static>> {
    let options = (qos(), any::<(bool, bool)>(), 0..3_u8).prop_map(move |(qos, flags, handling)| {
        if !version.is_v5() {
            return SubscribeOptions { qos, ..SubscribeOptions::default() };
        }
        let retain_handling = match handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        };
        SubscribeOptions { qos, no_local: flags.0, retain_as_published: flags.1, retain_handling }
    });
    let filter = (filter(), options).prop_map(|(filter, mut options)| {
        options.no_local &= !filter.starts_with("$share/");
        SubscribeFilter { filter, options }
    });
    let id = option::of(1..=268_435_455_u32);
    (packet_id(), only_v5(version, id), only_v5(version, users()), vec(filter, 1..4))
        .prop_map(|(packet_id, subscription_id, user, filters)| Subscribe {
            packet_id,
            subscription_id,
            user,
            filters,
        })
        .boxed()
}

pub(crate) fn suback(version: Version) -> BoxedStrategy<Suback<'static>> {
    let reasons = if version.is_v5() { SUBACK_REASONS } else { V3_SUBACK_REASONS };
    (packet_id(), vec(pick(reasons), 1..4), only_v5(version, reason_properties()))
        .prop_map(|(packet_id, reasons, properties)| Suback { packet_id, reasons, properties })
        .boxed()
}

pub(crate) fn unsubscribe(version: Version) -> BoxedStrategy<Unsubscribe<'static>> {
    (packet_id(), only_v5(version, users()), vec(filter(), 1..4))
        .prop_map(|(packet_id, user, filters)| Unsubscribe { packet_id, user, filters })
        .boxed()
}

pub(crate) fn unsuback(version: Version) -> BoxedStrategy<Suback<'static>> {
    let reasons = only_v5(version, vec(pick(UNSUBACK_REASONS), 1..4));
    (packet_id(), reasons, only_v5(version, reason_properties()))
        .prop_map(|(packet_id, reasons, properties)| Suback { packet_id, reasons, properties })
        .boxed()
}

pub(crate) fn disconnect(version: Version) -> BoxedStrategy<Disconnect<'static>> {
    if !version.is_v5() {
        return Just(Disconnect::new(ReasonCode::Success)).boxed();
    }
    (pick(DISCONNECT_REASONS), any::<Option<u32>>(), option::of(text()), option::of(text()), users())
        .prop_map(|(reason, session_expiry, reason_string, server_reference, user)| Disconnect {
            reason,
            properties: DisconnectProperties { session_expiry, reason_string, user, server_reference },
        })
        .boxed()
}

pub(crate) fn auth() -> BoxedStrategy<Auth<'static>> {
    let none = Auth {
        reason: ReasonCode::Success,
        method: None,
        data: None,
        properties: ReasonProperties::default(),
    };
    let full = (pick(AUTH_REASONS), text(), option::of(bytes()), reason_properties()).prop_map(
        |(reason, method, data, properties)| Auth { reason, method: Some(method), data, properties },
    );
    prop_oneof![1 => Just(none), 5 => full].boxed()
}

fn reason_properties() -> impl Strategy<Value = ReasonProperties<'static>> {
    let some = (option::of(text()), users())
        .prop_map(|(reason_string, user)| ReasonProperties { reason_string, user });
    prop_oneof![Just(ReasonProperties::default()), some]
}

fn users() -> BoxedStrategy<UserProperties<'static>> {
    prop_oneof![Just(Vec::new()), vec((text(), text()), 0..3)].boxed()
}

pub(crate) fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(PacketId::from)
}

pub(crate) fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

/// Any string without U+0000; sometimes beginning with U+FEFF, sometimes long.
pub(crate) fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => "[a-zA-Z0-9 ]{0,12}",
        3 => "[^\u{0}]{0,12}",
        1 => "\u{feff}[^\u{0}]{0,12}",
        1 => "[^\u{0}]{100,200}",
    ]
    .prop_map(leak)
}

pub(crate) fn topic() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => "[a-z]{1,4}(/[a-z]{0,4}){0,3}", 1 => "[^\u{0}+#]{1,12}"].prop_map(leak)
}

pub(crate) fn filter() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => "[a-z]{1,4}(/[a-z]{1,4}|/\\+){0,3}(/#)?",
        1 => "\\$share/[a-z]{1,4}/[a-z]{1,4}",
        1 => "[^\u{0}]{0,12}",
    ]
    .prop_map(leak)
}

pub(crate) fn bytes() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..20_000)].prop_map(|v| &*v.leak())
}

/// The default in v3.
fn only_v5<S>(version: Version, strategy: S) -> BoxedStrategy<S::Value>
where
    S: Strategy + 'static,
    S::Value: Default + Clone + 'static,
{
    if version.is_v5() { strategy.boxed() } else { Just(S::Value::default()).boxed() }
}

fn pick(reasons: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    proptest::sample::select(reasons).prop_map(|number| ReasonCode::try_from(number).expect("a reason code"))
}

fn leak(text: String) -> &'static str {
    text.leak()
}

// The allowed reason codes a second time, by number as in the standard's tables, so that a slip in one place shows.

pub(crate) const CONNACK_REASONS: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
/// Those that v3's return codes 0 to 5 are decoded to.
const V3_CONNACK_REASONS: &[u8] = &[0x00, 0x84, 0x85, 0x88, 0x86, 0x87];
pub(crate) const PUBLISH_REASONS: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
pub(crate) const RELEASE_REASONS: &[u8] = &[0x00, 0x92];
pub(crate) const SUBACK_REASONS: &[u8] =
    &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const V3_SUBACK_REASONS: &[u8] = &[0x00, 0x01, 0x02, 0x80];
pub(crate) const UNSUBACK_REASONS: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
pub(crate) const DISCONNECT_REASONS: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];
pub(crate) const AUTH_REASONS: &[u8] = &[0x00, 0x18, 0x19];
