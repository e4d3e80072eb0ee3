//! The client of the upstream: what goes out, what an answer means, and that every attempt ends.

use crate::peer::{Line, Peer, config, soon};
use bytes::Bytes;
use http::HeaderValue;
use promdedup::forward::{Answer, HttpUpstream, Outgoing, Upstream};
use promdedup::socket::NetworkBytes;
use promdedup::telemetry::LimitHits;
use prometheus::{Registry, TextEncoder};
use std::fs;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Client {
    upstream: HttpUpstream,
    registry: Registry,
}

impl Client {
    fn new(url: &str, more: &[(&str, &str)]) -> Self {
        let registry = Registry::new();
        let network = NetworkBytes::new(&registry).expect("metrics");
        let limits = LimitHits::new(&registry).expect("metrics");
        let config = config(url, more).forward;
        let upstream = HttpUpstream::new(config, &registry, &network, &limits).expect("a client");
        Self { upstream, registry }
    }

    async fn send(&self) -> Answer {
        soon(self.upstream.send(plain())).await
    }

    /// Whether the metrics hold this line.
    fn shows(&self, line: &str) -> bool {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).expect("text");
        text.lines().any(|each| each == line)
    }
}

fn plain() -> Outgoing {
    Outgoing {
        body: Bytes::from_static(b"body"),
        samples: 1,
        tenant: None,
        request_id: None,
        traceparent: None,
    }
}

