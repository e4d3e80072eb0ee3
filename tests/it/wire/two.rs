//! Remote write 2.0: what is rewritten as 1.0 says what prost reads, series keep their keys, and no reference leads astray.

use super::corpus::{counts, directory, raw};
use super::oracle::walk;
use super::two_oracle::{MAX, check, check_round_trip, expected, rewritten};
use super::{apply, damage};
use promdedup::proto::v2::{self, metadata::MetricType};
use promdedup::proto::{self, WriteRequest};
use promdedup::series::{ReplicaNames, SeriesKey, TenantHash};
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::{Flaw, STALE_NAN_BITS};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::{BTreeSet, HashMap};

fn flaw(request: &v2::Request) -> Flaw {
    rewritten(&request.encode_to_vec()).unwrap_err().flaw
}

pub(super) fn names() -> Vec<String> {
    let files = std::fs::read_dir(directory()).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("rw2-") && name.ends_with(".bin"));
    names.sort();
    names
}

#[test]
fn real_bodies_say_what_prost_reads() {
    let names = names();
    assert!(names.len() > 40);
    let mut to_the_byte = 0;
    for name in &names {
        let body = raw(name);
        check(&body);
        let expected = expected(&v2::Request::decode(body.as_slice()).unwrap());
        if expected.metadata.is_empty() {
            assert!(rewritten(&body).unwrap() == expected.encode_to_vec(), "{name}: nothing of 2.0 is left");
            to_the_byte += 1;
        }
    }
    assert!(to_the_byte > 30);
}

/// The series of a body of 1.0 in a body of 2.0.
fn said_in_two(body: &[u8]) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known = HashMap::new();
    let mut refer = |text: String| {
        *known.entry(text.clone()).or_insert_with(|| {
            symbols.push(text);
            symbols.len() as u32 - 1
        })
    };
    let request = WriteRequest::decode(body).unwrap();
    let series = request.timeseries.into_iter().map(|series| {
        let labels = series.labels.into_iter().flat_map(|label| [label.name, label.value]);
        v2::TimeSeries { labels_refs: labels.map(&mut refer).collect(), ..v2::TimeSeries::default() }
    });
    let timeseries = series.collect();
    v2::Request { symbols, timeseries }.encode_to_vec()
}

fn keys(body: &[u8]) -> BTreeSet<SeriesKey> {
    let walked = walk(body, &ReplicaNames::default()).unwrap();
    let mut scratch = Vec::new();
    let parts = walked.series.iter().map(|series| {
        assert!(series.plain && series.under_first);
        let (before, after) = series.parts(body, &ReplicaNames::default(), &mut scratch).unwrap();
        SeriesKey::of_parts(before, after, TenantHash::of(""))
    });
    parts.collect()
}

/// So a sender that was upgraded and one that was not are replicas of each other.
#[test]
fn a_series_has_one_key_in_both_protocols() {
    let all = |of: &str| {
        let names = names().into_iter().filter(|name| name.contains("sequence") && name.contains(of));
        names.flat_map(|name| keys(&rewritten(&raw(&name)).unwrap())).collect::<BTreeSet<_>>()
    };
    let (a, b) = (all("-a"), all("-b"));
    assert_eq!(
        (a.len(), a.difference(&b).count(), b.difference(&a).count()),
        (1663, 0, 0),
        "of two replicas"
    );
    for name in ["rw1-sequence-03-a.bin", "rw1-big-b-2.bin", "rw1-2.42-a.bin"] {
        let body = raw(name);
        let (one, two) = (keys(&body), keys(&rewritten(&said_in_two(&body)).unwrap()));
        assert!(one.len() > 400);
        assert_eq!((one.len(), one.difference(&two).count()), (two.len(), 0), "{name}");
    }
}

fn counts_of(name: &str) -> [usize; 6] {
    counts(&rewritten(&raw(name)).unwrap())
}

#[test]
fn real_bodies_hold_what_their_origin_says() {
    let index = std::fs::read_to_string(directory().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    for name in names() {
        let said = |what: &str| index[&name][what].as_u64().unwrap() as usize;
        let [series, floats, histograms, exemplars, stale, _] = counts_of(&name);
        let of_origin = ["timeseries", "samples", "histograms", "exemplars", "stale_markers"].map(said);
        assert_eq!([series, floats, histograms, exemplars, stale], of_origin, "{name}");
    }
    // Each family once, however many series it has.
    assert_eq!(counts_of("rw2-metadata-a-1.bin")[5], 40);
    assert_eq!(counts_of("rw2-big-a-1.bin")[5], 0);
}

fn references(symbols: usize) -> impl Strategy<Value = Vec<u32>> {
    vec((0..symbols as u32, 0..symbols as u32), 0..5)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(name, value)| [name, value]).collect())
}

