//! An HA group and its replicas, and what is counted of them in place.
//!
//! A group is found when one of its series is born, a replica of it once a request. Replicas only become more, up to a
//! bound: beyond it a newcomer is not deduplicated. Refuses to know series, and which groups there are.

use super::doubt::{DOUBT_MAX_MS, Doubt, Doubted};
use super::progress::{Begun, Others, Progress, Seen};
use super::sync::{AtomicI64, AtomicUsize, Mutex, MutexGuard, RwLock};
use super::tenant::Tenant;
use crate::policy::{ReplicaId, TimestampMs};
use crate::series::{GroupKey, short_name};
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, PoisonError};

/// Replicas of one group.
pub const REPLICAS_MAX: usize = 255;
/// All senders of a group have come within this after it was first seen: just above their longest backoff.
const FIRST_CONTACT_MS: i64 = 10_000;
/// A group that has been forgotten: it is younger than any that is known.
const UNBORN: i64 = i64::MAX;

/// One HA group of one tenant.
#[derive(Debug)]
pub struct Group {
    key: GroupKey,
    number: u32,
    name: Box<str>,
    tenant: Arc<Tenant>,
    /// Series of the window that belong to it.
    series: AtomicUsize,
    /// When a request of it last began or ended, in ms of the wall clock.
    met_ms: AtomicI64,
    /// When the window saw it for the first time (since it was forgotten), in ms of the wall clock; [`UNBORN`] until it does.
    born_ms: AtomicI64,
    replicas: RwLock<Vec<Arc<Replica>>>,
    progress: Mutex<Progress>,
    /// Of flights that got no answer.
    doubt: Doubt,
    /// Of the first requests, before which there may have been another window.
    first_contact: Doubt,
}

/// One replica of a group.
#[derive(Debug)]
pub struct Replica {
    name: Box<str>,
    owned: AtomicI64,
    last_seen_ms: AtomicI64,
    arrived_ms: AtomicI64,
    /// Since they were last [taken](Self::take_arrivals).
    requests: AtomicI64,
    delay_ms: AtomicI64,
}

/// The requests of a replica in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// How many there were; at least one.
    pub requests: i64,
    /// By how much the clock was ahead of the newest sample of one, at least, in ms: delivery takes at least nothing, so
    /// what is below zero is the replica's clock.
    pub delay_ms: i64,
}

impl Group {
    pub(super) fn new(key: GroupKey, number: u32, name: &str, tenant: Arc<Tenant>, now_ms: i64) -> Self {
        Self {
            key,
            number,
            name: name.into(),
            tenant,
            series: AtomicUsize::new(0),
            met_ms: AtomicI64::new(now_ms),
            born_ms: AtomicI64::new(now_ms),
            replicas: RwLock::default(),
            progress: Mutex::default(),
            doubt: Doubt::default(),
            first_contact: Doubt::default(),
        }
    }

