//! The PROXY protocol, versions 1 and 2: a proxy in front says whom it connects.
//!
//! The header is read to its last byte and not one further, since TLS or MQTT begins right behind it. Where the format
//! leaves room, this takes the strict reading; what a listener expects has to be there.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Whose word a listener takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Networks the proxies are in; a connection from elsewhere is closed. Empty: everybody who can reach the listener is
    /// taken for a proxy. Whoever comes by a Unix socket is trusted by its mode.
    pub trusted: Vec<Network>,
}

/// An IP network, written `10.0.0.0/8`; a single address without `/` is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// What a header says about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The proxy connects this client.
    Client(SocketAddr),
    /// The proxy speaks for itself (its health check), or does not say for whom: the socket's own address counts.
    Own,
}

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const V1_BYTES_MAX: usize = 107;
/// Addresses and additional fields of version 2 together; the fields in use have some hundred bytes.
const V2_BYTES_MAX: usize = 4096;

impl ProxyConfig {
    /// Whether whoever connects from here may say who the client is.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.is_empty() || self.trusted.iter().any(|network| network.contains(address))
    }
}

impl Network {
    /// Whether the address is in it. An IPv4 address in IPv6's clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let significant = |bits: u32, all: u32| all - bits.min(all);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = significant(self.prefix.into(), 32);
                (network.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = significant(self.prefix.into(), 128);
                (network.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => all,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| ())?
            }
            Some(_) => return Err(()),
        };
        if prefix > all { Err(()) } else { Ok(Self { address, prefix }) }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Reads the header at the start of `stream`, all of it and nothing more.
pub(super) async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Source> {
    // No header is shorter than this, and the versions differ in its first byte.
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.map_err(|_| bad("the header does not come"))?;
    if start == V2_SIGNATURE { read_v2(stream).await } else { read_v1(stream, start).await }
}

