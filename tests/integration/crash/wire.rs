//! A blocking connection that speaks whole packets.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    ops::ControlFlow,
    time::Duration,
};

use dormouse::codec::{Packet, Version, decode};

pub(crate) struct Wire {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self { stream, version, input: Vec::new() })
    }

    pub(crate) fn send(&mut self, packets: &[Packet<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(self.version, &mut bytes);
        }
        self.stream.write_all(&bytes)
    }

    /// Hands whole packets to `handle` until it breaks off or none is left; reads once when none was there. `Ok(false)`:
    /// nothing came within the read timeout.
    pub(crate) fn receive(
        &mut self,
        mut handle: impl FnMut(Packet<'_>) -> ControlFlow<()>,
    ) -> io::Result<bool> {
        if self.hand_over(&mut handle) {
            return Ok(true);
        }
        let mut chunk = [0; 16_384];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.input.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
        self.hand_over(&mut handle);
        Ok(true)
    }

    fn hand_over(&mut self, handle: &mut impl FnMut(Packet<'_>) -> ControlFlow<()>) -> bool {
        let mut used = 0;
        while let Some((packet, bytes)) = decode(&self.input[used..], self.version, u32::MAX)
            .unwrap_or_else(|e| panic!("{e}: {:02x?}", &self.input[used..]))
        {
            used += bytes;
            if handle(packet).is_break() {
                break;
            }
        }
        self.input.drain(..used);
        used > 0
    }
}
