//! The load generator against the real proxy, and against targets that lose, refuse or hesitate: the check can fail.

use crate::command::{promdedup, ran, serve};
use crate::peer::{Peer, soon};
use promdedup::command::load::{Load, LoadOptions, Outcome, check};
use promdedup::stand_in::thanos::{Fault, Thanos};
use promdedup::wire::Protocol;
use serde_json::Value;
use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// A small load to this URL, with a sink: real time, if it is not saturated.
fn small(target: &str) -> LoadOptions {
    LoadOptions {
        series: 2_000,
        interval: Duration::from_millis(800),
        duration: Duration::from_millis(1_600),
        sink: Some(([127, 0, 0, 1], 0).into()),
        ..LoadOptions::to(target)
    }
}

/// Through a proxy in a process of its own, which sends to the sink.
async fn through_the_proxy(
    change: impl FnOnce(&mut LoadOptions),
    more: &'static [(&str, &str)],
) -> (Outcome, Value) {
    let mut options = small("http://127.0.0.1:1/");
    change(&mut options);
    let ran = spawn_blocking(move || {
        let mut load = Load::bind(options.clone()).expect("bound");
        let upstream = format!("http://{}/api/v1/receive", load.sink().expect("a sink"));
        let mut environment =
            vec![("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"), ("PROMDEDUP_UPSTREAM_URL", &upstream)];
        environment.extend_from_slice(more);
        let (mut proxy, address, _) = serve(&environment);
        load.watch(proxy.id());
        let outcome = load.run(Some(&format!("http://{address}/api/v1/receive")));
        proxy.kill().and_then(|()| proxy.wait()).expect("killed");
        outcome.expect("ran")
    });
    let outcome = soon(ran).await.expect("no panic");
    let object = serde_json::from_str(&outcome.json).expect("JSON");
    (outcome, object)
}

async fn alone(options: LoadOptions) -> (Outcome, Value) {
    let ran = spawn_blocking(move || Load::bind(options).and_then(|load| load.run(None)).expect("ran"));
    let outcome = soon(ran).await.expect("no panic");
    let object = serde_json::from_str(&outcome.json).expect("JSON");
    (outcome, object)
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", object[key]))
}

#[track_caller]
fn within(object: &Value, key: &str, range: std::ops::RangeInclusive<f64>) {
    let number = number(object, key);
    assert!(range.contains(&number), "{key} {number} is not in {range:?}: {object}");
}

/// What has to hold of each run through the proxy.
fn nothing_is_lost(outcome: &Outcome, object: &Value) {
    assert_eq!(outcome.broken, Vec::<String>::new(), "{object}");
    assert_eq!(object["verdict"], "ok");
    for zero in ["lost", "out_of_order", "series_missing", "replica_labels", "samples_refused", "repeated"] {
        assert_eq!(object[zero], 0, "{zero}: {object}");
    }
    // Births and short runs have more of it: of a new series the first sample of either replica passes.
    within(object, "density", 0.9..=1.3);
}

/// And of each whose series live as long as it.
fn all_is_well(outcome: &Outcome, object: &Value) {
    nothing_is_lost(outcome, object);
    within(object, "density", 0.9..=1.2);
    within(object, "series_stored", 2_000.0..=2_000.0);
    within(object, "bytes_saved_percent", 30.0..=70.0);
    for (positive, most) in [
        ("cpu_ns_per_sample", 1e6),
        ("codec_floor_ns_per_sample", 1e5),
        ("cpu_to_floor", 1e4),
        ("generator_cpu_ns_per_sample", 1e6),
        ("sink_cpu_ns_per_sample", 1e6),
        ("ack_p50_ms", 1e4),
        ("ack_p99_ms", 1e4),
        ("ack_max_ms", 1e4),
        ("added_p50_ms", 1e4),
        ("added_p99_ms", 1e4),
        ("rss_bytes_per_series", 1e6),
    ] {
        within(object, positive, 0.0..=most);
    }
    within(object, "rss_bytes", 1e6..=1e9);
    assert!(number(object, "ack_p50_ms") <= number(object, "ack_max_ms"));
    assert!(number(object, "added_p99_ms") <= number(object, "ack_max_ms"), "{object}");
    assert!(number(object, "bytes_out") > 0.0 && number(object, "bytes_in") > number(object, "bytes_out"));
}

