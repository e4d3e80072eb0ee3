//! Ends of series, and of scrapes: stale markers and `up`, of one replica or both, in any order, early and late.

use super::story::{Story, stale, ts, up};
use crate::support::Ts;

/// Replicas A at full quarters and B `phase` s later, until A's 30.
async fn pair_apart_by(phase: i64) -> Story {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", phase), ("a", 15), ("b", 15 + phase), ("a", 30)] {
        story.takes(&[ts("m", replica, t)]).await;
    }
    story
}

/// B's 38 is on its way when A says that its target is gone.
#[tokio::test]
async fn an_owners_marker_that_overtakes_the_standbys_late_sample_ends_nothing() {
    let story = pair_apart_by(8).await;
    story.takes(&[stale("m", "a", 45)]).await;
    story.takes(&[ts("m", "b", 38)]).await;
    story.takes(&[ts("m", "b", 53)]).await;
    assert_eq!(story.stream("m{}"), "0 15 30 38 53");
    assert_eq!(story.takeovers("released"), 1);
}

/// One that has been silent for longer than 1.5 intervals is not waited for; its next sample brings the series back.
#[tokio::test]
async fn a_standby_that_is_later_than_that_brings_the_series_back() {
    let story = pair_apart_by(7).await;
    story.takes(&[stale("m", "a", 45)]).await;
    story.takes(&[ts("m", "b", 37)]).await;
    story.takes(&[ts("m", "b", 52)]).await;
    assert_eq!(story.stream("m{}"), "0 15 30 45! 52");
}

#[tokio::test]
async fn while_no_interval_is_known_any_sign_of_life_counts() {
    let story = Story::new();
    for series in [ts("m", "a", 0), ts("m", "b", 5), stale("m", "a", 200), ts("m", "b", 205)] {
        story.takes(&[series]).await;
    }
    assert_eq!(story.stream("m{}"), "0 5 205");
}

/// A was believed dead. Its marker from then, or from later, says nothing about B's series.
#[tokio::test]
async fn a_marker_that_comes_after_the_takeover_ends_nothing() {
    let story = Story::of_a_pair(&["m"]).await;
    for t in [51, 66] {
        story.takes(&[ts("m", "b", t)]).await;
    }
    for marker in [45, 66, 75] {
        story.takes(&[stale("m", "a", marker)]).await;
    }
    story.takes(&[ts("m", "b", 81)]).await;
    assert_eq!(story.stream("m{}"), "0 15 30 36 51 66 81");
}

