//! Shapes of series, one line a case: what is plain, what identity they have, what is refused and where.

use super::oracle::{check, walk};
use promdedup::proto;
use promdedup::series::{ReplicaNames, SeriesKey, TenantHash, encode_label};
use promdedup::wire::labels::{InvalidLabels, LabelBounds, canonicalize};
use promdedup::wire::splice::{self, Labels};
use promdedup::wire::v1::TimeSeries;
use promdedup::wire::{Flaw, Malformed};
use prost::Message as _;

/// A request with one series of these labels, in this order, and one sample: 1.0 at 1.
fn body(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, value) in labels {
        encode_label(&mut message, name.as_bytes(), value.as_bytes());
    }
    message.extend(b"\x12\x0b\x09\0\0\0\0\0\0\xf0\x3f\x10\x01");
    wrap(&message)
}

fn wrap(message: &[u8]) -> Vec<u8> {
    assert!(message.len() < 128);
    [&[0x0a, message.len() as u8], message].concat()
}

fn only(body: &[u8]) -> TimeSeries {
    let walked = walk(body, &ReplicaNames::default()).unwrap();
    assert_eq!(walked.series.len(), 1);
    walked.series[0]
}

/// The true key, and whether the fast way finds it.
fn key(body: &[u8]) -> (SeriesKey, bool) {
    let (names, tenant) = (ReplicaNames::default(), TenantHash::of(""));
    let series = only(body);
    let mut canonical = Vec::new();
    let verdict = canonicalize(body, &series, &names, LabelBounds::default(), &mut canonical).unwrap();
    let truth = SeriesKey::of_canonical(&canonical, verdict.split, tenant);
    let mut scratch = Vec::new();
    let quick = series.parts(body, &names, &mut scratch);
    (truth, quick.is_some_and(|(before, after)| SeriesKey::of_parts(before, after, tenant) == truth))
}

const NEAT: [(&str, &str); 4] = [("__name__", "m"), ("a", "1"), ("prometheus_replica", "r"), ("z", "2")];

#[test]
fn senders_of_one_series_agree_on_its_key() {
    let (truth, quick) = key(&body(&NEAT));
    assert!(quick);
    let check = |labels: &[(&str, &str)], expected_quick| {
        assert_eq!(key(&body(labels)), (truth, expected_quick), "{labels:?}");
    };
    check(&[("__name__", "m"), ("a", "1"), ("prometheus_replica", "other"), ("z", "2")], true);
    check(&[("__name__", "m"), ("__replica__", "r"), ("a", "1"), ("z", "2")], true);
    check(&[("__name__", "m"), ("a", "1"), ("z", "2")], true);
    check(&[("__name__", "m"), ("a", "1"), ("z", "2"), ("prometheus_replica", "r")], false);
    check(&[("z", "2"), ("__replica__", "r"), ("a", "1"), ("__name__", "m")], false);
    check(&[("__name__", "m"), ("a", "1"), ("b", ""), ("prometheus_replica", "r"), ("z", "2")], false);
    check(
        &[("__name__", "m"), ("__replica__", "r"), ("a", "1"), ("prometheus_replica", ""), ("z", "2")],
        false,
    );
}

#[test]
fn other_series_have_other_keys() {
    let (truth, _) = key(&body(&NEAT));
    let check = |labels: &[(&str, &str)]| assert_ne!(key(&body(labels)).0, truth, "{labels:?}");
    check(&[("__name__", "m"), ("a", "1"), ("prometheus_replica", "r")]);
    check(&[("__name__", "m"), ("a", "1"), ("prometheus_replica", "r"), ("z", "3")]);
    // The second name is a label like any beside the first.
    check(&[("__name__", "m"), ("__replica__", "x"), ("a", "1"), ("prometheus_replica", "r"), ("z", "2")]);
}

#[test]
fn tenants_have_their_own_keys() {
    let (before, after) = (b"\x0a\x01a".as_slice(), b"".as_slice());
    let of = |tenant| SeriesKey::of_parts(before, after, TenantHash::of(tenant));
    assert_ne!(of("one"), of("two"));
    assert_eq!(of("one"), of("one"));
}

