//! Remote-write 1.0 bodies: made by hand for a test, or from label blocks encoded once for a busy sender.
//!
//! Field numbers are those of `prompb/remote.proto` and `prompb/types.proto`. As gogo-proto does it for Prometheus, a field that equals
//! zero is left out.

use super::{Labels, Point, STALE_MARKER_BITS};
use crate::proto;
use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

/// A body made by hand, in the order given; nothing is sorted, checked or merged.
///
/// ```
/// use promdedup::stand_in::request::Body;
/// let body = Body::new().series(&[("__name__", "up"), ("job", "node")], &[(1_000, 1.0)]).compressed();
/// assert!(!body.is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Body {
    request: proto::WriteRequest,
}

impl Body {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One TimeSeries with float samples (milliseconds, value).
    #[must_use]
    pub fn series(mut self, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        let samples = samples.iter().map(|&(timestamp, value)| proto::Sample { value, timestamp }).collect();
        let series = proto::TimeSeries { labels: proto_labels(labels), samples, ..Default::default() };
        self.request.timeseries.push(series);
        self
    }

    /// One TimeSeries with a stale marker.
    #[must_use]
    pub fn stale(self, labels: &[(&str, &str)], at_ms: i64) -> Self {
        self.series(labels, &[(at_ms, f64::from_bits(STALE_MARKER_BITS))])
    }

    /// One TimeSeries with exemplars (milliseconds, value) and no sample, as Prometheus sends them.
    #[must_use]
    pub fn exemplars(mut self, labels: &[(&str, &str)], exemplars: &[(i64, f64)]) -> Self {
        let exemplars = exemplars
            .iter()
            .map(|&(timestamp, value)| proto::Exemplar {
                labels: proto_labels(&[("trace_id", &format!("{timestamp:016x}"))]),
                value,
                timestamp,
            })
            .collect();
        let series = proto::TimeSeries { labels: proto_labels(labels), exemplars, ..Default::default() };
        self.request.timeseries.push(series);
        self
    }

    /// One TimeSeries with native histograms (milliseconds, observations).
    #[must_use]
    pub fn histograms(mut self, labels: &[(&str, &str)], histograms: &[(i64, u64)]) -> Self {
        let histograms = histograms.iter().map(|&(at_ms, count)| histogram(at_ms, count)).collect();
        let series = proto::TimeSeries { labels: proto_labels(labels), histograms, ..Default::default() };
        self.request.timeseries.push(series);
        self
    }

    /// One TimeSeries as given.
    #[must_use]
    pub fn raw(mut self, series: proto::TimeSeries) -> Self {
        self.request.timeseries.push(series);
        self
    }

    /// Metadata of a family.
    #[must_use]
    pub fn metadata(mut self, family: &str, help: &str) -> Self {
        self.request.metadata.push(proto::MetricMetadata {
            metric_family_name: family.to_owned(),
            help: help.to_owned(),
            ..Default::default()
        });
        self
    }

    /// The message, for whoever wants to change it further.
    #[must_use]
    pub fn request(&self) -> &proto::WriteRequest {
        &self.request
    }

    /// The protobuf bytes.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        self.request.encode_to_vec()
    }

    /// The body as it travels: one snappy block.
    #[must_use]
    pub fn compressed(&self) -> Bytes {
        compress(&self.encoded())
    }
}

/// One snappy block.
#[must_use]
pub fn compress(raw: &[u8]) -> Bytes {
    // Fails only above 4 GiB, which no caller can hold; an empty body would then be refused by any receiver.
    Bytes::from(snap::raw::Encoder::new().compress_vec(raw).unwrap_or_default())
}