#[tokio::test]
async fn a_pair_by_the_clock_through_the_real_proxy() {
    let (outcome, object) = through_the_proxy(|_| {}, &[]).await;
    all_is_well(&outcome, &object);
    // What is promised of delays up to a whole interval: nobody knows how busy the machine is.
    within(&object, "widest_hole_intervals", 1.0..=2.12);
    // 2,000 series of two replicas every 800 ms.
    within(&object, "samples_per_second", 2_000.0..=10_000.0);
    within(&object, "raw_bytes_per_sample", 270.0..=360.0);
    assert_eq!((&object["mode"], &object["protocol"]), (&"real time".into(), &"1.0".into()));
    assert!(
        outcome.table.iter().any(|line| line.starts_with("CPU ns per input sample")),
        "{:?}",
        outcome.table
    );
}

#[tokio::test]
async fn a_saturated_pair_that_speaks_2_0_to_an_upstream_that_does() {
    let change = |options: &mut LoadOptions| {
        options.saturate = true;
        options.protocol = Protocol::Two;
        options.duration = Duration::from_millis(800);
    };
    let (outcome, object) = through_the_proxy(change, &[("PROMDEDUP_UPSTREAM_PROTOCOL", "2.0")]).await;
    all_is_well(&outcome, &object);
    assert_eq!((&object["mode"], &object["protocol"]), (&"saturated".into(), &"2.0".into()));
    // In sample time no delay is above half an interval, however busy the machine is.
    within(&object, "widest_hole_intervals", 1.0..=1.52);
    assert_eq!(object["holes"], 0);
    // Faster than a clock of 800 ms would have it.
    within(&object, "samples_per_second", 5_000.0..=1e8);
}

/// A saturated run of 15 s intervals, which is long in sample time.
fn saturated(options: &mut LoadOptions) {
    options.saturate = true;
    options.interval = Duration::from_secs(15);
    options.duration = Duration::from_millis(800);
}

#[tokio::test]
async fn groups_of_three_in_small_requests_of_two_tenants() {
    for protocol in [Protocol::One, Protocol::Two] {
        let change = |options: &mut LoadOptions| {
            saturated(options);
            (options.groups, options.tenants, options.replicas) = (4, 2, 3);
            (options.batch, options.protocol) = (25, protocol);
        };
        let (outcome, object) = through_the_proxy(change, &[]).await;
        nothing_is_lost(&outcome, &object);
        assert_eq!((&object["series_stored"], &object["groups"]), (&2_000.into(), &4.into()), "{object}");
        within(&object, "samples_per_request", 10.0..=25.0);
        within(&object, "widest_hole_intervals", 1.0..=1.52);
    }
}

#[tokio::test]
async fn series_of_forty_labels() {
    let change = |options: &mut LoadOptions| {
        saturated(options);
        options.labels = Some(40);
    };
    let (outcome, object) = through_the_proxy(change, &[]).await;
    all_is_well(&outcome, &object);
    within(&object, "raw_bytes_per_sample", 1_200.0..=2_000.0);
    assert_eq!(object["labels"], 40);
}

#[tokio::test]
async fn series_that_end_and_are_replaced() {
    for protocol in [Protocol::One, Protocol::Two] {
        let change = |options: &mut LoadOptions| {
            saturated(options);
            (options.churn, options.protocol) = (50, protocol);
        };
        let (outcome, object) = through_the_proxy(change, &[]).await;
        nothing_is_lost(&outcome, &object);
        // A life is of eight intervals, and a run of many more.
        within(&object, "series_stored", 4_000.0..=1e6);
        within(&object, "widest_hole_intervals", 1.0..=1.52);
    }
}

#[tokio::test]
async fn a_replica_that_begins_far_behind_catches_up() {
    let change = |options: &mut LoadOptions| options.backlog = Some(Duration::from_secs(16));
    let (outcome, object) = through_the_proxy(change, &[]).await;
    nothing_is_lost(&outcome, &object);
    assert_eq!(object["series_stored"], 2_000);
    // Twenty intervals of one replica, which are nowhere else, and what both have by the clock.
    within(&object, "samples", 40_000.0..=80_000.0);
    within(&object, "backlog_caught_up_seconds", 0.0..=1.6);
    within(&object, "backlog_ack_p99_ms", 0.0..=1e4);
    within(&object, "widest_hole_intervals", 1.0..=2.12);
}

