//! One entry under two claimants and a reader.
//!
//! The series of a claim's holder is written so that each of its fields follows from the watermark: a claimant that sees
//! words of two of them at once finds them at odds. Refuses to know flights: numbers stand for them.

use super::super::entry::{Entry, Marks, NOBODY, Unpacked};
use super::*;
use crate::policy::{Held, Series};

fn series(second: i64) -> Unpacked {
    let at = |second| TimestampMs(second * 1000);
    let series = Series {
        watermark: Some(at(second)),
        interval: second,
        other: Some((at(second - 1), B)),
        held: [Some(Held { at: at(second + 1), payload: second as u64 }), None],
        ..Series::new(A)
    };
    Unpacked { series, target: second as u32, marks: Marks::default() }
}

/// Claims, takes it 10 s on, and commits or puts it back. `None`: another one has it.
fn fly(entry: &Entry, flight: u16, commits: bool, alone: &Alone) -> Option<i64> {
    let claimed = entry.claim(flight);
    if let Err(guard) = claimed {
        assert_ne!(guard.flight(), flight);
        return None;
    }
    alone.enter();
    let found = entry.load();
    let second = found.series.watermark.unwrap().0 / 1000;
    assert_eq!(found, series(second), "words of two claimants");
    let image = entry.image();
    entry.store(&series(second + 10), 0, flight);
    assert_eq!(entry.guard().flight(), flight);
    alone.leave();
    if commits {
        entry.commit()
    } else {
        entry.restore(&image)
    }
    Some(second)
}

#[test]
fn one_of_two_claims_wins_and_finds_what_the_last_one_left() {
    for second_commits in [true, false] {
        let outcomes = ["one after the other", "one was refused"];
        check(3, &outcomes, move |seen| {
            let entry = Arc::new(Entry::free());
            entry.occupy(SeriesKey(9), &series(10), 0, NOBODY);
            let alone = Arc::new(Alone::default());
            let other = {
                let (entry, alone) = (Arc::clone(&entry), Arc::clone(&alone));
                spawn(move || fly(&entry, 2, second_commits, &alone))
            };
            let mine = fly(&entry, 1, true, &alone);
            let other = other.join().unwrap();
            assert!(mine.is_some() || other.is_some(), "both were refused");
            seen.note(if mine.is_some() && other.is_some() { outcomes[0] } else { outcomes[1] });
            let commits = i64::from(mine.is_some()) + i64::from(other.is_some() && second_commits);
            assert_eq!(entry.guard().flight(), NOBODY);
            assert_eq!(entry.load(), series(10 + 10 * commits));
        });
    }
}

#[test]
fn a_committed_watermark_never_falls_in_a_readers_eyes() {
    check(2, &["10", "20", "30", "reserved"], |seen| {
        let entry = Arc::new(Entry::free());
        entry.occupy(SeriesKey(9), &series(10), 0, NOBODY);
        let alone = Arc::new(Alone::default());
        let writers: Vec<JoinHandle<_>> = [(1, true), (2, false)]
            .map(|(flight, commits)| {
                let (entry, alone) = (Arc::clone(&entry), Arc::clone(&alone));
                spawn(move || {
                    fly(&entry, flight, commits, &alone);
                    if commits {
                        fly(&entry, flight, commits, &alone);
                    }
                })
            })
            .into();
        let mut newest = 10_000;
        for _ in 0..3 {
            let guard = entry.guard();
            let watermark = guard.watermark().unwrap().0;
            if guard.flight() == NOBODY {
                assert!(watermark >= newest, "{watermark} after {newest}");
                newest = watermark;
                seen.note((watermark / 1000).to_string());
            } else {
                seen.note("reserved");
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}
