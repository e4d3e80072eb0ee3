//! The senders' side: routes, headers, bounds, panics, draining.

use crate::peer::{Heard, Line, config, soon};
use promdedup::overhead::CpuTime;
use promdedup::pipeline::{Incoming, Protocol, Reply, Written};
use promdedup::receive::{PhaseControl, ReceiveError, Receiver, Serve};
use promdedup::socket::NetworkBytes;
use promdedup::telemetry::LimitHits;
use prometheus::{Registry, TextEncoder};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;

/// Answers as the body says: `panic`, `wait` (until let go), or 204.
#[derive(Default)]
pub(crate) struct Fake {
    seen: Mutex<Vec<Incoming>>,
    threads: Mutex<Vec<String>>,
    pub(crate) waiting: Notify,
    ended: Notify,
    go: Option<Semaphore>,
}

impl Serve for Fake {
    async fn serve(self: Arc<Self>, incoming: Incoming) -> Reply {
        let body = incoming.body.clone();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(incoming);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        if body.ends_with(b"panic") {
            panic!("as told");
        }
        if body.ends_with(b"wait") {
            self.waiting.notify_one();
            self.go.as_ref().expect("a semaphore").acquire().await.expect("open").forget();
            self.ended.notify_one();
        }
        if body.ends_with(b"busy") || body.ends_with(b"elsewhere") {
            return Reply {
                status: 503,
                text: "come back".to_owned(),
                retry_after_s: Some(7),
                written: Written::default(),
                elsewhere: body.ends_with(b"elsewhere"),
                echo: None,
            };
        }
        Reply {
            status: 204,
            text: String::new(),
            retry_after_s: None,
            written: Written { samples: 3, histograms: 2, exemplars: 1 },
            elsewhere: false,
            echo: None,
        }
    }
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ReceiveError>>,
}

