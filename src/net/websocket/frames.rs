//! Frames in: from a client's raw bytes to the MQTT bytes in them, in place and without a buffer.
//!
//! A frame's payload is handed on as it comes, however the client has cut its packets into frames and the network its frames
//! into reads [MQTT-6.0.0-2] [MQTT3-6.0.0-2]. So nothing grows with a frame's or a message's size, and the bound is the one
//! that MQTT's decoder keeps: that of a packet. What is held between two reads is a cut header, and what has come of a
//! control frame's payload, at most 125 bytes (RFC 6455, section 5.5).

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The longest header a client can send.
const HEADER_BYTES_MAX: usize = 14;
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: u64 = 125;

/// The reading side of one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    state: State,
    /// A binary message has begun and not ended: continuations may come.
    in_message: bool,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    /// A control frame's payload so far.
    control: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    /// At a frame's header.
    #[default]
    Header,
    /// In a data frame. The mask stands at the next byte.
    Data { left: u64, mask: [u8; 4] },
    /// In a control frame.
    Control { kind: Control, left: u64, mask: [u8; 4] },
    /// The client's Close has come: nothing after it counts.
    Closed,
    /// The client broke the rules: what it says has no meaning any more.
    Broken(Violation),
}

/// How a client can break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    Text,
    Unmasked,
    ReservedBits,
    ReservedOpcode,
    ContinuationWithoutStart,
    MessageInMessage,
    LongControl,
    CutControl,
    ShortClose,
    Length,
}

/// A control frame that has to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Ping(Vec<u8>),
    /// With its code, if it has one.
    Close(Option<u16>),
}

impl Violation {
    /// RFC 6455, section 7.4.1.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            _ => 1002,
        }
    }

    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Text => "a WebSocket text frame",
            Self::Unmasked => "a WebSocket frame without a mask",
            Self::ReservedBits => "a WebSocket frame with reserved bits",
            Self::ReservedOpcode => "a WebSocket frame of a reserved kind",
            Self::ContinuationWithoutStart => "a WebSocket continuation of nothing",
            Self::MessageInMessage => "a WebSocket message within another",
            Self::LongControl => "a WebSocket control frame of more than 125 bytes",
            Self::CutControl => "a WebSocket control frame in pieces",
            Self::ShortClose => "a WebSocket Close with half a code",
            Self::Length => "a WebSocket frame with a malformed length",
        }
    }
}

impl Frames {
    pub(super) fn violation(&self) -> Option<Violation> {
        match self.state {
            State::Broken(violation) => Some(violation),
            _ => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes raw bytes and moves the MQTT bytes among them to the front; returns how many there are.
    pub(super) fn decode(&mut self, bytes: &mut [u8], mut event: impl FnMut(Event)) -> usize {
        let (mut read, mut kept) = (0, 0);
        while read < bytes.len() {
            match &mut self.state {
                State::Header => {
                    let Some(&byte) = bytes.get(read) else { break };
                    read += 1;
                    self.take_header_byte(byte, &mut event);
                }
                State::Data { left, mask } => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - read);
                    bytes.copy_within(read..read + count, kept);
                    unmask(bytes.get_mut(kept..kept + count).unwrap_or_default(), mask);
                    (read, kept) = (read + count, kept + count);
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                }
                State::Control { kind, left, mask } => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - read);
                    let payload = bytes.get_mut(read..read + count).unwrap_or_default();
                    unmask(payload, mask);
                    self.control.extend_from_slice(payload);
                    read += count;
                    *left -= count as u64;
                    if *left == 0 {
                        let kind = *kind;
                        self.end_control(kind, &mut event);
                    }
                }
                State::Closed | State::Broken(_) => break,
            }
        }
        kept
    }

    fn take_header_byte(&mut self, byte: u8, event: &mut impl FnMut(Event)) {
        if let Some(place) = self.header.get_mut(usize::from(self.header_bytes)) {
            *place = byte;
            self.header_bytes += 1;
        }
        let header = self.header.get(..usize::from(self.header_bytes)).unwrap_or_default();
        self.state = match FrameHeader::parse(&mut Cursor::new(header)) {
            Ok(None) => return,
            Ok(Some((parsed, length))) => match self.begin(&parsed, length) {
                Ok(state) => state,
                Err(violation) => State::Broken(violation),
            },
            // It says no to nothing else.
            Err(_) => State::Broken(Violation::ReservedOpcode),
        };
        self.header_bytes = 0;
        // Frames without a payload end where they begin.
        match self.state {
            State::Data { left: 0, .. } => self.state = State::Header,
            State::Control { kind, left: 0, .. } => self.end_control(kind, event),
            _ => {}
        }
    }

    /// RFC 6455, sections 5.1 to 5.5.
    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<State, Violation> {
        let Some(mask) = header.mask else { return Err(Violation::Unmasked) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBits);
        }
        if length > u64::MAX / 2 || header.len(length) != usize::from(self.header_bytes) {
            return Err(Violation::Length);
        }
        match header.opcode {
            OpCode::Control(_) if length > CONTROL_BYTES_MAX => Err(Violation::LongControl),
            OpCode::Control(_) if !header.is_final => Err(Violation::CutControl),
            OpCode::Control(Control::Close) if length == 1 => Err(Violation::ShortClose),
            OpCode::Control(kind) => Ok(State::Control { kind, left: length, mask }),
            // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
            OpCode::Data(Data::Text) => Err(Violation::Text),
            OpCode::Data(Data::Binary) if self.in_message => Err(Violation::MessageInMessage),
            OpCode::Data(Data::Continue) if !self.in_message => Err(Violation::ContinuationWithoutStart),
            OpCode::Data(Data::Binary | Data::Continue) => {
                self.in_message = !header.is_final;
                Ok(State::Data { left: length, mask })
            }
            OpCode::Data(Data::Reserved(_)) => Err(Violation::ReservedOpcode),
        }
    }

    fn end_control(&mut self, kind: Control, event: &mut impl FnMut(Event)) {
        let payload = std::mem::take(&mut self.control);
        self.state = State::Header;
        match kind {
            Control::Ping => event(Event::Ping(payload)),
            Control::Close => {
                self.state = State::Closed;
                event(Event::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))));
            }
            // Nobody was asked.
            Control::Pong | Control::Reserved(_) => {}
        }
    }
}

