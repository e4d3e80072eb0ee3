//! Remote write 2.0 out of the 1.0 that 2.0 in was rewritten as: what came goes on, by the rules for senders.

use super::corpus::raw;
use super::two::{names, request, usual_request};
use super::two_oracle::{MAX, check_round_trip};
use promdedup::proto::v2;
use promdedup::series::ReplicaNames;
use promdedup::wire::v1::{TimeSeries, Walker};
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use proptest::prelude::*;
use prost::Message;

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

/// `n=v` in 1.0, with these fields behind.
fn of_one(rest: &[u8]) -> Vec<u8> {
    let series = [&[0x0a, 6, 0x0a, 1, b'n', 0x12, 1, b'v'], rest].concat();
    [&[0x0a, series.len() as u8], &series[..]].concat()
}

/// Such a field means nothing in 1.0, and in 2.0 it would cost the whole request.
#[test]
fn what_is_no_start_of_a_sample_does_not_become_one() {
    let sample = [0x12, 7, 0x10, 5, 0x1a, 1, b'x', 0x20, 9];
    let histogram = [0x22, 8, 0x78, 6, 0x8a, 0x01, 1, b'x', 0x20, 2];
    let body = of_one(&[&sample[..], &histogram].concat());
    let mut two = Vec::new();
    Composer::default().compose(&body, &mut two).unwrap();
    let request = v2::Request::decode(two.as_slice()).unwrap();
    let samples: Vec<_> = request.timeseries.iter().flat_map(|series| &series.samples).collect();
    assert_eq!(samples, [&v2::Sample { timestamp: 5, ..v2::Sample::default() }]);
    let histograms: Vec<_> = request.timeseries.iter().flat_map(|series| &series.histograms).collect();
    assert_eq!(histograms, [&v2::Histogram { timestamp: 6, schema: 1, ..v2::Histogram::default() }]);
}

/// 2.0 demands a sample or a histogram of each series.
#[test]
fn exemplars_that_find_no_series_are_counted() {
    let exemplar = [0x1a, 2, 0x18, 5];
    let two_exemplars = of_one(&exemplar.repeat(2));
    let sample = of_one(&[0x12, 2, 0x10, 5]);
    let check = |body: &[u8], lost: usize, sent: usize| {
        let mut two = Vec::new();
        assert_eq!(Composer::default().compose(body, &mut two), Ok(lost));
        let request = v2::Request::decode(two.as_slice()).unwrap();
        assert_eq!(request.timeseries.iter().map(|series| series.exemplars.len()).sum::<usize>(), sent);
    };
    check(&two_exemplars, 2, 0);
    check(&[sample.clone(), two_exemplars.clone()].concat(), 0, 2);
    check(&[two_exemplars, sample].concat(), 0, 2);
    let mut other = of_one(&[0x12, 2, 0x10, 5]);
    other[9] = b'w';
    check(&[other, of_one(&exemplar)].concat(), 1, 0);
}

/// What goes out as 2.0 of a 1.0 body.
fn composed(body: &[u8]) -> v2::Request {
    let mut two = Vec::new();
    assert_eq!(Composer::default().compose(body, &mut two), Ok(0));
    v2::Request::decode(two.as_slice()).unwrap()
}

/// Of this age: six bytes of time.
const SAMPLE: [u8; 9] = [0x12, 7, 0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];

#[test]
fn whatever_is_behind_a_usual_sample_goes_with_it() {
    let metadata = [0x2a, 4, 0x08, 1, 0x1a, 0];
    let exemplar = [0x1a, 2, 0x18, 5];
    let timestamps = |request: &v2::Request| -> Vec<i64> {
        request.timeseries[0].samples.iter().map(|sample| sample.timestamp).collect()
    };
    let at = 1 << 35;
    let later = [0x12, 2, 0x10, 9];
    for (rest, samples, exemplars) in [
        (SAMPLE.to_vec(), vec![at], 0),
        ([&SAMPLE[..], &metadata].concat(), vec![at], 0),
        ([&SAMPLE[..], &metadata, &later].concat(), vec![at, 9], 0),
        ([&SAMPLE[..], &later, &metadata].concat(), vec![at, 9], 0),
        ([&SAMPLE[..], &metadata, &exemplar].concat(), vec![at], 1),
        ([&SAMPLE[..], &exemplar].concat(), vec![at], 1),
    ] {
        let request = composed(&of_one(&rest));
        assert_eq!(timestamps(&request), samples, "{rest:?}");
        assert_eq!(request.timeseries[0].exemplars.len(), exemplars, "{rest:?}");
    }
}