#[test]
fn what_is_plain() {
    let label = b"\x0a\x06\x0a\x01a\x12\x01b".as_slice();
    let sample = b"\x12\x02\x10\x05".as_slice();
    let check = |parts: &[&[u8]], plain| {
        assert_eq!(only(&wrap(&parts.concat())).plain, plain, "{parts:02x?}");
    };
    check(&[label, sample], true);
    check(&[label, sample, sample, b"\x1a\0", b"\x22\0", b"\x28\x07"], true);
    check(&[sample], true);
    check(&[sample, label], false);
    check(&[label, sample, label], false);
    check(&[label, b"\x28\x07", label], false);
    check(&[b"\x0a\x06\x12\x01b\x0a\x01a", sample], false); // value first
    check(&[b"\x0a\x09\x0a\x01x\x0a\x01a\x12\x01b", sample], false); // name twice
    check(&[b"\x0a\x09\x0a\x01a\x12\x01x\x12\x01b", sample], false); // value twice
    check(&[b"\x0a\x08\x0a\x01a\x12\x01b\x18\x07", sample], false); // unknown field
    check(&[b"\x0a\x07\x0a\x81\0a\x12\x01b", sample], false); // a long length
    check(&[b"\x0a\x86\0\x0a\x01a\x12\x01b", sample], false);
    check(&[b"\x8a\0\x06\x0a\x01a\x12\x01b", sample], false); // a long key
    check(&[b"\x0a\x03\x0a\x01a", sample], false); // no value
    check(&[b"\x0a\x05\x0a\x01a\x12\0", sample], true); // an empty one: in no canonical form, so in no known key
    check(&[b"\x0a\x0f\x0a\x0b__replica__\x12\0", sample], false);
    check(&[b"\x0a\0", sample], false);
    // Were the first one cut, the rest would look like the labels of another series.
    let replica = b"\x0a\x10\x0a\x0b__replica__\x12\x01r".as_slice();
    check(&[replica, label, sample], true);
    check(&[replica, replica, sample], false);
}

#[test]
fn unknown_fields_are_carried() {
    let body = [b"\x50\x01".as_slice(), &body(&NEAT), b"\x5a\x02hi\x50\x02"].concat();
    let walked = walk(&body, &ReplicaNames::default()).unwrap();
    let unknown: Vec<_> = walked.unknown.iter().map(|span| span.of(&body)).collect();
    assert_eq!(unknown, [b"\x50\x01".as_slice(), b"\x5a\x02hi\x50\x02"]);

    let odd = b"\x28\x07\x0a\x0d\x0a\x08__name__\x12\x01m\x2a\x02hi\x12\x02\x10\x05\x30\x01";
    let body = wrap(odd);
    let mut out = Vec::new();
    splice::whole(&body, &only(&body), Labels::Rewritten(b"LL"), &mut out);
    assert_eq!(out, wrap(b"LL\x28\x07\x2a\x02hi\x12\x02\x10\x05\x30\x01"));
    out.clear();
    splice::edited(&body, &only(&body), Labels::Received, &[], true, &mut out);
    assert_eq!(out, wrap(b"\x0a\x0d\x0a\x08__name__\x12\x01m\x28\x07\x2a\x02hi\x30\x01"));
}

#[test]
fn labels_that_are_refused() {
    let check = |labels: &[(&str, &str)], expected| {
        let body = body(labels);
        let verdict = canonicalize(
            &body,
            &only(&body),
            &ReplicaNames::default(),
            LabelBounds::default(),
            &mut Vec::new(),
        );
        assert_eq!(verdict.unwrap_err(), expected, "{labels:?}");
    };
    check(&[], InvalidLabels::None);
    check(&[("a", "1"), ("__name__", "")], InvalidLabels::NoMetricName { labels: 2 });
    check(&[("__name__", "m"), ("", "1")], InvalidLabels::EmptyName { at: 17 });
    check(&[("__name__", "m"), ("a", "1"), ("a", "1")], InvalidLabels::Repeated { name: "a".into(), at: 25 });
    let twice = [("__name__", "m"), ("__replica__", "1"), ("__replica__", "2")];
    check(&twice, InvalidLabels::Repeated { name: "__replica__".into(), at: 35 });

    let check = |label: &[u8], expected| {
        let body = wrap(&[b"\x0a\x0d\x0a\x08__name__\x12\x01m", label].concat());
        let verdict = canonicalize(
            &body,
            &only(&body),
            &ReplicaNames::default(),
            LabelBounds::default(),
            &mut Vec::new(),
        );
        assert_eq!(verdict.unwrap_err(), expected, "{label:02x?}");
    };
    check(b"\x0a\x07\x0a\x02a\xff\x12\x01b", InvalidLabels::NameNotUtf8 { at: 22 });
    check(b"\x0a\x07\x0a\x01a\x12\x02b\xff", InvalidLabels::ValueNotUtf8 { name: "a".into(), at: 25 });
    let replica = b"\x0a\x10\x0a\x0b__replica__\x12\x01\xff";
    check(replica, InvalidLabels::ValueNotUtf8 { name: "__replica__".into(), at: 34 });
}

