//! `check` and the senders: a sample of what they send, and what they say of their configuration.

use super::ran;
use crate::peer::{Peer, soon};
use crate::support::{STALE, Ts, body, pack, two};
use crate::tls::authority::Files;
use axum::Router;
use axum::routing::get;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

/// Exit code, and what it says after the configuration and before the upstream.
async fn check(arguments: &[&str], more: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let peer = Peer::start(200, "").await;
    let arguments: Vec<String> = [&["check"], arguments].concat().into_iter().map(str::to_owned).collect();
    let more: Vec<(String, String)> =
        more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let ran = spawn_blocking(move || {
        let url = peer.url();
        let mut environment = vec![("PROMDEDUP_UPSTREAM_URL", url.as_str())];
        environment.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        ran(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &environment)
    });
    let (code, stdout, stderr) = soon(ran).await.expect("no panic");
    let lines: Vec<_> = stdout.lines().map(str::to_owned).collect();
    let [first, between @ .., last] = &lines[..] else { panic!("{stdout}{stderr}") };
    assert_eq!(first, "configuration: ok");
    assert!(last.ends_with("/api/v1/receive: ok, took an empty remote write"), "{last}");
    (code, between.to_vec())
}

/// In order, a line has each of these in it, and there is no other.
fn says(lines: &[String], expected: &[&str]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "{words:?} is not in {line:?}");
    }
}

#[tokio::test]
async fn a_sample_body_says_whose_series_it_has() {
    let files = Files::new();
    let series = ["a", "b"].map(|name| Ts::new(name).replica("k8s-0").at(1).bits_at(STALE, 2));
    let one = files.put("one", pack(&body(&series, 1)));
    let other = files.put("two", pack(&two(&series).encode_to_vec()));
    for (path, version) in [(one, "1.0"), (other, "2.0")] {
        let (code, lines) = check(&["--sample-body", &path], &[]).await;
        assert_eq!(code, Some(0));
        says(
            &lines,
            &[
                &format!(": ok, remote write {version}, 2 series, 4 samples"),
                ": ok, 2 series of the group \"e2e/mon/k8s\", replica \"k8s-0\"",
            ],
        );
    }
}

/// A Prometheus sends such ones, too.
#[tokio::test]
async fn a_sample_body_of_metadata_alone_is_one() {
    let files = Files::new();
    let path = files.put("metadata", pack(&body(&[], 3)));
    let (code, lines) = check(&["--sample-body", &path], &[]).await;
    assert_eq!(code, Some(0), "{lines:#?}");
    says(
        &lines,
        &[
            "ok, remote write 1.0, 0 series, 0 samples, 3 entries of metadata",
            "warning, there is no series in it",
        ],
    );
}

#[tokio::test]
async fn a_sample_body_without_replica_or_group_label_is_a_warning() {
    let files = Files::new();
    let series = [
        Ts::new("a").label("replica", "0").at(1),
        Ts::raw(&[("__name__", "b"), ("prometheus_replica", "")]).at(1),
        Ts::raw(&[("job", "nameless")]).at(1),
    ];
    let path = files.put("body", pack(&body(&series, 0)));
    let (code, lines) = check(&["--sample-body", &path], &[]).await;
    assert_eq!(code, Some(0), "warnings do not fail");
    says(
        &lines,
        &[
            "ok, remote write 1.0, 3 series, 3 samples",
            "warning, 1 of 3 series would be refused: series 3: series has no __name__",
            "warning, 1 series of the group \"\" have no replica label (prometheus_replica, __replica__)",
            "warning, 1 series have none of the labels cluster, prometheus",
            "warning, 1 series of the group \"e2e/mon/k8s\" have no replica label (prometheus_replica, __replica__), so they are forwarded untouched: they have replica: name it",
        ],
    );
    let (_, lines) = check(&["--sample-body", &path], &[("PROMDEDUP_REPLICA_LABELS", "replica")]).await;
    assert!(lines.iter().any(|line| line.contains("group \"e2e/mon/k8s\", replica \"0\"")), "{lines:#?}");
}

#[tokio::test]
async fn a_sample_body_that_is_none_fails() {
    let files = Files::new();
    let plain = files.put("plain", "# TYPE a gauge\na 1\n");
    let other = files.put("other", pack(b"\x0f\x0f\x0f\x0f"));
    for (path, words) in [(&plain[..], "snappy"), (&other, "neither"), ("/no/such/file", "cannot be read")] {
        let (code, lines) = check(&["--sample-body", path], &[]).await;
        assert_eq!(code, Some(1), "{lines:#?}");
        assert!(lines[0].contains(": failed, ") && lines[0].contains(words), "{words:?}: {lines:#?}");
    }
}

/// A Prometheus that says no more than what its configuration is.
async fn prometheus(yaml: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/prefix/", listener.local_addr().expect("an address"));
    let answer = json!({ "status": "success", "data": { "yaml": yaml } }).to_string();
    let router = Router::new().route("/prefix/api/v1/status/config", get(async move || answer));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("served") });
    url
}

