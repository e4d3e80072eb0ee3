//! Fronts: how far behind each replica of a group still is, so that nobody's jump overtakes another one's backlog.
//!
//! Upstream takes no sample older than the newest of its series. After an outage a replica that kept its backlog
//! delivers *then*, one that restarted delivers *now*: the second has to wait for the first, or the backlog is lost.
//! The front of a replica is the oldest sample time that its requests of the last 30 s left unsettled, or reached.
//! A few words a replica, noted once a request. Refuses to read the clock: `now_ms` is the wall clock.

use crate::policy::{ReplicaId, TimestampMs};

#[cfg(test)]
mod tests;

/// Fronts are made of the requests of this time, in buckets.
const BUCKET_MS: i64 = 5_000;
const BUCKETS: usize = 7;
/// Where a replica is now, and not half a minute ago.
const RECENT_BUCKETS: i64 = 2;
/// A sender that has more to bring has brought it by then.
const JUST_NOW_MS: i64 = 250;
/// A request in pieces keeps all that is queued behind it, when no request of its replica has ended for so long.
const STUCK_AFTER_MS: i64 = 2_000;
/// A request that is being served has ended by then, whatever became of it.
const OPEN_MAX_MS: i64 = 60_000;
/// A front that stands still for so long while upstream works holds nobody up any more.
const STILL_MAX_MS: i64 = 5 * 60 * 1000;
/// Nobody waits for a replica that is behind by less.
const BEHIND_MIN_MS: i64 = 60_000;

/// The fronts of the replicas of one group.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    fronts: Vec<Front>,
    /// When a request of any of them last found upstream working.
    worked_ms: Option<i64>,
}

#[derive(Debug)]
struct Front {
    replica: ReplicaId,
    /// The oldest time noted in each bucket of the clock, and which bucket it was.
    buckets: [(i64, i64); BUCKETS],
    /// The front when it last moved.
    stood_at: Option<i64>,
    /// How long it has not moved while upstream worked.
    still_ms: i64,
    /// What was noted last, and when.
    last: i64,
    noted_ms: i64,
    /// The newest time that was noted.
    reached: i64,
    /// When it came with what is far beyond that, and the oldest time noted since: what is between, it has lost, or it had nothing. What it
    /// was refused before is no reason any more not to wait for what the others were.
    skipped: Option<(i64, i64)>,
    /// Requests of it that are being served.
    open: Vec<Open>,
}

/// A request that is being served: its oldest and its newest sample time, and since when.
#[derive(Debug)]
struct Open {
    request: u64,
    oldest: i64,
    newest: i64,
    since_ms: i64,
    /// Upstream wants it in pieces.
    in_pieces: bool,
}

impl Fronts {
    /// Notes a request of a replica. `at`: its oldest unsettled sample time, or its newest one if all are settled.
    /// `works`: upstream has taken something of it, or judged it.
    pub(super) fn note(&mut self, replica: ReplicaId, at: TimestampMs, works: bool, now_ms: i64) {
        let known = self.fronts.iter().position(|front| front.replica == replica);
        let known = known.unwrap_or_else(|| {
            self.fronts.push(Front::new(replica, now_ms));
            self.fronts.len() - 1
        });
        if works {
            self.worked_ms = Some(now_ms);
        }
        let front = &mut self.fronts[known];
        // Also if it is another one's: a request that upstream takes of nobody must not hold up the others for ever.
        let works = self.worked_ms.is_some_and(|worked| worked >= front.noted_ms);
        front.note(at.0, works, now_ms);
    }

    /// The oldest front of the others: who jumps far beyond it has to [wait](waits). `None` if its own is no newer:
    /// whoever is the farthest behind never waits, so that somebody always goes on. Its own is where it is since it
    /// [skipped](Front::skipped) something.
    pub(super) fn oldest_other(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        let counts = |front: &&Front| front.still_ms < STILL_MAX_MS;
        let at = |front: &Front| front.at(now_ms, BUCKETS as i64);
        let counting = || self.fronts.iter().filter(counts);
        let own = counting().find(|front| front.replica == replica);
        let own = own.and_then(|front| front.since_skip(now_ms).or_else(|| at(front)));
        let oldest = counting().filter(|front| front.replica != replica).filter_map(at).min();
        oldest.filter(|other| own.is_none_or(|own| *other < own)).map(TimestampMs)
    }

