//! What requests of a group's replicas learn of each other, from their beginning to their end.

use super::*;
use crate::window::doubt::Doubted;
use crate::window::tenant::Tenant;

const T: fn(i64) -> TimestampMs = |seconds| TimestampMs(seconds * 1000);

fn nobody() -> Arc<Tenant> {
    Arc::new(Tenant::new(TenantHash(0)))
}

fn a_group() -> Group {
    Group::new(GroupKey(1), 0, "g", nobody(), 0)
}

fn begins(
    group: &Group,
    replica: ReplicaId,
    (request, newest): (u64, i64),
    retry: bool,
    now_ms: i64,
) -> Others {
    let begun = Begun { request, oldest: T(newest), newest: T(newest), retry, several: false };
    group.begin_request(replica, begun, now_ms)
}

/// Where there are other instances.
fn comes(group: &Group, replica: ReplicaId, request: u64, retry: bool, now_ms: i64) -> Others {
    let at = T(now_ms / 1000);
    let begun = Begun { request, oldest: at, newest: at, retry, several: true };
    group.begin_request(replica, begun, now_ms)
}

fn ends(group: &Group, replica: ReplicaId, request: u64, newest: i64, unsettled: Option<i64>, now_ms: i64) {
    let seen = Seen { request, newest: T(newest), unsettled: unsettled.map(T), works: unsettled.is_none() };
    group.end_request(replica, seen, now_ms);
}

/// As a request of the replica finds it.
fn finds(group: &Group, replica: ReplicaId, now_ms: i64) -> [Option<i64>; 3] {
    let Others { oldest, refused, slowest, .. } = begins(group, replica, (u64::MAX, 0), false, now_ms);
    group.leave_request(replica, u64::MAX);
    [oldest, refused, slowest].map(|time| time.map(|t| t.0 / 1000))
}

#[test]
fn a_request_learns_who_was_refused_and_how_far_the_slowest_is() {
    let group = a_group();
    ends(&group, A, 1, 100, None, 100_000);
    ends(&group, B, 1, 103, None, 103_000);
    assert_eq!(finds(&group, B, 104_000), [Some(100), None, None], "nobody was refused");
    ends(&group, A, 2, 115, Some(110), 115_000);
    assert_eq!(finds(&group, B, 115_000), [Some(100), Some(110), Some(110)]);
    assert_eq!(finds(&group, A, 115_000), [None, None, None]);
    // It is settled, but A is not yet where the group was.
    ends(&group, B, 2, 118, Some(118), 118_000);
    ends(&group, A, 3, 120, Some(116), 119_000);
    ends(&group, A, 2, 115, None, 119_000);
    ends(&group, A, 3, 117, None, 119_500);
    assert_eq!(finds(&group, B, 120_000), [Some(100), None, Some(110)]);
    // And now it is.
    for (request, at) in [(4, 130), (5, 135)] {
        ends(&group, A, request, at, None, at * 1000);
    }
    assert_eq!(finds(&group, B, 136_000), [Some(110), None, None]);
}

/// Upstream has series of it that this window does not know, so no birth may overtake it.
#[test]
fn who_has_tried_before_the_window_began_has_a_backlog() {
    let group = a_group();
    let _ = begins(&group, A, (1, 90), true, 100_000);
    ends(&group, A, 1, 100, Some(90), 100_000);
    let _ = begins(&group, B, (1, 95), false, 100_000);
    ends(&group, B, 1, 100, Some(95), 100_000);
    let inherited = |replica| group.others(replica, 9, 101_000).inherited;
    assert_eq!((inherited(A), inherited(B)), (None, Some(T(90))));
    // It is a retry of what was refused here.
    let _ = begins(&group, B, (1, 95), true, 101_000);
    assert_eq!(inherited(A), None);
}

/// Its next request is not here yet, and already another replica's sample would be the first of a series.
#[test]
fn who_has_tried_before_the_window_began_has_a_backlog_between_two_requests_too() {
    let group = a_group();
    let _ = begins(&group, A, (1, 90), true, 100_000);
    ends(&group, A, 1, 91, Some(90), 100_000);
    let _ = begins(&group, B, (1, 95), false, 100_000);
    ends(&group, B, 1, 100, Some(100), 100_000);
    ends(&group, A, 1, 91, None, 101_000);
    assert_eq!(group.others(B, 9, 101_250).inherited, Some(T(91)));
    assert_eq!(group.others(B, 9, 101_251).inherited, None, "it has no more, or is away");
    for (request, at) in [(2, 95), (3, 100), (4, 101)] {
        ends(&group, A, request, at, None, at * 1000 + 11_000);
    }
    assert_eq!(group.others(B, 9, 112_000).inherited, None);
}

/// By another instance that did not reach this one, say. Or a replica that has lost what it had would close the door on it.
#[test]
fn who_comes_again_with_what_was_refused_elsewhere_is_behind() {
    let group = a_group();
    ends(&group, A, 1, 100, None, 100_000);
    ends(&group, B, 1, 100, None, 100_000);
    let _ = comes(&group, A, 2, true, 106_000);
    assert_eq!(group.others(B, 9, 106_000).slowest, None, "its answer got lost: it was here a moment ago");
    ends(&group, A, 2, 106, None, 106_000);
    let _ = comes(&group, A, 3, false, 130_000);
    assert_eq!(group.others(B, 9, 130_000).slowest, None, "it has not tried before");
    ends(&group, A, 3, 107, None, 130_000);
    let _ = comes(&group, A, 4, true, 150_000);
    assert_eq!(group.others(B, 9, 150_000).slowest, Some(T(107)));
    ends(&group, A, 4, 110, None, 150_100);
    assert_eq!(group.others(B, 9, 150_200).slowest, Some(T(110)), "until it has caught up");
    // By the clock it was at 127 s.
    ends(&group, A, 5, 126, None, 160_000);
    ends(&group, A, 6, 128, None, 165_000);
    ends(&group, A, 7, 130, None, 170_000);
    assert_eq!(group.others(B, 9, 170_000).slowest, None);
}

