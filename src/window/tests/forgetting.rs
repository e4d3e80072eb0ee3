//! What is forgotten: idle entries, and numbers of entries that are another series' by now.

use super::*;

impl Story {
    /// Forgets all that is not in the air.
    fn forget_all(&self) {
        for _ in 0..IDLE_TICKS {
            self.window.advance_tick();
        }
        self.window.sweep(0, u32::MAX);
    }

    /// A sample of a series whose number was found some time ago.
    fn decide_known(&self, flight: &mut Flight, series: u128, number: u32) -> Decision {
        let known = Known { number, key: SeriesKey(series), group: self.group, histogram: None };
        let at = TimestampMs(60_000);
        let sample = Sample { replica: A, at, payload: 0, stale: false, up: None };
        let circumstances = Circumstances::default();
        flight.decide(known, &sample, circumstances, |_, _| false)
    }
}

/// Or a sample would be decided by the watermark of another series, and be lost.
#[test]
fn a_number_that_is_another_series_by_now_is_noticed() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let number = story.number(9);
    story.forget_all();
    story.deliver(10, A, 0);
    assert_eq!(story.number(10), number);
    let mut flight = story.flight();
    assert_eq!(story.decide_known(&mut flight, 9, number), Decision::Gone);
    assert!(story.deliver(10, A, 15), "the other series is not kept claimed");
    flight.commit();
    // Also while this flight carries the other series.
    let mut flight = story.flight();
    story.decide(&mut flight, 10, A, 30);
    assert_eq!(story.decide_known(&mut flight, 9, number), Decision::Gone);
    let mut another = story.flight();
    assert!(matches!(story.try_decide(&mut another, 10, A, 45), Decision::Busy(_)), "it is still carried");
    flight.commit();
    assert_eq!(story.decide(&mut another, 10, A, 45).action, Action::Forward);
    another.commit();
}

/// Or whoever found the series while that flight was in the air would wait for it for ever.
#[test]
fn what_a_failed_flight_made_is_gone_for_who_has_found_it() {
    let story = Story::new(10);
    let mut first = story.flight();
    story.decide(&mut first, 9, A, 0);
    let number = story.number(9);
    first.roll_back(true);
    let mut late = story.flight();
    assert_eq!(story.decide_known(&mut late, 9, number), Decision::Gone);
    late.commit();
}

/// A duplicate may lean on a watermark of its own series only.
#[test]
fn nothing_leans_on_the_flight_of_another_series() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let number = story.number(9);
    story.forget_all();
    story.deliver(10, A, 0);
    let mut flight = story.flight();
    story.decide(&mut flight, 10, A, 90);
    flight.depart();
    let mut late = story.flight();
    assert!(matches!(story.decide_known(&mut late, 9, number), Decision::Busy(_)));
    flight.commit();
    assert_eq!(story.decide_known(&mut late, 9, number), Decision::Gone);
    late.commit();
}

#[test]
fn the_table_is_swept_a_piece_at_a_time() {
    let story = Story::new(10);
    for series in 1..=5 {
        story.deliver(series, A, 0);
    }
    for _ in 0..IDLE_TICKS {
        story.window.advance_tick();
    }
    assert_eq!((story.window.sweep(0, 2), story.window.series()), (2, 3));
    assert_eq!((story.window.sweep(2, 2), story.window.series()), (4, 1));
    assert_eq!((story.window.sweep(4, 2), story.window.series()), (0, 0), "from the beginning again");
    assert_eq!((story.window.evictions(), story.window.target_count()), (5, 0));
    assert_eq!(story.owned(), [0, 0]);
}

/// The histograms of a series that is forgotten would stay for ever.
#[test]
fn a_forgotten_series_lets_go_what_was_held_of_it() {
    let story = Story::new(10);
    for (replica, second) in [(A, 0), (B, 6), (B, 21)] {
        let mut flight = story.flight();
        story.try_decide_kind(&mut flight, 9, replica, second, Some(b"histogram"));
        flight.commit();
    }
    assert!(story.window.histograms.bytes() > 0);
    story.forget_all();
    assert_eq!(story.window.histograms.bytes(), 0);
}

