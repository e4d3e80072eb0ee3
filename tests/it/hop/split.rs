//! Two instances that serve one group: upstream has newer samples than the window of one of them.

use super::instances::{Board, Instance, key, sample};
use std::sync::Arc;
use std::time::SystemTime;

const ORDER: &str = "store locally for endpoint 127.0.0.1:10901: add 1 samples: out of order sample";

/// A 2xx says that upstream has something within two intervals. If it has something newer, and the sample is no older than that, it has.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what is fresh is so by the wall clock")]
async fn a_sender_is_told_nothing_of_what_another_instance_was_first_to_send() {
    let board: Arc<Board> = Arc::default();
    let one = Instance::start(&board, "one").await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs() as i64;
    let ask = async |status, text, series: &[_]| {
        one.upstream.answers(status, text);
        let heard = one.ask(series).await;
        one.upstream.answers(200, "");
        heard.status
    };
    for ago in [60, 45, 30] {
        let (new, old) = (sample("c", "m", "a", now - ago), sample("c", "n", "a", now - 300 - ago));
        assert_eq!(one.ask(&[new, old]).await.status, 204);
    }
    assert_eq!(ask(409, ORDER, &[sample("c", "m", "a", now - 15)]).await, 204);
    let split = || one.count("promdedup_benign_conflicts_total", &["reason=\"split\""]);
    assert_eq!(split().await, 1);
    assert_eq!(ask(409, ORDER, &[sample("c", "n", "a", now - 315)]).await, 400, "it may be a backlog");
    let both = [sample("c", "m", "a", now), sample("c", "n", "a", now - 300)];
    assert_eq!(ask(409, ORDER, &both).await, 400, "nobody says which of the two it was");
    let bounds = "2 errors: add 1 samples: out of order sample; add 1 samples: out of bounds";
    assert_eq!(ask(409, bounds, &[sample("c", "m", "a", now + 15)]).await, 400, "upstream has nothing of it");
    assert_eq!(ask(409, ORDER, &[sample("c", "o", "", now)]).await, 400, "it is nobody's duplicate");
    assert_eq!(split().await, 1);
    assert_eq!(one.ask(&[sample("c", "m", "a", now + 15)]).await.status, 204, "a duplicate now");
}

/// Half of the samples may go by there. By a longer interval, what is acknowledged since it is held would be farther above what upstream has.
#[tokio::test]
async fn no_longer_interval_is_learned_while_another_instance_may_serve_the_group() {
    for (confirmed, takeovers) in [(true, 0), (false, 1)] {
        let board: Arc<Board> = Arc::default();
        let one = Instance::start(&board, "one").await;
        one.seat.stays_of(key("c")).confirm(confirmed);
        for (replica, t) in [("a", 0), ("a", 15), ("a", 30), ("a", 60), ("a", 90), ("b", 125)] {
            assert_eq!(one.ask(&[sample("c", "m", replica, t)]).await.status, 204);
        }
        // More than two intervals of 15 s are nobody's, and less than two of 30 s.
        assert_eq!(one.count("promdedup_takeovers_total", &[]).await, takeovers, "confirmed: {confirmed}");
    }
}
