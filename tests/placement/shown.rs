//! What a keeper shows of placement: this instance's groups, the others as it heard of them, and the database.

use super::keeper::{One, beats, tables};
use super::rules::{group, peer};
use promdedup::placement::store::{EXPIRY, HEARTBEAT_EVERY};
use promdedup::placement::{Holding, Placement, Whose};
use promdedup::stand_in::coordination::Reach;
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn groups_of_this_instance_are_shown_with_epoch_and_since_when() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(b.mine(1).await);
    b.keeper.leave(Duration::from_secs(1)).await;
    beats(1).await;
    let (one, two) = (a.mine(1).await, a.mine(2).await);
    one.brought(10);
    two.brought(1_000);
    beats(3).await;
    let shown = a.keeper.shown(10, 10);
    assert_eq!((&shown.me, shown.groups_left_out, &shown.others[..]), (&peer("a"), 0, &[][..]));
    let groups: Vec<_> = shown.groups.iter().map(|group| (&group.name[..], group.epoch)).collect();
    assert_eq!(
        groups,
        [("cluster-2", 1), ("cluster-1", 3)],
        "the heaviest first; that one had been another's"
    );
    for group in &shown.groups {
        assert_eq!((&group.tenant[..], group.holding), ("t", Holding::Confirmed));
        assert!((HEARTBEAT_EVERY * 3..HEARTBEAT_EVERY * 4).contains(&group.held), "{group:?}");
    }
    let sum: f64 = shown.groups.iter().map(|group| group.samples_per_second).sum();
    assert!(sum > 0.0 && (shown.samples_per_second - sum).abs() < 1e-9, "{shown:?}");
    assert_eq!(a.metric("promdedup_placement_load_samples_per_second"), sum as u64);
    let few = a.keeper.shown(1, 10);
    assert_eq!((&few.groups[0].name[..], few.groups_left_out), ("cluster-2", 1));
}

#[tokio::test(start_paused = true)]
async fn other_instances_are_shown_with_what_is_known_of_them() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    let others = [One::start(&tables, "b").await, One::start(&tables, "c").await];
    for (number, stay) in [(1, others[0].mine(1).await), (2, others[0].mine(2).await)] {
        stay.brought(400);
        assert_eq!(a.theirs(number).await, peer("b"));
    }
    others[1].keeper.drain();
    a.keeper.hopped(&peer("c"), false);
    sleep(HEARTBEAT_EVERY / 2).await;
    let unheard = a.keeper.shown(10, 10);
    assert!(unheard.others.is_empty(), "it has not heard of them yet: {unheard:?}");
    beats(2).await;
    a.keeper.hopped(&peer("c"), false);
    let shown = a.keeper.shown(10, 10);
    let told: Vec<_> = shown
        .others
        .iter()
        .map(|other| (&*other.peer.url, other.groups_known, other.draining, other.hops_failed))
        .collect();
    assert_eq!(told, [("http://b:19290", 2, false, 0), ("http://c:19290", 0, true, 2)]);
    assert!(shown.others[0].samples_per_second > 0.0, "{shown:?}");
    let few = a.keeper.shown(10, 1);
    assert_eq!((few.others.len(), few.others_left_out), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_shown_since_when_and_why() {
    let tables = tables();
    let a = One::starting(&tables, "a", Reach::Well);
    assert_eq!(a.keeper.shown(1, 1).database.up, None, "nobody has asked it");
    sleep(Duration::from_millis(1)).await;
    drop(a.mine(1).await);
    beats(2).await;
    let well = a.keeper.shown(1, 1).database;
    assert_eq!((well.up, well.error), (Some(true), None));
    assert!(well.heartbeat < Some(HEARTBEAT_EVERY), "{:?}", well.heartbeat);
    a.store.set_reach(Reach::Refused);
    sleep(EXPIRY).await;
    let away = a.keeper.shown(1, 1).database;
    assert_eq!(away.up, Some(false));
    assert!((EXPIRY - HEARTBEAT_EVERY..EXPIRY).contains(&away.lasting), "{:?}", away.lasting);
    assert!(away.heartbeat > Some(EXPIRY - HEARTBEAT_EVERY), "{:?}", away.heartbeat);
    assert!(away.error.is_some_and(|error| error.contains("cannot be reached")));
    assert!(matches!(a.keeper.ask(&group(2)).await, Whose::Mine(_)));
    beats(1).await;
    let shown = a.keeper.shown(10, 1);
    let unconfirmed = |name: &str| {
        shown.groups.iter().any(|group| group.name == name && group.holding == Holding::Unconfirmed)
    };
    assert!(!unconfirmed("cluster-1") && unconfirmed("cluster-2"), "{shown:?}");
    assert_eq!(a.metric("promdedup_placement_unconfirmed_groups"), 1);
    a.store.set_reach(Reach::Well);
    beats(2).await;
    let back = a.keeper.shown(10, 1);
    assert_eq!((back.database.up, &back.database.error), (Some(true), &None));
    assert!(back.groups.iter().all(|group| group.holding == Holding::Confirmed), "{back:?}");
    beats(1).await;
    assert_eq!(a.metric("promdedup_placement_unconfirmed_groups"), 0);
}
