//! The table at its bound, while it grows, and while it forgets: reservations stay, and nothing is lost or doubled.

use super::story::{Story, go_on, ts, unavailable};
use crate::support::{Ts, sent};
use promdedup::forward::Answer;
use promdedup::window::IDLE_TICKS;
use std::collections::BTreeMap;

fn forget_the_idle(story: &Story) {
    let window = story.ask.pipeline.window();
    (0..IDLE_TICKS).for_each(|_| window.advance_tick());
    let mut from = window.sweep(0, 16);
    while from != 0 {
        from = window.sweep(from, 16);
    }
}

/// Interleaved and stripped, upstream would refuse part of two replicas' newcomers. With their labels both pass.
#[tokio::test]
async fn newcomers_to_a_full_table_pass_with_their_replica_labels() {
    let story = Story::with(|wishes| wishes.series_max = 1);
    story.lives_to_30(&["m"]).await;
    for (replica, t) in [("a", 45), ("b", 51), ("a", 60)] {
        story.takes(&[ts("new", replica, t), ts("m", replica, t)]).await;
    }
    assert_eq!(story.stream("m{}"), "0 15 30 45 60", "what is known is deduplicated still");
    assert_eq!(story.stream("new{prometheus_replica=a}"), "45 60");
    assert_eq!(story.stream("new{prometheus_replica=b}"), "51");
    assert_eq!((story.ask.pipeline.window().full(), story.series()), (3, 1));
    // A conflict of theirs is told as any other, and a failure costs nothing.
    story.fake.next([unavailable()]);
    assert_eq!(story.says(&[ts("new", "b", 66)]).await, 503);
    story.takes(&[ts("new", "b", 66)]).await;
    // Room returns, and the next one is a series like others.
    forget_the_idle(&story);
    story.takes(&[ts("new", "a", 75)]).await;
    story.takes(&[ts("new", "b", 81)]).await;
    assert_eq!((story.stream("new{}").as_str(), story.series()), ("75", 1));
}

/// All that was in it has gone, as after a rollout that gives each series another label. But while upstream is away, nobody has.
#[tokio::test]
async fn a_full_table_forgets_who_is_gone_also_where_nobody_but_newcomers_comes() {
    let story = Story::with(|wishes| wishes.series_max = 1);
    story.lives_to_30(&["m"]).await;
    let window = story.ask.pipeline.window();
    for (works, evictions) in [(false, 0), (true, 1)] {
        for t in 0..2 * i64::from(IDLE_TICKS) {
            if works {
                story.takes(&[ts("new", "a", 45 + t)]).await;
            } else {
                story.fake.next([unavailable()]);
                assert_eq!(story.says(&[ts("new", "a", 45 + t)]).await, 503);
            }
            window.advance_tick_if_landed();
            window.sweep(0, 16);
        }
        assert_eq!((window.evictions(), window.series()), (evictions, 1), "upstream works: {works}");
    }
    assert!(story.stream("new{}").ends_with(" 108"), "it has room now, and is a series like others");
}

/// What is in the air is not idle, however long that takes, whether its entry was there before or made by the flight.
#[tokio::test]
async fn an_entry_is_kept_while_its_reservation_is_open() {
    for (answer, status) in [(Answer::Taken, 204), (unavailable(), 503)] {
        let story = Story::of_a_pair(&["m", "idle"]).await;
        let request = vec![ts("m", "a", 45), ts("new", "a", 45)];
        let flight = story.flies(answer, request.clone()).await;
        let leaner = story.comes(vec![ts("m", "b", 36), ts("new", "b", 36)]).await;
        forget_the_idle(&story);
        assert_eq!((story.series(), story.ask.pipeline.window().evictions()), (2, 1), "`idle` alone is gone");
        assert_eq!(flight.lands().await, status);
        assert_eq!(leaner.await.unwrap().status, status);
        let before = story.fake.requests();
        story.takes(&request).await;
        assert_eq!(story.fake.requests() - before, usize::from(status == 503));
        assert_eq!((story.stream("m{}").as_str(), story.stream("new{}").as_str()), ("0 15 30 45", "45"));
        // Idle after that, all are forgotten, and their target with them.
        forget_the_idle(&story);
        assert_eq!((story.series(), story.ask.pipeline.window().target_count()), (0, 0));
    }
}

