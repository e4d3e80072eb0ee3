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

/// Only samples of replicas are put in order: what nobody deduplicates leaves as it came.
#[tokio::test]
async fn falling_times_without_a_replica_leave_as_they_came() {
    let (pipeline, fake) = Ask::with(|_| {});
    pipeline.ask(&[Ts::new("single").at(30).at(15), ts("m", "a", 60).at(45)]).await;
    assert_eq!(sent(&fake), ["single{} 30 15", "m{} 45 60"]);
    pipeline.ask(&[Ts::new("single").at(60).at(45)]).await;
    assert_eq!(sent(&fake)[2..], ["single{} 60 45"]);
}
