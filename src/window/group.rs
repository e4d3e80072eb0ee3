//! An HA group and its replicas, and what is counted of them in place.
//!
//! A group is found when one of its series is born, a replica of it once a request. Replicas only become more, up to a
//! bound: beyond it a newcomer is not deduplicated. Refuses to know series, and which groups there are.

use super::backlog::{Backlogs, GONE_AFTER_MS};
use super::doubt::{DOUBT_MAX_MS, Doubt};
use super::front::{Fronts, waits};
use super::sync::{AtomicI64, AtomicUsize, Mutex, MutexGuard, RwLock};
use super::tenant::Tenant;
use crate::policy::{ReplicaId, TimestampMs};
use crate::series::GroupKey;
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
    /// Of flights without an answer.
    doubt: Doubt,
}

/// How far the replicas of a group have come.
#[derive(Debug, Default)]
struct Progress {
    fronts: Fronts,
    backlogs: Backlogs,
    /// When the first sender came again after none of them had come, and for how long that was.
    back: Option<(i64, i64)>,
}

impl Progress {
    fn others(&self, replica: ReplicaId, request: u64, now_ms: i64) -> Others {
        let refused = self.backlogs.oldest_refused(replica, now_ms, |other| self.fronts.counts(other));
        let behind = self.backlogs.behind(replica).filter_map(|other| self.fronts.recent(other, now_ms));
        let inherited = self.backlogs.oldest_refused(replica, now_ms, |other| {
            self.fronts.counts(other) && self.backlogs.has_inherited(other)
        });
        // Between two of its requests nothing of it is refused, and still it has the rest to bring.
        let inheriting = self.backlogs.behind(replica).filter(|other| self.backlogs.has_inherited(*other));
        let about_to = inheriting.filter_map(|other| self.fronts.just_now(other, now_ms));
        let inherited = about_to.chain(inherited).min();
        let slowest = behind.chain(refused).chain(self.fronts.stuck(replica, now_ms)).min();
        let oldest = self.fronts.oldest_other(replica, now_ms);
        let delivering = self.fronts.delivering(replica, request, now_ms);
        let back = self.back.filter(|(since_ms, _)| (0..GONE_AFTER_MS).contains(&(now_ms - since_ms)));
        let silent_ms = back.map_or(0, |(_, for_ms)| for_ms);
        Others { oldest, refused, inherited, slowest, delivering, silent_ms }
    }

    fn begin(&mut self, replica: ReplicaId, begun: Begun, now_ms: i64) {
        let Begun { request, oldest, newest, retry, several } = begun;
        let unsettled = self.backlogs.begin(replica, request, now_ms);
        if retry && !self.fronts.knows(replica) {
            self.backlogs.inherit(replica);
        }
        // What was refused here comes again, however long that took: nobody was kept from coming.
        if several && unsettled.is_none() {
            self.look_elsewhere(replica, retry, now_ms);
        }
        // What is settled of it is nothing to wait for.
        let [oldest, newest] = [oldest, newest].map(|time| unsettled.unwrap_or(time));
        self.fronts.begin(replica, request, (oldest, newest), now_ms);
    }

    /// Looks whether anybody was kept from coming here, or could not. `tried`: it has tried before, elsewhere.
    fn look_elsewhere(&mut self, replica: ReplicaId, tried: bool, now_ms: i64) {
        // It was not heard of for longer than a sender waits: somebody else has refused it, or the way was cut.
        if tried && self.fronts.silent_ms(replica, now_ms) > GONE_AFTER_MS {
            self.backlogs.fall_behind(replica, None, now_ms);
        }
        let silent_ms = self.fronts.all_silent_ms(now_ms);
        if silent_ms > GONE_AFTER_MS {
            self.back = Some((now_ms, silent_ms));
        }
    }
}

/// How far the other replicas of a group are, when a request begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others {
    /// The oldest front: see `front.rs`.
    pub oldest: Option<TimestampMs>,
    /// The oldest time in requests that were refused a moment ago: see `backlog.rs`.
    pub refused: Option<TimestampMs>,
    /// The same of those whose backlog is older than this window.
    pub inherited: Option<TimestampMs>,
    /// How far the slowest is that has not caught up since: not newer than `refused`.
    pub slowest: Option<TimestampMs>,
    /// How far the slowest of them is whose request is being served: see `front.rs`.
    pub delivering: Option<TimestampMs>,
    /// How long no replica of the group came, if the first one came again a moment ago: the others may have a backlog, and be on their
    /// way. Else 0.
    pub silent_ms: i64,
}

