//! The standard's tables, gone through cell by cell.

use super::{
    DecodeError,
    codec::{Packet, ReasonCode, Version, v3_return_code},
    decode_all, frame, generate, section,
};

/// A place for properties: what comes before them in the packet, and after.
struct Place {
    name: &'static str,
    first_byte: u8,
    before: &'static [u8],
    after: &'static [u8],
}

/// The columns of table 2-4.
const PLACES: &[Place] = &[
    Place { name: "CONNECT", first_byte: 0x10, before: b"\x00\x04MQTT\x05\x02\x00\x00", after: b"\x00\x01c" },
    Place {
        name: "will",
        first_byte: 0x10,
        before: b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c",
        after: b"\x00\x01w\x00\x00",
    },
    Place { name: "CONNACK", first_byte: 0x20, before: b"\x00\x00", after: b"" },
    Place { name: "PUBLISH", first_byte: 0x30, before: b"\x00\x01t", after: b"payload" },
    Place { name: "PUBACK", first_byte: 0x40, before: b"\x00\x01\x00", after: b"" },
    Place { name: "PUBREC", first_byte: 0x50, before: b"\x00\x01\x00", after: b"" },
    Place { name: "PUBREL", first_byte: 0x62, before: b"\x00\x01\x00", after: b"" },
    Place { name: "PUBCOMP", first_byte: 0x70, before: b"\x00\x01\x00", after: b"" },
    Place { name: "SUBSCRIBE", first_byte: 0x82, before: b"\x00\x01", after: b"\x00\x01f\x00" },
    Place { name: "SUBACK", first_byte: 0x90, before: b"\x00\x01", after: b"\x00" },
    Place { name: "UNSUBSCRIBE", first_byte: 0xA2, before: b"\x00\x01", after: b"\x00\x01f" },
    Place { name: "UNSUBACK", first_byte: 0xB0, before: b"\x00\x01", after: b"\x00" },
    Place { name: "DISCONNECT", first_byte: 0xE0, before: b"\x00", after: b"" },
    Place { name: "AUTH", first_byte: 0xF0, before: b"\x18", after: b"" },
];

/// The rows of table 2-4: a property with some value, and where it belongs. The last is allowed everywhere.
const PROPERTIES: &[(&[u8], &str)] = &[
    (b"\x01\x01", "PUBLISH will"),
    (b"\x02\x00\x00\x00\x07", "PUBLISH will"),
    (b"\x03\x00\x01c", "PUBLISH will"),
    (b"\x08\x00\x01r", "PUBLISH will"),
    (b"\x09\x00\x01d", "PUBLISH will"),
    (b"\x0B\x07", "PUBLISH SUBSCRIBE"),
    (b"\x11\x00\x00\x00\x07", "CONNECT CONNACK DISCONNECT"),
    (b"\x12\x00\x01c", "CONNACK"),
    (b"\x13\x00\x07", "CONNACK"),
    (b"\x15\x00\x01m", "CONNECT CONNACK AUTH"),
    (b"\x16\x00\x01d", "CONNECT CONNACK AUTH"),
    (b"\x17\x01", "CONNECT"),
    (b"\x18\x00\x00\x00\x07", "will"),
    (b"\x19\x01", "CONNECT"),
    (b"\x1A\x00\x01i", "CONNACK"),
    (b"\x1C\x00\x01s", "CONNACK DISCONNECT"),
    (b"\x1F\x00\x01r", "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH"),
    (b"\x21\x00\x07", "CONNECT CONNACK"),
    (b"\x22\x00\x07", "CONNECT CONNACK"),
    (b"\x23\x00\x07", "PUBLISH"),
    (b"\x24\x01", "CONNACK"),
    (b"\x25\x01", "CONNACK"),
    (b"\x27\x00\x00\x00\x07", "CONNECT CONNACK"),
    (b"\x28\x01", "CONNACK"),
    (b"\x29\x01", "CONNACK"),
    (b"\x2A\x01", "CONNACK"),
    (
        USER,
        "CONNECT will CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH",
    ),
];

const USER: &[u8] = b"\x26\x00\x01n\x00\x01v";
const AUTHENTICATION_METHOD: &[u8] = b"\x15\x00\x01m";

impl Place {
    fn packet(&self, properties: &[u8]) -> Vec<u8> {
        frame(self.first_byte, &[self.before, &section(properties), self.after].concat())
    }

    fn decode(&self, properties: &[u8]) -> Result<(), DecodeError> {
        decode_all(&self.packet(properties), Version::V5)
            .map(|decoded| assert!(decoded.is_some(), "{} is whole", self.name))
    }

    /// What `property` needs beside it here: data needs a method, and AUTH always does.
    fn company(&self, property: &[u8]) -> &'static [u8] {
        let here = self.name == "AUTH" || (property[0] == 0x16 && matches!(self.name, "CONNECT" | "CONNACK"));
        if here && property[0] != 0x15 { AUTHENTICATION_METHOD } else { b"" }
    }
}

