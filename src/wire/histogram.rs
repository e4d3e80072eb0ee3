//! Whether a native histogram is one: what Prometheus' `Histogram.Validate` and `FloatHistogram.Validate`
//! (`model/histogram`) ask of it.
//!
//! Owns the meaning of the fields of a `Histogram` (Prometheus `prompb/types.proto`), and the rules that hold between
//! them. One pass over its bytes, nothing is allocated. Refuses to correct anything, and to look at stale markers: they
//! have no buckets to judge.

mod invalid;

pub use invalid::{InvalidHistogram, Side};

use super::fields::{self, Field, LENGTH, VARINT};
use super::{Malformed, STALE_NAN_BITS};

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
mod tests;
