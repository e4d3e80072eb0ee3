//! Observe mode: everything goes on as it came, whatever is found in it, and what deduplication would have done is counted.

use super::ts;
use crate::support::{Ask, Fake, NOW_MS, Ts, Wishes, body, pack};
use promdedup::forward::Answer;
use promdedup::pipeline::{Protocol, Reply};

fn observing(wish: impl FnOnce(&mut Wishes)) -> (Ask, Fake) {
    Ask::with(|wishes| {
        wishes.observes = true;
        wish(wishes);
    })
}

/// What upstream said, as it is.
fn echo(reply: &Reply) -> (u16, &[u8]) {
    let echo = reply.echo.as_ref().expect("upstream's words");
    assert_eq!((reply.status, reply.text.as_str()), (echo.status, ""));
    (echo.status, &echo.body)
}

fn bytes(ask: &Ask, stage: &str) -> u64 {
    ask.metric("promdedup_body_bytes_total", &[("stage", stage)])
}

#[tokio::test]
async fn a_pair_goes_on_as_it_came_and_is_counted_as_dedup_would_have_it() {
    let (observed, upstream) = observing(|_| {});
    let (deduplicated, _) = Ask::with(|_| {});
    let mut bodies = Vec::new();
    for i in 0..8 {
        for (replica, phase) in [("a", 0), ("b", 6)] {
            // `a` dies after the fourth scrape: `b` takes over, and fills.
            if replica == "a" && i > 3 {
                continue;
            }
            let batch = [ts("m", replica, 15 * i + phase), ts("n", replica, 15 * i + phase)];
            bodies.push(pack(&body(&batch, 1)));
            let reply = observed.packed(bodies.last().cloned().unwrap()).await;
            assert_eq!(echo(&reply), (200, &b"as it is"[..]));
            assert_eq!(deduplicated.packed(bodies.last().cloned().unwrap()).await.status, 204);
        }
    }
    assert_eq!(upstream.relayed(), bodies, "byte for byte");
    assert_eq!(upstream.requests(), 0, "nothing of our own making");
    assert!(observed.outcome("duplicate") > 4, "{:?}", observed.samples());
    assert_eq!(observed.metric("promdedup_takeovers_total", &[]), 2);
    for name in [
        "promdedup_samples_received_total",
        "promdedup_samples_filled_total",
        "promdedup_takeovers_total",
        "promdedup_target_moves_total",
        "promdedup_duplicate_bytes_total",
    ] {
        assert_eq!(observed.metric(name, &[]), deduplicated.metric(name, &[]), "{name}");
        assert!(observed.metric(name, &[]) > 0, "{name}");
    }
    assert_eq!(observed.samples(), deduplicated.samples());
    for stage in ["compressed_in", "raw_in", "raw_out", "compressed_out"] {
        assert_eq!(bytes(&observed, stage), bytes(&deduplicated, stage), "{stage}");
    }
    assert!(bytes(&observed, "compressed_out") < bytes(&observed, "compressed_in"));
}

#[tokio::test]
async fn what_upstream_does_not_take_is_decided_when_it_comes_again() {
    let (ask, upstream) = observing(|_| {});
    ask.ask(&[ts("m", "a", 0)]).await;
    ask.ask(&[ts("m", "a", 15)]).await;
    let down = || Answer::Unavailable { status: 429, text: "slow down".into() };
    upstream.next([down(), down(), Answer::NoAnswer { error: "reset".into() }]);
    assert_eq!(echo(&ask.ask(&[ts("m", "a", 30)]).await).0, 429, "the sender's affair, as it is");
    assert_eq!(echo(&ask.ask(&[ts("m", "b", 6)]).await).0, 429);
    let reply = ask.ask(&[ts("m", "a", 30)]).await;
    assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)), "nobody's words but ours");
    assert!(reply.text.contains("did not answer: reset"), "{reply:?}");
    assert_eq!(
        (ask.outcome("failed"), ask.outcome("duplicate")),
        (3, 0),
        "what is to come again saves nothing"
    );
    assert_eq!(ask.ask(&[ts("m", "a", 30)]).await.status, 200);
    assert_eq!(ask.ask(&[ts("m", "b", 6)]).await.status, 200);
    assert_eq!((ask.outcome("forwarded"), ask.outcome("duplicate")), (3, 1));
    assert_eq!(upstream.relayed().len(), 7);
}

