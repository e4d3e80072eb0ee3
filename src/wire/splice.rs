//! The outgoing body, put together from received bytes.
//!
//! Owns the `TimeSeries` of a remote-write 1.0 request as it goes upstream: what is kept is copied, never decoded and
//! encoded again. Writes to a vector that the caller has reserved; decides nothing.

mod row;

use super::fields::{self, put_varint, varint_len};
use super::v1::{EXEMPLARS, HISTOGRAMS, LABELS, SAMPLES, Sample, TimeSeries};
use super::{STALE_NAN_BITS, Span};
pub use row::Row;

/// With which labels a series leaves.
#[derive(Debug, Clone, Copy)]
pub enum Labels<'a> {
    /// The received bytes around the replica label, which must be `plain` and canonical.
    Cut,
    /// These label bytes (canonical ones) in the place of all that came.
    Rewritten(&'a [u8]),
    /// As received, replica label included.
    Received,
}

/// One sample of an edited series.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A received one, as it came.
    Keep(Sample),
    /// A float that was held.
    Float {
        /// Its time, in milliseconds since the epoch.
        at: i64,
        /// The bits of its value.
        bits: u64,
    },
    /// A histogram that was held: its encoded message, without key and length.
    Histogram(&'a [u8]),
    /// A stale marker as a histogram without buckets.
    HistogramMarker {
        /// Its time, in milliseconds since the epoch.
        at: i64,
    },
}

/// Appends the series with all that it brought: samples, exemplars, unknown fields.
#[inline]
pub fn whole(body: &[u8], series: &TimeSeries, labels: Labels<'_>, out: &mut Vec<u8>) {
    match labels {
        Labels::Received => {
            put_head(out, series.payload.len());
            out.extend_from_slice(series.payload.of(body));
        }
        Labels::Cut => {
            let mut row = Row::default();
            row.put(body, series, out);
            row.end(body, out);
        }
        Labels::Rewritten(labels) if series.plain => {
            put_head(out, labels.len() + series.rest.len());
            out.extend_from_slice(labels);
            out.extend_from_slice(series.rest.of(body));
        }
        Labels::Rewritten(labels) => {
            let mut length = labels.len();
            each_run(body, series.payload, |number| number != LABELS, |run| length += run.len());
            put_head(out, length);
            out.extend_from_slice(labels);
            each_run(body, series.payload, |number| number != LABELS, |run| out.extend_from_slice(run));
        }
    }
}

/// Appends the series with the samples of `steps`, in their order, in the place of those it brought; unknown fields
/// stay, exemplars if `exemplars` says so.
pub fn edited(
    body: &[u8],
    series: &TimeSeries,
    labels: Labels<'_>,
    steps: &[Step<'_>],
    exemplars: bool,
    out: &mut Vec<u8>,
) {
    let stays = |number| match number {
        LABELS | SAMPLES | HISTOGRAMS => false,
        EXEMPLARS => exemplars,
        _ => true,
    };
    let mut length = steps.iter().map(|step| step.len()).sum();
    each_label_run(body, series, labels, |run| length += run.len());
    each_run(body, series.payload, stays, |run| length += run.len());
    put_head(out, length);
    each_label_run(body, series, labels, |run| out.extend_from_slice(run));
    for step in steps {
        step.put(body, out);
    }
    each_run(body, series.payload, stays, |run| out.extend_from_slice(run));
}

/// Appends a field of the request as it came: metadata, or one that is not known here.
pub fn field(body: &[u8], field: Span, out: &mut Vec<u8>) {
    out.extend_from_slice(field.of(body));
}

/// An upper bound, in bytes, of what [`whole`] appends with labels cut or received.
#[must_use]
pub fn whole_len_max(series: &TimeSeries) -> usize {
    1 + varint_len(u64::from(u32::MAX)) + series.payload.len()
}

impl Step<'_> {
    fn len(&self) -> usize {
        match *self {
            Step::Keep(sample) => sample.field.len(),
            Step::Float { at, bits } => 2 + float_len(at, bits),
            Step::Histogram(message) => 1 + varint_len(message.len() as u64) + message.len(),
            Step::HistogramMarker { at } => 2 + marker_len(at),
        }
    }

    #[allow(clippy::cast_possible_truncation)] // a float is at most 20 bytes, a marker 24
    fn put(&self, body: &[u8], out: &mut Vec<u8>) {
        match *self {
            Step::Keep(sample) => out.extend_from_slice(sample.field.of(body)),
            Step::Float { at, bits } => {
                out.extend_from_slice(&[0x12, float_len(at, bits) as u8]);
                if bits != 0 {
                    out.push(0x09);
                    out.extend_from_slice(&bits.to_le_bytes());
                }
                if at != 0 {
                    out.push(0x10);
                    put_varint(out, at.cast_unsigned());
                }
            }
            Step::Histogram(message) => {
                out.push(0x22);
                put_varint(out, message.len() as u64);
                out.extend_from_slice(message);
            }
            Step::HistogramMarker { at } => {
                out.extend_from_slice(&[0x22, marker_len(at) as u8]);
                // As Prometheus encodes `Histogram{Sum: StaleNaN}`: both counts are there and 0.
                out.extend_from_slice(&[0x08, 0x00, 0x19]);
                out.extend_from_slice(&STALE_NAN_BITS.to_le_bytes());
                out.extend_from_slice(&[0x30, 0x00, 0x78]);
                put_varint(out, at.cast_unsigned());
            }
        }
    }
}

const fn marker_len(at: i64) -> usize {
    14 + varint_len(at.cast_unsigned())
}

/// Fields that are 0 are left out, as proto3 wants it. Negative zero has a bit and stays.
const fn float_len(at: i64, bits: u64) -> usize {
    let value = if bits == 0 { 0 } else { 9 };
    let timestamp = if at == 0 { 0 } else { 1 + varint_len(at.cast_unsigned()) };
    value + timestamp
}

#[inline]
fn put_head(out: &mut Vec<u8>, length: usize) {
    out.push(0x0a);
    put_varint(out, length as u64);
}

fn each_label_run<'a>(
    body: &'a [u8],
    series: &TimeSeries,
    labels: Labels<'a>,
    mut emit: impl FnMut(&'a [u8]),
) {
    match labels {
        Labels::Rewritten(labels) => emit(labels),
        Labels::Cut => {
            emit(series.before.of(body));
            emit(series.after.of(body));
        }
        Labels::Received => each_run(body, series.payload, |number| number == LABELS, emit),
    }
}

/// Hands on the fields of a message whose number is wanted, neighbours as one run.
fn each_run<'a>(body: &'a [u8], payload: Span, wanted: impl Fn(u32) -> bool, mut emit: impl FnMut(&'a [u8])) {
    let message = &body[..payload.end as usize];
    let mut at = payload.start as usize;
    let mut run = at;
    // The walk has read these fields before, so no error ends the loop early.
    while at < message.len()
        && let Ok(field) = fields::read(message, at)
    {
        if !wanted(field.number) {
            emit(&message[run..at]);
            run = field.end();
        }
        at = field.end();
    }
    emit(&message[run..at]);
}
