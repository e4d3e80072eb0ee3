//! The secret between instances: what it opens, and that nobody gets to see it.

use super::instances::{Board, Instance, ONE, SECRET, Wishes, names, sample};
use crate::peer::{Line, Peer as Upstream};
use crate::support::{body, pack};
use crate::tls::Proxy;
use crate::tls::authority::{Authority, Files};
use promdedup::config::ClientTls;
use std::process::Command;
use std::sync::Arc;

fn shows(secret: &str) -> String {
    format!("{ONE}promdedup-peer: {secret}\r\n")
}

async fn failures(instance: &Instance) -> u64 {
    instance.count("promdedup_auth_failures_total", &["reason=\"peer\""]).await
}

#[tokio::test]
async fn instances_with_other_secrets_serve_nothing_for_each_other() {
    let board: Arc<Board> = Arc::default();
    board.gives("c", "one");
    let one = Instance::start(&board, "one").await;
    let wrong = Instance::with(
        &board,
        "wrong",
        Wishes { secret: Some("another-one-of-theirs"), ..Wishes::default() },
    )
    .await;
    let none = Instance::with(&board, "none", Wishes { secret: None, ..Wishes::default() }).await;
    assert_eq!(one.count("promdedup_auth_failures_total", &[]).await, 0, "there from the start");
    let heard = wrong.ask(&[sample("c", "m", "a", 0)]).await;
    assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
    assert!(heard.text.contains("answered 401"), "{heard:?}");
    assert!(heard.has("connection: close"), "another one may be let in: {heard:?}");
    assert_eq!((failures(&one).await, one.got()), (1, vec![]));
    assert_eq!(wrong.count("promdedup_hops_total", &["result=\"refused\""]).await, 1);
    let heard = none.ask(&[sample("c", "m", "a", 0)]).await;
    assert_eq!(heard.status, 503, "{heard:?}");
    assert!(heard.text.contains("there is no secret between instances"), "{heard:?}");
    // And who shows any to one that has none is turned away.
    assert_eq!(none.post(&shows(SECRET), &[0]).await.status, 401);
    assert_eq!((failures(&none).await, failures(&one).await), (1, 1));
}

/// It is shown before any other credentials are asked for, and whose it is has been decided at the other door.
#[tokio::test]
async fn the_secret_opens_whatever_else_is_asked_for() {
    let (board, files): (Arc<Board>, _) = (Arc::default(), Files::new());
    let tokens = files.put("tokens", "t0ken\nfor-acme acme\n");
    let more = [("PROMDEDUP_AUTH_BEARER_FILE", tokens.as_str())];
    let guarded = || Wishes { more: &more, ..Wishes::default() };
    let one = Instance::with(&board, "one", guarded()).await;
    let two = Instance::with(&board, "two", guarded()).await;
    let packed = pack(&body(&[sample("c", "m", "a", 0)], 0));
    let with = |token: &str| format!("{ONE}authorization: Bearer {token}\r\n");
    assert_eq!(one.post(&with("for-acme"), &packed).await.status, 204);
    let heard = two.post(&with("for-acme"), &pack(&body(&[sample("c", "m", "a", 15)], 0))).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    let sent = one.upstream.requests();
    assert_eq!(sent.len(), 2);
    for (headers, _) in &sent {
        assert_eq!(headers["thanos-tenant"], "acme", "the tenant of the token");
        assert!(!headers.contains_key("promdedup-peer") && !headers.contains_key("authorization"));
    }
    assert_eq!(two.got(), vec![]);
    // Nobody else gets in by it.
    assert_eq!(one.post(ONE, &packed).await.status, 401);
    assert_eq!(one.post(&(shows("wrong") + "authorization: Bearer t0ken\r\n"), &packed).await.status, 401);
    assert_eq!(one.post(&shows(SECRET), &packed).await.status, 204);
    assert_eq!(failures(&one).await, 1);
}

/// Without other instances it is a header like any that is not passed on.
#[tokio::test]
async fn without_other_instances_it_means_nothing() {
    for mode in ["dedup", "observe"] {
        let upstream = Upstream::start(204, "").await;
        let proxy = Proxy::start(&upstream.url(), &[("PROMDEDUP_MODE", mode)]);
        let mut line = Line::open(proxy.at.data).await;
        let packed = pack(&body(&[sample("c", "m", "a", 0)], 0));
        line.post("/api/v1/receive", &shows("whatever"), &packed).await;
        let heard = line.hear().await;
        assert_eq!((heard.status, heard.head.contains("written")), (204, false), "{mode}: {heard:?}");
        let sent = upstream.requests();
        assert_eq!(sent.len(), 1);
        assert!(!sent[0].0.contains_key("promdedup-peer"), "{mode}");
    }
}

