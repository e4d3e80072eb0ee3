//! Native histograms: every shape of buckets, with exemplars and metadata, in both protocols.

use super::bodies::{ALL, CUSTOM, NEGATIVE, POSITIVE, Parts, Series, histogram};
use super::rows::{check, good};
use crate::support::STALE;
use promdedup::proto::v2;
use promdedup::proto::v2::metadata::MetricType::Histogram;

#[tokio::test]
async fn histograms_of_every_shape() {
    let zero = Parts { zero: true, ..Parts::default() };
    let basic = || Series::new("test_histogram");
    check([
        good("all parts", [basic().histogram(histogram(1.0, ALL))]),
        good("custom buckets", [basic().histogram(histogram(1.0, CUSTOM))]),
        good("positive only", [basic().label("job", "test").histogram(histogram(1.0, POSITIVE))]),
        good("negative only", [basic().label("instance", "localhost").histogram(histogram(1.0, NEGATIVE))]),
        good("zero bucket only", [Series::new("minimal_hist").histogram(histogram(1.0, zero))]),
        good("empty", [Series::new("empty_hist").histogram(histogram(0.0, Parts::default()))]),
    ])
    .await;
}

#[tokio::test]
async fn histograms_of_every_encoding() {
    let float = v2::Histogram {
        count: Some(v2::histogram::Count::CountFloat(3.5)),
        zero_count: Some(v2::histogram::ZeroCount::ZeroCountFloat(0.5)),
        positive_spans: vec![v2::BucketSpan { offset: -2, length: 2 }],
        positive_counts: vec![1.0, 2.0],
        positive_deltas: vec![],
        ..histogram(2.0, Parts::default())
    };
    let gauge =
        v2::Histogram { reset_hint: v2::histogram::ResetHint::Gauge as i32, ..histogram(1.0, POSITIVE) };
    let fine = v2::Histogram { schema: 8, zero_threshold: 1e-128, ..histogram(1.0, ALL) };
    // The sum of buckets may be below the count where observations were NaN.
    let nan = v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(99)),
        ..histogram(f64::from_bits(0x7ff8_0000_0000_0001), POSITIVE)
    };
    let stale = histogram(f64::from_bits(STALE), Parts::default());
    let all = [("floats", float), ("gauge", gauge), ("fine", fine), ("NaN", nan), ("stale", stale)];
    check(all.map(|(name, histogram)| good(name, [Series::new("h").histogram(histogram)]))).await;
}

#[tokio::test]
async fn histograms_that_say_when_they_started() {
    let series = || {
        let labels = [("__name__", "request_duration_seconds"), ("job", "api")];
        Series::of(&labels).histogram(histogram(1.5, ALL))
    };
    check([good("created", [series().created(-1800)]), good("started", [series().started(-1800)])]).await;
}

#[tokio::test]
async fn several_histograms() {
    let hist =
        |name, parts| Series::of(&[("__name__", name), ("job", "test")]).histogram(histogram(5.2, parts));
    let told = |series: Series, help| series.told(Histogram, help, "seconds");
    let later = |seconds| Series::new("h").histogram_at(histogram(1.0, ALL), seconds);
    check([
        good("two", [hist("hist1", POSITIVE), hist("hist2", NEGATIVE)]),
        good("two with metadata", [told(hist("a", POSITIVE), "One."), told(hist("b", ALL), "Other.")]),
        good("of one series", [later(-30), later(-15), later(0)]),
        good("beside floats", [hist("h", ALL), Series::new("m").value(1.0)]),
    ])
    .await;
}

#[tokio::test]
async fn histograms_with_what_may_go_with_them() {
    let series = || {
        let labels = [("__name__", "response_size_bytes"), ("service", "upload")];
        Series::of(&labels).histogram(histogram(1.0, ALL))
    };
    let told = |series: Series| series.told(Histogram, "HTTP response size in bytes", "bytes");
    let marked = |series: Series| series.exemplar(&[("trace_id", "abc"), ("span_id", "def")], 1.23);
    check([
        good("metadata", [told(series())]),
        good("an exemplar", [marked(series())]),
        good("both", [marked(told(series()))]),
        good("custom buckets and an exemplar", [marked(Series::new("c").histogram(histogram(0.05, CUSTOM)))]),
    ])
    .await;
}
