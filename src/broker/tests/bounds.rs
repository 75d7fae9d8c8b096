//! What a client can make the broker hold has an end.

use super::{Client, Config, Reading, World, transient};
use crate::codec::Packet;

const NOTHING: [&str; 0] = [];

fn bytes(packet: &Packet<'_>, times: usize) -> Vec<u8> {
    let mut one = Vec::new();
    packet.encode(crate::codec::Version::V5, &mut one);
    one.repeat(times)
}

/// Bytes that wait for a client that does not read.
fn waiting(client: &Client) -> usize {
    let connection = client.connection.as_ref().unwrap();
    let state = connection.slot.state();
    state.session.link.as_ref().unwrap().out.len()
}

#[test]
fn a_client_that_asks_and_never_reads_is_not_heard_for_ever() {
    let config = Config { out_bytes_max: 1_000, ..Config::default() };
    let world = World::with(config);
    let mut client = world.joined(&transient("flood"), false);
    let flood = bytes(&Packet::Pingreq, 10_000);
    let used = client.send_bytes(&flood);
    assert_eq!(client.reading, Reading::Pause);
    assert!((2_000..2_010).contains(&waiting(&client)), "{}", waiting(&client));
    assert_eq!(client.send_bytes(&flood[used..]), 0, "still");
    assert_eq!(client.heard_bytes().len(), used, "PINGREQ and PINGRESP are both two bytes");
    assert!(client.connection.as_ref().unwrap().may_read());
    assert!(client.send_bytes(&flood[used..]) > 0);
    client.heard_bytes();
    assert_eq!(client.heard(), NOTHING);
}
