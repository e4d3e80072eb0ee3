//! The checker finds what was planted, and nothing in a clean stream.

use promdedup::stand_in::prometheus::Sent;
use promdedup::stand_in::{Checker, Findings, Labels, Point};
use std::collections::{BTreeMap, HashMap};

const I: i64 = 1_000;

fn labels() -> Labels {
    Labels::new([("__name__", "a"), ("job", "x")])
}

fn points(times: &[i64]) -> Vec<Point> {
    times.iter().map(|&at| Point::float(at, at as f64)).collect()
}

fn sent(times: &[i64], acknowledged: bool) -> HashMap<Labels, Vec<Sent>> {
    let sent = points(times).into_iter().map(|point| Sent { point, acknowledged }).collect();
    HashMap::from([(labels(), sent)])
}

/// Two replicas half an interval apart, of which `stored` arrived.
fn judge(stored: Vec<Point>) -> Findings {
    Checker::new(I)
        .stored(BTreeMap::from([(labels(), stored)]))
        .sent(sent(&[1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000], true))
        .sent(sent(&[1_500, 2_500, 3_500, 4_500, 5_500, 6_500, 7_500, 8_500], true))
        .findings()
}

#[test]
fn a_clean_stream_has_no_problems() {
    let findings = judge(points(&[1_000, 2_000, 3_000, 4_500, 5_500, 6_500, 7_500, 8_500]));
    assert_eq!(findings.problems(1.5), [] as [&str; 0]);
    assert_eq!(findings.widest_hole.intervals, 1.5);
    assert_eq!((findings.series, findings.stored, findings.sent, findings.acknowledged), (1, 8, 16, 16));
    assert_eq!(findings.expected, 9);
}

#[test]
fn finds_a_hole() {
    let findings = judge(points(&[1_000, 2_000, 3_000, 5_000, 6_000, 7_000, 8_000]));
    assert_eq!(findings.widest_hole.intervals, 2.0);
    assert_eq!((findings.widest_hole.after_ms, findings.widest_hole.until_ms), (3_000, 5_000));
    assert_eq!(findings.problems(1.5).len(), 1);
}

#[test]
fn the_first_interval_and_the_time_after_an_end_are_no_holes() {
    let check = |stored: Vec<Point>, expect: f64| assert_eq!(judge(stored).widest_hole.intervals, expect);
    check(points(&[1_000, 4_000, 5_000]), 1.0);
    let mut ended = points(&[1_000, 2_000]);
    ended.push(Point::stale(3_000));
    ended.extend(points(&[7_000, 8_000]));
    check(ended, 1.0);
}

#[test]
fn the_silence_of_all_replicas_is_no_hole() {
    let alone = Checker::new(I)
        .stored(BTreeMap::from([(labels(), points(&[1_000, 2_000, 9_000, 10_000]))]))
        .sent(sent(&[1_000, 2_000, 2_300, 9_000, 10_000], true))
        .findings();
    assert_eq!(alone.widest_hole.intervals, 1.3);
}

#[test]
fn finds_a_loss() {
    // Nothing within two intervals of 5,001 and later.
    let findings = judge(points(&[1_000, 2_000, 3_000]));
    assert_eq!(findings.lost, 7);
    assert!(findings.problems(1.5).iter().any(|problem| problem.contains("at 6000")), "{findings:?}");
    // What was not acknowledged is not lost.
    let kept = Checker::new(I)
        .stored(BTreeMap::from([(labels(), points(&[1_000]))]))
        .sent(sent(&[1_000], true))
        .sent(sent(&[9_000], false))
        .findings();
    assert_eq!(kept.lost, 0);
}

#[test]
fn finds_a_missing_series() {
    let findings = Checker::new(I).sent(sent(&[1_000, 2_000], true)).findings();
    assert_eq!((findings.lost, findings.series_missing), (2, 1));
}

#[test]
fn finds_a_reordered_and_a_repeated_sample() {
    assert_eq!(judge(points(&[1_000, 3_000, 2_000, 4_000])).not_rising, 1);
    assert_eq!(judge(points(&[1_000, 2_000, 2_000, 3_000])).not_rising, 1);
}

#[test]
fn finds_a_sample_that_nobody_sent() {
    let mut stored = points(&[1_000, 2_000]);
    stored.push(Point::float(3_000, 3_000.000_001));
    assert_eq!(judge(stored).invented, 1);
    let mut shifted = points(&[1_000, 2_000]);
    shifted.push(Point::float(3_001, 3_000.0));
    assert_eq!(judge(shifted).invented, 1);
}

#[test]
fn finds_a_replica_label() {
    let stored = BTreeMap::from([(labels().with("prometheus_replica", "r0"), points(&[1_000]))]);
    let findings = Checker::new(I).stored(stored).findings();
    assert_eq!((findings.replica_labels, findings.invented), (1, 1));
}