#[tokio::test]
async fn what_upstream_refuses_is_refused_in_its_words_and_counted_rejected() {
    let (ask, upstream) = observing(|_| {});
    ask.ask(&[ts("m", "a", 0), ts("n", "a", 0)]).await;
    for (t, answer) in [
        (15, Answer::Conflict { text: "add 1 samples: out of order sample".into() }),
        (30, Answer::TooBig { text: "too big".into() }),
        (45, Answer::Refused { status: 422, text: "no".into() }),
    ] {
        upstream.next([answer]);
        let reply = ask.ask(&[ts("m", "a", t), ts("n", "a", t)]).await;
        assert!([409, 413, 422].contains(&echo(&reply).0), "{reply:?}");
    }
    assert_eq!(ask.outcome("rejected"), 6);
    assert_eq!(upstream.relayed().len(), 4);
    assert!(bytes(&ask, "compressed_out") < bytes(&ask, "compressed_in"), "nothing is cut in pieces");
}

/// Deduplication would have answered 503, and been brought it once more. Here upstream has it already.
#[tokio::test]
async fn nobody_waits_and_the_waits_are_counted() {
    let (ask, upstream) = observing(|wishes| wishes.first_contact_hold_ms = 6_000);
    let waits = |reason| ask.metric("promdedup_waits_total", &[("reason", reason)]);
    assert_eq!(ask.later(0, &[ts("m", "a", 0)]).await.status, 200);
    assert_eq!((waits("first_contact"), waits("jump")), (1, 0));
    assert_eq!(ask.outcome("forwarded"), 1, "decided as if it had waited");
    for (replica, t) in [("b", 6), ("a", 15), ("b", 21), ("a", 30)] {
        assert_eq!(ask.later(10, &[ts("m", replica, t)]).await.status, 200);
    }
    // `a` brings what is old, `b` what is new.
    assert_eq!(ask.later(600, &[ts("m", "a", 45)]).await.status, 200);
    assert_eq!((waits("first_contact"), waits("jump")), (1, 0));
    assert_eq!(ask.outcome("forwarded"), 4);
    assert_eq!(ask.later(601, &[ts("m", "b", 600), ts("born", "b", 600)]).await.status, 200);
    assert_eq!((waits("first_contact"), waits("jump")), (1, 1));
    assert_eq!((ask.outcome("forwarded"), ask.outcome("failed")), (6, 0));
    assert_eq!(ask.later(602, &[ts("m", "b", 600)]).await.status, 200);
    assert_eq!(ask.outcome("duplicate"), 3, "the watermark has moved");
    assert_eq!(upstream.relayed().len(), 8);
}

/// Also not for a backlog that began before this process did.
#[tokio::test]
async fn nobody_waits_for_what_was_refused_to_another_replica() {
    let (ask, upstream) = observing(|wishes| wishes.first_contact_hold_ms = 1);
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30)] {
        ask.later(10, &[ts("m", replica, t)]).await;
    }
    upstream.next([Answer::Unavailable { status: 429, text: "slow down".into() }]);
    let again = pack(&body(&[ts("x", "c", 20)], 0));
    assert_eq!(ask.incoming(Protocol::One, again, 1, None, NOW_MS + 11_000).await.status, 429);
    let (forwarded, failed) = (ask.outcome("forwarded"), ask.outcome("failed"));
    assert_eq!(ask.later(12, &[ts("born", "b", 600), ts("m", "b", 600)]).await.status, 200);
    assert_eq!((ask.outcome("forwarded"), ask.outcome("failed")), (forwarded + 2, failed));
}

#[tokio::test]
async fn what_cannot_be_read_goes_on_all_the_same() {
    let (ask, upstream) = observing(|_| {});
    let good = body(&[ts("m", "a", 0)], 0);
    let garbage =
        [b"not snappy at all".to_vec(), pack(&good[..good.len() - 3]), vec![0xff, 0xff, 0xff, 0xff, 0x0f]];
    for (nth, garbage) in garbage.iter().enumerate() {
        upstream.next([Answer::Refused { status: 400, text: "snappy decode error".into() }]);
        assert_eq!(echo(&ask.packed(garbage.clone()).await).0, 400);
        assert_eq!(ask.metric("promdedup_observe_unreadable_total", &[]), nth as u64 + 1);
    }
    assert_eq!(upstream.relayed(), garbage);
    assert_eq!(ask.samples(), []);
    // What is only refused in part is read.
    let batch = [ts("m", "a", 0), Ts::new("").at(0), ts("m", "a", 4_000_000_000)];
    assert_eq!(ask.ask(&batch).await.status, 200);
    assert_eq!((ask.outcome("refused"), ask.outcome("forwarded")), (2, 1));
    assert_eq!(ask.metric("promdedup_observe_unreadable_total", &[]), 3);
}
