//! Metadata: every type and shape, and that it reaches an upstream of either version.

use super::bodies::{ALL, Series, Speaks, body, histogram};
use super::outgoing::{ones, twos};
use super::rows::{Proxy, bad, check, good, headers};
use crate::peer::Peer;
use promdedup::proto::v2::metadata::MetricType::{
    self, Counter, Gauge, Gaugehistogram, Histogram, Info, Stateset, Summary, Unspecified,
};

/// Family, type, help, unit.
const SHAPES: [(&str, MetricType, &str, &str); 10] = [
    ("http_requests_total", Counter, "Total number of HTTP requests", "requests"),
    ("cpu_usage_percent", Gauge, "Current CPU usage percentage", "percent"),
    ("request_duration_seconds", Histogram, "Request duration in seconds", "seconds"),
    ("simple_counter", Counter, "", ""),
    ("test_metric", Gauge, "Test metric with\nnewlines and \"quotes\"", "bytes/sec"),
    ("unknown_metric", Unspecified, "Unknown metric type", ""),
    ("build_info", Info, "Build information", ""),
    ("node_state", Stateset, "Node state information", ""),
    ("request_latency_summary", Summary, "Request latency summary", "seconds"),
    ("temperature_histogram", Gaugehistogram, "Temperature distribution", "celsius"),
];

fn series((family, kind, help, unit): (&str, MetricType, &str, &str)) -> Series {
    let series = Series::new(family).told(kind, help, unit);
    match kind {
        Histogram => series.histogram(histogram(1.0, ALL)),
        _ => series.value(1.0),
    }
}

#[tokio::test]
async fn metadata_of_every_type() {
    check(SHAPES.map(|shape| good(shape.0, [series(shape)]))).await;
    check([good("all at once", SHAPES.map(series))]).await;
}

#[tokio::test]
async fn metadata_beside_many_labels() {
    let labels = [
        ("__name__", "http_request_duration_seconds"),
        ("job", "api-server"),
        ("instance", "localhost:8080"),
        ("method", "GET"),
        ("status", "200"),
        ("endpoint", "/api/v1/users"),
    ];
    let plain = Series::of(&labels).told(Histogram, "HTTP request duration in seconds", "seconds");
    check([
        good("a histogram", [plain.clone().histogram(histogram(0.25, ALL))]),
        good("a counter that says when it was created", [plain.value(150.0).created(-3600)]),
    ])
    .await;
}

#[tokio::test]
async fn metadata_of_series_that_are_none() {
    let told = |labels: &[(&str, &str)]| Series::of(labels).told(Counter, "Test help", "unit").value(1.0);
    let alone = |labels: &[(&str, &str)]| Series::of(labels).told(Counter, "Test help", "unit");
    check([
        good("a valid name", [told(&[("__name__", "valid_metric_name")])]),
        bad("no name", [told(&[("job", "test")])]),
        bad("an empty name", [told(&[("__name__", "")])]),
        bad("no name and no sample", [alone(&[("job", "test")])]),
    ])
    .await;
}

/// Towards 1.0 it is that of a family, towards 2.0 that of a series.
#[tokio::test]
async fn metadata_reaches_an_upstream_of_either_version() {
    let all = SHAPES.map(series);
    for upstream in [Speaks::One, Speaks::Two] {
        let peer = Peer::start(200, "").await;
        peer.says_what_it_has_written();
        let version = if upstream == Speaks::One { "1.0" } else { "2.0" };
        let proxy = Proxy::start(&peer.url(), &[("PROMDEDUP_UPSTREAM_PROTOCOL", version)]);
        let mut line = proxy.line().await;
        let labelled = all.clone().map(|series| series.by(Some("a")));
        line.post("/api/v1/receive", &headers(Speaks::Two), &body(Speaks::Two, &labelled)).await;
        assert_eq!(line.hear().await.status, 204);
        let told: Vec<_> = match upstream {
            Speaks::One => ones(&peer)
                .into_iter()
                .flat_map(|request| request.metadata)
                .map(|m| (m.metric_family_name, m.r#type, m.help, m.unit))
                .collect(),
            Speaks::Two => twos(&peer)
                .into_iter()
                .flat_map(|request| {
                    let symbols = request.symbols;
                    request.timeseries.into_iter().map(move |series| {
                        let text = |reference: u32| symbols[reference as usize].clone();
                        let m = series.metadata.expect("metadata");
                        let name = series.labels_refs.chunks(2).find(|pair| text(pair[0]) == "__name__");
                        (text(name.expect("a name")[1]), m.r#type, text(m.help_ref), text(m.unit_ref))
                    })
                })
                .collect(),
        };
        let expected = SHAPES.map(|(family, kind, help, unit)| {
            (family.to_owned(), kind as i32, help.to_owned(), unit.to_owned())
        });
        assert_eq!(told, expected, "{upstream:?}");
    }
}
