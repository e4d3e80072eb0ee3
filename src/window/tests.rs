//! The window as a whole, on one series or a few: claims, settlements, and what is left after them.

use super::*;
use crate::policy::{Action, Circumstances, Sample, TimestampMs, Verdict};
use crate::series::{Place, TenantHash};
use std::sync::Arc;

mod accounts;
mod forgetting;
mod leaving;
mod progress;
mod shares;

const A: ReplicaId = ReplicaId(0);
const B: ReplicaId = ReplicaId(1);

/// A window, and what tests need to say in few words.
struct Story {
    window: Arc<Window>,
    group: u32,
}

impl Story {
    fn new(series_max: usize) -> Self {
        let window = Arc::new(Window::new(series_max));
        let group = window.meet_group(GroupKey(1), "e2e/k8s", TenantHash(0), 0).unwrap().number();
        for (i, name) in ["a", "b"].iter().enumerate() {
            assert_eq!(window.replica_number(group, name), Some(ReplicaId(i as u8)));
        }
        Self { window, group }
    }

    fn flight(&self) -> Flight {
        Flight::begin(&self.window, Log::default()).unwrap()
    }

    fn number(&self, series: u128) -> u32 {
        let mut found = Vec::new();
        self.window.locate(&[SeriesKey(series)], &[], &mut found);
        found[0].number
    }

    /// Decides a sample of a series (of target 1), adding it where it is unknown.
    fn try_decide(&self, flight: &mut Flight, series: u128, replica: ReplicaId, second: i64) -> Decision {
        self.try_decide_kind(flight, series, replica, second, None)
    }

    fn try_decide_kind(
        &self,
        flight: &mut Flight,
        series: u128,
        replica: ReplicaId,
        second: i64,
        histogram: Option<&[u8]>,
    ) -> Decision {
        let place = Place {
            group: GroupKey(1),
            group_name: "e2e/k8s".into(),
            target: TargetKey(1),
            tenant: TenantHash(0),
            is_up: false,
        };
        let key = SeriesKey(series);
        let mut number = self.number(series);
        if number == UNKNOWN {
            let Admitted::Entry(new) = flight.admit(key, &place, replica, self.group) else { panic!("full") };
            number = new;
        }
        let at = TimestampMs(second * 1000);
        let sample = Sample { replica, at, payload: second as u64, stale: false, up: None };
        let circumstances = Circumstances::default();
        flight
            .decide(Known { number, key, group: self.group, histogram }, &sample, circumstances, |_, _| false)
    }

    fn decide(&self, flight: &mut Flight, series: u128, replica: ReplicaId, second: i64) -> Verdict {
        match self.try_decide(flight, series, replica, second) {
            Decision::Decided { verdict, .. } => verdict,
            other => panic!("{other:?}"),
        }
    }

    /// Decides and commits: whether it went upstream.
    fn deliver(&self, series: u128, replica: ReplicaId, second: i64) -> bool {
        let mut flight = self.flight();
        let verdict = self.decide(&mut flight, series, replica, second);
        flight.commit();
        verdict.action == Action::Forward
    }

    fn owned(&self) -> Vec<i64> {
        self.window.groups().all()[0].replicas().iter().map(|r| r.owned()).collect()
    }
}

#[test]
fn a_pair_is_forwarded_once() {
    let story = Story::new(10);
    let went: Vec<_> = [(A, 0), (B, 6), (A, 15), (B, 21), (A, 30), (B, 36)]
        .map(|(replica, second)| story.deliver(9, replica, second))
        .into();
    assert_eq!(went, [true, false, true, false, true, false]);
    assert_eq!(story.owned(), [1, 0]);
    assert_eq!((story.window.series(), story.window.target_count()), (1, 1));
}

#[test]
fn a_rollback_restores_what_was_committed() {
    let story = Story::new(10);
    for (replica, second) in [(A, 0), (A, 15), (A, 30), (B, 36)] {
        story.deliver(9, replica, second);
    }
    let before = story.window.table.entry(story.number(9)).load();
    let mut flight = story.flight();
    assert_eq!(story.decide(&mut flight, 9, A, 45).action, Action::Forward);
    assert_eq!(story.decide(&mut flight, 9, A, 60).action, Action::Forward);
    flight.roll_back(true);
    assert_eq!(story.window.table.entry(story.number(9)).load(), before);
    assert!(story.deliver(9, A, 45), "the retry is no duplicate");
}

