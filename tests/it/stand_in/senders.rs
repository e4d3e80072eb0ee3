//! The embedded replicas: batches, retries, drops, death, stale markers.

use promdedup::stand_in::prometheus::{Fleet, FleetShape, Options, Reach, Replica};
use promdedup::stand_in::thanos::{DEFAULT_TENANT, Fault, Options as ThanosOptions, SeenRequest, Thanos};
use promdedup::stand_in::{Checker, Point};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn fleet() -> Arc<Fleet> {
    Arc::new(Fleet::new(&FleetShape {
        targets: 2,
        series_per_target: 30,
        native_histograms_per_target: 1,
        ..FleetShape::default()
    }))
}

/// Without a replica label, so that the receiver finds nothing wrong.
fn options(thanos: &Thanos) -> Options {
    let mut options = Options::new("r0", &thanos.url(), Duration::from_millis(200));
    options.replica_label = String::new();
    options
}

fn header<'a>(request: &'a SeenRequest, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_healthy_replica_alone_makes_a_clean_stream() {
    let thanos = Thanos::start().await.unwrap();
    let fleet = fleet();
    let mut replica = Replica::start(&fleet, options(&thanos)).unwrap();
    let all = fleet.series.len() as u64;
    assert_eq!(all, 64);
    assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= 4 * all && totals.exemplars > 0).await);
    assert!(replica.finish(PATIENCE).await);
    let stats = replica.stats();
    assert_eq!(stats.acknowledged_samples, thanos.totals().samples);
    assert_eq!(stats.body_bytes, thanos.totals().body_bytes);
    assert_eq!((stats.retries, stats.dropped_batches, stats.unrecorded), (0, 0, 0));
    assert_eq!(thanos.violations(), Default::default());
    let findings = Checker::of(200, &thanos, DEFAULT_TENANT, &[replica]).findings();
    assert_eq!(findings.problems(1.0), [] as [&str; 0]);
    assert_eq!((findings.series, findings.stored), (all, findings.sent));
    let histograms =
        thanos.stored(DEFAULT_TENANT).into_values().flatten().filter(|one| one.histogram).count();
    assert!(histograms >= 8, "{histograms}");
}

#[tokio::test]
async fn requests_look_like_those_of_prometheus() {
    let thanos = Thanos::start().await.unwrap();
    let mut tenant = options(&thanos);
    tenant.headers.insert("thanos-tenant", "t1".parse().unwrap());
    tenant.max_samples_per_send = 10;
    let mut replica = Replica::start(&fleet(), tenant).unwrap();
    assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= 64).await);
    assert!(replica.finish(PATIENCE).await);
    assert_eq!(thanos.tenants(), ["t1"]);
    for request in thanos.recent() {
        assert!(request.series <= 10, "{request:?}");
        for (name, value) in [
            ("content-encoding", "snappy"),
            ("content-type", "application/x-protobuf"),
            ("user-agent", "Prometheus/3.14.0"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ] {
            assert_eq!(header(&request, name), Some(value));
        }
        assert_eq!(header(&request, "retry-attempt"), None);
    }
}

#[tokio::test]
async fn the_same_bytes_come_again_after_5xx_and_lost_answers() {
    for fault in [Fault::status(503), Fault::status(500), Fault::ResetBeforeStoring, Fault::ResetAfterStoring]
    {
        let thanos = Thanos::start().await.unwrap();
        let mut one_shard = options(&thanos);
        one_shard.shards = 1;
        thanos.inject_next(3, fault.clone());
        let mut replica = Replica::start(&fleet(), one_shard).unwrap();
        assert!(thanos.wait_until(PATIENCE, |totals| totals.requests >= 5).await);
        assert!(replica.finish(PATIENCE).await);
        let recent = thanos.recent();
        let attempts: Vec<_> = recent[..4].iter().map(|request| header(request, "retry-attempt")).collect();
        assert_eq!(attempts, [None, Some("1"), Some("2"), Some("3")], "{fault:?}");
        assert!(recent[..4].iter().all(|request| request.body_bytes == recent[0].body_bytes));
        assert_eq!(header(&recent[4], "retry-attempt"), None);
        assert_eq!(replica.stats().retries, 3);
        assert_eq!(replica.stats().dropped_batches, 0);
        assert_eq!(thanos.violations().of_samples(), 0, "{fault:?}");
        let findings = Checker::of(200, &thanos, DEFAULT_TENANT, &[replica]).findings();
        assert_eq!((findings.stored, findings.lost), (findings.sent, 0));
    }
}

#[tokio::test]
async fn retry_after_replaces_a_pause() {
    // `Retry-After: 0` replaces none: the backoff stays.
    for (retry_after_s, min_backoff_s) in [(1, 0), (0, 1)] {
        let thanos = Thanos::start().await.unwrap();
        let later = |retry_after_s| Fault::Answer { status: 503, text: String::new(), retry_after_s };
        thanos.inject_next(1, later(Some(retry_after_s)));
        let started = tokio::time::Instant::now();
        let mut one_shard = options(&thanos);
        one_shard.shards = 1;
        if min_backoff_s > 0 {
            one_shard.min_backoff = Duration::from_secs(min_backoff_s);
        }
        let mut replica = Replica::start(&fleet(), one_shard).unwrap();
        assert!(thanos.wait_until(PATIENCE, |totals| totals.samples > 0).await);
        assert!(started.elapsed() >= Duration::from_secs(1), "{retry_after_s}");
        replica.kill().await;
    }
}

