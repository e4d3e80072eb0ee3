//! What a single request may hold: a series twice, times that fall or repeat, two replicas at once (federation).

use super::story::{Story, conflict, stale, ts, unavailable};
use crate::support::{Ts, sent};
use promdedup::forward::Answer;

#[tokio::test]
async fn a_series_that_is_there_twice_leaves_once() {
    let story = Story::of_a_pair(&["m"]).await;
    story.takes(&[ts("m", "a", 45), ts("n", "a", 45), ts("m", "a", 45), ts("m", "a", 45)]).await;
    assert_eq!(sent(&story.fake)[3..], ["m{} 45", "n{} 45"]);
    assert_eq!((story.ask.outcome("forwarded"), story.ask.outcome("duplicate")), (5, 5));
}

/// Thanos answers 200 and keeps one of two samples of one time. Here the first is kept, and the other is a duplicate.
#[tokio::test]
async fn of_two_values_at_one_time_the_first_is_kept() {
    for falls in [false, true] {
        let story = Story::of_a_pair(&["m"]).await;
        let mut request = vec![Ts::new("m").replica("a").at(45).value_at(7.0, 45), ts("m", "a", 45)];
        if falls {
            request.push(ts("m", "a", 31));
        }
        story.takes(&request).await;
        let expected = if falls { "0 15 30 31 45" } else { "0 15 30 45" };
        assert_eq!(story.stream("m{}"), expected);
    }
    let story = Story::new();
    story.takes(&[Ts::new("m").replica("a").value_at(7.0, 45), ts("m", "a", 45)]).await;
    assert_eq!(story.stream("m{}"), "45=7");
}

/// Duplicates of a sample in the same request are acknowledged with it, or not at all.
#[tokio::test]
async fn a_repeated_series_fails_and_comes_again_as_one() {
    let story = Story::of_a_pair(&["m"]).await;
    let request = [ts("m", "a", 45), ts("m", "a", 45).at(60), ts("m", "a", 60)];
    story.fake.next([unavailable()]);
    assert_eq!(story.says(&request).await, 503);
    assert_eq!(story.ask.outcome("failed"), 4);
    story.takes(&request).await;
    assert_eq!(story.stream("m{}"), "0 15 30 45 60");
}

#[tokio::test]
async fn two_replicas_in_one_request_are_told_apart() {
    let story = Story::new();
    for t in [0, 15, 30] {
        // In the order of their times, and in the other one.
        let (a, b) = (ts("m", "a", t), ts("m", "b", t + 6));
        story.takes(&if t == 15 { [b, a] } else { [a, b] }).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30");
    let counts = [("a", "forwarded", 3), ("b", "duplicate", 3)].map(|(r, o, n)| (r.into(), o.into(), n));
    assert_eq!(story.ask.samples(), counts);
}

/// One request with A's last sample, and all that B has had since: A is decided first, then its successor.
#[tokio::test]
async fn a_takeover_inside_a_federated_request_is_whole_or_not_at_all() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let request: Vec<_> = [("a", 45), ("b", 51), ("b", 66), ("b", 81), ("b", 96)]
        .iter()
        .flat_map(|(replica, t)| ["m", "n"].map(|name| ts(name, replica, *t)))
        .collect();
    for answer in [unavailable(), unavailable()] {
        story.fake.next([answer]);
        assert_eq!(story.says(&request).await, 503);
        assert_eq!((story.moves(), story.takeovers("silent")), (0, 0));
    }
    story.takes(&request).await;
    for series in ["m{}", "n{}"] {
        assert_eq!(story.stream(series), "0 15 30 45 51 66 81 96");
    }
    assert_eq!((story.moves(), story.takeovers("silent"), story.takeovers("align")), (1, 1, 1));
    story.takes(&[ts("m", "a", 105), ts("n", "a", 105)]).await;
    assert_eq!(story.stream("m{}"), "0 15 30 45 51 66 81 96", "A is a standby now");
}

#[tokio::test]
async fn owner_and_standby_end_a_series_in_one_request() {
    for reversed in [false, true] {
        let story = Story::of_a_pair(&["m"]).await;
        let mut markers = vec![stale("m", "a", 45), stale("m", "b", 51)];
        if reversed {
            markers.reverse();
        }
        story.takes(&markers).await;
        assert_eq!(story.stream("m{}"), "0 15 30 36 51!");
    }
}

/// A flight that gives way to another one is decided anew, and with it what it had only held: that is acknowledged as
/// a duplicate, and may not be forgotten.
#[tokio::test]
async fn what_was_held_in_a_flight_that_gave_way_is_held_again() {
    let story = Story::of_a_pair(&["m"]).await;
    let in_the_air = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    // A standby bears `new`, holds what comes after, and takes it over; but the request has to wait for `m`.
    let backlog = [0, 15, 30, 45].map(|t| ts("new", "b", 60 + t));
    let waits = story.comes([&backlog[..], &[ts("m", "b", 60)]].concat()).await;
    assert!(!waits.is_finished());
    assert_eq!(in_the_air.lands().await, 204);
    assert_eq!(waits.await.unwrap().status, 204);
    assert_eq!(story.stream("new{}"), "60 75 90 105");
}

/// The same where upstream wants the request in halves.
#[tokio::test]
async fn what_was_held_in_a_flight_that_was_split_is_held_again() {
    let story = Story::of_a_pair(&["m"]).await;
    story.fake.next([Answer::TooBig { text: "too many series".into() }]);
    let backlog = [0, 15, 30, 45].map(|t| ts("new", "b", 60 + t));
    story.takes(&[&[ts("m", "a", 45)], &backlog[..], &[ts("n", "a", 45)]].concat()).await;
    assert_eq!(story.stream("new{}"), "60 75 90 105");
}

/// What a request repeats of itself stays one after its flight gave way.
#[tokio::test]
async fn a_repeated_series_in_a_flight_that_gave_way_leaves_once() {
    let story = Story::of_a_pair(&["m"]).await;
    let in_the_air = story.flies(unavailable(), vec![ts("m", "a", 45)]).await;
    let waits =
        story.comes(vec![ts("x", "a", 60), ts("x", "a", 60), ts("m", "a", 60), ts("m", "a", 60)]).await;
    assert_eq!(in_the_air.lands().await, 503);
    assert_eq!(waits.await.unwrap().status, 204);
    assert_eq!((story.stream("x{}"), story.stream("m{}")), ("60".into(), "0 15 30 36 60".into()));
}

/// A conflict on one half of a split request is that half's affair.
#[tokio::test]
async fn a_conflict_in_one_half_rejects_that_half_only() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    story.fake.next([Answer::TooBig { text: "too many series".into() }, conflict()]);
    assert_eq!(story.says(&[ts("m", "a", 45), ts("n", "a", 45)]).await, 400);
    assert_eq!((story.ask.outcome("rejected"), story.stream("n{}").as_str()), (1, "0 15 30 45"));
}
