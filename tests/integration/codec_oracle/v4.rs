//! 3.1.1, which the oracles call version 4.

use bytes::BytesMut;
use dormouse::codec::{
    Ack, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, Packet, Publish,
    PublishProperties, ReasonCode, ReasonProperties, Suback, Subscribe, SubscribeFilter, SubscribeOptions,
    Unsubscribe, Version, Will,
};
use proptest::prelude::{prop_assert_eq, proptest};

use super::{decode_whole, encode, generate, login_limit, packet_id, qos, reason, text};

/// The two oracles have the same types under two names.
macro_rules! oracle {
    ($name:ident, $($v4:ident)::+, $read:expr, $write:expr) => {
        mod $name {
            use super::*;
            use $($v4)::+ as oracle;

            fn read(bytes: &[u8]) -> oracle::Packet {
                let mut stream = BytesMut::from(bytes);
                let packet = $read(&mut stream).unwrap_or_else(|e| panic!("{e:?} from {bytes:02X?}"));
                assert!(stream.is_empty());
                packet
            }

            fn meaning(packet: &oracle::Packet) -> Packet<'_> {
                match packet {
                    oracle::Packet::Connect(p) => connect(p).into(),
                    oracle::Packet::ConnAck(p) => Packet::from(Connack {
                        session_present: p.session_present,
                        reason: reason(&p.code),
                        properties: ConnackProperties::default(),
                    }),
                    oracle::Packet::Publish(p) => Packet::from(Publish {
                        dup: p.dup,
                        qos: qos(p.qos as u8),
                        retain: p.retain,
                        topic: &p.topic,
                        packet_id: (p.pkid != 0).then(|| packet_id(p.pkid)),
                        properties: PublishProperties::default(),
                        payload: &p.payload,
                    }),
                    oracle::Packet::PubAck(p) => Packet::Puback(Ack::success(packet_id(p.pkid))),
                    oracle::Packet::PubRec(p) => Packet::Pubrec(Ack::success(packet_id(p.pkid))),
                    oracle::Packet::PubRel(p) => Packet::Pubrel(Ack::success(packet_id(p.pkid))),
                    oracle::Packet::PubComp(p) => Packet::Pubcomp(Ack::success(packet_id(p.pkid))),
                    oracle::Packet::Subscribe(p) => Packet::from(Subscribe {
                        packet_id: packet_id(p.pkid),
                        subscription_id: None,
                        user: Vec::new(),
                        filters: p.filters.iter().map(subscribe_filter).collect(),
                    }),
                    oracle::Packet::SubAck(p) => {
                        Packet::Suback(answer(p.pkid, p.return_codes.iter().map(reason).collect()))
                    }
                    oracle::Packet::Unsubscribe(p) => Packet::from(Unsubscribe {
                        packet_id: packet_id(p.pkid),
                        user: Vec::new(),
                        filters: p.topics.iter().map(String::as_str).collect(),
                    }),
                    oracle::Packet::UnsubAck(p) => Packet::Unsuback(answer(p.pkid, Vec::new())),
                    oracle::Packet::PingReq => Packet::Pingreq,
                    oracle::Packet::PingResp => Packet::Pingresp,
                    oracle::Packet::Disconnect => Packet::from(Disconnect::new(ReasonCode::Success)),
                }
            }

            fn connect(p: &oracle::Connect) -> Connect<'_> {
                Connect {
                    version: Version::V311,
                    client_id: &p.client_id,
                    clean_start: p.clean_session,
                    keep_alive: p.keep_alive,
                    will: p.last_will.as_ref().map(|will| Will {
                        topic: text(&will.topic),
                        payload: &will.message,
                        qos: qos(will.qos as u8),
                        retain: will.retain,
                        delay: None,
                        properties: PublishProperties::default(),
                    }),
                    user_name: p.login.as_ref().map(|login| login.username.as_str()),
                    password: p
                        .login
                        .as_ref()
                        .map(|login| login.password.as_bytes())
                        .filter(|password| !password.is_empty()),
                    properties: ConnectProperties::default(),
                }
            }

            fn subscribe_filter(filter: &oracle::SubscribeFilter) -> SubscribeFilter<'_> {
                SubscribeFilter {
                    filter: &filter.path,
                    options: SubscribeOptions { qos: qos(filter.qos as u8), ..SubscribeOptions::default() },
                }
            }

            proptest! {
                #[test]
                fn agrees(packet in generate::packet_of(Version::V311)) {
                    if login_limit(&packet).is_none() {
                        let ours = encode(&packet, Version::V311);
                        let decoded = read(&ours);
                        prop_assert_eq!(&meaning(&decoded), &packet, "they decode what we encode");
                        let mut theirs = BytesMut::new();
                        $write(&decoded, &mut theirs);
                        let ours_again = decode_whole(&theirs, Version::V311);
                        prop_assert_eq!(ours_again, packet, "we decode what they encode");
                    }
                }
            }

            #[test]
            fn its_limits_are_still_there() {
                let plain = oracle::Connect::new("c");
                let connect = Connect { user_name: Some(""), password: Some(b"p"), ..connect(&plain) };
                let empty = encode(&Packet::from(connect.clone()), Version::V311);
                let mut theirs = BytesMut::new();
                $write(&read(&empty), &mut theirs);
                assert_ne!(theirs, empty, "an empty user name is lost");
                let bytes = Packet::from(Connect { user_name: Some("u"), password: Some(b"\xFF"), ..connect });
                let mut stream = BytesMut::from(encode(&bytes, Version::V311).as_slice());
                assert!($read(&mut stream).is_err(), "a password of any bytes is refused");
            }
        }
    };
}

oracle!(
    rumqttc_4,
    rumqttc::mqttbytes::v4,
    |stream: &mut BytesMut| oracle::Packet::read(stream, usize::MAX),
    |packet: &oracle::Packet, out: &mut BytesMut| {
        packet.write(out, usize::MAX).expect("encodes");
    }
);

oracle!(
    mqttbytes_4,
    mqttbytes::v4,
    |stream: &mut BytesMut| oracle::read(stream, usize::MAX),
    write_mqttbytes
);

/// `mqttbytes` has a writer for each packet, and none for all.
fn write_mqttbytes(packet: &mqttbytes::v4::Packet, out: &mut BytesMut) {
    use mqttbytes::v4::{Disconnect, Packet, PingReq, PingResp};
    let written = match packet {
        Packet::Connect(p) => p.write(out),
        Packet::ConnAck(p) => p.write(out),
        Packet::Publish(p) => p.write(out),
        Packet::PubAck(p) => p.write(out),
        Packet::PubRec(p) => p.write(out),
        Packet::PubRel(p) => p.write(out),
        Packet::PubComp(p) => p.write(out),
        Packet::Subscribe(p) => p.write(out),
        Packet::SubAck(p) => p.write(out),
        Packet::Unsubscribe(p) => p.write(out),
        Packet::UnsubAck(p) => p.write(out),
        Packet::PingReq => PingReq.write(out),
        Packet::PingResp => PingResp.write(out),
        Packet::Disconnect => Disconnect.write(out),
    };
    written.expect("encodes");
}

fn answer(id: u16, reasons: Vec<ReasonCode>) -> Suback<'static> {
    Suback { packet_id: packet_id(id), reasons, properties: ReasonProperties::default() }
}