/// A 1.0 sender may have anything in the field that 2.0 has metadata in, and the request must stay one of 2.0.
#[test]
fn what_is_no_metadata_does_not_become_any() {
    for (field, kind) in [
        (&[0x2a, 5, 0x08, 1, 0x1a, 5, b'a'][..], None),
        (&[0x2a, 3, 0x0a, 1, b'x'], Some(0)),
        (&[0x2a, 4, 0x08, 2, 0x18, 7], Some(2)),
    ] {
        let request = composed(&of_one(&[&SAMPLE[..], field].concat()));
        let series = &request.timeseries[0];
        assert_eq!(series.metadata.as_ref().map(|of| of.r#type), kind, "{field:?}");
        assert_eq!(series.samples.len(), 1);
    }
    // A sample that is not of this age is looked into, also where it stands alone.
    let sample = [0x12, 7, 0x10, 5, 0x1a, 1, b'x', 0x20, 9];
    assert_eq!(composed(&of_one(&sample)).timeseries[0].samples[0].start_timestamp, 0);
}

/// 2.0 has metadata in a series, and an exemplar that came alone brings none.
#[test]
fn a_lone_exemplar_goes_without_its_metadata() {
    let exemplar = [0x1a, 2, 0x18, 5];
    let with = |kind| [0x2a, 2, 0x08, kind];
    let alone = of_one(&[&exemplar[..], &with(2)].concat());
    let request = composed(&[of_one(&[&SAMPLE[..], &with(1)].concat()), alone].concat());
    let [series] = &request.timeseries[..] else { panic!("{request:?}") };
    assert_eq!((series.exemplars.len(), series.metadata.as_ref().unwrap().r#type), (1, 1));
}

/// Or each change would repeat the labels: a body of some hundred kilobytes could become one of as many megabytes.
#[test]
fn labels_are_not_repeated_as_often_as_a_sender_likes() {
    let label = |n: usize| [&[0x0a, 8, 0x0a, 3][..], format!("{n:03}").as_bytes(), &[0x12, 1, b'v']].concat();
    let labels: Vec<u8> = (0..1_000).flat_map(label).collect();
    let mixed = |n: u8| [0x12, 2, 0x10, n, 0x22, 2, 0x78, n];
    let series = [labels, (0..100).flat_map(mixed).collect()].concat();
    let mut body = vec![0x0a];
    body.extend([series.len() as u8 & 0x7f | 0x80, (series.len() >> 7) as u8]);
    body.extend(series);
    let request = composed(&body);
    assert!((2..=20).contains(&request.timeseries.len()), "{}", request.timeseries.len());
    let of =
        |pick: fn(&v2::TimeSeries) -> Vec<i64>| request.timeseries.iter().flat_map(pick).collect::<Vec<_>>();
    let all: Vec<i64> = (0..100).collect();
    assert_eq!(of(|series| series.samples.iter().map(|of| of.timestamp).collect()), all);
    assert_eq!(of(|series| series.histograms.iter().map(|of| of.timestamp).collect()), all);
    for series in &request.timeseries {
        assert!(series.samples.is_empty() != series.histograms.is_empty(), "one of both");
        assert_eq!(series.labels_refs.len(), 2_000);
    }
}

/// A series whose length takes one byte, or three, is moved when its end is known, and its metadata with it.
#[test]
fn metadata_is_told_again_also_by_series_of_unusual_length() {
    for pad in (1..140).chain(16_250..16_400) {
        let symbols = ["", "__name__", "m", "l"].map(str::to_owned).into_iter();
        let symbols = symbols.chain(["x".repeat(pad), "a short help".to_owned(), "y".to_owned()]).collect();
        let metadata = Some(v2::Metadata { r#type: 1, help_ref: 5, unit_ref: 0 });
        let series = |value| v2::TimeSeries {
            labels_refs: vec![1, 2, 3, value],
            samples: vec![v2::Sample { value: 1.5, timestamp: 1 << 40, start_timestamp: 0 }],
            metadata,
            ..v2::TimeSeries::default()
        };
        let timeseries = [4, 4, 6, 4, 6, 6].map(series).to_vec();
        check_round_trip(&v2::Request { symbols, timeseries }.encode_to_vec());
    }
}

/// Such series are begun in the usual way, and then done in the other.
#[test]
fn references_in_two_pieces_among_usual_series() {
    let symbols = [&[0x22, 0, 0x22, 8][..], b"__name__", &[0x22, 1, b'm', 0x22, 1, b'n']].concat();
    let metadata = [0x2a, 2, 0x08, 1];
    let series = |content: &[&[u8]]| {
        let content = content.concat();
        [&[0x2a, content.len() as u8], &content[..]].concat()
    };
    let usual = series(&[&[0x0a, 2, 1, 2], &SAMPLE, &metadata]);
    let pieces = series(&[&[0x0a, 2, 1, 2], &SAMPLE, &[0x0a, 2, 3, 3], &metadata]);
    for order in [[&usual, &pieces, &usual, &pieces], [&pieces, &usual, &usual, &usual]] {
        let all: Vec<_> = order.into_iter().flatten().copied().collect();
        // Long enough for the usual way, which reads ahead.
        let after = check_round_trip(&[symbols.clone(), all.repeat(4)].concat());
        assert_eq!(after.timeseries.len(), 16);
    }
}

/// Or all of a body for an upstream of 2.0 would be walked over in full.
#[test]
fn nearly_all_series_are_guessed_also_with_metadata() {
    for name in names().iter().filter(|name| name.contains("-big-a-") || name.contains("big-exemplars")) {
        let (mut rewriter, mut one) = (Rewriter::default(), Vec::new());
        rewriter.rewrite(&raw(name), Keep::All, MAX, &mut one).unwrap();
        let replicas = ReplicaNames::default();
        let mut walker = Walker::new(&one, &replicas).with_label_ends(rewriter.label_ends());
        let (mut found, mut samples, mut guessed, mut all) = (TimeSeries::default(), Vec::new(), 0, 0);
        while let Some(walked) = walker.next_likely(&mut found, &mut samples) {
            walked.unwrap();
            all += 1;
            guessed += usize::from(found.guessed);
        }
        assert!(all >= 1_000 && guessed * 100 >= all * 95, "{name}: {guessed} of {all}");
    }
}

proptest! {
    #[test]
    fn usual_requests_go_through_unharmed(mut request in usual_request()) {
        request.timeseries.retain(|series| series.labels_refs.len() > 1);
        check_round_trip(&request.encode_to_vec());
    }

    #[test]
    fn whatever_is_sent_goes_through_unharmed(mut request in request()) {
        // A symbol that is there twice is so once afterwards.
        request.timeseries.retain(|series| series.labels_refs.len() > 1);
        check_round_trip(&request.encode_to_vec());
    }
}
