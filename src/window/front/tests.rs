//! Who waits for whom, by what was noted of each.

use super::*;

const A: ReplicaId = ReplicaId(0);
const B: ReplicaId = ReplicaId(1);
const T: fn(i64) -> TimestampMs = |seconds| TimestampMs(seconds * 1000);

#[test]
fn a_jump_waits_for_another_ones_backlog_only() {
    let mut fronts = Fronts::default();
    fronts.note(A, T(0), true, 1_000_000);
    assert_eq!(fronts.oldest_other(A, 1_000_000), None, "nobody waits for itself");
    let oldest = fronts.oldest_other(B, 1_000_000);
    assert_eq!(oldest, Some(T(0)));
    for (to, interval, wait) in [(60, 0, false), (61, 0, true), (61, 15_000, true), (61, 31_000, false)] {
        assert_eq!(waits(oldest, T(to), interval), wait, "to {to} s by {interval} ms");
    }
}

#[test]
fn a_front_is_the_oldest_of_the_last_half_minute() {
    let mut fronts = Fronts::default();
    fronts.note(A, T(100), true, 0);
    fronts.note(A, T(500), true, 20_000);
    assert_eq!(fronts.oldest_other(B, 30_000), Some(T(100)));
    assert_eq!(fronts.oldest_other(B, 40_000), Some(T(500)));
    assert_eq!(fronts.oldest_other(B, 60_000), None, "silent for half a minute");
}

#[test]
fn a_front_that_stands_still_counts_no_more_unless_upstream_is_down() {
    for works in [true, false] {
        let mut fronts = Fronts::default();
        for second in 0..=310 {
            fronts.note(A, T(0), works, second * 1000);
            let counts = fronts.oldest_other(B, second * 1000).is_some();
            assert_eq!(counts, second < 300 || !works, "for {second} s, upstream works: {works}");
        }
        fronts.note(A, T(5), works, 350_000);
        assert_eq!(fronts.oldest_other(B, 350_000), Some(T(5)), "it moves again");
    }
}

/// One replica's request that upstream takes never must not hold up the others for ever.
#[test]
fn a_front_that_stands_still_counts_no_more_while_others_get_on() {
    let mut fronts = Fronts::default();
    for second in 0..=310 {
        assert_eq!(fronts.counts(A), second < 301, "after {second} s");
        fronts.note(A, T(0), false, second * 1000);
        fronts.note(B, T(second), true, second * 1000);
    }
    assert_eq!(fronts.oldest_other(B, 310_000), None);
    fronts.note(A, T(5), false, 350_000);
    assert!(fronts.counts(A), "it moves again");
}

/// Or all would wait for each other.
#[test]
fn whoever_is_farthest_behind_never_waits() {
    const C: ReplicaId = ReplicaId(2);
    let mut fronts = Fronts::default();
    for (replica, at) in [(A, 100), (B, 200), (C, 300)] {
        fronts.note(replica, T(at), true, 0);
    }
    let waits_for = [A, B, C].map(|replica| fronts.oldest_other(replica, 0));
    assert_eq!(waits_for, [None, Some(T(100)), Some(T(100))]);
    fronts.note(B, T(100), true, 0);
    let waits_for = [A, B, C].map(|replica| fronts.oldest_other(replica, 0));
    assert_eq!(waits_for, [None, None, Some(T(100))], "two that are equally far both go on");
}

/// It has restarted, and comes with what is new. Whoever goes on from where it was is as far behind as it was.
#[test]
fn whoever_skips_what_it_was_refused_is_no_more_behind() {
    for (to, skips) in [(160, false), (161, true)] {
        let mut fronts = Fronts::default();
        // Two shards, one of them a little behind.
        fronts.note(A, T(100), false, 0);
        fronts.note(A, T(95), false, 0);
        fronts.note(B, T(110), false, 0);
        fronts.begin(A, 1, (T(to), T(to)), 1_000);
        fronts.end(A, 1);
        fronts.note(A, T(to), false, 1_000);
        // It comes again: where it was is not where it has come from.
        fronts.begin(A, 1, (T(to), T(to)), 2_000);
        assert_eq!(fronts.oldest_other(A, 2_000), skips.then_some(T(110)), "to {to}");
        assert_eq!(fronts.oldest_other(B, 2_000), Some(T(95)), "for others it is");
        fronts.note(A, T(90), false, 2_000);
        assert_eq!(fronts.oldest_other(A, 2_000), None, "it has not lost it");
    }
}

#[test]
fn where_a_replica_is_now_is_told_by_its_last_two_buckets() {
    let mut fronts = Fronts::default();
    assert_eq!(fronts.recent(A, 0), None);
    fronts.note(A, T(100), true, 0);
    assert!(fronts.knows(A) && !fronts.knows(B));
    fronts.note(A, T(200), true, 5_000);
    assert_eq!(fronts.recent(A, 5_000), Some(T(100)));
    fronts.note(A, T(300), true, 10_000);
    assert_eq!(fronts.recent(A, 10_000), Some(T(200)));
    assert_eq!(fronts.recent(A, 19_999), Some(T(200)), "as when it was last heard of");
    assert_eq!(fronts.recent(A, 20_000), None, "and no more when that was long ago");
}