/// As a Prometheus sends them, in another order, and with labels of two bytes' length: a bound is a bound.
#[test]
fn bounds_of_labels_hold_whatever_their_order() {
    let long = "v".repeat(130);
    let check = |labels: &[(&str, &str)], bounds: [usize; 3], expected: Option<InvalidLabels>| {
        let [labels_max, name_bytes_max, value_bytes_max] = bounds;
        let bounds = LabelBounds { labels_max, name_bytes_max, value_bytes_max };
        for labels in [labels.to_vec(), labels.iter().rev().copied().collect()] {
            let labels = labels
                .iter()
                .map(|(name, value)| proto::Label { name: (*name).into(), value: (*value).into() });
            let series = proto::TimeSeries { labels: labels.collect(), ..proto::TimeSeries::default() };
            let body = proto::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
            let verdict =
                canonicalize(&body, &only(&body), &ReplicaNames::default(), bounds, &mut Vec::new());
            assert_eq!(verdict.err(), expected, "{bounds:?}");
        }
    };
    check(&NEAT, [4, 8, 1], None);
    check(&NEAT, [3, 8, 1], Some(InvalidLabels::TooMany { labels: 4, max: 3 }));
    let name = InvalidLabels::NameTooLong { name: "__name__".into(), given: 8, max: 7 };
    check(&NEAT, [4, 7, 1], Some(name));
    // The replica label's name is the operator's, its value the sender's.
    let labels = [("__name__", "m"), ("prometheus_replica", "rr"), ("z", "2")];
    let value = |name: &str, given, max| InvalidLabels::ValueTooLong { name: name.into(), given, max };
    check(&labels, [3, 8, 2], None);
    check(&labels, [3, 8, 1], Some(value("prometheus_replica", 2, 1)));
    check(&[("__name__", "m"), ("a", "22"), ("z", "1")], [3, 8, 1], Some(value("a", 2, 1)));
    check(&[("__name__", "m"), ("a", &long)], [2, 8, 130], None);
    check(&[("__name__", "m"), ("a", &long)], [2, 8, 129], Some(value("a", 130, 129)));
    // An empty value is an absent label.
    check(&[("__name__", "m"), ("a", ""), ("b", ""), ("z", "1")], [2, 8, 1], None);
}

#[test]
fn text_is_judged_on_both_sides_of_the_replica_label() {
    let good = b"\x0a\x0d\x0a\x08__name__\x12\x01m".as_slice();
    let (bad, replica) = (b"\x0a\x06\x0a\x01a\x12\x01\xff", b"\x0a\x10\x0a\x0b__replica__\x12\x01r");
    for (labels, at) in [([good, bad, replica], 24), ([good, replica, bad], 42)] {
        let body = wrap(&labels.concat());
        assert!(only(&body).plain);
        let verdict = canonicalize(
            &body,
            &only(&body),
            &ReplicaNames::default(),
            LabelBounds::default(),
            &mut Vec::new(),
        );
        assert_eq!(verdict.unwrap_err(), InvalidLabels::ValueNotUtf8 { name: "a".into(), at });
    }
}

#[test]
fn long_lengths() {
    for length in [100, 123, 124, 127, 128, 1_280, 16_383, 16_384, 20_000, 40_000, 2_100_000] {
        // A value that a careless walk would take for the end of a short label: with 1,280 bytes, the two length bytes
        // of the label look like the length of a short one and the key of its name.
        let value = ["vvvvv\x12x", &"v".repeat(length - 7)].concat();
        let labels = [("__name__", "m"), ("a", value.as_str()), ("prometheus_replica", "r"), ("z", "1")];
        let labels = labels.map(|(name, value)| proto::Label { name: name.into(), value: value.into() });
        let series = proto::TimeSeries { labels: labels.into(), ..proto::TimeSeries::default() };
        let body = proto::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
        check(&body);
        assert!(only(&body).plain, "{length}");
        let TimeSeries { payload, before, after, .. } = only(&body);
        assert_eq!(after.start - before.end, 25, "the replica label");
        assert_eq!((before.start, after.len()), (payload.start, 8));
    }
}

#[test]
fn bodies_that_are_refused() {
    let check = |body: &[u8], at, series, flaw| {
        let malformed = walk(body, &ReplicaNames::default()).unwrap_err();
        assert_eq!(malformed, Malformed { flaw, at, series }, "{body:02x?}");
    };
    check(b"\x0a", 1, 0, Flaw::Truncated);
    check(b"\x0a\x05abc", 1, 0, Flaw::Length { given: 5, left: 3 });
    check(b"\x08\x05", 0, 0, Flaw::WireType { field: 1, given: 0 });
    check(b"\x1d\0\0\0\0", 0, 0, Flaw::WireType { field: 3, given: 5 });
    check(b"\x0a\0\x53\x54", 2, 0, Flaw::Group { field: 10 });
    check(b"\x0a\0\x0a\x02\x10\x01", 4, 2, Flaw::WireType { field: 2, given: 0 });
    check(b"\x0a\x04\x0a\x02\x0a\x05", 5, 1, Flaw::Length { given: 5, left: 0 });
    check(b"\x0a\x04\x0a\x02\x08\x05", 4, 1, Flaw::WireType { field: 1, given: 0 });
    check(b"\x0a\x05\x12\x03\x09\0\0", 5, 1, Flaw::Truncated);
    check(b"\x0a\x04\x12\x02\x10\x80", 5, 1, Flaw::Truncated);
    check(b"\x0a\x06\x12\x04\x0a\x02ab", 4, 1, Flaw::WireType { field: 1, given: 2 });
    check(b"\x0a\x04\x22\x02\x18\x01", 4, 1, Flaw::WireType { field: 3, given: 0 });
    check(b"\x0a\x04\x22\x02\x00\x01", 4, 1, Flaw::Key { key: 0 });
}
