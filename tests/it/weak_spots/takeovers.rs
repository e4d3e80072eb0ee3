//! Deaths of an owner: two standbys at the same moment, and all series of a target after the one that was first.

use super::story::{Story, go_on, ts, unavailable};
use crate::support::Ts;
use promdedup::forward::Answer;
use std::collections::{BTreeMap, BTreeSet};

/// A at full quarters until 30, B 5 s and C 10 s later until 55. Then A is dead, and nobody has noticed yet.
async fn a_dead_owner_with_two_standbys(names: &[String]) -> Story {
    let story = Story::new();
    let steps =
        [("a", 0), ("b", 5), ("c", 10), ("a", 15), ("b", 20), ("c", 25), ("a", 30), ("b", 35), ("c", 40)];
    for (replica, t) in steps.into_iter().chain([("b", 50), ("c", 55)]) {
        story.takes(&of(names, replica, t)).await;
    }
    story
}

fn of(names: &[String], replica: &str, t: i64) -> Vec<Ts> {
    names.iter().map(|name| ts(name, replica, t)).collect()
}

/// One is in the air when the other one comes. Whoever lands first owns the series; there is one stream.
#[tokio::test]
async fn of_two_standbys_that_take_over_at_once_one_wins() {
    let (b, c) = (("b", 65), ("c", 70));
    for (first, second, answer, expected) in [
        (b, c, Answer::Taken, "0 15 30 50 65 80 95"),
        (c, b, Answer::Taken, "0 15 30 50 70 85 100"),
        (b, c, unavailable(), "0 15 30 50 70 85 100"),
        (c, b, unavailable(), "0 15 30 50 65 80 95"),
    ] {
        let names = ["m".to_owned(), "n".to_owned()];
        let story = a_dead_owner_with_two_standbys(&names).await;
        let flies = story.flies(answer.clone(), of(&names, first.0, first.1)).await;
        let waits = story.comes(of(&names, second.0, second.1)).await;
        assert!(!waits.is_finished());
        flies.lands().await;
        waits.await.unwrap();
        // Both bring again what they were not acknowledged.
        for (replica, t) in [second, first, ("b", 80), ("c", 85), ("b", 95), ("c", 100)] {
            story.takes(&of(&names, replica, t)).await;
        }
        for series in ["m{}", "n{}"] {
            assert_eq!(story.stream(series), expected, "{first:?} before {second:?}, {answer:?}");
        }
        let counts = (story.takeovers("silent"), story.takeovers("align"), story.moves());
        assert_eq!(counts, (1, 1, 1), "{first:?} before {second:?}, {answer:?}");
    }
}

/// Real threads, and each standby has the series in its own order: each claims what the other one wants next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_standbys_that_claim_in_opposite_order_do_not_block_each_other() {
    let names: Vec<_> = (0..100).map(|i| format!("s{i}")).collect();
    for _ in 0..20 {
        let story = a_dead_owner_with_two_standbys(&names).await;
        let (mut there, mut back) = (of(&names, "b", 65), of(&names, "c", 70));
        back.reverse();
        there.rotate_left(30);
        let tasks = [there, back].map(|series| tokio::spawn(story.ask.clone().owned(series)));
        for task in tasks {
            let reply = task.await.unwrap();
            assert_eq!((reply.status, reply.text.as_str()), (204, ""));
        }
        for (replica, t) in [("b", 80), ("c", 85), ("b", 95), ("c", 100)] {
            story.takes(&of(&names, replica, t)).await;
        }
        let streams: BTreeSet<_> = names.iter().map(|name| story.stream(&format!("{name}{{}}"))).collect();
        assert_eq!(streams.len(), 1, "{streams:?}");
        let stream = streams.first().unwrap().as_str();
        assert!(["0 15 30 50 65 80 95", "0 15 30 50 70 85 100"].contains(&stream), "{stream}");
        // While the one that gives way still has the target reserved, the other one's are silent ones, too.
        assert_eq!(story.takeovers("silent") + story.takeovers("align"), 100);
        assert!(story.moves() <= 1);
    }
}

const BUCKETS: usize = 8;

/// The `le` buckets of a histogram at one scrape, cut into two shards as a sender's queue would.
fn shards(replica: &str, t: i64) -> [Vec<Ts>; 2] {
    [0, 1].map(|shard| {
        let own = (0..BUCKETS).filter(|le| le % 2 == shard);
        own.map(|le| ts("h_bucket", replica, t).label("le", &le.to_string())).collect()
    })
}

fn scrape(replica: &str, t: i64) -> Vec<Ts> {
    shards(replica, t).concat()
}