#[test]
fn who_is_being_served_is_alive_for_longer() {
    let mut fronts = Fronts::default();
    fronts.begin(A, 1, (T(90), T(90)), 0);
    fronts.note(A, T(100), true, 0);
    assert_eq!(fronts.recent(A, 10_000), None, "nothing of it was known when that one began");
    fronts.begin(A, 2, (T(100), T(100)), 0);
    fronts.begin(A, 3, (T(100), T(100)), 0);
    assert_eq!((fronts.recent(A, 34_999), fronts.recent(A, 35_000)), (Some(T(100)), None));
    fronts.end(A, 2);
    assert_eq!(fronts.recent(A, 10_000), Some(T(100)), "one of two");
    fronts.end(A, 4);
    assert_eq!(fronts.recent(A, 10_000), Some(T(100)), "not that one");
    fronts.end(A, 3);
    assert_eq!(fronts.recent(A, 10_000), None);
}

#[test]
fn who_has_ended_a_request_just_now_is_about_to_bring_the_next_one() {
    let mut fronts = Fronts::default();
    assert_eq!(fronts.just_now(A, 0), None);
    fronts.note(A, T(100), true, 1_000);
    fronts.note(A, T(107), true, 2_000);
    assert_eq!((fronts.just_now(A, 2_250), fronts.just_now(A, 2_251)), (Some(T(107)), None));
    assert_eq!(fronts.just_now(A, 0), None, "the clock was set back");
}

#[test]
fn a_replica_delivers_what_is_being_served() {
    let mut fronts = Fronts::default();
    fronts.note(A, T(100), true, 0);
    assert_eq!(fronts.delivering(B, 9, 0), None, "it has ended");
    fronts.begin(A, 1, (T(130), T(130)), 20_000);
    fronts.begin(A, 2, (T(115), T(115)), 20_500);
    assert_eq!(fronts.delivering(B, 9, 21_000), Some(T(115)));
    assert_eq!(fronts.delivering(A, 9, 21_000), None, "nobody waits for itself");
    assert_eq!(fronts.delivering(B, 2, 21_000), Some(T(130)), "nor a request of several replicas");
    fronts.note(B, T(7), true, 21_000);
    assert_eq!(fronts.delivering(B, 9, 21_000), Some(T(115)));
    fronts.end(A, 2);
    assert_eq!(fronts.delivering(B, 9, 22_000), Some(T(130)));
    fronts.begin(A, 4, (T(110), T(140)), 22_000);
    assert_eq!(fronts.delivering(B, 1, 22_000), Some(T(140)), "all of it is under way");
    fronts.split(A, 4);
    assert_eq!(fronts.delivering(B, 1, 22_000), Some(T(110)), "only pieces of it are");
    fronts.end(A, 4);
    // The same one twice: its sender has given the first up.
    fronts.begin(A, 1, (T(130), T(130)), 50_000);
    fronts.end(A, 1);
    assert_eq!(fronts.delivering(B, 9, 51_000), Some(T(130)));
    assert_eq!((fronts.delivering(B, 9, 110_000), fronts.delivering(B, 9, 110_001)), (Some(T(130)), None));
    fronts.begin(A, 3, (T(140), T(140)), 110_001);
    assert_eq!(fronts.fronts[0].open.len(), 1, "none is kept for ever");
}

#[test]
fn who_has_been_at_pieces_for_two_seconds_is_stuck() {
    let mut fronts = Fronts::default();
    fronts.note(A, T(100), true, 0);
    fronts.begin(A, 1, (T(101), T(101)), 15_000);
    fronts.begin(A, 2, (T(102), T(102)), 16_500);
    assert_eq!(fronts.stuck(B, 20_000), None, "an upstream that takes its time is no fault");
    fronts.split(A, 1);
    fronts.split(B, 2);
    assert_eq!((fronts.stuck(B, 17_000), fronts.stuck(B, 17_001)), (None, Some(T(100))));
    assert_eq!(fronts.stuck(A, 17_001), None, "nobody waits for itself");
    fronts.note(A, T(115), true, 18_000);
    assert_eq!((fronts.stuck(B, 20_000), fronts.stuck(B, 20_001)), (None, Some(T(115))), "one went on");
    fronts.end(A, 1);
    assert_eq!(fronts.stuck(B, 30_000), None);
}

#[test]
fn who_stands_still_while_upstream_works_is_nowhere() {
    let mut fronts = Fronts::default();
    for second in 0..=300 {
        assert_eq!(fronts.recent(A, second * 1000), (second > 0).then_some(T(0)), "{second}");
        fronts.note(A, T(0), true, second * 1000);
    }
    assert_eq!(fronts.recent(A, 300_000), None);
}

#[test]
fn a_clock_that_goes_back_forgets_fronts_at_most() {
    let mut fronts = Fronts::default();
    fronts.note(A, T(100), true, 3_600_000);
    assert_eq!((fronts.oldest_other(B, 0), fronts.recent(A, 0)), (None, None));
    fronts.note(A, T(110), true, 0);
    assert_eq!((fronts.oldest_other(B, 0), fronts.recent(A, 0)), (Some(T(110)), Some(T(110))));
}
