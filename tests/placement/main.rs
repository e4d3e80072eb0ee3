//! Who has which group: the keeper, the stand-in of its database, and how a fleet of instances shares groups out.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod fleet;
mod keeper;
mod outage;
mod rules;
mod shown;
mod stories;

use promdedup::placement::Peer;
use promdedup::placement::store::Store;
use promdedup::stand_in::coordination::Tables;
use rules::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The stand-in, and a clock that goes when it is told to.
struct InMemory {
    tables: Tables,
    clock_ms: Arc<AtomicU64>,
}

impl InMemory {
    fn new() -> Self {
        let clock_ms = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&clock_ms);
        Self { tables: Tables::new(move || Duration::from_millis(clock.load(Relaxed))), clock_ms }
    }
}

impl World for InMemory {
    fn store(&self, me: &Peer) -> Arc<dyn Store> {
        Arc::new(self.tables.store(me.clone()))
    }

    async fn pass(&self, time: Duration) {
        self.clock_ms.fetch_add(time.as_millis() as u64, Relaxed);
    }
}

#[test]
fn a_small_fleet_comes_to_rest_evenly() {
    for seed in 0..4 {
        for told in stories::all(30, 3000, seed) {
            let gone = told.what.contains("killed") || told.what.contains("restart");
            assert_eq!(told.claims > 0, gone || told.what == "from nothing", "seed {seed}: {told:?}");
            assert!(told.before >= told.balance, "seed {seed}: {told:?}");
            // What an instance says at rest, and at most some groups a second that begin or move.
            assert!(told.statements_at_rest <= 0.6 * 60.0, "seed {seed}: {told:?}");
            assert!(told.statements_a_second <= 300.0, "seed {seed}: {told:?}");
            // A group is a part of what an instance has on average; heavier groups than that cannot be shared out.
            assert!(told.balance <= 1.35, "seed {seed}: {told:?}");
            assert!(told.settled_s <= 900, "seed {seed}: {told:?}");
            // While instances come and go for minutes, what was right a minute ago may not be now.
            let again = if told.settled_s >= 600 { 3 } else { 20 };
            assert!(told.moved_twice * again <= told.moves, "to and fro, seed {seed}: {told:?}");
        }
    }
}

#[tokio::test]
async fn the_stand_in_keeps_the_rules_of_the_database() {
    rules::heartbeats(&InMemory::new()).await;
    rules::claims(&InMemory::new()).await;
    rules::takeovers(&InMemory::new()).await;
    rules::gifts(&InMemory::new()).await;
    rules::leaving(&InMemory::new()).await;
    rules::changes(&InMemory::new()).await;
    rules::news(&InMemory::new()).await;
    rules::tidying(&InMemory::new()).await;
}
