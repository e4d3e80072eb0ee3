//! Real bodies: everything in them is plain, agrees with prost, and the two replicas share their keys.

use super::oracle::{Walked, check, walk};
use promdedup::series::{Place, PlaceLabels, ReplicaNames, SeriesKey, TenantHash, labels};
use promdedup::wire::labels::{LabelBounds, canonicalize};
use promdedup::wire::{STALE_NAN_BITS, snappy};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

pub(super) fn raw(name: &str) -> Vec<u8> {
    let packed = std::fs::read(directory().join(name)).unwrap();
    let mut raw = Vec::new();
    snappy::decompress(&packed, 32 << 20, &mut raw).unwrap();
    raw
}

pub(super) fn names() -> Vec<String> {
    let files = std::fs::read_dir(directory()).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("rw1-") && name.ends_with(".bin"));
    names.sort();
    names
}

fn keys(name: &str, walked: &Walked) -> BTreeSet<SeriesKey> {
    let body = raw(name);
    let mut scratch = Vec::new();
    let parts = walked.series.iter().map(|series| {
        let (before, after) = series.parts(&body, &ReplicaNames::default(), &mut scratch).unwrap();
        SeriesKey::of_parts(before, after, TenantHash::of(""))
    });
    parts.collect()
}

#[test]
fn real_bodies_agree_with_prost() {
    let names = names();
    assert!(names.len() > 30);
    for name in names {
        check(&raw(&name));
    }
}

#[test]
fn real_bodies_are_plain_and_canonical() {
    let names_of_replicas = ReplicaNames::default();
    for name in names() {
        let body = raw(&name);
        let walked = walk(&body, &names_of_replicas).unwrap();
        let replica = if name.contains("-a") { "prometheus-k8s-0" } else { "prometheus-k8s-1" };
        for series in &walked.series {
            assert!(series.plain && series.under_first, "{name}");
            assert_eq!(series.replica.of(&body), replica.as_bytes(), "{name}");
            let verdict =
                canonicalize(&body, series, &names_of_replicas, LabelBounds::default(), &mut Vec::new())
                    .unwrap();
            assert!(verdict.verbatim, "{name}");
        }
        assert!(walked.unknown.is_empty(), "{name}");
    }
}

/// (series, floats, histograms, exemplars, stale markers, metadata)
pub(super) fn counts(body: &[u8]) -> [usize; 6] {
    let walked = walk(body, &ReplicaNames::default()).unwrap();
    let samples = &walked.samples;
    [
        walked.series.len(),
        samples.iter().filter(|sample| !sample.histogram).count(),
        samples.iter().filter(|sample| sample.histogram).count(),
        walked.series.iter().map(|series| series.exemplars as usize).sum(),
        samples.iter().filter(|sample| sample.bits == STALE_NAN_BITS).count(),
        walked.metadata.len(),
    ]
}

#[test]
fn real_bodies_hold_what_their_origin_says() {
    assert_eq!(counts(&raw("rw1-big-a-2.bin")), [2000, 1710, 6, 284, 0, 0]);
    assert_eq!(counts(&raw("rw1-big-exemplars-b.bin")), [2000, 1605, 12, 383, 0, 0]);
    assert_eq!(counts(&raw("rw1-stale-target-a.bin")), [727, 727, 0, 0, 722, 0]);
    assert_eq!(counts(&raw("rw1-stale-churn-b.bin")), [1925, 1640, 6, 279, 4, 0]);
    assert_eq!(counts(&raw("rw1-metadata-a.bin")), [0, 0, 0, 0, 0, 50]);
    assert_eq!(counts(&raw("rw1-2.42-b.bin")), [500, 500, 0, 0, 0, 0]);
}

#[test]
fn the_replicas_of_a_group_share_their_keys() {
    let of = |name| keys(name, &walk(&raw(name), &ReplicaNames::default()).unwrap());
    let (a, b) = (of("rw1-sequence-03-a.bin"), of("rw1-sequence-04-b.bin"));
    assert_eq!(a.len(), 850);
    assert_eq!(a, b);
}

#[test]
fn places_of_a_real_body() {
    let body = raw("rw1-small-a-3.bin");
    let walked = walk(&body, &ReplicaNames::default()).unwrap();
    let (mut groups, mut targets, mut ups) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut canonical = Vec::new();
    for series in &walked.series {
        canonicalize(&body, series, &ReplicaNames::default(), LabelBounds::default(), &mut canonical)
            .unwrap();
        let place = Place::of(&canonical, &PlaceLabels::default(), TenantHash::of(""));
        assert_eq!(place.group_name, "e2e/monitoring/k8s");
        assert_eq!(place.is_up, labels(&canonical).any(|label| label == (b"__name__", b"up")));
        groups.insert(place.group);
        targets.insert(place.target);
        ups += usize::from(place.is_up);
    }
    assert_eq!((groups.len(), targets.len(), ups), (1, 5, 1));
}
