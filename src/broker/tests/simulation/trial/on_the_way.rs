//! What is on its way, in either direction.

use super::{
    super::{
        device::{Heard, Outcome, Said, Who},
        model::Verdict,
    },
    POST, Trial,
};
use crate::codec::{QoS, Version};

impl Trial {
    pub(super) fn arrive(&mut self, who: Who, wholly: bool) {
        let Some(wire) = self.devices[who].wire.as_ref() else { return };
        let on_the_way = wire.on_the_way();
        let mut bytes = if wholly { on_the_way } else { self.chance.below(on_the_way + 1) };
        loop {
            let (now, may_refuse) = (self.now(), self.may_refuse());
            let Some(wire) = self.devices[who].wire.as_mut() else { return };
            // A publish that is refused may end the connection: what is behind it is not taken.
            let piece = if may_refuse { bytes.min(wire.packet_bytes_left()) } else { bytes };
            let taken = wire.arrive(piece, &self.broker, now);
            let is_ended = wire.reads_no_more();
            for said in taken {
                self.taken(who, said);
            }
            bytes -= piece;
            if may_refuse && is_ended {
                // What it has been sent before.
                self.leave(who);
                self.hear(who, true);
                self.model.parted(who, true, false);
            }
            if bytes == 0 || piece == 0 || is_ended {
                return;
            }
        }
    }

    pub(super) fn taken(&mut self, who: Who, said: Said) {
        self.note(|| format!("  taken from {who}: {said:?}"));
        let wire = self.devices[who].wire.as_mut();
        match said {
            Said::Connect(hello) => {
                let is_v5 = self.devices[who].version == Version::V5;
                self.model.connect(who, &hello, is_v5);
            }
            Said::Publish { id, message, .. } => self.model.publish(who, id, message.body),
            Said::Puback(id) | Said::Pubcomp(id) => {
                wire.map(|wire| wire.unanswered.remove(&id));
            }
            Said::Pubrec(_) => {}
            Said::Pubrel(id) => self.model.released(who, id),
            Said::Subscribe { id, filter, qos } => self.model.subscribe(who, id, filter, qos),
            Said::Unsubscribe { id, filter } => self.model.unsubscribe(who, id, filter),
            Said::Disconnect { with_will, ends_session } => {
                self.devices[who].owed.clear();
                self.model.parted(who, with_will, ends_session);
                self.take_last_answers(who);
            }
        }
    }

    /// What can leave the broker leaves.
    pub(super) fn leave(&mut self, who: Who) {
        let now = self.now();
        let Some(wire) = self.devices[who].wire.as_mut() else { return };
        let not_before = wire.looked_at;
        let heard = wire.leave(now);
        for packet in heard {
            self.left(who, packet, not_before);
        }
        if self.devices[who].wire.as_ref().is_some_and(|wire| wire.closing && wire.heard.is_empty()) {
            self.lose(who);
        }
    }

    pub(super) fn left(&mut self, who: Who, packet: Heard, not_before: u64) {
        self.note(|| format!("  leaves for {who}: {packet:?}"));
        let verdict = match &packet {
            Heard::Connack { present, refused } => self.model.greeted(who, *present, *refused),
            Heard::Publish { id, qos, .. } if who == POST => self.count(who, *id, *qos),
            Heard::Publish { id, body, qos, dup, retain, .. } => {
                let is_live_qos_0 = *qos == QoS::AtMostOnce;
                let sent = self.model.sent(who, *body, *dup || is_live_qos_0, not_before);
                let again =
                    if *dup { self.model.sent_again(who, *body, *retain, not_before) } else { Ok(()) };
                sent.and(again).and_then(|()| self.count(who, *id, *qos))
            }
            Heard::Puback { id, refused: false } | Heard::Pubrec { id, refused: false } => {
                let open = self.devices[who].open.iter().find(|open| open.id == *id);
                let body = open.map(|open| open.message.body);
                if let Some(body) = body {
                    self.model.promised(body);
                }
                Ok(())
            }
            Heard::Puback { id, .. } | Heard::Pubrec { id, .. } => {
                let open = self.devices[who].open.iter().find(|open| open.id == *id);
                let body = open.map(|open| open.message.body);
                self.tally.refused += 1;
                body.map_or(Ok(()), |body| self.model.refused(who, *id, body))
            }
            Heard::Suback { id, refused } => self.model.subscribed(who, *id, *refused),
            Heard::Unsuback(id) => {
                self.model.unsubscribed(who, *id);
                Ok(())
            }
            _ => Ok(()),
        };
        self.judge(verdict);
        if let Some(wire) = self.devices[who].wire.as_mut() {
            wire.heard.push_back(packet);
        }
    }

    /// [MQTT-3.3.4-9]
    pub(super) fn count(&mut self, who: Who, id: u16, qos: QoS) -> Verdict {
        let Some(wire) = self.devices[who].wire.as_mut().filter(|_| qos != QoS::AtMostOnce) else {
            return Ok(());
        };
        wire.unanswered.insert(id);
        if wire.unanswered.len() > usize::from(wire.receive_maximum) {
            return Err(format!("{who} is sent {:?}, more than {}", wire.unanswered, wire.receive_maximum));
        }
        Ok(())
    }

    /// A device looks at what has reached it, and answers: all of it, or some.
    pub(super) fn hear(&mut self, who: Who, all: bool) {
        let mut packets = if all { usize::MAX } else { 1 + self.chance.below(3) };
        while packets > 0
            && let Some(outcome) = self.devices[who].hear(self.model.incarnation(who))
        {
            packets -= 1;
            let verdict = match outcome {
                Outcome::Nothing => Ok(()),
                Outcome::Message { body, topic, .. } if who == POST => self.letter(&topic, body),
                Outcome::Message { body, qos, retain, dup, .. } => {
                    self.note(|| format!("  {who} hears {body} {qos:?} retain {retain} dup {dup}"));
                    self.model.heard(who, body, qos, retain, dup)
                }
                Outcome::Wrong(how) => Err(how),
            };
            self.judge(verdict);
        }
        let owed = self.devices[who].owed.len();
        let answers = if all && !self.chance.one_in(4) { owed } else { self.chance.below(owed + 1) };
        for _ in 0..answers {
            if let Some(said) = self.devices[who].owed.pop_front() {
                self.devices[who].say(said);
            }
        }
        if self.devices[who].wire.as_ref().is_some_and(|wire| wire.closing && wire.heard.is_empty()) {
            self.lose(who);
        }
    }
}