#[test]
fn who_is_alone_has_refused_all_that_was_refused() {
    let group = a_group();
    ends(&group, A, 1, 100, None, 100_000);
    ends(&group, B, 1, 100, None, 100_000);
    let found = begins(&group, A, (2, 100), true, 150_000);
    assert_eq!((found.silent_ms, group.others(B, 9, 150_000).slowest), (0, None));
}

#[test]
fn who_is_first_after_a_silence_of_all_is_told() {
    let group = a_group();
    let silent = |replica, now_ms| {
        let silent_ms = comes(&group, replica, 9, false, now_ms).silent_ms;
        ends(&group, replica, 9, now_ms / 1000, None, now_ms);
        silent_ms
    };
    assert_eq!(silent(A, 100_000), 0, "nothing is known of it");
    assert_eq!(silent(B, 105_000), 0);
    assert_eq!(silent(A, 111_000), 0, "6 s are no silence");
    assert_eq!(silent(B, 117_001), 6_001);
    assert_eq!((silent(A, 123_000), silent(B, 123_001)), (6_001, 0), "for as long as senders pause");
    let hold_up = |silent_ms, interval| Others { silent_ms, ..Others::default() }.hold_up(T(200), interval);
    assert!(hold_up(6_001, 3_000) && !hold_up(6_001, 3_001), "its samples may be that far apart");
    assert!(!hold_up(6_002, 3_001), "and no farther");
    assert!(!hold_up(6_001, 0), "nobody knows how far");
    let _ = comes(&group, A, 10, false, 132_000);
    assert_eq!(silent(B, 160_000), 0, "one of them is being served");
}

/// Of a retry only what was not settled, or two whose requests have old samples as well would wait for each other.
#[test]
fn what_is_being_delivered_is_what_is_not_settled() {
    let group = a_group();
    ends(&group, A, 1, 100, None, 100_000);
    let delivering = |now_ms| group.others(B, 9, now_ms).delivering;
    let _ = begins(&group, A, (2, 101), false, 101_000);
    assert_eq!(delivering(111_000), Some(T(101)));
    ends(&group, A, 2, 160, Some(150), 112_000);
    assert_eq!(delivering(112_000), None);
    let _ = begins(&group, A, (2, 101), true, 113_000);
    assert_eq!(delivering(114_000), Some(T(150)));
    group.leave_request(A, 2);
    assert_eq!(delivering(114_000), None);
}

/// A request that upstream never takes would keep all others waiting.
#[test]
fn what_is_refused_for_ever_while_upstream_works_is_waited_for_no_more() {
    let group = a_group();
    for second in 100..=500 {
        if second % 5 == 0 {
            ends(&group, A, 1, 100, Some(100), second * 1000);
        }
        ends(&group, A, 2, second, None, second * 1000);
        let expected = if second < 400 { Some(100) } else { None };
        assert_eq!(finds(&group, B, second * 1000), [expected; 3], "{second}");
    }
}

/// A process before this one may have sent what it did not live to see the answer of.
#[test]
fn what_comes_first_is_in_doubt() {
    let group = a_group();
    ends(&group, A, 1, 100, None, 10_000);
    ends(&group, A, 2, 115, None, 10_001);
    assert_eq!(group.doubted(T(100), 10_001), Some(Doubted::FirstContact));
    assert_eq!(group.doubted(T(101), 10_001), None);
    group.doubt(T(100), 10_001);
    assert_eq!(group.doubted(T(100), 10_001), Some(Doubted::Unanswered));
}

/// Or those of a request that upstream never takes would be waited for as long as its replica lives.
#[test]
fn nobody_waits_for_what_a_replica_that_stands_still_delivers() {
    let group = a_group();
    for second in 100..=500 {
        if second % 5 == 0 {
            ends(&group, A, 1, 100, Some(100), second * 1000);
            let _ = begins(&group, A, (1, 100), true, second * 1000);
            let delivering = group.others(B, 9, second * 1000).delivering;
            assert_eq!(
                delivering.is_some(),
                second < 400,
                "after {second} s upstream has worked for five minutes or not"
            );
            group.leave_request(A, 1);
        }
        ends(&group, B, 2, second, None, second * 1000);
    }
    let _ = begins(&group, A, (1, 100), true, 501_000);
    let others = group.others(B, 9, 502_000);
    assert_eq!((others.oldest, others.refused, others.slowest), (None, None, None));
    assert_eq!(others.delivering, None, "upstream has worked for five minutes");
}

/// Or a sender that pauses for longer than others would be held up for ever.
#[test]
fn a_silence_ends_when_what_was_refused_for_it_comes_again() {
    let group = a_group();
    ends(&group, A, 1, 100, None, 100_000);
    let holds_up = [160_000, 167_000].map(|now_ms| {
        let held_up = comes(&group, A, 2, now_ms > 160_000, now_ms).hold_up(T(160), 1_000);
        ends(&group, A, 2, 160, held_up.then_some(160), now_ms);
        held_up
    });
    assert_eq!(holds_up, [true, false]);
}
