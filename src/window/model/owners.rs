//! Targets: joined and left, moved and moved back, by two at once.
//!
//! Refuses to know series beyond their number.

use super::super::target::{Snapshot, Targets};
use super::*;
use crate::policy::Target;

const KEY: TargetKey = TargetKey(1);

#[test]
fn a_target_is_known_as_long_as_one_of_two_has_joined_it() {
    check(3, &["kept", "made anew"], |seen| {
        let targets = Arc::new(Targets::new(4));
        let stay = |targets: &Targets, who: ReplicaId| {
            let number = targets.join(KEY, 7, who);
            let (owner, _) = targets.owner(KEY).expect("who has joined it knows it");
            assert_eq!(targets.slot(number).group(), 7);
            targets.leave(number);
            owner
        };
        let other = {
            let targets = Arc::clone(&targets);
            spawn(move || stay(&targets, B))
        };
        let (mine, other) = (stay(&targets, A), other.join().unwrap());
        seen.note(if mine == other { "kept" } else { "made anew" });
        assert_eq!((targets.len(), targets.owner(KEY)), (0, None));
        // Its number is free once: the next two targets have two.
        let numbers = [targets.join(TargetKey(2), 0, A), targets.join(TargetKey(3), 0, A)];
        assert_ne!(numbers[0], numbers[1]);
    });
}

fn moved(before: &Snapshot, to: ReplicaId, seen: i64) -> Target {
    Target { owner: to, seen: Some(TimestampMs(seen)), ..before.target }
}

#[test]
fn of_two_moves_of_one_target_one_is_decided_again_and_one_undone() {
    check(2, &["undone", "overtaken"], |seen| {
        let targets = Arc::new(Targets::new(1));
        let number = targets.join(KEY, 0, A);
        let fences = {
            let targets = Arc::clone(&targets);
            spawn(move || {
                let slot = targets.slot(number);
                // The fence of whoever owns it then.
                for _ in 0..4 {
                    let before = slot.snapshot();
                    let fenced = Target { fenced: Some(before.target.owner), ..before.target };
                    if slot.keep(&before, &fenced).is_some() {
                        return before.target.owner;
                    }
                }
                panic!("decided again for ever")
            })
        };
        let slot = targets.slot(number);
        let before = slot.snapshot();
        let undo = slot.keep(&before, &moved(&before, B, 20));
        match undo {
            None => seen.note("overtaken"),
            Some(None) => panic!("a move has something to undo"),
            Some(Some(undo)) => drop(slot.undo(&undo, undo.after)),
        }
        let fenced = fences.join().unwrap();
        let now = slot.snapshot().target;
        assert_eq!(now.fenced, Some(fenced), "the fence was kept, and nothing undoes it");
        if fenced == A {
            assert_eq!(now.owner, A);
        }
        // Fenced after the move, before the undoing: this is how it stays.
        assert_eq!(now.owner, fenced);
        if undo.is_some() && fenced == A {
            seen.note("undone");
        }
    });
}

#[test]
fn the_newest_time_that_an_owner_has_shown_never_falls() {
    check(3, &[], |_| {
        let targets = Arc::new(Targets::new(1));
        let number = targets.join(KEY, 0, A);
        let shows = move |targets: &Targets, time: i64| {
            let slot = targets.slot(number);
            let before = slot.snapshot();
            slot.keep(&before, &moved(&before, A, time)).expect("it only shows a time");
            slot.snapshot().target.seen.unwrap().0
        };
        let other = {
            let targets = Arc::clone(&targets);
            spawn(move || shows(&targets, 20))
        };
        let mine = shows(&targets, 30);
        assert!(mine >= 30 && other.join().unwrap() >= 20);
        assert_eq!(targets.slot(number).snapshot().target.seen, Some(TimestampMs(30)));
    });
}

#[test]
fn a_snapshot_of_a_moved_target_has_what_its_new_owner_has_shown() {
    check(3, &["before", "after"], |seen| {
        let targets = Arc::new(Targets::new(1));
        let number = targets.join(KEY, 0, A);
        let reader = {
            let targets = Arc::clone(&targets);
            spawn(move || targets.slot(number).snapshot().target)
        };
        let slot = targets.slot(number);
        let before = slot.snapshot();
        assert!(slot.keep(&before, &moved(&before, B, 20)).is_some());
        let found = reader.join().unwrap();
        seen.note(if found.owner == A { "before" } else { "after" });
        assert!(found.owner == A || found.seen == Some(TimestampMs(20)), "{found:?}");
    });
}

#[test]
fn group_and_replica_have_one_number_whoever_comes_first() {
    check(3, &[], |_| {
        let window = Arc::new(Window::new(1));
        let arrive = |window: &Window| {
            let group = window.meet_group(GroupKey(1), "k8s", TenantHash(0), 0).unwrap().number();
            (group, window.replica_number(group, "a").unwrap())
        };
        let other = {
            let window = Arc::clone(&window);
            spawn(move || arrive(&window))
        };
        assert_eq!(arrive(&window), (0, A));
        assert_eq!(other.join().unwrap(), (0, A));
        assert_eq!(window.groups().all().len(), 1);
    });
}