/// A small native histogram (schema 0, one span) with so many observations.
#[must_use]
pub fn histogram(at_ms: i64, count: u64) -> proto::Histogram {
    let half = i64::try_from(count / 2).unwrap_or(i64::MAX);
    proto::Histogram {
        count: Some(proto::histogram::Count::CountInt(count)),
        #[expect(clippy::cast_precision_loss, reason = "a made-up sum")]
        sum: count as f64 * 0.5,
        zero_threshold: 1e-128,
        zero_count: Some(proto::histogram::ZeroCount::ZeroCountInt(count - count / 2 * 2)),
        positive_spans: vec![proto::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![half, 0],
        timestamp: at_ms,
        ..Default::default()
    }
}

/// A native histogram as the records hold it. A stale marker is the same as one that is a float.
#[must_use]
pub fn histogram_point(histogram: &proto::Histogram) -> Point {
    if histogram.sum.to_bits() == STALE_MARKER_BITS {
        return Point::stale(histogram.timestamp);
    }
    let timeless = proto::Histogram { timestamp: 0, ..histogram.clone() };
    Point { at_ms: histogram.timestamp, bits: xxh3_64(&timeless.encode_to_vec()), histogram: true }
}

/// The label fields of a TimeSeries, encoded once per series and copied per sample.
#[must_use]
pub fn label_block(labels: &Labels) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in labels.iter() {
        let length =
            name.len() + value.len() + 2 + varint_len(name.len() as u64) + varint_len(value.len() as u64);
        block.push(0x0a);
        put_varint(&mut block, length as u64);
        put_bytes(&mut block, 0x0a, name.as_bytes());
        put_bytes(&mut block, 0x12, value.as_bytes());
    }
    block
}

/// Appends one TimeSeries of one float sample.
pub fn put_sample(body: &mut Vec<u8>, block: &[u8], at_ms: i64, bits: u64) {
    put_with_value(body, block, [0x12, 0x09, 0x10], &[], at_ms, bits);
}

/// Appends one TimeSeries of one exemplar and no sample.
pub(super) fn put_exemplar(body: &mut Vec<u8>, block: &[u8], trace_id: &str, at_ms: i64, bits: u64) {
    let labels = label_block(&Labels::new([("trace_id", trace_id)]));
    put_with_value(body, block, [0x1a, 0x11, 0x18], &labels, at_ms, bits);
}

/// Appends one TimeSeries of one native histogram.
pub(super) fn put_histogram(body: &mut Vec<u8>, block: &[u8], histogram: &proto::Histogram) {
    let message = histogram.encode_to_vec();
    body.push(0x0a);
    put_varint(body, (block.len() + 1 + varint_len(message.len() as u64) + message.len()) as u64);
    body.extend_from_slice(block);
    put_bytes(body, 0x22, &message);
}

/// `tags`: of the field in TimeSeries, of its value (double) and of its timestamp (varint).
fn put_with_value(body: &mut Vec<u8>, block: &[u8], tags: [u8; 3], labels: &[u8], at_ms: i64, bits: u64) {
    let at = at_ms.cast_unsigned();
    let is_zero = f64::from_bits(bits) == 0.0;
    let inner = labels.len() + if is_zero { 0 } else { 9 } + if at == 0 { 0 } else { 1 + varint_len(at) };
    body.push(0x0a);
    put_varint(body, (block.len() + 1 + varint_len(inner as u64) + inner) as u64);
    body.extend_from_slice(block);
    body.push(tags[0]);
    put_varint(body, inner as u64);
    body.extend_from_slice(labels);
    if !is_zero {
        body.push(tags[1]);
        body.extend_from_slice(&bits.to_le_bytes());
    }
    if at != 0 {
        body.push(tags[2]);
        put_varint(body, at);
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn proto_labels(labels: &[(&str, &str)]) -> Vec<proto::Label> {
    labels
        .iter()
        .map(|&(name, value)| proto::Label { name: name.to_owned(), value: value.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Body, histogram, label_block, put_exemplar, put_histogram, put_sample};
    use crate::stand_in::Labels;

    /// Blocks encoded by hand are what prost would have written.
    #[test]
    fn encodes_like_prost() {
        let long = "x".repeat(300);
        let pairs = [("__name__", "up"), ("job", long.as_str())];
        let block = label_block(&Labels::new(pairs));
        let mut body = Vec::new();
        put_sample(&mut body, &block, 1_700_000_000_123, 1.5f64.to_bits());
        put_sample(&mut body, &block, 0, 0);
        put_exemplar(&mut body, &block, &format!("{:016x}", 77), 77, 0.25f64.to_bits());
        put_histogram(&mut body, &block, &histogram(5, 9));
        let expect = Body::new()
            .series(&pairs, &[(1_700_000_000_123, 1.5)])
            .series(&pairs, &[(0, 0.0)])
            .exemplars(&pairs, &[(77, 0.25)])
            .histograms(&pairs, &[(5, 9)])
            .encoded();
        assert_eq!(body, expect);
    }
}
