//! Series that are born by two at once.
//!
//! Refuses to know what goes on with a known series: see `flights.rs`.

use super::*;

/// Delivers a series' first sample until it is decided: whether it was forwarded.
fn deliver(story: &Story, seen: &Seen, replica: ReplicaId, second: i64, commits: bool) -> bool {
    for _ in 0..4 {
        let mut flight = story.flight();
        let decision = story.decide(&mut flight, 9, replica, second);
        match decision {
            Decision::Decided { .. } => {
                flight.depart();
                if commits {
                    flight.commit()
                } else {
                    flight.roll_back(true)
                };
                return decision.forwarded();
            }
            Decision::Leans(on) | Decision::Busy(on) => {
                flight.roll_back(true);
                seen.note("waited");
                block_on(story.window.ended(on));
            }
            Decision::Gone => {
                flight.roll_back(true);
                seen.note("gone meanwhile");
            }
            Decision::Unheld => panic!("no histogram"),
        }
    }
    panic!("it waits for ever")
}

#[test]
fn a_series_that_two_bring_at_once_has_one_entry_and_one_target() {
    check(1, &["waited"], |seen| {
        let story = Story::new(2);
        let other = {
            let (story, seen) = (story.clone(), seen.clone());
            spawn(move || deliver(&story, &seen, B, 15, true))
        };
        let mine = deliver(&story, seen, A, 15, true);
        assert!(mine ^ other.join().unwrap(), "one goes upstream, the other is its duplicate");
        assert_eq!((story.window.series(), story.window.target_count()), (1, 1));
        assert_eq!(story.rest(9), Some((15, vec![])));
        let owned: Vec<_> =
            story.window.groups().all()[0].replicas().iter().map(|replica| replica.owned()).collect();
        // Who brought its target, though the other one's sample may have been the first.
        let owner = story.window.table.entry(story.find(9)).owner();
        assert_eq!(owned, if owner == A { [1, 0] } else { [0, 1] });
    });
}

#[test]
fn a_birth_that_fails_leaves_the_series_to_the_other() {
    check(1, &["gone meanwhile", "waited"], |seen| {
        let story = Story::new(2);
        let other = {
            let (story, seen) = (story.clone(), seen.clone());
            spawn(move || deliver(&story, &seen, B, 15, true))
        };
        let _failed = deliver(&story, seen, A, 15, false);
        let _sent = other.join().unwrap();
        assert_eq!((story.window.series(), story.window.target_count()), (1, 1));
        assert_eq!(story.rest(9), Some((15, vec![])));
    });
}
