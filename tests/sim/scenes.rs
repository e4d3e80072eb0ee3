//! Named stories: what deserves to be told by itself, whatever the seeds say.

use crate::checker::{Verdict, judge};
use crate::run::play;
use crate::story::{Fault, Kind, Link, ProxyPlan, ReplicaPlan, SeriesPlan, Sick, Story, TargetPlan, What};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const INTERVAL_MS: i64 = 15 * SECOND;

/// Two replicas, eight targets of three series, and half an hour.
fn two_replicas() -> Story {
    let target = |nth: i64| TargetPlan {
        team: 0,
        group: 0,
        intervals_ms: vec![(0, INTERVAL_MS)],
        phases_ms: vec![(nth * 1_700) % INTERVAL_MS, (nth * 1_700 + 6_300) % INTERVAL_MS],
        jitter_ms: 0,
        kind: Kind::Scraped,
        life: (0, i64::MAX),
        series: vec![SeriesPlan::Steady; 3],
    };
    Story {
        seed: 1,
        span_ms: 30 * MINUTE,
        replicas: (0..2).map(|_| ReplicaPlan { team: 0, shards: 2, clock: vec![] }).collect(),
        targets: (0..8).map(target).collect(),
        link: Link { flush_ms: 1_000, way_ms: 200, store_ms: 400, batch: 100 },
        proxy: ProxyPlan { series_max: 10_000, idle_ms: 60 * MINUTE, hold_ms: 6 * SECOND },
        fleet: None,
        faults: vec![],
    }
}

fn fault(at_ms: i64, for_ms: i64, what: What) -> Fault {
    Fault { at_ms, for_ms, what }
}

fn verdict(story: &Story) -> Verdict {
    let verdict = judge(&play(story, None));
    assert!(verdict.broken.is_empty(), "{:?}\n{story}", verdict.broken);
    assert!(verdict.stored > 1_000, "only {} samples stored", verdict.stored);
    verdict
}

#[track_caller]
fn is_dense(verdict: &Verdict) {
    assert!((0.97..=1.07).contains(&verdict.density), "density {}", verdict.density);
}

#[track_caller]
fn has_no_hole(verdict: &Verdict) {
    assert!(verdict.hole.width <= 1.5, "a hole of {} intervals", verdict.hole.width);
}

#[test]
fn nothing_happens_where_nothing_is_wrong() {
    let verdict = verdict(&two_replicas());
    assert_eq!((verdict.changes_of_owner, verdict.takeovers, verdict.moves), (0, 0, 0));
    assert!(verdict.hole.width <= 1.02 && (1.0..=1.02).contains(&verdict.density), "{verdict:?}");
}

#[test]
fn a_backlog_of_half_an_hour_comes_while_the_other_replica_is_live() {
    let mut story = two_replicas();
    story.span_ms = 50 * MINUTE;
    story.faults = vec![fault(8 * MINUTE, 30 * MINUTE, What::Partition { replica: 0 })];
    let verdict = verdict(&story);
    has_no_hole(&verdict);
    is_dense(&verdict);
    assert!(verdict.split.0 <= 3.0);
}

#[test]
fn backlogs_come_at_different_speeds() {
    let mut story = two_replicas();
    story.span_ms = 50 * MINUTE;
    story.replicas[0].shards = 1;
    story.replicas[1].shards = 8;
    story.faults = vec![fault(8 * MINUTE, 30 * MINUTE, What::Upstream(Sick::Answers(503)))];
    let verdict = verdict(&story);
    assert!(verdict.hole.width <= 2.1, "a hole of {} intervals", verdict.hole.width);
    is_dense(&verdict);
}

#[test]
fn who_comes_back_without_a_backlog_waits_for_who_has_one() {
    for replica in 0..2 {
        let mut story = two_replicas();
        story.span_ms = 50 * MINUTE;
        story.faults = vec![
            fault(8 * MINUTE, 30 * MINUTE, What::Upstream(Sick::Answers(503))),
            fault(20 * MINUTE, MINUTE, What::Death { replica, moved: true }),
        ];
        let verdict = verdict(&story);
        assert!(verdict.waits > 0, "nobody waited");
        assert!(verdict.hole.width <= 2.1, "a hole of {} intervals", verdict.hole.width);
        is_dense(&verdict);
    }
}

/// An outage that is shorter than the minute that fronts let pass.
#[test]
fn who_comes_back_without_a_backlog_waits_for_a_short_one_too() {
    for replica in 0..2 {
        let mut story = two_replicas();
        for target in &mut story.targets {
            target.intervals_ms = vec![(0, SECOND)];
        }
        story.span_ms = 8 * MINUTE;
        story.link = Link { flush_ms: 100, way_ms: 50, store_ms: 100, batch: 100 };
        story.faults = vec![
            fault(3 * MINUTE, 40 * SECOND, What::Upstream(Sick::Answers(503))),
            fault(3 * MINUTE + 10 * SECOND, 25 * SECOND, What::Death { replica, moved: true }),
        ];
        is_dense(&verdict(&story));
    }
}

