//! What every database of placement has to do, told once: the stand-in and the real one are held to the same.

use promdedup::placement::store::{Change, Claimed, EXPIRY, Gift, Instance, News, Store};
use promdedup::placement::{GroupId, Peer};
use promdedup::series::GroupKey;
use std::sync::Arc;
use std::time::Duration;

/// A database, empty at first, and its time.
pub(crate) trait World {
    /// What an instance asks by.
    fn store(&self, me: &Peer) -> Arc<dyn Store>;
    /// So much time passes for the database.
    async fn pass(&self, time: Duration);
}

pub(crate) fn peer(name: &str) -> Peer {
    Peer { id: name.into(), url: format!("http://{name}:19290").into() }
}

pub(crate) fn group(number: u128) -> GroupId {
    GroupId { key: GroupKey(number), tenant: "t".to_owned(), name: format!("cluster-{number}") }
}

async fn claim(store: &Arc<dyn Store>, number: u128) -> Claimed {
    let claimed = store.claim(&[group(number)], EXPIRY).await.expect("answered");
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed[0].clone()
}

/// Owner, epoch, and whether it was taken just now.
async fn whose(store: &Arc<dyn Store>, number: u128) -> (Peer, i64, bool) {
    let claimed = claim(store, number).await;
    assert_eq!(claimed.key, GroupKey(number));
    (claimed.owner, claimed.epoch, claimed.newly)
}

async fn beat(store: &Arc<dyn Store>, load: f64) {
    store.heartbeat(load, false).await.expect("answered");
}

async fn joined(world: &impl World, names: &[&str]) -> Vec<(Arc<dyn Store>, Peer)> {
    let mut stores = Vec::new();
    for name in names {
        let me = peer(name);
        let store = world.store(&me);
        beat(&store, 0.0).await;
        stores.push((store, me));
    }
    stores
}

/// Each needs an empty database.
pub(crate) async fn heartbeats(world: &impl World) {
    let (a, b) = (world.store(&peer("a")), world.store(&peer("b")));
    let first = a.heartbeat(1.5, false).await.expect("answered");
    assert!(first.lapsed && first.others.is_empty(), "{first:?}");
    assert!(!a.heartbeat(1.5, false).await.expect("answered").lapsed);
    let seen = b.heartbeat(0.0, false).await.expect("answered").others;
    assert_eq!(seen, [Instance { peer: peer("a"), load: 1.5, draining: false }]);
    a.heartbeat(2.5, true).await.expect("answered");
    let seen = b.heartbeat(0.0, false).await.expect("answered").others;
    assert_eq!(seen, [Instance { peer: peer("a"), load: 2.5, draining: true }]);
    world.pass(EXPIRY - Duration::from_secs(1)).await;
    let pulse = b.heartbeat(0.0, false).await.expect("answered");
    assert!(!pulse.lapsed && pulse.others.len() == 1, "{pulse:?}");
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(b.heartbeat(0.0, false).await.expect("answered").others, [], "a was not heard of");
    assert!(a.heartbeat(0.0, false).await.expect("answered").lapsed);
}

pub(crate) async fn claims(world: &impl World) {
    let all = joined(world, &["a", "b"]).await;
    let [(a, one), (b, other)] = &all[..] else { panic!("two") };
    assert_eq!(whose(a, 1).await, (one.clone(), 1, true));
    assert_eq!(whose(a, 1).await, (one.clone(), 1, false), "it is known that it has it");
    assert_eq!(whose(b, 1).await, (one.clone(), 1, false));
    let mut both = b.claim(&[group(2), group(1)], EXPIRY).await.expect("answered");
    both.sort_by_key(|claimed| claimed.key);
    let owners: Vec<_> = both.iter().map(|claimed| (&claimed.owner, claimed.newly)).collect();
    assert_eq!(owners, [(one, false), (other, true)]);
    assert_eq!(a.claim(&[], EXPIRY).await.expect("answered"), []);
    let strange = GroupId { key: GroupKey(u128::MAX), tenant: "\0'\"".to_owned(), name: "ä\0/%".to_owned() };
    let claimed = a.claim(&[strange], EXPIRY).await.expect("answered");
    assert_eq!((claimed[0].key, &claimed[0].owner), (GroupKey(u128::MAX), one));
}

pub(crate) async fn takeovers(world: &impl World) {
    let all = joined(world, &["a", "b"]).await;
    let [(a, one), (b, other)] = &all[..] else { panic!("two") };
    whose(a, 1).await;
    world.pass(EXPIRY - Duration::from_secs(1)).await;
    beat(b, 0.0).await;
    assert_eq!(whose(b, 1).await, (one.clone(), 1, false));
    world.pass(Duration::from_secs(2)).await;
    let longer = EXPIRY + Duration::from_secs(3);
    let claimed = b.claim(&[group(1)], longer).await.expect("answered");
    assert_eq!((&claimed[0].owner, claimed[0].newly), (one, false), "it was not gone for as long as that");
    assert_eq!(whose(b, 1).await, (other.clone(), 2, true));
    beat(a, 0.0).await;
    assert_eq!(whose(a, 1).await, (other.clone(), 2, false), "who comes back learns what happened");
}

fn gift(number: u128, epoch: i64, to: Option<&Peer>) -> Gift {
    Gift { key: GroupKey(number), epoch, load: 700.0, to: to.cloned() }
}

