//! Observe mode over HTTP: bytes, headers and answers as they came.

use crate::peer::{Line, Peer, config};
use crate::support::{Ts, pack, two};
use promdedup::app::App;
use promdedup::stand_in::request::Body;
use prost::Message as _;
use std::io::Write;
use std::net::SocketAddr;

async fn start(peer: &Peer, more: &[(&str, &str)]) -> (SocketAddr, SocketAddr) {
    let more = [&[("PROMDEDUP_MODE", "observe")], more].concat();
    let app = App::build(config(&peer.url(), &more)).expect("built");
    let at = app.addresses();
    tokio::spawn(app.run(std::future::pending()));
    (at.data, at.admin)
}

#[tokio::test]
async fn a_request_arrives_as_its_sender_wrote_it() {
    let peer = Peer::start(200, "").await;
    let mut token = tempfile::NamedTempFile::new().expect("file");
    token.write_all(b"ours").expect("written");
    let path = token.path().to_str().expect("path");
    let more = [("PROMDEDUP_UPSTREAM_BEARER_FILE", path), ("PROMDEDUP_UPSTREAM_HEADERS", "X-Zone: a")];
    let (data, _) = start(&peer, &more).await;
    let headers = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\nuser-agent: Prometheus/3.14.0\r\n\
        x-prometheus-remote-write-version: 0.1.0\r\nretry-attempt: 2\r\nthanos-tenant: t1\r\nx-request-id: r\r\n\
        x-anything: goes\r\nthanos-replica: 1\r\nauthorization: Basic theirs\r\nconnection: keep-alive, x-hop\r\n\
        x-hop: 1\r\nkeep-alive: timeout=5\r\n";
    let series = [("__name__", "m"), ("prometheus_replica", "a"), ("cluster", "c")];
    let body = Body::new().series(&series, &[(1_000, 1.0)]).compressed();
    let mut line = Line::open(data).await;
    line.post("/api/v1/push", headers, &body).await;
    assert_eq!(line.hear().await.status, 200);
    let (arrived, bytes) = peer.requests().pop().expect("a request");
    assert_eq!(bytes, body, "byte for byte");
    let mut arrived: Vec<_> =
        arrived.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
    arrived.sort();
    let host = format!("host: {}", peer.address);
    let length = format!("content-length: {}", body.len());
    let mut expected = vec![
        "authorization: Bearer ours",
        "content-encoding: snappy",
        &length,
        "content-type: application/x-protobuf",
        &host,
        "retry-attempt: 2",
        "thanos-tenant: t1",
        "user-agent: Prometheus/3.14.0",
        "x-anything: goes",
        "x-prometheus-remote-write-version: 0.1.0",
        "x-request-id: r",
        "x-zone: a",
    ];
    expected.sort_unstable();
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn an_answer_goes_back_as_upstream_wrote_it() {
    let peer = Peer::start(200, "").await;
    let (data, admin) = start(&peer, &[]).await;
    let mut line = Line::open(data).await;
    let two = "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    let body = Body::new().series(&[("__name__", "m"), ("cluster", "c")], &[(1_000, 1.0)]).compressed();
    let long = "x".repeat(10_000);
    for (status, text) in
        [(200, ""), (202, "thanks"), (409, "conflict\nof two lines"), (429, "slow"), (503, &long)]
    {
        peer.answers(status, text);
        line.post("/api/v1/receive", "", &body).await;
        let heard = line.hear().await;
        assert_eq!((heard.status, heard.text.as_str()), (status, text));
        assert!(!heard.head.contains("written") && !heard.head.contains("retry-after"), "{heard:?}");
    }
    // Only upstream knows what is written.
    peer.answers(400, "no");
    for says in [false, true] {
        if says {
            peer.says_what_it_has_written();
        }
        line.post("/api/v1/receive", two, &[0]).await;
        let heard = line.hear().await;
        assert_eq!((heard.status, heard.text.as_str()), (400, "no"));
        assert_eq!(heard.has("x-prometheus-remote-write-samples-written: 1"), says, "{heard:?}");
        assert!(!heard.head.contains("histograms-written"), "{heard:?}");
    }
    let text = Line::open(admin).await.get("/metrics", "").await.text;
    for counted in [
        "promdedup_requests_total{code=\"429\",protocol=\"1.0\"} 1",
        "promdedup_requests_total{code=\"400\",protocol=\"2.0\"} 2",
        "promdedup_upstream_requests_total{code=\"409\"} 1",
    ] {
        assert!(text.lines().any(|line| line == counted), "{counted} is not in:\n{text}");
    }
}

/// Whether it is what it should be is for upstream to say.
#[tokio::test]
async fn what_is_no_remote_write_goes_on_as_well() {
    let peer = Peer::start(415, "who are you").await;
    let (data, admin) = start(&peer, &[]).await;
    let mut line = Line::open(data).await;
    let bodies = [
        (&b"{}"[..], "content-type: application/json\r\n"),
        (b"zz", "content-encoding: zstd\r\n"),
        (b"\xff", ""),
    ];
    for (body, headers) in bodies {
        line.post("/api/v1/receive", headers, body).await;
        let heard = line.hear().await;
        assert_eq!((heard.status, heard.text.as_str()), (415, "who are you"));
    }
    let arrived: Vec<_> = peer.requests().into_iter().map(|(_, body)| body).collect();
    assert_eq!(arrived, bodies.map(|(body, _)| body));
    let text = Line::open(admin).await.get("/metrics", "").await.text;
    assert!(text.contains("\npromdedup_observe_unreadable_total 3\n"), "{text}");
    // There is one place upstream, and it is for remote write.
    line.post("/api/v1/query", "", b"").await;
    assert_eq!(line.hear().await.status, 404);
    assert_eq!(line.get("/api/v1/receive", "").await.status, 405);
    assert_eq!(peer.requests().len(), 3);
}

/// Deduplication would have sent 1.0, of which no upstream says what it has written.
#[tokio::test]
async fn what_came_as_2_0_is_counted_by_the_protocol_that_upstream_would_have_got() {
    let headers = "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    for (protocol, forwarded, duplicate, failed) in [("1.0", 2, 2, 0), ("2.0", 0, 0, 4)] {
        let peer = Peer::start(200, "").await;
        let more = [("PROMDEDUP_UPSTREAM_PROTOCOL", protocol), ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")];
        let (data, admin) = start(&peer, &more).await;
        let mut line = Line::open(data).await;
        for (replica, at) in [("a", 0), ("b", 6), ("a", 15), ("b", 21)] {
            let body = two(&[Ts::new("m").replica(replica).at(at)]).encode_to_vec();
            line.post("/api/v1/receive", headers, &pack(&body)).await;
            assert_eq!(line.hear().await.status, 200, "as upstream has it");
        }
        let text = Line::open(admin).await.get("/metrics", "").await.text;
        let count = |outcome: &str| {
            let outcome = format!("outcome=\"{outcome}\"");
            let lines = text.lines().filter(|line| line.starts_with("promdedup_samples_total"));
            let counts =
                lines.filter(|line| line.contains(&outcome)).filter_map(|line| line.rsplit_once(' '));
            counts.map(|(_, count)| count.parse::<u64>().expect("a count")).sum::<u64>()
        };
        let counts = ["forwarded", "duplicate", "failed"].map(count);
        assert_eq!(counts, [forwarded, duplicate, failed], "{protocol}");
    }
}
