//! Whether a native histogram is one: what Prometheus' `Histogram.Validate` and `FloatHistogram.Validate`
//! (`model/histogram`) ask of it.
//!
//! Owns the meaning of the fields of a `Histogram` (Prometheus `prompb/types.proto`), and the rules that hold between
//! them. One pass over its bytes, nothing is allocated. Refuses to correct anything, and to look at stale markers: they
//! have no buckets to judge.

use super::fields::{self, Field, LENGTH, VARINT};
use super::{Malformed, STALE_NAN_BITS};
use std::fmt;

const COUNT_INT: u32 = 1;
const COUNT_FLOAT: u32 = 2;
const SUM: u32 = 3;
const SCHEMA: u32 = 4;
const ZERO_THRESHOLD: u32 = 5;
const ZERO_COUNT_INT: u32 = 6;
const ZERO_COUNT_FLOAT: u32 = 7;
const NEGATIVE_SPANS: u32 = 8;
const NEGATIVE_DELTAS: u32 = 9;
const NEGATIVE_COUNTS: u32 = 10;
const POSITIVE_SPANS: u32 = 11;
const POSITIVE_DELTAS: u32 = 12;
const POSITIVE_COUNTS: u32 = 13;
const CUSTOM_VALUES: u32 = 16;
const SPAN_OFFSET: u32 = 1;
const SPAN_LENGTH: u32 = 2;

/// Bounds of the buckets are told one by one (`CustomBucketsSchema`).
const SCHEMA_CUSTOM: i32 = -53;
/// `ExponentialSchemaMinReserved` and `ExponentialSchemaMaxReserved`: -4 to 8 are in use, finer ones are made coarser by
/// who stores them, the rest is known by name.
const SCHEMA_EXPONENTIAL: std::ops::RangeInclusive<i32> = -9..=52;

/// A histogram that no receiver should store. Only the sample is refused, not the request around it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidHistogram {
    /// A schema that Prometheus does not know.
    #[error("histogram has schema {schema}; known are -9 to 52 and -53")]
    Schema {
        /// As received.
        schema: i32,
    },
    /// A span that begins before the end of the one before it; with custom buckets also before the first bucket.
    #[error("{side} span {number} of the histogram has offset {offset}")]
    SpanOffset {
        /// On which side of zero.
        side: Side,
        /// Which span, counted from 1.
        number: u64,
        /// As received.
        offset: i32,
    },
    /// The spans do not say where the buckets are.
    #[error("{side} spans of the histogram have room for {spans} buckets, it has {buckets}")]
    SpanLengths {
        /// On which side of zero.
        side: Side,
        /// The sum of the spans' lengths.
        spans: u64,
        /// How many buckets there are.
        buckets: u64,
    },
    /// A bucket below zero, or one that does not fit 63 bits.
    #[error("{side} bucket {number} of the histogram cannot hold {count} observations")]
    Bucket {
        /// On which side of zero.
        side: Side,
        /// Which bucket, counted from 1.
        number: u64,
        /// The sum of all deltas up to this one.
        count: i128,
    },
    /// A bucket of a float histogram below zero.
    #[error("{side} bucket {number} of the histogram cannot hold {count} observations")]
    FloatBucket {
        /// On which side of zero.
        side: Side,
        /// Which bucket, counted from 1.
        number: u64,
        /// As received.
        count: f64,
    },
    /// The zero bucket of a float histogram is below zero.
    #[error("zero bucket of the histogram cannot hold {count} observations")]
    ZeroBucket {
        /// As received.
        count: f64,
    },
    /// A float histogram has fewer than no observations.
    #[error("histogram cannot have {count} observations")]
    Count {
        /// As received.
        count: f64,
    },
    /// The buckets do not add up to the count. (Where the sum is NaN some observations were NaN, and are in no bucket.)
    #[error("buckets of the histogram hold {held} observations, its count says {count}")]
    CountMismatch {
        /// Those in all buckets, the zero bucket included.
        held: u128,
        /// As received.
        count: u64,
    },
    /// A custom bound that is no number.
    #[error("custom bound {number} of the histogram is NaN")]
    BoundNan {
        /// Which bound, counted from 1.
        number: u64,
    },
    /// A custom bound that is not above the one before it.
    #[error("custom bound {number} of the histogram is {bound}, the one before it {before}")]
    BoundNotAbove {
        /// Which bound, counted from 1.
        number: u64,
        /// As received.
        bound: f64,
        /// The one before it.
        before: f64,
    },
    /// The last custom bound is infinite: that of the last bucket is never told.
    #[error("custom bound {number} of the histogram is infinite")]
    BoundInfinite {
        /// Which bound, counted from 1.
        number: u64,
    },
    /// The spans reach beyond the custom bounds.
    #[error("spans of the histogram reach bucket {reach}, its {bounds} custom bounds make {} buckets", .bounds + 1)]
    TooFewBounds {
        /// The sum of the spans' offsets and lengths.
        reach: u64,
        /// How many bounds there are.
        bounds: u64,
    },
    /// Custom buckets have no zero bucket.
    #[error("histogram with custom buckets has a zero bucket")]
    CustomZeroBucket,
    /// Custom buckets have no zero bucket.
    #[error("histogram with custom buckets has zero threshold {threshold}")]
    CustomZeroThreshold {
        /// As received.
        threshold: f64,
    },
    /// Custom buckets have one side only.
    #[error("histogram with custom buckets has {spans} negative spans and {buckets} negative buckets")]
    CustomNegative {
        /// How many spans.
        spans: u64,
        /// How many buckets.
        buckets: u64,
    },
    /// Bounds of buckets whose schema says where they are.
    #[error("histogram with schema {schema} has {bounds} custom bounds")]
    ExponentialBounds {
        /// As received.
        schema: i32,
        /// How many there are.
        bounds: u64,
    },
    /// No histogram at all, but broken bytes. The walk has found this already.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// On which side of zero buckets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Below.
    Negative,
    /// Above.
    Positive,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Negative => "negative",
            Self::Positive => "positive",
        })
    }
}

