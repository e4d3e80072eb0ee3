//! Series in few words, and bodies of both protocols made of them.
//!
//! Labels travel in falling order: senders other than Prometheus sort nothing.

use crate::support::{pack, refer};
use promdedup::proto::v2::metadata::MetricType;
use promdedup::proto::{self, v2};
use promdedup::stand_in::request::histogram_point;
use promdedup::stand_in::{Labels, Point, now_ms};
use prost::Message;
use std::sync::OnceLock;

/// Both versions of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    One,
    Two,
}

pub(super) const TYPE_1: &str = "application/x-protobuf";
pub(super) const TYPE_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// What samples without a distance are dated by: it stands still.
pub(super) fn now() -> i64 {
    static NOW: OnceLock<i64> = OnceLock::new();
    *NOW.get_or_init(now_ms)
}

/// Labels, value, time.
pub(super) type Exemplar = (Vec<(String, String)>, f64, i64);

/// One `TimeSeries`.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub(super) labels: Vec<(String, String)>,
    pub(super) samples: Vec<v2::Sample>,
    pub(super) histograms: Vec<v2::Histogram>,
    pub(super) exemplars: Vec<Exemplar>,
    pub(super) metadata: Option<(MetricType, String, String)>,
    pub(super) created_ms: i64,
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Series {
    pub(super) fn new(name: &str) -> Self {
        Self::of(&[("__name__", name)])
    }

    pub(super) fn of(labels: &[(&str, &str)]) -> Self {
        Self { labels: owned(labels), ..Self::default() }
    }

    pub(super) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn value(self, value: f64) -> Self {
        self.value_at(value, 0)
    }

    /// With a distance to now in seconds.
    pub(super) fn value_at(mut self, value: f64, seconds: i64) -> Self {
        let timestamp = now() + seconds * 1000;
        self.samples.push(v2::Sample { value, timestamp, start_timestamp: 0 });
        self
    }

    pub(super) fn started(mut self, seconds: i64) -> Self {
        let at = now() + seconds * 1000;
        self.samples.iter_mut().for_each(|sample| sample.start_timestamp = at);
        self.histograms.iter_mut().for_each(|histogram| histogram.start_timestamp = at);
        self
    }

    /// As drafts of 2.0 before its fourth said when a series started.
    pub(super) fn created(mut self, seconds: i64) -> Self {
        self.created_ms = now() + seconds * 1000;
        self
    }

    pub(super) fn histogram(self, histogram: v2::Histogram) -> Self {
        self.histogram_at(histogram, 0)
    }

    pub(super) fn histogram_at(mut self, histogram: v2::Histogram, seconds: i64) -> Self {
        self.histograms.push(v2::Histogram { timestamp: now() + seconds * 1000, ..histogram });
        self
    }

    pub(super) fn exemplar(self, labels: &[(&str, &str)], value: f64) -> Self {
        self.exemplar_at(labels, value, 0)
    }

    pub(super) fn exemplar_at(mut self, labels: &[(&str, &str)], value: f64, seconds: i64) -> Self {
        self.exemplars.push((owned(labels), value, now() + seconds * 1000));
        self
    }

    pub(super) fn told(mut self, kind: MetricType, help: &str, unit: &str) -> Self {
        self.metadata = Some((kind, help.to_owned(), unit.to_owned()));
        self
    }

    /// Sent by that replica.
    pub(super) fn by(&self, replica: Option<&str>) -> Self {
        replica.map_or_else(|| self.clone(), |replica| self.clone().label("prometheus_replica", replica))
    }

    /// What it is called where it is stored: an empty value is an absent label.
    pub(super) fn stored_labels(&self) -> Labels {
        Labels::new(self.labels.iter().filter(|(_, value)| !value.is_empty()).cloned())
    }

    /// What is stored of it.
    pub(super) fn points(&self) -> Vec<Point> {
        let floats = self.samples.iter().map(|sample| Point::float(sample.timestamp, sample.value));
        floats.chain(self.histograms.iter().map(|h| histogram_point(&of_1(h)))).collect()
    }

    fn falling_labels(&self) -> Vec<(String, String)> {
        let mut labels = self.labels.clone();
        labels.sort_by(|one, other| other.cmp(one));
        labels
    }
}

/// Its fields have the same numbers in both protocols, but for when it started, which 1.0 does not know.
fn of_1(histogram: &v2::Histogram) -> proto::Histogram {
    let timeless = v2::Histogram { start_timestamp: 0, ..histogram.clone() };
    Message::decode(timeless.encode_to_vec().as_slice()).expect("a histogram")
}

