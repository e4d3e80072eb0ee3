//! Instances that do not agree: a part is routed once more, and nothing goes round in circles.

use super::instances::{Board, Instance, key, names, sample};
use std::sync::Arc;

async fn three() -> (Arc<Board>, [Instance; 3]) {
    let board: Arc<Board> = Arc::default();
    let all = [
        Instance::start(&board, "one").await,
        Instance::start(&board, "two").await,
        Instance::start(&board, "three").await,
    ];
    (board, all)
}

#[tokio::test]
async fn who_was_wrong_asks_anew_and_routes_once_more() {
    let (board, [one, two, three]) = three().await;
    board.gives("c", "three");
    one.seat.believes("c", "two");
    let heard = one.ask(&[sample("c", "m", "a", 0)]).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    assert_eq!((two.got(), three.got()), (vec![], names(&[("m", 1)])));
    assert_eq!(*one.seat.misdirected.lock().unwrap(), [key("c")]);
    assert_eq!(one.count("promdedup_hops_total", &["result=\"misdirected\""]).await, 1);
    assert_eq!(two.count("promdedup_requests_total", &["code=\"421\""]).await, 1);
    assert_eq!((two.groups(), two.accounts().await), (vec![], 0));
    // It may turn out to be our own, also after a part has been served.
    board.gives("c", "one");
    one.seat.believes("c", "two");
    assert_eq!(one.ask(&[sample("c", "m", "a", 15)]).await.status, 204);
    assert_eq!(one.got(), names(&[("m", 1)]));
    board.gives("d", "one");
    one.seat.believes("d", "two");
    let series = [sample("c", "m", "a", 30), sample("d", "n", "a", 0), sample("c", "o", "a", 30)];
    let heard = one.ask(&series).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    assert_eq!(one.got(), names(&[("m", 1), ("m", 1), ("n", 1), ("o", 1)]));
    assert_eq!(one.accounts().await, 4);
    assert_eq!(one.seat.stays_of(key("c")).now() + one.seat.stays_of(key("d")).now(), 0);
}

/// A part that was sent to the wrong instance may belong to several.
#[tokio::test]
async fn a_part_that_went_astray_may_fall_apart() {
    let (board, [one, two, three]) = three().await;
    for (cluster, owner) in [("a", "one"), ("b", "two"), ("c", "three"), ("d", "one")] {
        board.gives(cluster, owner);
        one.seat.believes(cluster, if cluster == "a" { "one" } else { "two" });
    }
    let series: Vec<_> = ["a", "b", "c", "d"].iter().map(|c| sample(c, c, "r", 0)).collect();
    let heard = one.ask(&series).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    assert_eq!(one.got(), names(&[("a", 1), ("d", 1)]));
    assert_eq!((two.got(), three.got()), (names(&[("b", 1)]), names(&[("c", 1)])));
    assert_eq!([one.accounts().await, two.accounts().await, three.accounts().await], [2, 1, 1]);
}

/// What nobody may have is refused once, also when the rest has to be routed once more.
#[tokio::test]
async fn what_is_invalid_beside_what_went_astray_is_refused_once() {
    let (board, [one, _two, three]) = three().await;
    board.gives("c", "three");
    one.seat.believes("c", "two");
    let heard = one.ask(&[sample("c", "m", "a", 0), sample("c9", "", "a", 0)]).await;
    assert_eq!(heard.status, 400, "{heard:?}");
    assert_eq!(three.got(), names(&[("m", 1)]));
    assert_eq!([one.accounts().await, three.accounts().await], [1, 1]);
}

/// What came by a hop goes no further: each believes that it is the other's.
#[tokio::test]
async fn nothing_goes_round_in_circles() {
    let (_, [one, two, _]) = three().await;
    one.seat.insists("c", "two");
    two.seat.insists("c", "one");
    for (at, other) in [(&one, &two), (&two, &one)] {
        let before = other.count("promdedup_requests_total", &["code=\"421\""]).await;
        let heard = at.ask(&[sample("c", "m", "a", 0)]).await;
        assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
        assert!(heard.text.contains("do not agree"), "{heard:?}");
        assert!(heard.has("connection: close"), "another one may know better: {heard:?}");
        let after = other.count("promdedup_requests_total", &["code=\"421\""]).await;
        assert_eq!(after - before, 2, "once, and once more");
        // Also where it was believed without asking.
        at.seat.believes("c", if std::ptr::eq(at, &one) { "two" } else { "one" });
        assert_eq!(at.ask(&[sample("c", "m", "a", 0)]).await.status, 503);
        assert_eq!(other.count("promdedup_requests_total", &["code=\"421\""]).await - after, 2);
        // With a part of its own beside it.
        at.seat.believes("mine", if std::ptr::eq(at, &one) { "one" } else { "two" });
        let heard = at.ask(&[sample("mine", "n", "a", 0), sample("c", "m", "a", 0)]).await;
        assert_eq!((heard.status, heard.has("connection: close")), (503, true), "{heard:?}");
        assert_eq!(at.got(), names(&[("n", 1)]));
    }
    assert_eq!((one.window.series(), two.window.series()), (1, 1));
    // What they believed without asking sends nothing round either.
    one.seat.believes("d", "two");
    two.seat.believes("d", "one");
    let heard = one.ask(&[sample("d", "m", "a", 0)]).await;
    assert_eq!(heard.status, 204, "who is asked has asked, and claimed it: {heard:?}");
    assert_eq!(two.got(), names(&[("m", 1), ("n", 1)]));
}

/// Who is passed something asks once more before it says no: what it knows may be older than what the other has been told.
#[tokio::test]
async fn who_is_passed_a_group_believes_nothing_old() {
    let (board, [one, two, _]) = three().await;
    board.gives("c", "two");
    two.seat.believes("c", "one");
    assert_eq!(one.ask(&[sample("c", "m", "a", 0)]).await.status, 204);
    assert_eq!((one.got(), two.got()), (vec![], names(&[("m", 1)])));
    board.moves("d", true);
    one.seat.believes("d", "two");
    let heard = one.ask(&[sample("d", "m", "a", 0)]).await;
    assert_eq!(heard.status, 503);
    assert!(heard.text.contains("moving"), "{heard:?}");
}
