//! TLS, towards the senders and towards the upstream.

pub(crate) mod authority;
mod files;
mod upstream;

use crate::peer::{Line, Peer, config, soon};
use authority::{Authority, Client, Files, Pair};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use promdedup::app::{Addresses, App};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;

/// A running proxy. Ends when dropped.
pub(crate) struct Proxy {
    pub(crate) at: Addresses,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    pub(crate) fn start(url: &str, more: &[(&str, &str)]) -> Self {
        let more = [&[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")], more].concat();
        let app = App::build(config(url, &more)).expect("built");
        let at = app.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { at, _stop: stop }
    }

    pub(crate) async fn metrics(&self) -> String {
        Line::open(self.at.admin).await.get("/metrics", "").await.text
    }

    /// For what is counted at a moment that the other end does not see.
    pub(crate) async fn comes_to_show(&self, line: &str) {
        soon(async { while !self.metrics().await.lines().any(|each| each == line) {} }).await;
    }
}

/// A certificate for `localhost` in files, and the variables that name them.
fn served(files: &Files, pair: &Pair) -> [(&'static str, String); 2] {
    [
        ("PROMDEDUP_TLS_CERT_FILE", files.put("tls.crt", &pair.certificate)),
        ("PROMDEDUP_TLS_KEY_FILE", files.put("tls.key", &pair.key)),
    ]
}

fn borrowed<'a>(pairs: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    pairs.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// An empty remote write over HTTP/1.1.
async fn writes(line: &mut Line<TlsStream<TcpStream>>) -> u16 {
    line.post("/api/v1/receive", "", &[0]).await;
    line.hear().await.status
}

async fn connect(client: &Client, address: SocketAddr) -> TlsStream<TcpStream> {
    soon(client.connect(address)).await.expect("a handshake")
}

#[tokio::test]
async fn both_versions_of_http_go_over_tls() {
    let (authority, files, peer) = (Authority::new(), Files::new(), Peer::start(200, "").await);
    let proxy = Proxy::start(&peer.url(), &borrowed(&served(&files, &authority.signs("localhost"))));
    let client = Client::of(&authority);
    for protocols in [&[][..], &["http/1.1"]] {
        let mut line = Line::over(connect(&client.clone().speaks(protocols), proxy.at.data).await);
        assert_eq!((writes(&mut line).await, writes(&mut line).await), (204, 204), "{protocols:?}");
    }
    let stream = connect(&client.clone().speaks(&["http/1.1", "h2"]), proxy.at.data).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 is preferred");
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let (mut send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    for (path, status) in [("receive", 204), ("write", 204), ("nowhere", 404)] {
        let url = format!("https://localhost/api/v1/{path}");
        let request = http::Request::post(url).body(Full::new(Bytes::from_static(&[0]))).expect("a request");
        let answer = soon(send.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
        soon(answer.into_body().collect()).await.expect("a whole body");
    }
    let old = Client { versions: vec![&rustls::version::TLS12], ..client };
    assert_eq!(writes(&mut Line::over(connect(&old, proxy.at.data).await)).await, 204);
}

#[tokio::test]
async fn who_speaks_no_tls_gets_no_answer() {
    let (authority, files) = (Authority::new(), Files::new());
    let proxy =
        Proxy::start("http://127.0.0.1:1/", &borrowed(&served(&files, &authority.signs("localhost"))));
    let mut plain = Line::open(proxy.at.data).await;
    plain.post("/api/v1/receive", "", &[0]).await;
    let mut rest = plain.rest().await;
    rest.truncate(1);
    assert_ne!(rest, b"H", "nothing of HTTP");
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody_and_has_an_end() {
    let (authority, files) = (Authority::new(), Files::new());
    let mut more = served(&files, &authority.signs("localhost")).to_vec();
    more.extend([("PROMDEDUP_WORKERS", "1".to_owned()), ("PROMDEDUP_REQUEST_TIMEOUT", "3s".to_owned())]);
    let proxy = Proxy::start("http://127.0.0.1:1/", &borrowed(&more));
    let mut silent = Line::open(proxy.at.data).await;
    let mut stops = Line::open(proxy.at.data).await;
    stops.say([0x16, 3, 1]).await;
    let mut line = Line::over(connect(&Client::of(&authority), proxy.at.data).await);
    assert_eq!(writes(&mut line).await, 204, "one thread serves all three");
    assert!(silent.closes().await && stops.closes().await);
    assert_eq!(writes(&mut line).await, 204, "the bound is that of the handshake");
}

#[tokio::test]
async fn client_certificates_are_asked_for() {
    let (authority, other, files) = (Authority::new(), Authority::new(), Files::new());
    let mut more = served(&files, &authority.signs("localhost")).to_vec();
    more.push(("PROMDEDUP_TLS_CLIENT_CA_FILE", files.put("ca.crt", &authority.pem)));
    let proxy = Proxy::start("http://127.0.0.1:1/", &borrowed(&more));
    let client = Client::of(&authority);
    let good = client.clone().shows(authority.signs("sender"));
    assert_eq!(writes(&mut Line::over(connect(&good, proxy.at.data).await)).await, 204);
    for (number, bad) in [client.clone(), client.shows(other.signs("sender"))].into_iter().enumerate() {
        // With TLS 1.3 the client is done before the server has seen what it shows.
        if let Ok(stream) = soon(bad.connect(proxy.at.data)).await {
            let mut line = Line::over(stream);
            line.try_say(b"POST /api/v1/receive HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n\0").await;
            assert!(line.closes().await, "{number}");
        }
        let failures = number + 1;
        let line = format!("promdedup_auth_failures_total{{reason=\"certificate\"}} {failures}");
        proxy.comes_to_show(&line).await;
    }
}
