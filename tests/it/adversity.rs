//! What the pipeline makes of failing upstreams and hostile senders: cases that once went wrong.

use crate::support::{Ask, Ts, body, pipeline, sent};
use promdedup::forward::Answer;

fn ts(name: &str, replica: &str, seconds: i64) -> Ts {
    Ts::new(name).replica(replica).at(seconds)
}

/// What the owner showed in vain was not shown, or its target would not follow the standby that takes over.
#[tokio::test]
async fn a_target_moves_although_its_dead_owner_was_answered_503() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("b", 0), ("a", 1), ("b", 15), ("a", 16), ("b", 30), ("a", 31)] {
        assert_eq!(pipeline.ask(&[ts("m", replica, t)]).await.status, 204);
    }
    fake.next([Answer::Unavailable { status: 503, text: String::new() }]);
    assert_eq!(pipeline.ask(&[ts("m", "b", 60)]).await.status, 503);
    for (replica, t) in [("a", 46), ("a", 61), ("b", 62), ("a", 76)] {
        assert_eq!(pipeline.ask(&[ts("m", replica, t)]).await.status, 204);
    }
    assert_eq!(sent(&fake)[3..], ["m{} 31 60", "m{} 46 61", "m{} 76"]);
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 1);
}

/// Upstream refuses a whole batch for one exemplar it cannot read, so that must not get there.
#[tokio::test]
async fn what_is_broken_deep_inside_is_refused_with_its_place() {
    let (pipeline, fake) = pipeline();
    let series = body(&[ts("m", "a", 0), ts("n", "a", 0)], 0);
    // Field 3 of the last series: an exemplar that ends inside a key. Field 3 of the request: such metadata.
    let broken = [0x1a, 2, 0xff, 0xff];
    let mut exemplar = series.clone();
    exemplar.extend(broken);
    let second = series.len() / 2;
    exemplar[second + 1] += 4;
    let reply = pipeline.raw(&exemplar).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains(&format!("byte {} in series 2", series.len() + 2)), "{}", reply.text);
    let reply = pipeline.raw(&[&series[..], &broken[..]].concat()).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains(&format!("byte {}", series.len() + 2)), "{}", reply.text);
    assert_eq!(fake.requests(), 0);
}

/// Falling times are put in order without repeating the labels, or looking at the whole series, for each sample.
#[tokio::test]
async fn a_long_series_of_falling_times_costs_no_more_than_its_bytes() {
    let (pipeline, fake) = pipeline();
    let label = "x".repeat(1_000);
    let falling = (0..4_000).rev().fold(ts("m", "a", 4_000).label("z", &label), Ts::at);
    let reply = pipeline.ask(&[falling]).await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    let lines = sent(&fake);
    assert_eq!(lines.len(), 1, "one series, not one a sample");
    let times: Vec<_> = lines[0].split(' ').skip(1).map(str::to_owned).collect();
    assert_eq!(times, (0..=4_000).map(|t| t.to_string()).collect::<Vec<_>>());
}

/// A series that finds no room is looked at once, however many samples it brings.
#[tokio::test]
async fn a_full_window_counts_a_series_once_a_delivery() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.series_max = 1);
    pipeline.ask(&[ts("m", "a", 0)]).await;
    assert_eq!(pipeline.ask(&[ts("n", "a", 0).at(15).at(30)]).await.status, 204);
    assert_eq!(sent(&fake)[1..], ["n{prometheus_replica=a} 0 15 30"]);
    assert_eq!(pipeline.pipeline.window().full(), 1);
}
