//! One target, several series: who speaks for it when a replica cannot scrape it any more.

use super::{STALE, ts};
use crate::support::{Ts, pipeline, sent};

/// The series `up` of the target that `ts` makes its series for.
fn up(replica: &str, seconds: i64, value: f64) -> Ts {
    Ts::new("up").replica(replica).bits_at(value.to_bits(), seconds)
}

/// Otherwise a target that one replica cannot reach would be shown as down, although the other one scrapes it.
#[tokio::test]
async fn up_0_of_one_replica_stays_home_while_the_other_scrapes_the_target() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15] {
        pipeline.ask(&[ts("m", "a", t), up("a", t, 1.0)]).await;
        pipeline.ask(&[ts("m", "b", t + 6), up("b", t + 6, 1.0)]).await;
    }
    assert_eq!(pipeline.ask(&[up("a", 30, 0.0)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "up{} 0=1", "m{} 15", "up{} 15=1"]);
    // With its next samples the target is b's, its data and its `up` alike.
    pipeline.ask(&[ts("m", "b", 36), up("b", 36, 1.0)]).await;
    pipeline.ask(&[up("a", 45, 0.0)]).await;
    assert_eq!(sent(&fake)[4..], ["m{} 21 36", "up{} 21=1 36=1"]);
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 1);
    assert_eq!(pipeline.metric("promdedup_takeovers_total", &[("reason", "align")]), 2);
}

/// The move is made by a sample that is a duplicate itself, and counts all the same.
#[tokio::test]
async fn a_target_moves_at_once_to_who_has_shown_a_later_scrape() {
    let (pipeline, fake) = pipeline();
    for (replica, t, value) in [("a", 0, 1.0), ("b", 6, 1.0), ("a", 15, 1.0), ("b", 21, 1.0), ("b", 36, 1.0)]
    {
        pipeline.ask(&[up(replica, t, value)]).await;
    }
    assert_eq!(pipeline.ask(&[up("a", 30, 0.0)]).await.status, 204);
    assert_eq!(sent(&fake), ["up{} 0=1", "up{} 15=1"]);
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 1);
}

/// Or all of a target would change its replica, and change it again, for one series that is not everybody's.
#[tokio::test]
async fn a_series_that_the_owner_lacks_takes_no_target_from_it_while_it_goes_on() {
    let (pipeline, fake) = pipeline();
    for t in (0..=120).step_by(15) {
        let with = |replica, t| [ts("m", replica, t), ts("n", replica, t)];
        let a = with("a", t);
        pipeline.ask(if t <= 45 { &a } else { &a[..1] }).await;
        pipeline.ask(&with("b", t + 6)).await;
    }
    assert!(sent(&fake).contains(&"n{} 51 66 81".to_owned()), "{:?}", sent(&fake));
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 0);
}

/// A real outage is seen by all, and the owner tells of it.
#[tokio::test]
async fn up_0_of_all_replicas_is_forwarded() {
    let (pipeline, fake) = pipeline();
    for (replica, t, value) in [("a", 0, 1.0), ("b", 6, 1.0), ("a", 15, 1.0), ("b", 21, 0.0), ("a", 30, 0.0)]
    {
        assert_eq!(pipeline.ask(&[up(replica, t, value)]).await.status, 204);
    }
    assert_eq!(sent(&fake), ["up{} 0=1", "up{} 15=1", "up{} 30=0"]);
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 0);
}

/// Only the series `up` says whether a scrape succeeded: any other may have a 0 where the other replica has a 1.
#[tokio::test]
async fn a_value_of_0_is_no_failed_scrape() {
    let (pipeline, fake) = pipeline();
    let clients = |replica, t, value: f64| Ts::new("up_clients").replica(replica).bits_at(value.to_bits(), t);
    for (replica, t, value) in [("a", 0, 1.0), ("b", 6, 1.0), ("a", 15, 1.0), ("b", 21, 1.0), ("a", 30, 0.0)]
    {
        assert_eq!(pipeline.ask(&[clients(replica, t, value)]).await.status, 204);
    }
    assert_eq!(sent(&fake)[2..], ["up_clients{} 30=0"]);
}

/// A target that nobody scrapes any more ends: its `up` has a stale marker, whatever its bits would say as a value.
#[tokio::test]
async fn the_stale_marker_of_up_ends_it() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15] {
        pipeline.ask(&[up("a", t, 1.0)]).await;
    }
    pipeline.ask(&[Ts::new("up").replica("a").bits_at(STALE, 30)]).await;
    assert_eq!(sent(&fake)[2..], ["up{} 30!"]);
}

/// Exemplars without a sample go with who speaks for the target, which a fenced replica does not.
#[tokio::test]
async fn exemplars_of_a_fenced_replica_stay_home() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15] {
        pipeline.ask(&[ts("m", "a", t), up("a", t, 1.0)]).await;
        pipeline.ask(&[ts("m", "b", t + 6), up("b", t + 6, 1.0)]).await;
    }
    let exemplar = |name, replica| [ts(name, replica, 0).no_sample().exemplar()];
    pipeline.ask(&exemplar("m", "a")).await;
    pipeline.ask(&exemplar("new", "a")).await;
    assert_eq!(sent(&fake)[4..], ["m{} e", "new{} e"]);
    pipeline.ask(&[up("a", 30, 0.0)]).await;
    for name in ["m", "new"] {
        assert_eq!(pipeline.ask(&exemplar(name, "a")).await.status, 204);
    }
    assert_eq!(sent(&fake).len(), 6);
}

/// Or whatever falls to 0 at one replica would be taken from it.
#[tokio::test]
async fn no_series_but_up_takes_a_target_from_its_owner() {
    let (pipeline, fake) = pipeline();
    let m = |replica, seconds, value| Ts::new("m").replica(replica).value_at(value, seconds);
    for (a, b) in [(1.0, 1.0), (0.0, 1.0), (0.0, 1.0)].iter().enumerate().map(|(i, values)| {
        let seconds = 15 * i as i64;
        (m("a", seconds, values.0), m("b", seconds + 1, values.1))
    }) {
        assert_eq!((pipeline.ask(&[a]).await.status, pipeline.ask(&[b]).await.status), (204, 204));
    }
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 0);
    assert_eq!(
        pipeline.samples(),
        [("a", "forwarded", 3), ("b", "duplicate", 3)].map(|(r, o, n)| (r.into(), o.into(), n))
    );
    assert_eq!(sent(&fake).len(), 3);
}
