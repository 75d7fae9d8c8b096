//! 5.0.

use std::num::NonZeroU16;

use bytes::BytesMut;
use dormouse::codec::{
    Ack, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet,
    Publish, PublishProperties, ReasonCode, ReasonProperties, RetainHandling, Suback, Subscribe,
    SubscribeFilter, SubscribeOptions, Unsubscribe, UserProperties, Version, Will, decode,
};
use proptest::prelude::{prop_assert_eq, proptest};

use super::{Limit, decode_whole, encode, generate, packet_id, qos, reason, text, v5_limit};

/// `rumqttc` took this codec over from `mqttbytes`, so most types have the same shape under two paths.
macro_rules! shared_meaning {
    () => {
        fn connect_properties(p: Option<&oracle::ConnectProperties>) -> ConnectProperties<'_> {
            let Some(p) = p else { return ConnectProperties::default() };
            ConnectProperties {
                session_expiry: p.session_expiry_interval,
                receive_maximum: p.receive_maximum.and_then(NonZeroU16::new),
                packet_bytes_max: p.max_packet_size,
                topic_alias_maximum: p.topic_alias_max,
                request_response_information: p.request_response_info.map(flag),
                request_problem_information: p.request_problem_info.map(flag),
                user: users(&p.user_properties),
                authentication_method: p.authentication_method.as_deref(),
                authentication_data: p.authentication_data.as_deref(),
            }
        }

        fn will(will: &oracle::LastWill) -> Will<'_> {
            let properties = will.properties.as_ref().map(|p| PublishProperties {
                payload_is_utf8: p.payload_format_indicator.map(flag),
                message_expiry: p.message_expiry_interval,
                topic_alias: None,
                response_topic: p.response_topic.as_deref(),
                correlation_data: p.correlation_data.as_deref(),
                content_type: p.content_type.as_deref(),
                subscription_ids: Vec::new(),
                user: users(&p.user_properties),
            });
            Will {
                topic: text(&will.topic),
                payload: &will.message,
                qos: qos(will.qos as u8),
                retain: will.retain,
                delay: will.properties.as_ref().and_then(|p| p.delay_interval),
                properties: properties.unwrap_or_default(),
            }
        }

        fn connack(packet: &oracle::ConnAck) -> Connack<'_> {
            let properties = packet.properties.as_ref().map(|p| ConnackProperties {
                session_expiry: p.session_expiry_interval,
                receive_maximum: p.receive_max.and_then(NonZeroU16::new),
                maximum_qos: p.max_qos.map(qos),
                retain_available: p.retain_available.map(flag),
                packet_bytes_max: p.max_packet_size,
                assigned_client_id: p.assigned_client_identifier.as_deref(),
                topic_alias_maximum: p.topic_alias_max,
                reason_string: p.reason_string.as_deref(),
                user: users(&p.user_properties),
                wildcard_available: p.wildcard_subscription_available.map(flag),
                subscription_ids_available: p.subscription_identifiers_available.map(flag),
                shared_available: p.shared_subscription_available.map(flag),
                server_keep_alive: p.server_keep_alive,
                response_information: p.response_information.as_deref(),
                server_reference: p.server_reference.as_deref(),
                authentication_method: p.authentication_method.as_deref(),
                authentication_data: p.authentication_data.as_deref(),
            });
            Connack {
                session_present: packet.session_present,
                reason: reason(&packet.code),
                properties: properties.unwrap_or_default(),
            }
        }

        fn publish(packet: &oracle::Publish) -> Publish<'_> {
            let properties = packet.properties.as_ref().map(|p| PublishProperties {
                payload_is_utf8: p.payload_format_indicator.map(flag),
                message_expiry: p.message_expiry_interval,
                topic_alias: p.topic_alias.and_then(NonZeroU16::new),
                response_topic: p.response_topic.as_deref(),
                correlation_data: p.correlation_data.as_deref(),
                content_type: p.content_type.as_deref(),
                subscription_ids: p.subscription_identifiers.iter().copied().map(id_32).collect(),
                user: users(&p.user_properties),
            });
            Publish {
                dup: packet.dup,
                qos: qos(packet.qos as u8),
                retain: packet.retain,
                topic: text(&packet.topic),
                packet_id: (packet.pkid != 0).then(|| packet_id(packet.pkid)),
                properties: properties.unwrap_or_default(),
                payload: &packet.payload,
            }
        }

        fn subscribe(packet: &oracle::Subscribe) -> Subscribe<'_> {
            let properties = packet.properties.as_ref();
            Subscribe {
                packet_id: packet_id(packet.pkid),
                subscription_id: properties.and_then(|p| p.id).map(id_32),
                user: properties.map(|p| users(&p.user_properties)).unwrap_or_default(),
                filters: packet.filters.iter().map(subscribe_filter).collect(),
            }
        }

        fn subscribe_filter(filter: &oracle::Filter) -> SubscribeFilter<'_> {
            let options = SubscribeOptions {
                qos: qos(filter.qos as u8),
                no_local: filter.nolocal,
                retain_as_published: filter.preserve_retain,
                retain_handling: match filter.retain_forward_rule {
                    oracle::RetainForwardRule::OnEverySubscribe => RetainHandling::Send,
                    oracle::RetainForwardRule::OnNewSubscribe => RetainHandling::SendIfNew,
                    oracle::RetainForwardRule::Never => RetainHandling::DoNotSend,
                },
            };
            SubscribeFilter { filter: &filter.path, options }
        }

        fn unsubscribe(packet: &oracle::Unsubscribe) -> Unsubscribe<'_> {
            Unsubscribe {
                packet_id: packet_id(packet.pkid),
                user: packet.properties.as_ref().map(|p| users(&p.user_properties)).unwrap_or_default(),
                filters: packet.filters.iter().map(String::as_str).collect(),
            }
        }

        fn disconnect(packet: &oracle::Disconnect) -> Disconnect<'_> {
            let properties = packet.properties.as_ref().map(|p| DisconnectProperties {
                session_expiry: p.session_expiry_interval,
                reason_string: p.reason_string.as_deref(),
                user: users(&p.user_properties),
                server_reference: p.server_reference.as_deref(),
            });
            Disconnect { reason: reason(&packet.reason_code), properties: properties.unwrap_or_default() }
        }

        macro_rules! reason_properties {
            ($p:ident) => {
                $p.properties
                    .as_ref()
                    .map(|p| ReasonProperties {
                        reason_string: p.reason_string.as_deref(),
                        user: users(&p.user_properties),
                    })
                    .unwrap_or_default()
            };
        }

        macro_rules! ack {
            ($p:ident) => {
                Ack {
                    packet_id: packet_id($p.pkid),
                    reason: reason(&$p.reason),
                    properties: reason_properties!($p),
                }
            };
        }

        macro_rules! suback {
            ($p:ident, $reasons:ident) => {
                Suback {
                    packet_id: packet_id($p.pkid),
                    reasons: $p.$reasons.iter().map(reason).collect(),
                    properties: reason_properties!($p),
                }
            };
        }

        #[test]
        fn it_takes_the_third_subscription_id_for_payload() {
            let three = b"\x30\x0A\x00\x01t\x06\x0B\x01\x0B\x02\x0B\x03";
            let decoded = read(three).expect("a packet");
            let Packet::Publish(theirs) = meaning(&decoded) else { panic!("{decoded:?}") };
            assert_eq!(theirs.payload, b"\x0B\x03", "{:?}", Limit::ManySubscriptionIds);
            let Packet::Publish(ours) = decode_whole(three, Version::V5) else { panic!("not a PUBLISH") };
            assert_eq!(ours.properties.subscription_ids, [1, 2, 3]);
        }

        proptest! {
            #[test]
            fn agrees(packet in generate::packet_of(Version::V5)) {
                if v5_limit(&packet).is_none() {
                    let ours = encode(&packet, Version::V5);
                    let decoded = read(&ours).unwrap_or_else(|e| panic!("{e} from {ours:02X?} of {packet:?}"));
                    prop_assert_eq!(&meaning(&decoded), &packet, "they decode what we encode");
                    if write_limit(&packet).is_none() {
                        let theirs = write(&decoded);
                        let ours_again = decode_whole(&theirs, Version::V5);
                        prop_assert_eq!(ours_again, packet, "we decode what they encode");
                    }
                }
            }
        }
    };
}

