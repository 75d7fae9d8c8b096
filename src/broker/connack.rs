//! CONNACK: what the broker offers, or why it refuses.

use std::num::NonZeroU16;

use super::{Broker, connect::Client};
use crate::{
    codec::{Connack, ConnackProperties, Connect, DecodeError, Packet, ReasonCode, Version, connect_version},
    session::{Terms, Verdict},
};

impl Broker {
    /// What the client asked for and does not get, and the bounds it has to keep.
    pub(super) fn welcome(&self, client: &Client<'_>, session_present: bool) -> Vec<u8> {
        let packet = client.packet;
        let keep_alive = self.keep_alive(packet);
        let asked = packet.properties.session_expiry.unwrap_or(0);
        let granted = u32::try_from(client.expiry.as_secs()).unwrap_or(u32::MAX);
        // [MQTT-3.1.2-28]
        let asks = packet.properties.request_response_information == Some(true);
        let features = &self.config.features;
        let response_information = if asks { features.response_information(&client.id) } else { None };
        let properties = features.announce(ConnackProperties {
            session_expiry: (granted != asked).then_some(granted),
            receive_maximum: NonZeroU16::new(self.config.receive_maximum),
            packet_bytes_max: Some(self.config.packet_bytes_max),
            assigned_client_id: client.assigned.then_some(&*client.id),
            topic_alias_maximum: Some(self.config.topic_alias_max),
            server_keep_alive: (keep_alive != packet.keep_alive).then_some(keep_alive),
            response_information: response_information.as_deref(),
            // [MQTT-4.12.0-5], [MQTT-4.12.0-6]
            authentication_method: client.authenticated.as_ref().map(|a| &*a.method),
            authentication_data: client.authenticated.as_ref().and_then(|a| a.data.as_deref()),
            ..ConnackProperties::default()
        });
        let mut bytes = Vec::new();
        Packet::Connack(Box::new(Connack { session_present, reason: ReasonCode::Success, properties }))
            .encode(packet.version, &mut bytes);
        bytes
    }

    /// The answer to a CONNECT that can be read. Empty if the client takes nothing as large.
    pub(super) fn refusal(&self, packet: &Connect<'_>, verdict: Verdict) -> Vec<u8> {
        refusal(&self.terms(packet), verdict)
    }
}

/// The answer to a CONNECT that cannot be read: v5 clients are told why, those of an unknown version that theirs is not
/// spoken here [MQTT-3.1.2-2]; 3.1 and 3.1.1 have no word for the rest.
pub(super) fn refusal_of_malformed(input: &[u8], error: DecodeError) -> Vec<u8> {
    let reason = error.connack_reason();
    let version = match connect_version(input) {
        Some(Version::V5) => Version::V5,
        _ if reason == ReasonCode::UnsupportedProtocolVersion => Version::V311,
        _ => return Vec::new(),
    };
    let mut bytes = Vec::new();
    connack(Verdict::refused(reason, error.message()), Some(error.message())).encode(version, &mut bytes);
    bytes
}

pub(super) fn refusal(terms: &Terms, verdict: Verdict) -> Vec<u8> {
    let mut bytes = Vec::new();
    terms.encode(verdict.why, |why| connack(verdict, why), &mut bytes);
    bytes
}

/// [MQTT-3.2.2-6]: no session is present for who is refused.
fn connack(verdict: Verdict, reason_string: Option<&str>) -> Packet<'_> {
    let properties = ConnackProperties { reason_string, ..ConnackProperties::default() };
    Packet::Connack(Box::new(Connack { session_present: false, reason: verdict.reason, properties }))
}
