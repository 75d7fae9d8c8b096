//! `[dead_letters]`: what is published of messages that somebody does not get.

use std::str::FromStr;

use serde::Serialize;

use super::document::Section;
use crate::{
    broker::{DeadLetters, DeadReason},
    codec::QoS,
};

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawDeadLetters {
    enabled: bool,
    reasons: Vec<&'static str>,
    qos: u8,
    payload: bool,
}

impl RawDeadLetters {
    pub(super) fn of(letters: DeadLetters) -> Self {
        Self {
            enabled: letters.enabled,
            reasons: letters.reasons.iter().map(DeadReason::as_str).collect(),
            qos: letters.qos.into(),
            payload: letters.with_payload,
        }
    }
}

/// A reason, by its name.
struct Reason(DeadReason);

impl FromStr for Reason {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        DeadReason::parse(name).map(Self).ok_or(())
    }
}

pub(super) fn read(section: &mut Section<'_>, letters: &mut DeadLetters) {
    section.flag("enabled", &mut letters.enabled);
    let mut reasons: Vec<Reason> = letters.reasons.iter().map(Reason).collect();
    let names: Vec<String> = DeadReason::ALL.iter().map(|reason| format!("{:?}", reason.as_str())).collect();
    section.list("reasons", &mut reasons, &format!("reasons: {}", names.join(", ")));
    letters.reasons = reasons.into_iter().map(|Reason(reason)| reason).collect();
    let mut qos = u8::from(letters.qos);
    section.count("qos", &mut qos, &(0..=1));
    letters.qos = QoS::try_from(qos).unwrap_or(letters.qos);
    section.flag("payload", &mut letters.with_payload);
}
