//! Series that are forgotten while a flight comes for them, and their numbers used again.
//!
//! Refuses to wait for ticks: the clock of idle entries is put forward by hand.

use super::*;

fn idle(story: &Story) {
    for _ in 0..IDLE_TICKS {
        story.window.advance_tick();
    }
}

#[test]
fn sweeping_forgets_no_series_that_a_flight_has() {
    for commits in [true, false] {
        check(2, &["forgotten", "kept"], move |seen| {
            let story = Story::with_a_series(2);
            idle(&story);
            let sweeper = {
                let story = story.clone();
                spawn(move || story.window.sweep(0, 10))
            };
            let mut flight = story.flight();
            let decision = story.decide_at(&mut flight, 0, 9, A, 15);
            match decision {
                Decision::Gone => {
                    flight.roll_back(true);
                }
                _ => {
                    assert!(decision.forwarded(), "{decision:?}");
                    let guard = story.window.table.entry(0).guard();
                    assert_eq!(
                        (guard.flight(), guard.watermark()),
                        (flight.id.slot, Some(TimestampMs(15_000)))
                    );
                    flight.depart();
                    if commits {
                        flight.commit()
                    } else {
                        flight.roll_back(true)
                    };
                }
            }
            assert_eq!(sweeper.join().unwrap(), 0);
            // The sweeper may have had the claim when the flight came, and given it back: Gone, and kept.
            seen.note(if story.rest(9).is_some() { "kept" } else { "forgotten" });
            let sent = decision.forwarded() && commits;
            match story.rest(9) {
                None => assert!(!sent, "what was committed is forgotten although it was just touched"),
                Some((watermark, _)) => assert_eq!(watermark, if sent { 15 } else { 0 }),
            }
            let left = story.window.series();
            assert_eq!(
                (left, story.window.target_count() as u64),
                (usize::from(story.rest(9).is_some()), left as u64)
            );
            assert_eq!(story.window.evictions(), 1 - left as u64);
        });
    }
}

#[test]
fn a_number_used_again_is_gone_to_who_comes_for_the_series_before() {
    let outcomes = ["busy", "decided", "gone"];
    check(2, &outcomes, |seen| {
        let story = Story::with_a_series(2);
        idle(&story);
        let reuser = {
            let story = story.clone();
            spawn(move || {
                story.window.sweep(0, 10);
                let mut flight = story.flight();
                let number = story.admit(&mut flight, 8, A);
                assert!(story.decide_at(&mut flight, number, 8, A, 100).forwarded());
                flight.depart();
                flight.commit();
                number
            })
        };
        // Long ago located, and a duplicate of nothing that series 9 has had.
        let mut flight = story.flight();
        let decision = story.decide_at(&mut flight, 0, 9, A, 15);
        match decision {
            Decision::Gone => seen.note("gone"),
            Decision::Busy(_) => seen.note("busy"),
            Decision::Leans(on) => panic!("leans on {on:?}, which carries another series"),
            other => {
                assert!(other.forwarded(), "{other:?}");
                seen.note("decided");
            }
        }
        flight.commit();
        let number = reuser.join().unwrap();
        assert_eq!(story.rest(8), Some((100, vec![])));
        assert_eq!(number, u32::from(decision.forwarded()), "number 0 is used again if 9 was forgotten");
        assert_eq!(story.rest(9), decision.forwarded().then(|| (15, vec![])));
    });
}

/// Whoever holds a group may give it a series. Whoever does not finds out that the number is another group's.
#[test]
fn no_number_of_a_group_is_given_back_under_who_bears_a_series_of_it() {
    check(2, &["its first number", "another's first number"], |seen| {
        let story = Story::new(2);
        let giver = {
            let story = story.clone();
            spawn(move || {
                story.window.give_groups_back(0, 10, i64::MAX);
                let other = story.window.meet_group(GroupKey(2), "other", TenantHash(0), 0).unwrap();
                other.number()
            })
        };
        let group = story.window.meet_group(GroupKey(1), "k8s", TenantHash(0), 0).unwrap();
        let replica = group.replica_number("a").unwrap();
        let number = group.number();
        let bearer = Story { window: Arc::clone(&story.window), group: number };
        let mut flight = bearer.flight();
        assert!(bearer.decide(&mut flight, 9, replica, 0).forwarded());
        flight.commit();
        drop(group);
        let other = giver.join().unwrap();
        assert_ne!(number, other);
        seen.note(if number == 0 { "its first number" } else { "another's first number" });
        // With a series it stays, and the other one, without any, does not.
        story.window.give_groups_back(0, 10, i64::MAX);
        let held = story.window.hold_group_of(story.find(9), SeriesKey(9)).expect("its group");
        assert_eq!((held.key(), held.number()), (GroupKey(1), number));
        assert!(story.window.groups().group(other).is_none());
    });
}
