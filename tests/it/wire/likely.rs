//! What is guessed of a series: whatever its bytes are, a guess with a key that is known is what the walk finds.

use super::{apply, damage, neat_labels, series, timestamp};
use crate::wire::oracle::walk;
use promdedup::proto::{Label, Sample, TimeSeries, WriteRequest};
use promdedup::series::{ReplicaNames, SeriesKey, TenantHash};
use promdedup::wire::labels::{LabelBounds, canonicalize};
use promdedup::wire::v1::{self, Walker};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::HashSet;

fn likely(body: &[u8], names: &ReplicaNames) -> Option<(Vec<v1::TimeSeries>, Vec<v1::Sample>)> {
    let (mut series, mut samples) = (Vec::new(), Vec::new());
    let mut walker = Walker::new(body, names);
    loop {
        let mut found = v1::TimeSeries::default();
        match walker.next_likely(&mut found, &mut samples) {
            Some(Ok(())) => series.push(found),
            Some(Err(_)) => return None,
            None => return Some((series, samples)),
        }
    }
}

/// The keys that a window would have of the valid series of a body.
fn known(body: &[u8], names: &ReplicaNames) -> HashSet<SeriesKey> {
    let mut canonical = Vec::new();
    let walked = walk(body, names).unwrap();
    let keys = walked.series.iter().filter_map(|series| {
        let judged = canonicalize(body, series, names, LabelBounds::default(), &mut canonical).ok()?;
        Some(SeriesKey::of_canonical(&canonical, judged.split, TenantHash::of("")))
    });
    keys.collect()
}

/// Checks the guesses of a body, of which these keys are known. Returns how many series were guessed, and known.
fn check(body: &[u8], known: &HashSet<SeriesKey>) -> (usize, usize) {
    let names = ReplicaNames::default();
    let Some((series, samples)) = likely(body, &names) else { return (0, 0) };
    let mut walker = Walker::new(body, &names);
    let mut counts = (0, 0);
    for found in series.iter().filter(|series| series.guessed) {
        let mut scratch = Vec::new();
        let (before, after) = found.parts(body, &names, &mut scratch).unwrap();
        let is_known = known.contains(&SeriesKey::of_parts(before, after, TenantHash::of("")));
        assert!(!is_known || walker.confirms(found, &samples), "{found:?}");
        counts = (counts.0 + 1, counts.1 + usize::from(is_known));
    }
    counts
}

/// Series as they mostly are, and some that are not.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![Just(0.0), Just(1.5), any::<f64>()];
    let usual = (neat_labels(), value, timestamp()).prop_map(|(labels, value, timestamp)| TimeSeries {
        labels,
        samples: vec![Sample { value, timestamp }],
        ..TimeSeries::default()
    });
    vec(prop_oneof![5 => usual, 1 => series()], 1..8)
        .prop_map(|timeseries| WriteRequest { timeseries, ..WriteRequest::default() }.encode_to_vec())
}

proptest! {
    #[test]
    fn a_guess_of_a_known_series_is_right(mut body in bodies(), damages in vec(damage(), 0..4)) {
        let known = known(&body, &ReplicaNames::default());
        check(&body, &known);
        damages.iter().for_each(|damage| apply(damage, &mut body));
        check(&body, &known);
    }
}

/// Or nothing would be gained, and nothing tested.
#[test]
fn nearly_all_series_of_a_prometheus_are_guessed() {
    for file in ["rw1-big-a-2", "rw1-big-b-1", "rw1-big-exemplars-a"] {
        let packed =
            std::fs::read(format!("{}/tests/corpus/{file}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let body = snap::raw::Decoder::new().decompress_vec(&packed).unwrap();
        let names = ReplicaNames::default();
        let exact = walk(&body, &names).unwrap();
        let (series, samples) = likely(&body, &names).unwrap();
        assert_eq!(samples, exact.samples, "{file}");
        let guessed = series.iter().filter(|series| series.guessed).count();
        assert!(guessed * 100 > series.len() * 98, "{file}: {guessed} of {}", series.len());
        for (found, exact) in series.iter().zip(&exact.series) {
            // Of a guessed one it is where it was met before.
            assert_eq!(found.replica.of(&body), exact.replica.of(&body), "{file}");
            let found = v1::TimeSeries { guessed: false, replica: exact.replica, ..*found };
            assert_eq!(found, *exact, "{file}");
        }
        assert_eq!(check(&body, &known(&body, &names)), (guessed, guessed), "{file}");
    }
}

/// A field that nobody knows, with bytes in it that look like the end of a series.
#[test]
fn what_only_looks_like_a_series_is_not_confirmed() {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let usual = TimeSeries {
        labels: vec![label("__name__", "m"), label("prometheus_replica", "a")],
        samples: vec![Sample { value: 1.0, timestamp: 1_700_000_000_000 }],
        ..TimeSeries::default()
    };
    let message = usual.encode_to_vec();
    let odd = [&[0x4a, message.len() as u8][..], &message].concat();
    let body = [&[0x0a, message.len() as u8][..], &message, &[0x0a, odd.len() as u8], &odd].concat();
    let names = ReplicaNames::default();
    let (series, samples) = likely(&body, &names).unwrap();
    assert_eq!((series[0].guessed, series[1].guessed), (false, true));
    assert!(!Walker::new(&body, &names).confirms(&series[1], &samples));
    assert_eq!(check(&body, &known(&body, &names)), (1, 0));
}
