//! A target's native histogram, in the protobuf format that Prometheus scrapes it by (`io.prometheus.client`,
//! `metrics.proto` of prometheus/client_model). Only the fields that are used.

use prost::Message;

/// What the response says it is.
pub(crate) const FORMAT: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
const HISTOGRAM: i32 = 4;

#[derive(Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// The page of a target of that age: for each of two methods a histogram with so many observations as milliseconds.
pub(crate) fn page(age_s: f64) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds of a test")]
    let all = (age_s * 1e3) as u64;
    let (zero, first, second) = (all % 7, (all - all % 7) / 3, all - all % 7 - (all - all % 7) / 3);
    let histogram = |method: &str| Metric {
        label: vec![LabelPair { name: "method".into(), value: method.into() }],
        histogram: Some(Histogram {
            sample_count: all,
            sample_sum: age_s * 17.3,
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: zero,
            positive_span: vec![BucketSpan { offset: -2, length: 1 }, BucketSpan { offset: 3, length: 1 }],
            positive_delta: vec![first.cast_signed(), second.cast_signed() - first.cast_signed()],
        }),
    };
    let family = MetricFamily {
        name: "shop_native_seconds".into(),
        help: "Seconds.".into(),
        kind: HISTOGRAM,
        metric: vec![histogram("GET"), histogram("PUT")],
    };
    family.encode_length_delimited_to_vec()
}
