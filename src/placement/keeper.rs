//! The keeper: answers whose a group is, and keeps that in step with the database.
//!
//! Owns that senders never feel the database: what is known stays as it is while the database is away, and what is unknown is then
//! served here. Refuses to touch requests; of a group that leaves it only says so, when its last request here has ended.

mod cache;
mod database;
mod desk;
mod load;
mod others;
mod rounds;

use super::balance::Dice;
use super::metrics::Metrics;
use super::shown::{OtherInstance, Shown};
use super::store::{Change, STATEMENT_MAX, Store, StoreError};
use super::{Asking, GroupId, Memory, Peer, Placement, Whose};
use crate::series::GroupKey;
use cache::{Cache, Lost};
use dashmap::DashMap;
use database::Database;
use desk::Desk;
use others::Others;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How long a request waits to learn whose its group is.
const ASK_MAX: Duration = STATEMENT_MAX;
/// So many requests in a row that did not reach a peer make it one that is away, if the database cannot say.
const HOPS_FAILED_MAX: u32 = 3;

/// The placement of one instance.
pub struct Keeper {
    me: Peer,
    store: Arc<dyn Store>,
    memory: Arc<dyn Memory>,
    cache: Cache,
    desk: Desk,
    metrics: Metrics,
    database: Database,
    /// The database knows this instance, so that groups can be its own.
    registered: watch::Sender<bool>,
    /// No group is given to this instance any more.
    draining: AtomicBool,
    /// Nothing is served here any more.
    leaving: AtomicBool,
    /// This instance is out of the list, and has to stay so.
    gone: watch::Sender<bool>,
    beat_now: Notify,
    /// Requests in a row that did not reach a peer. Those that are reached are not in it.
    failed_hops: DashMap<Arc<str>, u32>,
    /// A group is being given away; one at a time.
    giving: AtomicBool,
    /// The memory is being asked, or forgets a group; one at a time.
    remembering: tokio::sync::Mutex<()>,
    /// A group begins anew; one at a time.
    beginning_anew: tokio::sync::Mutex<()>,
    /// Groups that were served here and by their owners, which are to be told.
    shared: Mutex<Vec<GroupKey>>,
    dice: Mutex<Dice>,
    others: Mutex<Others>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Knows nothing yet. [`Keeper::run`] has to run.
    #[must_use]
    pub fn new(
        me: Peer,
        store: Arc<dyn Store>,
        metrics: Metrics,
        seed: u64,
        memory: Arc<dyn Memory>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(Arc::clone(&me.id)),
            me,
            store,
            memory,
            desk: Desk::default(),
            metrics,
            database: Database::new(Instant::now()),
            registered: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            gone: watch::Sender::new(false),
            beat_now: Notify::new(),
            failed_hops: DashMap::new(),
            giving: AtomicBool::new(false),
            remembering: tokio::sync::Mutex::default(),
            beginning_anew: tokio::sync::Mutex::default(),
            shared: Mutex::default(),
            dice: Mutex::new(Dice::new(seed)),
            others: Mutex::new(Others::none(Instant::now())),
        })
    }

    /// Who this instance is.
    #[must_use]
    pub fn me(&self) -> &Peer {
        &self.me
    }

    /// Heartbeats, claims, news, and giving away. Ends when this instance has left.
    pub async fn run(self: Arc<Self>) {
        let mut gone = self.gone.subscribe();
        let rounds = async { tokio::join!(self.beat(), self.claim(), self.listen(), self.poll()) };
        tokio::select! {
            // In this order: a heartbeat that is due as well would put this instance on the list again.
            biased;
            // Cannot fail: the sender is in here.
            _ = gone.wait_for(|gone| *gone) => {}
            _ = rounds => {}
        }
    }

    /// Is given no group by others any more. What comes is served as before.
    pub fn drain(&self) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            self.beat_now.notify_one();
        }
    }

    /// Leaves all groups to the others: none is served here from now on, and when the requests that are have ended, or `within` is
    /// over, the database is told.
    pub async fn leave(&self, within: Duration) {
        self.drain();
        self.leaving.store(true, Ordering::Release);
        let stays = self.cache.all_begin_to_leave();
        let groups = stays.len();
        let all = async {
            for each in &stays {
                each.ended().await;
            }
        };
        if timeout(within, all).await.is_err() {
            tracing::warn!(groups, "groups are left although requests for them have not ended");
        }
        self.gone.send_replace(true);
        match self.told(self.store.leave()).await {
            Some(left) => tracing::info!(groups = left, "groups left to the other instances"),
            None => tracing::warn!(
                groups,
                "the other instances take the groups over when this one is not heard of"
            ),
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// The answer of the database, if there is one. What there is not is counted, and logged once.
    async fn told<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        self.metrics.statements.inc();
        match answer.await {
            Ok(told) => {
                self.metrics.database_up.set(1);
                if self.database.answered(Instant::now()) {
                    tracing::info!("the coordination database answers again");
                }
                Some(told)
            }
            Err(error) => {
                self.metrics.statement_errors.inc();
                let (away, since_now) = self.database.failed(&error, Instant::now());
                if since_now {
                    tracing::warn!(%error, "no coordination: placement stays as it is, new groups are served where they come");
                } else if !away {
                    tracing::warn!(%error, "a statement to the coordination database failed");
                }
                if away {
                    self.metrics.database_up.set(0);
                }
                None
            }
        }
    }

    fn is_up(&self) -> bool {
        self.database.is_up()
    }

    /// Placement as this instance has it now, with at most so many of its groups and of the others.
    #[must_use]
    pub fn shown(&self, groups_max: usize, others_max: usize) -> Shown {
        let now = Instant::now();
        let (groups, groups_left_out, of_others) = self.cache.shown(groups_max, now);
        let (heartbeat, mut others) = {
            let others = self.others();
            (others.heartbeat(), others.alive().values().cloned().collect::<Vec<_>>())
        };
        others.sort_unstable_by(|a, b| (&a.peer.url, &a.peer.id).cmp(&(&b.peer.url, &b.peer.id)));
        let others_left_out = others.len().saturating_sub(others_max);
        let others = others.into_iter().take(others_max).map(|other| OtherInstance {
            groups_known: of_others.get(&other.peer.id).copied().unwrap_or(0),
            hops_failed: self.failed_hops.get(&other.peer.id).map_or(0, |failed| *failed),
            samples_per_second: other.load,
            draining: other.draining,
            peer: other.peer,
        });
        Shown {
            me: self.me.clone(),
            samples_per_second: self.metrics.load.get(),
            draining: self.is_draining(),
            database: self.database.shown(heartbeat, now),
            others: others.collect(),
            others_left_out,
            groups,
            groups_left_out,
        }
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(self: &Arc<Self>, change: Change) {
        if let Some(lost) = self.cache.hear(change) {
            self.lost(lost);
        }
    }

    /// A group that was served here is another's.
    fn lost(self: &Arc<Self>, Lost { key, stays }: Lost) {
        self.metrics.lost.inc();
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            stays.ended().await;
            keeper.forgets(key).await;
            keeper.cache.departed(key);
            keeper.shared.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        });
    }

    /// Has a group forgotten.
    async fn forgets(&self, key: GroupKey) {
        self.remembers(move |memory| memory.forget(key)).await;
    }

    /// Asks the memory, which may take its time: one after the other, and nothing on this thread. `None`: it panicked.
    async fn remembers<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Memory) -> T + Send + 'static,
    ) -> Option<T> {
        let _turn = self.remembering.lock().await;
        let memory = Arc::clone(&self.memory);
        match tokio::task::spawn_blocking(move || ask(&*memory)).await {
            Ok(told) => Some(told),
            Err(error) => {
                tracing::error!(%error, "what is remembered of a group ended in a panic");
                None
            }
        }
    }
}

