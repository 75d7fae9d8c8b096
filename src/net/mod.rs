//! Sockets: listeners, TLS, and one task per connection. The only floor below the server that knows tokio and rustls.
//!
//! It moves bytes between sockets and `broker::Connection`, and decides when a peer has been silent, slow or mute for
//! too long. It never looks into a packet: what bytes mean is the broker's.
//!
//! A listener is bound in `listener`, accepts in `accept`, hears by `proxy` whom a proxy connects, shakes hands in
//! `handshakes` by the settings of `tls` (`hello` reads what comes first, `half_open` counts who is waited for), and takes HTTP requests in `websocket`; a connection lives in
//! `connection`, on buffers from `buffers`, and is woken by the wheel in `keep_alive`. `network` holds them together.
//!
//! Invariants: everything a peer can make grow is bounded (`limits`); a task is owned by its listener's loop and joined
//! when the network closes; no lock is held across an await.

mod accept;
mod buffers;
mod certificate_name;
mod connection;
mod gate;
mod half_open;
mod handshakes;
mod hello;
mod keep_alive;
pub mod limits;
pub mod listener;
mod log_rate;
pub mod network;
pub mod proxy;
mod socket_file;
mod stream;
pub mod tls;
pub mod websocket;
mod wire;
