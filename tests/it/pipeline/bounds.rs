//! What is answered when a bound is reached, and that nothing is lost by it.

use super::ts;
use crate::support::{Ask, body, pipeline, sent};
use promdedup::forward::Answer;
use std::time::Duration;

/// The sender keeps what it could not be told about in time.
#[tokio::test]
async fn who_waits_too_long_for_a_flight_of_others_is_told_to_come_again() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.busy_wait_max = Duration::from_millis(1));
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let gate = fake.hold(Answer::Taken);
    let first = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 15)]));
    gate.taken().await;
    let reply = pipeline.ask(&[ts("n", "a", 30), ts("m", "a", 30)]).await;
    assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)));
    assert!(reply.text.starts_with("2 of 2 samples have to be sent again: series of the request are in"));
    gate.open();
    assert_eq!(first.await.unwrap().status, 204);
    assert_eq!(pipeline.ask(&[ts("n", "a", 30), ts("m", "a", 30)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "n{} 30", "m{} 30"]);
    assert_eq!(pipeline.outcome("failed"), 2);
}

/// Metadata and what nobody knows go with the first piece, once.
#[tokio::test]
async fn metadata_of_a_batch_that_is_split_goes_once() {
    let (pipeline, fake) = pipeline();
    fake.series_max(2);
    let batch: Vec<_> = (0..5).map(|i| ts(&format!("m{i}"), "a", 0)).collect();
    assert_eq!(pipeline.raw(&body(&batch, 3)).await.status, 204);
    assert_eq!(fake.metadata_stored(), 3);
}