#[tokio::test]
async fn hops_go_over_tls() {
    let (board, files, authority): (Arc<Board>, _, _) = (Arc::default(), Files::new(), Authority::new());
    board.gives("c", "one");
    let pair = authority.signs("localhost");
    let (certificate, key) = (files.put("tls.crt", &pair.certificate), files.put("tls.key", &pair.key));
    let more = [("PROMDEDUP_TLS_CERT_FILE", certificate.as_str()), ("PROMDEDUP_TLS_KEY_FILE", key.as_str())];
    let served = Wishes { more: &more, scheme: "https", ..Wishes::default() };
    let one = Instance::with(&board, "one", served).await;
    let trusts = |authority: &Authority, name: &str| {
        let authorities = Some(files.put(name, &authority.pem).into());
        Some(ClientTls { authorities, identity: None })
    };
    let two = Wishes { tls: trusts(&authority, "ca.crt"), ..Wishes::default() };
    let two = Instance::with(&board, "two", two).await;
    assert_eq!(two.ask(&[sample("c", "m", "a", 0)]).await.status, 204);
    assert_eq!(one.got(), names(&[("m", 1)]));
    let stranger = Wishes { tls: trusts(&Authority::new(), "other.crt"), ..Wishes::default() };
    let stranger = Instance::with(&board, "stranger", stranger).await;
    let plain = Instance::start(&board, "plain").await;
    for (from, words) in [(&stranger, "invalid peer certificate"), (&plain, "TLS has not been set up")] {
        let heard = from.ask(&[sample("c", "m", "a", 15)]).await;
        assert_eq!(heard.status, 503, "{heard:?}");
        assert!(heard.text.contains(words), "{heard:?}");
    }
    assert_eq!(one.got().len(), 1);
}

/// The addresses of pods are in no certificate, and all pods have the same one.
#[tokio::test]
async fn what_certificates_name_may_be_said_apart_from_the_address() {
    let (board, files, authority): (Arc<Board>, _, _) = (Arc::default(), Files::new(), Authority::new());
    board.gives("c", "one");
    let pair = authority.signs("promdedup.thanos.svc");
    let (certificate, key) = (files.put("tls.crt", &pair.certificate), files.put("tls.key", &pair.key));
    let more = [("PROMDEDUP_TLS_CERT_FILE", certificate.as_str()), ("PROMDEDUP_TLS_KEY_FILE", key.as_str())];
    let served = Wishes { more: &more, scheme: "https", ..Wishes::default() };
    let one = Instance::with(&board, "one", served).await;
    let authorities = files.put("ca.crt", &authority.pem);
    for (name, server_name, status) in [
        ("two", Some("promdedup.thanos.svc"), 204),
        ("three", None, 503),
        ("four", Some("promdedup.other.svc"), 503),
    ] {
        let tls = Some(ClientTls { authorities: Some(authorities.clone().into()), identity: None });
        let from = Instance::with(&board, name, Wishes { tls, server_name, ..Wishes::default() }).await;
        let heard = from.ask(&[sample("c", "m", "a", 0)]).await;
        assert_eq!(heard.status, status, "{name}: {heard:?}");
        assert_eq!(heard.text.contains("invalid peer certificate"), status == 503, "{name}: {heard:?}");
    }
    assert_eq!(one.got(), names(&[("m", 1)]));
}

/// The story of the test below, with a log that says all there is.
#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn a_loud_hop() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stderr).init();
    let board: Arc<Board> = Arc::default();
    board.gives("c", "one");
    let (one, two) = (Instance::start(&board, "one").await, Instance::start(&board, "two").await);
    let wrong = Instance::with(
        &board,
        "wrong",
        Wishes { secret: Some("another-s3cret-of-theirs"), ..Wishes::default() },
    )
    .await;
    for from in [&one, &two, &wrong] {
        let heard = from.ask(&[sample("c", "m", "a", 0), sample("d", "m", "a", 0)]).await;
        assert!(!heard.text.contains("s3cret"), "{heard:?}");
        assert!(!from.metrics().await.contains("s3cret"));
    }
    assert!(!format!("{one:?}{two:?}", one = one.seat, two = two.seat).contains("s3cret"));
}

#[test]
fn the_secret_appears_nowhere() {
    let mut story = Command::new(std::env::current_exe().unwrap());
    story.args(["--exact", "hop::secrets::a_loud_hop", "--ignored", "--nocapture"]);
    let ended = story.output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{text}");
    assert!(text.contains("1 passed") && text.contains("hyper"), "it was not loud: {text}");
    assert!(text.contains("another instance does not take what is passed on to it"), "{text}");
    let shown: Vec<_> = text.lines().filter(|line| line.contains("s3cret")).collect();
    assert_eq!(shown, Vec::<&str>::new());
}