#[tokio::test]
async fn what_the_target_adds_is_told_by_its_metrics_as_well() {
    let ran = spawn_blocking(|| {
        let mut load = Load::bind(small("http://127.0.0.1:1/")).expect("bound");
        let upstream = format!("http://{}/api/v1/receive", load.sink().expect("a sink"));
        let (mut proxy, address, admin) =
            serve(&[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"), ("PROMDEDUP_UPSTREAM_URL", &upstream)]);
        load.watch_metrics(&format!("http://{admin}/metrics"));
        let outcome = load.run(Some(&format!("http://{address}/api/v1/receive")));
        proxy.kill().and_then(|()| proxy.wait()).expect("killed");
        outcome.expect("ran")
    });
    let outcome = soon(ran).await.expect("no panic");
    let object: Value = serde_json::from_str(&outcome.json).expect("JSON");
    within(&object, "added_mean_by_metrics_ms", 0.001..=number(&object, "ack_max_ms"));
    within(&object, "added_p50_ms", 0.0..=number(&object, "added_p99_ms"));
}

#[tokio::test]
async fn tenants_are_named_and_requests_are_numbered() {
    let thanos = Thanos::start().await.expect("bound");
    let options = LoadOptions {
        groups: 3,
        tenants: 2,
        replicas: 1,
        shards: 1,
        saturate: true,
        duration: Duration::from_millis(500),
        series: 60,
        sink: None,
        ..small(&thanos.url())
    };
    let (outcome, _) = alone(options).await;
    assert_eq!(outcome.broken, Vec::<String>::new());
    let of = |name: &str| {
        let seen = thanos.recent();
        seen.iter().map(|one| one.headers[name].to_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let tenants: HashSet<_> = of("thanos-tenant").into_iter().collect();
    assert_eq!(tenants, ["tenant-0", "tenant-1"].map(str::to_owned).into());
    let requests = of("x-request-id");
    assert_eq!(requests.iter().collect::<HashSet<_>>().len(), requests.len());
}

#[tokio::test]
async fn what_a_target_acknowledges_and_keeps_to_itself_is_lost() {
    let peer = Peer::start(204, "").await;
    let mut options = small(&peer.url());
    options.series = 100;
    options.duration = Duration::from_millis(500);
    let (outcome, object) = alone(options).await;
    assert!(number(&object, "lost") >= number(&object, "samples"), "{object}");
    assert_eq!((&object["series_missing"], &object["series_stored"]), (&100.into(), &0.into()));
    assert_eq!((&object["verdict"], &object["cpu_ns_per_sample"]), (&"broken".into(), &Value::Null));
    assert!(outcome.broken[0].ends_with("acknowledged samples are lost"), "{:?}", outcome.broken);
}

#[tokio::test]
async fn a_sink_without_a_proxy_gets_both_replicas() {
    let options =
        LoadOptions { saturate: true, duration: Duration::from_millis(500), ..small("http://127.0.0.1:1/") };
    let ran = spawn_blocking(move || {
        let load = Load::bind(options).expect("bound");
        let target = format!("http://{}/", load.sink().expect("a sink"));
        load.run(Some(&target)).expect("ran")
    });
    let outcome = soon(ran).await.expect("no panic");
    let object: Value = serde_json::from_str(&outcome.json).expect("JSON");
    assert_eq!((&object["lost"], &object["replica_labels"]), (&0.into(), &4_000.into()), "{object}");
    within(&object, "density", 2.0..=2.0);
    within(&object, "widest_hole_intervals", 1.0..=1.0);
}

#[tokio::test]
async fn retries_bring_the_same_bytes_in_order() {
    let thanos = Thanos::start().await.expect("bound");
    thanos.inject_next(3, Fault::Answer { status: 503, text: "wait".into(), retry_after_s: Some(0) });
    let options = LoadOptions {
        series: 40,
        shards: 1,
        replicas: 1,
        interval: Duration::from_millis(200),
        duration: Duration::from_millis(500),
        sink: None,
        ..small(&thanos.url())
    };
    let (outcome, object) = alone(options).await;
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert!(object["notes"].to_string().contains("503: wait"), "{object}");
    let seen = thanos.recent();
    let attempts: Vec<_> = seen
        .iter()
        .take(5)
        .map(|one| one.headers.get("retry-attempt").map_or("", |n| n.to_str().unwrap()))
        .collect();
    assert_eq!(attempts, ["", "1", "2", "3", ""]);
    assert!(seen[..4].iter().all(|one| one.body_bytes == seen[0].body_bytes));
    assert_eq!(seen[0].headers["x-prometheus-remote-write-version"], "0.1.0");
    let violations = thanos.violations();
    assert_eq!((violations.out_of_order, violations.duplicate_identical), (0, 0));
    assert_eq!(object["lost"], Value::Null, "nobody could have seen it");
}

/// What has piled up before all series were taken once is sent before anything is measured.
#[tokio::test]
async fn by_the_clock_nothing_is_measured_before_the_senders_have_caught_up_with_it() {
    let thanos = Thanos::start().await.expect("bound");
    thanos.inject_next(1, Fault::Answer { status: 503, text: "wait".into(), retry_after_s: Some(2) });
    let options = LoadOptions {
        series: 1_000,
        shards: 1,
        replicas: 1,
        batch: 10,
        interval: Duration::from_millis(400),
        duration: Duration::from_millis(800),
        sink: None,
        ..small(&thanos.url())
    };
    let (outcome, object) = alone(options).await;
    assert_eq!(outcome.broken, Vec::<String>::new());
    // 1,000 each 400 ms, and not the two seconds before as well.
    within(&object, "samples_per_second", 2_000.0..=3_000.0);
}

#[tokio::test]
async fn what_is_refused_ends_with_1_and_is_not_lost() {
    let peer = Peer::start(204, "").await;
    let url = peer.url();
    let short = ["--series", "100", "--interval", "100ms", "--duration", "500ms", "--json"];
    let load = async |more: &'static [&'static str]| {
        let url = url.clone();
        let ran = spawn_blocking(move || ran(&[&["load", "--target", &url], &short[..], more].concat(), &[]));
        let (code, stdout, stderr) = soon(ran).await.expect("no panic");
        (code, serde_json::from_str::<Value>(&stdout).unwrap_or_else(|_| panic!("{stdout} {stderr}")))
    };
    let (code, object) = load(&[]).await;
    assert_eq!((code, &object["verdict"], &object["lost"]), (Some(0), &"ok".into(), &Value::Null));
    // An upstream of 1.0 answers 2xx to what it does not understand.
    let (code, object) = load(&["--protocol", "2.0"]).await;
    assert_eq!(code, Some(1));
    assert!(object["notes"].to_string().contains("takes no remote write 2.0"), "{object}");
    peer.answers(400, "no");
    let (code, object) = load(&["--sink", "127.0.0.1:0"]).await;
    assert_eq!(code, Some(1));
    assert!(number(&object, "samples_refused") > 0.0, "{object}");
    assert_eq!((&object["samples"], &object["lost"]), (&0.into(), &0.into()));
}

#[test]
fn wrong_flags_exit_64_and_are_named() {
    let url = "http://127.0.0.1:1/";
    let refused = |arguments: &[&str], words: &[&str]| {
        let (code, stdout, stderr) = ran(&[&["load"], arguments].concat(), &[]);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: {word:?} is not in: {stderr}");
        }
    };
    refused(&[], &["--target"]);
    refused(&["--target", "https://x/"], &["--target \"https://x/\"", "only http://"]);
    refused(&["--target", "http://"], &["--target"]);
    refused(&["--target", url, "--series", "9"], &["--series 9", "at least 10"]);
    refused(&["--target", url, "--replicas", "17"], &["--replicas 17", "at most 16"]);
    refused(&["--target", url, "--shards", "0"], &["--shards 0", "at least 1"]);
    for (flags, words) in [
        (&["--groups", "0"][..], &["--groups 0", "at least 1"][..]),
        (&["--groups", "30", "--series", "200"], &["--groups 30", "200 series", "10 a group"]),
        (&["--groups", "1000", "--shards", "9"], &["18000 connections", "at most 8000"]),
        (&["--tenants", "2"], &["--tenants 2", "there are 1 (--groups)"]),
        (&["--batch", "9"], &["--batch 9", "at least 10"]),
        (&["--batch", "10001"], &["--batch 10001", "at most 10000"]),
        (&["--labels", "4"], &["--labels 4", "at least 5"]),
        (&["--labels", "41"], &["--labels 41", "at most 40"]),
        (&["--churn", "101"], &["--churn 101", "at most 100 %"]),
        (&["--churn", "20", "--interval", "2m"], &["--churn 20", "live for 2 intervals", "at least 4"]),
        (&["--churn", "-1"], &["-1"]),
        (&["--backlog", "10m", "--saturate"], &["--backlog 600s", "not with --saturate"]),
        (&["--backlog", "10m", "--replicas", "1"], &["--backlog 600s", "--replicas 2"]),
        (&["--backlog", "1s"], &["--backlog 1s", "at least an interval"]),
        (&["--backlog", "2days"], &["--backlog", "at most 1day"]),
    ] {
        refused(&[&["--target", url], flags].concat(), words);
    }
    refused(&["--target", url, "--interval", "15"], &["--interval"]);
    refused(&["--target", url, "--interval", "10ms"], &["--interval 10ms", "at least 100ms"]);
    refused(&["--target", url, "--duration", "2days"], &["--duration", "at most"]);
    refused(&["--target", url, "--protocol", "3.0"], &["3.0", "1.0 or 2.0"]);
    refused(&["--target", url, "--sink", "somewhere"], &["--sink"]);
    refused(&["--target", url, "--pid", "x"], &["--pid"]);
    refused(&["--target", url, "--metrics", "x"], &["--metrics"]);
    // What is ours in the environment concerns the proxy, but a typo in it nobody else would find.
    let environment = [("PROMDEDUP_FOO", "1"), ("PROMDEDUP_LISTEN", "x"), ("PROMDEDUP_SERVICE_PORT", "1")];
    let (code, _, stderr) = ran(&["load", "--target", url], &environment);
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("PROMDEDUP_FOO=\"1\": no such variable"), "{stderr}");
    assert!(!stderr.contains("PROMDEDUP_LISTEN") && !stderr.contains("SERVICE_PORT"), "{stderr}");
    let (code, _, stderr) = ran(&["--listen", "127.0.0.1:0", "load", "--target", url], &[]);
    assert_eq!((code, stderr.contains("no settings of the proxy")), (Some(64), true), "{stderr}");
    assert!(check(&LoadOptions::to(url)).is_ok());
}

#[test]
fn an_address_that_is_taken_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    let (code, _, stderr) = ran(&["load", "--target", "http://127.0.0.1:1/", "--sink", &address], &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

/// Where nobody listens, nothing is to be measured: that is said soon, and not when a warm-up is long over.
#[tokio::test]
async fn a_target_that_never_answers_ends_the_run_and_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("address");
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let silent_at = silent.local_addr().expect("address");
    let check = async |address: SocketAddr, words: [&'static str; 2]| {
        let url = format!("http://{address}/api/v1/receive");
        let target = url.clone();
        let ran =
            spawn_blocking(move || ran(&["load", "--target", &target, "--series", "100", "--saturate"], &[]));
        let (code, stdout, stderr) = soon(ran).await.expect("no panic");
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        for word in [url.as_str(), "--target", words[0], words[1]] {
            assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
        }
    };
    tokio::join!(
        check(closed, ["no request was answered within 12s", "refused"]),
        check(silent_at, ["no request was answered within 12s", "nothing has come back"]),
    );
}

#[tokio::test]
async fn ctrl_c_in_the_warm_up_ends_it_in_order() {
    let peer = Peer::start(503, "not yet").await;
    let url = peer.url();
    let arguments = ["load", "--target", &url, "--series", "100", "--saturate"];
    let child = promdedup(&arguments, &[]).spawn().expect("starts");
    soon(async {
        while peer.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let output =
        soon(spawn_blocking(move || child.wait_with_output())).await.expect("no panic").expect("ended");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
    for word in [url.as_str(), "interrupted", "last: 503: not yet"] {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
}
