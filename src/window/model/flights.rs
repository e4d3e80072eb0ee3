//! Two flights with one known series: reserve, lean, wait, commit, roll back.
//!
//! Refuses to add and to forget series: see `admission.rs` and `reuse.rs`.

use super::*;
use std::collections::HashMap;

/// How each flight ended, as its own thread knows it.
#[derive(Clone, Default)]
struct Ends(Arc<Unseen<HashMap<FlightId, bool>>>);

impl Ends {
    /// Carries a sample of A's: whether it was forwarded and committed, or which other flight has the series.
    fn carry(&self, story: &Story, second: i64, commits: bool, alone: &Alone) -> Result<bool, FlightId> {
        let mut flight = story.flight();
        let id = flight.id;
        match story.decide(&mut flight, 9, A, second) {
            decision if decision.forwarded() => {
                alone.enter();
                self.departs(story, id, commits);
                flight.depart();
                alone.leave();
                if commits {
                    flight.commit()
                } else {
                    flight.roll_back(true)
                };
                Ok(commits)
            }
            Decision::Decided { .. } => {
                flight.commit();
                Ok(false)
            }
            Decision::Busy(other) | Decision::Leans(other) => {
                flight.roll_back(true);
                Err(other)
            }
            other => panic!("{other:?}"),
        }
    }

    /// How a flight is going to end, known once it may be leant on, and not before: there is a step before it that loom sees, and none
    /// from here to the departure.
    fn departs(&self, story: &Story, flight: FlightId, well: bool) {
        story.window.table.entry(0).guard();
        self.0.lock().unwrap().insert(flight, well);
    }

    fn of(&self, flight: FlightId) -> Option<bool> {
        self.0.lock().unwrap().get(&flight).copied()
    }
}

#[test]
fn of_two_flights_one_reserves_and_the_other_is_told_whom_to_wait_for() {
    for other_commits in [true, false] {
        check(2, &["both", "mine", "the other's"], move |seen| {
            let (story, ends, alone) = (Story::with_a_series(2), Ends::default(), Arc::new(Alone::default()));
            let other = {
                let (story, ends, alone) = (story.clone(), ends.clone(), Arc::clone(&alone));
                spawn(move || ends.carry(&story, 15, other_commits, &alone))
            };
            let mine = ends.carry(&story, 15, true, &alone);
            let other = other.join().unwrap();
            seen.note(match (mine, other) {
                (Ok(_), Ok(_)) => "both",
                (Ok(_), Err(_)) => "mine",
                (Err(_), Ok(_)) => "the other's",
                (Err(_), Err(_)) => panic!("each was told to wait for the other"),
            });
            let sent = [mine, other].into_iter().filter(|well| *well == Ok(true)).count();
            assert!(sent <= 1, "one sample went twice");
            assert_eq!(story.rest(9), Some((if sent == 1 { 15 } else { 0 }, vec![])));
        });
    }
}