async fn read_v1<S: AsyncRead + Unpin>(stream: &mut S, start: [u8; 12]) -> io::Result<Source> {
    if !start.starts_with(b"PROXY ") {
        return Err(bad("there is no header"));
    }
    let mut line = start.to_vec();
    // A line has no length in front: only byte by byte nothing behind it is taken.
    while !line.ends_with(b"\r\n") {
        if line.len() == V1_BYTES_MAX {
            return Err(bad("the header's line has no end"));
        }
        line.push(stream.read_u8().await.map_err(|_| bad("the header is cut off"))?);
    }
    let line = line.strip_suffix(b"\r\n").unwrap_or_default();
    std::str::from_utf8(line).ok().and_then(parse_v1).ok_or_else(|| bad("the header's line is malformed"))
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883`, without the end of the line.
fn parse_v1(line: &str) -> Option<Source> {
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = match words.next()? {
        // Whatever else stands on the line has no meaning.
        "UNKNOWN" => return Some(Source::Own),
        "TCP4" => {
            let mut next = || words.next()?.parse::<Ipv4Addr>().ok();
            (next()?.into(), next()?.into())
        }
        "TCP6" => {
            let mut next = || words.next()?.parse::<Ipv6Addr>().ok();
            (next()?.into(), next()?.into())
        }
        _ => return None,
    };
    let mut port = || {
        let digits = words.next()?;
        let is_plain =
            digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
        is_plain.then(|| digits.parse::<u16>().ok())?
    };
    let (port, _) = (port()?, port()?);
    // The destination is what this broker was reached by, and of no further use.
    let _ = destination;
    words.next().is_none().then_some(Source::Client(SocketAddr::new(source, port)))
}

async fn read_v2<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Source> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await.map_err(|_| bad("the header is cut off"))?;
    let [version_and_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Err(bad("the header is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(|_| bad("the header is cut off"))?;
    parse_v2(version_and_command, family, &body).ok_or_else(|| bad("the header is malformed"))
}

/// What follows the addresses are fields that say more about the client, to be skipped by who does not need them.
fn parse_v2(version_and_command: u8, family: u8, body: &[u8]) -> Option<Source> {
    match (version_and_command, family) {
        // LOCAL, whatever it says besides; PROXY of unknown origin; and of a Unix socket on the proxy's machine.
        (0x20, _) | (0x21, 0x00) => Some(Source::Own),
        (0x21, 0x31) => (body.len() >= 216).then_some(Source::Own),
        (0x21, 0x11) => {
            let (source, rest) = body.split_first_chunk::<4>()?;
            let (_, rest) = rest.split_first_chunk::<4>()?;
            Some(Source::Client(SocketAddr::new(Ipv4Addr::from(*source).into(), ports(rest)?)))
        }
        (0x21, 0x21) => {
            let (source, rest) = body.split_first_chunk::<16>()?;
            let (_, rest) = rest.split_first_chunk::<16>()?;
            Some(Source::Client(SocketAddr::new(Ipv6Addr::from(*source).into(), ports(rest)?)))
        }
        // Another version or command, or datagrams.
        _ => None,
    }
}

/// The source's port; the destination's has to be there too.
fn ports(bytes: &[u8]) -> Option<u16> {
    let (source, rest) = bytes.split_first_chunk::<2>()?;
    rest.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*source))
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The source, and what is left behind the header.
    async fn read(bytes: &[u8]) -> (Result<Source, String>, Vec<u8>) {
        let mut rest = bytes;
        let source = read_header(&mut rest).await.map_err(|error| error.to_string());
        (source, rest.to_vec())
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn a_line_is_read_to_its_end_and_no_further() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n", client("192.0.2.7:50123")),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", client("0.0.0.0:0")),
            ("PROXY TCP6 2001:db8::7 ::1 65535 1883\r\n", client("[2001:db8::7]:65535")),
            ("PROXY UNKNOWN\r\n", Source::Own),
            ("PROXY UNKNOWN whatever it says\r\n", Source::Own),
        ] {
            let bytes = [line.as_bytes(), b"\x10\x0c"].concat();
            assert_eq!(read(&bytes).await, (Ok(source), b"\x10\x0c".to_vec()), "{line}");
        }
    }

    #[tokio::test]
    async fn a_malformed_line_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 50123\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883 9\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 050123 1883\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +5 1883\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 1883\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 5 1883\r\n",
            "PROXY TCP4 2001:db8::7 ::1 5 1883\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 5 1883\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 5 1883\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 5 1883\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 5 1883\r\n",
            "PROXY UNKNOWN\n\r\n but then",
        ] {
            let (source, _) = read(line.as_bytes()).await;
            let is_unknown = line.starts_with("PROXY UNKNOWN");
            assert!(source.is_err() || is_unknown, "{line}");
        }
        let endless = ["PROXY UNKNOWN ".as_bytes(), &[b'x'; 200]].concat();
        assert_eq!(read(&endless).await.0, Err("the header's line has no end".to_owned()));
        assert_eq!(read(b"PROXY TCP4 192.0.2.7 ").await.0, Err("the header is cut off".to_owned()));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_without_taking_more_than_its_start() {
        let connect = b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab";
        let (source, rest) = read(connect).await;
        assert_eq!(source, Err("there is no header".to_owned()));
        assert_eq!(rest.len(), connect.len() - 12);
        assert_eq!(read(b"\x10\x00").await.0, Err("the header does not come".to_owned()));
    }

    #[tokio::test]
    async fn version_2_is_read_with_its_fields_skipped() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0xcb, 7, 0x5b];
        let fields = [0x03, 0, 4, 1, 2, 3, 4];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&443_u16.to_be_bytes());
        for (command, family, body, source) in [
            (0x21, 0x11, v4.to_vec(), client("192.0.2.7:50123")),
            (0x21, 0x11, [&v4[..], &fields].concat(), client("192.0.2.7:50123")),
            (0x21, 0x21, v6.to_vec(), client("[2001:db8::7]:443")),
            (0x21, 0x21, [&v6[..], &[0xee; 1000]].concat(), client("[2001:db8::7]:443")),
            (0x21, 0x31, vec![0; 216], Source::Own),
            (0x21, 0x00, vec![], Source::Own),
            (0x20, 0x00, vec![], Source::Own),
            (0x20, 0x11, v4.to_vec(), Source::Own),
        ] {
            let bytes = [v2(command, family, &body), b"\x10".to_vec()].concat();
            assert_eq!(read(&bytes).await, (Ok(source), b"\x10".to_vec()), "{command:x} {family:x}");
            for end in 0..bytes.len() - 1 {
                assert!(read(&bytes[..end]).await.0.is_err(), "cut at {end}");
            }
        }
    }

    #[tokio::test]
    async fn a_malformed_version_2_is_refused() {
        for (command, family, length) in [
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x31, 215),
            (0x22, 0x11, 12),
            (0x11, 0x11, 12),
            (0x21, 0x12, 12),
        ] {
            let (source, _) = read(&v2(command, family, &vec![0; length])).await;
            assert_eq!(source, Err("the header is malformed".to_owned()), "{command:x} {family:x} {length}");
        }
        let (source, _) = read(&v2(0x20, 0, &[0; V2_BYTES_MAX + 1])).await;
        assert_eq!(source, Err("the header is too long".to_owned()));
        assert_eq!(read(&v2(0x20, 0, &[0; V2_BYTES_MAX])).await.0, Ok(Source::Own));
    }

    #[test]
    fn networks_are_parsed_and_contain_what_they_say() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1/32", "::ffff:192.0.2.1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        for bad in
            ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "a", "10.0.0.0/8/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