impl Placement for Keeper {
    fn known(&self, group: GroupKey) -> Option<Whose> {
        self.cache.known(group)
    }

    fn ask<'a>(&'a self, group: &'a GroupId) -> Asking<'a, Whose> {
        Box::pin(async move {
            if let Some(whose) = self.known(group.key) {
                return whose;
            }
            if self.is_leaving() {
                return Whose::Moving;
            }
            if self.is_up()
                && let Some(answered) = self.desk.ask(group)
            {
                // Whichever way it ends: what is known then counts.
                let _ = timeout(ASK_MAX, answered.acquire()).await;
            }
            self.known(group.key).unwrap_or_else(|| self.cache.serve(group, Instant::now()))
        })
    }

    fn misdirected(&self, group: GroupKey, peer: &Peer) {
        self.cache.misdirected(group, &peer.id);
    }

    fn hopped(&self, peer: &Peer, reached: bool) {
        if reached {
            if !self.failed_hops.is_empty() {
                self.failed_hops.remove(&peer.id);
            }
            return;
        }
        let failed = {
            let mut failed = self.failed_hops.entry(Arc::clone(&peer.id)).or_insert(0);
            *failed = failed.saturating_add(1);
            *failed
        };
        if failed >= HOPS_FAILED_MAX && !self.is_up() && !self.is_leaving() {
            let groups = self.cache.take_from(&peer.id, Instant::now());
            if groups > 0 {
                let url = &*peer.url;
                tracing::warn!(
                    url,
                    groups,
                    "an instance cannot be reached, nor the database: its groups are served here"
                );
            }
        }
    }
}
