//! Several keepers, one database in memory, simulated time: who serves a group, whatever happens to the others, and to the way
//! between them.

use super::rules::{group, peer};
use promdedup::placement::store::{EXPIRY, HEARTBEAT_EVERY, Store};
use promdedup::placement::{Keeper, Memory, Metrics, Peer, Placement, Stay, Whose};
use promdedup::series::GroupKey;
use promdedup::stand_in::coordination::{MemoryStore, Reach, Tables};
use prometheus::Registry;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub(crate) struct One {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) store: Arc<MemoryStore>,
    memory: Arc<Remembered>,
    registry: Registry,
    pub(crate) task: JoinHandle<()>,
}

/// What was forgotten, and whether a group is needed.
#[derive(Default)]
struct Remembered {
    left: Mutex<Vec<GroupKey>>,
    needed: AtomicBool,
}

impl Memory for Remembered {
    fn is_needed(&self, _: GroupKey) -> bool {
        self.needed.load(Relaxed)
    }

    fn forget(&self, group: GroupKey) {
        self.left.lock().unwrap().push(group);
    }
}

pub(crate) fn tables() -> Tables {
    let begun = Instant::now();
    Tables::new(move || begun.elapsed())
}

impl One {
    pub(crate) async fn start(tables: &Tables, name: &str) -> Self {
        let one = Self::starting(tables, name, Reach::Well);
        sleep(Duration::from_millis(1)).await;
        one
    }

    pub(crate) fn starting(tables: &Tables, name: &str, reach: Reach) -> Self {
        let (registry, memory) = (Registry::new(), Arc::<Remembered>::default());
        let store = Arc::new(tables.store(peer(name)));
        store.set_reach(reach);
        let metrics = Metrics::register(&registry).unwrap();
        let asked = Arc::clone(&memory) as Arc<dyn Memory>;
        let keeper = Keeper::new(peer(name), Arc::clone(&store) as Arc<dyn Store>, metrics, 7, asked);
        let task = tokio::spawn(Arc::clone(&keeper).run());
        Self { keeper, store, memory, registry, task }
    }

    pub(crate) async fn ask(&self, number: u128) -> Whose {
        self.keeper.ask(&group(number)).await
    }