/// Judges the message of a `Histogram`, without key and length.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate(message: &[u8]) -> Result<(), InvalidHistogram> {
    let found = Found::read(message)?;
    if found.sum_bits == STALE_NAN_BITS { Ok(()) } else { found.judge() }
}

/// A number of observations. Of both kinds the one that came last counts, and decides what the histogram is.
#[derive(Debug, Clone, Copy)]
enum Observations {
    Int(u64),
    Float(f64),
}

/// What one pass over the message finds. Whether it is an integer or a float histogram may show at its end only.
#[derive(Debug)]
struct Found {
    count: Observations,
    zero_count: Observations,
    sum_bits: u64,
    schema: i32,
    zero_threshold: f64,
    negative: Buckets,
    positive: Buckets,
    bounds: Bounds,
}

/// The buckets of one side.
#[derive(Debug, Default)]
struct Buckets {
    spans: u64,
    /// The sum of the spans' lengths.
    lengths: u64,
    /// The sum of the spans' lengths and offsets, negative ones left out.
    reach: u64,
    first_offset: i32,
    /// The first span after the first with a negative offset: its number, and that.
    bad_span: Option<(u64, i32)>,
    deltas: u64,
    /// What the newest delta came to.
    last: i64,
    held: u128,
    /// The first bucket with too few or too many observations: its number, and these.
    bad_delta: Option<(u64, i128)>,
    counts: u64,
    bad_count: Option<(u64, f64)>,
}

/// The custom bounds.
#[derive(Debug, Default)]
struct Bounds {
    number: u64,
    last: f64,
    bad: Option<InvalidHistogram>,
}

