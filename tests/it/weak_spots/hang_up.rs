//! Senders that hang up: what they had in the air goes on, and what is dropped all the same leaves nothing reserved.

use super::story::{Story, conflict, go_on, ts};
use crate::peer::{Line, config, soon};
use crate::support::{body, pack, sent};
use promdedup::forward::Answer;
use promdedup::overhead::CpuTime;
use promdedup::receive::{PhaseControl, Receiver};
use promdedup::socket::NetworkBytes;
use promdedup::telemetry::LimitHits;
use prometheus::Registry;
use std::future::pending;

/// Nobody answers for it any more: it may be upstream or not. Who leans on it is told to come again, and a conflict
/// with it later is no loss.
#[tokio::test]
async fn a_flight_that_vanishes_counts_as_one_without_an_answer() {
    let story = Story::of_a_pair(&["m"]).await;
    let request = [ts("m", "a", 45), ts("new", "a", 45)];
    let flight = story.flies(Answer::Taken, request.to_vec()).await;
    let leaner = story.comes(vec![ts("m", "b", 36)]).await;
    let waits = story.comes(vec![ts("m", "b", 60)]).await;
    flight.vanishes().await;
    assert_eq!(soon(leaner).await.unwrap().status, 503);
    assert_eq!(soon(waits).await.unwrap().status, 204);
    assert_eq!(story.series(), 1, "what it created is forgotten");
    story.fake.next([conflict()]);
    story.takes(&request[..1]).await;
    assert_eq!(story.benign("retry"), 1);
}

/// Neither one that waits for a flight nor one that leans on it has anything reserved.
#[tokio::test]
async fn requests_dropped_while_they_wait_leave_nothing() {
    let story = Story::of_a_pair(&["m"]).await;
    let flight = story.flies(Answer::Taken, vec![ts("m", "a", 45)]).await;
    let waits = story.comes(vec![ts("z", "b", 60), ts("m", "b", 81)]).await;
    let leans = story.comes(vec![ts("m", "b", 36)]).await;
    for dropped in [waits, leans] {
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
    }
    assert_eq!(story.series(), 1);
    story.takes(&[ts("z", "a", 50)]).await;
    assert_eq!(flight.lands().await, 204);
    story.takes(&[ts("m", "a", 60), ts("z", "a", 65)]).await;
    assert_eq!((story.stream("m{}").as_str(), story.stream("z{}").as_str()), ("0 15 30 45 60", "50 65"));
}

/// Over real connections: the sender is gone before upstream has answered. Its flight lands, and its retry is a duplicate.
#[tokio::test]
async fn a_sender_that_hangs_up_leaves_its_flight_in_the_air() {
    const HEADERS: &str = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";
    let story = Story::new();
    let registry = Registry::new();
    let (network, limits) = (NetworkBytes::new(&registry).unwrap(), LimitHits::new(&registry).unwrap());
    let config = config("http://127.0.0.1:1/", &[]).receive;
    let receiver =
        Receiver::bind(config, story.ask.pipeline.clone(), &registry, &network, &CpuTime::off(), &limits)
            .unwrap();
    let address = receiver.address();
    let running = tokio::spawn(async move { receiver.run(&PhaseControl::default(), pending()).await });

    let packed = pack(&body(&[ts("m", "a", 0)], 0));
    let gate = story.fake.hold(Answer::Taken);
    let mut line = Line::open(address).await;
    line.post("/api/v1/receive", HEADERS, &packed).await;
    soon(gate.taken()).await;
    drop(line);
    // The sender's retry comes on a new connection while the flight is in the air.
    let mut line = Line::open(address).await;
    line.post("/api/v1/receive", HEADERS, &packed).await;
    go_on().await;
    assert_eq!((story.fake.requests(), story.series()), (1, 1));
    gate.open();
    assert_eq!(soon(line.hear()).await.status, 204);
    assert_eq!(sent(&story.fake), ["m{} 0"], "once, and not again");
    line.post("/api/v1/receive", HEADERS, &pack(&body(&[ts("m", "a", 15)], 0))).await;
    assert_eq!(soon(line.hear()).await.status, 204);
    assert_eq!(story.stream("m{}"), "0 15");
    running.abort();
}
