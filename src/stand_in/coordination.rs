//! A database that several instances share their groups out by, in memory: the same rules as in PostgreSQL, and faults on demand.
//!
//! Its time is an argument, so that it fits simulated time; its news are delivered at once, or not at all.

use crate::placement::store::{
    Answer, Change, Claimed, EXPIRY, Gift, Instance, News, Pulse, STATEMENT_MAX, Store, StoreError,
};
use crate::placement::{Asking, GroupId, Peer};
use crate::series::GroupKey;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

/// News that an instance may be behind by; beyond, it misses some.
const NEWS_MAX: usize = 1024;
/// What has been nobody's for that long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
const INSTANCE_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How an instance gets on with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// It is answered.
    #[default]
    Well,
    /// It is answered so much later.
    Late(Duration),
    /// There is no connection.
    Refused,
    /// What it asks gets lost.
    Silent,
    /// What it asks is done, and the answer gets lost.
    Unanswered,
}

/// The database. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct Tables(Arc<Shared>);

struct Shared {
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    rows: Mutex<Rows>,
    news: broadcast::Sender<News>,
}

#[derive(Debug, Default)]
struct Rows {
    instances: BTreeMap<Arc<str>, InstanceRow>,
    groups: BTreeMap<GroupKey, GroupRow>,
    statements: u64,
}

/// The rows of a [`Tables`] at a moment.
#[derive(Debug)]
pub struct Snapshot {
    instances: BTreeMap<Arc<str>, InstanceRow>,
    groups: BTreeMap<GroupKey, GroupRow>,
}

#[derive(Debug, Clone)]
struct InstanceRow {
    url: Arc<str>,
    heartbeat: Duration,
    load: f64,
    draining: bool,
}

#[derive(Debug, Clone)]
struct GroupRow {
    owner: Option<Arc<str>>,
    epoch: i64,
    since: Duration,
    load: f64,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tables").field(&*self.rows()).finish()
    }
}

impl Rows {
    fn lives(&self, id: &str, now: Duration) -> bool {
        self.was_heard_of(id, EXPIRY, now)
    }

    fn was_heard_of(&self, id: &str, within: Duration, now: Duration) -> bool {
        self.instances.get(id).is_some_and(|row| row.heartbeat + within > now)
    }

    fn change(&self, key: GroupKey, row: &GroupRow, now: Duration) -> Change {
        let owner = row.owner.as_ref().filter(|owner| self.lives(owner, now));
        Change { key, owner: owner.and_then(|owner| self.peer(owner)), epoch: row.epoch }
    }

    fn peer(&self, id: &Arc<str>) -> Option<Peer> {
        self.instances.get(id).map(|row| Peer { id: Arc::clone(id), url: Arc::clone(&row.url) })
    }
}

impl Tables {
    /// Empty ones. `clock`: the database's time, since whenever.
    pub fn new(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let shared =
            Shared { clock: Box::new(clock), rows: Mutex::default(), news: broadcast::Sender::new(NEWS_MAX) };
        Self(Arc::new(shared))
    }

    /// What one instance asks by.
    #[must_use]
    pub fn store(&self, me: Peer) -> MemoryStore {
        let listening = tokio::sync::Mutex::new(Listening { from: self.0.news.subscribe(), told: false });
        MemoryStore { tables: self.clone(), me, reach: watch::Sender::new(Reach::Well), listening }
    }

    /// Who has a group, and its epoch. An owner that is gone counts.
    #[must_use]
    pub fn owner(&self, group: GroupKey) -> Option<(Arc<str>, i64)> {
        let rows = self.rows();
        let row = rows.groups.get(&group)?;
        Some((row.owner.clone()?, row.epoch))
    }

    /// How long ago an instance was last heard of.
    #[must_use]
    pub fn silence(&self, id: &str) -> Option<Duration> {
        let now = (self.0.clock)();
        self.rows().instances.get(id).map(|row| now.saturating_sub(row.heartbeat))
    }