/// Which buckets upstream has of each time.
fn scrapes(story: &Story) -> BTreeMap<i64, usize> {
    let mut scrapes = BTreeMap::new();
    for le in 0..BUCKETS {
        for t in story.stream(&format!("h_bucket{{le={le}}}")).split(' ') {
            *scrapes.entry(t.parse().unwrap()).or_default() += 1;
        }
    }
    scrapes
}

async fn histogram_to_30() -> Story {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36)] {
        story.takes(&scrape(replica, t)).await;
    }
    story
}

fn whole(times: &[i64]) -> BTreeMap<i64, usize> {
    times.iter().map(|t| (*t, BUCKETS)).collect()
}

/// Buckets that come from different scrapes do not agree with each other. However the dead owner's successor cuts its
/// scrapes, upstream has whole ones only, each of one replica.
#[tokio::test]
async fn the_buckets_of_a_histogram_change_hands_together() {
    for cut in 0..4 {
        let story = histogram_to_30().await;
        for t in [51, 66, 81] {
            let [even, odd] = shards("b", t);
            match cut {
                0 => story.takes(&[even, odd].concat()).await,
                1 => {
                    story.takes(&even).await;
                    story.takes(&odd).await;
                }
                2 => {
                    story.takes(&odd).await;
                    story.takes(&even).await;
                }
                // The shard that takes over fails; the other one overtakes it; then it comes again.
                _ => {
                    let flight = story.tries_to_fly(unavailable(), even.clone()).await;
                    story.takes(&odd).await;
                    if let Some(flight) = flight {
                        assert_eq!(flight.lands().await, 503);
                        story.takes(&even).await;
                    }
                }
            }
        }
        // A comes back, and is a standby everywhere.
        for (replica, t) in [("a", 90), ("b", 96), ("a", 105), ("b", 111)] {
            story.takes(&scrape(replica, t)).await;
        }
        assert_eq!(scrapes(&story), whole(&[0, 15, 30, 36, 51, 66, 81, 96, 111]), "cut {cut}");
        assert_eq!(story.takeovers("silent") + story.takeovers("align"), BUCKETS as u64, "cut {cut}");
        assert_eq!(story.moves(), 1, "cut {cut}");
    }
}

/// A died in the middle of a scrape's delivery. The halves are apart for an interval, not longer, and B's scrapes are whole.
#[tokio::test]
async fn a_scrape_that_was_cut_by_death_is_the_last_that_is_not_whole() {
    let story = histogram_to_30().await;
    story.takes(&shards("a", 45)[0]).await;
    for t in [51, 66, 81, 96] {
        story.takes(&scrape("b", t)).await;
    }
    let mut expected = whole(&[0, 15, 30, 51, 66, 81, 96]);
    expected.extend([(36, BUCKETS / 2), (45, BUCKETS / 2)]);
    assert_eq!(scrapes(&story), expected);
    assert_eq!(story.moves(), 1);
}

/// Series of the target that B has had since A died, before or behind the one that takes over, and one that ended.
#[tokio::test]
async fn series_born_and_gone_meanwhile_follow_within_a_scrape() {
    for young_first in [false, true] {
        let story = Story::of_a_pair(&["m", "old"]).await;
        for t in [51, 66, 81, 96] {
            let mut request = vec![ts("m", "b", t)];
            if t >= 66 {
                request.insert(usize::from(!young_first), ts("young", "b", t));
            }
            story.takes(&request).await;
        }
        // A is back, with `young` and `old`.
        for (replica, t) in [("a", 105), ("b", 111), ("a", 120), ("b", 126), ("a", 135)] {
            let mut request = vec![ts("m", replica, t), ts("young", replica, t)];
            if replica == "a" {
                request.push(ts("old", replica, t));
            }
            story.takes(&request).await;
        }
        assert_eq!(story.stream("m{}"), "0 15 30 36 51 66 81 96 111 126", "{young_first}");
        assert_eq!(story.stream("young{}"), "66 81 96 111 126", "{young_first}");
        assert_eq!(story.stream("old{}"), "0 15 30 36 105 120 135", "only A has it, and it stays A's");
        assert_eq!(story.moves(), 1);
    }
}

/// Another target of the same replicas, which A scrapes still, does not move.
#[tokio::test]
async fn another_target_of_the_same_group_stays() {
    let story = Story::new();
    let there = |replica, t| ts("m", replica, t).label("instance", "2");
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36), ("b", 51), ("b", 66)]
    {
        story.takes(&[ts("m", replica, t)]).await;
    }
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36), ("a", 45), ("b", 51)]
    {
        story.takes(&[there(replica, t)]).await;
    }
    go_on().await;
    assert_eq!(story.stream("m{}"), "0 15 30 36 51 66");
    assert_eq!(story.stream("m{instance=2}"), "0 15 30 45");
    assert_eq!(story.moves(), 1);
}