impl Found {
    fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self {
            count: Observations::Int(0),
            zero_count: Observations::Int(0),
            sum_bits: 0,
            schema: 0,
            zero_threshold: 0.0,
            negative: Buckets::default(),
            positive: Buckets::default(),
            bounds: Bounds::default(),
        };
        let mut at = 0;
        while at < message.len() {
            let field = fields::read(message, at)?;
            at = field.end();
            found.take(message, &field)?;
        }
        Ok(found)
    }

    fn take(&mut self, message: &[u8], field: &Field) -> Result<(), Malformed> {
        let (negative, positive) = (&mut self.negative, &mut self.positive);
        match field.number {
            COUNT_INT => self.count = Observations::Int(field.varint(message)?),
            COUNT_FLOAT => self.count = Observations::Float(double(message, field)?),
            SUM => self.sum_bits = field.fixed64(message)?,
            SCHEMA => self.schema = zigzag32(field.varint(message)?),
            ZERO_THRESHOLD => self.zero_threshold = double(message, field)?,
            ZERO_COUNT_INT => self.zero_count = Observations::Int(field.varint(message)?),
            ZERO_COUNT_FLOAT => self.zero_count = Observations::Float(double(message, field)?),
            NEGATIVE_SPANS => negative.span(message, field)?,
            NEGATIVE_DELTAS => varints(message, field, |delta| negative.delta(zigzag64(delta)))?,
            NEGATIVE_COUNTS => doubles(message, field, |count| negative.count(count))?,
            POSITIVE_SPANS => positive.span(message, field)?,
            POSITIVE_DELTAS => varints(message, field, |delta| positive.delta(zigzag64(delta)))?,
            POSITIVE_COUNTS => doubles(message, field, |count| positive.count(count))?,
            CUSTOM_VALUES => doubles(message, field, |bound| self.bounds.bound(bound))?,
            _ => {}
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), InvalidHistogram> {
        let float = matches!(self.count, Observations::Float(_));
        match self.schema {
            SCHEMA_CUSTOM => self.judge_custom(float)?,
            schema if SCHEMA_EXPONENTIAL.contains(&schema) => self.judge_exponential(float)?,
            schema => return Err(InvalidHistogram::Schema { schema }),
        }
        match self.count {
            Observations::Float(count) if count < 0.0 => Err(InvalidHistogram::Count { count }),
            Observations::Float(_) => Ok(()),
            Observations::Int(count) => {
                let held = self.negative.held + self.positive.held + u128::from(self.zero_count_int());
                let some_in_no_bucket = f64::from_bits(self.sum_bits).is_nan() && held < u128::from(count);
                match held == u128::from(count) || some_in_no_bucket {
                    true => Ok(()),
                    false => Err(InvalidHistogram::CountMismatch { held, count }),
                }
            }
        }
    }

    fn judge_exponential(&self, float: bool) -> Result<(), InvalidHistogram> {
        self.positive.judge(Side::Positive, float)?;
        self.negative.judge(Side::Negative, float)?;
        if float && self.zero_count_float() < 0.0 {
            return Err(InvalidHistogram::ZeroBucket { count: self.zero_count_float() });
        }
        match self.bounds.number {
            0 => Ok(()),
            bounds => Err(InvalidHistogram::ExponentialBounds { schema: self.schema, bounds }),
        }
    }

    fn judge_custom(&self, float: bool) -> Result<(), InvalidHistogram> {
        let (Bounds { number: bounds, last, bad }, side) = (&self.bounds, Side::Positive);
        if let Some(invalid) = bad {
            return Err(*invalid);
        }
        if *bounds > 0 && *last == f64::INFINITY {
            return Err(InvalidHistogram::BoundInfinite { number: *bounds });
        }
        if self.positive.first_offset < 0 {
            let offset = self.positive.first_offset;
            return Err(InvalidHistogram::SpanOffset { side, number: 1, offset });
        }
        self.positive.judge(side, float)?;
        if bounds + 1 < self.positive.reach {
            return Err(InvalidHistogram::TooFewBounds { reach: self.positive.reach, bounds: *bounds });
        }
        let no_zero_bucket = match float {
            true => self.zero_count_float() == 0.0,
            false => self.zero_count_int() == 0,
        };
        if !no_zero_bucket {
            return Err(InvalidHistogram::CustomZeroBucket);
        }
        if self.zero_threshold != 0.0 {
            return Err(InvalidHistogram::CustomZeroThreshold { threshold: self.zero_threshold });
        }
        match (self.negative.spans, self.negative.buckets(float)) {
            (0, 0) => Ok(()),
            (spans, buckets) => Err(InvalidHistogram::CustomNegative { spans, buckets }),
        }
    }

    /// As an integer histogram has it: a float there is none.
    const fn zero_count_int(&self) -> u64 {
        match self.zero_count {
            Observations::Int(count) => count,
            Observations::Float(_) => 0,
        }
    }

    /// As a float histogram has it: an integer there is none.
    const fn zero_count_float(&self) -> f64 {
        match self.zero_count {
            Observations::Int(_) => 0.0,
            Observations::Float(count) => count,
        }
    }
}