/// Delivers a sample of B's, waiting for whoever has the series, until it may be acknowledged (`true`) or refused.
fn deliver(story: &Story, ends: &Ends, seen: &Seen, second: i64) -> bool {
    for _ in 0..4 {
        let mut flight = story.flight();
        let decision = story.decide(&mut flight, 9, B, second);
        match decision {
            Decision::Decided { .. } => {
                assert!(!decision.forwarded(), "B owns nothing");
                flight.commit();
                seen.note("decided");
                return true;
            }
            Decision::Leans(on) => {
                assert!(ends.of(on).is_some(), "leans on one that may still give up");
                // As the pipeline does: what it has is settled, then it waits.
                flight.commit();
                let well = block_on(story.window.ended(on));
                assert_eq!(ends.of(on), Some(well), "another flight's outcome");
                seen.note(if well { "leant well" } else { "leant in vain" });
                return well;
            }
            Decision::Busy(on) => {
                flight.roll_back(true);
                block_on(story.window.ended(on));
                seen.note("waited");
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it waits for ever")
}

#[test]
fn a_duplicate_is_acknowledged_only_if_what_it_leans_on_went_well() {
    for (commits, outcomes) in
        [(true, ["decided", "leant well", "waited"]), (false, ["decided", "leant in vain", "waited"])]
    {
        check(2, &outcomes, move |seen| {
            let (story, ends, alone) = (Story::with_a_series(2), Ends::default(), Alone::default());
            let duplicate = {
                let (story, ends, seen) = (story.clone(), ends.clone(), seen.clone());
                spawn(move || deliver(&story, &ends, &seen, 15))
            };
            // The duplicate may have the series for a moment, to hold its sample there.
            let carried = ends.carry(&story, 15, commits, &alone).or_else(|other| {
                block_on(story.window.ended(other));
                ends.carry(&story, 15, commits, &alone)
            });
            let acknowledged = duplicate.join().unwrap();
            let carried = carried.expect("the duplicate does not keep the series");
            let (watermark, held) = story.rest(9).unwrap();
            assert_eq!(watermark, if carried { 15 } else { 0 });
            if acknowledged {
                assert!(watermark >= 15 || held == [15], "acknowledged, neither sent nor held");
            }
        });
    }
}

#[test]
fn a_third_learns_the_end_of_the_flight_it_met_though_the_next_has_its_number() {
    let outcomes = ["decided", "leant in vain", "leant well", "waited"];
    check(1, &outcomes, |seen| {
        let (story, ends, alone) = (Story::with_a_series(2), Ends::default(), Alone::default());
        let third = {
            let (story, ends, seen) = (story.clone(), ends.clone(), seen.clone());
            spawn(move || deliver(&story, &ends, &seen, 15))
        };
        // The first fails and the second, a retry, goes well; where the third had the series for a moment, one is left out.
        let _ = ends.carry(&story, 15, false, &alone);
        let carried = ends.carry(&story, 15, true, &alone);
        let acknowledged = third.join().unwrap();
        let (watermark, held) = story.rest(9).unwrap();
        assert_eq!(watermark, if carried == Ok(true) { 15 } else { 0 });
        assert!(!acknowledged || watermark == 15 || held == [15], "acknowledged, neither sent nor held");
    });
}

#[test]
fn the_end_of_another_series_flight_with_the_same_number_is_none_of_its() {
    check(2, &["decided", "leant in vain", "busy"], |seen| {
        let (story, ends, alone) = (Story::with_a_series(2), Ends::default(), Alone::default());
        let third = {
            let (story, seen) = (story.clone(), seen.clone());
            spawn(move || {
                let mut flight = story.flight();
                let decision = story.decide(&mut flight, 9, B, 15);
                flight.commit();
                let (outcome, acknowledged) = match decision {
                    Decision::Decided { .. } => ("decided", true),
                    Decision::Leans(on) if block_on(story.window.ended(on)) => ("leant well", true),
                    Decision::Leans(_) => ("leant in vain", false),
                    Decision::Busy(_) => ("busy", false),
                    other => panic!("{other:?}"),
                };
                seen.note(outcome);
                acknowledged
            })
        };
        let _ = ends.carry(&story, 15, false, &alone);
        let mut next = story.flight();
        assert!(story.decide(&mut next, 10, A, 15).forwarded());
        next.depart();
        next.commit();
        let acknowledged = third.join().unwrap();
        let (watermark, held) = story.rest(9).unwrap();
        assert!(watermark == 0 && (!acknowledged || held == [15]), "acknowledged, neither sent nor held");
    });
}

#[test]
fn a_rollback_restores_watermark_and_held_samples_while_others_look() {
    check(1, &["0", "held before", "held later", "reserved", "waited", "decided"], |seen| {
        let (story, ends, alone) = (Story::with_a_series(2), Ends::default(), Alone::default());
        let standby = {
            let (story, ends, seen) = (story.clone(), ends.clone(), seen.clone());
            spawn(move || assert!(deliver(&story, &ends, &seen, 20), "nothing to lean on"))
        };
        let reader = {
            let (story, seen) = (story.clone(), seen.clone());
            spawn(move || {
                let guard = story.window.table.entry(0).guard();
                match guard.flight() {
                    entry::NOBODY => seen.note((guard.watermark().unwrap().0 / 1000).to_string()),
                    _ => seen.note("reserved"),
                }
            })
        };
        let mut flight = story.flight();
        let decision = story.decide(&mut flight, 9, A, 15);
        if decision.forwarded() {
            alone.enter();
            ends.departs(&story, flight.id, false);
            flight.depart();
            seen.note(match story.window.table.entry(0).load().series.held[0] {
                Some(_) => "held before",
                None => "held later",
            });
            alone.leave();
        }
        flight.roll_back(true);
        standby.join().unwrap();
        reader.join().unwrap();
        assert_eq!(
            story.rest(9),
            Some((0, vec![20])),
            "the standby's sample was acknowledged, so it is held"
        );
        let kept = story.window.table.entry(0).load();
        assert_eq!((kept.series.owner, kept.marks.unanswered), (A, false));
    });
}

/// The owner's sample and a standby's beside it, both in few words.
#[test]
fn a_run_leans_on_the_flight_that_has_the_series_or_leaves_it_to_a_closer_look() {
    for (commits, leant) in [(true, "leant well"), (false, "leant in vain")] {
        check(2, &["carried", "decided", leant, "the owner's is unclear", "unclear"], move |seen| {
            let (story, ends) = (Story::with_a_series(2), Ends::default());
            let mut flight = story.flight();
            assert!(story.decide(&mut flight, 9, A, 15).forwarded(), "its interval is known");
            flight.commit();
            let number = story.find(9);
            let known = Known { number, key: SeriesKey(9), group: story.group, histogram: None };
            let at = TimestampMs(30_000);
            let standby = {
                let (story, ends, seen) = (story.clone(), ends.clone(), seen.clone());
                spawn(move || {
                    let mut flight = story.flight();
                    let steady = flight.run().decide(&known, B, at, 30, 0);
                    flight.commit();
                    match steady {
                        Steady::Duplicate => seen.note("decided"),
                        Steady::Leans(on) => {
                            assert!(ends.of(on).is_some(), "leans on one that may still give up");
                            let well = block_on(story.window.ended(on));
                            assert_eq!(ends.of(on), Some(well), "another flight's outcome");
                            seen.note(if well { "leant well" } else { "leant in vain" });
                        }
                        Steady::Unclear => seen.note("unclear"),
                        Steady::Forward => panic!("B owns nothing"),
                    }
                    steady == Steady::Duplicate
                })
            };
            let mut flight = story.flight();
            let steady = flight.run().decide(&known, A, at, 30, 0);
            let carried = match steady {
                Steady::Forward => {
                    ends.departs(&story, flight.id, commits);
                    flight.depart();
                    seen.note("carried");
                    commits
                }
                Steady::Unclear => {
                    seen.note("the owner's is unclear");
                    false
                }
                other => panic!("{other:?}"),
            };
            if carried {
                flight.commit()
            } else {
                flight.roll_back(true)
            };
            let acknowledged = standby.join().unwrap();
            let (watermark, held) = story.rest(9).unwrap();
            assert_eq!(watermark, if carried { 30 } else { 15 });
            assert!(!acknowledged || carried || held == [30], "acknowledged, neither sent nor held");
        });
    }
}
