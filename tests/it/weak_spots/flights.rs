//! A series is in one flight at a time: takeovers that meet the owner's flight, and batches that come twice.

use super::story::{Story, conflict, go_on, no_answer, stale, ts, unavailable};
use crate::support::{Ts, sent};
use promdedup::forward::Answer;
use std::time::Duration;

/// A is slow, not dead: its 45 is in the air when B's backlog would take over.
#[tokio::test]
async fn a_takeover_waits_for_the_owners_flight() {
    for (answer, status, expected) in [
        (Answer::Taken, 204, "0 15 30 45 81"),
        // Nothing of A's since 30 is upstream, and what B held fills the gap.
        (unavailable(), 503, "0 15 30 36 81"),
        (no_answer(), 503, "0 15 30 36 81"),
        // Refused for good is an answer: the watermark stands.
        (Answer::Refused { status: 400, text: "no".into() }, 400, "0 15 30 81"),
    ] {
        let story = Story::of_a_pair(&["m"]).await;
        let owner = story.flies(answer.clone(), vec![ts("m", "a", 45)]).await;
        let standby = story.comes(vec![ts("m", "b", 81)]).await;
        assert!(!standby.is_finished() && story.fake.requests() == 4, "two flights of one series");
        assert_eq!(owner.lands().await, status);
        assert_eq!(standby.await.unwrap().status, 204);
        assert_eq!(story.stream("m{}"), expected, "{answer:?}");
        assert_eq!((story.takeovers("silent"), story.moves()), (1, 1));
        // A's retry is a duplicate: something newer is upstream.
        story.takes(&[ts("m", "a", 45)]).await;
        assert_eq!(story.stream("m{}"), expected, "{answer:?}");
    }
}

/// The owner's own news decide whether there is a takeover at all.
#[tokio::test]
async fn an_owner_that_lands_in_time_is_not_taken_over() {
    let story = Story::of_a_pair(&["m"]).await;
    let owner = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    let standby = story.comes(vec![ts("m", "b", 66)]).await;
    assert_eq!(owner.lands().await, 204);
    assert_eq!(standby.await.unwrap().status, 204);
    story.takes(&[ts("m", "a", 60)]).await;
    assert_eq!((story.stream("m{}").as_str(), story.takeovers("silent")), ("0 15 30 45 60", 0));
}

/// A flight that takes too long costs those who wait for it a 503, with nothing of theirs sent, reserved or remembered.
#[tokio::test]
async fn a_takeover_that_waits_too_long_is_answered_503_and_leaves_nothing() {
    let story = Story::with(|wishes| wishes.busy_wait_max = Duration::ZERO);
    story.lives_to_30(&["m"]).await;
    let owner = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    let request = [ts("new", "b", 81), ts("m", "b", 81)];
    assert_eq!(story.says(&request).await, 503);
    assert_eq!((story.series(), story.fake.requests(), story.moves()), (1, 4, 0));
    story.takes(&[ts("new", "a", 80)]).await;
    assert_eq!(owner.lands().await, 204);
    story.takes(&request).await;
    assert_eq!((story.stream("m{}"), story.stream("new{}")), ("0 15 30 45 81".into(), "80".into()));
}

/// A stale marker waits, too, and is decided by what has become of the sample before it.
#[tokio::test]
async fn a_marker_waits_for_the_sample_before_it() {
    let story = Story::new();
    story.takes(&[ts("m", "a", 0), ts("m", "a", 15)]).await;
    let sample = story.flies(unavailable(), vec![ts("m", "a", 30)]).await;
    let marker = story.comes(vec![stale("m", "a", 45)]).await;
    assert!(!marker.is_finished());
    assert_eq!(sample.lands().await, 503);
    assert_eq!(marker.await.unwrap().status, 204);
    story.takes(&[ts("m", "a", 30)]).await;
    assert_eq!(story.stream("m{}"), "0 15 45!");
}

