//! `[limits]`: bounds on connections and packets.

use std::{ops::RangeInclusive, time::Duration};

use serde::Serialize;

use super::{
    document::Section,
    value::{show_duration, show_size},
};
use crate::{broker, net::limits::Limits};

const PACKET_BYTES: RangeInclusive<usize> = 1 << 10..=256 << 20;
const CONNECT_BYTES: RangeInclusive<usize> = 1 << 10..=256 << 20;
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const HANDSHAKES: RangeInclusive<usize> = 1..=100_000;
/// What the protocol's two bytes can say. [MQTT 5.0, 3.1.2.10]
const KEEP_ALIVE: RangeInclusive<u16> = 1..=u16::MAX;
/// Any client may have 23 [MQTT-3.1.3-5]; the protocol's two bytes of length are the most.
const CLIENT_ID_BYTES: RangeInclusive<usize> = 23..=65_535;
const TOPIC_ALIAS: RangeInclusive<u16> = 0..=u16::MAX;
const RECEIVE_MAXIMUM: RangeInclusive<u16> = 1..=u16::MAX;
const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// Less than a second would cut off radios that merely hiccup.
const WRITE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const OUT_BUFFER_BYTES: RangeInclusive<usize> = 4 << 10..=256 << 20;
const SUBSCRIPTIONS: RangeInclusive<usize> = 1..=1_000_000;

/// The section as it is written.
#[derive(Serialize)]
pub(super) struct RawLimits {
    packet_bytes_max: String,
    connect_bytes_max: String,
    connections_max: usize,
    handshakes_max: usize,
    open_handshakes_max: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive_max: Option<String>,
    client_id_bytes_max: String,
    topic_alias_max: u16,
    receive_maximum: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_timeout: Option<String>,
    write_timeout: String,
    out_buffer_bytes_max: String,
    subscriptions_per_session_max: usize,
}

impl RawLimits {
    /// `connect_timeout` is every listener's; none when there is no listener.
    pub(super) fn of(broker: &broker::Config, network: &Limits, connect_timeout: Option<Duration>) -> Self {
        let seconds = |count| show_duration(Duration::from_secs(u64::from(count))).to_string();
        Self {
            packet_bytes_max: show_size(broker.packet_bytes_max).to_string(),
            connect_bytes_max: show_size(broker.connect_bytes_max).to_string(),
            connections_max: network.connections_max,
            handshakes_max: network.handshakes_max,
            open_handshakes_max: network.open_handshakes_max,
            keep_alive_max: broker.keep_alive_max.map(seconds),
            client_id_bytes_max: show_size(broker.client_id_bytes_max).to_string(),
            topic_alias_max: broker.topic_alias_max,
            receive_maximum: broker.receive_maximum,
            connect_timeout: connect_timeout.map(|timeout| show_duration(timeout).to_string()),
            write_timeout: show_duration(network.write_timeout).to_string(),
            out_buffer_bytes_max: show_size(broker.out_bytes_max).to_string(),
            subscriptions_per_session_max: broker.subscriptions_max,
        }
    }
}

/// Returns the connect timeout, if the file says one: it is for every listener.
pub(super) fn read(
    section: &mut Section<'_>,
    broker: &mut broker::Config,
    network: &mut Limits,
) -> Option<Duration> {
    let mut connect_timeout = None;
    section.size("packet_bytes_max", &mut broker.packet_bytes_max, &PACKET_BYTES);
    section.size("connect_bytes_max", &mut broker.connect_bytes_max, &CONNECT_BYTES);
    section.count("connections_max", &mut network.connections_max, &CONNECTIONS);
    section.count("handshakes_max", &mut network.handshakes_max, &HANDSHAKES);
    section.count("open_handshakes_max", &mut network.open_handshakes_max, &HANDSHAKES);
    section.optional_seconds("keep_alive_max", &mut broker.keep_alive_max, &KEEP_ALIVE);
    section.size("client_id_bytes_max", &mut broker.client_id_bytes_max, &CLIENT_ID_BYTES);
    section.count("topic_alias_max", &mut broker.topic_alias_max, &TOPIC_ALIAS);
    section.count("receive_maximum", &mut broker.receive_maximum, &RECEIVE_MAXIMUM);
    section.optional_duration("connect_timeout", &mut connect_timeout, &CONNECT_TIMEOUT);
    section.duration("write_timeout", &mut network.write_timeout, &WRITE_TIMEOUT);
    section.size("out_buffer_bytes_max", &mut broker.out_bytes_max, &OUT_BUFFER_BYTES);
    section.count("subscriptions_per_session_max", &mut broker.subscriptions_max, &SUBSCRIPTIONS);
    connect_timeout
}
