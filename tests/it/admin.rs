//! Metrics and probes of the wired process.

mod placement;

use crate::peer::{Line, Peer, config, soon};
use crate::tls::authority::Files;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use promdedup::app::{Addresses, App};
use promdedup::stand_in::request::Body;
use std::io::{Read, Write};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    at: Addresses,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<()>>,
}

async fn start(url: &str, more: &[(&str, &str)]) -> Running {
    let app = App::build(config(url, more)).expect("built");
    let at = app.addresses();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(app.run(async { drop(stopped.await) }));
    let running = Running { at, stop, ended };
    soon(async { while !running.ready().await.0 {} }).await;
    running
}

impl Running {
    async fn ready(&self) -> (bool, String) {
        let heard = Line::open(self.at.admin).await.get("/-/ready", "").await;
        assert!(matches!(heard.status, 200 | 503), "{heard:?}");
        (heard.status == 200, heard.text)
    }

    async fn write(&self) -> u16 {
        let mut line = Line::open(self.at.data).await;
        // Without a replica label each goes to the upstream.
        let body = Body::new().series(&[("__name__", "m")], &[(1, 1.0)]).compressed();
        line.post("/api/v1/receive", "content-encoding: snappy\r\n", &body).await;
        line.hear().await.status
    }
}

#[tokio::test]
async fn metrics_in_both_formats() {
    let peer = Peer::start(200, "").await;
    let running = start(&peer.url(), &[]).await;
    let mut line = Line::open(running.at.admin).await;
    let heard = line.get("/metrics", "").await;
    assert!(heard.has("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", heard.head);
    let build_info = format!("promdedup_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    for line in
        [build_info.as_str(), "# TYPE process_cpu_seconds_total counter", "promdedup_in_flight_requests 0"]
    {
        assert!(heard.text.lines().any(|each| each == line), "{line} is not in:\n{}", heard.text);
    }
    let heard = line.get("/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert!(
        heard.has("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{}",
        heard.head
    );
    assert!(heard.text.ends_with("# EOF\n"));
    assert!(heard.text.contains("# TYPE process_cpu_seconds counter"));
}

#[tokio::test]
async fn other_pages() {
    let peer = Peer::start(200, "").await;
    let running = start(&peer.url(), &[]).await;
    let mut line = Line::open(running.at.admin).await;
    assert_eq!(line.get("/-/healthy", "").await.status, 200);
    assert_eq!(line.get("/", "").await.status, 200);
    assert_eq!(line.get("/nothing", "").await.status, 404);
}

#[tokio::test]
async fn readiness_follows_the_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let url = format!("http://{address}/api/v1/receive");
    let running = start(&url, &[("PROMDEDUP_UPSTREAM_TIMEOUT", "200ms")]).await;
    assert!(running.ready().await.0, "nobody has tried yet");
    soon(async {
        while running.ready().await.0 {
            assert_eq!(running.write().await, 503);
        }
    })
    .await;
    let (_, why) = running.ready().await;
    assert!(why.contains("upstream") && why.contains("refused"), "{why}");
    let back = Peer::on(TcpListener::bind(address).await.expect("bound again"), 200, "");
    soon(async { while !running.ready().await.0 {} }).await;
    assert!(!back.requests().is_empty(), "it tried by itself");
    assert_eq!(running.write().await, 204);
}

#[tokio::test]
async fn an_upstream_that_judges_data_is_alive() {
    let peer = Peer::start(409, "add 1 samples: out of order sample").await;
    let running = start(&peer.url(), &[("PROMDEDUP_UPSTREAM_TIMEOUT", "50ms")]).await;
    let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
    while std::time::Instant::now() < until {
        running.write().await;
        assert!(running.ready().await.0);
    }
}

#[tokio::test]
async fn the_process_ends_when_asked() {
    let peer = Peer::start(200, "").await;
    let running = start(&peer.url(), &[]).await;
    drop(running.stop);
    soon(running.ended).await.expect("no panic").expect("drained");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    for name in ["PROMDEDUP_LISTEN", "PROMDEDUP_ADMIN_LISTEN"] {
        let error = App::build(config("http://127.0.0.1:1/", &[(name, &address)])).map(|_| ());
        let text = format!("{:#}", error.expect_err("taken"));
        assert!(text.contains(&address), "{text}");
    }
}

#[tokio::test]
async fn pages_may_ask_for_a_password_and_probes_do_not() {
    let (peer, files) = (Peer::start(200, "").await, Files::new());
    let users = files.put("admin", format!("ops:{}\n", bcrypt::hash("0ps", 4).expect("a hash")));
    let running = start(&peer.url(), &[("PROMDEDUP_ADMIN_BASIC_FILE", &users)]).await;
    let get = async |path: &str, credentials: &str| {
        let coded = STANDARD.encode(credentials);
        let header =
            if credentials.is_empty() { String::new() } else { format!("authorization: Basic {coded}\r\n") };
        Line::open(running.at.admin).await.get(path, &header).await
    };
    for path in ["/", "/metrics", "/api/v1/status", "/nowhere"] {
        for credentials in ["", "ops:", "ops:0pz", "root:0ps"] {
            let heard = get(path, credentials).await;
            assert_eq!(heard.status, 401, "{path} {credentials}");
            assert!(heard.has("www-authenticate: basic realm=\"promdedup\", charset=\"utf-8\""), "{heard:?}");
            assert!(heard.has("connection: close") && heard.text.lines().count() == 1, "{heard:?}");
        }
        let there = if path == "/nowhere" { 404 } else { 200 };
        assert_eq!(get(path, "ops:0ps").await.status, there, "{path}");
    }
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(get(path, "").await.status, 200, "{path}");
    }
    let metrics = get("/metrics", "ops:0ps").await.text;
    for line in ["promdedup_admin_auth_failures_total 16", "promdedup_admin_auth_password_checks_total 4"] {
        assert!(metrics.lines().any(|each| each == line), "{line}: {metrics}");
    }
    assert_eq!(running.write().await, 204, "senders are asked for none");
    files.put("admin", format!("ops:{}\n", bcrypt::hash("other", 4).expect("a hash")));
    soon(async { while get("/metrics", "ops:other").await.status != 200 {} }).await;
    assert_eq!(get("/metrics", "ops:0ps").await.status, 401);
}

/// The kubelet's probe must find its answer, or a process that works would be killed.
#[tokio::test]
async fn who_holds_many_connections_keeps_no_probe_from_its_answer() {
    let peer = Peer::start(200, "").await;
    let running = start(&peer.url(), &[]).await;
    let mut scraper = Line::open(running.at.admin).await;
    assert_eq!(scraper.get("/metrics", "").await.status, 200);
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut line = Line::open(running.at.admin).await;
        line.try_say(if number % 2 == 0 { "" } else { "GET /-/ready HTT" }).await;
        silent.push(line);
        if number % 20 == 0 {
            assert!(running.ready().await.0);
        }
    }
    assert!(running.ready().await.0);
    let metrics = Line::open(running.at.admin).await.get("/metrics", "").await.text;
    let name = "promdedup_limit_hit_total{limit=\"admin_connections\"} ";
    let hit: u64 = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).expect("a count");
    assert!(hit >= 200 - 64, "{hit}");
}

/// All at one moment: who was let in last must not be the first to go, before anybody has looked at what he says.
#[tokio::test]
async fn a_burst_of_connections_keeps_no_probe_from_its_answer() {
    let peer = Peer::start(200, "").await;
    let running = start(&peer.url(), &[]).await;
    let connect = || std::net::TcpStream::connect(running.at.admin).expect("connected");
    for round in 0..30 {
        let mut probe = connect();
        probe.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("said");
        let silent: Vec<_> = (0..100).map(|_| connect()).collect();
        let mut answer = String::new();
        let heard = probe.read_to_string(&mut answer);
        assert!(heard.is_ok() && answer.starts_with("HTTP/1.1 200"), "round {round}: {heard:?} {answer:?}");
        drop(silent);
    }
}