mod rumqttc_5 {
    use rumqttc::v5::mqttbytes::v5 as oracle;

    use super::*;

    shared_meaning!();

    fn write_limit(packet: &Packet<'_>) -> Option<Limit> {
        match packet {
            Packet::Disconnect(p) if p.properties.is_empty() => Some(Limit::StrayByte),
            _ => None,
        }
    }

    fn read(bytes: &[u8]) -> Result<oracle::Packet, String> {
        oracle::Packet::read(&mut BytesMut::from(bytes), None).map_err(|e| format!("{e:?}"))
    }

    fn write(packet: &oracle::Packet) -> BytesMut {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).expect("encodes");
        out
    }

    fn meaning(packet: &oracle::Packet) -> Packet<'_> {
        match packet {
            oracle::Packet::Connect(p, last_will, login) => Packet::from(Connect {
                version: Version::V5,
                client_id: &p.client_id,
                clean_start: p.clean_start,
                keep_alive: p.keep_alive,
                will: last_will.as_ref().map(will),
                user_name: login.as_ref().and_then(|login| unless_empty(&login.username)),
                password: login.as_ref().and_then(|login| unless_empty(&login.password)).map(str::as_bytes),
                properties: connect_properties(p.properties.as_ref()),
            }),
            oracle::Packet::ConnAck(p) => connack(p).into(),
            oracle::Packet::Publish(p) => publish(p).into(),
            oracle::Packet::PubAck(p) => Packet::Puback(ack!(p)),
            oracle::Packet::PubRec(p) => Packet::Pubrec(ack!(p)),
            oracle::Packet::PubRel(p) => Packet::Pubrel(ack!(p)),
            oracle::Packet::PubComp(p) => Packet::Pubcomp(ack!(p)),
            oracle::Packet::Subscribe(p) => subscribe(p).into(),
            oracle::Packet::SubAck(p) => Packet::Suback(suback!(p, return_codes)),
            oracle::Packet::Unsubscribe(p) => unsubscribe(p).into(),
            oracle::Packet::UnsubAck(p) => Packet::Unsuback(suback!(p, reasons)),
            oracle::Packet::PingReq(_) => Packet::Pingreq,
            oracle::Packet::PingResp(_) => Packet::Pingresp,
            oracle::Packet::Disconnect(p) => disconnect(p).into(),
            oracle::Packet::Auth(p) => panic!("AUTH cannot be read: {p:?}"),
        }
    }

    #[test]
    fn its_limits_are_still_there() {
        assert!(read(b"\xE0\x00").is_err(), "{:?}", Limit::EmptyDisconnect);
        assert!(read(b"\xE0\x02\x8C\x00").is_err(), "{:?}", Limit::DisconnectForAuthentication);
        assert!(read(b"\xE0\x01\x04").is_err(), "why we write the property length of a DISCONNECT");
        assert!(read(b"\xF0\x06\x18\x04\x15\x00\x01m").is_err(), "{:?}", Limit::Auth);
        assert!(read(&with_binary_password()).is_err(), "{:?}", Limit::PasswordIsText);
    }

    /// The byte after it is not ours to judge: nothing is read after a DISCONNECT.
    #[test]
    fn its_disconnect_with_a_reason_is_followed_by_a_stray_byte() {
        use rumqttc::v5::mqttbytes::v5::{Disconnect as Theirs, DisconnectReasonCode};
        let theirs = write(&oracle::Packet::Disconnect(Theirs::new(DisconnectReasonCode::SessionTakenOver)));
        assert_eq!(&theirs[..], b"\xE0\x01\x8E\x00", "{:?}", Limit::StrayByte);
        let ours = Packet::from(Disconnect::new(ReasonCode::SessionTakenOver));
        assert_eq!(decode(&theirs, Version::V5, u32::MAX), Ok(Some((ours, 3))));
    }
}

