//! Backlogs: who has to wait so that older data of another replica can pass first.

use super::ts;
use crate::support::{Ask, Fake, Ts, sent};
use promdedup::forward::Answer;

#[tokio::test]
async fn a_new_group_is_held_back_until_its_backlogs_are_known() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.first_contact_hold_ms = 6_000);
    let other = Ts::raw(&[("__name__", "x"), ("cluster", "other"), ("prometheus_replica", "a")]);
    for second in 0..6 {
        let reply = pipeline.later(second, &[ts("m", "a", 100), Ts::new("single").at(second)]).await;
        assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)), "{second}: {reply:?}");
    }
    assert_eq!(sent(&fake).iter().filter(|line| line.starts_with("m{}")).count(), 0);
    assert_eq!(sent(&fake).len(), 6, "what has no replica goes on");
    assert_eq!(
        pipeline.later(6, &[ts("m", "a", 100), other.at(0)]).await.status,
        503,
        "the other group is new"
    );
    assert_eq!(sent(&fake)[6..], ["m{} 100"]);
    assert_eq!(pipeline.metric("promdedup_waits_total", &[("reason", "first_contact")]), 7);
}

#[tokio::test]
async fn exemplars_of_a_new_group_are_held_back_too() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.first_contact_hold_ms = 6_000);
    let exemplar = [ts("m", "a", 0).no_sample().exemplar()];
    assert_eq!(pipeline.later(0, &exemplar).await.status, 503);
    assert_eq!(pipeline.later(6, &exemplar).await.status, 204);
    assert_eq!(sent(&fake), ["m{} e"]);
}

#[tokio::test]
async fn a_jump_waits_while_another_replica_still_sends_older_data() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.first_contact_hold_ms = 500);
    assert_eq!(pipeline.later(0, &[ts("m", "a", 0), ts("m", "b", 6)]).await.status, 503);
    for t in [0, 15, 30] {
        assert_eq!(pipeline.later(1, &[ts("m", "a", t), ts("m", "b", t + 6)]).await.status, 204);
    }
    // An outage of ten minutes. B restarted in it and has only what is new; A has it all.
    assert_eq!(pipeline.later(600, &[ts("m", "a", 45)]).await.status, 204);
    let jump = pipeline.later(601, &[ts("m", "b", 600), ts("born", "b", 600)]).await;
    assert_eq!((jump.status, jump.retry_after_s), (503, Some(1)), "{jump:?}");
    for t in (60..=600).step_by(15) {
        assert_eq!(pipeline.later(602 + t / 15, &[ts("m", "a", t)]).await.status, 204);
    }
    assert_eq!(pipeline.later(680, &[ts("m", "b", 606), ts("born", "b", 600)]).await.status, 204);
    let expected: Vec<_> =
        (0..=40).map(|i| format!("m{{}} {}", 15 * i)).chain(["born{} 600".into()]).collect();
    assert_eq!(sent(&fake), expected);
    assert_eq!(pipeline.metric("promdedup_waits_total", &[("reason", "jump")]), 1);
}

/// A healthy pair until its upstream is away, up to that second. A series begins meanwhile, which only `b` has yet.
async fn away_until(second: i64) -> (Ask, Fake) {
    let (pipeline, fake) = Ask::with(|wishes| wishes.first_contact_hold_ms = 1);
    pipeline.later(-61, &[ts("m", "a", -60)]).await;
    for t in (-60..=0).step_by(15) {
        assert_eq!(pipeline.later(t, &[ts("m", "a", t)]).await.status, 204);
        assert_eq!(pipeline.later(t + 6, &[ts("m", "b", t + 6)]).await.status, 204);
    }
    for now in (21..=second).step_by(5) {
        fake.next([Answer::Unavailable { status: 503, text: String::new() }]);
        assert_eq!(pipeline.later(now, &[ts("m", "a", 15)]).await.status, 503);
        assert_eq!(pipeline.later(now, &[ts("m", "b", 21), ts("born", "b", 21)]).await.status, 503);
    }
    (pipeline, fake)
}

