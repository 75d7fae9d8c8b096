//! What the connection task asks of the broker, and nothing else of it.
//!
//! The task is generic over these two traits so that its own tests can drive it without a broker, with a clock that
//! stands still.

use std::{sync::Arc, task::Waker, time::Duration};

use crate::{
    broker::{Broker, CloseReason, Connection, Greeting, Handshake, Peer, Reading, Transmit},
    time::Timestamp,
};

/// The broker, before there is an MQTT connection.
pub(super) trait Gate: Send + Sync + 'static {
    /// Its end of a connection.
    type Client: Client;
    /// What it remembers of a connection before that.
    type Handshake: Default + Send + Unpin + 'static;

    fn now(&self) -> Timestamp;

    /// Takes everything read so far and not used.
    fn greet(
        self: &Arc<Self>,
        handshake: &mut Self::Handshake,
        input: &[u8],
        peer: &Peer,
    ) -> Greeted<Self::Client>;
}

/// The broker's end of a connection: see `broker::Connection`.
pub(super) trait Client: Send + Unpin + 'static {
    fn receive(&mut self, input: &[u8], now: Timestamp) -> (usize, Reading);
    fn poll_transmit(&mut self, waker: &Waker, now: Timestamp, out: &mut Vec<u8>) -> Transmit;
    fn may_read(&self) -> bool;
    fn input_ended(&mut self, now: Timestamp);
    fn keep_alive_limit(&self) -> Option<Duration>;
    fn close(self, reason: CloseReason, now: Timestamp) -> Vec<u8>;
}

/// `broker::Greeting` for any client.
pub(super) enum Greeted<C> {
    Incomplete,
    Challenged { reply: Vec<u8>, used_bytes: usize },
    Refused { reply: Vec<u8> },
    Connected { client: C, used_bytes: usize },
}

impl Gate for Broker {
    type Client = Connection;
    type Handshake = Handshake;

    fn now(&self) -> Timestamp {
        Broker::now(self)
    }

    fn greet(self: &Arc<Self>, handshake: &mut Handshake, input: &[u8], peer: &Peer) -> Greeted<Connection> {
        match self.connect(handshake, input, peer, Broker::now(self)) {
            Greeting::Incomplete => Greeted::Incomplete,
            Greeting::Challenged { reply, used_bytes } => Greeted::Challenged { reply, used_bytes },
            Greeting::Refused { reply } => Greeted::Refused { reply },
            Greeting::Connected { connection, used_bytes } => {
                Greeted::Connected { client: connection, used_bytes }
            }
        }
    }
}

impl Client for Connection {
    fn receive(&mut self, input: &[u8], now: Timestamp) -> (usize, Reading) {
        Connection::receive(self, input, now)
    }

    fn poll_transmit(&mut self, waker: &Waker, now: Timestamp, out: &mut Vec<u8>) -> Transmit {
        Connection::poll_transmit(self, waker, now, out)
    }

    fn may_read(&self) -> bool {
        Connection::may_read(self)
    }

    fn input_ended(&mut self, now: Timestamp) {
        Connection::input_ended(self, now);
    }

    fn keep_alive_limit(&self) -> Option<Duration> {
        Connection::keep_alive_limit(self)
    }

    fn close(self, reason: CloseReason, now: Timestamp) -> Vec<u8> {
        Connection::close(self, reason, now)
    }
}
