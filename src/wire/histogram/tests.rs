//! Each rule of validation, broken and kept.

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
        (|h| h.positive_spans = spans(&[(-2, 2), (-1, 1)]), "positive span 2 of the histogram has offset -1"),
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
        (|h| h.negative_deltas.clear(), "negative spans of the histogram have room for 1 buckets, it has 0"),
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
        (|h| h.custom_values = vec![1.0, 1.0], "custom bound 2 of the histogram is 1, the one before it 1"),
        (
            |h| h.custom_values = vec![0.5, 1.0, 0.75, NAN],
            "custom bound 3 of the histogram is 0.75, the one before it 1",
        ),
        (|h| h.custom_values = vec![NAN, 1.0], "custom bound 1 of the histogram is NaN"),
        (|h| h.custom_values[1] = f64::INFINITY, "custom bound 2 of the histogram is infinite"),
        (|h| h.positive_spans[0].offset = -1, "positive span 1 of the histogram has offset -1"),
        (|h| h.positive_spans[1].offset = -1, "positive span 2 of the histogram has offset -1"),
        (|h| h.positive_deltas.push(0), "positive spans of the histogram have room for 2 buckets, it has 3"),
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
