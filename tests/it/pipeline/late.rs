//! Where upstream takes late samples: what comes below the watermark, and who may deliver it.

use super::ts;
use crate::support::{Ask, Ts, sent};
use promdedup::forward::Answer;

#[tokio::test]
async fn late_samples_of_the_owner_pass_where_upstream_takes_them() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.out_of_order_window_ms = 60_000);
    for t in [0, 15, 45, 30] {
        assert_eq!(pipeline.ask(&[ts("m", "a", t)]).await.status, 204);
    }
    pipeline.ask(&[ts("m", "b", 20)]).await;
    assert_eq!(pipeline.retry(&[ts("m", "a", 31)], 1).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 45", "m{} 30"], "a standby's and a retry's do not");
}

/// It may have to be forwarded, so it cannot be acknowledged as a duplicate of what is on its way.
#[tokio::test]
async fn a_late_sample_waits_for_the_flight_that_carries_its_series() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.out_of_order_window_ms = 60_000);
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let gate = fake.hold(Answer::Taken);
    let first = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 30)]));
    gate.taken().await;
    let late = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 15)]));
    tokio::task::yield_now().await;
    gate.open();
    assert_eq!((first.await.unwrap().status, late.await.unwrap().status), (204, 204));
    assert_eq!(sent(&fake), ["m{} 0", "m{} 30", "m{} 15"]);
}

/// Thanos may have stored the first by the time that it refuses the second, so order is only changed where it must be.
#[tokio::test]
async fn the_senders_order_is_kept_while_no_series_falls() {
    let (pipeline, fake) = Ask::with(|_| {});
    let batch: Vec<_> = (0..50).map(|i| ts(&format!("m{i}"), "a", 100 - i)).collect();
    // A series that comes twice with one time does not fall.
    pipeline.ask(&[&batch[..], &[ts("m0", "a", 100)]].concat()).await;
    let expected: Vec<_> = (0..50).map(|i| format!("m{i}{{}} {}", 100 - i)).collect();
    assert_eq!(sent(&fake), expected);
}

/// A series is found among the many of a request when it comes once more, and older.
#[tokio::test]
async fn one_series_that_falls_is_found_among_many() {
    for falling in [0, 1, 24, 49] {
        let (pipeline, fake) = Ask::with(|_| {});
        let batch: Vec<_> = (0..50).map(|i| ts(&format!("m{i}"), "a", 200)).collect();
        let older = ts(&format!("m{falling}"), "a", 100);
        assert_eq!(pipeline.ask(&[&batch[..], &[older]].concat()).await.status, 204);
        assert!(sent(&fake).contains(&format!("m{falling}{{}} 100 200")), "m{falling}");
        assert_eq!(sent(&fake).len(), 50);
    }
}

/// A large request is worked on in pieces. Of a series that comes in two of them upstream would drop what is older.
#[tokio::test]
async fn a_series_that_falls_leaves_in_order_however_large_its_request_is() {
    let (pipeline, fake) = Ask::with(|wishes| {
        (wishes.series_max, wishes.body_bytes_max) = (10_000, 16 << 20);
    });
    let long = "v".repeat(400);
    let of = |i: usize, t| ts(&format!("m{i}"), "a", t).label("long", &long);
    let mut batch: Vec<_> = (0..5_000).map(|i| of(i, 200)).collect();
    batch.extend([of(0, 100), of(2_500, 100)]);
    assert_eq!(pipeline.ask(&batch).await.status, 204);
    let mut falling: Vec<_> = sent(&fake).into_iter().filter(|line| line.contains(" 100")).collect();
    falling.sort();
    let expected = [0, 2_500].map(|i| format!("m{i}{{long={long}}} 100 200"));
    assert_eq!((falling, sent(&fake).len()), (expected.to_vec(), 5_000));
}

#[tokio::test]
async fn exemplars_alone_go_once_beside_falling_times() {
    let (pipeline, fake) = Ask::with(|_| {});
    pipeline.ask(&[ts("e", "a", 0), ts("m", "a", 0)]).await;
    let alone = |ts: Ts| ts.no_sample().exemplar();
    let falling = ts("m", "a", 30).at(15);
    pipeline
        .ask(&[alone(ts("e", "a", 0)), falling, alone(Ts::new("single")), alone(ts("new", "a", 0))])
        .await;
    assert_eq!(sent(&fake)[2..], ["m{} 15 30", "e{} e", "single{} e", "new{} e"]);
}

/// Only samples of replicas are put in order: what nobody deduplicates leaves as it came.
#[tokio::test]
async fn falling_times_without_a_replica_leave_as_they_came() {
    let (pipeline, fake) = Ask::with(|_| {});
    pipeline.ask(&[Ts::new("single").at(30).at(15), ts("m", "a", 60).at(45)]).await;
    assert_eq!(sent(&fake), ["single{} 30 15", "m{} 45 60"]);
    pipeline.ask(&[Ts::new("single").at(60).at(45)]).await;
    assert_eq!(sent(&fake)[2..], ["single{} 60 45"]);
}
