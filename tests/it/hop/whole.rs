//! A request that is all another instance's.

use super::instances::{Board, Instance, ONE, TWO, Wishes, key, key_of, names, sample};
use crate::support::{body, pack, two};
use prost::Message;
use std::sync::Arc;

#[tokio::test]
async fn a_group_meets_in_one_instance_whichever_is_asked() {
    let board = Arc::default();
    let (one, two) = (Instance::start(&board, "one").await, Instance::start(&board, "two").await);
    for second in [0, 15, 30] {
        assert_eq!(one.ask(&[sample("c", "m", "a", second)]).await.status, 204);
        let heard = two.ask(&[sample("c", "m", "b", second + 6)]).await;
        assert_eq!((heard.status, heard.text.as_str()), (204, ""));
    }
    assert_eq!(board.owner("c").as_deref(), Some("one"));
    assert_eq!(one.got(), names(&[("m", 1), ("m", 1), ("m", 1)]), "one stream");
    assert_eq!((two.got(), two.groups()), (vec![], vec![]), "nothing of it is known there");
    assert_eq!(two.window.series(), 0);
    assert_eq!((one.accounts().await, two.accounts().await), (6, 0), "counted where it is served");
    assert_eq!(one.count("promdedup_samples_total", &["outcome=\"duplicate\"", "replica=\"b\""]).await, 3);
    assert_eq!(two.count("promdedup_hops_total", &["result=\"answered\""]).await, 3);
    assert_eq!(two.count("promdedup_hop_duration_seconds_count", &[]).await, 3);
    assert!(two.count("promdedup_hop_bytes_total", &["direction=\"sent\""]).await > 300);
    assert!(two.count("promdedup_hop_bytes_total", &["direction=\"received\""]).await > 100);
    assert_eq!(two.count("promdedup_network_bytes_total", &["side=\"upstream\""]).await, 0);
    assert_eq!(two.count("promdedup_body_bytes_total", &[]).await, 0);
    assert_eq!(board.asked(), 2, "once an instance");
    assert_eq!((one.seat.stays_of(key("c")).now(), one.seat.stays_of(key("c")).take_samples()), (0, 6));
    assert_eq!(*two.seat.hopped.lock().unwrap(), [true; 3]);
}

/// Or a group could be given away under a request that brings samples of it.
#[tokio::test]
async fn all_groups_of_a_request_stay_while_it_is_served() {
    let one = Instance::start(&Arc::default(), "one").await;
    for second in [0, 15, 30] {
        let both = ["c", "d"].map(|cluster| sample(cluster, "m", "a", second));
        assert_eq!(one.ask(&both).await.status, 204);
    }
    assert_eq!(["c", "d"].map(|cluster| one.seat.stays_of(key(cluster)).take_samples()), [3, 3]);
}

/// What the owner says is the sender's, in 2.0 with what has been written.
#[tokio::test]
async fn the_answer_of_the_owner_is_the_senders() {
    let board = Board::default();
    board.gives("c", "one");
    let board = Arc::new(board);
    let (one, other) = (Instance::start(&board, "one").await, Instance::start(&board, "two").await);
    let series = [sample("c", "m", "a", 0), sample("c", "n", "a", 0).histogram_at(0).exemplar()];
    let heard = other.post(TWO, &pack(&two(&series).encode_to_vec())).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    for (what, count) in [("samples", 2), ("histograms", 1), ("exemplars", 1)] {
        assert!(heard.has(&format!("x-prometheus-remote-write-{what}-written: {count}")), "{heard:?}");
    }
    let heard = other.post(ONE, &pack(&body(&series, 0))).await;
    assert_eq!(heard.status, 204);
    assert!(!heard.head.contains("written"), "of 1.0 it would mean something else: {heard:?}");
    let bad = [sample("c", "m", "a", 15), sample("c", "", "a", 15)];
    let heard = other.ask(&bad).await;
    assert_eq!(heard.status, 400);
    assert!(heard.text.contains("1 of 2 samples refused, the rest delivered: series 2: "), "{heard:?}");
    one.upstream.answers(500, "not well");
    let heard = other.ask(&[sample("c", "m", "a", 30)]).await;
    assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
    assert!(heard.text.contains("upstream answered 500: not well"), "{heard:?}");
    one.upstream.answers(413, "too big");
    let heard = other.ask(&[sample("c", "m", "a", 30)]).await;
    assert_eq!((heard.status, heard.text.contains("too big")), (413, true), "{heard:?}");
    let heard = other.post(ONE, b"no snappy").await;
    assert_eq!(heard.status, 400, "said where it arrives: {heard:?}");
    assert_eq!(other.accounts().await, 0);
    one.accounts().await;
    assert_eq!(other.groups(), Vec::<String>::new());
}