/// So no flight can fail after a later one of its series has landed: the later one is not in the air before.
#[tokio::test]
async fn a_later_flight_of_a_series_is_not_sent_before_the_first_has_ended() {
    for answer in [Answer::Taken, unavailable(), no_answer()] {
        let story = Story::of_a_pair(&["m"]).await;
        let first = story.flies(answer.clone(), vec![ts("m", "a", 45)]).await;
        let mut later = Vec::new();
        for t in [60, 75, 90] {
            later.push(story.comes(vec![ts("m", "a", t)]).await);
        }
        assert_eq!(story.fake.requests(), 4, "{answer:?}");
        assert!(later.iter().all(|later| !later.is_finished()));
        let landed = first.lands().await;
        for later in later {
            assert_eq!(later.await.unwrap().status, 204);
        }
        assert_eq!(landed, if answer == Answer::Taken { 204 } else { 503 });
        let times = story.stream("m{}");
        let times: Vec<i64> = times.split(' ').map(|t| t.parse().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert_eq!(times.last(), Some(&90));
    }
}

fn batch() -> Vec<Ts> {
    vec![ts("m", "a", 45), ts("n", "a", 45), ts("new", "a", 45)]
}

/// The sender has given up waiting and sends the batch again, while the first copy is still in the air.
#[tokio::test]
async fn a_batch_that_comes_again_while_it_is_in_the_air_goes_out_once() {
    for (answer, status) in [(Answer::Taken, 204), (unavailable(), 503), (no_answer(), 503)] {
        for retry_attempt in [0, 1] {
            let story = Story::of_a_pair(&["m", "n"]).await;
            let first = story.flies(answer.clone(), batch()).await;
            let again = story.clone();
            let again = tokio::spawn(async move { again.ask.retry(&batch(), retry_attempt).await });
            go_on().await;
            assert!(!again.is_finished());
            assert_eq!(story.fake.requests(), 4, "the copy is not sent");
            assert_eq!(first.lands().await, status);
            assert_eq!(again.await.unwrap().status, status, "{answer:?}: the copy is what the first is");
            assert_eq!(story.fake.requests(), 4);
            story.takes(&batch()).await;
            assert_eq!(story.stream("new{}"), "45");
            assert_eq!(story.stream("m{}"), "0 15 30 45");
        }
    }
}

/// Upstream has stored it, but its answer is lost. The next attempt conflicts with what is there: no loss.
#[tokio::test]
async fn a_conflict_with_ones_own_lost_answer_is_benign() {
    for retry_attempt in [0, 1] {
        let story = Story::of_a_pair(&["m", "n"]).await;
        // A 503 in between does not make the first attempt answered.
        story.fake.next([no_answer(), unavailable(), conflict()]);
        let old_batch = &batch()[..2];
        for status in [503, 503, 204] {
            assert_eq!(story.ask.retry(old_batch, retry_attempt).await.status, status);
        }
        assert_eq!(story.benign("retry"), 1);
        assert_eq!(story.ask.outcome("rejected"), 0);
        // From now on a conflict is one.
        story.fake.next([conflict()]);
        assert_eq!(story.says(&[ts("m", "a", 60)]).await, 400);
    }
}

/// The copy leans on the first, whose answer is lost; the third attempt conflicts. Old senders do not say that they retry.
#[tokio::test]
async fn a_copy_of_a_flight_without_an_answer_is_told_to_come_again() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let first = story.flies(no_answer(), batch()).await;
    let copy = story.comes(batch()).await;
    assert_eq!((first.lands().await, copy.await.unwrap().status), (503, 503));
    story.fake.next([conflict()]);
    story.takes(&batch()).await;
    assert_eq!(story.benign("retry"), 1);
    story.takes(&batch()).await;
    assert_eq!(story.fake.requests(), 5, "that was the last of it");
}

/// A batch that was cut anew by its sender: half of it in the air, half of it not.
#[tokio::test]
async fn a_batch_that_overlaps_one_in_the_air_sends_its_own_part_only() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let first = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    let other = story.comes(vec![ts("m", "a", 45), ts("n", "a", 45)]).await;
    assert_eq!(sent(&story.fake)[6..], ["m{} 45", "n{} 45"]);
    assert!(!other.is_finished(), "m is not upstream yet");
    assert_eq!(first.lands().await, 204);
    assert_eq!(other.await.unwrap().status, 204);
}