    /// A stay of the group, which has to be this instance's.
    pub(crate) async fn mine(&self, number: u128) -> Stay {
        match self.ask(number).await {
            Whose::Mine(stay) => stay,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn theirs(&self, number: u128) -> Peer {
        match self.ask(number).await {
            Whose::Theirs(peer) => peer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn known(&self, number: u128) -> Option<Whose> {
        self.keeper.known(GroupKey(number))
    }

    pub(crate) fn is_mine(&self, number: u128) -> bool {
        matches!(self.known(number), Some(Whose::Mine(_)))
    }

    pub(crate) fn left(&self) -> Vec<GroupKey> {
        self.memory.left.lock().unwrap().clone()
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let family = self.registry.gather().into_iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        (metric.get_counter().get_value() + metric.get_gauge().get_value()) as u64
    }
}

/// A few heartbeats pass.
pub(crate) async fn beats(count: u32) {
    sleep(HEARTBEAT_EVERY * count + Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_first_has_it_and_the_others_learn() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    assert!(a.known(1).is_none(), "it has to be asked for");
    drop(a.mine(1).await);
    assert!(a.is_mine(1));
    assert_eq!(b.theirs(1).await, peer("a"));
    assert!(matches!(b.known(1), Some(Whose::Theirs(owner)) if owner == peer("a")), "asked once");
    beats(1).await;
    assert_eq!(a.metric("promdedup_placement_groups"), 1);
    assert_eq!(a.metric("promdedup_placement_instances"), 2);
    assert_eq!(
        (a.metric("promdedup_placement_claims_total"), b.metric("promdedup_placement_claims_total")),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn many_that_ask_at_once_ask_once() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    let before = tables.statements();
    let asking: Vec<_> = (0..200u128)
        .map(|number| {
            let keeper = Arc::clone(&a.keeper);
            tokio::spawn(async move { matches!(keeper.ask(&group(number % 10)).await, Whose::Mine(_)) })
        })
        .collect();
    for each in asking {
        assert!(each.await.unwrap());
    }
    let statements = tables.statements() - before;
    assert!(statements <= 3, "{statements} statements for 10 groups");
}

#[tokio::test(start_paused = true)]
async fn groups_of_one_that_dies_are_taken_over_when_it_has_expired() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(a.mine(1).await);
    assert_eq!(b.theirs(1).await, peer("a"));
    a.task.abort();
    sleep(EXPIRY / 2).await;
    assert!(matches!(b.known(1), Some(Whose::Theirs(_))), "it may come back");
    for _ in 0..5 {
        b.keeper.hopped(&peer("a"), false);
    }
    assert!(!b.is_mine(1), "the database says that it lives");
    sleep(EXPIRY).await;
    drop(b.mine(1).await);
    assert_eq!(tables.owner(GroupKey(1)), Some((peer("b").id, 2)));
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_while_a_request_from_before_runs_is_not_served_before_that_has_ended() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    let stay = a.mine(1).await;
    a.store.set_reach(Reach::Silent);
    sleep(EXPIRY * 2).await;
    drop(b.mine(1).await);
    a.store.set_reach(Reach::Well);
    beats(3).await;
    assert!(matches!(a.known(1), Some(Whose::Theirs(_))));
    b.keeper.leave(Duration::from_secs(1)).await;
    sleep(Duration::from_millis(1)).await;
    assert!(matches!(a.ask(1).await, Whose::Moving));
    drop(stay);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(a.left(), [GroupKey(1)]);
    drop(a.mine(1).await);
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_leaves_its_groups_at_once() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    let stay = a.mine(1).await;
    assert_eq!(b.theirs(1).await, peer("a"));
    a.keeper.drain();
    beats(1).await;
    drop(a.mine(2).await);
    let leaving = tokio::spawn({
        let keeper = Arc::clone(&a.keeper);
        async move { keeper.leave(Duration::from_secs(20)).await }
    });
    sleep(Duration::from_secs(5)).await;
    assert!(matches!(a.known(1), Some(Whose::Moving)) && matches!(a.ask(9).await, Whose::Moving));
    assert!(matches!(b.known(1), Some(Whose::Theirs(_))), "a request runs");
    drop(stay);
    leaving.await.unwrap();
    sleep(Duration::from_millis(1)).await;
    drop(b.mine(1).await);
    a.task.await.unwrap();
    beats(10).await;
    assert_eq!(b.metric("promdedup_placement_instances"), 1, "it says no more that it lives");
}

/// A heartbeat that was due at that moment would put it on the list again.
#[tokio::test(start_paused = true)]
async fn one_that_has_left_does_not_come_back_to_the_list() {
    for _ in 0..32 {
        let tables = tables();
        let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
        // Its heartbeat that says so is due at once.
        b.keeper.leave(Duration::from_secs(1)).await;
        beats(2).await;
        assert_eq!(a.metric("promdedup_placement_instances"), 1);
    }
}

/// Samples for the groups every second, which come to the first and go on to whoever has the group.
async fn bring(all: &[&One], loads: &[(u128, u64)], seconds: u64) {
    for _ in 0..seconds {
        for (number, samples) in loads {
            let whose = match all[0].ask(*number).await {
                Whose::Theirs(owner) => {
                    all.iter().find(|one| *one.keeper.me() == owner).unwrap().ask(*number).await
                }
                whose => whose,
            };
            if let Whose::Mine(stay) = whose {
                stay.brought(*samples);
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_heavy_one_gives_groups_away_and_their_memory_goes_before() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    let loads = [(1, 1000), (2, 1000), (3, 1000), (4, 1000)];
    bring(&[&a], &loads, 60).await;
    let b = One::start(&tables, "b").await;
    bring(&[&a, &b], &loads, 300).await;
    let given = a.left();
    assert_eq!(given.len(), 2, "then they are even: {given:?}");
    assert_eq!(a.metric("promdedup_placement_given_total"), 2);
    for key in given {
        assert!(matches!(a.known(key.0), Some(Whose::Theirs(owner)) if owner == peer("b")));
        assert_eq!(tables.owner(key), Some((peer("b").id, 2)));
        drop(b.mine(key.0).await);
    }
    assert_eq!(b.metric("promdedup_placement_claims_total"), 0, "they were given, not claimed");
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_requests_do_not_end_is_not_given_away() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    let _stays = (a.mine(1).await, a.mine(2).await);
    let loads = [(1, 1000), (2, 1000)];
    bring(&[&a], &loads, 60).await;
    let _b = One::start(&tables, "b").await;
    bring(&[&a], &[], 40).await;
    assert_eq!(a.left(), [], "nothing was forgotten");
    assert_eq!(
        tables.owner(GroupKey(1)).zip(tables.owner(GroupKey(2))).map(|(one, two)| (one.1, two.1)),
        Some((1, 1))
    );
    a.task.abort();
    sleep(Duration::from_secs(20)).await;
    assert!(a.is_mine(1) && a.is_mine(2), "it is served again");
}

/// What a standby has shown while the owner is overdue is in its memory alone.
#[tokio::test(start_paused = true)]
async fn a_group_whose_memory_is_needed_is_given_away_later() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    let loads = [(1, 1000), (2, 1000)];
    bring(&[&a], &loads, 60).await;
    a.memory.needed.store(true, Relaxed);
    let b = One::start(&tables, "b").await;
    bring(&[&a, &b], &loads, 120).await;
    assert_eq!(a.left(), [], "nothing was forgotten");
    assert!(a.is_mine(1) && a.is_mine(2), "and both are served");
    a.memory.needed.store(false, Relaxed);
    bring(&[&a, &b], &loads, 60).await;
    assert_eq!(a.left().len(), 1, "one goes");
}

#[tokio::test(start_paused = true)]
async fn a_gift_whose_answer_gets_lost_is_asked_for_again() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    bring(&[&a], &[(1, 1000), (2, 1000)], 60).await;
    let stays = [a.mine(1).await, a.mine(2).await];
    let _b = One::start(&tables, "b").await;
    let moving = || [1, 2].into_iter().find(|number| matches!(a.known(*number), Some(Whose::Moving)));
    let number = loop {
        match moving() {
            Some(number) => break number,
            None => sleep(Duration::from_millis(100)).await,
        }
    };
    // It waits for the requests. What it says then is heard, and the answer is not.
    a.store.set_reach(Reach::Unanswered);
    drop(stays);
    beats(2).await;
    assert_eq!(tables.owner(GroupKey(number)), Some((peer("b").id, 2)));
    assert_eq!(a.left(), [GroupKey(number)]);
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert_eq!(a.theirs(number).await, peer("b"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_it_is_not_its_own_is_believed() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(b.mine(1).await);
    assert_eq!(a.theirs(1).await, peer("b"));
    a.keeper.misdirected(GroupKey(1), &peer("c"));
    assert!(a.known(1).is_some(), "that one was not asked");
    a.keeper.misdirected(GroupKey(1), &peer("b"));
    assert!(a.known(1).is_none(), "it is asked for again");
    assert_eq!(a.theirs(1).await, peer("b"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_gets_lost_is_made_good() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    a.store.set_reach(Reach::Unanswered);
    drop(a.mine(1).await);
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert!(a.is_mine(1));
    assert_eq!(b.theirs(1).await, peer("a"));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_sends_for_is_left_after_an_hour() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    drop(a.mine(1).await);
    sleep(Duration::from_secs(3500)).await;
    assert!(a.is_mine(1));
    sleep(Duration::from_secs(3700)).await;
    assert!(a.known(1).is_none());
    assert_eq!((tables.owner(GroupKey(1)), a.left()), (None, vec![GroupKey(1)]));
}
