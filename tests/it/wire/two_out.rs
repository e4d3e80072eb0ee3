//! Remote write 2.0 out of the 1.0 that 2.0 in was rewritten as: what came goes on, by the rules for senders.

use super::corpus::raw;
use super::two::{names, request, usual_request};
use super::two_oracle::check_round_trip;
use promdedup::proto::v2;
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