impl Others {
    /// Whether a jump to `to` of a series with that interval (ms, 0 = unknown) waits for them: it would overtake what they still
    /// have to deliver, or may, since nobody has been heard of for longer than any of its samples may be apart.
    #[must_use]
    pub fn hold_up(&self, to: TimestampMs, interval: i64) -> bool {
        waits(self.oldest, to, interval) || interval > 0 && self.silent_ms > 2 * interval
    }
}

/// A request of a replica that begins.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// See [`Seen::request`].
    pub request: u64,
    /// Its oldest sample time.
    pub oldest: TimestampMs,
    /// Its newest sample time.
    pub newest: TimestampMs,
    /// Its sender has tried before, or, where there are several instances, has to come again because the group is new here.
    pub retry: bool,
    /// There are other instances, to which its replica may have brought what was refused there.
    pub several: bool,
}

/// What a request has shown of its replica.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Tells the request from others, and is the same when it is tried again.
    pub request: u64,
    /// The newest sample time in it.
    pub newest: TimestampMs,
    /// The oldest sample time in it that has to come again, if any.
    pub unsettled: Option<TimestampMs>,
    /// Upstream has taken something of it, or judged it.
    pub works: bool,
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
        if self.is_forgotten() {
            // Of those that meet it at the same moment the first one counts.
            let _ = self.born_ms.compare_exchange(UNBORN, now_ms, Relaxed, Relaxed);
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
            self.doubt(newest, now_ms);
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

    /// Whether upstream may hold samples of that time, or newer ones, that nobody knows of.
    #[must_use]
    pub fn is_in_doubt(&self, at: TimestampMs, now_ms: i64) -> bool {
        self.doubt.covers(at, now_ms)
    }

    /// The replica's number, adding it if it is new; `None` at the bound.
    pub fn replica_number(&self, name: &str) -> Option<ReplicaId> {
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

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);
    const T: fn(i64) -> TimestampMs = |seconds| TimestampMs(seconds * 1000);

    fn nobody() -> Arc<Tenant> {
        Arc::new(Tenant::new(TenantHash(0)))
    }

    fn a_group() -> Group {
        Group::new(GroupKey(1), 0, "g", nobody(), 0)
    }

    fn begins(
        group: &Group,
        replica: ReplicaId,
        (request, newest): (u64, i64),
        retry: bool,
        now_ms: i64,
    ) -> Others {
        let begun = Begun { request, oldest: T(newest), newest: T(newest), retry, several: false };
        group.begin_request(replica, begun, now_ms)
    }

    /// Where there are other instances.
    fn comes(group: &Group, replica: ReplicaId, request: u64, retry: bool, now_ms: i64) -> Others {
        let at = T(now_ms / 1000);
        let begun = Begun { request, oldest: at, newest: at, retry, several: true };
        group.begin_request(replica, begun, now_ms)
    }

    fn ends(
        group: &Group,
        replica: ReplicaId,
        request: u64,
        newest: i64,
        unsettled: Option<i64>,
        now_ms: i64,
    ) {
        let seen =
            Seen { request, newest: T(newest), unsettled: unsettled.map(T), works: unsettled.is_none() };
        group.end_request(replica, seen, now_ms);
    }

    /// As a request of the replica finds it.
    fn finds(group: &Group, replica: ReplicaId, now_ms: i64) -> [Option<i64>; 3] {
        let Others { oldest, refused, slowest, .. } = begins(group, replica, (u64::MAX, 0), false, now_ms);
        group.leave_request(replica, u64::MAX);
        [oldest, refused, slowest].map(|time| time.map(|t| t.0 / 1000))
    }

    #[test]
    fn a_request_learns_who_was_refused_and_how_far_the_slowest_is() {
        let group = a_group();
        ends(&group, A, 1, 100, None, 100_000);
        ends(&group, B, 1, 103, None, 103_000);
        assert_eq!(finds(&group, B, 104_000), [Some(100), None, None], "nobody was refused");
        ends(&group, A, 2, 115, Some(110), 115_000);
        assert_eq!(finds(&group, B, 115_000), [Some(100), Some(110), Some(110)]);
        assert_eq!(finds(&group, A, 115_000), [None, None, None]);
        // It is settled, but A is not yet where the group was.
        ends(&group, B, 2, 118, Some(118), 118_000);
        ends(&group, A, 3, 120, Some(116), 119_000);
        ends(&group, A, 2, 115, None, 119_000);
        ends(&group, A, 3, 117, None, 119_500);
        assert_eq!(finds(&group, B, 120_000), [Some(100), None, Some(110)]);
        // And now it is.
        for (request, at) in [(4, 130), (5, 135)] {
            ends(&group, A, request, at, None, at * 1000);
        }
        assert_eq!(finds(&group, B, 136_000), [Some(110), None, None]);
    }

    /// Upstream has series of it that this window does not know, so no birth may overtake it.
    #[test]
    fn who_has_tried_before_the_window_began_has_a_backlog() {
        let group = a_group();
        let _ = begins(&group, A, (1, 90), true, 100_000);
        ends(&group, A, 1, 100, Some(90), 100_000);
        let _ = begins(&group, B, (1, 95), false, 100_000);
        ends(&group, B, 1, 100, Some(95), 100_000);
        let inherited = |replica| group.others(replica, 9, 101_000).inherited;
        assert_eq!((inherited(A), inherited(B)), (None, Some(T(90))));
        // It is a retry of what was refused here.
        let _ = begins(&group, B, (1, 95), true, 101_000);
        assert_eq!(inherited(A), None);
    }

    /// Its next request is not here yet, and already another replica's sample would be the first of a series.
    #[test]
    fn who_has_tried_before_the_window_began_has_a_backlog_between_two_requests_too() {
        let group = a_group();
        let _ = begins(&group, A, (1, 90), true, 100_000);
        ends(&group, A, 1, 91, Some(90), 100_000);
        let _ = begins(&group, B, (1, 95), false, 100_000);
        ends(&group, B, 1, 100, Some(100), 100_000);
        ends(&group, A, 1, 91, None, 101_000);
        assert_eq!(group.others(B, 9, 101_250).inherited, Some(T(91)));
        assert_eq!(group.others(B, 9, 101_251).inherited, None, "it has no more, or is away");
        for (request, at) in [(2, 95), (3, 100), (4, 101)] {
            ends(&group, A, request, at, None, at * 1000 + 11_000);
        }
        assert_eq!(group.others(B, 9, 112_000).inherited, None);
    }

    /// By another instance that did not reach this one, say. Or a replica that has lost what it had would close the door on it.
    #[test]
    fn who_comes_again_with_what_was_refused_elsewhere_is_behind() {
        let group = a_group();
        ends(&group, A, 1, 100, None, 100_000);
        ends(&group, B, 1, 100, None, 100_000);
        let _ = comes(&group, A, 2, true, 106_000);
        assert_eq!(
            group.others(B, 9, 106_000).slowest,
            None,
            "its answer got lost: it was here a moment ago"
        );
        ends(&group, A, 2, 106, None, 106_000);
        let _ = comes(&group, A, 3, false, 130_000);
        assert_eq!(group.others(B, 9, 130_000).slowest, None, "it has not tried before");
        ends(&group, A, 3, 107, None, 130_000);
        let _ = comes(&group, A, 4, true, 150_000);
        assert_eq!(group.others(B, 9, 150_000).slowest, Some(T(107)));
        ends(&group, A, 4, 110, None, 150_100);
        assert_eq!(group.others(B, 9, 150_200).slowest, Some(T(110)), "until it has caught up");
        // By the clock it was at 127 s.
        ends(&group, A, 5, 126, None, 160_000);
        ends(&group, A, 6, 128, None, 165_000);
        ends(&group, A, 7, 130, None, 170_000);
        assert_eq!(group.others(B, 9, 170_000).slowest, None);
    }

    #[test]
    fn who_is_alone_has_refused_all_that_was_refused() {
        let group = a_group();
        ends(&group, A, 1, 100, None, 100_000);
        ends(&group, B, 1, 100, None, 100_000);
        let found = begins(&group, A, (2, 100), true, 150_000);
        assert_eq!((found.silent_ms, group.others(B, 9, 150_000).slowest), (0, None));
    }

    #[test]
    fn who_is_first_after_a_silence_of_all_is_told() {
        let group = a_group();
        let silent = |replica, now_ms| {
            let silent_ms = comes(&group, replica, 9, false, now_ms).silent_ms;
            ends(&group, replica, 9, now_ms / 1000, None, now_ms);
            silent_ms
        };
        assert_eq!(silent(A, 100_000), 0, "nothing is known of it");
        assert_eq!(silent(B, 105_000), 0);
        assert_eq!(silent(A, 111_000), 0, "6 s are no silence");
        assert_eq!(silent(B, 117_001), 6_001);
        assert_eq!((silent(A, 123_000), silent(B, 123_001)), (6_001, 0), "for as long as senders pause");
        let hold_up =
            |silent_ms, interval| Others { silent_ms, ..Others::default() }.hold_up(T(200), interval);
        assert!(hold_up(6_001, 3_000) && !hold_up(6_001, 3_001), "its samples may be that far apart");
        assert!(!hold_up(6_001, 0), "nobody knows how far");
        let _ = comes(&group, A, 10, false, 132_000);
        assert_eq!(silent(B, 160_000), 0, "one of them is being served");
    }

    /// Of a retry only what was not settled, or two whose requests have old samples as well would wait for each other.
    #[test]
    fn what_is_being_delivered_is_what_is_not_settled() {
        let group = a_group();
        ends(&group, A, 1, 100, None, 100_000);
        let delivering = |now_ms| group.others(B, 9, now_ms).delivering;
        let _ = begins(&group, A, (2, 101), false, 101_000);
        assert_eq!(delivering(111_000), Some(T(101)));
        ends(&group, A, 2, 160, Some(150), 112_000);
        assert_eq!(delivering(112_000), None);
        let _ = begins(&group, A, (2, 101), true, 113_000);
        assert_eq!(delivering(114_000), Some(T(150)));
        group.leave_request(A, 2);
        assert_eq!(delivering(114_000), None);
    }

    /// A request that upstream never takes would keep all others waiting.
    #[test]
    fn what_is_refused_for_ever_while_upstream_works_is_waited_for_no_more() {
        let group = a_group();
        for second in 100..=500 {
            if second % 5 == 0 {
                ends(&group, A, 1, 100, Some(100), second * 1000);
            }
            ends(&group, A, 2, second, None, second * 1000);
            let expected = if second < 400 { Some(100) } else { None };
            assert_eq!(finds(&group, B, second * 1000), [expected; 3], "{second}");
        }
    }

    /// A process before this one may have sent what it did not live to see the answer of.
    #[test]
    fn what_comes_first_is_in_doubt() {
        let group = a_group();
        ends(&group, A, 1, 100, None, 10_000);
        ends(&group, A, 2, 115, None, 10_001);
        assert!(group.is_in_doubt(T(100), 10_001));
        assert!(!group.is_in_doubt(T(101), 10_001));
    }

    /// Or those of a request that upstream never takes would be waited for as long as its replica lives.
    #[test]
    fn nobody_waits_for_what_a_replica_that_stands_still_delivers() {
        let group = a_group();
        for second in 100..=500 {
            if second % 5 == 0 {
                let _ = begins(&group, A, (1, 100), true, second * 1000);
                ends(&group, A, 1, 100, Some(100), second * 1000);
            }
            ends(&group, B, 2, second, None, second * 1000);
        }
        let _ = begins(&group, A, (1, 100), true, 501_000);
        let others = group.others(B, 9, 502_000);
        assert_eq!((others.oldest, others.refused, others.slowest), (None, None, None));
        assert_eq!(others.delivering, None, "upstream has worked for five minutes");
    }

    /// Or a sender that pauses for longer than others would be held up for ever.
    #[test]
    fn a_silence_ends_when_what_was_refused_for_it_comes_again() {
        let group = a_group();
        ends(&group, A, 1, 100, None, 100_000);
        let holds_up = [160_000, 167_000].map(|now_ms| {
            let held_up = comes(&group, A, 2, now_ms > 160_000, now_ms).hold_up(T(160), 1_000);
            ends(&group, A, 2, 160, held_up.then_some(160), now_ms);
            held_up
        });
        assert_eq!(holds_up, [true, false]);
    }
}
