//! What the keeper does by itself, again and again: heartbeats, claims, news, and giving groups away.

use super::Keeper;
use super::cache::Tally;
use crate::placement::balance;
use crate::placement::store::{CLAIMED_AT_ONCE_MAX, Gift, HEARTBEAT_EVERY, Instance, News};
use crate::placement::{GroupId, Peer};
use crate::series::GroupKey;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Changes are asked for so often, in case that news got lost.
const POLL_EVERY: Duration = Duration::from_secs(10);
/// And those of so much longer: a statement counts from its beginning, and is seen when it has ended.
const OVERLAP: Duration = Duration::from_secs(20);
/// What has long been nobody's is forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// Requests of a group that is to be given away may take so long. Then it stays.
const LEAVING_MAX: Duration = Duration::from_secs(5);
/// Groups that nobody is sure of are claimed for so long between two heartbeats, which say that this instance lives.
const RECONCILED_AT_ONCE_MAX: Duration = Duration::from_secs(1);
/// A group that somebody else took at the same moment is asked for again, so often.
const TRIES_MAX: usize = 3;

impl Keeper {
    pub(super) async fn beat(self: &Arc<Self>) {
        let mut ticks = interval(HEARTBEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut missed) = (Instant::now(), false);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.beat_now.notified() => {}
            }
            let now = Instant::now();
            missed = !self.one_beat(now - last, now, missed).await;
            last = now;
        }
    }

    /// `missed`: there was no answer to the last one. Says whether there is one to this one.
    async fn one_beat(self: &Arc<Self>, since_last: Duration, now: Instant, missed: bool) -> bool {
        let tally = self.cache.tally(since_last, !self.is_up(), now);
        self.metrics.groups.set(i64::try_from(tally.groups).unwrap_or(i64::MAX));
        self.metrics.unconfirmed.set(i64::try_from(tally.unsure).unwrap_or(i64::MAX));
        self.metrics.load.set(tally.load);
        let beat = self.store.heartbeat(tally.load, self.is_draining());
        let Some(pulse) = self.told(beat).await else { return false };
        let before = self.registered.send_replace(true);
        if pulse.lapsed && before {
            tracing::warn!("this instance was not heard of for too long: others may have taken its groups");
        }
        // The database may have heard the last one, and what it said of a lapse got lost: it does not say so again.
        if before && (pulse.lapsed || missed) {
            self.cache.doubt();
        }
        if !before && let Some(owners) = self.told(self.store.owners()).await {
            // Nothing that exists is new here if the database is away before it was asked for.
            owners.into_iter().for_each(|change| self.hear(change));
        }
        self.metrics.instances.set(i64::try_from(pulse.others.len() + 1).unwrap_or(i64::MAX));
        {
            let mut others = self.others();
            others.heard_of(&pulse.others, now);
            // If the database was away, it has not heard of the others either: they keep what they have.
            if others.are_all_heard_of(now) {
                self.cache.keep_those_of(others.alive());
            }
            self.failed_hops.retain(|id, _| others.alive().contains_key(id));
        }
        self.reconcile().await;
        self.tell_of_shared().await;
        if !self.is_draining() {
            self.give_one(tally, &pulse.others);
        }
        true
    }

    /// Tells the owners of groups that were lost, and have left, that these were served here, too.
    async fn tell_of_shared(self: &Arc<Self>) {
        let shared = std::mem::take(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner));
        for groups in shared.chunks(CLAIMED_AT_ONCE_MAX) {
            self.told(self.store.shared(groups)).await;
        }
    }

    /// Another instance has served a group of this one as well. So upstream has what was never seen here, intervals were learned from
    /// half of the samples, and what a replica was refused here it may have brought there: what is remembered of it is worse than nothing.
    fn begin_anew(self: &Arc<Self>, key: GroupKey) {
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            // One after the other, since each stands still meanwhile.
            let _turn = keeper.beginning_anew.lock().await;
            let Some(group) = keeper.cache.begin_to_leave(key) else { return };
            tracing::info!("a group was served by another instance, too: it begins anew here");
            if timeout(LEAVING_MAX, group.stays.ended()).await.is_ok() {
                keeper.forgets(key).await;
            }
            if !keeper.is_leaving() {
                keeper.cache.stays(key, Instant::now());
            }
        });
    }

    /// Claims what is served here without the database knowing; what somebody else has is lost. The next heartbeat does not wait for all
    /// of it: what is left is claimed after that.
    async fn reconcile(self: &Arc<Self>) {
        let until = Instant::now() + RECONCILED_AT_ONCE_MAX;
        let mut before = Vec::new();
        while Instant::now() < until {
            let unsure = self.cache.unsure(CLAIMED_AT_ONCE_MAX);
            let nothing_new = unsure.is_empty() || unsure == before;
            if nothing_new || self.is_leaving() || !self.claim_these(unsure.clone()).await {
                return;
            }
            before = unsure;
        }
    }

    /// Answers questions.
    pub(super) async fn claim(self: &Arc<Self>) {
        let mut registered = self.registered.subscribe();
        // Cannot fail: the sender is in here.
        let _ = registered.wait_for(|registered| *registered).await;
        loop {
            self.desk.filled().await;
            loop {
                let asked = self.desk.take(CLAIMED_AT_ONCE_MAX);
                if asked.is_empty() {
                    break;
                }
                self.claim_these(asked.clone()).await;
                self.desk.answered(&asked);
            }
        }
    }

    /// True when the database has answered for at least one.
    async fn claim_these(self: &Arc<Self>, mut groups: Vec<GroupId>) -> bool {
        let mut told = false;
        for _ in 0..TRIES_MAX {
            let expiry = self.others().expiry(Instant::now());
            let statement = self.store.claim(&groups, expiry);
            let Some(claimed) = self.told(statement).await else { return told };
            let now = Instant::now();
            for claimed in claimed {
                let Some(place) = groups.iter().position(|group| group.key == claimed.key) else { continue };
                let group = groups.swap_remove(place);
                told = true;
                self.metrics.claims.inc_by(u64::from(claimed.newly));
                let lives = self.others().surely_lives(&claimed.owner.id, now);
                if let Some(lost) = self.cache.settle(&group, claimed, lives, now) {
                    self.lost(lost);
                }
            }
            if groups.is_empty() {
                return told;
            }
        }
        told
    }

    pub(super) async fn listen(self: &Arc<Self>) {
        let mut polled = Instant::now();
        loop {
            match self.store.news().await {
                News::Changed(change) => self.hear(change),
                News::Shared(key) => self.begin_anew(key),
                News::Left(id) => self.cache.left(&id),
                News::Missed => {
                    // The connection broke: maybe another server has the database's place, and has not heard of the last changes.
                    self.cache.doubt();
                    self.poll_since(&mut polled).await;
                }
            }
        }
    }

    pub(super) async fn poll(self: &Arc<Self>) {
        let (mut polled, mut tidied) = (Instant::now(), Instant::now());
        let mut ticks = interval(POLL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            // While the database is away, heartbeats are enough to find out when it is back.
            if !self.is_up() {
                continue;
            }
            self.poll_since(&mut polled).await;
            // After the database was away for long, instances that live look as if they had been gone for long.
            if tidied.elapsed() >= TIDY_EVERY && self.others().are_all_heard_of(Instant::now()) {
                tidied = Instant::now();
                self.told(self.store.tidy()).await;
            }
        }
    }

    /// Asks what has changed since the last time that this was told.
    async fn poll_since(self: &Arc<Self>, polled: &mut Instant) {
        let now = Instant::now();
        let changes = self.store.changes(now - *polled + OVERLAP);
        let Some(changes) = self.told(changes).await else { return };
        *polled = now;
        changes.into_iter().for_each(|change| self.hear(change));
    }

    /// Begins to give a group away, if there is a reason, and none is on its way.
    fn give_one(self: &Arc<Self>, tally: Tally, others: &[Instance]) {
        if self.giving.load(Ordering::Acquire) {
            return;
        }
        let staying: Vec<&Instance> = others.iter().filter(|other| !other.draining).collect();
        let loads: Vec<f64> = staying.iter().map(|other| other.load).collect();
        let chosen = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            balance::choose(tally.load, &tally.settled, &loads, &mut dice)
        };
        let (group, to) = match (chosen, tally.idle) {
            (Some(chosen), _) => (chosen.group, Some(staying[chosen.to].peer.clone())),
            (None, Some(idle)) => (idle, None),
            (None, None) => return,
        };
        self.giving.store(true, Ordering::Release);
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            keeper.give(group, to).await;
            keeper.giving.store(false, Ordering::Release);
        });
    }

    async fn give(self: &Arc<Self>, key: GroupKey, to: Option<Peer>) {
        let Some(outgoing) = self.cache.begin_to_leave(key) else { return };
        if timeout(LEAVING_MAX, outgoing.stays.ended()).await.is_err() {
            tracing::debug!("a group stays here: its requests did not end in time");
            // One that is about to end keeps nothing.
            if !self.is_leaving() {
                self.cache.stays(key, Instant::now());
            }
            return;
        }
        // What is held of it would be gone with the memory, and the next owner's first sample may be far above.
        if !self.is_leaving() && self.remembers(move |memory| memory.is_needed(key)).await == Some(true) {
            tracing::debug!("a group stays here for now: one of its replicas is overdue");
            self.cache.stays(key, Instant::now());
            return;
        }
        // The memory of it has to be gone before anybody else may serve it.
        self.forgets(key).await;
        let gift = Gift { key, epoch: outgoing.epoch, load: outgoing.load, to };
        let given = self.told(self.store.give(&gift)).await.flatten();
        if given.is_some() && gift.to.is_some() {
            self.metrics.given.inc();
        }
        // If it was not given, or nobody knows: whoever comes next asks.
        self.cache.gave(key, given.zip(gift.to).map(|(epoch, to)| (to, epoch)));
    }
}
