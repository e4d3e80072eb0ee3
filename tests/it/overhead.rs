//! What deduplication costs and saves, as the metrics and the status have it; and that there are all metrics that are promised.

use crate::command::{serve, terminate};
use crate::peer::{Line, Peer, config, soon};
use crate::support::{Ts, pipeline};
use promdedup::app::App;
use promdedup::stand_in::request::Body;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Child;
use tokio::task::spawn_blocking;

const TYPE: &str = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";
const PATH: &str = "/api/v1/receive";

/// One scrape of a replica, compressed.
fn scrape(replica: &str, series: usize, at_ms: i64) -> Vec<u8> {
    let mut body = Body::new();
    for n in 0..series {
        let (instance, code) = (format!("10.0.0.{}:9100", n / 100), format!("{n}"));
        let labels = [
            ("__name__", "http_requests_total"),
            ("cluster", "e2e"),
            ("code", &code),
            ("instance", &instance),
            ("job", "node-exporter"),
            ("prometheus", "monitoring/k8s"),
            ("prometheus_replica", replica),
        ];
        body = body.series(&labels, &[(at_ms, n as f64)]);
    }
    body.compressed().to_vec()
}

/// A pair's scrapes, 15 s apart, ending now.
fn scrapes(series: usize, steps: i64) -> impl Iterator<Item = Vec<u8>> {
    let begun = promdedup::stand_in::now_ms() - steps * 15_000;
    (0..steps).flat_map(move |step| {
        [("a", 0), ("b", 6_000)]
            .map(|(replica, phase)| scrape(replica, series, begun + step * 15_000 + phase))
    })
}

/// The sum of a metric over the children with this in their labels.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let own = labels.is_empty() || labels.starts_with('{');
        if own && labels.contains(label) { value.parse::<f64>().ok() } else { None }
    });
    values.sum()
}

/// A request's time is split by its samples' outcomes, and nothing is made of duplicates.
#[tokio::test]
async fn cpu_time_is_spent_for_what_became_of_the_samples() {
    let (ask, _) = pipeline();
    let batch =
        |replica, t| (0..50).map(|i| Ts::new(&format!("m{i}")).replica(replica).at(t)).collect::<Vec<_>>();
    ask.ask(&batch("a", 0)).await;
    ask.ask(&batch("a", 15)).await;
    for stage in ["decompress", "decode", "window", "encode", "compress"] {
        assert!(ask.cpu_s(stage, "forwarded") > 0.0, "{stage}");
        assert_eq!(ask.cpu_s(stage, "duplicate"), 0.0, "{stage}");
    }
    let before = ["decompress", "encode"].map(|stage| ask.cpu_s(stage, "forwarded"));
    ask.ask(&batch("b", 6)).await;
    for stage in ["decompress", "decode", "window"] {
        assert!(ask.cpu_s(stage, "duplicate") > 0.0, "{stage}");
    }
    assert_eq!(["encode", "compress"].map(|stage| ask.cpu_s(stage, "duplicate")), [0.0; 2]);
    assert_eq!(["decompress", "encode"].map(|stage| ask.cpu_s(stage, "forwarded")), before);
}

/// Or what dedup costs would seem more than it is: what leaves costs time, too, and none of it is a duplicate's.
#[tokio::test]
async fn what_no_stage_claims_is_split_by_bytes_received_and_sent() {
    let (ask, _) = pipeline();
    let thread = ask.is_the_data_plane();
    let batch = |seconds: &[i64]| {
        let of = |t| (0..50).map(move |i| Ts::new(&format!("m{i}")).replica("a").at(t));
        seconds.iter().copied().flat_map(of).collect::<Vec<_>>()
    };
    ask.ask(&batch(&[0])).await;
    ask.ask(&batch(&[15])).await;
    let other = || ["forwarded", "duplicate"].map(|share| ask.cpu_s("other", share));
    let before = other();
    ask.ask(&batch(&[15, 30])).await;
    thread.publish();
    let after = other();
    // One part in two has been here, and as much as the other part leaves.
    let [forwarded, duplicate] = [0, 1].map(|share| after[share] - before[share]);
    let ratio = forwarded / duplicate;
    assert!((1.5..2.5).contains(&ratio), "{forwarded} s to {duplicate} s");
}

