//! Requests that hold everything at once, many of it, and edges.

use super::bodies::{ALL, NEGATIVE, POSITIVE, Parts, Series, histogram};
use super::rows::{check, good};
use promdedup::proto::v2::metadata::MetricType::{Counter, Gauge, Histogram};

const TRACE: &[(&str, &str)] = &[("trace_id", "request_trace_123"), ("user_id", "user789")];

#[tokio::test]
async fn samples_with_metadata_and_exemplars() {
    let cpu = || Series::of(&[("__name__", "cpu_usage"), ("instance", "server1")]).value(0.85);
    let memory =
        || Series::of(&[("__name__", "memory_usage"), ("instance", "server1")]).value(8_589_934_592.0);
    let requests = || Series::of(&[("__name__", "http_requests_total"), ("status", "200")]).value(1000.0);
    check([
        good(
            "one",
            [requests().told(Counter, "Total number of HTTP requests", "requests").exemplar(TRACE, 1.0)],
        ),
        good(
            "two",
            [
                cpu().told(Gauge, "CPU", "ratio").exemplar(TRACE, 0.85),
                memory().told(Gauge, "Memory", "bytes"),
            ],
        ),
        good(
            "families of two types",
            [requests().told(Counter, "Total HTTP requests", "requests").exemplar(TRACE, 1000.0), cpu()],
        ),
    ])
    .await;
}

#[tokio::test]
async fn histograms_with_metadata_and_exemplars() {
    let hist = |name: &str, parts: Parts| {
        Series::of(&[("__name__", name), ("handler", "/metrics")])
            .histogram(histogram(0.456, parts))
            .told(Histogram, "Duration", "seconds")
    };
    check([
        good("one", [hist("request_duration_seconds", ALL).exemplar(TRACE, 0.456)]),
        good(
            "two",
            [
                hist("response_time_hist", POSITIVE).exemplar(TRACE, 0.125),
                hist("request_size_hist", NEGATIVE),
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn many_of_everything() {
    let sample = |i: i32| {
        Series::new(&format!("counter_metric_{i}"))
            .label("series", &format!("series_{i}"))
            .value(f64::from(i * 100))
            .told(Counter, &format!("Counter metric number {i}"), "count")
            .exemplar(TRACE, f64::from(i * 100))
    };
    let hist = |i: i32| {
        let parts = Parts { negative: i % 2 == 0, ..POSITIVE };
        Series::new(&format!("histogram_metric_{i}"))
            .label("bucket", &format!("bucket_{i}"))
            .histogram(histogram(f64::from(i) / 10.0, parts))
            .told(Histogram, &format!("Histogram metric number {i}"), "seconds")
            .exemplar(TRACE, f64::from(i) / 10.0)
    };
    check([
        good("samples", (0..50).map(sample)),
        good("histograms", (0..50).map(hist)),
        good("both", (0..100).map(|i| if i % 2 == 0 { sample(i) } else { hist(i) })),
        good("a full batch", (0..2000).map(sample)),
        good("nothing", []),
    ])
    .await;
}

#[tokio::test]
async fn texts_of_all_kinds() {
    let labels = [
        ("__name__", "test_metric"),
        ("job", "test-job_with.special@chars"),
        ("instance", "localhost:9090"),
        ("environment", "test🚀"),
    ];
    let help = "Test metric with special characters: äöü, newlines\nand \"quotes\"";
    let trace = [("trace_id", "special_trace_äöü-123"), ("span_id", "span_with.dots-and_underscores")];
    let series = Series::of(&labels).value(42.0).told(Gauge, help, "special/units").exemplar(&trace, 42.0);
    check([good("all", [series])]).await;
}

#[tokio::test]
async fn edges() {
    let old = Series::new("old_metric").value_at(1.0, -3600).exemplar_at(TRACE, 1.0, -1800);
    check([
        good("metadata without data", [Series::new("orphan_metric").told(Counter, "Orphaned", "count")]),
        good("a series of nothing", [Series::new("orphan_metric")]),
        good("times an hour apart", [old, Series::new("new_metric").value(2.0)]),
    ])
    .await;
}