    /// Whether a request of the replica has been noted.
    pub(super) fn knows(&self, replica: ReplicaId) -> bool {
        self.fronts.iter().any(|front| front.replica == replica)
    }

    /// For how long nothing of a replica has been here; 0 if nothing is known of it, or a request of it is being served.
    pub(super) fn silent_ms(&self, replica: ReplicaId, now_ms: i64) -> i64 {
        let front = self.fronts.iter().find(|front| front.replica == replica && front.open.is_empty());
        front.map_or(0, |front| now_ms.saturating_sub(front.noted_ms))
    }

    /// The same of all replicas.
    pub(super) fn all_silent_ms(&self, now_ms: i64) -> i64 {
        self.fronts.iter().map(|front| self.silent_ms(front.replica, now_ms)).min().unwrap_or(0)
    }

    /// A request of a replica begins. `request`: tells it from others, until it [ends](Self::end). `times`: its oldest and its newest
    /// sample time; twice the oldest one that was refused of it before.
    pub(super) fn begin(
        &mut self,
        replica: ReplicaId,
        request: u64,
        times: (TimestampMs, TimestampMs),
        now_ms: i64,
    ) {
        // A replica's first request of all is none to wait for: there is a front of what has been noted, and the hold of a group that is
        // new here lasts until all of its senders were. Whoever comes later than that is unknown for as long as one request takes.
        if let Some(front) = self.fronts.iter_mut().find(|front| front.replica == replica) {
            front.open.retain(|open| open.is_live(now_ms));
            let (oldest, newest) = (times.0.0, times.1.0);
            if oldest.saturating_sub(front.reached) > BEHIND_MIN_MS {
                front.skipped = Some((now_ms, oldest));
            }
            front.open.push(Open { request, oldest, newest, since_ms: now_ms, in_pieces: false });
        }
    }

    /// A request of a replica goes on in pieces.
    pub(super) fn split(&mut self, replica: ReplicaId, request: u64) {
        let front = self.fronts.iter_mut().find(|front| front.replica == replica);
        let open = front.into_iter().flat_map(|front| &mut front.open);
        open.filter(|open| open.request == request).for_each(|open| open.in_pieces = true);
    }

    /// A request of a replica has ended, whether there is something to [note](Self::note) of it or not.
    pub(super) fn end(&mut self, replica: ReplicaId, request: u64) {
        if let Some(front) = self.fronts.iter_mut().find(|front| front.replica == replica)
            && let Some(nth) = front.open.iter().position(|open| open.request == request)
        {
            front.open.swap_remove(nth);
        }
    }

    /// Whether anybody waits for a replica: not for one that stands still although upstream works.
    pub(super) fn counts(&self, replica: ReplicaId) -> bool {
        self.fronts.iter().all(|front| front.replica != replica || front.still_ms < STILL_MAX_MS)
    }

    /// How far the others are that have been at the pieces of a request for long: what they have by now is queued behind that.
    pub(super) fn stuck(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        let others = self.fronts.iter().filter(|front| front.replica != replica && front.is_stuck(now_ms));
        others.filter_map(|front| self.recent(front.replica, now_ms)).min()
    }

    /// How far the slowest other replica is whose request is being served, and is not this one: what is queued behind that is newer, and
    /// nothing else of it is under way.
    pub(super) fn delivering(&self, replica: ReplicaId, request: u64, now_ms: i64) -> Option<TimestampMs> {
        let others =
            self.fronts.iter().filter(|front| front.replica != replica && front.still_ms < STILL_MAX_MS);
        let open = others.flat_map(|front| &front.open);
        let open = open.filter(|open| open.request != request && open.is_live(now_ms));
        open.map(Open::brings_to).min().map(TimestampMs)
    }