/// CPU seconds of the threads of another process whose names begin so.
fn threads_cpu_s(process: u32, prefix: &str) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    let ticks = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        name.starts_with(prefix).then_some(ticks)
    });
    ticks.sum::<f64>() / 100.0
}

async fn metrics(admin: SocketAddr) -> String {
    Line::open(admin).await.get("/metrics", "").await.text
}

/// Ends the process also when the test fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
    }
}

/// Some seconds of load: what stages and shares come to is what the threads have used.
#[tokio::test]
async fn the_sum_over_stages_is_the_cpu_time_of_the_data_plane() {
    let peer = Peer::start(200, "").await;
    let url = peer.url();
    let (child, data, admin) = serve(&[
        ("PROMDEDUP_UPSTREAM_URL", &url),
        ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
        ("PROMDEDUP_WORKERS", "2"),
    ]);
    let child = Ends(child);
    // Two connections, so both threads have one.
    let mut lines = [Line::open(data).await, Line::open(data).await];
    let (mut requests, mut text) = (0, String::new());
    for body in scrapes(1_000, 4_000) {
        let line = &mut lines[requests % 2];
        line.post(PATH, TYPE, &body).await;
        assert_eq!(line.hear().await.status, 204);
        requests += 1;
        if requests % 50 == 0 {
            text = metrics(admin).await;
            if threads_cpu_s(child.0.id(), "promdedup-data") > 1.0 {
                break;
            }
        }
    }
    let measured = sum(&text, "promdedup_cpu_seconds_total", "");
    let threads = threads_cpu_s(child.0.id(), "promdedup-data");
    assert!(threads > 0.3, "{threads} s of load are too little to compare");
    let other = sum(&text, "promdedup_cpu_seconds_total", "stage=\"other\"");
    println!("{requests} requests, {measured:.3} s by stage ({other:.3} s other), {threads:.3} s by thread:");
    text.lines()
        .filter(|line| line.starts_with("promdedup_cpu_seconds_total"))
        .for_each(|line| println!("{line}"));
    assert!((measured / threads - 1.0).abs() < 0.1, "{measured} s by stage, {threads} s by thread");
    for stage in ["decompress", "decode", "window", "encode", "compress", "other"] {
        assert!(sum(&text, "promdedup_cpu_seconds_total", &format!("stage=\"{stage}\"")) > 0.0, "{stage}");
    }
    let duplicates = sum(&text, "promdedup_cpu_seconds_total", "share=\"duplicate\"");
    assert!((0.1..0.5).contains(&(duplicates / measured)), "{duplicates} s of {measured}");
    terminate(&child.0);
    let mut child = child;
    soon(spawn_blocking(move || child.0.wait())).await.expect("no panic").expect("ended");
}