/// Reads the head and the body of one small request.
async fn read_request(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\nbody") {
        bytes.push(stream.read_u8().await.expect("a request"));
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// One that takes 1.0 finds nothing in a body of 2.0, and answers 200.
#[tokio::test]
async fn who_takes_2_says_what_is_written_or_has_discarded_it() {
    let peer = Peer::start(200, "").await;
    let client = Client::new(&peer.url(), &[("PROMDEDUP_UPSTREAM_PROTOCOL", "2.0")]);
    let Answer::Unavailable { status, text } = client.send().await else { panic!("taken") };
    assert_eq!(status, 200);
    assert!(text.contains("discarded everything; set PROMDEDUP_UPSTREAM_PROTOCOL=1.0"), "{text}");
    assert_eq!(client.upstream.health().last_success(), None);
    assert!(client.upstream.health().failure().contains("discarded everything"));
    for (status, expected) in [(409, Answer::Conflict { text: "why".to_owned() }), (503, gone("why"))] {
        peer.answers(status, "why");
        assert_eq!(client.send().await, expected, "what is no success needs no such proof");
    }
    peer.says_what_it_has_written();
    peer.answers(204, "");
    assert_eq!(client.send().await, Answer::Taken);
    let (headers, _) = peer.requests().pop().expect("a request");
    let kind = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    for (name, value) in [("content-type", kind), ("x-prometheus-remote-write-version", "2.0.0")] {
        assert_eq!(headers.get(name).expect(name), value);
    }
}

/// What it says is believed: a success that counts nothing is none. A count that is not there is 0, by the specification.
#[tokio::test]
async fn a_success_of_2_that_has_written_no_sample_is_none() {
    let peer = Peer::start(204, "").await;
    let client = Client::new(&peer.url(), &[("PROMDEDUP_UPSTREAM_PROTOCOL", "2.0")]);
    let empty = Outgoing { samples: 0, ..plain() };
    for counts in [
        [("Samples", "0"), ("Histograms", "0")].as_slice(),
        &[("Samples", "x"), ("Exemplars", "0")],
        &[("Exemplars", "3")],
    ] {
        peer.says_written(counts);
        let Answer::Unavailable { status, text } = client.send().await else { panic!("taken: {counts:?}") };
        assert!(status == 204 && text.contains("none of 1 samples"), "{counts:?}: {status} {text}");
        assert!(client.upstream.health().failure().contains("none of 1 samples"));
        // Nothing was there to be written.
        assert_eq!(client.upstream.send(empty.clone()).await, Answer::Taken, "{counts:?}");
    }
    for counts in [[].as_slice(), &[("Samples", "x")], &[("Samples", ""), ("Histograms", "-1")]] {
        peer.says_written(counts);
        for request in [plain(), empty.clone()] {
            let answer = client.upstream.send(request).await;
            let Answer::Unavailable { text, .. } = answer else { panic!("taken: {counts:?}") };
            assert!(text.contains("discarded everything"), "{counts:?}: {text}");
        }
    }
    for counts in [
        [("Samples", "1"), ("Histograms", "0"), ("Exemplars", "0")].as_slice(),
        &[("Histograms", "1")],
        &[("Samples", "18446744073709551615"), ("Histograms", "1")],
    ] {
        peer.says_written(counts);
        assert_eq!(client.send().await, Answer::Taken, "{counts:?}");
    }
}

fn gone(text: &str) -> Answer {
    Answer::Unavailable { status: 503, text: text.to_owned() }
}

#[tokio::test]
async fn headers_of_remote_write_1_and_of_the_sender() {
    let peer = Peer::start(200, "").await;
    let more = [("PROMDEDUP_UPSTREAM_HEADERS", "X-Zone: a"), ("PROMDEDUP_TENANT_HEADER", "X-Tenant")];
    let client = Client::new(&peer.url(), &more);
    let value = |text| Some(HeaderValue::from_static(text));
    let full =
        Outgoing { tenant: value("t1"), request_id: value("r1"), traceparent: value("00-1-2-3"), ..plain() };
    assert_eq!(client.upstream.send(full).await, Answer::Taken);
    assert_eq!(client.send().await, Answer::Taken);
    let requests = peer.requests();
    let (headers, body) = &requests[0];
    assert_eq!(body, "body");
    for (name, value) in [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("user-agent", concat!("promdedup/", env!("CARGO_PKG_VERSION"))),
        ("content-length", "4"),
        ("x-tenant", "t1"),
        ("x-request-id", "r1"),
        ("traceparent", "00-1-2-3"),
        ("x-zone", "a"),
    ] {
        assert_eq!(headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
    }
    for name in ["x-tenant", "x-request-id", "traceparent", "authorization", "thanos-replica"] {
        assert!(!requests[1].0.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn answers_and_their_texts() {
    let peer = Peer::start(200, "").await;
    let client = Client::new(&peer.url(), &[]);
    let text = || "why".to_owned();
    for (status, expected) in [
        (200, Answer::Taken),
        (204, Answer::Taken),
        (400, Answer::Refused { status: 400, text: text() }),
        (409, Answer::Conflict { text: text() }),
        (413, Answer::TooBig { text: text() }),
        (302, Answer::Unavailable { status: 302, text: text() }),
        (429, Answer::Unavailable { status: 429, text: text() }),
        (503, Answer::Unavailable { status: 503, text: text() }),
    ] {
        peer.answers(status, if status == 204 { "" } else { "why\n" });
        assert_eq!(client.send().await, expected);
        assert!(
            client.shows(&format!("promdedup_upstream_requests_total{{code=\"{status}\"}} 1")),
            "{status}"
        );
    }
    assert!(client.shows("promdedup_upstream_duration_seconds_count 8"));
}

#[tokio::test]
async fn a_long_text_is_cut_and_does_not_cost_the_connection() {
    let peer = Peer::start(503, &"x".repeat(20_000)).await;
    let client = Client::new(&peer.url(), &[]);
    let Answer::Unavailable { text, .. } = client.send().await else { panic!("expected a 503") };
    assert_eq!(text, format!("{}…", "x".repeat(4096)));
}

#[tokio::test]
async fn connections_are_kept_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let client = Client::new(&url, &[]);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        drop(listener);
        for _ in 0..3 {
            read_request(&mut stream).await;
            stream.write_all(OK).await.expect("answered");
        }
    });
    for _ in 0..3 {
        assert_eq!(client.send().await, Answer::Taken);
    }
    let received = OK.len() * 3;
    assert!(client.shows(&format!(
        "promdedup_network_bytes_total{{direction=\"received\",side=\"upstream\"}} {received}"
    )));
    assert!(!client.shows("promdedup_network_bytes_total{direction=\"sent\",side=\"upstream\"} 0"));
}

#[tokio::test]
async fn a_connection_closed_while_idle_fails_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let client = Client::new(&url, &[]);
    let closed = std::sync::Arc::new(tokio::sync::Notify::new());
    let close = closed.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await;
            stream.write_all(OK).await.expect("answered");
            stream.shutdown().await.expect("shut down");
            close.notify_one();
        }
    });
    for _ in 0..20 {
        assert_eq!(client.send().await, Answer::Taken);
        soon(closed.notified()).await;
    }
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    drop(listener);
    let client = Client::new(&url, &[]);
    let Answer::NotSent { error } = client.send().await else { panic!("it was not sent") };
    assert!(error.contains("refused"), "{error}");
    assert!(client.shows("promdedup_upstream_requests_total{code=\"error\"} 1"));
    assert!(client.upstream.health().last_attempt().is_some());
    assert_eq!(client.upstream.health().last_success(), None);
}