    /// The values of the group labels joined by `/`, empty ones left out.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> GroupKey {
        self.key
    }

    /// Its number. It is no other group's for as long as somebody holds this one, or it has a series.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How long the window has known it, in ms.
    #[must_use]
    pub fn age_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.born_ms.load(Relaxed))
    }

    /// The window sees it, for the first time if it has been forgotten.
    pub fn meet(&self, now_ms: i64) {
        self.met_ms.fetch_max(now_ms, Relaxed);
        // A clock that has been set back must not make it new until it has come as far again.
        if self.born_ms.load(Relaxed) > now_ms {
            self.born_ms.fetch_min(now_ms, Relaxed);
        }
    }

    /// Whether the window has forgotten it and not seen it since.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.born_ms.load(Relaxed) == UNBORN
    }

    /// Makes it one that the window has never seen. Numbers stay: of the group, and of its replicas.
    pub(super) fn forget(&self) {
        *self.progress() = Progress::default();
        self.doubt.forget();
        self.first_contact.forget();
        for replica in self.replicas() {
            replica.last_seen_ms.store(i64::MIN, Relaxed);
            replica.arrived_ms.store(i64::MIN, Relaxed);
            let _ = replica.take_arrivals();
        }
        self.born_ms.store(UNBORN, Relaxed);
    }

    /// A request of a replica begins, and ends with [`Self::end_request`] or [`Self::leave_request`].
    #[must_use]
    pub fn begin_request(&self, replica: ReplicaId, begun: Begun, now_ms: i64) -> Others {
        let mut progress = self.progress();
        progress.begin(replica, begun, now_ms);
        progress.others(replica, begun.request, now_ms)
    }

    /// How far the other replicas are by now. `request`: that of the replica which is being served, see [`Seen::request`].
    #[must_use]
    pub fn others(&self, replica: ReplicaId, request: u64, now_ms: i64) -> Others {
        self.progress().others(replica, request, now_ms)
    }

    /// A request of a replica goes on in pieces, as upstream wants it.
    pub fn split_request(&self, replica: ReplicaId, request: u64) {
        self.progress().fronts.split(replica, request);
    }

    /// A request of a replica is going to be refused. Said before anybody can go on who waits for its flight.
    pub fn refuse_request(&self, replica: ReplicaId, seen: Seen, now_ms: i64) {
        self.progress().backlogs.end(replica, seen.request, seen.newest, seen.unsettled, now_ms);
    }

    /// A request of a replica has ended: how far it has come, in time and in being rid of what it has.
    pub fn end_request(&self, replica: ReplicaId, seen: Seen, now_ms: i64) {
        let Seen { request, newest, unsettled, works } = seen;
        // A window that has just begun may have one before it, and senders come first with what that has left.
        if self.age_ms(now_ms) <= FIRST_CONTACT_MS {
            self.first_contact.note(newest, now_ms);
        }
        let mut progress = self.progress();
        progress.backlogs.end(replica, request, newest, unsettled, now_ms);
        progress.fronts.end(replica, request);
        progress.fronts.note(replica, unsettled.unwrap_or(newest), works, now_ms);
        if let Some(front) = progress.fronts.recent(replica, now_ms) {
            progress.backlogs.reached(replica, front);
        }
    }

    /// A request of a replica has ended, and has shown nothing of it.
    pub fn leave_request(&self, replica: ReplicaId, request: u64) {
        let mut progress = self.progress();
        progress.fronts.end(replica, request);
        progress.backlogs.leave(replica, request);
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// A series of it is remembered.
    pub(super) fn gain(&self) {
        self.series.fetch_add(1, Relaxed);
    }

    /// A series of it is forgotten, and its target knows that.
    pub(super) fn lose(&self) {
        self.series.fetch_sub(1, Relaxed);
    }

    /// Whether nothing is left of it that anybody would miss: no series, no request for so long that its doubts are over,
    /// too. Only who holds it alone may rely on that.
    pub(super) fn is_idle(&self, now_ms: i64) -> bool {
        self.series.load(Relaxed) == 0 && now_ms.saturating_sub(self.met_ms.load(Relaxed)) > DOUBT_MAX_MS
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Upstream may have stored samples of the group up to that time, and did not say.
    pub fn doubt(&self, newest: TimestampMs, now_ms: i64) {
        self.doubt.note(newest, now_ms);
    }

    /// Whether upstream may hold samples of that time, or newer ones, that nobody knows of, and since when.
    #[must_use]
    pub fn doubted(&self, at: TimestampMs, now_ms: i64) -> Option<Doubted> {
        let unanswered = self.doubt.covers(at, now_ms).then_some(Doubted::Unanswered);
        unanswered.or_else(|| self.first_contact.covers(at, now_ms).then_some(Doubted::FirstContact))
    }

    /// The replica's number, adding it if it is new; `None` at the bound. Kept is its [`short_name`].
    pub fn replica_number(&self, name: &str) -> Option<ReplicaId> {
        let name = &*short_name(name);
        let known = |replicas: &[Arc<Replica>]| replicas.iter().position(|r| *r.name == *name);
        if let Some(i) = known(&self.replicas.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(ReplicaId(i as u8));
        }
        let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = known(&replicas) {
            return Some(ReplicaId(i as u8));
        }
        if replicas.len() >= REPLICAS_MAX {
            return None;
        }
        replicas.push(Arc::new(Replica {
            name: name.into(),
            owned: AtomicI64::new(0),
            last_seen_ms: AtomicI64::new(i64::MIN),
            arrived_ms: AtomicI64::new(i64::MIN),
            requests: AtomicI64::new(0),
            delay_ms: AtomicI64::new(i64::MAX),
        }));
        Some(ReplicaId(replicas.len() as u8 - 1))
    }

    /// The replica with a number that the window gave.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<Arc<Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(id.0)).cloned()
    }

    /// All replicas.
    #[must_use]
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows all replicas to `look`, in the order of their numbers, without taking hold of any. A replica that is new has to
    /// wait for `look`.
    pub fn each_replica(&self, mut look: impl FnMut(ReplicaId, &Replica)) {
        let replicas = self.replicas.read().unwrap_or_else(PoisonError::into_inner);
        replicas.iter().enumerate().for_each(|(number, replica)| look(ReplicaId(number as u8), replica));
    }

    pub(super) fn own(&self, id: ReplicaId, series: i64) {
        if let Some(replica) = self.replica(id) {
            replica.owned.fetch_add(series, Relaxed);
        }
    }
}