/// All orders in which the two ends of a series may come, also late ones, in requests of their own and in one. B's life
/// goes on to 38; A's to 30.
#[tokio::test]
async fn a_series_that_ends_for_both_is_ended_once() {
    let last = || ts("m", "b", 38);
    let (a, b) = (|| stale("m", "a", 45), || stale("m", "b", 53));
    // A pod that B finds gone before A does; one whose owner restarts.
    let early = || stale("m", "b", 38);
    let stories: [(&str, Vec<Vec<Ts>>, &str); 8] = [
        ("the owner first", vec![vec![last()], vec![a()], vec![b()]], "0 15 30 38 53!"),
        ("the standby first", vec![vec![last()], vec![b()], vec![a()]], "0 15 30 45!"),
        ("in one request", vec![vec![last()], vec![a(), b()]], "0 15 30 38 53!"),
        ("in one request, reversed", vec![vec![last()], vec![b(), a()]], "0 15 30 38 53!"),
        ("the standby's is early", vec![vec![early()], vec![a()]], "0 15 30 45!"),
        ("the standby's is late", vec![vec![a()], vec![early()]], "0 15 30 38!"),
        ("its last sample is late", vec![vec![a()], vec![last()], vec![b()]], "0 15 30 38 53!"),
        ("said twice", vec![vec![early()], vec![a()], vec![a()], vec![early()], vec![b()]], "0 15 30 45!"),
    ];
    for (name, requests, expected) in stories {
        let story = pair_apart_by(8).await;
        for request in requests {
            story.takes(&request).await;
        }
        assert_eq!(story.stream("m{}"), expected, "{name}");
        assert_eq!(story.moves(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_series_that_ends_for_one_lives_in_the_other() {
    // Only the owner loses it: the standby goes on at once.
    let story = Story::of_a_pair(&["m"]).await;
    for series in [stale("m", "a", 45), ts("m", "b", 51), ts("m", "b", 66)] {
        story.takes(&[series]).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 36 51 66");
    // Only the standby loses it: nothing changes, and what it held does not come back as a fill.
    let story = Story::of_a_pair(&["m"]).await;
    for series in [stale("m", "b", 51), ts("m", "a", 60), ts("m", "a", 75)] {
        story.takes(&[series]).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 60 75");
    assert_eq!((story.takeovers("released"), story.takeovers("ended")), (0, 0));
}

/// The two first ones end, the third has it still.
#[tokio::test]
async fn a_third_replica_keeps_a_series_alive_that_two_have_lost() {
    let story = Story::of_a_pair(&["m"]).await;
    for series in
        [ts("m", "c", 40), stale("m", "a", 45), stale("m", "b", 51), ts("m", "c", 55), ts("m", "c", 70)]
    {
        story.takes(&[series]).await;
    }
    assert!(!story.stream("m{}").contains('!'), "{}", story.stream("m{}"));
    assert!(story.stream("m{}").ends_with("55 70"), "{}", story.stream("m{}"));
}

fn scrape(replica: &str, t: i64) -> Vec<Ts> {
    vec![ts("m", replica, t), up(replica, 1, t), ts("scrape_duration_seconds", replica, t)]
}

/// A failed scrape: `m` ends, `up` says so.
fn failed_scrape(replica: &str, t: i64) -> Vec<Ts> {
    vec![stale("m", replica, t), up(replica, 0, t), ts("scrape_duration_seconds", replica, t)]
}

async fn scraped_to_36() -> Story {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36)] {
        story.takes(&scrape(replica, t)).await;
    }
    story
}

/// A's scrape at 45 fails, B's at 51 does not. However what A says of it is cut and ordered, and even when B's 51 is
/// faster, nothing of the failure is upstream, and all series go on as B's.
#[tokio::test]
async fn a_scrape_that_fails_for_the_owner_alone_is_not_told() {
    let whole = failed_scrape("a", 45);
    let [marker, down, duration] = [0, 1, 2].map(|i| whole[i].clone());
    let orders = [
        vec![vec![marker.clone(), down.clone(), duration.clone()]],
        vec![vec![down.clone(), duration.clone(), marker.clone()]],
        vec![vec![marker.clone()], vec![down.clone(), duration.clone()]],
        vec![vec![down.clone()], vec![marker.clone()], vec![duration.clone()]],
        vec![vec![down], vec![duration], vec![marker]],
    ];
    for (i, order) in orders.into_iter().enumerate() {
        for b_is_faster in [false, true] {
            let story = scraped_to_36().await;
            if b_is_faster {
                story.takes(&scrape("b", 51)).await;
            }
            for request in &order {
                story.takes(request).await;
            }
            if !b_is_faster {
                story.takes(&scrape("b", 51)).await;
            }
            story.takes(&scrape("b", 66)).await;
            // A still cannot, and then it can.
            story.takes(&failed_scrape("a", 60)).await;
            story.takes(&scrape("a", 75)).await;
            story.takes(&scrape("b", 81)).await;
            let name = format!("order {i}, B is faster: {b_is_faster}");
            assert_eq!(story.stream("m{}"), "0 15 30 36 51 66 81", "{name}");
            assert_eq!(story.stream("scrape_duration_seconds{}"), "0 15 30 36 51 66 81", "{name}");
            assert_eq!(story.stream("up{}"), "0=1 15=1 30=1 36=1 51=1 66=1 81=1", "{name}");
            assert_eq!(story.moves(), 1, "{name}");
        }
    }
}

/// The standby's failures are its own.
#[tokio::test]
async fn a_scrape_that_fails_for_the_standby_alone_changes_nothing() {
    let story = scraped_to_36().await;
    for (replica, t) in [("a", 45), ("b", 51), ("a", 60), ("b", 66), ("a", 75)] {
        let request = if replica == "a" { scrape("a", t) } else { failed_scrape("b", t) };
        story.takes(&request).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 45 60 75");
    assert_eq!(story.stream("up{}"), "0=1 15=1 30=1 45=1 60=1 75=1");
    assert_eq!((story.moves(), story.takeovers("released")), (0, 0));
}

/// A standby whose `up` was 0 does not fill a gap of the owner's with it.
#[tokio::test]
async fn a_standbys_failure_fills_no_gap() {
    let story = scraped_to_36().await;
    story.takes(&failed_scrape("b", 51)).await;
    story.takes(&scrape("a", 75)).await;
    assert_eq!(story.stream("up{}"), "0=1 15=1 30=1 36=1 75=1");
}

/// A target that is gone for both is told to be gone: one marker, and `up` at 0.
#[tokio::test]
async fn a_target_that_both_lose_is_told_once() {
    let story = scraped_to_36().await;
    // Markers come before `up`, as they do when a scrape fails.
    for (replica, t) in [("a", 45), ("b", 51), ("a", 60), ("b", 66), ("a", 75)] {
        story
            .takes(&if t > 51 { failed_scrape(replica, t)[1..].to_vec() } else { failed_scrape(replica, t) })
            .await;
    }
    let markers = story.stream("m{}").matches('!').count();
    assert_eq!((story.stream("m{}").as_str(), markers), ("0 15 30 36 51!", 1));
    assert!(story.stream("up{}").ends_with("60=0 75=0"), "{}", story.stream("up{}"));
    assert_eq!(story.moves(), 0, "the owner tells it");
    // It is back for both.
    for (replica, t) in [("a", 90), ("b", 96), ("a", 105), ("b", 111)] {
        story.takes(&scrape(replica, t)).await;
    }
    assert!(story.stream("m{}").ends_with("51! 90 105"), "{}", story.stream("m{}"));
    assert!(story.stream("up{}").ends_with("75=0 90=1 105=1"), "{}", story.stream("up{}"));
}
