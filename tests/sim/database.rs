//! The way from an instance to the database that all have in common: the stand-in's, with the time that it takes.

use crate::story::{Mishap, What};
use crate::world::World;
use promdedup::placement::store::{
    Answer, Change, Claimed, Gift, News, Pulse, STATEMENT_MAX, Store, StoreError,
};
use promdedup::placement::{Asking, GroupId};
use promdedup::series::GroupKey;
use promdedup::stand_in::coordination::{MemoryStore, Reach};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) world: Arc<World>,
    pub(crate) store: MemoryStore,
}

/// How an instance gets on with the database at the moment.
pub(crate) fn reach(world: &World, instance: usize) -> Reach {
    let state = world.state();
    let reach = state.faults.iter().find_map(|fault| match fault.what {
        What::Fleet(Mishap::DatabaseAway { reach }) => Some(reach),
        What::Fleet(Mishap::NoDatabase { instance: struck, reach }) if struck == instance => Some(reach),
        _ => None,
    });
    reach.unwrap_or_default()
}

impl Database {
    async fn way(&self) {
        let way_ms = {
            let mut state = self.world.state();
            let slow = state.faults.iter().find_map(|fault| match fault.what {
                What::Fleet(Mishap::DatabaseSlow { more_ms }) => Some(more_ms),
                _ => None,
            });
            let usual_ms = self.world.story.fleet.as_ref().map_or(0, |fleet| fleet.database_ms);
            state.dice.of(0..=usual_ms + slow.unwrap_or(0))
        };
        self.world.pause(way_ms).await;
    }

    /// A statement, and its way there and back. One that takes too long may have been done.
    fn far<'a, T: Send + 'a>(&'a self, statement: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move {
            let there_and_back = async {
                self.way().await;
                let answer = statement.await;
                self.way().await;
                answer
            };
            timeout(STATEMENT_MAX, there_and_back).await.unwrap_or(Err(StoreError::Silent))
        })
    }
}

impl Store for Database {
    fn heartbeat(&self, load: f64, draining: bool) -> Answer<'_, Pulse> {
        self.far(self.store.heartbeat(load, draining))
    }

    fn claim<'a>(&'a self, groups: &'a [GroupId], expiry: Duration) -> Answer<'a, Vec<Claimed>> {
        Box::pin(async move {
            // The keeper has no order; a story has one, since the news of it take their time one after the other.
            let mut groups = groups.to_vec();
            groups.sort_by_key(|group| group.key);
            self.far(self.store.claim(&groups, expiry)).await
        })
    }

    fn give<'a>(&'a self, gift: &'a Gift) -> Answer<'a, Option<i64>> {
        self.far(self.store.give(gift))
    }

    fn leave(&self) -> Answer<'_, u64> {
        self.far(self.store.leave())
    }

    fn owners(&self) -> Answer<'_, Vec<Change>> {
        self.far(self.store.owners())
    }

    fn changes(&self, within: Duration) -> Answer<'_, Vec<Change>> {
        self.far(self.store.changes(within))
    }

    fn shared<'a>(&'a self, groups: &'a [GroupKey]) -> Answer<'a, ()> {
        self.far(self.store.shared(groups))
    }

    fn tidy(&self) -> Answer<'_, ()> {
        self.far(self.store.tidy())
    }

    fn news(&self) -> Asking<'_, News> {
        Box::pin(async move {
            let news = self.store.news().await;
            self.way().await;
            news
        })
    }
}