#[tokio::test]
async fn a_group_that_moves_is_not_served_at_all() {
    let board: Arc<Board> = Arc::default();
    let one = Instance::start(&board, "one").await;
    board.moves("c", true);
    let heard = one.ask(&[sample("c", "m", "a", 0)]).await;
    assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
    assert!(heard.text.contains("moving from one instance to another"), "{heard:?}");
    assert_eq!((one.window.series(), one.groups()), (0, vec![]));
    board.moves("c", false);
    assert_eq!(one.ask(&[sample("c", "m", "a", 0)]).await.status, 204);
    assert_eq!(one.accounts().await, 1);
}

#[tokio::test]
async fn an_owner_that_is_gone_costs_a_retry() {
    let board: Arc<Board> = Arc::default();
    let (mut one, two) = (Instance::start(&board, "one").await, Instance::start(&board, "two").await);
    assert_eq!(one.ask(&[sample("c", "m", "a", 0)]).await.status, 204);
    assert_eq!(two.ask(&[sample("c", "m", "b", 6)]).await.status, 204);
    one.dies(&board);
    let heard = two.ask(&[sample("c", "m", "b", 21)]).await;
    assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
    assert!(heard.text.contains("the instance that serves the group did not answer"), "{heard:?}");
    assert!(
        heard.has("connection: close"),
        "the next one is to go to an instance that may reach it: {heard:?}"
    );
    assert_eq!(*two.seat.hopped.lock().unwrap(), [true, false]);
    assert_eq!(two.count("promdedup_hops_total", &["result=\"unreached\""]).await, 1);
    // Its heartbeat has expired.
    board.gives("c", "two");
    two.seat.forgets();
    assert_eq!(
        two.post(&format!("{ONE}retry-attempt: 1\r\n"), &pack(&body(&[sample("c", "m", "b", 21)], 0)))
            .await
            .status,
        204
    );
    assert_eq!(two.got(), names(&[("m", 1)]));
    assert_eq!(two.accounts().await, 1);
}

/// Tenant, tries, and what ties log lines together go with it.
#[tokio::test]
async fn headers_go_with_it() {
    let board: Arc<Board> = Arc::default();
    board.gives_key(key_of("c", "acme"), "one");
    let (one, two) = (Instance::start(&board, "one").await, Instance::start(&board, "two").await);
    one.upstream.answers(409, "add 1 samples: out of order sample");
    let headers = format!("{ONE}thanos-tenant: acme\r\nx-request-id: r1\r\ntraceparent: 00-1-2-01\r\n");
    let packed = |second| pack(&body(&[sample("c", "m", "a", second)], 0));
    // The conflict of a first contact is none; that of a retry is none either, which only its header says.
    assert_eq!(two.post(&headers, &packed(0)).await.status, 204);
    assert_eq!(two.post(&headers, &packed(15)).await.status, 400);
    assert_eq!(two.post(&format!("{headers}retry-attempt: 2\r\n"), &packed(30)).await.status, 204);
    for (sent, _) in one.upstream.requests() {
        assert_eq!(sent["thanos-tenant"], "acme");
        assert_eq!(
            (&sent["x-request-id"], &sent["traceparent"]),
            (&"r1".parse().unwrap(), &"00-1-2-01".parse().unwrap())
        );
        assert!(!sent.contains_key("promdedup-peer"), "{sent:?}");
    }
    assert_eq!(one.groups(), ["c"]);
    assert!(two.upstream.requests().is_empty());
}

/// A mistake of one instance is not the sender's.
#[tokio::test]
async fn what_is_no_instance_acknowledges_nothing() {
    let board: Arc<Board> = Arc::default();
    let two = Instance::with(&board, "two", Wishes::default()).await;
    let stranger = crate::peer::Peer::start(204, "").await;
    board.gives("c", "stranger");
    board.is_at("stranger", &format!("http://{}", stranger.address));
    for status in [204, 200, 302, 400, 401, 403, 404, 405, 413, 415, 500, 502] {
        stranger.answers(status, "why");
        let heard = two.ask(&[sample("c", "m", "a", 0)]).await;
        assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{status}: {heard:?}");
        assert!(
            heard.text.contains(&format!("the instance that serves the group answered {status}")),
            "{heard:?}"
        );
    }
    assert_eq!(two.count("promdedup_hops_total", &["result=\"refused\""]).await, 12);
    assert!(two.seat.hopped.lock().unwrap().iter().all(|reached| *reached));
}
