//! What is encoded is decoded to the same packet, and what decodes can be encoded again.

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::{
    DecodeError,
    codec::{
        Ack, Packet, PacketId, PacketType, Publish, PublishProperties, QoS, ReasonProperties, Version, decode,
    },
    decode_all, encode, generate,
};
use crate::topic::TopicName;

/// Whatever `bytes` are, decoding does not panic; a packet that decodes, encodes to bytes that decode to it.
fn check_any_input(bytes: &[u8], version: Version) {
    if let Some((_, id, used)) = Ack::decode_plain(bytes) {
        let Ok(Some((
            Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack),
            bytes,
        ))) = decode_all(bytes, version)
        else {
            panic!("it decodes")
        };
        assert_eq!((ack, bytes), (Ack::success(id), used));
    }
    let topic = TopicName::parse("a/b").expect("valid");
    check_plain_publish(bytes, version, &topic);
    let Ok(Some((packet, used))) = decode_all(bytes, version) else { return };
    assert!(used <= bytes.len());
    if let Packet::Publish(publish) = &packet
        && let Ok(topic) = TopicName::parse(publish.topic)
    {
        check_plain_publish(bytes, version, &topic);
    }
    let again = encode(&packet, version);
    assert_eq!(decode_all(&again, version), Ok(Some((packet, again.len()))));
}

/// What is read in the short way is the same as in the long one, and whatever else there is goes that one.
fn check_plain_publish(bytes: &[u8], version: Version, topic: &TopicName) {
    let long = match decode_all(bytes, version) {
        Ok(Some((Packet::Publish(publish), used))) => Some((publish, used)),
        _ => None,
    };
    let is_plain = |publish: &Publish<'_>| {
        publish.topic == topic.as_str() && publish.properties == PublishProperties::default()
    };
    let plain = long.filter(|(publish, _)| is_plain(publish));
    assert_eq!(Publish::decode_plain(bytes, version, u32::MAX, topic), plain);
    if let Some((_, used)) = plain {
        let used = u32::try_from(used).expect("small");
        assert!(Publish::decode_plain(bytes, version, used, topic).is_some());
        assert_eq!(Publish::decode_plain(bytes, version, used - 1, topic), None);
    }
}