/// What it was refused before it restarted says nothing of where it is now: or a series that is new would begin with what it brings,
/// and the other one's backlog of that series be acknowledged for nothing.
#[tokio::test]
async fn the_birth_of_who_has_lost_its_backlog_waits_for_the_backlog_of_the_other() {
    let (pipeline, fake) = away_until(320).await;
    let birth = [ts("born", "a", 330)];
    assert_eq!(pipeline.later(330, &birth).await.status, 503);
    for (nth, t) in (21..=336).step_by(15).enumerate() {
        let now = 331 + nth as i64;
        assert_eq!(pipeline.later(now, &[ts("m", "b", t), ts("born", "b", t)]).await.status, 204, "{t}");
        // Whoever is a minute behind is no more waited for.
        if t < 330 - 60 {
            assert_eq!(pipeline.later(now, &birth).await.status, 503, "{t}");
        }
    }
    let born: Vec<_> = (21..=336).step_by(15).map(|t| format!("born{{}} {t}")).collect();
    let stored = fake.stored();
    assert!(stored.iter().filter(|line| line.starts_with("born")).eq(&born), "{stored:?}");
}

#[tokio::test]
async fn a_series_that_waits_holds_no_other_series_up() {
    let (pipeline, _) = Ask::with(|wishes| wishes.first_contact_hold_ms = 1);
    pipeline.later(0, &[ts("m", "a", 0), ts("m", "b", 6)]).await;
    for t in [0, 15, 30] {
        pipeline
            .later(1, &[ts("m", "a", t), ts("n", "a", t), ts("m", "b", t + 6), ts("n", "b", t + 6)])
            .await;
    }
    assert_eq!(pipeline.later(600, &[ts("m", "a", 45)]).await.status, 204);
    let jump = pipeline.later(601, &[ts("m", "b", 600), ts("n", "b", 42)]).await;
    assert!(jump.status == 503 && jump.text.starts_with("1 of 2 samples"), "{jump:?}");
}

/// Who has no replica label shares his backlog with nobody.
#[tokio::test]
async fn what_has_no_replica_holds_nobody_up() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.first_contact_hold_ms = 500);
    assert_eq!(pipeline.later(0, &[ts("m", "a", 0)]).await.status, 503);
    pipeline.later(1, &[ts("m", "a", 0), Ts::new("single").at(0)]).await;
    pipeline.later(2, &[ts("m", "a", 15), Ts::new("single").at(1)]).await;
    assert_eq!(pipeline.later(3, &[ts("m", "a", 600)]).await.status, 204);
    assert_eq!(sent(&fake).last().unwrap(), "m{} 600");
}

/// Nothing is gained by sending again what would be refused again.
#[tokio::test]
async fn of_a_new_group_only_what_can_be_is_asked_for_again() {
    let (pipeline, _) = Ask::with(|wishes| wishes.first_contact_hold_ms = 6_000);
    let refused = pipeline.later(0, &[ts("m", "a", 1 << 30)]).await;
    assert_eq!((refused.status, refused.retry_after_s), (400, None), "{refused:?}");
    let both = pipeline.later(0, &[ts("m", "a", 1 << 30), ts("m", "a", 0)]).await;
    assert_eq!(both.status, 503);
    assert!(
        both.text.starts_with("1 of 2 samples have to be sent again: their group is new here"),
        "{}",
        both.text
    );
}

/// Or nothing of the group would be taken until the clock is where it was when the group was met.
#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_group_wait_for_longer_than_a_new_one() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.first_contact_hold_ms = 6_000);
    assert_eq!(pipeline.later(0, &[ts("m", "a", 0)]).await.status, 503);
    assert_eq!(pipeline.later(6, &[ts("m", "a", 0)]).await.status, 204);
    for (now, status) in [(-300, 503), (-295, 503), (-294, 204), (0, 204), (15, 204)] {
        assert_eq!(pipeline.later(now, &[ts("m", "a", 300 + now)]).await.status, status, "{now}");
    }
    assert_eq!(sent(&fake), ["m{} 0", "m{} 6", "m{} 300", "m{} 315"]);
}

/// What both were refused half a minute ago is no reason for either to wait, or a long outage would be caught up with by a minute in half
/// a minute.
#[tokio::test]
async fn who_catch_up_side_by_side_do_not_wait_for_each_other() {
    let (pipeline, _) = away_until(600).await;
    // Something begins with each scrape.
    for t in (15..=600).step_by(15) {
        for (replica, t) in [("a", t), ("b", t + 6)] {
            let series = [ts("m", replica, t), ts(&format!("born_{}", t / 15), replica, t)];
            assert_eq!(pipeline.later(601, &series).await.status, 204, "{replica} at {t}");
        }
    }
}