impl Buckets {
    fn span(&mut self, message: &[u8], field: &Field) -> Result<(), Malformed> {
        let span = &message[..field.end()];
        let (mut offset, mut length) = (0, 0);
        let mut at = field.content.start as usize;
        while at < span.len() {
            let inner = fields::read(span, at)?;
            match inner.number {
                SPAN_OFFSET => offset = zigzag32(inner.varint(span)?),
                SPAN_LENGTH => length = low32(inner.varint(span)?),
                _ => {}
            }
            at = inner.end();
        }
        self.spans += 1;
        if self.spans == 1 {
            self.first_offset = offset;
        } else if offset < 0 && self.bad_span.is_none() {
            self.bad_span = Some((self.spans, offset));
        }
        // A body has room for 2^31 spans of 2^32 buckets each: 64 bits are enough, and so it is written down here.
        self.lengths = self.lengths.saturating_add(u64::from(length));
        self.reach = self
            .reach
            .saturating_add(u64::from(length))
            .saturating_add(u64::from(offset.max(0).unsigned_abs()));
        Ok(())
    }

    fn delta(&mut self, delta: i64) {
        self.deltas += 1;
        if self.bad_delta.is_some() {
            return;
        }
        match self.last.checked_add(delta) {
            Some(count) if count >= 0 => {
                self.last = count;
                self.held += u128::from(count.unsigned_abs());
            }
            _ => self.bad_delta = Some((self.deltas, i128::from(self.last) + i128::from(delta))),
        }
    }

    fn count(&mut self, count: f64) {
        self.counts += 1;
        if count < 0.0 && self.bad_count.is_none() {
            self.bad_count = Some((self.counts, count));
        }
    }

    const fn buckets(&self, float: bool) -> u64 {
        if float { self.counts } else { self.deltas }
    }

    fn judge(&self, side: Side, float: bool) -> Result<(), InvalidHistogram> {
        if let Some((number, offset)) = self.bad_span {
            return Err(InvalidHistogram::SpanOffset { side, number, offset });
        }
        let (spans, buckets) = (self.lengths, self.buckets(float));
        if spans != buckets {
            return Err(InvalidHistogram::SpanLengths { side, spans, buckets });
        }
        match (self.bad_delta, self.bad_count) {
            (Some((number, count)), _) if !float => Err(InvalidHistogram::Bucket { side, number, count }),
            (_, Some((number, count))) if float => Err(InvalidHistogram::FloatBucket { side, number, count }),
            _ => Ok(()),
        }
    }
}

impl Bounds {
    fn bound(&mut self, bound: f64) {
        self.number += 1;
        let (number, before) = (self.number, std::mem::replace(&mut self.last, bound));
        if self.bad.is_some() {
            return;
        }
        if bound.is_nan() {
            self.bad = Some(InvalidHistogram::BoundNan { number });
        } else if number > 1 && bound <= before {
            self.bad = Some(InvalidHistogram::BoundNotAbove { number, bound, before });
        }
    }
}

/// The numbers of a repeated field, packed or not.
fn varints(message: &[u8], field: &Field, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
    if field.wire_type == VARINT {
        each(field.varint(message)?);
        return Ok(());
    }
    let packed = &message[..field.end()];
    let mut at = field.content.start as usize;
    while at < packed.len() {
        let (number, end) = fields::varint(packed, at)?;
        each(number);
        at = end;
    }
    Ok(())
}

