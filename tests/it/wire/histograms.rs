//! The judgement of native histograms against one written over prost's types, over numbers that are all there at once.

use super::corpus;
use promdedup::proto::histogram::{Count, ZeroCount};
use promdedup::proto::{BucketSpan, Histogram};
use promdedup::series::ReplicaNames;
use promdedup::wire::histogram::validate;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

#[test]
fn real_histograms_are_valid() {
    let mut histograms = 0;
    for name in corpus::names() {
        let body = corpus::raw(&name);
        let walked = super::oracle::walk(&body, &ReplicaNames::default()).unwrap();
        for sample in walked.samples.iter().filter(|sample| sample.histogram) {
            assert_eq!(validate(sample.message(&body)), Ok(()), "{name}");
            let decoded = Histogram::decode(sample.message(&body)).unwrap();
            assert!(holds_something(&decoded) && is_valid(&decoded), "{name}: {decoded:?}");
            histograms += 1;
        }
    }
    assert!(histograms > 50, "{histograms}");
}

fn holds_something(histogram: &Histogram) -> bool {
    matches!(histogram.count, Some(Count::CountInt(1..))) && !histogram.positive_deltas.is_empty()
}

/// The rules once more.
fn is_valid(h: &Histogram) -> bool {
    if h.sum.to_bits() == promdedup::wire::STALE_NAN_BITS {
        return true;
    }
    let float = matches!(h.count, Some(Count::CountFloat(_)));
    let (positive, negative) = match float {
        true => (h.positive_counts.clone(), h.negative_counts.clone()),
        false => (running(&h.positive_deltas), running(&h.negative_deltas)),
    };
    let zero = match (h.zero_count, float) {
        (Some(ZeroCount::ZeroCountInt(count)), false) => count as f64,
        (Some(ZeroCount::ZeroCountFloat(count)), true) => count,
        _ => 0.0,
    };
    let lengths = |spans: &[BucketSpan]| spans.iter().map(|span| u64::from(span.length)).sum::<u64>();
    let fits = |spans: &[BucketSpan], buckets: &[f64]| lengths(spans) == buckets.len() as u64;
    let forward = |spans: &[BucketSpan]| spans.iter().skip(1).all(|span| span.offset >= 0);
    let full = |buckets: &[f64]| !buckets.iter().any(|count| *count < 0.0);
    let shape = match h.schema {
        -53 => {
            let offsets: i64 = h.positive_spans.iter().map(|span| i64::from(span.offset)).sum();
            !h.custom_values.iter().any(|bound| bound.is_nan())
                && h.custom_values.is_sorted_by(|one, other| one < other)
                && h.custom_values.last() != Some(&f64::INFINITY)
                && h.positive_spans.iter().all(|span| span.offset >= 0)
                && lengths(&h.positive_spans) as i64 + offsets <= h.custom_values.len() as i64 + 1
                && zero == 0.0
                && h.zero_threshold == 0.0
                && h.negative_spans.is_empty()
                && negative.is_empty()
        }
        -9..=52 => forward(&h.positive_spans) && forward(&h.negative_spans) && h.custom_values.is_empty(),
        _ => false,
    };
    let held = positive.iter().chain(&negative).sum::<f64>() + zero;
    let counted = match h.count {
        Some(Count::CountFloat(count)) => full(&[count, zero]),
        Some(Count::CountInt(count)) => held == count as f64 || h.sum.is_nan() && held < count as f64,
        None => held == 0.0,
    };
    let sides = fits(&h.positive_spans, &positive) && fits(&h.negative_spans, &negative);
    shape && counted && sides && full(&positive) && full(&negative)
}

/// Small numbers only, which a float holds.
fn running(deltas: &[i64]) -> Vec<f64> {
    let mut last = 0;
    deltas
        .iter()
        .map(|delta| {
            last += delta;
            last as f64
        })
        .collect()
}

/// Spans that mostly have room for exactly so many buckets.
fn spans(buckets: usize) -> impl Strategy<Value = Vec<BucketSpan>> {
    (vec((-1..4_i32, 0..3_u32), 0..3), 0..8_u32).prop_map(move |(spans, odd)| {
        let mut left = buckets as u32 + u32::from(odd == 0);
        let mut spans: Vec<_> = spans
            .into_iter()
            .map(|(offset, length)| {
                let length = length.min(left);
                left -= length;
                BucketSpan { offset, length }
            })
            .collect();
        if left > 0 {
            spans.push(BucketSpan { offset: 1, length: left });
        }
        spans
    })
}

fn small_double() -> impl Strategy<Value = f64> {
    prop_oneof![8 => (0..4_u8).prop_map(f64::from), 1 => Just(-1.0), 1 => Just(f64::NAN)]
}

/// Mostly valid, or wrong in one way: the count is right unless `off` says otherwise.
fn histogram() -> impl Strategy<Value = Histogram> {
    let side =
        || (0..4_usize).prop_flat_map(|n| (spans(n), vec(-1..3_i64, n..=n), vec(small_double(), n..=n)));
    let negative = prop_oneof![1 => Just((Vec::new(), Vec::new(), Vec::new())), 1 => side()];
    let bounds = prop_oneof![
        2 => Just(Vec::new()),
        2 => (1..7_u8).prop_map(|n| (0..n).map(f64::from).collect()),
        1 => vec(prop_oneof![small_double(), Just(f64::INFINITY)], 0..4),
    ];
    let schema = prop_oneof![4 => -4..9_i32, 6 => Just(-53), 1 => -60..60_i32];
    let zero = prop_oneof![2 => Just((0_u8, 0.0)), 1 => (0..3_u8, prop_oneof![Just(0.0), small_double()])];
    let sum = prop_oneof![8 => Just(1.0), 3 => Just(f64::NAN), 1 => Just(f64::from_bits(promdedup::wire::STALE_NAN_BITS))];
    let off = prop_oneof![8 => Just(0_i64), 1 => -1..2_i64];
    (side(), negative, bounds, schema, zero, sum, off, any::<bool>()).prop_map(
        |(positive, negative, custom_values, schema, (zero, zero_threshold), sum, off, float)| {
            let (
                (positive_spans, positive_deltas, positive_counts),
                (negative_spans, negative_deltas, negative_counts),
            ) = (positive, negative);
            let held = running(&positive_deltas).iter().chain(&running(&negative_deltas)).sum::<f64>()
                + f64::from(zero);
            let mut histogram = Histogram {
                count: Some(Count::CountInt((held as i64 + off).max(0) as u64)),
                zero_count: Some(ZeroCount::ZeroCountInt(u64::from(zero))),
                sum,
                schema,
                zero_threshold,
                positive_spans,
                negative_spans,
                custom_values,
                positive_deltas,
                negative_deltas,
                ..Histogram::default()
            };
            if float {
                histogram.count = Some(Count::CountFloat(held + off as f64));
                histogram.zero_count = Some(ZeroCount::ZeroCountFloat(f64::from(zero)));
                (histogram.positive_counts, histogram.negative_counts) = (positive_counts, negative_counts);
                (histogram.positive_deltas, histogram.negative_deltas) = (Vec::new(), Vec::new());
            }
            histogram
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn histograms_are_judged_as_the_oracle_does(histogram in histogram()) {
        let verdict = validate(&histogram.encode_to_vec());
        prop_assert_eq!(verdict.is_ok(), is_valid(&histogram), "{:?}", verdict);
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = validate(&bytes);
    }
}
