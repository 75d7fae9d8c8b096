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
    codec::{Ack, Packet, PacketId, ReasonCode, Version, decode},
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
        first: &Packet<'_>,
        rest: &[u8],
        now: Timestamp,
        traffic: &mut Traffic,
    ) -> Result<usize, Ending> {
        let packet_bytes_max = self.broker.config.packet_bytes_max;
        let mut state = self.slot.state();
        if !state.is_served_by(self.epoch) {
            return Err(Ending::Replaced);
        }
        acknowledge(&mut state, &self.slot, self.version, first, now)?;
        let mut used = 0;
        for _ in 1..ROW_MAX {
            let next = rest.get(used..).unwrap_or_default();
            // What is wrong with the next one, if it is, is found by whoever handles it.
            let Some(Ok(Some((packet, bytes)))) =
                is_acknowledgement(next).then(|| decode(next, self.version, packet_bytes_max))
            else {
                break;
            };
            used += bytes;
            traffic.count(&packet, bytes);
            acknowledge(&mut state, &self.slot, self.version, &packet, now)?;
        }
        self.paused |= state.session.link.as_ref().is_some_and(|link| is_owed_too_much(link, &self.broker));
        Ok(used)
    }
}

/// Whether what begins here is one of the four, by its packet type.
fn is_acknowledgement(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| matches!(first >> 4, 4..=7))
}

fn acknowledge(
    state: &mut State,
    slot: &Slot,
    version: Version,
    packet: &Packet<'_>,
    now: Timestamp,
) -> Result<(), Ending> {
    let outbound = &mut state.session.outbound;
    let done = match packet {
        Packet::Puback(ack) => outbound.handle_puback(&slot.keep, ack.packet_id),
        Packet::Pubrec(ack) => receive(state, slot, ack),
        Packet::Pubcomp(ack) => outbound.handle_pubcomp(&slot.keep, ack.packet_id),
        Packet::Pubrel(ack) => {
            release(state, slot, version, ack.packet_id, now);
            return Ok(());
        }
        _ => return Ok(()),
    };
    match done {
        // An id that is not in flight any more: an answer that crossed a resend. Nothing to do.
        Acknowledged::Yes | Acknowledged::UnknownId => Ok(()),
        Acknowledged::WrongKind => Err(Ending::Refused(
            ReasonCode::ProtocolError,
            "an acknowledgement of the wrong kind for its message",
        )),
    }
}

fn receive(state: &mut State, slot: &Slot, ack: &Ack<'_>) -> Acknowledged {
    let refused = ack.reason.is_error();
    let result = state.session.outbound.handle_pubrec(&slot.keep, ack.packet_id, refused);
    if result == Acknowledged::UnknownId && !refused {
        state.session.answer_unknown_pubrec(ack.packet_id);
    }
    result
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
