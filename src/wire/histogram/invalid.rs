//! What can be wrong with a native histogram: one variant a rule of Prometheus' `Validate`, with the numbers that break it.
//!
//! Refuses to look for it.

use crate::wire::Malformed;
use std::fmt;

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