fn falling(labels: &[(String, String)]) -> Vec<(String, String)> {
    let mut labels = labels.to_vec();
    labels.sort_by(|one, other| other.cmp(one));
    labels
}

fn references(symbols: &mut Vec<String>, labels: &[(String, String)]) -> Vec<u32> {
    labels.iter().flat_map(|(name, value)| [refer(symbols, name), refer(symbols, value)]).collect()
}

/// A request of 2.0.
pub(super) fn two(series: &[Series]) -> v2::Request {
    let mut symbols = vec![String::new()];
    let timeseries = series
        .iter()
        .map(|series| v2::TimeSeries {
            labels_refs: references(&mut symbols, &series.falling_labels()),
            samples: series.samples.clone(),
            histograms: series.histograms.clone(),
            exemplars: series
                .exemplars
                .iter()
                .map(|(labels, value, timestamp)| v2::Exemplar {
                    labels_refs: references(&mut symbols, &falling(labels)),
                    value: *value,
                    timestamp: *timestamp,
                })
                .collect(),
            metadata: series.metadata.as_ref().map(|(kind, help, unit)| v2::Metadata {
                r#type: *kind as i32,
                help_ref: refer(&mut symbols, help),
                unit_ref: refer(&mut symbols, unit),
            }),
            created_timestamp: series.created_ms,
        })
        .collect();
    v2::Request { symbols, timeseries }
}

/// The same in 1.0, but for metadata, which has no series there, and start timestamps.
pub(super) fn one(series: &[Series]) -> proto::WriteRequest {
    let labels = |labels: Vec<(String, String)>| {
        labels.into_iter().map(|(name, value)| proto::Label { name, value }).collect::<Vec<_>>()
    };
    let timeseries = series.iter().map(|series| proto::TimeSeries {
        labels: labels(series.falling_labels()),
        samples: series
            .samples
            .iter()
            .map(|sample| proto::Sample { value: sample.value, timestamp: sample.timestamp })
            .collect(),
        histograms: series.histograms.iter().map(of_1).collect(),
        exemplars: series
            .exemplars
            .iter()
            .map(|(all, value, timestamp)| proto::Exemplar {
                labels: labels(falling(all)),
                value: *value,
                timestamp: *timestamp,
            })
            .collect(),
    });
    proto::WriteRequest { timeseries: timeseries.collect(), metadata: vec![] }
}

/// A compressed body.
pub(super) fn body(speaks: Speaks, series: &[Series]) -> Vec<u8> {
    match speaks {
        Speaks::One => pack(&one(series).encode_to_vec()),
        Speaks::Two => pack(&two(series).encode_to_vec()),
    }
}

/// Which parts a histogram has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub(super) positive: bool,
    pub(super) negative: bool,
    pub(super) zero: bool,
    pub(super) custom: bool,
}

pub(super) const ALL: Parts = Parts { positive: true, negative: true, zero: true, custom: false };
pub(super) const POSITIVE: Parts = Parts { positive: true, negative: false, zero: true, custom: false };
pub(super) const NEGATIVE: Parts = Parts { positive: false, negative: true, zero: false, custom: false };
pub(super) const CUSTOM: Parts = Parts { positive: false, negative: false, zero: false, custom: true };

/// A histogram whose count is that of its buckets.
pub(super) fn histogram(sum: f64, parts: Parts) -> v2::Histogram {
    let span = |offset, length| v2::BucketSpan { offset, length };
    let mut histogram = v2::Histogram { sum, ..v2::Histogram::default() };
    let mut count = 0;
    if parts.positive {
        histogram.positive_spans = vec![span(0, 3), span(2, 2)];
        histogram.positive_deltas = vec![1, 2, 1, 3, 1]; // 1, 3, 4, 7, 8
        count += 23;
    }
    if parts.negative {
        histogram.negative_spans = vec![span(0, 2)];
        histogram.negative_deltas = vec![1, 1]; // 1, 2
        count += 3;
    }
    if parts.zero {
        histogram.zero_count = Some(v2::histogram::ZeroCount::ZeroCountInt(1));
        count += 1;
    }
    if parts.custom {
        histogram.schema = -53;
        histogram.custom_values = vec![0.1, 0.5, 1.0, 2.5, 5.0, 10.0];
        histogram.positive_spans = vec![span(0, 6)];
        histogram.positive_deltas = vec![2, 1, 2, 3, -1, -2]; // 2, 3, 5, 8, 7, 5
        count = 30;
    }
    histogram.count = Some(v2::histogram::Count::CountInt(count));
    histogram
}
