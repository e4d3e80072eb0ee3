//! What prost says of a body of remote write 2.0, in the messages of 1.0 and, for an upstream that takes 2.0, in its own.

use super::oracle::walk;
use promdedup::proto::v2::{self, metadata::MetricType};
use promdedup::proto::{self, MetricMetadata, WriteRequest};
use promdedup::series::ReplicaNames;
use promdedup::wire::Malformed;
use promdedup::wire::v1::{TimeSeries, Walker};
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use prost::Message as _;
use std::cell::RefCell;
use std::collections::BTreeSet;

pub(crate) const MAX: usize = 32 << 20;

pub(crate) fn rewritten(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    let rewritten = Rewriter::default().rewrite(body, Keep::Nothing, MAX, &mut out);
    USED.with_borrow_mut(|Used { rewriter, one, .. }| {
        assert_eq!(rewriter.rewrite(body, Keep::Nothing, MAX, one), rewritten);
        assert!(rewritten.is_err() || *one == out, "something of a body before is left");
    });
    rewritten.map(|()| out)
}

/// What prost reads, said in the messages of 1.0.
pub(crate) fn expected(request: &v2::Request) -> WriteRequest {
    let symbol = |reference: u32| request.symbols.get(reference as usize).cloned().unwrap_or_default();
    let labels = |references: &[u32]| {
        let pairs = references.chunks_exact(2);
        pairs.map(|pair| proto::Label { name: symbol(pair[0]), value: symbol(pair[1]) }).collect::<Vec<_>>()
    };
    let mut told = BTreeSet::new();
    let mut metadata = vec![];
    let series = |series: &v2::TimeSeries| {
        let labels_of_series = labels(&series.labels_refs);
        if let Some(of) = series.metadata.as_ref().filter(|of| **of != v2::Metadata::default())
            && let Some(name) = labels_of_series.iter().rfind(|label| label.name == "__name__")
            && told.insert((family(&name.value, of.r#type()), of.r#type, of.help_ref, of.unit_ref))
        {
            metadata.push(MetricMetadata {
                r#type: of.r#type,
                metric_family_name: family(&name.value, of.r#type()),
                help: symbol(of.help_ref),
                unit: symbol(of.unit_ref),
            });
        }
        proto::TimeSeries {
            labels: labels_of_series,
            samples: series
                .samples
                .iter()
                .map(|sample| proto::Sample { value: sample.value, timestamp: sample.timestamp })
                .collect(),
            exemplars: series
                .exemplars
                .iter()
                .map(|exemplar| proto::Exemplar {
                    labels: labels(&exemplar.labels_refs),
                    value: exemplar.value,
                    timestamp: exemplar.timestamp,
                })
                .collect(),
            // The fields of 1.0 have the same numbers; field 17 it does not know.
            histograms: series
                .histograms
                .iter()
                .map(|histogram| {
                    let mut histogram = histogram.clone();
                    histogram.start_timestamp = 0;
                    proto::Histogram::decode(histogram.encode_to_vec().as_slice()).unwrap()
                })
                .collect(),
        }
    };
    let timeseries = request.timeseries.iter().map(series).collect();
    WriteRequest { timeseries, metadata }
}

fn family(name: &str, kind: MetricType) -> String {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram | MetricType::Gaugehistogram => &["_bucket", "_sum", "_count"],
        MetricType::Summary => &["_sum", "_count"],
        _ => &[],
    };
    let stripped = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    stripped.unwrap_or(name).to_owned()
}

/// Compared as bytes: NaNs are equal to nothing, and have to keep their bits.
pub(crate) fn check(body: &[u8]) {
    let request = v2::Request::decode(body).unwrap();
    let given = rewritten(body).unwrap();
    let given = WriteRequest::decode(given.as_slice()).unwrap();
    let expected = expected(&request);
    assert_eq!(given.timeseries.len(), expected.timeseries.len());
    for (given, expected) in given.timeseries.iter().zip(&expected.timeseries) {
        assert_eq!(given.encode_to_vec(), expected.encode_to_vec(), "{given:?} instead of {expected:?}");
    }
    assert_eq!(given.metadata, expected.metadata);
}

/// Labels, what needs no symbols, the labels of its exemplars, metadata.
type Spelt = (Vec<String>, v2::TimeSeries, Vec<Vec<String>>, Option<(i32, String, String)>);

/// A request with its references looked up: the numbers of symbols are the writer's affair.
fn spelt(request: &v2::Request) -> Vec<Spelt> {
    let symbol = |reference: &u32| request.symbols[*reference as usize].clone();
    let series = request.timeseries.iter().map(|series| {
        let mut rest = series.clone();
        rest.labels_refs.clear();
        let exemplars = rest
            .exemplars
            .iter_mut()
            .map(|exemplar| std::mem::take(&mut exemplar.labels_refs).iter().map(symbol).collect::<Vec<_>>());
        let exemplars = exemplars.collect();
        let metadata = rest.metadata.take();
        let metadata = metadata.map(|of| (of.r#type, symbol(&of.help_ref), symbol(&of.unit_ref)));
        let metadata = metadata.filter(|of| *of != (0, String::new(), String::new()));
        (series.labels_refs.iter().map(symbol).collect(), rest, exemplars, metadata)
    });
    series.collect()
}

/// What a sender of 2.0 makes of it: samples or histograms in a series, never both, and neither only for metadata, which goes.
/// Exemplars alone go with the last series of their labels.
fn by_the_rules(all: Vec<Spelt>) -> Vec<Spelt> {
    let (mut kept, mut alone) = (Vec::new(), Vec::new());
    for (labels, series, exemplars, metadata) in all {
        let v2::TimeSeries { samples, histograms, .. } = series.clone();
        if samples.is_empty() && histograms.is_empty() {
            alone.push((labels, series.exemplars, exemplars));
            continue;
        }
        if !samples.is_empty() && !histograms.is_empty() {
            let floats = v2::TimeSeries { samples: samples.clone(), ..v2::TimeSeries::default() };
            kept.push((labels.clone(), floats, vec![], None));
        }
        let samples = if histograms.is_empty() { samples } else { vec![] };
        kept.push((labels, v2::TimeSeries { samples, histograms, ..series }, exemplars, metadata));
    }
    for (labels, exemplars, texts) in alone {
        if let Some(last) = kept.iter_mut().rfind(|kept| kept.0 == labels) {
            last.1.exemplars.extend(exemplars);
            last.2.extend(texts);
        }
    }
    kept
}

thread_local! {
    /// For one body after the other.
    static USED: RefCell<Used> = RefCell::default();
}

#[derive(Default)]
struct Used {
    rewriter: Rewriter,
    composer: Composer,
    one: Vec<u8>,
    two: Vec<u8>,
}

/// What is said of where labels end holds, and behind them is nothing but one sample and what 1.0 has no place for.
fn check_label_ends(body: &[u8], label_ends: &[u32]) {
    let names = ReplicaNames::default();
    let walked = walk(body, &names).unwrap();
    assert!(label_ends.is_empty() || label_ends.len() == walked.series.len());
    for (series, end) in walked.series.iter().zip(label_ends).filter(|(_, end)| **end > 0) {
        assert_eq!((series.rest.start, series.samples, series.exemplars), (*end, 1, 0));
    }
    let (mut walker, mut samples) = (Walker::new(body, &names).with_label_ends(label_ends), Vec::new());
    let mut found = TimeSeries::default();
    for exact in &walked.series {
        walker.next_likely(&mut found, &mut samples).unwrap().unwrap();
        assert_eq!(
            (found.rest, found.samples, found.exemplars),
            (exact.rest, exact.samples, exact.exemplars)
        );
        assert!(found.guessed || found == *exact);
        // A guess may be wrong about which label is the replica's, and then nobody has such a key.
        assert!(!found.guessed || found.payload == exact.payload && found.after.end == exact.rest.start);
    }
    assert_eq!(samples, walked.samples);
}

/// For an upstream that takes 2.0, nothing is lost on the way through 1.0.
pub(crate) fn check_round_trip(body: &[u8]) -> v2::Request {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let mut rewriter = Rewriter::default();
    rewriter.rewrite(body, Keep::All, MAX, &mut one).unwrap();
    check_label_ends(&one, rewriter.label_ends());
    Composer::default().compose(&one, &mut two).unwrap();
    USED.with_borrow_mut(|Used { rewriter: used, composer, one: one_again, two: two_again }| {
        used.rewrite(body, Keep::All, MAX, one_again).unwrap();
        composer.compose(one_again, two_again).unwrap();
        assert!(*one_again == one && *two_again == two, "something of a body before is left");
        assert_eq!(used.label_ends(), rewriter.label_ends());
    });
    let (before, after) = (v2::Request::decode(body).unwrap(), v2::Request::decode(two.as_slice()).unwrap());
    let (expected, after_all) = (by_the_rules(spelt(&before)), spelt(&after));
    for (before, after) in expected.iter().zip(&after_all) {
        assert_eq!((&before.0, &before.2, &before.3), (&after.0, &after.2, &after.3));
        assert_eq!(before.1.encode_to_vec(), after.1.encode_to_vec(), "{before:?} became {after:?}");
    }
    assert_eq!(expected.len(), after_all.len());
    let texts: BTreeSet<_> = after.symbols.iter().collect();
    assert_eq!(texts.len(), after.symbols.len(), "each symbol once");
    after
}