#[test]
fn nothing_is_forgotten_while_upstream_is_away() {
    let mut story = two_replicas();
    story.span_ms = 60 * MINUTE;
    story.proxy.idle_ms = 10 * MINUTE;
    story.faults = vec![fault(8 * MINUTE, 40 * MINUTE, What::Upstream(Sick::Resets { stores: false }))];
    let verdict = verdict(&story);
    assert!(verdict.hole.width <= 1.5, "a hole of {} intervals", verdict.hole.width);
    assert!(verdict.split.0 <= 3.0);
}

#[test]
fn an_idle_entry_is_forgotten_and_its_target_comes_back() {
    let mut story = two_replicas();
    story.span_ms = 45 * MINUTE;
    story.proxy.idle_ms = 5 * MINUTE;
    story.faults = (0..2)
        .map(|replica| fault(10 * MINUTE, 20 * MINUTE, What::Removed { replica, targets: 0b11 }))
        .collect();
    has_no_hole(&verdict(&story));
}

#[test]
fn a_clock_that_is_3_s_off_changes_nothing() {
    for ahead in [3 * SECOND, -3 * SECOND] {
        let mut story = two_replicas();
        story.replicas[1].clock = vec![(0, ahead)];
        let verdict = verdict(&story);
        has_no_hole(&verdict);
        is_dense(&verdict);
        assert_eq!(verdict.changes_of_owner, 0, "no flapping");
    }
}

#[test]
fn a_clock_that_is_40_s_off_takes_over_once() {
    for ahead in [40 * SECOND, -40 * SECOND] {
        let mut story = two_replicas();
        story.replicas[1].clock = vec![(0, ahead)];
        let verdict = verdict(&story);
        is_dense(&verdict);
        let series = 8 * 5;
        assert!(verdict.changes_of_owner <= series, "{} changes of owner", verdict.changes_of_owner);
    }
}

#[test]
fn a_clock_that_jumps_leaves_a_hole_no_wider_than_the_jump() {
    for clock in [vec![(10 * MINUTE, 40 * SECOND)], vec![(0, 40 * SECOND), (10 * MINUTE, 0)]] {
        let mut story = two_replicas();
        story.replicas[0].clock = clock;
        let verdict = verdict(&story);
        assert!(verdict.hole.width <= 1.0 + 40.0 / 15.0, "a hole of {} intervals", verdict.hole.width);
        is_dense(&verdict);
    }
}

#[test]
fn an_interval_changes_to_the_double_and_back() {
    let mut story = two_replicas();
    for target in &mut story.targets {
        target.intervals_ms =
            vec![(0, INTERVAL_MS), (10 * MINUTE, 2 * INTERVAL_MS), (20 * MINUTE, INTERVAL_MS)];
    }
    let verdict = verdict(&story);
    has_no_hole(&verdict);
    is_dense(&verdict);
}

#[test]
fn jitter_of_a_tenth_changes_no_owner() {
    let mut story = two_replicas();
    story.targets.iter_mut().for_each(|target| target.jitter_ms = INTERVAL_MS / 10);
    let verdict = verdict(&story);
    assert_eq!((verdict.changes_of_owner, verdict.takeovers), (0, 0));
    is_dense(&verdict);
}

#[test]
fn series_of_every_tenth_scrape_come_through() {
    let mut story = two_replicas();
    story.targets.iter_mut().for_each(|target| target.series[0] = SeriesPlan::Rare(10));
    let verdict = verdict(&story);
    has_no_hole(&verdict);
    is_dense(&verdict);
}

/// The buckets of one scrape come from one replica, also of series that are born or end in the meantime.
#[test]
fn a_target_stays_whole_through_takeovers() {
    let mut story = two_replicas();
    for target in &mut story.targets {
        target.series.push(SeriesPlan::Life(11 * MINUTE, 18 * MINUTE));
        target.series.push(SeriesPlan::Life(5 * MINUTE, 12 * MINUTE));
    }
    story.faults = vec![
        fault(10 * MINUTE, 3 * MINUTE, What::Death { replica: 0, moved: true }),
        fault(19 * MINUTE, 3 * MINUTE, What::Death { replica: 1, moved: false }),
    ];
    let verdict = verdict(&story);
    has_no_hole(&verdict);
    assert!(verdict.changes_of_owner > 0, "nobody took over");
    assert!(verdict.split.0 <= 2.0, "split for {} intervals", verdict.split.0);
}

#[test]
fn a_target_that_one_replica_does_not_reach_comes_from_the_other() {
    for replica in 0..2 {
        for what in [
            What::Unreachable { replica, targets: 0b1010_1010 },
            What::Removed { replica, targets: 0b1010_1010 },
        ] {
            let mut story = two_replicas();
            story.faults = vec![fault(10 * MINUTE, 5 * MINUTE, what)];
            let verdict = verdict(&story);
            has_no_hole(&verdict);
            is_dense(&verdict);
            assert_eq!(verdict.false_ends, 0);
            assert!(verdict.split.0 <= 2.0, "{what:?}: split for {} intervals", verdict.split.0);
        }
    }
}