impl Proxy {
    pub(crate) fn start(more: &[(&str, &str)]) -> Self {
        let config = config("http://127.0.0.1:1/", more).receive;
        let registry = Registry::new();
        let network = NetworkBytes::new(&registry).expect("metrics");
        let limits = LimitHits::new(&registry).expect("metrics");
        let fake = Arc::new(Fake { go: Some(Semaphore::new(0)), ..Fake::default() });
        let receiver = Receiver::bind(config, fake.clone(), &registry, &network, &CpuTime::off(), &limits)
            .expect("bound");
        let address = receiver.address();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let phase = PhaseControl::default();
            receiver.run(&phase, async { drop(stopped.await) }).await
        });
        Self { address, fake, registry, stop: Some(stop), running }
    }

    pub(crate) async fn post(&self, headers: &str, body: &[u8]) -> Heard {
        let mut line = Line::open(self.address).await;
        line.post("/api/v1/receive", headers, body).await;
        line.hear().await
    }

    pub(crate) fn let_go(&self, requests: usize) {
        self.fake.go.as_ref().expect("a semaphore").add_permits(requests);
    }

    pub(crate) fn seen(&self) -> Vec<Incoming> {
        self.fake.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("text")
    }

    pub(crate) fn shows(&self, line: &str) {
        let text = self.metrics();
        assert!(text.lines().any(|each| each == line), "{line} is not in:\n{text}");
    }

    /// For what is counted a moment after the answer is out.
    pub(crate) async fn comes_to_show(&self, line: &str) {
        soon(async {
            while !self.metrics().lines().any(|each| each == line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn drain(mut self) -> Result<(), ReceiveError> {
        drop(self.stop.take());
        soon(self.running).await.expect("no panic")
    }
}

pub(crate) const TYPE: &str = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";

#[tokio::test]
async fn what_is_passed_on() {
    let proxy = Proxy::start(&[]);
    let more =
        "thanos-tenant: t1\r\nretry-attempt: 3\r\nx-request-id: r\r\ntraceparent: p\r\nthanos-replica: 1\r\n";
    let heard = proxy.post(&format!("{TYPE}{more}"), b"body").await;
    assert_eq!((heard.status, heard.text.as_str()), (204, ""));
    assert!(!heard.head.contains("written"), "1.0 senders get no counts");
    let seen = &proxy.seen()[0];
    assert_eq!(seen.body, "body");
    assert_eq!(seen.tenant.as_ref().expect("tenant"), "t1");
    assert_eq!(seen.request_id.as_ref().expect("id"), "r");
    assert_eq!(seen.traceparent.as_ref().expect("trace"), "p");
    assert_eq!(seen.retry_attempt, 3);
    proxy.post("thanos-tenant: \r\nretry-attempt: x\r\n", b"body").await;
    let seen = &proxy.seen()[1];
    assert_eq!((seen.tenant.as_ref(), seen.retry_attempt), (None, 0));
}

#[tokio::test]
async fn routes_and_methods() {
    let proxy = Proxy::start(&[]);
    let mut line = Line::open(proxy.address).await;
    for path in ["/api/v1/receive", "/api/v1/write", "/api/v1/push"] {
        line.post(path, TYPE, b"body").await;
        assert_eq!(line.hear().await.status, 204, "{path}");
    }
    let heard = line.get("/api/v1/receive", "").await;
    assert_eq!(heard.status, 405);
    assert!(heard.has("allow: post"), "{heard:?}");
    line.post("/api/v1/other", TYPE, &[0; 100_000]).await;
    let heard = line.hear().await;
    assert_eq!(heard.status, 404);
    assert!(heard.has("content-type: text/plain; charset=utf-8"), "{heard:?}");
    line.post("/api/v1/receive", TYPE, b"body").await;
    assert_eq!(line.hear().await.status, 204, "the refused body was read, the connection goes on");
    assert_eq!(proxy.seen().len(), 4);
    proxy.shows("promdedup_requests_total{code=\"204\",protocol=\"1.0\"} 4");
    proxy.shows("promdedup_requests_total{code=\"404\",protocol=\"other\"} 1");
    proxy.shows("promdedup_requests_total{code=\"405\",protocol=\"other\"} 1");
    proxy.shows("promdedup_request_duration_seconds_count 6");
}

#[tokio::test]
async fn types_and_encodings() {
    let proxy = Proxy::start(&[]);
    let mut line = Line::open(proxy.address).await;
    for (headers, word) in [
        ("content-type: application/json\r\n", "application/json"),
        ("content-type: application/x-protobuf;proto=io.prometheus.write.v3.Request\r\n", "v2.Request"),
        ("content-encoding: gzip\r\n", "gzip"),
    ] {
        line.post("/api/v1/write", headers, &[0; 200_000]).await;
        let heard = line.hear().await;
        assert_eq!(heard.status, 415);
        assert!(heard.text.contains(word), "{heard:?}");
        assert_eq!(heard.text.lines().count(), 1);
    }
    line.post("/api/v1/write", "content-type: application/x-protobuf;proto=prometheus.WriteRequest\r\n", b"")
        .await;
    assert_eq!(line.hear().await.status, 204);
    proxy.shows("promdedup_requests_total{code=\"415\",protocol=\"other\"} 2");
    proxy.shows("promdedup_requests_total{code=\"415\",protocol=\"1.0\"} 1");
}

pub(crate) const TYPE_2: &str =
    "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";

/// Which of them is meant?
#[tokio::test]
async fn two_tenants_are_refused() {
    let proxy = Proxy::start(&[]);
    let heard = proxy.post(&format!("{TYPE}thanos-tenant: a\r\nTHANOS-TENANT: b\r\n"), b"body").await;
    assert_eq!(heard.status, 400, "{heard:?}");
    assert!(heard.text.contains("thanos-tenant names 2 tenants"), "{heard:?}");
    assert!(proxy.seen().is_empty());
    // One that a gateway adds to what its sender says is the same.
    let heard = proxy.post(&format!("{TYPE}thanos-tenant: a\r\nTHANOS-TENANT: a\r\n"), b"body").await;
    assert_eq!(heard.status, 204, "{heard:?}");
}

/// On every answer of 2.0, and on none of 1.0: there they would be believed, and mean something else.
#[tokio::test]
async fn senders_of_2_are_told_what_is_written() {
    let proxy = Proxy::start(&[("PROMDEDUP_BODY_MAX", "60KiB")]);
    let written = |heard: &Heard| {
        ["samples", "histograms", "exemplars"].map(|what| {
            let header = format!("x-prometheus-remote-write-{what}-written: ");
            heard.head.lines().find_map(|line| line.strip_prefix(&header)?.parse::<u64>().ok())
        })
    };
    let gzip = &format!("{TYPE_2}content-encoding: gzip\r\n");
    for (headers, body, status, counts) in [
        (TYPE_2, &b"body"[..], 204, [3, 2, 1]),
        (TYPE_2, b"busy", 503, [0, 0, 0]),
        (TYPE_2, b"panic", 500, [0, 0, 0]),
        (TYPE_2, &[0; 100_000], 413, [0, 0, 0]),
        (gzip, b"body", 415, [0, 0, 0]),
    ] {
        let heard = proxy.post(headers, body).await;
        assert_eq!((heard.status, written(&heard)), (status, counts.map(Some)), "{heard:?}");
    }
    for body in [&b"body"[..], b"busy"] {
        let heard = proxy.post(TYPE, body).await;
        assert_eq!(written(&heard), [None; 3], "{heard:?}");
    }
    assert_eq!(proxy.seen().iter().map(|seen| seen.protocol).filter(|p| *p == Protocol::Two).count(), 3);
    proxy.shows("promdedup_requests_total{code=\"204\",protocol=\"2.0\"} 1");
    proxy.shows("promdedup_requests_total{code=\"413\",protocol=\"2.0\"} 1");
}

#[tokio::test]
async fn replies_of_the_service() {
    let proxy = Proxy::start(&[]);
    let heard = proxy.post(TYPE, b"busy").await;
    assert_eq!((heard.status, heard.text.as_str()), (503, "come back\n"));
    assert!(heard.has("retry-after: 7"), "{heard:?}");
}

#[tokio::test]
async fn bodies_that_are_too_big() {
    let proxy = Proxy::start(&[("PROMDEDUP_BODY_MAX", "60KiB"), ("PROMDEDUP_IN_FLIGHT_MAX", "200KiB")]);
    let max = 32 + 61_440 + 61_440 / 6;
    assert_eq!(
        proxy.post(TYPE, &vec![0xff; max]).await.status,
        204,
        "the largest snappy block that can be meant"
    );
    let mut line = Line::open(proxy.address).await;
    line.say(format!(
        "POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}content-length: {}\r\n\r\n",
        max + 1
    ))
    .await;
    let heard = line.hear().await;
    assert_eq!(heard.status, 413, "answered without waiting for the body");
    assert!(heard.text.contains(&format!("at most {max}")), "{heard:?}");
    assert!(line.closes().await);

    let mut line = Line::open(proxy.address).await;
    line.say(format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}transfer-encoding: chunked\r\n\r\n"))
        .await;
    line.say(format!("{:x}\r\n", max + 1)).await;
    line.say(vec![b'x'; max + 1]).await;
    assert_eq!(line.hear().await.status, 413);
    proxy.shows("promdedup_limit_hit_total{limit=\"body\"} 2");
    proxy.shows("promdedup_in_flight_bytes 0");
    proxy.shows("promdedup_in_flight_requests 0");
}

#[tokio::test]
async fn bodies_in_pieces_arrive_whole() {
    let proxy = Proxy::start(&[]);
    let mut line = Line::open(proxy.address).await;
    line.say(format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}transfer-encoding: chunked\r\n\r\n"))
        .await;
    line.say("2\r\nab\r\n3\r\ncde\r\n1\r\nf\r\n0\r\n\r\n").await;
    assert_eq!(line.hear().await.status, 204);
    let large: Vec<u8> = (0..3_000_000_u32).map(|each| each.to_le_bytes()[1] | 0x80).collect();
    assert_eq!(proxy.post(TYPE, &large).await.status, 204);
    assert_eq!(proxy.seen()[0].body, "abcdef");
    assert!(proxy.seen()[1].body == large);
}

#[tokio::test]
async fn a_slow_body_is_cut_off() {
    let proxy = Proxy::start(&[("PROMDEDUP_REQUEST_TIMEOUT", "200ms")]);
    let mut line = Line::open(proxy.address).await;
    line.say(format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}content-length: 10\r\n\r\nab")).await;
    let heard = line.hear().await;
    assert_eq!(heard.status, 408);
    assert!(heard.text.contains("200ms"), "{heard:?}");
    assert!(line.closes().await);
    assert!(proxy.seen().is_empty());
    proxy.shows("promdedup_limit_hit_total{limit=\"request_timeout\"} 1");
}

#[tokio::test]
async fn memory_is_bounded_before_bodies_are_read() {
    let proxy = Proxy::start(&[("PROMDEDUP_BODY_MAX", "1KiB"), ("PROMDEDUP_IN_FLIGHT_MAX", "4KiB")]);
    let mut first = Line::open(proxy.address).await;
    // Claims 1,000 bytes decompressed: reserved too, so that 2,000 of 4,096 bytes are taken.
    let claim = [&[0xe8, 0x07], vec![0; 994].as_slice(), b"wait"].concat();
    first.post("/api/v1/receive", TYPE, &claim).await;
    soon(proxy.fake.waiting.notified()).await;
    proxy.shows("promdedup_in_flight_bytes 2000");
    let mut second = Line::open(proxy.address).await;
    second.post("/api/v1/receive", TYPE, &claim).await;
    soon(proxy.fake.waiting.notified()).await;
    let heard = proxy.post(TYPE, &[0xff; 1000]).await;
    assert_eq!(heard.status, 503);
    assert!(heard.has("retry-after: 1"), "{heard:?}");
    assert!(heard.text.contains("4000 of 4096 bytes"), "{heard:?}");
    proxy.shows("promdedup_limit_hit_total{limit=\"in_flight\"} 1");
    proxy.let_go(2);
    assert_eq!(first.hear().await.status, 204);
    assert_eq!(second.hear().await.status, 204);
    assert_eq!(proxy.post(TYPE, &[0xff; 1000]).await.status, 204);
    proxy.shows("promdedup_in_flight_bytes 0");
}

#[tokio::test]
async fn a_panic_is_one_requests_misfortune() {
    let proxy = Proxy::start(&[("PROMDEDUP_WORKERS", "1")]);
    let mut line = Line::open(proxy.address).await;
    line.post("/api/v1/receive", TYPE, b"panic").await;
    let heard = line.hear().await;
    assert_eq!(heard.status, 500);
    assert_eq!(heard.text.lines().count(), 1);
    line.post("/api/v1/receive", TYPE, b"body").await;
    assert_eq!(line.hear().await.status, 204);
    proxy.shows("promdedup_in_flight_bytes 0");
    proxy.shows("promdedup_in_flight_requests 0");
}

#[tokio::test]
async fn a_sender_that_hangs_up_cancels_nothing() {
    let proxy = Proxy::start(&[]);
    let mut line = Line::open(proxy.address).await;
    line.post("/api/v1/receive", TYPE, b"wait").await;
    soon(proxy.fake.waiting.notified()).await;
    drop(line);
    proxy.let_go(1);
    soon(proxy.fake.ended.notified()).await;
    proxy.drain().await.expect("drained");
}

#[tokio::test]
async fn who_has_said_all_still_hears_the_answer() {
    let proxy = Proxy::start(&[]);
    let mut stream = TcpStream::connect(proxy.address).await.expect("connected");
    let request = format!("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n{TYPE}content-length: 4\r\n\r\nwait");
    stream.write_all(request.as_bytes()).await.expect("said");
    stream.shutdown().await.expect("half closed");
    soon(proxy.fake.waiting.notified()).await;
    proxy.let_go(1);
    let mut line = Line::over(stream);
    assert_eq!(line.hear().await.status, 204);
    assert!(line.closes().await);
}

#[tokio::test]
async fn connections_are_spread_over_named_threads() {
    let proxy = Proxy::start(&[("PROMDEDUP_WORKERS", "3")]);
    let mut lines = Vec::new();
    for _ in 0..6 {
        let mut line = Line::open(proxy.address).await;
        line.post("/api/v1/receive", TYPE, b"body").await;
        line.hear().await;
        lines.push(line);
    }
    let mut threads = proxy.fake.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
    threads.sort();
    threads.dedup();
    assert_eq!(threads, ["promdedup-data-0", "promdedup-data-1", "promdedup-data-2"]);
}

#[tokio::test]
async fn bytes_on_the_wire_are_counted() {
    let proxy = Proxy::start(&[]);
    let mut line = Line::open(proxy.address).await;
    let request = "POST /api/v1/receive HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";
    line.say(request).await;
    let heard = line.hear().await;
    let received = request.len();
    let sent = heard.head.len() + 4;
    proxy.shows(&format!(
        "promdedup_network_bytes_total{{direction=\"received\",side=\"sender\"}} {received}"
    ));
    proxy
        .comes_to_show(&format!("promdedup_network_bytes_total{{direction=\"sent\",side=\"sender\"}} {sent}"))
        .await;
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_turns_the_rest_away() {
    let mut proxy = Proxy::start(&[]);
    let mut idle = Line::open(proxy.address).await;
    idle.post("/api/v1/receive", TYPE, b"body").await;
    assert_eq!(idle.hear().await.status, 204);
    let mut busy = Line::open(proxy.address).await;
    busy.post("/api/v1/receive", TYPE, b"wait").await;
    soon(proxy.fake.waiting.notified()).await;
    drop(proxy.stop.take());
    // Nothing new is accepted once draining has begun.
    soon(async { while TcpStream::connect(proxy.address).await.is_ok() {} }).await;
    idle.post("/api/v1/receive", TYPE, b"body").await;
    let heard = idle.hear().await;
    assert_eq!(heard.status, 503);
    assert!(heard.has("retry-after: 1") && heard.has("connection: close"), "{heard:?}");
    assert!(idle.closes().await);
    proxy.let_go(1);
    assert_eq!(busy.hear().await.status, 204);
    assert!(busy.closes().await);
    proxy.drain().await.expect("drained");
}

#[tokio::test]
async fn draining_has_an_end() {
    let proxy = Proxy::start(&[("PROMDEDUP_DRAIN_TIMEOUT", "100ms")]);
    let mut busy = Line::open(proxy.address).await;
    busy.post("/api/v1/receive", TYPE, b"wait").await;
    soon(proxy.fake.waiting.notified()).await;
    let ended = proxy.drain().await;
    assert!(matches!(ended, Err(ReceiveError::DrainTimeout { left: 1, .. })), "{ended:?}");
    assert!(busy.closes().await);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let proxy = Proxy::start(&[]);
    let address = proxy.address.to_string();
    let config = config("http://127.0.0.1:1/", &[("PROMDEDUP_LISTEN", &address)]).receive;
    let registry = Registry::new();
    let network = NetworkBytes::new(&registry).expect("metrics");
    let limits = LimitHits::new(&registry).expect("metrics");
    let error =
        Receiver::bind(config, Arc::new(Fake::default()), &registry, &network, &CpuTime::off(), &limits)
            .map(|_| ());
    assert!(error.expect_err("taken").to_string().contains(&address));
}
