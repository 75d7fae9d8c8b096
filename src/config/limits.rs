//! `[limits]`: bounds on connections and packets.

use std::{ops::RangeInclusive, time::Duration};

use super::document::Section;
use crate::{broker, net::limits::Limits};

const PACKET_BYTES: RangeInclusive<usize> = 1 << 10..=256 << 20;
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const HANDSHAKES: RangeInclusive<usize> = 1..=100_000;
/// What the protocol's two bytes can say. [MQTT 5.0, 3.1.2.10]
const KEEP_ALIVE: RangeInclusive<u16> = 1..=u16::MAX;
const TOPIC_ALIAS: RangeInclusive<u16> = 0..=u16::MAX;
const RECEIVE_MAXIMUM: RangeInclusive<u16> = 1..=u16::MAX;
const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// Less than a second would cut off radios that merely hiccup.
const WRITE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const OUT_BUFFER_BYTES: RangeInclusive<usize> = 4 << 10..=256 << 20;
const SUBSCRIPTIONS: RangeInclusive<usize> = 1..=1_000_000;

/// Returns the connect timeout, if the file says one: it is for every listener.
pub(super) fn read(
    section: &mut Section<'_>,
    broker: &mut broker::Config,
    network: &mut Limits,
) -> Option<Duration> {
    let mut connect_timeout = None;
    section.size("packet_bytes_max", &mut broker.packet_bytes_max, &PACKET_BYTES);
    section.count("connections_max", &mut network.connections_max, &CONNECTIONS);
    section.count("handshakes_max", &mut network.handshakes_max, &HANDSHAKES);
    section.optional_seconds("keep_alive_max", &mut broker.keep_alive_max, &KEEP_ALIVE);
    section.count("topic_alias_max", &mut broker.topic_alias_max, &TOPIC_ALIAS);
    section.count("receive_maximum", &mut broker.receive_maximum, &RECEIVE_MAXIMUM);
    section.optional_duration("connect_timeout", &mut connect_timeout, &CONNECT_TIMEOUT);
    section.duration("write_timeout", &mut network.write_timeout, &WRITE_TIMEOUT);
    section.size("out_buffer_bytes_max", &mut broker.out_bytes_max, &OUT_BUFFER_BYTES);
    section.count("subscriptions_per_session_max", &mut broker.subscriptions_max, &SUBSCRIPTIONS);
    connect_timeout
}
