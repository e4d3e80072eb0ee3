//! Exemplars where owners change: upstream finds the new owner's out of order, and says 409 although it has all samples.

use super::story::{Story, stale, ts, up};
use crate::support::{Ts, sent};
use promdedup::forward::Answer;

const EXEMPLARS: &str = "add 2 exemplars: out of order exemplar";

fn conflict(text: &str) -> Answer {
    Answer::Conflict { text: text.into() }
}

fn with_exemplar(replica: &str, t: i64) -> Ts {
    ts("m", replica, t).exemplar()
}

fn alone(replica: &str) -> Ts {
    ts("m", replica, 0).no_sample().exemplar()
}

/// A is dead; B's exemplars are older than A's last ones, at the takeover and for some time after it.
#[tokio::test]
async fn conflicts_over_exemplars_alone_are_no_loss_after_a_change_of_owner() {
    let story = Story::of_a_pair(&["m"]).await;
    story.takes(&[with_exemplar("a", 45)]).await;
    story.takes(&[with_exemplar("b", 66)]).await;
    story.fake.next([conflict(EXEMPLARS), conflict(EXEMPLARS), conflict(EXEMPLARS)]);
    for t in [81, 96, 111] {
        story.takes(&[with_exemplar("b", t)]).await;
    }
    assert_eq!((story.benign("takeover"), story.benign("exemplars")), (1, 2));
    assert_eq!((story.ask.outcome("rejected"), story.ask.outcome("failed")), (0, 0));
    assert_eq!(sent(&story.fake)[4..], ["m{} 66 81 e", "m{} 96 e", "m{} 111 e"]);
    // And it was committed: nothing of it goes out again.
    let before = story.fake.requests();
    story.takes(&[with_exemplar("b", 111)]).await;
    assert_eq!(story.fake.requests(), before);
}

/// A sample that conflicts among the exemplars is a loss, unless a takeover explains it.
#[tokio::test]
async fn a_conflict_over_samples_too_is_told() {
    let both = "2 errors: add 2 exemplars: out of order exemplar; add 1 samples: out of order sample";
    let story = Story::of_a_pair(&["m"]).await;
    story.fake.next([conflict(both)]);
    let reply = story.ask.ask(&[with_exemplar("a", 45)]).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("add 1 samples: out of order sample"), "upstream's words: {}", reply.text);
    assert_eq!((story.ask.outcome("rejected"), story.benign("exemplars")), (1, 0));
    story.takes(&[with_exemplar("a", 45)]).await;
    story.fake.next([conflict(both)]);
    story.takes(&[ts("m", "b", 96).exemplar()]).await;
    assert_eq!(story.benign("takeover"), 1);
}

/// Exemplars in a `TimeSeries` of their own change sides with their series, at once.
#[tokio::test]
async fn exemplars_on_their_own_change_sides_with_their_series() {
    let story = Story::of_a_pair(&["m"]).await;
    let before = sent(&story.fake).len();
    story.takes(&[alone("b")]).await;
    story.takes(&[alone("a")]).await;
    assert_eq!(sent(&story.fake)[before..], ["m{} e"], "the owner's");
    story.takes(&[ts("m", "b", 66)]).await;
    let before = sent(&story.fake).len();
    story.takes(&[alone("a"), alone("b"), ts("m", "a", 66).exemplar()]).await;
    assert_eq!(sent(&story.fake)[before..], ["m{} e"], "the new owner's, and none of a replayed sample");
    assert_eq!(story.fake.requests(), 6);
}

/// The one who owns the series cannot scrape its target: what it has of exemplars is a standby's, as its samples are.
#[tokio::test]
async fn a_fenced_owners_exemplars_stay_home() {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30), ("b", 36)] {
        story.takes(&[up(replica, 1, t), ts("m", replica, t)]).await;
    }
    let before = sent(&story.fake).len();
    story.takes(&[up("a", 0, 45), stale("m", "a", 45), alone("a")]).await;
    assert_eq!(sent(&story.fake).len(), before);
    story.takes(&[up("b", 1, 51), with_exemplar("b", 51)]).await;
    assert_eq!(sent(&story.fake)[before..], ["up{} 36=1 51=1", "m{} 36 51 e"]);
}