/// A request waits for a flight; when that has landed, the series is forgotten before the request looks again.
#[tokio::test]
async fn a_series_that_is_forgotten_while_a_request_waits_is_made_anew() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    let m = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    let n = story.flies(Answer::Taken, vec![ts("n", "a", 45)]).await;
    let waits = story.comes(vec![ts("m", "a", 60), ts("n", "a", 60)]).await;
    assert_eq!(m.lands().await, 204);
    go_on().await;
    assert!(!waits.is_finished());
    forget_the_idle(&story);
    assert_eq!(story.series(), 1, "m is gone, n is in the air");
    assert_eq!(n.lands().await, 204);
    assert_eq!(waits.await.unwrap().status, 204);
    assert_eq!(
        (story.stream("m{}").as_str(), story.stream("n{}").as_str()),
        ("0 15 30 45 60", "0 15 30 45 60")
    );
}

/// Two replicas with several shards each fill the table from all sides while it grows and is swept: every series goes out
/// once a scrape, none is lost, and none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_grows_under_load_loses_and_doubles_nothing() {
    const SERIES: usize = 4_000;
    const SHARD: usize = 100;
    let story = Story::with(|wishes| wishes.series_max = SERIES);
    let sweeping = tokio::spawn({
        let story = story.clone();
        async move {
            loop {
                let _ = story.ask.pipeline.window().sweep(0, u32::MAX);
                tokio::task::yield_now().await;
            }
        }
    });
    for t in [0, 15, 30] {
        let mut tasks = Vec::new();
        for shard in 0..SERIES / SHARD {
            for replica in ["a", "b"] {
                let names = shard * SHARD..(shard + 1) * SHARD;
                let mut series: Vec<Ts> = names.map(|i| ts(&format!("s{i}"), replica, t)).collect();
                if replica == "b" {
                    series.reverse();
                }
                tasks.push(tokio::spawn(story.ask.clone().owned(series)));
            }
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().status, 204);
        }
    }
    sweeping.abort();
    let mut stored: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in sent(&story.fake) {
        let (series, times) = line.split_once(' ').unwrap();
        stored.entry(series.to_owned()).or_default().extend(times.split(' ').map(str::to_owned));
    }
    assert_eq!((stored.len(), story.series()), (SERIES, SERIES));
    for (series, times) in stored {
        assert_eq!(times, ["0", "15", "30"], "{series}");
    }
    assert_eq!((story.ask.pipeline.window().full(), story.moves()), (0, 0));
    let forwarded = story.ask.outcome("forwarded");
    assert_eq!((forwarded, story.ask.outcome("duplicate")), (3 * SERIES as u64, 3 * SERIES as u64));
}

/// The same at the bound: those for whom there is no room go as they came, those who are in are deduplicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_fills_up_under_load_keeps_its_bound() {
    const SERIES: usize = 600;
    const ROOM: usize = 250;
    let story = Story::with(|wishes| wishes.series_max = ROOM);
    for t in [0, 15] {
        let mut tasks = Vec::new();
        for i in 0..SERIES / 20 {
            for replica in ["a", "b"] {
                let series = (20 * i..20 * i + 20).map(|i| ts(&format!("s{i}"), replica, t)).collect();
                tasks.push(tokio::spawn(story.ask.clone().owned(series)));
            }
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().status, 204);
        }
        assert_eq!(story.series(), ROOM);
    }
    for i in 0..SERIES {
        let stripped = story.stream(&format!("s{i}{{}}"));
        let labelled =
            ["a", "b"].map(|replica| story.stream(&format!("s{i}{{prometheus_replica={replica}}}")));
        match stripped.as_str() {
            "0 15" => {}
            "" => assert_eq!(labelled, ["0 15", "0 15"], "s{i}"),
            other => panic!("s{i}: {other}"),
        }
    }
}
