//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client.
//!
//! They come in rows: a client answers in one go what it got in one go. A row is handled under one hold of the session's
//! lock, which those who deliver to the session want at the same time.

use super::{
    connection::{Connection, Ending, is_owed_too_much},
    slot::{Slot, State},
    stats::Traffic,
};
use crate::{
    codec::{Ack, Packet, PacketId, PacketType, ReasonCode, Version, decode},
    session::{Acknowledged, Answer, Verdict},
    store::{Gate, Record, Urgency},
    time::Timestamp,
};

/// The verdict on a PUBREL whose message is not there, or has been released before.
const NOT_HELD: Verdict = Verdict {
    reason: ReasonCode::PacketIdentifierNotFound,
    why: "no message with this packet identifier waits for its release",
};

/// The most that are handled under one hold of the lock: some microseconds.
const ROW_MAX: usize = 64;

impl Connection {
    /// Handles one of the four, and those that follow in `rest`. Returns how many bytes of it that took.
    pub(super) fn handle_acknowledgements(
        &mut self,
        first: Acknowledgement,
        rest: &[u8],
        now: Timestamp,
        traffic: &mut Traffic,
    ) -> Result<usize, Ending> {
        let packet_bytes_max = self.broker.config.packet_bytes_max;
        let mut state = self.slot.state();
        if !state.is_served_by(self.epoch) {
            return Err(Ending::Replaced);
        }
        let mut row = Row { state: &mut state, slot: &self.slot, version: self.version, pubacks: Vec::new() };
        row.acknowledge(first, now)?;
        let mut used = 0;
        for _ in 1..ROW_MAX {
            let next = rest.get(used..).unwrap_or_default();
            let Some((ack, bytes)) = next_of_row(next, self.version, packet_bytes_max) else { break };
            used += bytes;
            traffic.count_small(bytes);
            row.acknowledge(ack, now)?;
        }
        row.confirm()?;
        self.paused |= state.session.link.as_ref().is_some_and(|link| is_owed_too_much(link, &self.broker));
        Ok(used)
    }
}

/// One of the four, as far as its row is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    name: PacketType,
    id: PacketId,
    /// With a reason code of 0x80 or above.
    refuses: bool,
}

impl Acknowledgement {
    /// `None`: the packet is another one.
    pub(super) fn of(packet: &Packet<'_>) -> Option<Self> {
        let (name, ack) = match packet {
            Packet::Puback(ack) => (PacketType::Puback, ack),
            Packet::Pubrec(ack) => (PacketType::Pubrec, ack),
            Packet::Pubrel(ack) => (PacketType::Pubrel, ack),
            Packet::Pubcomp(ack) => (PacketType::Pubcomp, ack),
            _ => return None,
        };
        Some(Self { name, id: ack.packet_id, refuses: ack.reason.is_error() })
    }
}

/// The next of a row and its bytes. What is wrong with the next one, if it is, is found by whoever handles it.
fn next_of_row(bytes: &[u8], version: Version, packet_bytes_max: u32) -> Option<(Acknowledgement, usize)> {
    if let Some((name, id, used)) = Ack::decode_plain(bytes) {
        return Some((Acknowledgement { name, id, refuses: false }, used));
    }
    if !bytes.first().is_some_and(|first| matches!(first >> 4, 4..=7)) {
        return None;
    }
    let (packet, used) = decode(bytes, version, packet_bytes_max).ok()??;
    Some((Acknowledgement::of(&packet)?, used))
}

/// A row of them.
struct Row<'a> {
    state: &'a mut State,
    slot: &'a Slot,
    version: Version,
    /// What the client has confirmed and its queue does not know yet: it is told of all at once, and so is the journal.
    pubacks: Vec<PacketId>,
}

impl Row<'_> {
    fn acknowledge(&mut self, ack: Acknowledgement, now: Timestamp) -> Result<(), Ending> {
        let keep = &self.slot.keep;
        if ack.name == PacketType::Puback {
            self.pubacks.push(ack.id);
            return Ok(());
        }
        self.confirm()?;
        let done = match ack.name {
            PacketType::Pubrec => self.state.session.handle_pubrec(keep, ack.id, ack.refuses),
            PacketType::Pubcomp => self.state.session.outbound.handle_pubcomp(keep, ack.id),
            _ => {
                release(self.state, self.slot, self.version, ack.id, now);
                return Ok(());
            }
        };
        judge(done)
    }

    /// Handles the PUBACKs so far.
    fn confirm(&mut self) -> Result<(), Ending> {
        if self.pubacks.is_empty() {
            return Ok(());
        }
        let done = self.state.session.outbound.handle_pubacks(&self.slot.keep, &self.pubacks);
        self.pubacks.clear();
        judge(done)
    }
}

fn judge(done: Acknowledged) -> Result<(), Ending> {
    match done {
        // An id that is not in flight any more: an answer that crossed a resend. Nothing to do.
        Acknowledged::Yes | Acknowledged::Release | Acknowledged::UnknownId => Ok(()),
        Acknowledged::WrongKind => Err(Ending::Refused(
            ReasonCode::ProtocolError,
            "an acknowledgement of the wrong kind for its message",
        )),
    }
}

/// PUBREL frees the packet id; PUBCOMP says so once that is durable, or a reused id would be taken for a duplicate after a
/// crash.
fn release(state: &mut State, slot: &Slot, version: Version, id: PacketId, now: Timestamp) {
    let held = state.session.inbound.release(id);
    if held && slot.keep.persistent {
        let gate = slot.keep.journal.append(Record::Released(slot.no, id), Urgency::Now);
        state.session.inbound.releasing(gate);
    }
    let gate = state.session.inbound.released().unwrap_or(Gate::Open);
    let verdict = if held || version != Version::V5 { Verdict::SUCCESS } else { NOT_HELD };
    state.answer(gate, Answer::Pubcomp(id, verdict), now);
}
