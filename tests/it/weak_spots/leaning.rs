//! Duplicates of what is only reserved: they are acknowledged by the flight that they lean on, never before it.

use super::story::{Story, no_answer, stale, too_big, ts, unavailable};
use crate::support::sent;
use promdedup::forward::Answer;

#[tokio::test]
async fn many_that_lean_are_answered_as_their_flight_is() {
    for (answer, status, outcome) in
        [(Answer::Taken, 204, "duplicate"), (unavailable(), 503, "failed"), (no_answer(), 503, "failed")]
    {
        let story = Story::of_a_pair(&["m"]).await;
        let before = story.ask.outcome(outcome);
        let owner = story.flies(answer, vec![ts("m", "a", 45)]).await;
        let mut leaners = Vec::new();
        for i in 0..50 {
            let replica = ["a", "b", "c"][i % 3];
            leaners.push(story.comes(vec![ts("m", replica, 31 + i as i64 % 15)]).await);
        }
        assert!(leaners.iter().all(|leaner| !leaner.is_finished()));
        assert_eq!(owner.lands().await, status);
        for leaner in leaners {
            let reply = leaner.await.unwrap();
            assert_eq!((reply.status, reply.retry_after_s), (status, (status == 503).then_some(1)));
        }
        let own = u64::from(status == 503);
        assert_eq!(story.ask.outcome(outcome) - before, 50 + own);
        assert_eq!(story.fake.requests(), 4);
    }
}

/// A leaner whose flight fails was not acknowledged, and is not lost: B's 36 comes again, is held, and fills A's gap.
#[tokio::test]
async fn what_leaned_on_a_failed_flight_comes_again_and_counts() {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30)] {
        story.takes(&[ts("m", replica, t)]).await;
    }
    let owner = story.flies(unavailable(), vec![ts("m", "a", 45)]).await;
    let standby = story.comes(vec![ts("m", "b", 36)]).await;
    assert_eq!(owner.lands().await, 503);
    assert_eq!(standby.await.unwrap().status, 503);
    assert!(story.ask.samples().contains(&("b".into(), "failed".into(), 1)));
    // A dies.
    for t in [36, 51, 66] {
        story.takes(&[ts("m", "b", t)]).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 36 51 66");
}

/// A leaner with something of its own to send sends it at once, and is answered by the worse of the two.
#[tokio::test]
async fn a_leaner_with_a_flight_of_its_own_is_answered_by_both() {
    for (leaned, own, status) in [
        (Answer::Taken, Answer::Taken, 204),
        (Answer::Taken, unavailable(), 503),
        (unavailable(), Answer::Taken, 503),
        (unavailable(), unavailable(), 503),
    ] {
        let story = Story::of_a_pair(&["m"]).await;
        let owner = story.flies(leaned.clone(), vec![ts("m", "a", 45)]).await;
        let both = story.flies(own.clone(), vec![ts("m", "b", 36), ts("z", "b", 36)]).await;
        assert_eq!(sent(&story.fake)[4..], ["z{} 36"], "its own goes out without waiting");
        let expected = if leaned == Answer::Taken { 204 } else { 503 };
        let (first, second) = tokio::join!(owner.lands(), both.lands());
        assert_eq!((first, second), (expected, status), "{leaned:?}, {own:?}");
        // Whatever failed comes again, and nothing is sent twice that was taken.
        let before = story.fake.requests();
        story.takes(&[ts("m", "b", 36), ts("z", "b", 36)]).await;
        assert_eq!(story.fake.requests() - before, usize::from(own != Answer::Taken));
        assert_eq!(story.stream("z{}"), "36");
    }
}

/// Its own flight lands long before the one it leans on: no answer until then.
#[tokio::test]
async fn a_leaner_whose_own_flight_has_landed_still_waits() {
    let story = Story::of_a_pair(&["m"]).await;
    let owner = story.flies(unavailable(), vec![ts("m", "a", 45)]).await;
    let both = story.comes(vec![ts("m", "b", 36), ts("z", "b", 36)]).await;
    assert_eq!((story.stream("z{}").as_str(), both.is_finished()), ("36", false));
    // What it sent is not reserved any more, though its request lives: others go on.
    story.takes(&[ts("z", "a", 51)]).await;
    assert_eq!(story.stream("z{}"), "36 51");
    assert_eq!(owner.lands().await, 503);
    assert_eq!(both.await.unwrap().status, 503);
    // Upstream took it, even though all of it has to come again.
    assert!(story.ask.samples().contains(&("b".into(), "forwarded".into(), 1)));
}

