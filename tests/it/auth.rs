//! Who may write, and as whom.

mod oidc;

use crate::command::terminate;
use crate::peer::{Heard, Line, Peer, soon};
use crate::serving::Serving;
use crate::tls::Proxy;
use crate::tls::authority::Files;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const PATH: &str = "/api/v1/receive";

/// A line of htpasswd. Costs above 4 are for tests in which bcrypt has to be slow.
fn user(name: &str, password: &str, cost: u32) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, cost).expect("a hash"))
}

fn basic(name: &str, password: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

async fn post(proxy: &Proxy, headers: &str, body: &[u8]) -> Heard {
    let mut line = Line::open(proxy.at.data).await;
    line.post(PATH, headers, body).await;
    line.hear().await
}

/// An empty remote write.
async fn status(proxy: &Proxy, headers: &str) -> u16 {
    post(proxy, headers, &[0]).await.status
}

fn failures(metrics: &str) -> Vec<(String, u64)> {
    let lines =
        metrics.lines().filter_map(|line| line.strip_prefix("promdedup_auth_failures_total{reason=\""));
    lines
        .map(|line| {
            let (reason, count) = line.split_once("\"} ").expect("a count");
            (reason.to_owned(), count.parse().expect("a number"))
        })
        .collect()
}

/// Of all reasons there are, which are there from the start.
fn counts(missing: u64, tenant: u64, wrong: u64) -> Vec<(String, u64)> {
    let others = ["busy", "certificate", "expired", "peer", "unavailable"].map(|reason| (reason, 0));
    let mut all: Vec<_> = others.into_iter().collect();
    all.extend([("missing", missing), ("tenant", tenant), ("wrong", wrong)]);
    all.sort_unstable();
    all.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

fn counts_of(metrics: &str, reasons: &[&str]) -> Vec<u64> {
    let all = failures(metrics);
    let of = |reason: &&str| all.iter().find(|(found, _)| found == reason).expect("a reason").1;
    reasons.iter().map(of).collect()
}

fn checks(metrics: &str) -> u64 {
    let name = "promdedup_auth_password_checks_total ";
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).expect("a count")
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let files = Files::new();
    let passwords = files.put("users", user("alice", "open:sesame", 4) + &user("bob", "b", 4));
    let tokens = files.put("tokens", "# ours\nt0ken\n");
    let proxy = Proxy::start(
        "http://127.0.0.1:1/",
        &[("PROMDEDUP_AUTH_BASIC_FILE", &passwords), ("PROMDEDUP_AUTH_BEARER_FILE", &tokens)],
    );
    assert_eq!(failures(&proxy.metrics().await), counts(0, 0, 0), "there from the start");
    for good in [basic("alice", "open:sesame"), basic("bob", "b"), bearer("t0ken"), bearer(" t0ken ")] {
        assert_eq!(status(&proxy, &good).await, 204, "{good}");
    }
    assert_eq!(status(&proxy, "Authorization: bAsIc YWxpY2U6b3BlbjpzZXNhbWU=\r\n").await, 204);
    let heard = post(&proxy, "", &[0]).await;
    assert_eq!(heard.status, 401);
    assert!(heard.has("www-authenticate: basic realm=\"promdedup\", charset=\"utf-8\""), "{heard:?}");
    assert!(heard.has("www-authenticate: bearer realm=\"promdedup\""), "{heard:?}");
    assert!(heard.has("connection: close"), "{heard:?}");
    let wrong = [
        basic("alice", "open"),
        basic("alice", "b"),
        basic("nobody", "b"),
        basic("", ""),
        bearer("t0ke"),
        bearer("t0ken "), // a header's end is no part of it, so this one is right
        bearer(""),
        "authorization: Basic t0ken\r\n".to_owned(),
        "authorization: Bearer YWxpY2U6b3BlbjpzZXNhbWU=\r\n".to_owned(),
        "authorization: Digest t0ken\r\n".to_owned(),
        "authorization: t0ken\r\n".to_owned(),
        "authorization: \r\n".to_owned(),
        bearer("t0ken") + &bearer("t0ken"),
        format!("authorization: Basic {}\r\n", "A".repeat(2000)),
    ];
    let mut refused = 0;
    for each in &wrong {
        let expected = if *each == bearer("t0ken ") { 204 } else { 401 };
        assert_eq!(status(&proxy, each).await, expected, "{each}");
        refused += u64::from(expected == 401);
    }
    assert_eq!(failures(&proxy.metrics().await), counts(1, 0, refused));
    // Nobody learns what there is, either.
    for (method, path) in [("GET", PATH), ("POST", "/elsewhere")] {
        let mut line = Line::open(proxy.at.data).await;
        line.say(format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(line.hear().await.status, 401, "{method} {path}");
    }
    let metrics = proxy.metrics().await;
    assert!(
        metrics
            .contains(&format!("promdedup_requests_total{{code=\"401\",protocol=\"1.0\"}} {}", refused + 3))
    );
}

#[tokio::test]
async fn one_way_in_is_no_other() {
    let files = Files::new();
    let tokens = files.put("tokens", "t0ken\n");
    let proxy = Proxy::start("http://127.0.0.1:1/", &[("PROMDEDUP_AUTH_BEARER_FILE", &tokens)]);
    let heard = post(&proxy, &basic("alice", "a"), &[0]).await;
    assert_eq!(heard.status, 401);
    assert!(!heard.head.contains("basic realm"), "{heard:?}");
    // 2.0 senders are told on every answer that nothing was written.
    let two = "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    let heard = post(&proxy, two, &[0]).await;
    assert_eq!(heard.status, 401);
    assert!(heard.has("x-prometheus-remote-write-samples-written: 0"), "{heard:?}");
}

#[tokio::test]
async fn nothing_of_a_strangers_body_is_read() {
    let files = Files::new();
    let tokens = files.put("tokens", "t0ken\n");
    let proxy = Proxy::start("http://127.0.0.1:1/", &[("PROMDEDUP_AUTH_BEARER_FILE", &tokens)]);
    let mut line = Line::open(proxy.at.data).await;
    line.say(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")).await;
    assert_eq!(line.hear().await.status, 401, "answered before the body is there");
    assert!(line.closes().await);
    let mut line = Line::open(proxy.at.data).await;
    line.say(format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n"
    ))
    .await;
    assert_eq!(line.hear().await.status, 401, "nobody is asked to go on");
    let received = |metrics: &str| {
        let name = "promdedup_network_bytes_total{direction=\"received\",side=\"sender\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok()).expect("a count")
    };
    let before = received(&proxy.metrics().await);
    let mut line = Line::open(proxy.at.data).await;
    line.say(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n")).await;
    let body = vec![0; 1 << 16];
    for _ in 0..20_000_000 / body.len() {
        line.try_say(&body).await;
    }
    line.rest().await;
    let read = received(&proxy.metrics().await) - before;
    assert!(read < 1_000_000, "{read} bytes of a stranger were read");
    // Not looked into: of a friend it would be 400, and counted.
    assert_eq!(post(&proxy, "", b"not snappy").await.status, 401);
    assert_eq!(post(&proxy, &bearer("t0ken"), b"not snappy").await.status, 400);
}

/// `up{} 0 0`, which has no replica label and so goes on as it is.
fn minimal() -> Vec<u8> {
    let raw = [&[0x0a, 18, 0x0a, 14, 0x0a, 8][..], b"__name__", &[0x12, 2], b"up", &[0x12, 0]].concat();
    snap::raw::Encoder::new().compress_vec(&raw).expect("compressed")
}

#[tokio::test]
async fn a_token_of_a_tenant_is_good_for_that_one() {
    let files = Files::new();
    let tokens = files.put("tokens", "any\nours team-a\n");
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[("PROMDEDUP_AUTH_BEARER_FILE", &tokens)]);
    let tenant = |name: &str| format!("thanos-tenant: {name}\r\n");
    for (headers, status, passed_on) in [
        (bearer("any"), 204, Some(None)),
        (bearer("any") + &tenant("team-b"), 204, Some(Some("team-b"))),
        (bearer("ours"), 204, Some(Some("team-a"))),
        (bearer("ours") + &tenant(""), 204, Some(Some("team-a"))),
        (bearer("ours") + &tenant("team-a"), 204, Some(Some("team-a"))),
        (bearer("ours") + &tenant("team-b"), 403, None),
        (bearer("ours") + &tenant("team-b") + &tenant("team-a"), 403, None),
        (bearer("ours") + &tenant("team-a") + &tenant("team-b"), 204, Some(Some("team-a"))),
        (bearer("ours") + &tenant("TEAM-A"), 403, None),
    ] {
        let before = peer.requests().len();
        assert_eq!(post(&proxy, &headers, &minimal()).await.status, status, "{headers}");
        let sent = &peer.requests()[before..];
        let of = |headers: &http::HeaderMap| {
            assert_eq!(headers.get("authorization"), None, "it is not passed on");
            let tenants: Vec<_> = headers.get_all("thanos-tenant").iter().collect();
            assert!(tenants.len() < 2, "{tenants:?}");
            tenants.first().map(|tenant| tenant.to_str().expect("text").to_owned())
        };
        let tenants: Vec<_> = sent.iter().map(|(headers, _)| of(headers)).collect();
        let expected: Vec<_> = passed_on.into_iter().map(|tenant| tenant.map(str::to_owned)).collect();
        assert_eq!(tenants, expected, "{headers}");
    }
    assert_eq!(failures(&proxy.metrics().await), counts(0, 3, 0));
}

#[tokio::test]
async fn a_password_is_checked_once_right_or_wrong() {
    let files = Files::new();
    let passwords = files.put("users", user("alice", "a", 8));
    let proxy = Proxy::start("http://127.0.0.1:1/", &[("PROMDEDUP_AUTH_BASIC_FILE", &passwords)]);
    // A sender comes with many connections at one time.
    let mut lines = Vec::new();
    for _ in 0..20 {
        let mut line = Line::open(proxy.at.data).await;
        line.post(PATH, &basic("alice", "a"), &[0]).await;
        lines.push(line);
    }
    for line in &mut lines {
        assert_eq!(line.hear().await.status, 204);
    }
    assert_eq!(checks(&proxy.metrics().await), 1);
    for _ in 0..3 {
        assert_eq!(status(&proxy, &basic("alice", "b")).await, 401);
    }
    assert_eq!(status(&proxy, &basic("alice", "a")).await, 204);
    assert_eq!(checks(&proxy.metrics().await), 2);
    assert_eq!(status(&proxy, &basic("nobody", "a")).await, 401);
    assert_eq!(checks(&proxy.metrics().await), 3, "a user that does not exist costs as much");
}

#[tokio::test]
async fn guesses_hold_up_nobody_who_is_known() {
    let files = Files::new();
    let passwords = files.put("users", user("alice", "a", 4) + &user("slow", "s", 13));
    let more = [("PROMDEDUP_AUTH_BASIC_FILE", &passwords[..]), ("PROMDEDUP_WORKERS", "1")];
    let proxy = Proxy::start("http://127.0.0.1:1/", &more);
    assert_eq!(status(&proxy, &basic("alice", "a")).await, 204);
    let mut guesses = Vec::new();
    for number in 0..3 {
        let mut line = Line::open(proxy.at.data).await;
        line.post(PATH, &basic("slow", &number.to_string()), &[0]).await;
        guesses.push(line);
    }
    let guessed = async {
        for line in &mut guesses {
            assert_eq!(line.hear().await.status, 401);
        }
    };
    let known = async {
        for _ in 0..10 {
            assert_eq!(status(&proxy, &basic("alice", "a")).await, 204);
        }
    };
    // Three guesses take a second or more, one after the other; whoever is known is served in between by the same thread.
    tokio::select! {
        biased;
        () = known => {}
        () = guessed => panic!("the guesses came first"),
    }
}

#[tokio::test]
async fn too_many_guesses_are_told_to_come_back() {
    let files = Files::new();
    let passwords = files.put("users", user("slow", "s", 12));
    let more = [
        ("PROMDEDUP_AUTH_BASIC_FILE", &passwords[..]),
        ("PROMDEDUP_WORKERS", "1"),
        ("PROMDEDUP_REQUEST_TIMEOUT", "50ms"),
    ];
    let proxy = Proxy::start("http://127.0.0.1:1/", &more);
    let mut lines = Vec::new();
    for number in 0..4 {
        let mut line = Line::open(proxy.at.data).await;
        line.post(PATH, &basic("slow", &number.to_string()), &[0]).await;
        lines.push(line);
    }
    let mut heard = Vec::new();
    for line in &mut lines {
        heard.push(line.hear().await);
    }
    let busy: Vec<_> = heard.iter().filter(|heard| heard.status == 503).collect();
    assert!(!busy.is_empty() && busy.len() < 4, "{heard:?}");
    assert!(busy.iter().all(|heard| heard.has("retry-after: 1")), "{heard:?}");
    let metrics = proxy.metrics().await;
    let hit = format!("promdedup_limit_hit_total{{limit=\"password_checks\"}} {}", busy.len());
    assert!(metrics.lines().any(|line| line == hit), "{metrics}");
}

#[tokio::test]
async fn files_are_read_again() {
    let files = Files::new();
    let passwords = files.put("users", user("alice", "a", 4));
    let tokens = files.put("tokens", "old\n");
    let proxy = Proxy::start(
        "http://127.0.0.1:1/",
        &[("PROMDEDUP_AUTH_BASIC_FILE", &passwords), ("PROMDEDUP_AUTH_BEARER_FILE", &tokens)],
    );
    assert_eq!(status(&proxy, &basic("alice", "a")).await, 204, "remembered as right");
    assert_eq!(status(&proxy, &basic("alice", "b")).await, 401, "remembered as wrong");
    files.put("users", user("alice", "b", 4));
    files.put("tokens", "new\n");
    soon(async { while status(&proxy, &basic("alice", "b")).await != 204 {} }).await;
    assert_eq!(status(&proxy, &basic("alice", "a")).await, 401);
    soon(async { while status(&proxy, &bearer("new")).await != 204 {} }).await;
    assert_eq!(status(&proxy, &bearer("old")).await, 401);
}

#[tokio::test]
async fn credentials_appear_nowhere() {
    let files = Files::new();
    let passwords = files.put("users", user("alice", "p4ssw0rd", 4));
    let tokens = files.put("tokens", "t0kent0ken\nt0kenoften team-a\n");
    let own = files.put("own", "upstr3am\n");
    let admin = files.put("admin", user("ops", "4dm1n", 4));
    let peer = Peer::start(200, "").await;
    let mut serving = Serving::start(&[
        ("PROMDEDUP_UPSTREAM_URL", &peer.url()),
        ("PROMDEDUP_AUTH_BASIC_FILE", &passwords),
        ("PROMDEDUP_AUTH_BEARER_FILE", &tokens),
        ("PROMDEDUP_UPSTREAM_BEARER_FILE", &own),
        ("PROMDEDUP_UPSTREAM_HEADERS", "X-Key: k3yofours"),
        ("PROMDEDUP_ADMIN_BASIC_FILE", &admin),
        ("PROMDEDUP_LOG", "trace"),
    ])
    .await;
    let mut said = String::new();
    for headers in [
        basic("alice", "p4ssw0rd"),
        basic("alice", "p4ssw0rdx"),
        basic("p4ssw0rd", "t0kent0ken"),
        bearer("t0kent0ken"),
        bearer("t0kent0kenx"),
        bearer("t0kenoften") + "thanos-tenant: team-b\r\n",
    ] {
        let mut line = Line::open(serving.address).await;
        line.post(PATH, &headers, &minimal()).await;
        let heard = line.hear().await;
        said += &format!("{heard:?}\n");
    }
    assert_eq!(peer.requests()[0].0.get("authorization").expect("ours"), "Bearer upstr3am");
    // What is wrong with a file is told without telling what is in it.
    files.put("tokens", "t0kent0ken\nt0kenoften team-a more\n");
    serving.logs("ERROR", "stays in force").await;
    files.put("users", "alice:p4ssw0rd\n");
    serving.logs("ERROR", "stays in force").await;
    for headers in [basic("ops", "4dm1n"), basic("ops", "4dm1nx"), String::new()] {
        for path in ["/metrics", "/", "/-/ready", "/-/healthy", "/api/v1/status", "/nowhere"] {
            let heard = Line::open(serving.admin).await.get(path, &headers).await;
            said += &format!("{heard:?}\n");
        }
    }
    terminate(&serving.child);
    soon(serving.ended()).await;
    let log: String = serving.log.iter().map(|line| format!("{line}\n")).collect();
    assert!(
        log.contains("is wrong in line 2: more than") && log.contains("is wrong in line 1: not a bcrypt"),
        "{log}"
    );
    assert!(log.contains("request refused"), "the log is as loud as it can be");
    let coded = STANDARD.encode("alice:p4ssw0rd");
    let coded_admin = STANDARD.encode("ops:4dm1n");
    let secrets =
        ["p4ssw0rd", "t0ken", "upstr3am", "k3yofours", "4dm1n", &coded[..12], &coded_admin[..10], "$2b$"];
    for secret in secrets {
        for (what, text) in [("the log", &log), ("an answer", &said)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in {what}");
        }
    }
}
