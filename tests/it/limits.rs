//! Every bound of the senders' side is hit once, counted, and does no harm to those who keep within it.

mod files;
mod flood;

use crate::peer::{Line, soon};
use crate::receive::{Proxy, TYPE};
use crate::tls::authority::{Authority, Client, Files};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::net::TcpStream;

fn hit(limit: &str, times: u64) -> String {
    format!("promdedup_limit_hit_total{{limit=\"{limit}\"}} {times}")
}

/// One that has had an answer, and stays open.
async fn served(proxy: &Proxy) -> Line {
    let mut line = Line::open(proxy.address).await;
    assert!(serves(&mut line).await);
    line
}

async fn serves(line: &mut Line) -> bool {
    line.try_say(format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}content-length: 4\r\n\r\nbody"))
        .await;
    line.hears().await.is_some_and(|heard| heard.status == 204)
}

#[tokio::test]
async fn connections_are_bounded_and_a_place_is_given_back() {
    let proxy = Proxy::start(&[("PROMDEDUP_CONNECTIONS_MAX", "2")]);
    proxy.comes_to_show(&hit("connections", 0)).await;
    let (mut first, second) = (served(&proxy).await, served(&proxy).await);
    let mut third = Line::open(proxy.address).await;
    assert!(third.closes().await, "closed, not kept waiting");
    proxy.shows(&hit("connections", 1));
    assert!(serves(&mut first).await, "whoever is in is served");
    drop(second);
    soon(async { while !serves(&mut Line::open(proxy.address).await).await {} }).await;
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let proxy = Proxy::start(&[("PROMDEDUP_CONNECTIONS_PER_ADDRESS_MAX", "1")]);
    let _first = served(&proxy).await;
    assert!(Line::open(proxy.address).await.closes().await);
    proxy.shows(&hit("connections_per_address", 1));
    let mut other = Line::open_from("127.0.0.2", proxy.address).await;
    assert!(serves(&mut other).await, "another one has places of its own");
    proxy.shows(&hit("connections", 0));
}

