//! What the pipeline makes of failing upstreams and hostile senders: cases that once went wrong.

use crate::support::{Ts, pipeline, sent};
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