#[tokio::test]
async fn a_leaner_on_two_flights_needs_both() {
    for (one, other, status) in [(Answer::Taken, Answer::Taken, 204), (Answer::Taken, unavailable(), 503)] {
        let story = Story::of_a_pair(&["m", "n"]).await;
        let m = story.flies(one, vec![ts("m", "a", 45)]).await;
        let n = story.flies(other, vec![ts("n", "a", 45)]).await;
        let standby = story.comes(vec![ts("m", "b", 36), ts("n", "b", 36)]).await;
        m.lands().await;
        super::story::go_on().await;
        assert!(!standby.is_finished());
        n.lands().await;
        assert_eq!(standby.await.unwrap().status, status);
    }
}

/// Whoever has leaned has shown that it is alive: A's marker ends nothing, and B goes on.
#[tokio::test]
async fn what_leaned_on_a_flight_that_landed_is_a_sign_of_life() {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("a", 30)] {
        story.takes(&[ts("m", replica, t)]).await;
    }
    let owner = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    let standby = story.comes(vec![ts("m", "b", 36)]).await;
    assert_eq!((owner.lands().await, standby.await.unwrap().status), (204, 204));
    story.takes(&[stale("m", "a", 58)]).await;
    story.takes(&[ts("m", "b", 51)]).await;
    assert_eq!(story.stream("m{}"), "0 15 30 45 51");
}

/// Upstream wants smaller pieces: the halves are delivered, and one series that is too big by itself is refused.
#[tokio::test]
async fn of_a_split_batch_only_what_is_too_big_by_itself_is_refused() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    story.fake.too_big("big");
    let batch = ["m", "x", "big", "n", "y"].map(|name| ts(name, "a", 45));
    assert_eq!(story.says(&batch).await, 413);
    for (series, expected) in
        [("m{}", "0 15 30 45"), ("n{}", "0 15 30 45"), ("x{}", "45"), ("y{}", "45"), ("big{}", "")]
    {
        assert_eq!(story.stream(series), expected);
    }
    assert_eq!(story.ask.outcome("rejected"), 1);
    // Answered is answered: it is not sent again, and nothing else is.
    let before = story.fake.requests();
    story.takes(&batch).await;
    assert_eq!(story.fake.requests(), before);
}

/// One half lands and one does not: the sender brings all again, and only the second half goes out.
#[tokio::test]
async fn of_a_split_batch_the_half_that_failed_comes_again() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    story.fake.next([too_big(), Answer::Taken, unavailable()]);
    let batch = [ts("m", "a", 45), ts("n", "a", 45)];
    assert_eq!(story.says(&batch).await, 503);
    assert_eq!((story.stream("m{}"), story.stream("n{}")), ("0 15 30 45".into(), "0 15 30".into()));
    story.takes(&batch).await;
    assert_eq!((story.stream("m{}"), story.stream("n{}")), ("0 15 30 45".into(), "0 15 30 45".into()));
}

/// Or the newer samples would be upstream, and the older ones be taken for duplicates when they come again.
#[tokio::test]
async fn of_a_split_batch_no_half_goes_after_one_that_failed() {
    let story = Story::of_a_pair(&["m"]).await;
    story.fake.next([too_big(), unavailable(), Answer::Taken]);
    let batch = [ts("m", "a", 45), ts("m", "a", 60)];
    assert_eq!(story.says(&batch).await, 503);
    assert_eq!(story.stream("m{}"), "0 15 30");
    story.takes(&batch).await;
    assert_eq!(story.stream("m{}"), "0 15 30 45 60");
}

/// What leans on a flight that is split has to come again: that flight did not land. What waits for it goes on.
#[tokio::test]
async fn who_leans_on_a_split_flight_comes_again_and_who_waits_goes_on() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let owner = story.flies(too_big(), vec![ts("m", "a", 45), ts("n", "a", 45)]).await;
    let leaner = story.comes(vec![ts("m", "b", 36), ts("n", "b", 36)]).await;
    let waits = story.comes(vec![ts("n", "a", 60)]).await;
    assert_eq!(owner.lands().await, 204);
    assert_eq!(leaner.await.unwrap().status, 503);
    assert_eq!(waits.await.unwrap().status, 204);
    let before = story.fake.requests();
    story.takes(&[ts("m", "b", 36), ts("n", "b", 36)]).await;
    assert_eq!(story.fake.requests(), before);
    assert_eq!(story.stream("m{}"), "0 15 30 45");
    assert!(
        ["0 15 30 45 60", "0 15 30 36 60"].contains(&story.stream("n{}").as_str()),
        "{}",
        story.stream("n{}")
    );
}
