//! What is in a message behind its stamp.

use std::fmt::Write as _;

use super::peer::{PAYLOAD_BYTES_MIN, Stamp};

/// What payloads are filled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Dots, the same in each message.
    #[default]
    Dots,
    /// A sensor's readings as JSON, other values in each message: what compression finds in practice.
    Readings,
}

/// A payload that is used for one message after the other.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    content: Content,
    text: String,
}

impl Payload {
    pub(super) fn new(bytes: usize, content: Content) -> Self {
        Self { bytes: vec![b'.'; bytes], content, text: String::new() }
    }

    /// The payload of the message with this stamp; the stamp itself is for the sender to write.
    pub(super) fn of(&mut self, stamp: Stamp) -> &mut [u8] {
        if self.content == Content::Readings {
            self.text.clear();
            let mut chance =
                stamp.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(stamp.sender) << 40 | 1;
            let room = self.bytes.len().saturating_sub(PAYLOAD_BYTES_MIN);
            while self.text.len() < room {
                reading(&mut self.text, stamp, &mut chance);
            }
            let filled = self.bytes.iter_mut().skip(PAYLOAD_BYTES_MIN);
            filled.zip(self.text.bytes()).for_each(|(to, from)| *to = from);
        }
        &mut self.bytes
    }
}

fn reading(text: &mut String, stamp: Stamp, chance: &mut u64) {
    let mut below = |bound: u64| {
        *chance ^= *chance << 13;
        *chance ^= *chance >> 7;
        *chance ^= *chance << 17;
        *chance % bound
    };
    let (degrees, hundredths) = (15 + below(15), below(100));
    let (humidity, battery_mv, rssi) = (300 + below(400), 3_000 + below(600), 40 + below(50));
    let _ = write!(
        text,
        "{{\"ts\":{},\"temperature\":{degrees}.{hundredths:02},\"humidity\":{}.{},\"battery_mv\":{battery_mv},\"rssi\":-{rssi},\"state\":\"ok\",\"fw\":\"1.4.2\"}}",
        1_763_500_000_000 + stamp.sent_us / 1_000,
        humidity / 10,
        humidity % 10,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_differ_and_fill_the_payload() {
        let mut payload = Payload::new(150, Content::Readings);
        let stamp = |seq| Stamp { sender: 3, seq, sent_us: 5_000_000 };
        let first = payload.of(stamp(1)).to_vec();
        let text = String::from_utf8(first[PAYLOAD_BYTES_MIN..].to_vec()).unwrap();
        assert!(text.starts_with("{\"ts\":1763500005000,\"temperature\":") && text.len() == 130, "{text}");
        assert_ne!(payload.of(stamp(2)), first);
        assert_eq!(payload.of(stamp(1)), first);
    }
}
