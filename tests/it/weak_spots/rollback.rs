//! What a failed flight leaves behind: nothing. Two pipelines live the same life; in one of them flights fail on the way.
//! Whatever comes afterwards, upstream gets the same from both.

use super::story::{Story, stale, ts, unavailable};
use crate::support::Ts;

/// A life to live, a request a line.
type Life = Vec<Vec<Ts>>;

fn one(name: &str, replica: &str, seconds: i64) -> Vec<Ts> {
    vec![ts(name, replica, seconds)]
}

/// The life of `m` by replica and time; below 0 a stale marker at the time without its sign.
fn life(steps: &[(&str, i64)]) -> Life {
    let step = |&(replica, t): &(&str, i64)| match t < 0 {
        true => vec![stale("m", replica, -t)],
        false => one("m", replica, t),
    };
    steps.iter().map(step).collect()
}

/// States in which a series can be: each flag of it, held samples, an interval learned or not.
fn pasts() -> Vec<(&'static str, Life)> {
    let pair = [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36)];
    let with = |more: &[(&'static str, i64)]| life(&[&pair, more].concat());
    vec![
        ("a sample is held", with(&[])),
        ("two are held", life(&[("a", 0), ("a", 14), ("a", 28), ("b", 31), ("b", 43)])),
        ("a third is the holder", with(&[("c", 59)])),
        ("the interval is unknown", life(&[("a", 30)])),
        ("slow", life(&[("a", 0), ("a", 10), ("a", 30), ("b", 31)])),
        ("quick", life(&[("a", 0), ("a", 25), ("a", 30), ("b", 36)])),
        ("released", with(&[("a", -40)])),
        ("stale", with(&[("b", -36), ("a", -40)])),
        ("born by a standby", [vec![one("n", "a", 20)], life(&[("b", 36)])].concat()),
        ("taken over", with(&[("b", 66)])),
    ]
}

/// What may come next: each shows some of that state.
fn futures() -> Vec<Life> {
    [
        &[("a", 75), ("a", 90), ("a", 105), ("a", 150)][..],
        &[("b", 81), ("b", 96), ("b", 111), ("a", 120), ("a", 135)],
        &[("b", 51), ("b", 66), ("b", 81), ("b", 96)],
        &[("c", 70), ("c", 85), ("c", 100), ("c", 115), ("b", 116)],
        &[("a", -75), ("b", 81), ("b", 96), ("a", 105)],
        &[("b", -70), ("a", -75), ("c", 85), ("c", 100)],
        &[("a", 71), ("a", 76), ("a", 81), ("a", 86), ("a", 160), ("a", 240), ("b", 300)],
    ]
    .map(life)
    .into()
}

async fn lived(past: &Life) -> Story {
    let story = Story::new();
    for request in past {
        story.takes(request).await;
    }
    story
}

/// What upstream has in the end, and what was counted but for failures.
async fn lives_on(story: &Story, future: &Life) -> (Vec<String>, [u64; 6]) {
    for request in future {
        story.takes(request).await;
    }
    let counts = ["silent", "released", "ended", "align"].map(|reason| story.takeovers(reason));
    let [silent, released, ended, align] = counts;
    (story.fake.stored(), [silent, released, ended, align, story.moves(), story.series() as u64])
}

/// Two flights of one series, the second begun while the first is in the air, and both fail: the owner's, or a standby's
/// that takes over and fills. `false`: the first is no flight in this state.
async fn both_fail(story: &Story, calm: &Story, first: (&str, i64), second: (&str, i64)) -> bool {
    let first = one("m", first.0, first.1);
    let Some(flying) = story.tries_to_fly(unavailable(), first).await else { return false };
    let gate = story.fake.hold(unavailable());
    let waits = story.comes(one("m", second.0, second.1)).await;
    assert!(!waits.is_finished(), "two flights of one series");
    assert_eq!(flying.lands().await, 503);
    gate.open();
    if waits.await.unwrap().status == 204 {
        // With the watermark back where it was, it only had to be held.
        story.fake.hold_no_more();
        calm.takes(&one("m", second.0, second.1)).await;
    }
    true
}

#[tokio::test]
async fn two_chained_flights_that_fail_leave_a_series_as_it_was() {
    let chains = [[("a", 66), ("a", 81)], [("a", 66), ("b", 120)], [("b", 120), ("a", 135)]];
    let mut flown = 0;
    for (name, past) in pasts() {
        for [first, second] in chains {
            for future in futures() {
                let (calm, story) = (lived(&past).await, lived(&past).await);
                if both_fail(&story, &calm, first, second).await {
                    flown += 1;
                    let expected = lives_on(&calm, &future).await;
                    assert_eq!(lives_on(&story, &future).await, expected, "{name}: {first:?}, {second:?}");
                }
            }
        }
    }
    assert!(flown > 150, "{flown}");
}

#[tokio::test]
async fn a_whole_retry_of_both_failed_flights_goes_through() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let batches = [
        vec![ts("m", "a", 45), ts("n", "a", 45), ts("new", "a", 45)],
        vec![ts("m", "a", 60), ts("n", "a", 60), ts("new", "a", 60), ts("newer", "a", 60)],
    ];
    let first = story.flies(unavailable(), batches[0].clone()).await;
    let gate = story.fake.hold(unavailable());
    let second = story.comes(batches[1].clone()).await;
    assert_eq!(first.lands().await, 503);
    gate.open();
    assert_eq!(second.await.unwrap().status, 503);
    assert_eq!(story.series(), 2, "what the two created is forgotten");
    for batch in &batches {
        story.takes(batch).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 45 60");
    assert_eq!(story.stream("n{}"), "0 15 30 45 60");
    assert_eq!(story.stream("new{}"), "45 60");
    assert_eq!(story.stream("newer{}"), "60");
    assert_eq!(story.moves(), 0);
}

/// The second flight waited for a series that the first had created, and finds it gone: it makes it anew, as the first.
#[tokio::test]
async fn what_two_failed_flights_created_is_forgotten_with_its_target() {
    let story = Story::new();
    let first = story.flies(unavailable(), vec![ts("x", "a", 0), ts("y", "a", 0)]).await;
    let gate = story.fake.hold(unavailable());
    let second = story.comes(vec![ts("x", "b", 6), ts("y", "b", 6)]).await;
    assert_eq!((story.series(), story.ask.pipeline.window().target_count()), (2, 1));
    assert_eq!(first.lands().await, 503);
    gate.open();
    assert_eq!(second.await.unwrap().status, 503);
    assert_eq!((story.series(), story.ask.pipeline.window().target_count()), (0, 0));
    // Nobody owns the target: it is B's, who comes first, and A's next is a standby's.
    for (replica, t) in [("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36)] {
        story.takes(&[ts("x", replica, t), ts("y", replica, t)]).await;
    }
    assert_eq!(story.stream("x{}"), "6 21 36");
    assert_eq!(story.stream("y{}"), "6 21 36");
}

/// B takes `m` over, and the target with it. While that is in the air, another shard of B has `n` follow, and lands.
#[tokio::test]
async fn a_target_goes_back_although_a_sibling_has_followed_and_is_taken_again() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let takeover = story.flies(unavailable(), one("m", "b", 66)).await;
    story.takes(&one("n", "b", 51)).await;
    assert_eq!(story.takeovers("align"), 1, "the move is reserved, and is seen");
    assert_eq!(takeover.lands().await, 503);
    assert_eq!(story.moves(), 0);
    // A is dead. B tries again, and all is B's.
    story.takes(&one("m", "b", 66)).await;
    assert_eq!((story.moves(), story.takeovers("silent")), (1, 1));
    for (replica, t) in [("b", 81), ("a", 90), ("b", 96), ("a", 105), ("b", 111)] {
        story.takes(&[ts("m", replica, t), ts("n", replica, t)]).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 36 66 81 96 111");
    assert_eq!(story.stream("n{}"), "0 15 30 36 51 81 96 111");
}

/// The same, but A is not dead: what follows the failed takeover unites with A again.
#[tokio::test]
async fn a_target_goes_back_although_a_sibling_has_followed_and_its_owner_returns() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let takeover = story.flies(unavailable(), one("m", "b", 66)).await;
    story.takes(&one("n", "b", 51)).await;
    assert_eq!(takeover.lands().await, 503);
    for (replica, t) in [("a", 75), ("b", 81), ("a", 90), ("b", 96)] {
        story.takes(&[ts("m", replica, t), ts("n", replica, t)]).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 36 75 90");
    assert_eq!(story.stream("n{}"), "0 15 30 36 51 75 90");
    assert_eq!((story.moves(), story.takeovers("align")), (0, 2));
}

/// B's takeover moves the target; meanwhile B cannot scrape it and C can, so B is fenced. That B's takeover fails does
/// not undo what C has come by: its next sample takes the target.
#[tokio::test]
async fn a_failed_takeover_does_not_undo_a_fence_raised_meanwhile() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    for t in [10, 25, 40] {
        story.takes(&[ts("m", "c", t), ts("n", "c", t), super::story::up("c", 1, t)]).await;
    }
    let takeover = story.flies(unavailable(), one("m", "b", 81)).await;
    story.takes(&one("n", "b", 66)).await;
    story.takes(&[super::story::up("c", 1, 70)]).await;
    story.takes(&[super::story::up("b", 0, 81)]).await;
    assert_eq!(takeover.lands().await, 503);
    story.takes(&one("n", "c", 85)).await;
    assert_eq!(story.takeovers("align"), 2, "n went to B, and from B to C, whose the target is");
    assert!(story.stream("n{}").ends_with("66 85"), "{}", story.stream("n{}"));
}

/// A federated request with what two replicas have had since: the target goes from A to B to C, and all of it fails.
#[tokio::test]
async fn a_target_that_changed_hands_twice_in_a_failed_flight_goes_back_to_the_first() {
    let story = Story::of_a_pair(&["m"]).await;
    story.fake.next([unavailable()]);
    assert_eq!(story.says(&[ts("m", "b", 81), ts("m", "c", 200)]).await, 503);
    // A was late, not dead.
    for (replica, t) in [("a", 45), ("b", 51), ("a", 60), ("b", 66), ("a", 75)] {
        story.takes(&one("m", replica, t)).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 45 60 75");
    assert_eq!((story.moves(), story.takeovers("align")), (0, 0));
}

/// A shard of the owner fails after another one has come further: the target has been seen there all the same.
#[tokio::test]
async fn what_another_shard_has_shown_of_a_target_outlives_a_failed_flight() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let slow = story.flies(unavailable(), one("m", "a", 45)).await;
    story.takes(&one("n", "a", 60)).await;
    assert_eq!(slow.lands().await, 503);
    // For `m` alone it looks like a death. The target's owner lives.
    story.takes(&one("m", "b", 66)).await;
    assert_eq!((story.takeovers("silent"), story.moves()), (1, 0));
    story.takes(&[ts("m", "a", 75), ts("n", "a", 75)]).await;
    assert_eq!(story.takeovers("align"), 1, "they unite with their target's owner");
    assert_eq!(story.stream("m{}"), "0 15 30 36 66 75");
    assert_eq!(story.stream("n{}"), "0 15 30 36 60 75");
}

/// The `up` 0 that fences the owner rides in a request that fails for another series. It comes again, and changes nothing.
#[tokio::test]
async fn a_fence_survives_the_503_of_its_request_and_the_retry_changes_nothing() {
    let story = Story::new();
    let whole = |replica, value, t| vec![super::story::up(replica, value, t), ts("m", replica, t)];
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36)] {
        story.takes(&whole(replica, 1, t)).await;
    }
    let elsewhere = ts("z", "a", 45).label("instance", "other");
    let failed_scrape = [super::story::up("a", 0, 45), stale("m", "a", 45), elsewhere];
    story.fake.next([unavailable(), unavailable()]);
    assert_eq!(story.says(&failed_scrape).await, 503);
    assert_eq!(story.says(&failed_scrape).await, 503);
    story.takes(&failed_scrape).await;
    story.takes(&whole("b", 1, 51)).await;
    assert_eq!(story.moves(), 1);
    assert_eq!(story.stream("m{}"), "0 15 30 36 51");
    assert_eq!(story.stream("up{}"), "0=1 15=1 30=1 36=1 51=1");
}
