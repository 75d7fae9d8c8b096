//! `dormouse check --live`: one question to a running broker, for service managers and containers.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::Failure;
use crate::admin;

/// For the connection, and for each step of the answer.
const STEP_MAX: Duration = Duration::from_secs(5);
/// More than the answer has.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// Asks `/livez`. Returns what a broker that lives has said.
pub(super) fn ask(admin: &admin::Config) -> Result<String, Failure> {
    if !admin.enabled {
        return Err(Failure::Runtime(
            "the configuration has no admin listener that could be asked ([admin])".to_owned(),
        ));
    }
    let address = reachable(admin.listen);
    let answer = get(address)
        .map_err(|error| Failure::Runtime(format!("no answer from http://{address}/livez: {error}")))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    match status {
        "200" => Ok(body.to_owned()),
        _ => Err(Failure::Runtime(format!("http://{address}/livez answers {status} {}", body.trim_end()))),
    }
}

/// Where this machine reaches what listens there.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, STEP_MAX)?;
    stream.set_read_timeout(Some(STEP_MAX))?;
    stream.set_write_timeout(Some(STEP_MAX))?;
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_asked_here() {
        let here = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(here("0.0.0.0:9883"), "127.0.0.1:9883");
        assert_eq!(here("[::]:9883"), "[::1]:9883");
        assert_eq!(here("192.0.2.1:1"), "192.0.2.1:1");
    }
}