fn cells() -> impl Iterator<Item = (&'static Place, &'static [u8], bool)> {
    PLACES.iter().flat_map(|place| {
        PROPERTIES.iter().map(move |&(property, places)| {
            (place, property, places.split(' ').any(|name| name == place.name))
        })
    })
}

#[test]
fn a_property_is_taken_where_it_belongs_and_nowhere_else() {
    for (place, property, belongs) in cells() {
        let expected = if belongs { Ok(()) } else { Err(DecodeError::PropertyMisplaced) };
        let properties = [property, place.company(property)].concat();
        assert_eq!(place.decode(&properties), expected, "0x{:02X} in {}", property[0], place.name);
    }
}

#[test]
fn only_user_properties_and_subscription_ids_of_publish_repeat() {
    for (place, property, belongs) in cells().filter(|&(_, _, belongs)| belongs) {
        assert!(belongs);
        let repeats = property == USER || (property[0] == 0x0B && place.name == "PUBLISH");
        let expected = if repeats { Ok(()) } else { Err(DecodeError::PropertyDuplicate) };
        // With another property between the two.
        let properties = [property, USER, place.company(property), property].concat();
        assert_eq!(place.decode(&properties), expected, "0x{:02X} in {}", property[0], place.name);
    }
}

#[test]
fn a_property_value_ends_within_the_section() {
    for (place, property, belongs) in cells() {
        if belongs {
            for end in 1..property.len() {
                let decoded = place.decode(&property[..end]);
                assert_eq!(
                    decoded,
                    Err(DecodeError::PropertyValueOverrun),
                    "{end} bytes of 0x{:02X} in {}",
                    property[0],
                    place.name
                );
            }
        }
    }
}

#[test]
fn other_property_identifiers_are_unknown() {
    for place in PLACES {
        for id in 0..0x80 {
            if PROPERTIES.iter().all(|&(property, _)| property[0] != id) {
                assert_eq!(place.decode(&[id, 0, 0, 0, 0]), Err(DecodeError::PropertyUnknown), "0x{id:02X}");
            }
        }
        // Identifiers are variable byte integers: this is 0x80 + 0x26.
        assert_eq!(place.decode(b"\xA6\x01\x00\x00\x00\x00"), Err(DecodeError::PropertyUnknown));
    }
}

#[test]
fn a_property_length_ends_within_the_packet() {
    for place in PLACES {
        let mut packet = frame(place.first_byte, &[place.before, b"\x7F", place.after].concat());
        assert_eq!(
            decode_all(&packet, Version::V5),
            Err(DecodeError::PropertyLengthOverrun),
            "{}",
            place.name
        );
        packet = frame(place.first_byte, &[place.before, b"\xFF\xFF\xFF\x7F", place.after].concat());
        assert_eq!(
            decode_all(&packet, Version::V5),
            Err(DecodeError::PropertyLengthOverrun),
            "{}",
            place.name
        );
        packet = frame(place.first_byte, &[place.before, b"\xFF\xFF\xFF\xFF\x7F", place.after].concat());
        assert_eq!(decode_all(&packet, Version::V5), Err(DecodeError::VarintTooLong), "{}", place.name);
    }
}