#[tokio::test]
async fn silence_ends_with_the_timeout_and_so_does_waiting_for_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let more = [("PROMDEDUP_UPSTREAM_TIMEOUT", "300ms"), ("PROMDEDUP_UPSTREAM_CONNECTIONS_MAX", "1")];
    let client = Client::new(&url, &more);
    let started = Instant::now();
    let (first, second) = tokio::join!(client.send(), client.send());
    assert_eq!(first, Answer::NoAnswer { error: "no answer within 300ms".to_owned() });
    let Answer::NotSent { error } = second else { panic!("it was not sent") };
    assert!(error.contains("free within 150ms"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(client.shows("promdedup_limit_hit_total{limit=\"upstream_connections\"} 1"));
}

#[tokio::test]
async fn a_reset_is_no_answer_but_a_text_that_breaks_off_is_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    let client = Client::new(&url, &[]);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_request(&mut stream).await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 409 Conflict\r\ncontent-length: 100\r\n\r\nadd 1")
            .await
            .expect("answered");
    });
    assert!(matches!(client.send().await, Answer::NoAnswer { .. }));
    assert_eq!(client.send().await, Answer::Conflict { text: "add 1…".to_owned() });
}

#[tokio::test]
async fn a_probe_is_an_empty_remote_write() {
    let peer = Peer::start(200, "").await;
    let client = Client::new(&peer.url(), &[]);
    assert_eq!(client.upstream.probe().await, Answer::Taken);
    let body = &peer.requests()[0].1;
    assert_eq!(snap::raw::Decoder::new().decompress_vec(body).expect("snappy"), b"");
    assert!(client.upstream.health().last_success().is_some());
}

#[tokio::test]
async fn credentials_are_read_again_when_the_file_changes() {
    let peer = Peer::start(200, "").await;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("token");
    fs::write(&path, "one\n").expect("written");
    let client =
        Client::new(&peer.url(), &[("PROMDEDUP_UPSTREAM_BEARER_FILE", path.to_str().expect("path"))]);
    let sent = async || {
        client.send().await;
        let requests = peer.requests();
        let headers = &requests.last().expect("a request").0;
        headers.get("authorization").expect("credentials").to_str().expect("text").to_owned()
    };
    assert_eq!(sent().await, "Bearer one");
    let replaced = folder.path().join("new");
    fs::write(&replaced, "two\n").expect("written");
    fs::rename(&replaced, &path).expect("replaced");
    soon(async { while sent().await != "Bearer two" {} }).await;
    fs::remove_file(&path).expect("removed");
    let gone = Instant::now();
    while gone.elapsed() < Duration::from_millis(1100) {
        assert_eq!(sent().await, "Bearer two", "the last good ones stay");
    }
}

#[tokio::test]
async fn the_line_of_a_test_hears_what_is_said() {
    let peer = Peer::start(418, "short and stout").await;
    let mut line = Line::open(peer.address).await;
    line.post("/", "", b"x").await;
    let heard = line.hear().await;
    assert_eq!((heard.status, heard.text.as_str()), (418, "short and stout"));
}