const PROMISED: &[(&str, &[&str])] = &[
    ("promdedup_samples_received_total", &["group", "replica"]),
    ("promdedup_samples_total", &["group", "replica", "outcome"]),
    ("promdedup_samples_filled_total", &["group"]),
    ("promdedup_takeovers_total", &["group", "reason"]),
    ("promdedup_target_moves_total", &["group"]),
    ("promdedup_waits_total", &["group", "replica", "reason"]),
    ("promdedup_owned_series", &["group", "replica"]),
    ("promdedup_replica_last_seen_timestamp_seconds", &["group", "replica"]),
    ("promdedup_group_health", &["group", "reason"]),
    ("promdedup_group_lone_series_ratio", &["group"]),
    ("promdedup_network_bytes_total", &["side", "direction"]),
    ("promdedup_body_bytes_total", &["stage"]),
    ("promdedup_duplicate_bytes_total", &["group", "replica"]),
    ("promdedup_cpu_seconds_total", &["stage", "share"]),
    ("promdedup_window_series", &[]),
    ("promdedup_window_series_max", &[]),
    ("promdedup_window_bytes", &[]),
    ("promdedup_window_evictions_total", &[]),
    ("promdedup_window_full_total", &[]),
    ("promdedup_requests_total", &["protocol", "code"]),
    ("promdedup_request_duration_seconds_bucket", &["le"]),
    ("promdedup_upstream_duration_seconds_bucket", &["le"]),
    ("promdedup_upstream_requests_total", &["code"]),
    ("promdedup_benign_conflicts_total", &["group", "reason"]),
    ("promdedup_in_flight_requests", &[]),
    ("promdedup_in_flight_bytes", &[]),
    ("promdedup_limit_hit_total", &["limit"]),
    ("promdedup_observe_unreadable_total", &[]),
    ("promdedup_build_info", &["version"]),
    ("process_cpu_seconds_total", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_open_fds", &[]),
];

/// All that is promised is there, or, where nothing has been received, all that has no group.
fn promised(text: &str, grouped: bool) {
    for (name, labels) in PROMISED.iter().filter(|(_, labels)| grouped || !labels.contains(&"group")) {
        let (with, without) = (format!("{name}{{"), format!("{name} "));
        let line = text.lines().find(|line| line.starts_with(&with) || line.starts_with(&without));
        let line = line.unwrap_or_else(|| panic!("{name} is not in:\n{text}"));
        let have = line.split_once('{').map_or("", |(_, rest)| rest.split_once("} ").unwrap().0);
        let have: BTreeSet<_> =
            have.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
        assert_eq!(have, labels.iter().copied().collect(), "{line}");
    }
}

/// Names and labels as the interface has them; those without a group are there from the start.
#[tokio::test]
async fn every_promised_metric_is_there_with_its_labels() {
    let peer = Peer::start(200, "").await;
    let running = Running::start(&peer, &[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")]).await;
    promised(&metrics(running.admin).await, false);
    let mut line = Line::open(running.data).await;
    for body in scrapes(10, 3) {
        line.post(PATH, TYPE, &body).await;
        assert_eq!(line.hear().await.status, 204);
    }
    let text = metrics(running.admin).await;
    promised(&text, true);
    // Where nothing has happened yet it says so.
    for zero in [
        "promdedup_benign_conflicts_total{group=\"e2e/monitoring/k8s\",reason=\"exemplars\"} 0",
        "promdedup_takeovers_total{group=\"e2e/monitoring/k8s\",reason=\"silent\"} 0",
        "promdedup_waits_total{group=\"e2e/monitoring/k8s\",reason=\"jump\",replica=\"b\"} 0",
        "promdedup_samples_total{group=\"e2e/monitoring/k8s\",outcome=\"rejected\",replica=\"a\"} 0",
        "promdedup_group_health{group=\"e2e/monitoring/k8s\",reason=\"one_replica\"} 0",
        "promdedup_limit_hit_total{limit=\"held_histograms\"} 0",
        "promdedup_limit_hit_total{limit=\"flights\"} 0",
        "promdedup_upstream_requests_total{code=\"error\"} 0",
    ] {
        assert!(text.lines().any(|line| line == zero), "{zero} is not in:\n{text}");
    }
    // Bytes on the wire are more than those of bodies.
    for (side, direction, stage) in
        [("sender", "received", "compressed_in"), ("upstream", "sent", "compressed_out")]
    {
        let labels = format!("direction=\"{direction}\",side=\"{side}\"");
        let wire = sum(&text, "promdedup_network_bytes_total", &labels);
        let bodies = sum(&text, "promdedup_body_bytes_total", &format!("stage=\"{stage}\""));
        assert!(bodies > 0.0 && bodies < wire && wire < bodies + 6_000.0, "{side}: {bodies} of {wire}");
    }
}

struct Running {
    data: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    async fn start(peer: &Peer, more: &[(&str, &str)]) -> Self {
        let app = App::build(config(&peer.url(), more)).expect("built");
        let at = app.addresses();
        tokio::spawn(app.run(std::future::pending()));
        Self { data: at.data, admin: at.admin }
    }
}

#[tokio::test]
async fn the_status_says_what_is_saved_and_what_it_costs() {
    for (mode, upstream_bodies) in [("dedup", 4), ("observe", 8)] {
        let peer = Peer::start(200, "").await;
        let running =
            Running::start(&peer, &[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"), ("PROMDEDUP_MODE", mode)]).await;
        let mut line = Line::open(running.data).await;
        let (mut bytes, mut duplicate_bytes) = (0.0, 0.0);
        for (nth, body) in scrapes(100, 4).enumerate() {
            line.post(PATH, TYPE, &body).await;
            assert!(matches!(line.hear().await.status, 200 | 204));
            bytes += body.len() as f64;
            duplicate_bytes += if nth % 2 == 1 { body.len() as f64 } else { 0.0 };
        }
        assert_eq!(peer.requests().len(), upstream_bodies, "{mode}");
        let heard = Line::open(running.admin).await.get("/api/v1/status", "").await;
        assert!(heard.status == 200 && heard.has("content-type: application/json"), "{heard:?}");
        let status: serde_json::Value = serde_json::from_str(&heard.text).expect("JSON");
        assert_eq!(
            (status["mode"].as_str(), status["ready"].as_bool()),
            (Some(mode), Some(true)),
            "{status}"
        );
        assert_eq!(status["samples"]["received"], 800.0);
        assert_eq!(
            (&status["samples"]["forwarded"], &status["samples"]["duplicate"]),
            (&400.0.into(), &400.0.into())
        );
        let overhead = &status["overhead"];
        let days = overhead["measured_seconds"].as_f64().expect("seconds") / 86_400.0;
        let sum = |part: &str, name: &str| overhead[part][name].as_f64().expect(name) * days;
        assert!((sum("saved_upstream", "samples_per_day") - 400.0).abs() < 0.01, "{overhead}");
        let saved = sum("saved_upstream", "bytes_per_day") / bytes;
        assert!((0.45..0.55).contains(&saved), "{saved} of the bytes");
        let cost = sum("duplicates_cost", "bytes_per_day") / duplicate_bytes;
        assert!((0.999..=1.001).contains(&cost), "{cost} of the duplicates' bytes");
        assert!(sum("duplicates_cost", "cpu_seconds_per_day") > 0.0);
        let ns = overhead["cpu_nanoseconds_per_sample"].as_f64().expect("a time");
        assert!((10.0..1e6).contains(&ns), "{ns} ns a sample");
        assert_eq!(status["window"]["series"], 100.0);
        assert_eq!(status["warnings"], serde_json::json!([]), "nobody has looked yet");
    }
}

/// What does not leave because it is refused, or because upstream does not take it, is sent again or lost: that saves nothing.
#[tokio::test]
async fn what_was_not_settled_saves_nothing() {
    let peer = Peer::start(200, "").await;
    let running = Running::start(&peer, &[("PROMDEDUP_FIRST_CONTACT_HOLD", "100ms")]).await;
    let mut line = Line::open(running.data).await;
    let now_ms = promdedup::stand_in::now_ms();
    // Held for first contact.
    let owner = scrape("a", 100, now_ms - 60_000);
    line.post(PATH, TYPE, &owner).await;
    let mut status = line.hear().await.status;
    assert_eq!(status, 503);
    while status == 503 {
        line.post(PATH, TYPE, &owner).await;
        status = line.hear().await.status;
    }
    assert_eq!(status, 204);
    // Times that cannot be.
    line.post(PATH, TYPE, &scrape("a", 100, now_ms + 3_600_000)).await;
    assert_eq!(line.hear().await.status, 400);
    // Upstream is down: also what is a duplicate beside something new comes again.
    peer.answers(503, "down");
    for _ in 0..20 {
        line.post(PATH, TYPE, &scrape("a", 150, now_ms - 60_000)).await;
        assert_eq!(line.hear().await.status, 503);
    }
    let saved = async || {
        let text = Line::open(running.admin).await.get("/api/v1/status", "").await.text;
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let page = Line::open(running.admin).await.get("/", "").await.text;
        let (_, percent) = page.split_once("bytes out").expect("a card");
        let (percent, _) = percent.split_once(" % saved").expect("a share");
        let percent: f64 = percent.rsplit('>').next().expect("text").parse().expect("a number");
        let a_day = &status["overhead"]["saved_upstream"]["bytes_per_day"];
        let [all, a_day] = [&status["bytes"]["saved"], a_day].map(|bytes| bytes.as_f64().expect("bytes"));
        [all, a_day, percent]
    };
    assert_eq!(saved().await, [0.0; 3]);
    let standby = scrape("b", 100, now_ms - 54_000);
    line.post(PATH, TYPE, &standby).await;
    assert_eq!(line.hear().await.status, 204);
    let [all, a_day, percent] = saved().await;
    assert_eq!(all, standby.len() as f64);
    assert!(a_day > 0.0 && percent > 0.0, "{a_day} a day, {percent} %");
}