#[test]
fn what_a_failed_flight_created_is_forgotten() {
    let story = Story::new(10);
    let mut flight = story.flight();
    story.decide(&mut flight, 9, A, 0);
    story.decide(&mut flight, 10, A, 0);
    assert!(flight.creates());
    flight.roll_back(false);
    assert_eq!((story.window.series(), story.window.target_count()), (0, 0));
    assert_eq!(story.number(9), UNKNOWN);
    assert!(story.deliver(9, B, 3), "nobody owns it: B is as good as A");
    assert_eq!(story.owned(), [0, 1]);
}

#[test]
fn a_dropped_flight_leaves_nothing_behind() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let flown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut flight = story.flight();
        story.decide(&mut flight, 9, A, 15);
        panic!("a bug");
    }));
    assert!(flown.is_err());
    assert!(story.deliver(9, A, 15));
}

#[test]
fn a_panic_in_a_decision_releases_its_series() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    story.deliver(9, A, 15);
    let known = Known { number: story.number(9), key: SeriesKey(9), group: story.group, histogram: None };
    let at = TimestampMs(90_000);
    let sample = Sample { replica: A, at, payload: 0, stale: false, up: None };
    let circumstances = Circumstances::default();
    for carried in [vec![], vec![10, 11]] {
        let flown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut flight = story.flight();
            for series in &carried {
                story.decide(&mut flight, *series, A, 0);
            }
            flight.decide(known, &sample, circumstances, |_, _| panic!("a bug"))
        }));
        assert!(flown.is_err());
        let mut next = story.flight();
        assert!(matches!(story.try_decide(&mut next, 9, A, 30), Decision::Decided { .. }), "{carried:?}");
        next.roll_back(true);
    }
    assert!(story.deliver(9, A, 30));
}

#[test]
fn a_duplicate_leans_on_a_reservation_and_all_else_waits_for_it() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    story.deliver(9, A, 15);
    let mut owner = story.flight();
    story.decide(&mut owner, 9, A, 30);
    let mut standby = story.flight();
    // It may still give way to a third, and what it reserved so would not have failed.
    assert!(matches!(story.try_decide(&mut standby, 9, B, 21), Decision::Busy(_)));
    owner.depart();
    assert!(matches!(story.try_decide(&mut standby, 9, B, 21), Decision::Leans(_)));
    assert!(matches!(story.try_decide(&mut standby, 9, B, 30), Decision::Leans(_)));
    let Decision::Busy(on) = story.try_decide(&mut standby, 9, B, 36) else { panic!("must wait") };
    let Decision::Busy(again) = story.try_decide(&mut standby, 9, A, 45) else { panic!("must wait") };
    assert_eq!(on, again);
    owner.commit();
    assert_eq!(story.decide(&mut standby, 9, B, 36).action, Action::Duplicate);
    standby.commit();
}

#[test]
fn a_flight_that_got_no_answer_is_remembered_until_one_does() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    for answered in [true, false] {
        let mut flight = story.flight();
        story.decide(&mut flight, 9, A, 15);
        assert!(!flight.repeats());
        flight.roll_back(answered);
    }
    let mut flight = story.flight();
    story.decide(&mut flight, 9, A, 15);
    assert!(flight.repeats());
    flight.commit();
    let mut flight = story.flight();
    story.decide(&mut flight, 9, A, 30);
    assert!(!flight.repeats());
}

#[test]
fn a_takeover_moves_the_target_and_a_failed_one_gives_it_back() {
    let story = Story::new(10);
    for second in [0, 15, 30] {
        story.deliver(9, A, second);
    }
    let mut flight = story.flight();
    let verdict = story.decide(&mut flight, 9, B, 75);
    assert_eq!((verdict.action, verdict.moved), (Action::Forward, true));
    assert!(flight.takes_over());
    flight.roll_back(true);
    assert_eq!(story.owned(), [1, 0]);
    let target = |story: &Story| story.window.targets.owner(TargetKey(1)).unwrap().0;
    assert_eq!(target(&story), A);
    assert!(story.deliver(9, B, 75));
    assert_eq!((story.owned(), target(&story)), (vec![0, 1], B));
}