/// Takes the mask off, and turns it to where the next byte needs it.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let word = u32::from_ne_bytes(*mask);
    let mut chunks = bytes.chunks_exact_mut(4);
    for chunk in &mut chunks {
        if let Ok(chunk) = <&mut [u8; 4]>::try_from(chunk) {
            *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
        }
    }
    let rest = chunks.into_remainder();
    for (byte, mask) in rest.iter_mut().zip(mask.iter()) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    const MASK: [u8; 4] = [0x11, 0x82, 0xf3, 0x04];

    /// A frame whose header is made by tungstenite.
    fn framed(opcode: OpCode, is_final: bool, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { is_final, opcode, mask, ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        let mask = mask.unwrap_or_default();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// A client's frame.
    fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        framed(opcode, is_final, Some(MASK), payload)
    }

    fn binary(payload: &[u8]) -> Vec<u8> {
        frame(OpCode::Data(Data::Binary), true, payload)
    }

    fn control(kind: Control, payload: &[u8]) -> Vec<u8> {
        frame(OpCode::Control(kind), true, payload)
    }

    /// Feeds pieces of this size; the payload, the events, and how it stands then.
    fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<Event>, Frames) {
        let (mut frames, mut payload, mut events) = (Frames::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            let mut piece = piece.to_vec();
            let kept = frames.decode(&mut piece, |event| events.push(event));
            payload.extend_from_slice(&piece[..kept]);
        }
        (payload, events, frames)
    }

    #[test]
    fn frames_are_joined_whatever_they_are_cut_into() {
        let large = vec![7; 70_000];
        let all = [
            binary(b"ab"),
            frame(OpCode::Data(Data::Binary), false, b"c"),
            control(Control::Ping, b"are you there"),
            frame(OpCode::Data(Data::Continue), false, b""),
            frame(OpCode::Data(Data::Continue), true, &[5; 300]),
            control(Control::Pong, b"x"),
            binary(b""),
            binary(&large),
            control(Control::Ping, b""),
            control(Control::Close, &[0x03, 0xe8, b'o', b'k']),
            binary(b"too late"),
        ]
        .concat();
        let expected = [b"abc", &[5; 300][..], &large].concat();
        for piece in (1..40).chain([1_000, 65_536, all.len()]) {
            let (payload, events, frames) = decode(&all, piece);
            assert_eq!(payload, expected, "{piece}");
            let asked = Event::Ping(b"are you there".to_vec());
            assert_eq!(events, [asked, Event::Ping(Vec::new()), Event::Close(Some(1000))]);
            assert!(frames.is_closed() && frames.violation().is_none());
            assert_eq!(frames.control.capacity(), 0);
        }
    }

    #[test]
    fn each_broken_rule_is_told_and_what_came_before_it_counts() {
        let unmasked = framed(OpCode::Data(Data::Binary), true, None, b"x");
        let mut reserved_bit = binary(b"x");
        reserved_bit[0] |= 0x40;
        let mut opcode_3 = binary(b"x");
        opcode_3[0] = 0x83;
        let mut opcode_11 = binary(b"x");
        opcode_11[0] = 0x8b;
        let endless = [&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &MASK].concat();
        let long_winded = [&[0x82, 0xfe, 0, 1][..], &MASK, b"x"].concat();
        let start = frame(OpCode::Data(Data::Binary), false, b"x");
        for (bytes, violation) in [
            (frame(OpCode::Data(Data::Text), true, b"x"), Violation::Text),
            (unmasked, Violation::Unmasked),
            (reserved_bit, Violation::ReservedBits),
            (opcode_3, Violation::ReservedOpcode),
            (opcode_11, Violation::ReservedOpcode),
            (frame(OpCode::Data(Data::Continue), true, b"x"), Violation::ContinuationWithoutStart),
            ([start.clone(), binary(b"y")].concat(), Violation::MessageInMessage),
            (control(Control::Ping, &[0; 126]), Violation::LongControl),
            (frame(OpCode::Control(Control::Ping), false, b""), Violation::CutControl),
            (control(Control::Close, &[3]), Violation::ShortClose),
            (endless, Violation::Length),
            (long_winded, Violation::Length),
        ] {
            let all = [binary(b"good"), bytes.clone(), binary(b"never read")].concat();
            for piece in [1, 3, all.len()] {
                let (payload, events, frames) = decode(&all, piece);
                assert_eq!(frames.violation(), Some(violation), "{bytes:x?}");
                assert!(payload.starts_with(b"good") && !payload.ends_with(b"read"), "{payload:?}");
                assert_eq!(events, []);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1..100_usize) {
            let (payload, _, frames) = decode(&bytes, piece);
            let whole = decode(&bytes, bytes.len());
            prop_assert_eq!(payload, whole.0);
            prop_assert_eq!(frames.violation(), whole.2.violation());
        }

        #[test]
        fn masks_come_off_however_it_is_cut(payload in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize) {
            prop_assert_eq!(decode(&binary(&payload), piece).0, payload);
        }
    }
}
