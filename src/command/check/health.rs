//! `check --health`: asks the proxy that runs on this machine how it is, for a health check without a shell or an HTTP client.
//!
//! Owns one request to the admin address, bounded in time and size. Looks at no other part of the configuration.

use clap::ValueEnum;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Of connecting, and of each read and write. Health checks have a timeout of some seconds themselves.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer is a line of text behind some headers.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::command) enum Probe {
    /// Whether traffic should come: it listens, does not drain, and the upstream takes what it is sent.
    Ready,
    /// Whether the process answers. The one for whoever restarts what is not well: that would not mend the upstream.
    Live,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Ready => "/-/ready",
            Self::Live => "/-/healthy",
        }
    }
}

/// Prints what the admin page answers; the exit code says whether that was 200.
#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
pub(in crate::command) fn run(listen: SocketAddr, probe: Probe) -> ExitCode {
    let address = reachable(listen);
    let (well, text) = match ask(address, probe.path()).map(|answer| verdict(&answer)) {
        Ok(Some(said)) => said,
        Ok(None) => (false, format!("{address} does not answer in HTTP")),
        Err(error) => (false, format!("{address} does not answer: {error}")),
    };
    println!("{text}");
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Who listens on all addresses can be reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // By 1.0 the connection is closed behind the answer, so its end is that of the text.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the status is 200, and the text; `None`: no HTTP.
fn verdict(answer: &str) -> Option<(bool, String)> {
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let mut line = head.lines().next()?.split(' ');
    let (version, status) = (line.next()?, line.next()?);
    version.starts_with("HTTP/").then(|| (status == "200", text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        let check = |listen: &str, expect: &str| {
            assert_eq!(reachable(listen.parse().unwrap()), expect.parse().unwrap());
        };
        check("0.0.0.0:19299", "127.0.0.1:19299");
        check("[::]:19299", "[::1]:19299");
        check("10.1.2.3:19299", "10.1.2.3:19299");
    }

    #[test]
    fn only_200_is_well() {
        let check = |answer: &str, expect: Option<(bool, &str)>| {
            assert_eq!(verdict(answer), expect.map(|(well, text)| (well, text.to_owned())), "{answer}");
        };
        check("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n", Some((true, "ready")));
        check(
            "HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready: draining\n",
            Some((false, "not ready: draining")),
        );
        check("SSH-2.0-OpenSSH\r\n\r\n", None);
        check("HTTP/1.1 200 OK\r\n", None);
    }
}
