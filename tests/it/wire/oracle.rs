//! What prost says of a body, and whether the walk, the judgement of labels, the keys and the splices agree with it.

use promdedup::proto;
use promdedup::series::{self, ReplicaNames, SeriesKey, TenantHash};
use promdedup::wire::labels::{Canonical, InvalidLabels, LabelBounds, canonicalize};
use promdedup::wire::splice::{self, Labels, Step};
use promdedup::wire::v1::{Sample, TimeSeries, Walker};
use promdedup::wire::{Flaw, Malformed, Span};
use prost::Message as _;
use std::collections::BTreeMap;

/// All that the walk finds in a body.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) series: Vec<TimeSeries>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) metadata: Vec<Span>,
    pub(crate) unknown: Vec<Span>,
}

pub(crate) fn walk(body: &[u8], names: &ReplicaNames) -> Result<Walked, Malformed> {
    let (mut series, mut samples) = (Vec::new(), Vec::new());
    let mut walker = Walker::new(body, names);
    while let Some(next) = walker.next(&mut samples) {
        match next {
            Ok(next) => series.push(next),
            Err(malformed) => {
                assert_eq!(walker.next(&mut samples), None, "nothing follows an error");
                assert!(malformed.at <= body.len(), "{malformed}");
                let all = Walker::new(body, names).all(&mut Vec::new(), &mut Vec::new());
                assert_eq!(all, Err(malformed));
                return Err(malformed);
            }
        }
    }
    let (mut all, mut all_samples) = (Vec::new(), Vec::new());
    Walker::new(body, names).all(&mut all, &mut all_samples).unwrap();
    assert_eq!((&all, &all_samples), (&series, &samples));
    Ok(Walked { series, samples, metadata: walker.metadata, unknown: walker.unknown })
}

/// prost has no bounds.
const UNBOUNDED: LabelBounds =
    LabelBounds { labels_max: usize::MAX, name_bytes_max: usize::MAX, value_bytes_max: usize::MAX };

/// The whole comparison for one body.
pub(crate) fn check(body: &[u8]) {
    let names = ReplicaNames::default();
    let walked = walk(body, &names);
    match (proto::WriteRequest::decode(body), walked) {
        (Ok(decoded), Ok(walked)) => agree(body, &names, &decoded, &walked),
        (Ok(decoded), Err(malformed)) => {
            // What prost finds nothing in may be a body of 2.0.
            let two = malformed.flaw == Flaw::SecondVersion && decoded == proto::WriteRequest::default();
            let refused = two || matches!(malformed.flaw, Flaw::Group { .. });
            assert!(refused, "{malformed}, but prost reads {decoded:?}");
        }
        // More lenient: whatever it found can be judged and spliced without a panic.
        (Err(_), Ok(walked)) => {
            let mut out = Vec::new();
            for series in &walked.series {
                let _ = canonicalize(body, series, &names, UNBOUNDED, &mut Vec::new());
                let _ = series.parts(body, &names, &mut Vec::new());
                splice::whole(body, series, Labels::Received, &mut out);
                splice::edited(body, series, Labels::Rewritten(b""), &[], false, &mut out);
            }
        }
        (Err(_), Err(_)) => {}
    }
}

type Labelled = (BTreeMap<String, String>, Option<String>);

fn agree(body: &[u8], names: &ReplicaNames, decoded: &proto::WriteRequest, walked: &Walked) {
    assert_eq!(walked.series.len(), decoded.timeseries.len());
    for (series, expected) in walked.series.iter().zip(&decoded.timeseries) {
        let samples = series.samples_of(&walked.samples);
        assert_eq!(bits_of(samples), decoded_bits(expected));
        assert_eq!(series.exemplars as usize, expected.exemplars.len());

        let mut canonical = Vec::new();
        match (canonicalize(body, series, names, UNBOUNDED, &mut canonical), judged(expected, names)) {
            (Ok(verdict), Ok((set, replica))) => {
                assert_eq!(read_back(&canonical), set);
                assert_eq!(verdict.replica.map(|span| text(span.of(body))), replica);
                assert_eq!(text(series.replica.of(body)), replica.unwrap_or_default());
                keys_agree(body, series, names, &verdict, &canonical, expected);
                splices_agree(body, series, samples, (&verdict, &canonical), expected);
            }
            (Err(invalid), Err(rule)) => assert_eq!(rule_of(&invalid), rule, "{expected:?}"),
            (verdict, labels) => panic!("{verdict:?}, but {labels:?}"),
        }
    }
    let mut out = Vec::new();
    walked.metadata.iter().for_each(|field| splice::field(body, *field, &mut out));
    assert_eq!(proto::WriteRequest::decode(out.as_slice()).unwrap().metadata, decoded.metadata);
}

/// Labels as Prometheus means them, replica label cut, by name; or which rule they break.
fn judged(series: &proto::TimeSeries, names: &ReplicaNames) -> Result<Labelled, &'static str> {
    if series.labels.is_empty() {
        return Err("none");
    }
    if series.labels.iter().any(|label| label.name.is_empty()) {
        return Err("empty name");
    }
    let mut set = BTreeMap::new();
    for label in series.labels.iter().filter(|label| !label.value.is_empty()) {
        if set.insert(label.name.clone(), label.value.clone()).is_some() {
            return Err("repeated");
        }
    }
    if !set.contains_key("__name__") {
        return Err("no metric name");
    }
    let replica = names.iter().find_map(|name| set.remove(name));
    Ok((set, replica))
}