mod mqttbytes_5 {
    use mqttbytes::v5 as mqttbytes_v5;

    use super::*;

    /// One type has another name here.
    mod oracle {
        pub(super) use super::mqttbytes_v5::{
            ConnAck, ConnectProperties, Disconnect, LastWill, Packet, PingReq, PingResp, Publish,
            RetainForwardRule, Subscribe, SubscribeFilter as Filter, Unsubscribe,
        };
    }

    shared_meaning!();

    fn write_limit(_packet: &Packet<'_>) -> Option<Limit> {
        None
    }

    fn read(bytes: &[u8]) -> Result<oracle::Packet, String> {
        mqttbytes_v5::read(&mut BytesMut::from(bytes), usize::MAX).map_err(|e| format!("{e:?}"))
    }

    fn write(packet: &oracle::Packet) -> BytesMut {
        let mut out = BytesMut::new();
        let written = match packet {
            oracle::Packet::Connect(p) => p.write(&mut out),
            oracle::Packet::ConnAck(p) => p.write(&mut out),
            oracle::Packet::Publish(p) => p.write(&mut out),
            oracle::Packet::PubAck(p) => p.write(&mut out),
            oracle::Packet::PubRec(p) => p.write(&mut out),
            oracle::Packet::PubRel(p) => p.write(&mut out),
            oracle::Packet::PubComp(p) => p.write(&mut out),
            oracle::Packet::Subscribe(p) => p.write(&mut out),
            oracle::Packet::SubAck(p) => p.write(&mut out),
            oracle::Packet::Unsubscribe(p) => p.write(&mut out),
            oracle::Packet::UnsubAck(p) => p.write(&mut out),
            oracle::Packet::PingReq => oracle::PingReq.write(&mut out),
            oracle::Packet::PingResp => oracle::PingResp.write(&mut out),
            oracle::Packet::Disconnect(p) => p.write(&mut out),
        };
        written.expect("encodes");
        out
    }