#[tokio::test]
async fn a_head_is_bounded_in_size_and_number() {
    let proxy = Proxy::start(&[]);
    let long = format!("x-long: {}\r\n", "x".repeat(40_000));
    let many = "x: y\r\n".repeat(101);
    for (headers, hits) in [(long, 1), (many, 2)] {
        let mut line = Line::open(proxy.address).await;
        line.try_say(format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await;
        assert_eq!(line.hear().await.status, 431);
        proxy.comes_to_show(&hit("head", hits)).await;
    }
    let token = format!("authorization: Bearer {}\r\n", "x".repeat(20_000));
    assert_eq!(proxy.post(&format!("{TYPE}{token}"), b"body").await.status, 204, "a token may be long");
    assert_eq!(proxy.seen().len(), 1);
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off() {
    let proxy = Proxy::start(&[("PROMDEDUP_REQUEST_TIMEOUT", "300ms")]);
    let mut first = Line::open(proxy.address).await;
    first.say("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    soon(first.trickle(b'x')).await;
    proxy.shows(&hit("head_timeout", 1));
    // The second one of a connection, too.
    let mut second = served(&proxy).await;
    second.say("POST /api/v1/rec").await;
    soon(second.trickle(b'e')).await;
    proxy.shows(&hit("head_timeout", 2));
    assert_eq!(proxy.seen().len(), 1);
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_cut_off() {
    let proxy = Proxy::start(&[("PROMDEDUP_REQUEST_TIMEOUT", "100ms")]);
    let mut silent = Line::open(proxy.address).await;
    assert!(silent.closes().await);
    proxy.shows(&hit("head_timeout", 1));
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off() {
    let proxy = Proxy::start(&[("PROMDEDUP_REQUEST_TIMEOUT", "300ms")]);
    for length in ["content-length: 100000\r\n\r\n", "transfer-encoding: chunked\r\n\r\nfffff\r\n"] {
        let mut line = Line::open(proxy.address).await;
        line.say(format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}{length}")).await;
        soon(line.trickle(b'1')).await;
    }
    proxy.shows(&hit("request_timeout", 2));
    proxy.shows("promdedup_requests_total{code=\"408\",protocol=\"1.0\"} 2");
    proxy.comes_to_show("promdedup_in_flight_bytes 0").await;
    assert!(proxy.seen().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let proxy = Proxy::start(&[("PROMDEDUP_IDLE_TIMEOUT", "1s")]);
    let mut busy = Line::open(proxy.address).await;
    busy.post("/api/v1/receive", TYPE, b"wait").await;
    let mut idle = served(&proxy).await;
    assert!(idle.closes().await);
    proxy.shows(&hit("idle_timeout", 1));
    proxy.shows(&hit("head_timeout", 0));
    proxy.let_go(1);
    assert_eq!(busy.hear().await.status, 204, "it was not idle");
}

#[tokio::test]
async fn a_slow_handshake_is_counted() {
    let (authority, files) = (Authority::new(), Files::new());
    let pair = authority.signs("localhost");
    let (certificate, key) = (files.put("tls.crt", pair.certificate), files.put("tls.key", pair.key));
    let proxy = Proxy::start(&[
        ("PROMDEDUP_TLS_CERT_FILE", &certificate),
        ("PROMDEDUP_TLS_KEY_FILE", &key),
        ("PROMDEDUP_REQUEST_TIMEOUT", "200ms"),
    ]);
    let mut line = Line::open(proxy.address).await;
    line.say([0x16, 3, 1]).await;
    assert!(line.closes().await);
    proxy.comes_to_show(&hit("handshake_timeout", 1)).await;
}

/// A proxy that speaks TLS. Its files are read at its start, and gone after it.
fn over_tls(authority: &Authority) -> Proxy {
    let (files, pair) = (Files::new(), authority.signs("localhost"));
    let (certificate, key) = (files.put("tls.crt", pair.certificate), files.put("tls.key", pair.key));
    Proxy::start(&[("PROMDEDUP_TLS_CERT_FILE", &certificate), ("PROMDEDUP_TLS_KEY_FILE", &key)])
}

/// Whoever has to come by way of another instance must not come back on the same connection, whichever version of HTTP it speaks.
#[tokio::test]
async fn who_is_sent_elsewhere_is_so_over_either_version_of_http() {
    let authority = Authority::new();
    let proxy = over_tls(&authority);
    let client = Client::of(&authority);
    let stream = soon(client.clone().speaks(&["http/1.1"]).connect(proxy.address)).await.expect("TLS");
    let mut line = Line::over(stream);
    for (body, closes) in [(&b"busy"[..], false), (b"elsewhere", true)] {
        line.post("/api/v1/receive", "", body).await;
        let heard = line.hear().await;
        assert_eq!((heard.status, heard.has("connection: close")), (503, closes), "{heard:?}");
    }
    assert!(line.closes().await);
    let stream = soon(client.speaks(&["h2"]).connect(proxy.address)).await.expect("TLS");
    let (mut send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    for (body, closes) in [(&b"busy"[..], false), (b"elsewhere", true)] {
        let request = http::Request::post("https://localhost/api/v1/receive");
        let request = request.body(Full::new(Bytes::from_static(body))).expect("a request");
        let answer = soon(send.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), 503);
        if closes {
            soon(connection).await.expect("no panic").expect("it ended well");
            return;
        }
        soon(send.ready()).await.expect("it is open");
    }
}

/// As many as the shards of an old Prometheus go at one time; the next one waits for its turn, and gets it.
#[tokio::test]
async fn requests_at_a_time_on_one_connection_of_http2_are_bounded() {
    let authority = Authority::new();
    let proxy = over_tls(&authority);
    let stream = soon(Client::of(&authority).speaks(&["h2"]).connect(proxy.address)).await.expect("TLS");
    let (send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let mut send = send.clone();
        answers.spawn(async move {
            let body = Full::new(Bytes::from_static(b"wait"));
            let request = http::Request::post("https://localhost/api/v1/receive").body(body);
            soon(send.ready()).await.expect("a stream");
            send.send_request(request.expect("a request")).await.expect("an answer").status()
        });
    }
    proxy.comes_to_show(&hit("streams", 1)).await;
    proxy.comes_to_show("promdedup_in_flight_requests 200").await;
    soon(async {
        while proxy.seen().len() < 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(proxy.seen().len(), 200);
    proxy.let_go(300);
    while let Some(status) = soon(answers.join_next()).await {
        assert_eq!(status.expect("no panic"), 204);
    }
    assert_eq!(proxy.seen().len(), 300);
}

/// A burst of all shards of some senders, as after a restart, is not taken for too many.
#[tokio::test]
async fn a_burst_of_connections_finds_its_places() {
    let proxy = Proxy::start(&[("PROMDEDUP_WORKERS", "1")]);
    let mut lines = Vec::new();
    for _ in 0..300 {
        lines.push(TcpStream::connect(proxy.address).await.expect("connected"));
    }
    for stream in lines {
        assert!(serves(&mut Line::over(stream)).await);
    }
    proxy.shows(&hit("connections", 0));
}

/// Answers are not read, requests go on: what is written waits, and does not pile up.
#[tokio::test]
async fn who_does_not_read_answers_is_asked_no_more_and_cut_off() {
    let proxy = Proxy::start(&[("PROMDEDUP_IDLE_TIMEOUT", "1s")]);
    let mut line = Line::open(proxy.address).await;
    let request = format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}content-length: 4\r\n\r\nbody");
    let many = request.repeat(10_000);
    // It takes them as long as it gets rid of its answers; in the end nobody moves.
    let said = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            line.try_say(&many).await;
        }
    });
    assert!(said.await.is_err());
    assert!(serves(&mut Line::open(proxy.address).await).await, "others are served");
}