fn rule_of(invalid: &InvalidLabels) -> &'static str {
    match invalid {
        InvalidLabels::None => "none",
        InvalidLabels::EmptyName { .. } => "empty name",
        InvalidLabels::Repeated { .. } => "repeated",
        InvalidLabels::NoMetricName { .. } => "no metric name",
        other => panic!("prost reads it, but: {other}"),
    }
}

/// The key of the fast way is the true one exactly when the series came as a Prometheus sends it.
fn keys_agree(
    body: &[u8],
    series: &TimeSeries,
    names: &ReplicaNames,
    verdict: &Canonical,
    canonical: &[u8],
    received: &proto::TimeSeries,
) {
    let tenant = TenantHash::of("t");
    assert_eq!(verdict.split, series::split_of(canonical, names.first().as_bytes()));
    let truth = SeriesKey::of_canonical(canonical, verdict.split, tenant);
    let mut scratch = Vec::new();
    let quick = series.parts(body, names, &mut scratch);
    let quick = quick.map(|(before, after)| SeriesKey::of_parts(before, after, tenant));
    let in_order = received.labels.is_sorted_by(|one, other| one.name < other.name)
        && received.labels.iter().all(|label| !label.value.is_empty());
    if series.plain && in_order {
        assert_eq!(quick, Some(truth));
    }
    if quick == Some(truth) {
        assert!(verdict.verbatim, "a known key must prove that the replica label can be cut");
    }
}

fn splices_agree(
    body: &[u8],
    series: &TimeSeries,
    samples: &[Sample],
    (verdict, canonical): (&Canonical, &[u8]),
    received: &proto::TimeSeries,
) {
    let stripped = series::labels(canonical)
        .map(|(name, value)| proto::Label { name: text(name), value: text(value) })
        .collect();
    let stripped = proto::TimeSeries { labels: stripped, ..received.clone() };
    let mut ways =
        vec![(Labels::Received, received.clone()), (Labels::Rewritten(canonical), stripped.clone())];
    if verdict.verbatim {
        ways.push((Labels::Cut, stripped));
    }
    for (labels, whole) in ways {
        let mut out = Vec::new();
        splice::whole(body, series, labels, &mut out);
        same(&out, &whole);
        if !matches!(labels, Labels::Rewritten(_)) {
            assert!(out.len() <= splice::whole_len_max(series));
        }

        let keep: Vec<_> = samples.iter().map(|sample| Step::Keep(*sample)).collect();
        out.clear();
        splice::edited(body, series, labels, &keep, true, &mut out);
        same(&out, &whole);

        let held = samples.iter().find(|sample| sample.histogram).map(|sample| sample.message(body));
        let mut steps = vec![Step::Float { at: -5, bits: promdedup::wire::STALE_NAN_BITS }];
        steps.push(Step::Float { at: 0, bits: 0 });
        steps.push(Step::Float { at: i64::MAX, bits: (-0.0_f64).to_bits() });
        steps.extend(held.map(Step::Histogram));
        out.clear();
        splice::edited(body, series, labels, &steps, false, &mut out);
        let stale = f64::from_bits(promdedup::wire::STALE_NAN_BITS);
        let edited = proto::TimeSeries {
            samples: vec![
                proto::Sample { value: stale, timestamp: -5 },
                proto::Sample::default(),
                proto::Sample { value: -0.0, timestamp: i64::MAX },
            ],
            histograms: whole.histograms.iter().take(1).cloned().collect(),
            exemplars: Vec::new(),
            ..whole
        };
        same(&out, &edited);
    }
}

/// `field` is one series of a request and decodes to `expected`, bit by bit.
fn same(field: &[u8], expected: &proto::TimeSeries) {
    let decoded = proto::WriteRequest::decode(field).unwrap();
    let [decoded] = decoded.timeseries.as_slice() else { panic!("one series in {field:02x?}") };
    // As text, in which a NaN equals itself; the bits of values apart.
    assert_eq!(format!("{decoded:?}"), format!("{expected:?}"));
    assert_eq!(decoded_bits(decoded), decoded_bits(expected));
}

/// (time, value bits) of floats and of histograms.
fn bits_of(samples: &[Sample]) -> [Vec<(i64, u64)>; 2] {
    [false, true].map(|kind| {
        samples
            .iter()
            .filter(|sample| sample.histogram == kind)
            .map(|sample| (sample.at, sample.bits))
            .collect()
    })
}

fn decoded_bits(series: &proto::TimeSeries) -> [Vec<(i64, u64)>; 2] {
    [
        series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect(),
        series.histograms.iter().map(|histogram| (histogram.timestamp, histogram.sum.to_bits())).collect(),
    ]
}

fn read_back(canonical: &[u8]) -> BTreeMap<String, String> {
    series::labels(canonical).map(|(name, value)| (text(name), text(value))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
