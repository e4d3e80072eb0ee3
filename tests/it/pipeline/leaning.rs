//! Duplicates of what another request is just sending.

use super::{STALE, ts};
use crate::support::{Ts, pipeline, sent};
use promdedup::forward::Answer;

/// One of two flights fails: only the duplicate that leaned on it has to come again, but then the request does.
#[tokio::test]
async fn a_request_that_leans_on_two_flights_needs_both() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15] {
        pipeline.ask(&[ts("m", "a", t), ts("n", "a", t)]).await;
    }
    let down = Answer::Unavailable { status: 503, text: String::new() };
    let gates = [fake.hold(Answer::Taken), fake.hold(down)];
    let mut owners = Vec::new();
    for (name, gate) in ["m", "n"].into_iter().zip(&gates) {
        owners.push(tokio::spawn(pipeline.clone().owned(vec![ts(name, "a", 30)])));
        gate.taken().await;
    }
    let standby = tokio::spawn(pipeline.clone().owned(vec![ts("m", "b", 21), ts("n", "b", 21)]));
    tokio::task::yield_now().await;
    gates.iter().for_each(|gate| gate.open());
    let reply = standby.await.unwrap();
    assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)));
    assert!(
        reply.text.starts_with("1 of 2 samples have to be sent again: upstream did not take"),
        "{}",
        reply.text
    );
    for (owner, status) in owners.into_iter().zip([204, 503]) {
        assert_eq!(owner.await.unwrap().status, status);
    }
}

/// Or the owner's end would be taken for the end of the series.
#[tokio::test]
async fn who_leaned_is_known_to_be_alive() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15] {
        pipeline.ask(&[ts("m", "a", t)]).await;
    }
    let gate = fake.hold(Answer::Taken);
    let owner = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 30)]));
    gate.taken().await;
    let standby = tokio::spawn(pipeline.clone().owned(vec![ts("m", "b", 29)]));
    tokio::task::yield_now().await;
    gate.open();
    assert_eq!((owner.await.unwrap().status, standby.await.unwrap().status), (204, 204));
    let marker = Ts::new("m").replica("a").bits_at(STALE, 45);
    assert_eq!(pipeline.ask(&[marker]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 30"], "b has shown 29");
}