#[tokio::test]
async fn a_4xx_drops_the_batch_and_is_counted() {
    for status in [400, 409, 413, 429] {
        let thanos = Thanos::start().await.unwrap();
        let mut one_shard = options(&thanos);
        one_shard.shards = 1;
        thanos.inject_next(1, Fault::status(status));
        let mut replica = Replica::start(&fleet(), one_shard).unwrap();
        assert!(thanos.wait_until(PATIENCE, |totals| totals.requests >= 2).await);
        assert!(replica.finish(PATIENCE).await);
        let stats = replica.stats();
        assert_eq!((stats.dropped_batches, stats.retries), (1, 0), "{status}");
        assert!(stats.dropped_items > 0);
        let findings = Checker::of(200, &thanos, DEFAULT_TENANT, &[replica]).findings();
        assert!(findings.stored < findings.sent, "{status}");
        assert_eq!(findings.acknowledged, findings.stored, "what was dropped was not acknowledged");
    }
}

#[tokio::test]
async fn a_killed_replica_loses_its_queue_and_an_outage_alone_loses_nothing() {
    for killed in [true, false] {
        let thanos = Thanos::start().await.unwrap();
        let mut brisk = options(&thanos);
        brisk.max_backoff = Duration::from_millis(100);
        let mut replica = Replica::start(&fleet(), brisk).unwrap();
        assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= 2 * 64).await);
        thanos.inject(Fault::status(503));
        let requests = thanos.totals().requests;
        // Some scrapes pile up behind the outage.
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert!(thanos.totals().requests > requests);
        if killed {
            replica.kill().await;
            assert!(!replica.is_running());
            let silent = thanos.totals().requests;
            thanos.heal();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(thanos.totals().requests, silent, "nothing is sent after a kill");
            replica.restart().await.unwrap();
        } else {
            thanos.heal();
        }
        let before = thanos.totals().samples;
        assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= before + 3 * 64).await);
        assert!(replica.finish(PATIENCE).await);
        assert_eq!(thanos.violations().of_samples(), 0);
        let hole = thanos.widest_hole_ms();
        assert_eq!(hole >= 1_000, killed, "{hole} ms");
        let stale = thanos
            .stored(DEFAULT_TENANT)
            .into_iter()
            .filter(|(_, points)| points.iter().any(Point::is_stale_marker));
        // After a restart the rules begin with stale markers; nothing else does.
        let stale: Vec<_> = stale.map(|(labels, _)| labels.get("__name__").unwrap().to_owned()).collect();
        assert_eq!(stale.len(), if killed { 4 } else { 0 });
        assert!(stale.iter().all(|name| name.starts_with("namespace:")));
    }
}

#[tokio::test]
async fn targets_that_are_lost_or_unreachable_go_stale() {
    for reach in [Reach::Lost, Reach::Unreachable] {
        let thanos = Thanos::start().await.unwrap();
        let fleet = fleet();
        let mut replica = Replica::start(&fleet, options(&thanos)).unwrap();
        assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= 2 * 64).await);
        replica.set_reach(0, reach);
        let before = thanos.totals().samples;
        assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= before + 4 * 64).await);
        assert!(replica.finish(PATIENCE).await);
        let stored = thanos.stored(DEFAULT_TENANT);
        for (nth, series) in fleet.series.iter().enumerate() {
            let last = stored[&series.labels].last().unwrap();
            let own = nth < 5;
            let stale = nth < 30 && (reach == Reach::Lost || !own);
            assert_eq!(last.is_stale_marker(), stale, "{reach:?} {}", series.labels);
        }
        let up = stored[&fleet.series[0].labels].last().unwrap();
        let expect = if reach == Reach::Lost { Point::stale(up.at_ms) } else { Point::float(up.at_ms, 0.0) };
        assert_eq!(*up, expect);
        assert_eq!(thanos.violations().of_samples(), 0);
    }
}

#[tokio::test]
async fn two_replicas_have_other_phases_but_equal_rule_times() {
    let fleet = fleet();
    let mut all = Vec::new();
    for name in ["r0", "r1"] {
        let thanos = Thanos::start_with(ThanosOptions::default()).await.unwrap();
        let mut named = options(&thanos);
        named.replica = name.to_owned();
        let mut replica = Replica::start(&fleet, named).unwrap();
        assert!(thanos.wait_until(PATIENCE, |totals| totals.samples >= 2 * 64).await);
        assert!(replica.finish(PATIENCE).await);
        all.push(thanos.stored(DEFAULT_TENANT));
    }
    let phase = |nth: usize, series: usize| all[nth][&fleet.series[series].labels][0].at_ms.rem_euclid(200);
    assert_ne!(phase(0, 0), phase(1, 0));
    assert_ne!(phase(0, 0), phase(0, 30), "targets differ, too");
    let rule = fleet.rules.start;
    assert_eq!(phase(0, rule), phase(1, rule));
    assert_ne!(all[0][&fleet.series[rule].labels][0].bits, all[1][&fleet.series[rule].labels][0].bits);
}