fn configuration(labels: &[(&str, &str)], more: &str) -> String {
    let labels: String = labels.iter().map(|(name, value)| format!("    {name}: {value}\n")).collect();
    format!(
        "global:\n  external_labels:\n{labels}remote_write:\n- url: http://promdedup:19290/api/v1/receive\n{more}"
    )
}

#[tokio::test]
async fn replicas_that_fit_are_well() {
    let labels = |replica| [("cluster", "e2e"), ("prometheus", "mon/k8s"), ("prometheus_replica", replica)];
    let queue =
        "  queue_config:\n    max_samples_per_send: 2000\n    max_backoff: 5s\n    sample_age_limit: 0s\n";
    let a = prometheus(&configuration(&labels("k8s-0"), queue)).await;
    let b = prometheus(&configuration(&labels("k8s-1"), queue)).await;
    let (code, lines) = check(&["--prometheus-url", &format!("{a},{b}")], &[]).await;
    assert_eq!(code, Some(0));
    says(
        &lines,
        &[
            "ok, external labels {cluster=\"e2e\", prometheus=\"mon/k8s\", prometheus_replica=\"k8s-0\"}",
            "ok, external labels {cluster=\"e2e\", prometheus=\"mon/k8s\", prometheus_replica=\"k8s-1\"}",
            "group \"e2e/mon/k8s\": ok, 2 replicas, which differ in the replica label only",
        ],
    );
    let (code, lines) = check(&["--prometheus-url", &a], &[]).await;
    assert_eq!((code, lines.len()), (Some(0), 2));
    assert!(lines[1].contains("group \"e2e/mon/k8s\": warning, one replica only"), "{lines:#?}");
}

#[tokio::test]
async fn replicas_that_do_not_fit_each_other_are_warned_of() {
    let labels = |replica, zone| [("prometheus", "k8s"), ("prometheus_replica", replica), ("zone", zone)];
    let a = prometheus(&configuration(&labels("k8s-0", "x"), "")).await;
    let b = prometheus(&configuration(&labels("k8s-0", "y"), "")).await;
    let (code, lines) = check(&["--prometheus-url", &a, "--prometheus-url", &b], &[]).await;
    assert_eq!(code, Some(0), "warnings do not fail");
    says(
        &lines[2..],
        &[
            "warning, http://127.0.0.1:", // is called as another one is
            "group \"k8s\": warning, external labels differ in zone",
        ],
    );
    assert!(lines[2].contains("is called \"k8s-0\" as another one is"), "{lines:#?}");
    // Another group is another identity.
    let c = prometheus(&configuration(&[("prometheus", "other"), ("prometheus_replica", "k8s-1")], "")).await;
    let (_, lines) = check(&["--prometheus-url", &a, "--prometheus-url", &c], &[]).await;
    assert_eq!(
        lines.iter().filter(|line| line.contains("warning, one replica only")).count(),
        2,
        "{lines:#?}"
    );
}

#[tokio::test]
async fn odd_settings_of_a_replica_are_warned_of() {
    let labels = [("prometheus", "k8s"), ("__replica__", "0")];
    let odd = "  write_relabel_configs:\n  - regex: __rep.*\n    action: labeldrop\n  - regex: rep.*\n    action: labeldrop\n  queue_config:\n    max_samples_per_send: 100000\n    max_backoff: 1m\n    sample_age_limit: 30m\n";
    let url = prometheus(&configuration(&labels, odd)).await;
    let (code, lines) = check(&["--prometheus-url", &url], &[]).await;
    assert_eq!(code, Some(0), "warnings do not fail");
    says(
        &lines[1..5],
        &[
            "warning, its labeldrop \"__rep.*\" takes the replica label __replica__ away",
            "warning, max_backoff is 1m: raise PROMDEDUP_FIRST_CONTACT_HOLD (6s)",
            "warning, sample_age_limit is 30m",
            "warning, max_samples_per_send is 100000",
        ],
    );
    let bare = prometheus("global:\n  scrape_interval: 15s\n").await;
    let (code, lines) = check(&["--prometheus-url", &bare], &[]).await;
    assert_eq!(code, Some(0));
    says(
        &lines,
        &[
            "ok, external labels {}",
            "no external label is a replica label",
            "names its group",
            "no remote_write goes to",
        ],
    );
}

#[tokio::test]
async fn a_prometheus_that_does_not_answer_fails() {
    for (url, words) in [("http://127.0.0.1:1", "refused"), ("ftp://x", "http://"), ("x y", "not an address")]
    {
        let (code, lines) = check(&["--prometheus-url", url], &[]).await;
        assert_eq!(code, Some(1), "{lines:#?}");
        assert!(lines[0].contains(": failed, ") && lines[0].to_lowercase().contains(words), "{lines:#?}");
    }
    let other = prometheus("a: [").await;
    assert_eq!(check(&["--prometheus-url", &other], &[]).await.0, Some(1));
}