proptest! {
    #[test]
    fn a_packet_survives_encode_and_decode((version, packet) in generate::packet()) {
        let bytes = encode(&packet, version);
        prop_assert_eq!(decode_all(&bytes, version), Ok(Some((packet, bytes.len()))));
    }

    /// The maximum packet size counts every byte, and is checked without the body.
    #[test]
    fn the_size_limit_is_exact((version, packet) in generate::packet()) {
        let bytes = encode(&packet, version);
        let size = u32::try_from(bytes.len()).expect("small");
        prop_assert!(matches!(decode(&bytes, version, size), Ok(Some(_))));
        let too_large = Err(DecodeError::PacketTooLarge);
        prop_assert_eq!(decode(&bytes, version, size - 1), too_large.clone());
        let header_only = bytes.iter().skip(1).position(|byte| byte & 0x80 == 0).expect("a length") + 2;
        prop_assert_eq!(decode(&bytes[..header_only], version, size - 1), too_large.clone());
    }

    /// Packets follow one another without gaps, and appending leaves what is in the buffer alone.
    #[test]
    fn packets_in_a_row_are_told_apart(
        (version, packets) in generate::version().prop_flat_map(|version| {
            (proptest::prelude::Just(version), proptest::collection::vec(generate::packet_of(version), 1..6))
        })
    ) {
        let mut stream = Vec::new();
        for packet in &packets {
            packet.encode(version, &mut stream);
        }
        let mut rest = stream.as_slice();
        for packet in packets {
            let (decoded, used) = decode_all(rest, version).expect("valid").expect("whole");
            prop_assert_eq!(decoded, packet);
            rest = &rest[used..];
        }
        prop_assert!(rest.is_empty());
    }

    /// What is read or written in a short way is the same as in the long one, and whatever else there is goes that one.
    #[test]
    fn plain_acknowledgements_are_the_same((version, packet) in generate::packet()) {
        let bytes = encode(&packet, version);
        let ack = match &packet {
            Packet::Puback(ack) => Some((PacketType::Puback, ack)),
            Packet::Pubrec(ack) => Some((PacketType::Pubrec, ack)),
            Packet::Pubrel(ack) => Some((PacketType::Pubrel, ack)),
            Packet::Pubcomp(ack) => Some((PacketType::Pubcomp, ack)),
            _ => None,
        };
        if let Some((name, id, used)) = Ack::decode_plain(&bytes) {
            let plain = ack.map(|(name, ack)| (name, Ack::success(ack.packet_id), bytes.len()));
            prop_assert_eq!(plain, Some((name, Ack::success(id), used)));
            prop_assert_eq!(ack.map(|(_, ack)| ack.clone()), Some(Ack::success(id)));
        } else {
            let is_plain = |(_, ack): (_, &Ack<'_>)| *ack == Ack::success(ack.packet_id);
            prop_assert!(!ack.is_some_and(is_plain));
        }
        if let Some((name, ack)) = ack.filter(|(_, ack)| ack.properties == ReasonProperties::default()) {
            let mut plain = Vec::new();
            Ack::encode_plain(name, ack.packet_id, ack.reason, version, &mut plain);
            prop_assert_eq!(plain, bytes);
        }
    }

    #[test]
    fn flipped_bytes_do_no_harm(
        (version, packet) in generate::packet(),
        other in generate::version(),
        flips in proptest::collection::vec(any::<(proptest::sample::Index, u8)>(), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = encode(&packet, version);
        check_any_input(&bytes, other);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
            check_any_input(&bytes, version);
            check_any_input(&bytes, other);
        }
        check_any_input(&bytes[..cut.index(bytes.len())], version);
    }

    /// A packet cut short, with a remaining length that hides it, is an error or a shorter packet, not a panic.
    #[test]
    fn a_shortened_body_does_no_harm(
        (version, packet) in generate::packet(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let bytes = encode(&packet, version);
        if let Some(body_bytes) = bytes.len().checked_sub(2).filter(|&len| len > 0 && len < 0x80) {
            let body_bytes = cut.index(body_bytes);
            let mut short = bytes[..2 + body_bytes].to_vec();
            short[1] = u8::try_from(body_bytes).expect("below 128");
            check_any_input(&short, version);
            prop_assert!(decode_all(&short, version) != Ok(None));
        }
    }

    #[test]
    fn random_bytes_do_no_harm(
        version in generate::version(),
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        check_any_input(&bytes, version);
    }
}

/// The way of every delivery: nothing is allocated when the out-buffer has room, and once when it has not.
#[test]
fn a_publish_is_appended_without_allocating() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "sensors/1/temperature",
        packet_id: PacketId::new(1),
        properties: PublishProperties {
            message_expiry: Some(60),
            user: vec![("n", "v")],
            ..Default::default()
        },
        payload: &[7; 1000],
    };
    let mut out = Vec::with_capacity(2 * publish.encoded_len(Version::V5));
    let (start, room) = (out.as_ptr(), out.capacity());
    publish.encode(Version::V5, &mut out);
    publish.encode(Version::V5, &mut out);
    assert_eq!((out.as_ptr(), out.capacity(), out.len()), (start, room, room), "nothing moved");

    let mut fresh = Vec::new();
    publish.encode(Version::V5, &mut fresh);
    assert_eq!(fresh.capacity(), fresh.len(), "one reservation, of just what is needed");
    assert_eq!(out, [fresh.as_slice(), &fresh].concat());
    assert_eq!(encode(&Packet::from(publish), Version::V5), fresh, "the same as by Packet::encode");
}
