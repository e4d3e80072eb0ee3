//! What the window tells of itself and of its flights.

use super::super::entry::{Entry, Glance, Marks, NOBODY, Unpacked};
use super::*;
use crate::policy::Series;

#[test]
fn memory_is_that_of_series_targets_and_held_histograms() {
    let story = Story::new(10);
    let empty = story.window.bytes();
    assert!(empty < 64 << 10, "{empty} bytes before any series came");
    story.deliver(9, A, 0);
    let one = story.window.bytes();
    // A quarter of a MiB of series and as much of targets.
    assert!((520_000..560_000).contains(&(one - empty)), "{one}");
    story.deliver(10, A, 0);
    assert_eq!(story.window.bytes(), one, "there is room in what is allocated");
    let message = [7; 1_000];
    let mut flight = story.flight();
    story.try_decide_kind(&mut flight, 9, B, 6, Some(&message));
    flight.commit();
    assert!((1_000..1_100).contains(&(story.window.bytes() - one)), "a histogram is held");
}

/// A 409 is taken for no loss only where upstream may have had the samples, so none of these may be claimed.
#[test]
fn a_flight_of_an_owner_that_goes_on_excuses_nothing() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let mut flight = story.flight();
    assert_eq!(story.decide(&mut flight, 9, A, 15).action, Action::Forward);
    assert_eq!((flight.repeats(), flight.takes_over(), flight.creates()), (false, false, false));
    flight.commit();
}

/// Requests beyond the bound are told to come again, and the bound is as many as may be in the air.
#[test]
fn flights_are_bounded() {
    let story = Story::new(10);
    let flights: Vec<_> = (0..FLIGHTS_MAX).map(|_| story.flight()).collect();
    assert!(Flight::begin(&story.window, Log::default()).is_none());
    drop(flights);
    story.flight().commit();
}

/// Or health would tell of series that only one replica has, where there are none, or not where there are.
#[test]
fn the_census_counts_what_lives_by_small_steps_as_by_one() {
    let story = Story::new(100);
    for series in 1..=5 {
        for (replica, second) in [(A, 0), (A, 15), (A, 30)] {
            story.deliver(series, replica, second);
        }
    }
    story.deliver(1, B, 36);
    story.deliver(2, B, 36);
    let census = |step: u32| {
        let (mut census, mut from, mut steps) = (Census::default(), 0, 0);
        loop {
            from = story.window.count(from, step, &mut census);
            steps += 1;
            if from == 0 {
                return (steps, census.of(story.group).living, census.of(story.group).alone);
            }
        }
    };
    assert_eq!((census(2), census(u32::MAX)), ((3, 5, 3), (1, 5, 3)));
    story.window.advance_tick();
    story.deliver(1, A, 45);
    story.window.advance_tick();
    story.window.advance_tick();
    assert_eq!(census(2), (3, 1, 0), "the others were touched three ticks ago");
    story.window.advance_tick();
    assert_eq!(census(2), (3, 0, 0));
}

/// Or health would tell of series that one replica lacks where they have only begun, or have ended.
#[test]
fn only_what_lives_and_is_at_rest_is_counted() {
    let lives = Series { watermark: Some(TimestampMs(0)), interval: 15_000, ..Series::new(A) };
    let glance = |series, flight| {
        let entry = Entry::free();
        let unpacked = Unpacked { series, target: 9, marks: Marks::default() };
        entry.occupy(SeriesKey(1), &unpacked, 7, flight);
        entry.glance()
    };
    assert_eq!(glance(lives, NOBODY), Some(Glance { tick: 7, target: 9, alone: true }));
    let shown = Series { other: Some((TimestampMs(6_000), B)), ..lives };
    assert_eq!(glance(shown, NOBODY), Some(Glance { tick: 7, target: 9, alone: false }));
    let none = [
        Series { interval: 0, ..lives },
        Series { released: true, ..lives },
        Series { stale: true, ..lives },
    ];
    assert_eq!(none.map(|series| glance(series, NOBODY)), [None; 3]);
    assert_eq!(glance(lives, 3), None, "a flight has it");
}

/// The payload of a held float is no token: one of 0 would let go the first histogram that somebody holds.
#[test]
fn floats_that_are_let_go_take_no_histogram_along() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let mut flight = story.flight();
    story.try_decide_kind(&mut flight, 9, B, 6, Some(b"histogram"));
    flight.commit();
    assert!(story.window.histogram(0).is_some());
    for (replica, second) in [(A, -15), (B, 0), (A, 15)] {
        story.deliver(10, replica, second);
    }
    assert!(story.window.histogram(0).is_some());
}
