//! The other end of a connection, for tests of HTTP: an upstream that answers as told, and a sender that writes raw bytes.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use promdedup::config::Config;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// Nothing in these tests takes that long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something, but not forever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("this should not take so long")
}

/// An upstream whose answer can be changed while it runs.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answer: Arc<Mutex<(u16, String)>>,
    /// It speaks 2.0: what is written, by headers.
    written: Arc<Mutex<Vec<(&'static str, &'static str)>>>,
}

impl Peer {
    pub(crate) async fn start(status: u16, text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Self::on(listener, status, text)
    }

    pub(crate) fn on(listener: TcpListener, status: u16, text: &str) -> Self {
        let peer = Self {
            address: listener.local_addr().expect("address"),
            requests: Arc::default(),
            answer: Arc::new(Mutex::new((status, text.to_owned()))),
            written: Arc::default(),
        };
        let at_door = peer.clone();
        let router = Router::new().fallback(move |request: Request| at_door.clone().take(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        peer
    }

    async fn take(self, request: Request) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("body");
        assert_eq!(head.method, "POST");
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push((head.headers, body));
        let (status, text) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut response = Response::builder().status(status);
        for (what, count) in self.written.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            response = response.header(format!("X-Prometheus-Remote-Write-{what}-Written"), *count);
        }
        response.body(Body::from(text)).expect("response")
    }

    pub(crate) fn says_what_it_has_written(&self) {
        self.says_written(&[("Samples", "1")]);
    }

    /// From now on these headers are in each answer, by the kind that they count.
    pub(crate) fn says_written(&self, counts: &[(&'static str, &'static str)]) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = counts.to_vec();
    }

    pub(crate) fn answers(&self, status: u16, text: &str) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, text.to_owned());
    }

    pub(crate) fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.address)
    }
}

/// A configuration for loopback, with ports that the system chooses.
pub(crate) fn config(url: &str, more: &[(&str, &str)]) -> Config {
    let mut pairs = vec![
        ("PROMDEDUP_UPSTREAM_URL", url),
        ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_WORKERS", "2"),
    ];
    pairs.extend_from_slice(more);
    Config::from_pairs(pairs).expect("a valid configuration")
}

/// An answer as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    /// Lower case.
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Heard {
    pub(crate) fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }
}

/// A connection on which a test writes what it likes.
pub(crate) struct Line<S = TcpStream>(S);

impl Line {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("connected"))
    }

    /// From an address of loopback other than 127.0.0.1.
    pub(crate) async fn open_from(from: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("bound");
        Self(socket.connect(address).await.expect("connected"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(stream)
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("written");
    }

    /// As `say`, where the other end may be gone already.
    pub(crate) async fn try_say(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.0.write_all(bytes.as_ref()).await);
    }

    /// Whatever comes until the other end closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        drop(soon(self.0.read_to_end(&mut rest)).await);
        rest
    }

    /// Writes a request with a body whose length is said.
    pub(crate) async fn post(&mut self, path: &str, headers: &str, body: &[u8]) {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        self.say([head.as_bytes(), body].concat()).await;
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &str) -> Heard {
        self.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await;
        self.hear().await
    }

    /// Writes a byte now and then, for as long as the other end takes them: nobody is to wait for that.
    pub(crate) async fn trickle(&mut self, byte: u8) {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while self.0.write_all(&[byte]).await.is_ok() {
            ticks.tick().await;
        }
    }

    /// Reads one answer.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.hears().await.expect("an answer")
    }

    /// Reads one answer, if the other end does not close instead.
    pub(crate) async fn hears(&mut self) -> Option<Heard> {
        soon(async {
            let mut bytes = Vec::new();
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end;
                }
                bytes.push(self.0.read_u8().await.ok()?);
            };
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut text = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
            self.0.read_exact(&mut text).await.ok()?;
            Some(Heard { status, head, text: String::from_utf8(text).expect("UTF-8") })
        })
        .await
    }

    /// Whether the other end closes.
    pub(crate) async fn closes(&mut self) -> bool {
        let mut rest = Vec::new();
        soon(self.0.read_to_end(&mut rest)).await.map_or(true, |read| read == 0)
    }
}