    /// How many statements were answered so far.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.rows().statements
    }

    /// Loses all rows, as a database does that a backup from before is played back to.
    pub fn forget(&self) {
        let mut rows = self.rows();
        rows.instances.clear();
        rows.groups.clear();
    }

    /// What another server has that follows this one, and follows it no more.
    #[must_use]
    pub fn copy(&self) -> Snapshot {
        let rows = self.rows();
        Snapshot { instances: rows.instances.clone(), groups: rows.groups.clone() }
    }

    /// That other server has its place: what was written since is gone, and all connections break.
    pub fn fall_back(&self, copy: Snapshot) {
        {
            let mut rows = self.rows();
            (rows.instances, rows.groups) = (copy.instances, copy.groups);
        }
        // Nobody may be listening.
        let _ = self.0.news.send(News::Missed);
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Tables`] as one instance has them.
#[derive(Debug)]
pub struct MemoryStore {
    tables: Tables,
    me: Peer,
    reach: watch::Sender<Reach>,
    listening: tokio::sync::Mutex<Listening>,
}

#[derive(Debug)]
struct Listening {
    from: broadcast::Receiver<News>,
    /// It is known to the listener that it listens.
    told: bool,
}

impl MemoryStore {
    /// From now on this instance gets on like that.
    pub fn set_reach(&self, reach: Reach) {
        self.reach.send_replace(reach);
    }

    fn answer<'a, T: Send + 'a>(
        &'a self,
        statement: impl FnOnce(&mut Rows, Duration) -> (T, Vec<News>) + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let reach = *self.reach.borrow();
            match reach {
                Reach::Refused => return Err(StoreError::Unreachable("it is away".to_owned())),
                Reach::Silent => {
                    sleep(STATEMENT_MAX).await;
                    return Err(StoreError::Silent);
                }
                Reach::Late(by) => sleep(by).await,
                Reach::Well | Reach::Unanswered => {}
            }
            let (answer, news) = {
                let mut rows = self.tables.rows();
                rows.statements += 1;
                statement(&mut rows, (self.tables.0.clock)())
            };
            for each in news {
                // Nobody may be listening.
                let _ = self.tables.0.news.send(each);
            }
            if reach == Reach::Unanswered {
                sleep(STATEMENT_MAX).await;
                return Err(StoreError::Silent);
            }
            Ok(answer)
        })
    }
}

impl Store for MemoryStore {
    fn heartbeat(&self, load: f64, draining: bool) -> Answer<'_, Pulse> {
        self.answer(move |rows, now| {
            let lapsed = !rows.lives(&self.me.id, now);
            let row = InstanceRow { url: Arc::clone(&self.me.url), heartbeat: now, load, draining };
            rows.instances.insert(Arc::clone(&self.me.id), row);
            let others = rows.instances.iter().filter(|(id, _)| **id != self.me.id && rows.lives(id, now));
            let others = others.map(|(id, row)| Instance {
                peer: Peer { id: Arc::clone(id), url: Arc::clone(&row.url) },
                load: row.load,
                draining: row.draining,
            });
            (Pulse { others: others.collect(), lapsed }, Vec::new())
        })
    }

    fn claim<'a>(&'a self, groups: &'a [GroupId], expiry: Duration) -> Answer<'a, Vec<Claimed>> {
        self.answer(move |rows, now| {
            let (mut claimed, mut news) = (Vec::new(), Vec::new());
            for group in groups {
                let before = rows.groups.get(&group.key);
                let taken = before.and_then(|row| row.owner.clone());
                let taken = taken.filter(|owner| rows.was_heard_of(owner, expiry, now));
                // As of the real one: what was taken a moment ago is nobody else's, whether its owner lives or not.
                if taken.is_none()
                    && before.is_some_and(|row| row.owner.is_some() && row.since + expiry > now)
                {
                    continue;
                }
                let (epoch, load) = before.map_or((0, 0.0), |row| (row.epoch, row.load));
                let newly = taken.is_none();
                let (owner, epoch) = match taken.as_ref().and_then(|owner| rows.peer(owner)) {
                    Some(owner) => (owner, epoch),
                    None => (self.me.clone(), epoch + 1),
                };
                if newly {
                    let row = GroupRow { owner: Some(Arc::clone(&owner.id)), epoch, since: now, load };
                    rows.groups.insert(group.key, row);
                    if epoch > 1 {
                        news.push(News::Changed(Change {
                            key: group.key,
                            owner: Some(owner.clone()),
                            epoch,
                        }));
                    }
                }
                claimed.push(Claimed { key: group.key, owner, epoch, load, newly });
            }
            (claimed, news)
        })
    }

    fn give<'a>(&'a self, gift: &'a Gift) -> Answer<'a, Option<i64>> {
        self.answer(move |rows, now| {
            let taken = gift.to.as_ref().is_none_or(|to| {
                rows.lives(&to.id, now) && rows.instances.get(&to.id).is_some_and(|row| !row.draining)
            });
            let mine = |row: &&mut GroupRow| {
                row.owner.as_deref() == Some(&*self.me.id) && row.epoch == gift.epoch && taken
            };
            let Some(row) = rows.groups.get_mut(&gift.key).filter(mine) else { return (None, Vec::new()) };
            row.owner = gift.to.as_ref().map(|to| Arc::clone(&to.id));
            row.epoch += 1;
            row.since = now;
            row.load = gift.load;
            let epoch = row.epoch;
            if let Some(to) = gift.to.as_ref().and_then(|to| rows.instances.get_mut(&to.id)) {
                to.load += gift.load;
            }
            let change = Change { key: gift.key, owner: gift.to.clone(), epoch };
            (Some(epoch), vec![News::Changed(change)])
        })
    }

    fn leave(&self) -> Answer<'_, u64> {
        self.answer(move |rows, now| {
            rows.instances.remove(&self.me.id);
            let mut left = 0;
            for row in rows.groups.values_mut().filter(|row| row.owner.as_deref() == Some(&*self.me.id)) {
                row.owner = None;
                row.epoch += 1;
                row.since = now;
                left += 1;
            }
            (left, vec![News::Left(Arc::clone(&self.me.id))])
        })
    }

    fn owners(&self) -> Answer<'_, Vec<Change>> {
        self.answer(move |rows, now| {
            let all = rows.groups.iter().map(|(key, row)| rows.change(*key, row, now));
            (all.filter(|change| change.owner.is_some()).collect(), Vec::new())
        })
    }

    fn changes(&self, within: Duration) -> Answer<'_, Vec<Change>> {
        self.answer(move |rows, now| {
            let lately = rows.groups.iter().filter(|(_, row)| row.since + within > now);
            let changes = lately.map(|(key, row)| rows.change(*key, row, now));
            (changes.filter(|change| change.epoch > 1 || change.owner.is_some()).collect(), Vec::new())
        })
    }

    fn shared<'a>(&'a self, groups: &'a [GroupKey]) -> Answer<'a, ()> {
        self.answer(move |_, _| ((), groups.iter().map(|group| News::Shared(*group)).collect()))
    }

    fn tidy(&self) -> Answer<'_, ()> {
        self.answer(move |rows, now| {
            rows.instances.retain(|_, row| row.heartbeat + INSTANCE_FORGOTTEN_AFTER > now);
            let Rows { instances, groups, .. } = rows;
            groups.retain(|_, row| {
                let owned = row.owner.as_ref().is_some_and(|owner| instances.contains_key(owner));
                owned || row.since + FORGOTTEN_AFTER > now
            });
            ((), Vec::new())
        })
    }

    fn news(&self) -> Asking<'_, News> {
        Box::pin(async move {
            let mut listening = self.listening.lock().await;
            let mut reach = self.reach.subscribe();
            loop {
                if *reach.borrow_and_update() != Reach::Well {
                    listening.told = false;
                    // Neither ends while this store is there.
                    let _ = reach.changed().await;
                    continue;
                }
                if !listening.told {
                    listening.from = listening.from.resubscribe();
                    listening.told = true;
                    return News::Missed;
                }
                tokio::select! {
                    news = listening.from.recv() => return news.unwrap_or(News::Missed),
                    _ = reach.changed() => {}
                }
            }
        })
    }
}