/// As [`varints`], of eight bytes each.
fn doubles(message: &[u8], field: &Field, mut each: impl FnMut(f64)) -> Result<(), Malformed> {
    if field.wire_type != LENGTH {
        each(double(message, field)?);
        return Ok(());
    }
    let packed = &message[..field.end()];
    for at in (field.content.start as usize..packed.len()).step_by(8) {
        each(f64::from_bits(fields::fixed64(packed, at)?));
    }
    Ok(())
}

fn double(message: &[u8], field: &Field) -> Result<f64, Malformed> {
    field.fixed64(message).map(f64::from_bits)
}

/// What a `uint32` keeps of a varint.
#[allow(clippy::cast_possible_truncation)]
const fn low32(varint: u64) -> u32 {
    varint as u32
}

const fn zigzag32(varint: u64) -> i32 {
    let bits = low32(varint);
    (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()
}

const fn zigzag64(varint: u64) -> i64 {
    (varint >> 1).cast_signed() ^ -(varint & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        self, BucketSpan,
        histogram::{Count, ZeroCount},
    };
    use prost::Message as _;

    const NAN: f64 = f64::NAN;

    fn spans(spans: &[(i32, u32)]) -> Vec<BucketSpan> {
        spans.iter().map(|&(offset, length)| BucketSpan { offset, length }).collect()
    }

    /// 3 + 2 + 1 observations above zero, 4 below, 2 near it.
    fn integer() -> proto::Histogram {
        proto::Histogram {
            count: Some(Count::CountInt(12)),
            sum: 1.5,
            schema: 3,
            zero_threshold: 1e-9,
            zero_count: Some(ZeroCount::ZeroCountInt(2)),
            negative_spans: spans(&[(-5, 1)]),
            negative_deltas: vec![4],
            positive_spans: spans(&[(-2, 2), (3, 1)]),
            positive_deltas: vec![3, -1, -1],
            ..Default::default()
        }
    }

    fn float() -> proto::Histogram {
        proto::Histogram {
            count: Some(Count::CountFloat(11.5)),
            zero_count: Some(ZeroCount::ZeroCountFloat(0.5)),
            negative_deltas: Vec::new(),
            negative_counts: vec![4.0],
            positive_deltas: Vec::new(),
            positive_counts: vec![3.0, NAN, 0.0],
            ..integer()
        }
    }

    /// Bounds 0.5 and 1, so three buckets.
    fn custom() -> proto::Histogram {
        proto::Histogram {
            count: Some(Count::CountInt(6)),
            schema: SCHEMA_CUSTOM,
            positive_spans: spans(&[(0, 1), (1, 1)]),
            positive_deltas: vec![5, -4],
            custom_values: vec![0.5, 1.0],
            ..Default::default()
        }
    }

    /// Histograms with one thing changed, and what is said of them.
    type Cases = [(fn(&mut proto::Histogram), &'static str)];

    fn check(good: &proto::Histogram, cases: &Cases) {
        for (change, said) in cases {
            let mut histogram = good.clone();
            change(&mut histogram);
            let verdict = validate(&histogram.encode_to_vec()).err().map_or(String::new(), |e| e.to_string());
            assert_eq!(verdict, *said, "{histogram:?}");
        }
    }

    #[test]
    fn integers() {
        let cases: &Cases = &[
            (|_| {}, ""),
            (|h| h.schema = -9, ""),
            (|h| h.schema = 52, ""),
            (|h| h.schema = -10, "histogram has schema -10; known are -9 to 52 and -53"),
            (|h| h.schema = 53, "histogram has schema 53; known are -9 to 52 and -53"),
            (
                |h| h.positive_spans = spans(&[(-2, 2), (-1, 1)]),
                "positive span 2 of the histogram has offset -1",
            ),
            (
                |h| h.negative_spans = spans(&[(0, 1), (0, 0), (i32::MIN, 0)]),
                "negative span 3 of the histogram has offset -2147483648",
            ),
            (
                |h| h.positive_spans = spans(&[(-2, 2)]),
                "positive spans of the histogram have room for 2 buckets, it has 3",
            ),
            // In 32 bits these would be 3.
            (
                |h| h.positive_spans = spans(&[(0, u32::MAX), (0, 4)]),
                "positive spans of the histogram have room for 4294967299 buckets, it has 3",
            ),
            (
                |h| h.negative_deltas.clear(),
                "negative spans of the histogram have room for 1 buckets, it has 0",
            ),
            (|h| h.positive_deltas[1] = -4, "positive bucket 2 of the histogram cannot hold -1 observations"),
            (|h| h.negative_deltas[0] = -1, "negative bucket 1 of the histogram cannot hold -1 observations"),
            (
                |h| h.positive_deltas[1] = i64::MAX,
                "positive bucket 2 of the histogram cannot hold 9223372036854775810 observations",
            ),
            (
                |h| h.count = Some(Count::CountInt(13)),
                "buckets of the histogram hold 12 observations, its count says 13",
            ),
            (|h| h.count = None, "buckets of the histogram hold 12 observations, its count says 0"),
            (|h| h.zero_count = None, "buckets of the histogram hold 10 observations, its count says 12"),
            (
                |h| (h.count, h.sum) = (Some(Count::CountInt(11)), NAN),
                "buckets of the histogram hold 12 observations, its count says 11",
            ),
            (|h| (h.count, h.sum) = (Some(Count::CountInt(13)), NAN), ""),
            (|h| h.sum = NAN, ""),
            (|h| h.custom_values = vec![1.0], "histogram with schema 3 has 1 custom bounds"),
            // The counts of a float histogram are nothing to an integer one.
            (|h| h.positive_counts = vec![-1.0], ""),
            (
                |h| h.zero_count = Some(ZeroCount::ZeroCountFloat(2.0)),
                "buckets of the histogram hold 10 observations, its count says 12",
            ),
        ];
        check(&integer(), cases);
    }

    #[test]
    fn floats() {
        let cases: &Cases = &[
            (|_| {}, ""),
            (|h| h.count = Some(Count::CountFloat(-0.5)), "histogram cannot have -0.5 observations"),
            (|h| h.count = Some(Count::CountFloat(NAN)), ""),
            (
                |h| h.zero_count = Some(ZeroCount::ZeroCountFloat(-2.0)),
                "zero bucket of the histogram cannot hold -2 observations",
            ),
            (
                |h| h.positive_counts[2] = -0.25,
                "positive bucket 3 of the histogram cannot hold -0.25 observations",
            ),
            (
                |h| h.negative_counts[0] = f64::NEG_INFINITY,
                "negative bucket 1 of the histogram cannot hold -inf observations",
            ),
            (|h| h.positive_counts[2] = -0.0, ""),
            (
                |h| h.positive_counts.push(1.0),
                "positive spans of the histogram have room for 3 buckets, it has 4",
            ),
            (|h| h.positive_spans[1].offset = -1, "positive span 2 of the histogram has offset -1"),
            (|h| h.custom_values = vec![1.0, 2.0], "histogram with schema 3 has 2 custom bounds"),
            (|h| h.schema = 100, "histogram has schema 100; known are -9 to 52 and -53"),
            (|h| h.positive_deltas = vec![-7], ""),
        ];
        check(&float(), cases);
    }

    #[test]
    fn custom_buckets() {
        let cases: &Cases = &[
            (|_| {}, ""),
            (|h| h.custom_values = vec![f64::NEG_INFINITY, 1.0], ""),
            (|h| h.custom_values = vec![0.5, 1.0, 1.5], ""),
            (
                |h| h.custom_values = vec![0.5],
                "spans of the histogram reach bucket 3, its 1 custom bounds make 2 buckets",
            ),
            (
                |h| h.positive_spans[1] = BucketSpan { offset: i32::MAX, length: 1 },
                "spans of the histogram reach bucket 2147483649, its 2 custom bounds make 3 buckets",
            ),
            (
                |h| h.custom_values = vec![1.0, 1.0],
                "custom bound 2 of the histogram is 1, the one before it 1",
            ),
            (
                |h| h.custom_values = vec![0.5, 1.0, 0.75, NAN],
                "custom bound 3 of the histogram is 0.75, the one before it 1",
            ),
            (|h| h.custom_values = vec![NAN, 1.0], "custom bound 1 of the histogram is NaN"),
            (|h| h.custom_values[1] = f64::INFINITY, "custom bound 2 of the histogram is infinite"),
            (|h| h.positive_spans[0].offset = -1, "positive span 1 of the histogram has offset -1"),
            (|h| h.positive_spans[1].offset = -1, "positive span 2 of the histogram has offset -1"),
            (
                |h| h.positive_deltas.push(0),
                "positive spans of the histogram have room for 2 buckets, it has 3",
            ),
            (|h| h.positive_deltas[1] = -6, "positive bucket 2 of the histogram cannot hold -1 observations"),
            (
                |h| h.zero_count = Some(ZeroCount::ZeroCountInt(1)),
                "histogram with custom buckets has a zero bucket",
            ),
            (|h| h.zero_threshold = 0.1, "histogram with custom buckets has zero threshold 0.1"),
            (
                |h| h.negative_spans = spans(&[(0, 0)]),
                "histogram with custom buckets has 1 negative spans and 0 negative buckets",
            ),
            (
                |h| h.negative_deltas = vec![0, 0],
                "histogram with custom buckets has 0 negative spans and 2 negative buckets",
            ),
            (
                |h| h.count = Some(Count::CountInt(7)),
                "buckets of the histogram hold 6 observations, its count says 7",
            ),
            (
                |h| h.count = Some(Count::CountFloat(6.0)),
                "positive spans of the histogram have room for 2 buckets, it has 0",
            ),
        ];
        check(&custom(), cases);
    }

    #[test]
    fn a_stale_marker_is_not_judged() {
        let broken = |sum| proto::Histogram { sum, positive_deltas: vec![-1], schema: 99, ..integer() };
        let stale = f64::from_bits(STALE_NAN_BITS);
        assert_eq!(validate(&broken(stale).encode_to_vec()), Ok(()));
        assert!(validate(&broken(NAN).encode_to_vec()).is_err());
        assert_eq!(validate(&[]), Ok(()), "no observation at all");
    }

    /// Numbers may come one by one and packed, in any order and in several pieces, and the last of a choice counts.
    #[test]
    fn encodings() {
        // Count 3; two spans of one bucket each, with a field that nobody knows; deltas 2 and -1, apart from each other.
        let message = b"\x60\x04\x5a\x02\x10\x01\x08\x03\x5a\x06\x08\x02\x78\x05\x10\x01\x62\x01\x01";
        assert_eq!(validate(message), Ok(()));
        let with = |more: &[u8]| validate(&[message, more].concat());
        let mismatch = |held, count| Err(InvalidHistogram::CountMismatch { held, count });
        assert_eq!(with(b"\x08\x04"), mismatch(3, 4), "another count");
        assert_eq!(with(b"\x30\x02"), mismatch(5, 3), "a zero bucket");
        let spans = |buckets| Err(InvalidHistogram::SpanLengths { side: Side::Positive, spans: 2, buckets });
        assert_eq!(with(b"\x60\x00"), spans(3));
        assert_eq!(with(b"\x11\0\0\0\0\0\0\xf0\x3f"), spans(0), "a float histogram by its last count");
        let floats = b"\x11\0\0\0\0\0\0\xf0\x3f\x69\0\0\0\0\0\0\xf0\x3f\x6a\x08\0\0\0\0\0\0\xf0\xbf";
        let bucket = InvalidHistogram::FloatBucket { side: Side::Positive, number: 2, count: -1.0 };
        assert_eq!(with(floats), Err(bucket));
        // A schema of ten bytes is 32 bits of them.
        assert_eq!(with(b"\x20\x83\x80\x80\x80\xf0\xff\xff\xff\xff\x01"), Ok(()));
        assert!(matches!(with(b"\x08"), Err(InvalidHistogram::Malformed(_))));
    }

    #[test]
    fn zigzag() {
        assert_eq!([0, 1, 2, u64::MAX, u64::MAX - 1].map(zigzag64), [0, -1, 1, i64::MIN, i64::MAX]);
        assert_eq!([0, 1, 2, 0xffff_ffff, 0xffff_fffe].map(zigzag32), [0, -1, 1, i32::MIN, i32::MAX]);
    }
}