    /// How far a replica came in its last request, if that ended just now: its next one is on its way.
    pub(super) fn just_now(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        let front = self.fronts.iter().find(|front| front.replica == replica)?;
        ((now_ms - front.noted_ms).abs() <= JUST_NOW_MS).then_some(TimestampMs(front.last))
    }

    /// How far a replica was when it was last heard of, if that is a moment ago or it is being served.
    pub(super) fn recent(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        let front =
            self.fronts.iter().find(|front| front.replica == replica && front.still_ms < STILL_MAX_MS)?;
        let served = front.open.iter().any(|open| open.is_live(now_ms));
        front.at(now_ms, if served { BUCKETS as i64 } else { RECENT_BUCKETS })?;
        front.at(front.noted_ms, RECENT_BUCKETS).map(TimestampMs)
    }
}

/// Whether a jump to `to` of a series with that interval (ms, 0 = unknown) overtakes `oldest_other`.
pub(super) fn waits(oldest_other: Option<TimestampMs>, to: TimestampMs, interval: i64) -> bool {
    oldest_other.is_some_and(|front| front.0 < to.0.saturating_sub((2 * interval).max(BEHIND_MIN_MS)))
}

impl Front {
    fn new(replica: ReplicaId, now_ms: i64) -> Self {
        let buckets = [(i64::MIN, i64::MAX); BUCKETS];
        Self {
            replica,
            buckets,
            stood_at: None,
            still_ms: 0,
            last: i64::MIN,
            noted_ms: now_ms,
            reached: i64::MIN,
            skipped: None,
            open: Vec::new(),
        }
    }

    fn note(&mut self, at: i64, works: bool, now_ms: i64) {
        let number = now_ms.div_euclid(BUCKET_MS);
        let bucket = &mut self.buckets[number.rem_euclid(BUCKETS as i64) as usize];
        *bucket = if bucket.0 == number { (number, bucket.1.min(at)) } else { (number, at) };
        let front = self.at(now_ms, BUCKETS as i64);
        if front != self.stood_at {
            (self.stood_at, self.still_ms) = (front, 0);
        } else if works {
            self.still_ms += (now_ms - self.noted_ms).max(0);
        }
        (self.last, self.noted_ms) = (at, now_ms);
        self.reached = self.reached.max(at);
        if let Some((_, oldest)) = &mut self.skipped {
            *oldest = at.min(*oldest);
        }
    }

    /// Where it is since it skipped something; `None` if that was before all that is remembered.
    fn since_skip(&self, now_ms: i64) -> Option<i64> {
        let remembered_ms = BUCKETS as i64 * BUCKET_MS;
        self.skipped.filter(|(since_ms, _)| now_ms - since_ms <= remembered_ms).map(|(_, oldest)| oldest)
    }

    fn is_stuck(&self, now_ms: i64) -> bool {
        let mut in_pieces = self.open.iter().filter(|open| open.in_pieces && open.is_live(now_ms));
        in_pieces.any(|open| now_ms.saturating_sub(self.noted_ms.max(open.since_ms)) > STUCK_AFTER_MS)
    }

    fn at(&self, now_ms: i64, buckets: i64) -> Option<i64> {
        let now = now_ms.div_euclid(BUCKET_MS);
        let recent = self.buckets.iter().filter(|(number, _)| (now - buckets + 1..=now).contains(number));
        recent.map(|(_, at)| *at).min()
    }
}

impl Open {
    /// How far its replica is for sure when it has ended. In pieces, those that are not sent yet may be overtaken.
    fn brings_to(&self) -> i64 {
        if self.in_pieces { self.oldest } else { self.newest }
    }

    fn is_live(&self, now_ms: i64) -> bool {
        // A clock that has been set back may show less than then.
        (now_ms - self.since_ms).abs() <= OPEN_MAX_MS
    }
}