pub(crate) async fn gifts(world: &impl World) {
    let all = joined(world, &["a", "b", "c"]).await;
    let [(a, one), (b, other), (c, third)] = &all[..] else { panic!("three") };
    whose(a, 1).await;
    assert_eq!(a.give(&gift(1, 2, Some(other))).await, Ok(None), "another epoch");
    assert_eq!(b.give(&gift(1, 1, Some(other))).await, Ok(None), "not its own");
    assert_eq!(a.give(&gift(9, 1, Some(other))).await, Ok(None), "no such group");
    assert_eq!(a.give(&gift(1, 1, Some(&peer("nobody")))).await, Ok(None));
    c.heartbeat(0.0, true).await.expect("answered");
    assert_eq!(a.give(&gift(1, 1, Some(third))).await, Ok(None), "it is about to end");
    assert_eq!(whose(b, 1).await, (one.clone(), 1, false), "nothing of this has changed anything");
    assert_eq!(a.give(&gift(1, 1, Some(other))).await, Ok(Some(2)));
    let claimed = claim(b, 1).await;
    assert_eq!((claimed.owner, claimed.epoch, claimed.newly), (other.clone(), 2, false));
    assert!((claimed.load - 700.0).abs() < 1e-9, "what it brings goes with it");
    let seen = a.heartbeat(0.0, false).await.expect("answered").others;
    let load = seen.iter().find(|instance| instance.peer == *other).expect("alive").load;
    assert!((load - 700.0).abs() < 1e-9, "whoever looks at the loads next sees it: {seen:?}");
    assert_eq!(b.give(&gift(1, 2, None)).await, Ok(Some(3)), "to nobody");
    assert_eq!(whose(a, 1).await, (one.clone(), 4, true));
    world.pass(EXPIRY).await;
    beat(a, 0.0).await;
    assert_eq!(a.give(&gift(1, 4, Some(other))).await, Ok(None), "it was not heard of");
}

pub(crate) async fn leaving(world: &impl World) {
    let all = joined(world, &["a", "b"]).await;
    let [(a, _), (b, other)] = &all[..] else { panic!("two") };
    a.claim(&[group(1), group(2)], EXPIRY).await.expect("answered");
    whose(b, 3).await;
    assert_eq!(a.leave().await, Ok(2));
    assert_eq!(b.heartbeat(0.0, false).await.expect("answered").others, []);
    assert_eq!(whose(b, 1).await, (other.clone(), 3, true), "free at once");
    assert_eq!(whose(b, 3).await, (other.clone(), 1, false));
    assert_eq!(a.leave().await, Ok(0), "there is nothing left");
}

pub(crate) async fn changes(world: &impl World) {
    let all = joined(world, &["a", "b"]).await;
    let [(a, one), (b, other)] = &all[..] else { panic!("two") };
    let minute = Duration::from_secs(60);
    let change =
        |number, owner: Option<&Peer>, epoch| Change { key: GroupKey(number), owner: owner.cloned(), epoch };
    let owners = async || {
        let mut owners = b.owners().await.expect("answered");
        owners.sort_by_key(|change| change.key);
        owners
    };
    let changes = async |within| {
        let mut changes = b.changes(within).await.expect("answered");
        changes.sort_by_key(|change| change.key);
        changes
    };
    a.claim(&[group(1), group(2)], EXPIRY).await.expect("answered");
    let new = [change(1, Some(one), 1), change(2, Some(one), 1)];
    assert_eq!((changes(minute).await, owners().await), (new.to_vec(), new.to_vec()));
    a.give(&gift(1, 1, Some(other))).await.expect("answered");
    let moved = [change(1, Some(other), 2), change(2, Some(one), 1)];
    assert_eq!((changes(minute).await, owners().await), (moved.to_vec(), moved.to_vec()));
    world.pass(minute).await;
    beat(a, 0.0).await;
    assert_eq!(changes(minute).await, []);
    assert_eq!(owners().await, [change(2, Some(one), 1)], "b was not heard of, and has nothing any more");
    assert_eq!(changes(2 * minute).await, [change(1, None, 2), change(2, Some(one), 1)]);
    beat(b, 0.0).await;
    assert_eq!(changes(2 * minute).await, moved);
    a.give(&gift(2, 1, None)).await.expect("answered");
    assert_eq!(changes(minute).await, [change(2, None, 2)]);
    assert_eq!(owners().await, [change(1, Some(other), 2)]);
}

pub(crate) async fn news(world: &impl World) {
    let all = joined(world, &["a", "b"]).await;
    let [(a, one), (b, other)] = &all[..] else { panic!("two") };
    assert_eq!(b.news().await, News::Missed, "from here on it listens");
    whose(a, 1).await;
    a.give(&gift(1, 1, Some(other))).await.expect("answered");
    let change = |owner: Option<&Peer>, epoch| {
        News::Changed(Change { key: GroupKey(1), owner: owner.cloned(), epoch })
    };
    assert_eq!(b.news().await, change(Some(other), 2));
    b.give(&gift(1, 2, None)).await.expect("answered");
    assert_eq!(b.news().await, change(None, 3));
    whose(a, 1).await;
    assert_eq!(b.news().await, change(Some(one), 4), "taken over");
    a.shared(&[GroupKey(7)]).await.expect("answered");
    assert_eq!(b.news().await, News::Shared(GroupKey(7)));
    a.leave().await.expect("answered");
    assert_eq!(b.news().await, News::Left(Arc::clone(&one.id)));
}

pub(crate) async fn tidying(world: &impl World) {
    let all = joined(world, &["a", "b"]).await;
    let [(a, one), (b, _)] = &all[..] else { panic!("two") };
    whose(a, 1).await;
    whose(b, 2).await;
    let day = Duration::from_secs(25 * 3600);
    world.pass(day).await;
    beat(a, 0.0).await;
    a.tidy().await.expect("answered");
    assert_eq!(whose(a, 1).await, (one.clone(), 1, false), "somebody has it");
    assert_eq!(whose(a, 2).await, (one.clone(), 1, true), "it was forgotten, and begins anew");
    assert_eq!(a.leave().await, Ok(2));
}
