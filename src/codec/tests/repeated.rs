//! Topics that are those of the message before are not looked into; all others are.

use super::frame;
use crate::{
    codec::{DecodeError, Packet, Publish, PublishProperties, QoS, Version, decode, decode_next},
    topic::TopicName,
};

fn publish(topic: &[u8]) -> Vec<u8> {
    let length = [0, u8::try_from(topic.len()).unwrap()];
    frame(0x30, &[&length, topic, b"\0body"].concat())
}

#[test]
fn a_topic_that_came_before_is_that_one() {
    let before = TopicName::parse("site/ü/temperature").unwrap();
    let bytes = publish(before.as_str().as_bytes());
    let (packet, used) = decode_next(&bytes, Version::V5, u32::MAX, Some(&before)).unwrap().unwrap();
    let Packet::Publish(Publish { topic, payload, .. }) = &packet else { panic!("{packet:?}") };
    assert!(std::ptr::eq(*topic, before.as_str()), "not the one in the packet");
    assert_eq!((*payload, used), (&b"body"[..], bytes.len()));
    assert_eq!(Some((packet.clone(), used)), decode(&bytes, Version::V5, u32::MAX).unwrap());
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.3.2-2]
#[test]
fn another_topic_is_looked_into() {
    let before = TopicName::parse("site/a").unwrap();
    let faults: [(&[u8], DecodeError); 5] = [
        (b"site/\xFF", DecodeError::StringNotUtf8),
        (b"site/\0", DecodeError::StringHasNull),
        (b"site/+", DecodeError::TopicWildcard),
        (b"site/#", DecodeError::TopicWildcard),
        (b"", DecodeError::TopicEmpty),
    ];
    for (topic, error) in faults {
        let bytes = publish(topic);
        assert_eq!(decode_next(&bytes, Version::V5, u32::MAX, Some(&before)), Err(error), "{topic:?}");
    }
    for topic in ["site/b", "site/", "site/ab", "Site/a"] {
        let bytes = publish(topic.as_bytes());
        let (packet, _) = decode_next(&bytes, Version::V5, u32::MAX, Some(&before)).unwrap().unwrap();
        let expected = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: PublishProperties::default(),
            payload: b"body",
        };
        assert_eq!(packet, Packet::Publish(expected));
    }
}