/// While upstream is away nothing is forgotten: what waits behind the requests that come again is not gone.
#[test]
fn time_passes_only_while_something_lands() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    story.deliver(11, A, 0);
    story.window.advance_tick_if_landed();
    for _ in 0..3 * usize::from(IDLE_TICKS) {
        let mut flight = story.flight();
        story.decide(&mut flight, 10, A, 15);
        flight.roll_back(true);
        // A standby that is answered without upstream.
        let mut flight = story.flight();
        assert_eq!(story.decide(&mut flight, 11, B, 0).action, Action::Duplicate);
        flight.commit();
        story.window.advance_tick_if_landed();
    }
    story.window.sweep(0, u32::MAX);
    assert_eq!(story.window.series(), 2, "upstream was away");
    for second in 1..IDLE_TICKS.into() {
        story.deliver(10, A, second);
        story.window.advance_tick_if_landed();
        story.window.advance_tick_if_landed();
    }
    story.window.sweep(0, u32::MAX);
    assert_eq!((story.number(9), story.window.series()), (UNKNOWN, 2), "it works, and 9 is idle");
}

/// Of what a flight that failed carried somebody is alive, whatever else is put back.
#[test]
fn a_flight_that_failed_was_a_sign_of_life() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    story.deliver(10, A, 0);
    for _ in 0..IDLE_TICKS {
        story.window.advance_tick();
    }
    for answered in [true, false] {
        let mut flight = story.flight();
        assert_eq!(story.decide(&mut flight, 9, A, 15).action, Action::Forward);
        flight.roll_back(answered);
    }
    story.window.sweep(0, u32::MAX);
    assert_eq!((story.number(10), story.window.series()), (UNKNOWN, 1));
    assert!(story.deliver(9, A, 15), "all but the tick is as it was");
}

impl Story {
    /// The next float of a known series, decided in few words if it can be.
    fn step(
        &self,
        flight: &mut Flight,
        series: u128,
        number: u32,
        replica: ReplicaId,
        second: i64,
    ) -> Steady {
        let known = Known { number, key: SeriesKey(series), group: self.group, histogram: None };
        flight.run().decide(&known, replica, TimestampMs(second * 1000), 1, 0)
    }
}

/// The same where few words decide.
#[test]
fn a_number_that_is_another_series_by_now_is_noticed_in_few_words() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let number = story.number(9);
    story.forget_all();
    [0, 15, 30].iter().for_each(|second| assert!(story.deliver(10, A, *second)));
    assert_eq!(story.number(10), number);
    let mut flight = story.flight();
    assert_eq!(story.step(&mut flight, 9, number, A, 45), Steady::Unclear);
    assert_eq!(story.step(&mut flight, 10, number, A, 45), Steady::Forward, "the other series goes on");
    flight.commit();
}

/// The sweep has it in hands, and its watermark still stands.
#[test]
fn a_series_that_is_about_to_be_forgotten_is_looked_at_more_closely() {
    let story = Story::new(10);
    [0, 15, 30].iter().for_each(|second| assert!(story.deliver(9, A, *second)));
    let number = story.number(9);
    assert!(story.window.table.entry(number).claim_for_table());
    let mut flight = story.flight();
    for (replica, second) in [(A, 45), (A, 30), (B, 30)] {
        assert_eq!(story.step(&mut flight, 9, number, replica, second), Steady::Unclear);
    }
    story.window.table.entry(number).release();
    assert_eq!(story.step(&mut flight, 9, number, A, 45), Steady::Forward);
    flight.commit();
}

/// Or a window whose requests all go the short way would forget nothing ever, or all of it while upstream is away.
#[test]
fn what_goes_out_in_few_words_has_landed_and_duplicates_have_not() {
    let story = Story::new(10);
    for (replica, second) in [(A, 0), (A, 15), (A, 30), (B, 36)] {
        story.deliver(9, replica, second);
    }
    let number = story.number(9);
    let ticks = |replica, second, steady| {
        story.window.advance_tick_if_landed();
        let before = story.window.tick.load(Relaxed);
        let mut flight = story.flight();
        assert_eq!(story.step(&mut flight, 9, number, replica, second), steady);
        flight.commit();
        story.window.advance_tick_if_landed();
        story.window.tick.load(Relaxed).wrapping_sub(before)
    };
    let (own, other) = (Steady::Forward, Steady::Duplicate);
    assert_eq!((ticks(A, 45, own), ticks(B, 45, other), ticks(A, 60, own)), (1, 0, 1));
}

/// Between a look for a series and one for its group the entry may have become another series'.
#[test]
fn the_group_of_an_entry_is_held_for_its_series_alone() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let held = |series| story.window.hold_group_of(story.number(9), SeriesKey(series));
    assert_eq!(held(9).map(|group| group.number()), Some(story.group));
    assert!(held(10).is_none());
}
