//! What the proxy sends upstream, read by prost, and judged by the rules for senders.

use super::bodies::Speaks;
use crate::peer::Peer;
use promdedup::proto::{self, v2};
use prost::Message;
use std::collections::{BTreeSet, HashMap};

/// The raw bodies, which have to be snappy blocks.
fn raws(peer: &Peer) -> Vec<Vec<u8>> {
    let unpack = |body: &[u8]| snap::raw::Decoder::new().decompress_vec(body).expect("a snappy block");
    peer.requests().iter().map(|(_, body)| unpack(body)).filter(|raw| !raw.is_empty()).collect()
}

/// What an upstream of 1.0 got.
pub(super) fn ones(peer: &Peer) -> Vec<proto::WriteRequest> {
    raws(peer).iter().map(|raw| proto::WriteRequest::decode(raw.as_slice()).expect("1.0")).collect()
}

/// What an upstream of 2.0 got.
pub(super) fn twos(peer: &Peer) -> Vec<v2::Request> {
    raws(peer).iter().map(|raw| v2::Request::decode(raw.as_slice()).expect("2.0")).collect()
}

pub(super) type Pairs = Vec<(String, String)>;

/// One `TimeSeries` of either version, its labels spelt out.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent {
    pub(super) labels: Pairs,
    /// Time, bits of the value, start.
    pub(super) samples: Vec<(i64, u64, i64)>,
    pub(super) histograms: Vec<v2::Histogram>,
    /// Labels, bits of the value, time.
    pub(super) exemplars: Vec<(Pairs, u64, i64)>,
}

fn pairs(labels: Vec<proto::Label>) -> Pairs {
    labels.into_iter().map(|label| (label.name, label.value)).collect()
}

fn of_1(series: proto::TimeSeries) -> Sent {
    let histogram = |h: proto::Histogram| v2::Histogram::decode(h.encode_to_vec().as_slice()).expect("one");
    Sent {
        labels: pairs(series.labels),
        samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), 0)).collect(),
        histograms: series.histograms.into_iter().map(histogram).collect(),
        exemplars: series
            .exemplars
            .into_iter()
            .map(|e| (pairs(e.labels), e.value.to_bits(), e.timestamp))
            .collect(),
    }
}

fn of_2(symbols: &[String], series: v2::TimeSeries) -> Sent {
    let text = |reference: u32| symbols.get(reference as usize).expect("a symbol").clone();
    let spelt = |references: &[u32]| {
        assert!(references.len().is_multiple_of(2), "{references:?}");
        references.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect::<Vec<_>>()
    };
    if let Some(metadata) = &series.metadata {
        drop((text(metadata.help_ref), text(metadata.unit_ref)));
    }
    Sent {
        labels: spelt(&series.labels_refs),
        samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), s.start_timestamp)).collect(),
        histograms: series.histograms,
        exemplars: series
            .exemplars
            .iter()
            .map(|e| (spelt(&e.labels_refs), e.value.to_bits(), e.timestamp))
            .collect(),
    }
}

/// All that was sent, in its order. Judges the messages around it: a body of one version holds nothing of the other;
/// symbols begin with the empty one, each is there once, and each reference finds one.
pub(super) fn sent(peer: &Peer, upstream: Speaks) -> Vec<Sent> {
    let mut all = Vec::new();
    for raw in raws(peer) {
        let one = proto::WriteRequest::decode(raw.as_slice()).expect("fields of 1.0");
        if upstream == Speaks::One {
            all.extend(one.timeseries.into_iter().map(of_1));
            continue;
        }
        assert_eq!(one, proto::WriteRequest::default(), "a receiver of 1.0 finds nothing");
        let two = v2::Request::decode(raw.as_slice()).expect("2.0");
        assert_eq!(two.symbols.first().map(String::as_str), Some(""), "{:?}", two.symbols);
        let distinct: BTreeSet<_> = two.symbols.iter().collect();
        assert_eq!(distinct.len(), two.symbols.len(), "a symbol is there twice");
        all.extend(two.timeseries.into_iter().map(|series| of_2(&two.symbols, series)));
    }
    all
}

/// Names strictly rising by their bytes, nothing empty, `__name__` among them.
fn judge_labels(labels: &[(String, String)]) {
    assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{labels:?}");
    assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels:?}");
    assert!(labels.iter().any(|(name, _)| name == "__name__"), "{labels:?}");
    assert!(!labels.iter().any(|(name, _)| name == "prometheus_replica" || name == "__replica__"));
}

/// The rules for all that a sender sends.
pub(super) fn judge(all: &[Sent]) {
    let mut newest: HashMap<&[(String, String)], i64> = HashMap::new();
    for series in all {
        judge_labels(&series.labels);
        let floats = series.samples.iter().map(|(at, ..)| *at);
        let mut times: Vec<i64> = floats.chain(series.histograms.iter().map(|h| h.timestamp)).collect();
        if series.samples.is_empty() || series.histograms.is_empty() {
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{series:?}");
        }
        times.sort_unstable();
        for at in times {
            let before = newest.insert(&series.labels, at);
            assert!(before.is_none_or(|before| before < at), "{series:?} after {before:?}");
        }
        for (labels, ..) in &series.exemplars {
            assert!(labels.iter().all(|(name, _)| !name.is_empty()), "{labels:?}");
        }
    }
}