/// Table 2-6, and the tables of each packet.
#[test]
fn a_reason_code_is_taken_where_it_belongs_and_nowhere_else() {
    // First byte, what comes before the reason code, what after, which are allowed.
    type Row = (u8, &'static [u8], &'static [u8], &'static [u8]);
    let places: &[Row] = &[
        (0x20, b"\x00", b"\x00", generate::CONNACK_REASONS),
        (0x40, b"\x00\x01", b"", generate::PUBLISH_REASONS),
        (0x50, b"\x00\x01", b"", generate::PUBLISH_REASONS),
        (0x62, b"\x00\x01", b"", generate::RELEASE_REASONS),
        (0x70, b"\x00\x01", b"", generate::RELEASE_REASONS),
        (0x90, b"\x00\x01\x00", b"", generate::SUBACK_REASONS),
        (0xB0, b"\x00\x01\x00", b"", generate::UNSUBACK_REASONS),
        (0xE0, b"", b"", generate::DISCONNECT_REASONS),
        (0xF0, b"", b"\x04\x15\x00\x01m", generate::AUTH_REASONS),
    ];
    for &(first_byte, before, after, allowed) in places {
        for code in 0..=u8::MAX {
            let packet = frame(first_byte, &[before, &[code], after].concat());
            let decoded = decode_all(&packet, Version::V5).map(|_| ());
            let expected = match ReasonCode::try_from(code) {
                _ if allowed.contains(&code) => Ok(()),
                Ok(_) => Err(DecodeError::ReasonCodeMisplaced),
                Err(_) => Err(DecodeError::ReasonCodeUnknown),
            };
            assert_eq!(decoded, expected, "0x{code:02X} in a packet 0x{first_byte:02X}");
        }
    }
}

#[test]
fn reason_codes_are_numbered_as_in_the_standard() {
    let known: Vec<u8> = (0..=u8::MAX).filter(|&code| ReasonCode::try_from(code).is_ok()).collect();
    let mut expected = vec![0x00, 0x01, 0x02, 0x04, 0x10, 0x11, 0x18, 0x19];
    expected.extend(0x80..=0xA2);
    assert_eq!(known, expected);
    for code in known {
        let reason = ReasonCode::try_from(code).expect("known");
        assert_eq!(u8::from(reason), code);
        assert_eq!(reason.is_error(), code >= 0x80, "{reason}");
    }
}

/// 3.1.1, table 3.1.
#[test]
fn v3_return_codes() {
    for code in 0..=u8::MAX {
        let decoded = decode_all(&[0x20, 2, 0, code], Version::V311).map(|decoded| match decoded {
            Some((Packet::Connack(connack), 4)) => v3_return_code(connack.reason),
            other => panic!("{other:?}"),
        });
        let expected = if code <= 5 { Ok(code) } else { Err(DecodeError::ReturnCodeUnknown) };
        assert_eq!(decoded, expected);
    }
    for code in 0..=u8::MAX {
        if let Ok(reason) = ReasonCode::try_from(code) {
            assert_eq!(v3_return_code(reason) != 0, reason.is_error(), "{reason}");
        }
    }
    assert_eq!(v3_return_code(ReasonCode::Banned), 5);
    assert_eq!(v3_return_code(ReasonCode::BadAuthenticationMethod), 4);
    assert_eq!(v3_return_code(ReasonCode::QuotaExceeded), 3);
}

/// Table 2-2, in each version [MQTT-2.1.3-1].
#[test]
fn fixed_header_flags() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for first_byte in 0..=u8::MAX {
            let flags = first_byte & 0x0F;
            let fine = match first_byte >> 4 {
                0 => Err(DecodeError::PacketTypeReserved),
                15 if version != Version::V5 => Err(DecodeError::AuthBeforeV5),
                3 => Ok(()),
                6 | 8 | 10 if flags == 2 || (flags == 10 && version == Version::V31) => Ok(()),
                6 | 8 | 10 => Err(DecodeError::HeaderFlagsReserved),
                _ if flags == 0 => Ok(()),
                _ => Err(DecodeError::HeaderFlagsReserved),
            };
            // The first byte alone decides.
            let decoded = decode_all(&[first_byte], version).map(|decoded| assert_eq!(decoded, None));
            assert_eq!(decoded, fine, "0x{first_byte:02X} in {version}");
        }
    }
}

/// Section 3.8.3.1.
#[test]
fn subscription_options() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for options in 0..=u8::MAX {
            let properties: &[u8] = if version == Version::V5 { b"\x00" } else { b"" };
            let packet = frame(0x82, &[b"\x00\x01", properties, b"\x00\x01f", &[options]].concat());
            let reserved = if version == Version::V5 { 0xC0 } else { 0xFC };
            let expected = if options & reserved != 0 {
                Err(DecodeError::SubscribeOptionsReserved)
            } else if options & 0x30 == 0x30 {
                Err(DecodeError::RetainHandling3)
            } else if options & 3 == 3 {
                Err(DecodeError::SubscribeQos3)
            } else {
                Ok(())
            };
            assert_eq!(decode_all(&packet, version).map(|_| ()), expected, "0x{options:02X} in {version}");
        }
    }
}

/// Section 3.1.2.3, with a payload that fits the flags.
#[test]
fn connect_flags() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for flags in 0..=u8::MAX {
            let (name, level): (&[u8], u8) = match version {
                Version::V31 => (b"\x00\x06MQIsdp", 3),
                Version::V311 => (b"\x00\x04MQTT", 4),
                Version::V5 => (b"\x00\x04MQTT", 5),
            };
            let no_properties: &[u8] = if version == Version::V5 { b"\x00" } else { b"" };
            let has = |flag: u8| flags & flag != 0;
            let mut body = [name, &[level, flags, 0, 0], no_properties, b"\x00\x01c"].concat();
            if has(0x04) {
                body.extend_from_slice(no_properties);
                body.extend_from_slice(b"\x00\x01w\x00\x00");
            }
            body.extend_from_slice(if has(0x80) { b"\x00\x01u" } else { b"" });
            body.extend_from_slice(if has(0x40) { b"\x00\x01p" } else { b"" });
            let expected = if has(0x01) {
                Err(DecodeError::ConnectFlagReserved)
            } else if flags & 0x18 == 0x18 {
                Err(DecodeError::WillQos3)
            } else if has(0x38) && !has(0x04) {
                Err(DecodeError::WillFlagsWithoutWill)
            } else if has(0x40) && !has(0x80) && version != Version::V5 {
                Err(DecodeError::PasswordWithoutUserName)
            } else {
                Ok(())
            };
            let packet = frame(0x10, &body);
            assert_eq!(decode_all(&packet, version).map(|_| ()), expected, "0x{flags:02X} in {version}");
        }
    }
}
