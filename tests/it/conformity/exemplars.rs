//! Exemplars: every shape of labels, times and values; those of series that are none, and those without a sample.

use super::bodies::Series;
use super::rows::{Row, bad, check, good};

const TRACE: &[(&str, &str)] = &[("trace_id", "abc123def456")];

#[tokio::test]
async fn exemplars_of_every_shape() {
    let row = |name: &str, labels: &[(&str, &str)], exemplar: &[(&str, &str)], value: f64| -> Row {
        good(name, [Series::of(labels).value(value).exemplar(exemplar, value)])
    };
    let api = [("__name__", "http_requests_total"), ("job", "api")];
    check([
        row("basic", &api, TRACE, 1.0),
        row("two labels", &api, &[("trace_id", "xyz789"), ("span_id", "span123")], 0.125),
        row("no trace", &[("__name__", "cpu_usage"), ("instance", "host1")], &[("user_id", "user123")], 0.85),
        row("three labels", &api, &[("trace_id", "t"), ("user", "admin"), ("endpoint", "/login")], 0.05),
        row("no labels", &[("__name__", "simple_counter")], &[], 1.0),
        row("special", &[("__name__", "m")], &[("trace_id", "trace-with-dashes_and_underscores.123")], 42.0),
        row("unicode", &[("__name__", "m"), ("region", "🌍")], &[("trace_id", "unicode_trace_测试")], 100.0),
    ])
    .await;
}

#[tokio::test]
async fn exemplars_of_every_value() {
    let values =
        [0.0, -123.456, 1e10, 1e-10, f64::from_bits(0x7ff8_0000_0000_0001), f64::INFINITY, f64::NEG_INFINITY];
    let row = |value: f64| {
        good(&format!("{value}"), [Series::new("test_metric").value(value).exemplar(TRACE, value)])
    };
    check(values.map(row)).await;
}

#[tokio::test]
async fn several_exemplars_and_their_times() {
    let get = [("__name__", "request_duration"), ("method", "GET")];
    let post = [("__name__", "request_duration"), ("method", "POST")];
    let late = |seconds| {
        let trace = format!("trace{seconds}");
        let series = Series::new("latency_hist").value_at(0.1, seconds);
        series.exemplar_at(&[("trace_id", trace.as_str())], 0.1, seconds)
    };
    check([
        good(
            "of several series",
            [
                Series::of(&get).value(0.1).exemplar(TRACE, 0.1),
                Series::of(&post).value(0.2).exemplar(TRACE, 0.2),
            ],
        ),
        good("of one sample", [Series::new("m").value(1.0).exemplar_at(TRACE, 1.0, -2).exemplar(TRACE, 2.0)]),
        good("of several times", [late(-3600), late(-60), late(0)]),
        good("of a counter that says when it started", [late(0).created(-7200)]),
    ])
    .await;
}

#[tokio::test]
async fn exemplars_of_series_that_are_none() {
    let series = |labels: &[(&str, &str)]| Series::of(labels).value(1.0).exemplar(TRACE, 1.0);
    let alone = |labels: &[(&str, &str)]| Series::of(labels).exemplar(TRACE, 1.0);
    let fine = || series(&[("__name__", "valid_metric")]);
    check([
        good("a valid name", [fine()]),
        bad("no name", [series(&[("job", "test")])]),
        bad("an empty name", [series(&[("__name__", "")])]),
        bad("alone, without a name", [alone(&[("job", "test")])]),
        good("beside one that is fine", [fine()]).beside([series(&[("job", "test")])]),
    ])
    .await;
}

/// Prometheus sends each exemplar in a `TimeSeries` of its own.
#[tokio::test]
async fn exemplars_without_a_sample() {
    let alone = |name| Series::new(name).exemplar(TRACE, 42.0);
    check([
        good("of an unknown series", [alone("orphan_metric")]),
        good("of one in the same request", [Series::new("m").value(1.0), alone("m")]),
    ])
    .await;
}
