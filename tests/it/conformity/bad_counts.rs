//! Native histograms that contradict themselves: the count is not that of the buckets.

use super::bodies::{ALL, CUSTOM, POSITIVE, Series, histogram};
use super::rows::{bad, check, good};
use promdedup::proto::v2::Histogram;
use promdedup::proto::v2::histogram::Count::{CountFloat, CountInt};
use promdedup::proto::v2::histogram::ZeroCount::ZeroCountFloat;

fn off(histogram: Histogram) -> Series {
    Series::new("minimal_hist").histogram(Histogram { count: Some(CountInt(99)), ..histogram })
}

#[tokio::test]
async fn a_count_that_is_not_that_of_the_buckets() {
    check([
        bad("positive", [off(histogram(1.0, POSITIVE))]),
        bad("all parts", [off(histogram(1.0, ALL))]),
        bad("custom buckets", [off(histogram(1.0, CUSTOM))]),
    ])
    .await;
}

/// Prometheus (`FloatHistogram.Validate`) does not hold them against each other: sums of floats differ by rounding.
#[tokio::test]
async fn a_count_of_floats_may_differ_from_that_of_the_buckets() {
    let floats = Histogram {
        count: Some(CountFloat(99.0)),
        zero_count: Some(ZeroCountFloat(1.0)),
        positive_spans: histogram(1.0, POSITIVE).positive_spans,
        positive_counts: vec![1.0; 5],
        ..Histogram::default()
    };
    check([good("floats", [Series::new("h").histogram(floats)])]).await;
}

#[tokio::test]
async fn a_bad_count_costs_its_series_alone() {
    let fine = Series::new("fine").histogram(histogram(1.0, ALL)).exemplar(&[("trace_id", "1")], 1.0);
    let float = Series::new("m").value(1.0);
    check([good("beside others", [fine, float]).beside([off(histogram(1.0, POSITIVE))])]).await;
}
