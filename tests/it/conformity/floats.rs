//! Float samples, alone and many: every value, every shape of labels, and series that are none.

use super::bodies::Series;
use super::rows::{bad, check, good};
use crate::support::STALE;

/// What a float can be. `NaN` is the one that Prometheus makes.
const VALUES: [u64; 8] = [
    0x3ff0_0000_0000_0000, // 1
    STALE,
    0x7ff8_0000_0000_0001, // NaN
    0x7ff0_0000_0000_0000, // +Inf
    0xfff0_0000_0000_0000, // -Inf
    0,
    0xfff8_0000_0000_0000, // another NaN
    1,                     // the smallest
];

fn up(instance: &str) -> Series {
    Series::of(&[("__name__", "up"), ("job", "testjob"), ("instance", instance)])
}

fn nameless(instance: &str) -> Series {
    Series::of(&[("job", "testjob"), ("instance", instance)])
}

#[tokio::test]
async fn a_single_metric_of_every_value() {
    let rows = VALUES.map(f64::from_bits).into_iter().flat_map(|v| {
        let newlines =
            [("__name__", "up"), ("job", "test\njob\n"), ("instance", "localhost:9090")].as_slice();
        let dots = [("__name__", "resource.cpu.usage"), ("job.name", "testjob")].as_slice();
        let spaces = [("__name__", "resource cpu usage"), ("job name", "testjob")].as_slice();
        [
            good("simple", [Series::new("up").value(v)]),
            good("several labels", [up("localhost:9090").value(v)]),
            good("newlines", [Series::of(newlines).value(v)]),
            good("dots", [Series::of(dots).value(v)]),
            good("spaces", [Series::of(spaces).value(v)]),
            bad("no name", [nameless("localhost:9090").value(v)]),
            bad("no labels", [Series::of(&[]).value(v)]),
        ]
    });
    check(rows).await;
}

#[tokio::test]
async fn several_metrics_and_those_among_them_that_are_none() {
    let instances = ["localhost:9090", "localhost:9091", "localhost:9092", "localhost:9093"];
    let rows = VALUES.map(f64::from_bits).into_iter().flat_map(|v| {
        let ups = instances.map(|instance| up(instance).value(v));
        let nameless = instances.map(|instance| nameless(instance).value(v));
        [
            good("four", ups.clone()),
            bad("four without a name", nameless.clone()),
            good("one of four without a name", ups[1..].to_vec()).beside(nameless[..1].to_vec()),
            good("one of four with a name", ups[..1].to_vec()).beside(nameless[1..].to_vec()),
        ]
    });
    check(rows).await;
}

#[tokio::test]
async fn counters_that_say_when_they_started() {
    let counter = || Series::of(&[("__name__", "http_requests_total"), ("job", "api")]).value(100.0);
    check([
        good("created, as drafts of 2.0 had it", [counter().created(-3600)]),
        good("started", [counter().started(-3600)]),
        good("both", [counter().started(-3600).created(-3600)]),
    ])
    .await;
}

/// Labels that no series may have, and that lose nothing but their own series.
#[tokio::test]
async fn labels_that_no_series_may_have() {
    let fine = || Series::new("fine").value(1.0);
    let wrong: [(&str, &[(&str, &str)]); 6] = [
        ("none", &[]),
        ("no name", &[("job", "x")]),
        ("an empty name", &[("__name__", ""), ("job", "x")]),
        ("a label without a name", &[("__name__", "m"), ("", "x")]),
        ("a label twice", &[("__name__", "m"), ("job", "x"), ("job", "y")]),
        ("a name twice", &[("__name__", "m"), ("__name__", "n")]),
    ];
    let rows = wrong.iter().flat_map(|(name, labels)| {
        let series = Series::of(labels).value(1.0);
        [bad(name, [series.clone()]), good(name, [fine()]).beside([series])]
    });
    check(rows).await;
}

/// An empty value is an absent label; bytes decide the order, and any text is a name.
#[tokio::test]
async fn labels_that_a_series_may_have() {
    let long = "x".repeat(1000);
    let shapes: [&[(&str, &str)]; 6] = [
        &[("__name__", "m"), ("job", "")],
        &[("__name__", "m"), ("Zed", "1"), ("a", "2")],
        &[("__name__", "m"), ("a", "1"), ("aa", "2"), ("a.b", "3"), ("é", "4")],
        &[("__name__", "температура"), ("регион", "🌍")],
        &[("__name__", "m"), ("__reserved__", "x")],
        &[("__name__", "m"), ("long", &long)],
    ];
    check(shapes.map(|labels| good(&format!("{labels:?}"), [Series::of(labels).value(1.0)]))).await;
}

/// The sender's samples of one series in one request, in the order of their times.
#[tokio::test]
async fn several_samples_of_one_series() {
    let series = |at: &[i64]| at.iter().fold(Series::new("m"), |series, at| series.value_at(1.0, *at));
    check([
        good("in one", [series(&[-30, -15, 0])]),
        good("in several with equal labels", [series(&[-30]), series(&[-15]), series(&[0])]),
        good("with another between them", [series(&[-30]), Series::new("n").value(1.0), series(&[0])]),
    ])
    .await;
}