impl Replica {
    /// The replica label's value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Series that it owns now.
    #[must_use]
    pub fn owned(&self) -> i64 {
        self.owned.load(Relaxed)
    }

    /// The newest sample time it has shown, in ms.
    #[must_use]
    pub fn last_seen_ms(&self) -> Option<i64> {
        let ms = self.last_seen_ms.load(Relaxed);
        (ms != i64::MIN).then_some(ms)
    }

    /// Notes a request that arrived at `now_ms` of the wall clock, by the newest sample time in it.
    pub fn see(&self, newest_ms: i64, now_ms: i64) {
        self.last_seen_ms.fetch_max(newest_ms, Relaxed);
        self.arrived_ms.fetch_max(now_ms, Relaxed);
        self.delay_ms.fetch_min(now_ms.saturating_sub(newest_ms), Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }

    /// When its newest request arrived, in ms of the wall clock.
    #[must_use]
    pub fn arrived_ms(&self) -> Option<i64> {
        let ms = self.arrived_ms.load(Relaxed);
        (ms != i64::MIN).then_some(ms)
    }

    /// What has arrived since the last call, if anything. For one caller: what it takes is gone.
    pub fn take_arrivals(&self) -> Option<Arrivals> {
        let requests = self.requests.swap(0, Relaxed);
        let delay_ms = self.delay_ms.swap(i64::MAX, Relaxed);
        // One that arrives between the two is counted in the next stretch, without its delay.
        (requests > 0 && delay_ms != i64::MAX).then_some(Arrivals { requests, delay_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::TenantHash;

    #[test]
    fn replicas_keep_their_numbers() {
        let group = a_group();
        for i in 0..REPLICAS_MAX {
            assert_eq!(group.replica_number(&format!("r{i}")), Some(ReplicaId(i as u8)));
        }
        assert_eq!(group.replica_number("one too many"), None);
        assert_eq!(group.replica_number("r3"), Some(ReplicaId(3)));
        let mut names = Vec::new();
        group.each_replica(|_, replica| names.push(replica.name().to_owned()));
        assert_eq!((names.len(), names[254].as_str()), (REPLICAS_MAX, "r254"));
    }

    #[test]
    fn a_replica_remembers_its_newest_sample() {
        let group = Group::new(GroupKey(1), 0, "g", nobody(), 1_000);
        assert_eq!(group.age_ms(7_500), 6_500);
        let id = group.replica_number("a").unwrap();
        let replica = group.replica(id).unwrap();
        assert_eq!((replica.name(), replica.last_seen_ms()), ("a", None));
        for (ms, newest) in [(-5, -5), (30, 30), (20, 30)] {
            replica.see(ms, 100);
            assert_eq!(replica.last_seen_ms(), Some(newest));
        }
    }

    #[test]
    fn arrivals_are_taken_once() {
        let group = a_group();
        let replica = group.replica_number("a").and_then(|id| group.replica(id)).unwrap();
        assert_eq!((replica.arrived_ms(), replica.take_arrivals()), (None, None));
        for (newest, now) in [(1_000, 6_000), (14_000, 13_500), (13_000, 14_000)] {
            replica.see(newest, now);
        }
        assert_eq!(replica.take_arrivals(), Some(Arrivals { requests: 3, delay_ms: -500 }));
        assert_eq!((replica.arrived_ms(), replica.take_arrivals()), (Some(14_000), None));
    }

    /// Or health would tell of a replica whose clock is off by 300 million years.
    #[test]
    fn a_request_that_is_counted_by_halves_tells_no_delay() {
        let group = a_group();
        let replica = group.replica_number("a").and_then(|id| group.replica(id)).unwrap();
        replica.requests.store(1, Relaxed);
        assert_eq!(replica.take_arrivals(), None, "its delay was taken with the stretch before");
        replica.delay_ms.store(500, Relaxed);
        assert_eq!(replica.take_arrivals(), None, "it is about to be counted");
    }

    fn nobody() -> Arc<Tenant> {
        Arc::new(Tenant::new(TenantHash(0)))
    }

    fn a_group() -> Group {
        Group::new(GroupKey(1), 0, "g", nobody(), 0)
    }
}
