//! The wire against its oracle: whatever prost decodes, the walk means the same, and what is spliced decodes to it.
//!
//! Where prost refuses a body the walk may take it (it looks into no exemplar), but it never panics. Where prost takes a
//! body the walk refuses it only for a group.

#![allow(clippy::unwrap_used)]

mod corpus;
mod histograms;
mod likely;
mod odd;
mod oracle;
mod shapes;
mod two;
mod two_oracle;
mod two_out;

use odd::Odd;
use oracle::check;
use promdedup::proto::{Exemplar, Histogram, Label, MetricMetadata, Sample, TimeSeries, WriteRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

/// Few names and values, so that repetition, emptiness and replica labels are common; some longer than 127 bytes.
fn label() -> impl Strategy<Value = Label> {
    let name = prop_oneof![
        4 => Just("__name__".to_owned()),
        3 => Just("prometheus_replica".to_owned()),
        3 => Just("__replica__".to_owned()),
        8 => "[A-Za-z]{0,2}",
        1 => "[a-z]{120,140}",
    ];
    let value = prop_oneof![8 => "[a-zß]{0,3}", 1 => Just(String::new()), 1 => "[a-z]{110,300}"];
    (name, value).prop_map(|(name, value)| Label { name, value })
}

/// Labels as a Prometheus sends them.
fn neat_labels() -> impl Strategy<Value = Vec<Label>> {
    let others = proptest::collection::btree_map("[A-Za-z]{1,3}", "[a-zß]{1,140}", 0..6);
    let replica = prop_oneof![Just("prometheus_replica"), Just("__replica__"), Just("neither")];
    (others, replica, "[ab]").prop_map(|(mut labels, replica, value)| {
        labels.insert("__name__".to_owned(), "metric".to_owned());
        labels.insert(replica.to_owned(), value);
        labels.into_iter().map(|(name, value)| Label { name, value }).collect()
    })
}

fn double() -> impl Strategy<Value = f64> {
    let bits = prop_oneof![
        Just(promdedup::wire::STALE_NAN_BITS),
        Just(0x7ff8_0000_0000_0001),
        Just((-0.0_f64).to_bits()),
        Just(0),
        any::<u64>(),
    ];
    bits.prop_map(f64::from_bits)
}

fn timestamp() -> impl Strategy<Value = i64> {
    // All of six bytes, today's and later ones.
    prop_oneof![3 => 1_i64 << 35..1 << 42, 1 => any::<i64>(), 1 => Just(0)]
}

fn histogram() -> impl Strategy<Value = Histogram> {
    (double(), timestamp(), any::<i32>(), vec(any::<i64>(), 0..4), vec(double(), 0..3)).prop_map(
        |(sum, timestamp, schema, positive_deltas, custom_values)| Histogram {
            sum,
            timestamp,
            schema,
            positive_deltas,
            custom_values,
            ..Histogram::default()
        },
    )
}

fn series() -> impl Strategy<Value = TimeSeries> {
    let labels = prop_oneof![neat_labels(), vec(label(), 0..6)];
    let sample = (double(), timestamp()).prop_map(|(value, timestamp)| Sample { value, timestamp });
    let exemplar = (vec(label(), 0..3), double(), timestamp())
        .prop_map(|(labels, value, timestamp)| Exemplar { labels, value, timestamp });
    (labels, vec(sample, 0..3), vec(exemplar, 0..2), vec(histogram(), 0..2)).prop_map(
        |(labels, samples, exemplars, histograms)| TimeSeries { labels, samples, exemplars, histograms },
    )
}

fn request() -> impl Strategy<Value = WriteRequest> {
    let metadata = (0..8, "[a-z]{0,4}", "[a-z]{0,4}").prop_map(|(kind, family, help)| MetricMetadata {
        r#type: kind,
        metric_family_name: family,
        help,
        unit: String::new(),
    });
    (vec(series(), 0..5), vec(metadata, 0..2))
        .prop_map(|(timeseries, metadata)| WriteRequest { timeseries, metadata })
}

/// One small damage to a body.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Double(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    // Bytes that mean something as keys and lengths.
    let telling =
        prop_oneof![any::<u8>(), prop::sample::select(vec![0, 0x0a, 0x12, 0x1a, 0x22, 0x7f, 0x80, 0xff])];
    prop_oneof![
        (at(), telling.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        at().prop_map(Damage::Remove),
        (at(), telling).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        at().prop_map(Damage::Cut),
        (at(), at()).prop_map(|(from, to)| Damage::Double(from, to)),
    ]
}

fn apply(damage: &Damage, body: &mut Vec<u8>) {
    if body.is_empty() {
        return;
    }
    match damage {
        Damage::Set(at, byte) => {
            let at = at.index(body.len());
            body[at] = *byte;
        }
        Damage::Flip(at, bit) => {
            let at = at.index(body.len());
            body[at] ^= 1 << bit;
        }
        Damage::Remove(at) => {
            body.remove(at.index(body.len()));
        }
        Damage::Insert(at, byte) => body.insert(at.index(body.len()), *byte),
        Damage::Cut(at) => body.truncate(at.index(body.len())),
        Damage::Double(from, to) => {
            let (from, to) = (from.index(body.len()), to.index(body.len()));
            let piece = body[from.min(to)..from.max(to)].to_vec();
            body.splice(from..from, piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn what_prost_writes_means_the_same(request in request()) {
        check(&request.encode_to_vec());
    }

    #[test]
    fn what_is_oddly_encoded_means_the_same(request in request(), seed in any::<u64>()) {
        check(&Odd::new(seed).request(&request));
    }

    #[test]
    fn what_is_damaged_means_the_same_or_is_refused(
        request in request(),
        seed in any::<Option<u64>>(),
        damages in vec(damage(), 1..4),
    ) {
        let mut body = match seed {
            Some(seed) => Odd::new(seed).request(&request),
            None => request.encode_to_vec(),
        };
        for damage in &damages {
            apply(damage, &mut body);
        }
        check(&body);
    }

    #[test]
    fn any_bytes_are_survived(body in vec(any::<u8>(), 0..200)) {
        check(&body);
        let mut raw = Vec::new();
        let _ = promdedup::wire::snappy::decompress(&body, 1 << 20, &mut raw);
    }
}