#[test]
fn idle_entries_are_forgotten_and_others_are_not() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    story.deliver(10, A, 0);
    let mut flight = story.flight();
    story.decide(&mut flight, 10, A, 15);
    for _ in 0..IDLE_TICKS - 1 {
        story.window.advance_tick();
    }
    assert_eq!(story.window.sweep(0, 100), 0);
    assert_eq!(story.window.series(), 2);
    story.window.advance_tick();
    story.window.sweep(0, 100);
    assert_eq!((story.window.series(), story.window.evictions()), (1, 1), "what is in the air stays");
    assert_eq!(story.owned(), [1, 0]);
    flight.commit();
    assert!(!story.deliver(10, A, 15));
}

#[test]
fn many_threads_lose_and_double_nothing() {
    let story = Story::new(1_000);
    const SERIES: u128 = 40;
    const ROUNDS: i64 = 300;
    let forwarded: Vec<Vec<(u128, i64)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let story = &story;
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for second in 0..ROUNDS {
                        for series in 0..SERIES {
                            let mut flight = story.flight();
                            let spread = series << 120 | series;
                            let decided = story.try_decide(&mut flight, spread, A, second);
                            let Decision::Decided { verdict, .. } = decided else { continue };
                            // Every seventh flight fails, and is not tried again by this thread.
                            if (second + worker) % 7 == 0 {
                                flight.roll_back(true);
                            } else {
                                if verdict.action == Action::Forward {
                                    mine.push((series, second));
                                }
                                flight.commit();
                            }
                        }
                    }
                    mine
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let mut all: Vec<_> = forwarded.into_iter().flatten().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "a sample was committed twice");
    for series in 0..SERIES {
        let last = all.iter().filter(|(s, _)| *s == series).map(|(_, t)| *t).max().unwrap();
        let entry = story.window.table.entry(story.number(series << 120 | series));
        assert_eq!(entry.guard().watermark(), Some(TimestampMs(last * 1000)));
        assert_eq!(entry.guard().flight(), 0, "nothing is claimed at the end");
    }
}

#[test]
fn histograms_are_held_beside_the_table() {
    let story = Story::new(10);
    let deliver = |replica, second: i64| {
        let mut flight = story.flight();
        let message = format!("histogram at {second}");
        let decided = story.try_decide_kind(&mut flight, 9, replica, second, Some(message.as_bytes()));
        let Decision::Decided { verdict, histograms, .. } = decided else { panic!("{decided:?}") };
        let fills: Vec<_> =
            verdict.fills.iter().flatten().map(|h| story.window.histogram(h.payload)).collect();
        assert!(fills.is_empty() || histograms);
        flight.commit();
        fills.into_iter().map(|f| String::from_utf8(f.unwrap().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let idle = story.window.bytes();
    for (replica, second) in [(A, 0), (B, 5), (A, 15), (B, 20), (B, 35)] {
        assert_eq!(deliver(replica, second), [""; 0]);
    }
    assert!(story.window.bytes() > idle);
    assert_eq!(deliver(B, 50), ["histogram at 35"]);
    deliver(A, 55);
    deliver(A, 70);
    // A float series from now on: nothing of the old kind stays.
    story.deliver(9, B, 65);
    story.deliver(9, A, 85);
    assert_eq!(story.window.histograms.bytes(), 0, "what is no longer held is let go");
}

#[test]
fn a_held_histogram_outlives_a_failed_takeover() {
    let story = Story::new(10);
    let decide = |replica, second, well| {
        let mut flight = story.flight();
        let decided = story.try_decide_kind(&mut flight, 9, replica, second, Some(b"h"));
        let Decision::Decided { verdict, .. } = decided else { panic!("{decided:?}") };
        let fills: Vec<_> =
            verdict.fills.iter().flatten().map(|h| story.window.histogram(h.payload)).collect();
        if well {
            flight.commit()
        } else {
            flight.roll_back(true)
        };
        fills
    };
    for (replica, second) in [(A, 0), (B, 5), (A, 15), (B, 20), (B, 35)] {
        decide(replica, second, true);
    }
    for well in [false, false, true] {
        assert_eq!(decide(B, 50, well), [Some(b"h".as_slice().into())]);
    }
    assert_eq!(story.window.histograms.bytes(), 0);
}