    fn meaning(packet: &oracle::Packet) -> Packet<'_> {
        match packet {
            oracle::Packet::Connect(p) => Packet::from(Connect {
                version: Version::V5,
                client_id: &p.client_id,
                clean_start: p.clean_session,
                keep_alive: p.keep_alive,
                will: p.last_will.as_ref().map(will),
                user_name: p.login.as_ref().and_then(|login| unless_empty(&login.username)),
                password: p.login.as_ref().and_then(|login| unless_empty(&login.password)).map(str::as_bytes),
                properties: connect_properties(p.properties.as_ref()),
            }),
            oracle::Packet::ConnAck(p) => connack(p).into(),
            oracle::Packet::Publish(p) => publish(p).into(),
            oracle::Packet::PubAck(p) => Packet::Puback(ack!(p)),
            oracle::Packet::PubRec(p) => Packet::Pubrec(ack!(p)),
            oracle::Packet::PubRel(p) => Packet::Pubrel(ack!(p)),
            oracle::Packet::PubComp(p) => Packet::Pubcomp(ack!(p)),
            oracle::Packet::Subscribe(p) => subscribe(p).into(),
            oracle::Packet::SubAck(p) => Packet::Suback(suback!(p, return_codes)),
            oracle::Packet::Unsubscribe(p) => unsubscribe(p).into(),
            oracle::Packet::UnsubAck(p) => Packet::Unsuback(suback!(p, reasons)),
            oracle::Packet::PingReq => Packet::Pingreq,
            oracle::Packet::PingResp => Packet::Pingresp,
            oracle::Packet::Disconnect(p) => disconnect(p).into(),
        }
    }

    #[test]
    fn its_limits_are_still_there() {
        assert!(read(b"\xE0\x00").is_err(), "{:?}", Limit::EmptyDisconnect);
        assert!(read(b"\xE0\x02\x8C\x00").is_err(), "{:?}", Limit::DisconnectForAuthentication);
        assert!(read(b"\xE0\x01\x04").is_err(), "why we write the property length of a DISCONNECT");
        assert!(read(b"\xF0\x06\x18\x04\x15\x00\x01m").is_err(), "{:?}", Limit::Auth);
        assert!(read(&with_binary_password()).is_err(), "{:?}", Limit::PasswordIsText);
    }
}

fn with_binary_password() -> Vec<u8> {
    encode(
        &Packet::from(Connect {
            version: Version::V5,
            client_id: "c",
            clean_start: true,
            keep_alive: 0,
            will: None,
            user_name: None,
            password: Some(b"\xFF"),
            properties: ConnectProperties::default(),
        }),
        Version::V5,
    )
}

fn flag(byte: u8) -> bool {
    assert!(byte < 2);
    byte == 1
}

fn users(owned: &[(String, String)]) -> UserProperties<'_> {
    owned.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn id_32(id: usize) -> u32 {
    u32::try_from(id).expect("a variable byte integer")
}

fn unless_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
