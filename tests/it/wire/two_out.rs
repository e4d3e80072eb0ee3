//! Remote write 2.0 out of the 1.0 that 2.0 in was rewritten as: what came goes on, by the rules for senders.

use super::corpus::raw;
use super::two::{MAX, names, request};
use promdedup::proto::v2;
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeSet;

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

/// For an upstream that takes 2.0, nothing is lost on the way through 1.0.
fn check_round_trip(body: &[u8]) -> v2::Request {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    Rewriter::default().rewrite(body, Keep::All, MAX, &mut one).unwrap();
    Composer::default().compose(&one, &mut two).unwrap();
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

#[test]
fn real_bodies_go_through_unharmed() {
    for name in names() {
        let body = raw(&name);
        let after = check_round_trip(&body);
        let before = v2::Request::decode(body.as_slice()).unwrap();
        assert!(after.symbols.len() <= before.symbols.len(), "{name}");
        assert_eq!(after.symbols[0], "");
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_goes_through_unharmed(mut request in request()) {
        // A symbol that is there twice is so once afterwards.
        request.timeseries.retain(|series| series.labels_refs.len() > 1);
        check_round_trip(&request.encode_to_vec());
    }
}