fn bits() -> impl Strategy<Value = f64> {
    prop_oneof![Just(STALE_NAN_BITS), Just(0), any::<u64>()].prop_map(f64::from_bits)
}

fn series(symbols: usize) -> impl Strategy<Value = v2::TimeSeries> {
    let time = || prop_oneof![3 => 1_i64 << 35..1 << 42, 1 => any::<i64>(), 1 => Just(0)];
    let sample = (bits(), time(), prop_oneof![Just(0), time()])
        .prop_map(|(value, timestamp, start_timestamp)| v2::Sample { value, timestamp, start_timestamp });
    let exemplar = (references(symbols), bits(), time())
        .prop_map(|(labels_refs, value, timestamp)| v2::Exemplar { labels_refs, value, timestamp });
    let histogram = (bits(), time(), any::<i32>(), vec(any::<i64>(), 0..4), time()).prop_map(
        |(sum, timestamp, schema, positive_deltas, start_timestamp)| v2::Histogram {
            sum,
            timestamp,
            schema,
            positive_deltas,
            start_timestamp,
            ..v2::Histogram::default()
        },
    );
    let metadata = (0..8, 0..symbols as u32, 0..symbols as u32)
        .prop_map(|(kind, help_ref, unit_ref)| v2::Metadata { r#type: kind, help_ref, unit_ref });
    let samples = (vec(sample, 0..3), vec(histogram, 0..2), vec(exemplar, 0..2));
    (references(symbols), samples, proptest::option::of(metadata), time()).prop_map(
        |(labels_refs, (samples, histograms, exemplars), metadata, created_timestamp)| v2::TimeSeries {
            labels_refs,
            samples,
            histograms,
            exemplars,
            metadata,
            created_timestamp,
        },
    )
}

pub(super) fn request() -> impl Strategy<Value = v2::Request> {
    let text = prop_oneof![
        4 => "[a-z]{0,3}",
        2 => Just("__name__".to_owned()),
        1 => "[a-z]{110,300}(_bucket|_sum|_count)?",
        1 => "[a-z]{16390}",
    ];
    vec(text, 0..12).prop_flat_map(|mut symbols| {
        symbols.insert(0, String::new());
        let many = symbols.len();
        (Just(symbols), vec(series(many), 0..5))
            .prop_map(|(symbols, timeseries)| v2::Request { symbols, timeseries })
    })
}

/// What is not usual behind a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    Exemplar,
    Created,
}

/// As senders send: many labels of which most were there before, one float a series, metadata that comes again and again.
pub(super) fn usual_request() -> impl Strategy<Value = v2::Request> {
    let text = prop_oneof![20 => "[a-z]{1,60}", 2 => "[a-z]{100,120}", 1 => "[a-z]{300}"];
    let metadata = (0..3_i32, 0..3_u32, 0..2_u32).prop_map(|(kind, help_ref, unit_ref)| v2::Metadata {
        r#type: kind,
        help_ref,
        unit_ref,
    });
    let names = 1_u32..140;
    let label = (names, prop_oneof![3 => 0..6_u32, 1 => any::<u32>()]);
    let more = prop_oneof![20 => Just(More::Nothing), 1 => Just(More::Exemplar), 1 => Just(More::Created)];
    let series =
        (vec(label, 0..40), bits(), 0..50_000_i64, proptest::option::of(metadata), (0..21_usize, more));
    (vec(text, 300), vec(series, 1..40)).prop_map(|(mut symbols, all)| {
        symbols.insert(0, String::new());
        symbols[2] = "__name__".to_owned();
        symbols[4] = "prometheus_replica".to_owned();
        let series = all.into_iter().map(|(labels, value, offset, metadata, (samples, more))| {
            // A value mostly goes with its name.
            let references = |(name, other): (u32, u32)| [name, (name * 2 + other % 300) % 301];
            let sample = v2::Sample { value, timestamp: 1_790_000_000_000 + offset, start_timestamp: 0 };
            v2::TimeSeries {
                labels_refs: labels.into_iter().flat_map(references).collect(),
                samples: vec![sample; if samples < 18 { 1 } else { samples - 18 }],
                exemplars: vec![v2::Exemplar::default(); usize::from(more == More::Exemplar)],
                created_timestamp: i64::from(more == More::Created),
                metadata,
                ..v2::TimeSeries::default()
            }
        });
        v2::Request { timeseries: series.collect(), symbols }
    })
}

proptest! {
    #[test]
    fn usual_requests_say_what_prost_reads(request in usual_request()) {
        check(&request.encode_to_vec());
    }

    #[test]
    fn whatever_is_sent_says_what_prost_reads(request in request()) {
        check(&request.encode_to_vec());
    }

    #[test]
    fn damaged_bodies_are_read_as_prost_reads_them_or_refused(
        request in request(),
        damages in vec(damage(), 1..4),
    ) {
        let mut body = request.encode_to_vec();
        damages.iter().for_each(|damage| apply(damage, &mut body));
        if let Ok(given) = rewritten(&body) {
            // The walk judges the rest, and does not panic either.
            let _ = walk(&given, &ReplicaNames::default());
        }
    }
}

fn with_references(labels_refs: Vec<u32>) -> v2::Request {
    let symbols = ["", "__name__", "m"].map(str::to_owned).to_vec();
    v2::Request { symbols, timeseries: vec![v2::TimeSeries { labels_refs, ..v2::TimeSeries::default() }] }
}

#[test]
fn references_that_lead_astray() {
    assert_eq!(flaw(&with_references(vec![1])), Flaw::OddReferences { given: 1 });
    assert_eq!(flaw(&with_references(vec![1, 3])), Flaw::Reference { given: 3, symbols: 3 });
    assert_eq!(flaw(&with_references(vec![u32::MAX, 1])), Flaw::Reference { given: u32::MAX, symbols: 3 });
    let mut exemplar = with_references(vec![1, 2]);
    exemplar.timeseries[0].exemplars = vec![v2::Exemplar { labels_refs: vec![1, 9], ..Default::default() }];
    assert_eq!(flaw(&exemplar), Flaw::Reference { given: 9, symbols: 3 });
    let mut help = with_references(vec![1, 2]);
    help.timeseries[0].metadata = Some(v2::Metadata { r#type: 1, help_ref: 7, unit_ref: 0 });
    assert_eq!(flaw(&help), Flaw::Reference { given: 7, symbols: 3 });
    let mut first = with_references(vec![1, 2]);
    first.symbols[0].push('x');
    assert_eq!(flaw(&first), Flaw::FirstSymbol);
    let nothing = v2::Request { symbols: vec![], ..with_references(vec![0, 0]) };
    assert_eq!(flaw(&nothing), Flaw::Reference { given: 0, symbols: 0 });
    let told = rewritten(&with_references(vec![1, 3]).encode_to_vec()).unwrap_err().to_string();
    assert!(told.ends_with("in series 1: reference 3 leads beyond the 3 symbols"), "{told}");
}

#[test]
fn references_need_not_be_packed_nor_symbols_first() {
    let series = [0x2a, 6, 0x08, 1, 0x0a, 1, 2, 0];
    let symbols = [0x22, 0, 0x22, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_', 0x22, 1, b'm'];
    let body = [&series[..7], &symbols].concat();
    let mut body = body;
    body[1] = 5;
    let given = WriteRequest::decode(rewritten(&body).unwrap().as_slice()).unwrap();
    let label = proto::Label { name: "__name__".to_owned(), value: "m".to_owned() };
    assert_eq!(given.timeseries[0].labels, [label]);
}

/// 1.0 does not know their fields, so the walk over what is rewritten would not see it.
#[test]
fn a_start_that_is_no_number_is_malformed() {
    // A sample (2) with field 3, and a histogram (3) with field 17, as text instead of a number.
    for (field, inner) in [(0x12, &[0x1a, 1, b'x'][..]), (0x1a, &[0x8a, 0x01, 1, b'x'])] {
        let series = [&[0x0a, 2, 1, 2, field, inner.len() as u8], inner].concat();
        let body = [&[0x22, 0, 0x22, 1, b'n', 0x22, 1, b'v', 0x2a, series.len() as u8], &series[..]].concat();
        assert!(v2::Request::decode(body.as_slice()).is_err());
        for keep in [Keep::Nothing, Keep::All] {
            let malformed = Rewriter::default().rewrite(&body, keep, MAX, &mut Vec::new()).unwrap_err();
            let number = if field == 0x12 { 3 } else { 17 };
            assert_eq!(malformed.flaw, Flaw::WireType { field: number, given: 2 }, "{keep:?}");
            assert_eq!((malformed.series, malformed.at), (1, body.len() - inner.len()));
        }
    }
}

/// What stands twice in a message is merged, and an enumeration has 32 bits: so prost reads it, and so does Go.
#[test]
fn metadata_in_pieces_is_one() {
    let named = with_references(vec![1, 2]).encode_to_vec();
    let (symbols, series) = named.split_at(named.len() - 6);
    let metadata = [0x2a, 2, 0x18, 2, 0x2a, 6, 0x08, 0x83, 0x80, 0x80, 0x80, 0x10];
    let body = [symbols, &[0x2a, 4 + metadata.len() as u8], &series[2..], &metadata].concat();
    check(&body);
    check_round_trip(&body);
    let said = WriteRequest::decode(rewritten(&body).unwrap().as_slice()).unwrap().metadata;
    assert_eq!((said[0].r#type, said[0].help.as_str()), (MetricType::Histogram.into(), "m"));
}

/// What is told again is not looked into; whatever else comes with it is.
#[test]
fn a_sample_behind_metadata_that_was_told_before_is_not_lost() {
    let sample = |timestamp| v2::Sample { value: 0.0, timestamp, start_timestamp: 0 };
    let metadata = Some(v2::Metadata { r#type: 1, help_ref: 2, unit_ref: 0 });
    let (labels_refs, timestamp) = (vec![1, 2], 1_790_000_000_000);
    let first =
        v2::TimeSeries { labels_refs, samples: vec![sample(timestamp)], metadata, ..Default::default() };
    let second = v2::TimeSeries { samples: vec![sample(timestamp + 1)], ..Default::default() };
    let series = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let symbols = [&[0x22, 0, 0x22, 8][..], b"__name__", &[0x22, 1, b'm']].concat();
    let field = [&[0x2a, series.len() as u8], &series[..]].concat();
    let body = [symbols, field.repeat(9)].concat();
    check(&body);
    let given = WriteRequest::decode(rewritten(&body).unwrap().as_slice()).unwrap();
    assert!(given.timeseries.iter().all(|series| series.samples.len() == 2));
}

/// Who sends 1.0 under the name of 2.0 would be told that all is well, and nothing would be.
#[test]
fn a_body_of_1_is_none_of_2() {
    assert_eq!(rewritten(&raw("rw1-small-a-1.bin")).unwrap_err().flaw, Flaw::Reserved { field: 1 });
    assert_eq!(rewritten(&raw("rw1-metadata-a.bin")).unwrap_err().flaw, Flaw::Reserved { field: 3 });
}

/// A reference of a byte can stand for a symbol of any length.
#[test]
fn what_grows_beyond_the_bound_is_refused_before_it_does() {
    let symbols = vec![String::new(), "x".repeat(1 << 16)];
    let series = v2::TimeSeries { labels_refs: vec![1; 20_000], ..Default::default() };
    let body = v2::Request { symbols, timeseries: vec![series] }.encode_to_vec();
    let mut out = Vec::new();
    let max = 1 << 20;
    let malformed = Rewriter::default().rewrite(&body, Keep::Nothing, max, &mut out).unwrap_err();
    assert_eq!(malformed.flaw, Flaw::TooMany { what: "bytes as remote write 1.0", max });
    assert!(out.capacity() < 4 << 20, "{}", out.capacity());
}

#[test]
fn usual_series_do_not_grow_beyond_the_bound_either() {
    let symbols = ["", "n", &"x".repeat(100)].map(str::to_owned).to_vec();
    let sample = v2::Sample { value: 1.5, timestamp: 1 << 40, start_timestamp: 0 };
    let series =
        v2::TimeSeries { labels_refs: [1, 2].repeat(9), samples: vec![sample], ..Default::default() };
    let body = v2::Request { symbols, timeseries: vec![series; 1_000] }.encode_to_vec();
    let whole = rewritten(&body).unwrap().len();
    for keep in [Keep::Nothing, Keep::All] {
        let rewrite = |max| Rewriter::default().rewrite(&body, keep, max, &mut Vec::new());
        assert_eq!(rewrite(whole), Ok(()));
        assert!(matches!(rewrite(whole - 1).unwrap_err().flaw, Flaw::TooMany { .. }));
    }
}

#[test]
fn texts_of_metadata_and_references_do_not_grow_beyond_the_bound_either() {
    let symbols = vec![String::new(), "x".repeat(4 << 20)];
    let metadata = Some(v2::Metadata { r#type: 1, help_ref: 1, unit_ref: 1 });
    let series = v2::TimeSeries { metadata, ..Default::default() };
    let body = v2::Request { symbols, timeseries: vec![series] }.encode_to_vec();
    let mut out = Vec::new();
    let max = 1 << 20;
    let malformed = Rewriter::default().rewrite(&body, Keep::All, max, &mut out).unwrap_err();
    assert_eq!(malformed.flaw, Flaw::TooMany { what: "bytes as remote write 1.0", max });
    assert!(out.capacity() < 4 << 20, "{}", out.capacity());

    let flaw = flaw(&with_references(vec![0; 1 << 20]));
    assert_eq!(flaw, Flaw::TooMany { what: "references in a series", max: 1 << 17 });
}
